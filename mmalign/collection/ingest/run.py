"""One run over a source, from its first row to the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.collection.ingest.claims import ClaimMerger, Tally
from mmalign.collection.ingest.commit import Commits
from mmalign.collection.ingest.diff import KeptOut, SameBytes, diff
from mmalign.collection.ingest.encode import Encode
from mmalign.collection.ingest.jobs import IngestJob, derive_id
from mmalign.collection.ingest.known import KnownItems
from mmalign.collection.ingest.prune import find_gone, prune_notes
from mmalign.collection.ingest.removals import Removals
from mmalign.collection.ingest.source import SourceItems
from mmalign.collection.ingest.spool import Spool, blocks
from mmalign.encoders import Encoder
from mmalign.errors import AddInterrupted
from mmalign.media import Exclusion, MediaPolicy
from mmalign.store import Columns, Mending, Removed, Store, fit_items
from mmalign.types import AddReport, Item, Note, Skip, Unread
from mmalign.utils import track

# Items that are compared, and so held, at once.
_BLOCK = 8192


class Ingest:
    """One run over a source.

    Args:
        store: The collection's items, at their newest version.
        encoder: Gives the encoder; called only when a picture must be encoded.
        removed: What was removed from the collection earlier; None for nothing.
        restore: Whether that comes back.
        batch_size: Pictures that go through the encoder at once.
        progress: Whether to show progress bars.
        policy: What may be read; None for that of the environment.
        as_text: Names of columns that are to be text.
    """

    def __init__(
        self,
        store: Store,
        encoder: Callable[[], Encoder],
        *,
        removed: Removed | None = None,
        restore: bool = False,
        batch_size: int = 32,
        progress: bool = True,
        policy: MediaPolicy | None = None,
        as_text: Collection[str] = (),
    ) -> None:
        self._store = store
        self._encoder = encoder
        self._removed = removed
        self._batch_size = batch_size
        self._progress = progress
        self._policy = policy
        self._as_text = tuple(as_text)
        folder = Path(store.dataset.uri).parent
        self._items = SourceItems(folder)
        self._jobs: Spool[IngestJob] = Spool(folder)
        self._known = KnownItems(store)
        self._commits = Commits(store, self._known, removed)
        self._tally = Tally()
        self._merger = ClaimMerger(self._commits, self._known, self._tally)
        self._removals = Removals(removed, restore=restore, items=self._items, known=self._known)
        self._before = store
        self._damage = Mending(())
        # Names of metadata that came with the call.
        self._metadata: Collection[str] = ()
        self._renamed: Mapping[str, str] = {}

    def run(
        self,
        source: Iterable[Item | Skip | Note | Unread],
        *,
        metadata: Collection[str] = (),
        folder: str | None = None,
        prune: bool = False,
        exclusion: Exclusion | None = None,
    ) -> AddReport:
        """Bring the collection up to date.

        Args:
            source: The items, and what the source itself had to leave out.
            metadata: Names of the metadata that came with the call: no source can take it away.
            folder: Where all files of the source are expected; None where nobody knows.
            prune: Remove items of that folder whose file is gone or excluded; otherwise a note counts them.
            exclusion: What stays out of the source.

        Returns:
            What was done.

        Raises:
            AddInterrupted: Ctrl-C; what was encoded is committed first.
            DamagedError: Items cannot be read, and the source does not give all of them anew; nothing was changed.
            MetadataError: A column of `as_text` is in neither the source nor the collection; nothing was changed.
            StorageError: The disk refused; what was committed before is kept.
        """
        started = time.monotonic()
        self._metadata = metadata
        try:
            self._scan(source)
            self._commits.begin()
            self._pass_over_damage()
            self._check_memory()
            self._compare(self._columns())
            self._tally.left = len(self._jobs)
            self._commits.flush()
            self._read()
            self._commits.flush()
            self._prune(folder, exclusion, remove=prune)
            self._tally.notes += self._damage.settle(self._store, written=self._commits.written)
            self._note_overruled()
            self._note_vanished()
        except KeyboardInterrupt:
            self._commits.flush()
            self._tally.notes += self._damage.settle(self._store, written=self._commits.written, finished=False)
            raise AddInterrupted(self._report(started), self._tally.left) from None
        finally:
            self._items.close()
            self._jobs.close()
        return self._report(started)

    def _scan(self, source: Iterable[Item | Skip | Note | Unread]) -> None:
        self._items.read(source, progress=self._progress)

    def _pass_over_damage(self) -> None:
        """Find what is damaged of the collection: it counts as not there."""
        self._damage = Mending.find(self._store)
        given = ((item.uri, item.id or derive_id(item.uri)) for item in self._items)
        self._damage.pass_over_unreadable(self._store, given)
        self._known.without = self._damage.rows
        self._commits.watch = bool(self._damage.damage)
        self._before = self._store.at(self._store.version) or self._store
        if not self._damage.damage:
            self._store.keep_indexes()

    def _note_overruled(self) -> None:
        if self._commits.overruled:
            many = self._commits.overruled > 1
            self._tally.notes.append(
                Note(
                    f"{self._commits.overruled:,} item{'s' * many} keep{'s' * (not many)} what `update` set, where "
                    "the source says otherwise now",
                    remedy="set it anew with update, or remove the item and index with --restore (in Python: "
                    "restore=True) to have the source's",
                )
            )

    def _note_vanished(self) -> None:
        if self._commits.vanished:
            many = self._commits.vanished > 1
            text = f"{self._commits.vanished:,} item{'s were' if many else ' was'} removed by another process meanwhile"
            self._tally.notes.append(Note(f"{text}, and stay{'s' * (not many)} out"))

    def _check_memory(self) -> None:
        damaged = 0 if self._removed is None else self._removed.damaged
        if damaged:
            text = f"the memory of {damaged:,} removals is damaged: what they took out may come back"
            self._tally.notes.append(Note(text, remedy="remove it again where it does"))

    def _report(self, started: float) -> AddReport:
        return AddReport(
            added=self._tally.counts["added"],
            updated=self._tally.counts["updated"] - self._commits.vanished_updates,
            moved=self._tally.counts["moved"],
            unchanged=self._tally.counts["unchanged"],
            removed=self._tally.counts["removed"],
            encoded=self._tally.counts["encoded"],
            skipped=(*self._items.skipped, *self._tally.skipped),
            seconds=time.monotonic() - started,
            kept_out=self._tally.counts["kept_out"],
            unread=dict(self._items.unread.most_common()),
            renamed=self._renamed,
            notes=(*self._items.notes(), *self._tally.notes),
        )

    def _columns(self) -> Columns:
        """Settle the columns that the source needs."""
        rows = _Metadata(self._items)
        columns = self._store.settle_columns(self._items.names, rows, as_text=self._as_text)
        self._renamed = columns.renamed
        self._commits.fields = sorted(columns.kinds[name][0] for name in self._items.filled if name in columns.kinds)
        self._merger.by_call = frozenset(columns.renamed.get(name, name) for name in self._metadata)
        return columns

    # What has changed ----------------------------------------------------------------------------------------------

    def _compare(self, columns: Columns) -> None:
        """Settle what can be told without reading a file; what must be read goes to the jobs."""
        compare = partial(
            diff,
            known=self._known,
            claims=self._items.claims,
            stays_out=self._removals.was_removed_at,
            encode_again=self._damage.without_embedding,
        )
        fit = partial(fit_items, columns, by_call=self._metadata, cell_notes=self._items.cell_notes)
        # A few are compared before anybody sees a bar.
        shown = self._progress and len(self._items) > _BLOCK
        with track("Comparing", len(self._items), enabled=shown) as advance:
            for block in blocks(iter(self._items), _BLOCK):
                self._commits.begin_block()
                for found in compare(fit(block)):
                    match found:
                        case SameBytes():
                            given = found.given
                            self._merger.same_bytes(found.known, given.item, given.digest, given.own_digest)
                        case KeptOut():
                            self._tally.counts["kept_out"] += 1
                        case Skip():
                            self._tally.skipped.append(found)
                        case IngestJob():
                            self._jobs.append(found)
                advance(len(block))

    def _read(self) -> None:
        if not len(self._jobs):
            return
        encode = Encode(
            self._store,
            self._before,
            known=self._known,
            commits=self._commits,
            merger=self._merger,
            removals=self._removals,
            tally=self._tally,
            damage=self._damage,
            encoder=self._encoder,
            batch_size=self._batch_size,
            policy=self._policy,
        )
        encode.run(self._jobs, progress=self._progress)

    def _prune(self, folder: str | None, exclusion: Exclusion | None, *, remove: bool) -> None:
        """Remove what is gone from the folder, or excluded, or say how much that is."""
        gone, excluded = find_gone(
            self._store, self._items, folder=folder, exclusion=exclusion, without=self._known.without
        )
        if remove:
            self._tally.counts["removed"] += self._store.delete(np.array(gone + excluded, np.int64))
        else:
            self._tally.notes += prune_notes(gone, excluded)


class _Metadata:
    """What a source says of its items beside their bytes and captions; may be gone through several times."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (item.metadata for item in self._items)
