"""A view: one way to look at the items, such as by their captions.

    views/<name>/table.lance     a row for each part of an item: what it says, and its embedding
    views/<name>/index/          versions of its index, and CURRENT, which names the one in use
    views/<name>/.lock           held by who writes to the table

The table is made of what the items hold, so that nothing of it can be lost, and its folder can be deleted at any time.
It is made when the view is first searched or given an index, and from then on brought in line with the items by each
ingest, and by each search for what else has changed. Collections of formats 1 and 2 keep their captions in
`captions.lance` beside the items, without an index.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmalign.collection.indexing import IndexBuilder, SampleQueries
from mmalign.collection.live_recall import LiveCheck, MeasuredWithLogged, check_logged
from mmalign.collection.query_log import LoggedQueries
from mmalign.collection.recheck import RecallCheck, recheck_index
from mmalign.collection.view_refresh import (
    EARLIER_CAPTIONS,
    EARLIER_LOCK,
    FOLDER,
    ViewSpec,
    compare_stored,
    refresh_view,
)
from mmalign.collection.view_search import ViewRows, ViewSearcher
from mmalign.errors import CollectionFormatError, IndexFileError, InputError, MMAlignError, StorageError
from mmalign.index import IndexManifest, lifecycle
from mmalign.search import Searcher, belongs
from mmalign.store import Store
from mmalign.types import Note
from mmalign.utils import lock


class View:
    """One view of a collection's items: its table, its index, what that covers, and the searcher over all of them.

    Args:
        spec: What it is made of.
        fingerprint: The encoder's, or None.
        queries: Gathers what the recall of its index is measured again with.
        logged: Gives the queries that were really asked, where some are kept; its index is measured with them first.

    Attributes:
        name: Its name.
        place: Where it is kept.
    """

    def __init__(
        self,
        spec: ViewSpec,
        *,
        fingerprint: str | None,
        queries: SampleQueries,
        logged: Callable[[], LoggedQueries],
    ) -> None:
        self.name, self.place = spec.name, spec.place
        self._spec = spec
        self._queries = queries
        self._searcher: ViewSearcher | None = None
        self._pointer = None if spec.place.index is None else lifecycle.Pointer(spec.place.index)
        # To embed new texts may take minutes, in which other views can be searched.
        self._lock = threading.Lock()
        self._builder = (
            None
            if spec.place.index is None
            else IndexBuilder(
                spec.place.index,
                self._writer,
                dim=spec.dim,
                fingerprint=fingerprint,
                queries=MeasuredWithLogged(queries, logged, spec.name),
            )
        )

    @property
    def exists(self) -> bool:
        """Whether it was searched before, so that there is a table."""
        return self.place.table.exists()

    # Searching -----------------------------------------------------------------------------------------------------

    def searcher(self, items: Store, *, progress: bool = True) -> ViewSearcher:
        """What searches the rows of the newest items; texts that are new are embedded first.

        Args:
            items: The items at their newest version.
            progress: Whether to show a progress bar.

        Returns:
            The searcher, which is kept as long as nothing has changed.

        Raises:
            StorageError: The disk refused for another reason than that it may only be read.
        """
        with self._lock:
            known = self._searcher
            current = known is not None and known.current
            rows = known.rows if known is not None and current else refresh_view(self._spec, items, progress=progress)
            if known is None or rows is not known.rows or self._index_version() != _version_of(known):
                known = ViewSearcher(rows, self._open_searcher(rows, None if known is None else known.searcher))
                self._searcher = known
            return known

    def refresh(self, items: Store, *, progress: bool = True) -> tuple[Note, ...]:
        """Embed what is new, where this view was asked for before, so that no search waits for it.

        Args:
            items: The items at their newest version.
            progress: Whether to show a progress bar.

        Returns:
            Why that could not be done, if so, such as that the encoder is not here; the next search says it, too.

        Raises:
            StorageError: The disk refused; what was committed is kept.
        """
        if not self.exists:
            return ()
        try:
            with items.reads_long():
                self.searcher(items, progress=progress)
        except StorageError:
            raise
        except MMAlignError as error:
            text = f"the {self.name} that are new are embedded when they are searched: {error}"
            return (Note(text, about=self.name),)
        return ()

    def forget(self) -> None:
        """Keep nothing between calls: what was kept may be of a table that was deleted and made anew."""
        with self._lock:
            self._searcher = None

    def _index_version(self) -> str | None:
        return None if self._pointer is None else self._pointer.version()

    def _open_searcher(self, rows: ViewRows, known: Searcher | None) -> Searcher | None:
        """The table with the index in use, of which as much is kept as still holds."""
        if rows.table is None:
            return None
        if self.place.index is None:
            return Searcher(rows.table.store, None, None)
        # An index that is in memory alone is of no published version, and may be of a table that was made anew since.
        kept = known if known is not None and known.manifest is not None and known.manifest.version else None
        return Searcher.open(rows.table.store, self.place.index, previous=kept)

    # Its index -----------------------------------------------------------------------------------------------------

    @property
    def index_manifest(self) -> IndexManifest | None:
        """What the index in use was built from, or None.

        Raises:
            IndexFileError: It is damaged.
        """
        return None if self.place.index is None else lifecycle.read_manifest(self.place.index)

    def build_index(self, recipe: str, items: Store, *, progress: bool = True, **options: Any) -> IndexManifest | None:
        """Build an index over the rows of the newest items; as `Collection.build_index`.

        Args:
            recipe: As there.
            items: The items.
            progress: Whether to show progress bars.
            options: As there.

        Returns:
            What was built; None where there is nothing to be found, or `auto` needs no index.

        Raises:
            InputError: It can have no index.
        """
        if self._builder is None or self.place.index is None:
            raise InputError(
                f"the {self.name} of a collection of format 1 or 2 are searched exactly; encode it anew to give them "
                "an index: mmalign index --reencode"
            )
        if not len(refresh_view(self._spec, items, progress=progress)):
            lifecycle.withdraw(self.place.index)
            return None
        return self._builder.build(recipe, progress=progress, **options)

    def rebuild_index(self, manifest: IndexManifest, *, progress: bool = True) -> None:
        """Build a design of index that was in use elsewhere or before, where there is a table.

        Args:
            manifest: Of that index.
            progress: Whether to show progress bars.
        """
        if self._builder is not None and self.exists:
            self._builder.rebuild(manifest, progress=progress)

    def index_is_due(self) -> bool:
        """Whether `refresh_index` has something to do; not with a damaged table, which the next search makes anew."""
        if self._builder is None or self._spec.open() is None:
            return False
        try:
            return self._builder.due(self._indexed) != "keep"
        except (CollectionFormatError, StorageError):
            return False

    def refresh_index(self, *, rebuild: bool = False, progress: bool = True) -> None:
        """Give many rows an index, take new ones into it, or build it again, whichever is due.

        Args:
            rebuild: Build it again, whatever is due.
            progress: Whether to show progress bars.

        Raises:
            As `Collection.build_index`.
        """
        if self._builder is not None and self.exists:
            action = "build" if rebuild else self._builder.due(self._indexed)
            self._builder.refresh(action, progress=progress)

    def check_recall(
        self, *, min_recall: float | None = None, k: int = 10, seed: int | None = None, progress: bool = True
    ) -> list[RecallCheck]:
        """Measure what searches of this view find; as `Collection.check_recall`.

        Args:
            min_recall: As there.
            k: As there.
            seed: As there.
            progress: As there.

        Returns:
            The figures for each kind of query.
        """
        if self.place.index is None or self._spec.open() is None:
            return []
        return recheck_index(
            self._indexed(), self._queries, min_recall=min_recall, k=k, seed=seed, view=self.name, progress=progress
        )

    def check_logged(self, logged: LoggedQueries) -> list[LiveCheck]:
        """Measure what searches of this view find of queries that were really asked; see `check_logged`.

        Args:
            logged: The queries, of any view.

        Returns:
            The figures for each kind of query.
        """
        if self.place.index is None or self._spec.open() is None:
            return []
        return check_logged(self._indexed(), logged.of(self.name), view=self.name)

    def summary(self) -> dict[str, Any]:
        """Say what is stored: how many rows, and which index over how many of them; both 0 or None without any.

        Returns:
            `rows`, `index` (its recipe) and `indexed`, JSON-ready.
        """
        rows, manifest = 0, None
        # Whoever asks what a collection holds is not to be stopped by what is made anew at the next search.
        with suppress(StorageError):
            table = self._spec.open()
            rows = 0 if table is None else len(table.store)
        with suppress(IndexFileError):
            manifest = self.index_manifest
        return {
            "rows": rows,
            "index": None if manifest is None else manifest.recipe,
            "indexed": 0 if manifest is None else manifest.rows,
        }

    def _writer(self) -> Store:
        table = self._spec.open()
        if table is None:
            raise StorageError(f"{self.place.table} cannot be read; search {self.name} once, which makes it anew")
        return table.store

    def _indexed(self) -> Searcher:
        """The table as it is, with the index in use."""
        assert self.place.index is not None
        return Searcher.open(self._writer(), self.place.index)

    # Keeping it sound ----------------------------------------------------------------------------------------------

    def clear_work(self) -> bool:
        """Remove what builds of its index on disk have left behind; False where one is under way."""
        return self.place.index is None or lifecycle.clear_work(self.place.index)

    def purge(self, items: Store) -> None:
        """Leave no byte in the table of a row that no item has; the index follows with `purge_index`.

        Args:
            items: The items, at their newest version.

        Raises:
            StorageError: The disk refused.
        """
        if not self.exists:
            return
        with lock(self.place.lock):
            table, look = compare_stored(self._spec, self._spec.wanted(items.latest()))
            if table is None:
                # Damaged or half made; it is made again when it is searched.
                self._spec.remake().store.purge()
                return
            table.store.delete(look.stale)
            table.store.purge()

    def purge_index(self) -> None:
        """Leave no byte of removed rows in any version of the index; the one in use is built again where it has some.

        Raises:
            As `Collection.build_index`.
        """
        if self._builder is None or self.place.index is None:
            return
        if self.exists:
            self._builder.purge(self._indexed)
        else:
            lifecycle.withdraw(self.place.index)
            lifecycle.clean(self.place.index, keep=1)

    def check(self) -> list[str]:
        """Read all rows that are stored, and compare them with their checksums.

        Returns:
            One sentence for each that is damaged; the next search makes it anew.
        """
        if not self.exists:
            return []
        try:
            table = self._spec.open()
            if table is None:
                return [f"{self.place.table} cannot be read"]
            damage = list(table.store.find_damage(again=True))
        except (CollectionFormatError, StorageError) as error:
            return [str(error)]
        return [f"{self.name}: {one.describe()}" for one in damage]

    def check_index(self) -> None:
        """Read every byte of the index in use and compare it with its checksums.

        Raises:
            IndexFileError: A file is missing or damaged, or the index was built from other rows.
            MissingExtraError: It needs FAISS, which is not installed.
        """
        table = self._spec.open()
        if self.place.index is None or table is None:
            return
        loaded = lifecycle.load_current(self.place.index, verify=True)
        if loaded is not None and not belongs(table.store, loaded[1]):
            raise IndexFileError(f"{self.place.index} was built from other {self.name}; build the index again")


def remove_views(data: Path) -> None:
    """Remove the views of items that go themselves, as they are kept in any format.

    Args:
        data: The folder that holds the items.
    """
    shutil.rmtree(data / FOLDER, ignore_errors=True)
    remove_earlier_captions(data)


def remove_earlier_captions(data: Path) -> None:
    """Remove captions as formats 1 and 2 keep them.

    Args:
        data: The folder that holds the items.
    """
    shutil.rmtree(data / EARLIER_CAPTIONS, ignore_errors=True)
    (data / EARLIER_LOCK).unlink(missing_ok=True)


def _version_of(searcher: ViewSearcher) -> str | None:
    return None if searcher.searcher is None else searcher.searcher.version
