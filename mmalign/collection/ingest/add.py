"""Bringing a collection up to date with a source that somebody names: what it stands for, what stays out, one run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mmalign.collection.description import CollectionManifest, amend
from mmalign.collection.ingest.run import Ingest
from mmalign.collection.vector_rows import plain_metadata
from mmalign.encoders import Encoder
from mmalign.errors import AddInterrupted, InputError
from mmalign.media import (
    MediaPolicy,
    Pattern,
    check_patterns,
    check_policy,
    exclusion_of,
    join_patterns,
    open_source,
    source_base,
    source_folder,
)
from mmalign.store import Removed, Store
from mmalign.types import AddReport, Note, as_ids, check_flag, check_integer, check_type


@dataclass(frozen=True, slots=True, kw_only=True)
class AddOptions:
    """How to bring a collection up to date; each as for `Collection.add`.

    Attributes:
        metadata: Columns to set for every item.
        prune: Whether items go whose file is gone or excluded.
        exclude: Patterns of what stays out.
        restore: Whether what was removed comes back.
        progress: Whether to show progress bars.
        batch_size: Pictures that go through the encoder at once.
        policy: What may be read.
        as_text: Names of columns that are to be text.
    """

    metadata: Mapping[str, Any] | None = None
    prune: bool = False
    exclude: str | Sequence[str] = ()
    restore: bool = False
    progress: bool = True
    batch_size: int = 32
    policy: MediaPolicy | None = None
    as_text: Iterable[str] = ()

    def __post_init__(self) -> None:
        check_flag("prune", self.prune)
        check_flag("restore", self.restore)
        check_integer("batch_size", self.batch_size, least=1)
        check_policy(self.policy)
        if self.metadata is not None:
            check_type("metadata", self.metadata, Mapping, "a mapping of column names to values")


class AddSource:
    """A source that is opened, and what is to be done with it; nothing of the collection is changed before `run`.

    Args:
        path: The collection.
        description: What it is made with, and what was excluded until now.
        source: As for `Collection.add`.
        options: How.

    Raises:
        As `Collection.add`.
    """

    def __init__(self, path: Path, description: CollectionManifest, source: Any, options: AddOptions) -> None:
        self._path, self._options = path, options
        self._folder = source_folder(source)
        if options.prune and self._folder is None:
            raise InputError("prune needs a folder, a table or a glob as source, to know whose files are gone")
        self._base = source_base(source)
        self._patterns = check_patterns(options.exclude)
        self._exclusion = exclusion_of(source, [Pattern(*one) for one in self._excluding(description).excluded])
        self._as_text = as_ids(options.as_text, name="as_text")
        self._metadata = plain_metadata(options.metadata or {})
        self._items = open_source(source, metadata=self._metadata, exclusion=self._exclusion)

    def _excluding(self, known: CollectionManifest) -> CollectionManifest:
        joined = join_patterns([Pattern(*one) for one in known.excluded], self._patterns, self._base)
        return replace(known, excluded=tuple((one.text, one.folder) for one in joined))

    def run(
        self, store: Store, encoder: Callable[[], Encoder], *, refresh_views: Callable[[], tuple[Note, ...]]
    ) -> AddReport:
        """Bring the collection up to date; its patterns are kept from now on.

        Args:
            store: The items, for writing.
            encoder: Gives the encoder; called only when a picture must be encoded.
            refresh_views: Brings the views in line with the items, and says what could not be done.

        Returns:
            What was done.

        Raises:
            As `Collection.add`.
        """
        options = self._options
        if self._patterns:
            amend(self._path, self._excluding)
        store.plan([self._metadata], strict=lambda _: "metadata for every item")
        ingest = Ingest(
            store,
            encoder,
            removed=Removed.read(self._path),
            restore=options.restore,
            batch_size=options.batch_size,
            progress=options.progress,
            policy=options.policy,
            as_text=self._as_text,
        )
        with store.reads_long():
            report = ingest.run(
                self._items,
                metadata=tuple(options.metadata or ()),
                folder=None if self._folder is None else str(self._folder),
                prune=options.prune,
                exclusion=self._exclusion,
            )
        store.compact()
        try:
            notes = refresh_views()
        except KeyboardInterrupt:
            raise AddInterrupted(report, 0) from None
        return replace(report, notes=(*report.notes, *notes))
