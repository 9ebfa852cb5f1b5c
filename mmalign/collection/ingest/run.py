"""One run over a source, from its first row to the report."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.collection.ingest.commit import Commits
from mmalign.collection.ingest.diff import KeptOut, SameBytes, diff, is_there, taken_by
from mmalign.collection.ingest.jobs import IngestJob, Known, NewRow, derive_id
from mmalign.collection.ingest.known import KnownItems, KnownPictures
from mmalign.collection.ingest.load import ImageLoader
from mmalign.collection.ingest.source import SourceItems
from mmalign.collection.ingest.spool import Spool, blocks
from mmalign.encoders import Encoder, stream_image
from mmalign.errors import AddInterrupted, StorageError
from mmalign.media import Exclusion, MediaPolicy, Picture, row_is_there, uri_to_path
from mmalign.store import CALL, ROWS, SIDECAR, Columns, Mending, Part, Removed, Store, fit_items, table_key
from mmalign.types import AddReport, Item, Note, Skip, Unread
from mmalign.utils import Float32Array, track

# Items that are compared, and read, at once.
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
        self._restore = restore
        self._batch_size = batch_size
        self._progress = progress
        self._policy = policy
        self._as_text = tuple(as_text)
        self._folder = Path(store.dataset.uri).parent
        self._items = SourceItems(self._folder)
        self._jobs: Spool[IngestJob] = Spool(self._folder)
        self._known = KnownItems(store)
        self._commits = Commits(store, self._known, removed)
        self._before = store
        # Metadata that came with the call, by name and then by column.
        self._metadata: Collection[str] = ()
        self._by_call = frozenset[str]()
        self._renamed: Mapping[str, str] = {}
        # Row ids of items whose embedding is damaged, and ids of items that are made anew, whatever they hold.
        self._encode_again: frozenset[int] = frozenset()
        self._damaged: frozenset[str] = frozenset()
        self._later: list[tuple[IngestJob, Picture]] = []
        self._skipped: list[Skip] = []
        self._notes: list[Note] = []
        self._counts = dict.fromkeys(("added", "updated", "moved", "unchanged", "removed", "encoded", "kept_out"), 0)
        # How many pictures are still to be read; None before that is known.
        self._left: int | None = None

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
        damage = Mending(())
        try:
            self._scan(source)
            self._commits.begin()
            damage = Mending.find(self._store)
            self._pass_over(damage)
            self._check_memory()
            self._compare(self._columns())
            self._left = len(self._jobs)
            self._commits.flush()
            self._read()
            self._commits.flush()
            self._prune(folder, exclusion, remove=prune)
            self._notes += damage.settle(self._store, written=self._commits.written)
            self._tell_overruled()
            self._tell_vanished()
        except KeyboardInterrupt:
            self._commits.flush()
            self._notes += damage.settle(self._store, written=self._commits.written, finished=False)
            raise AddInterrupted(self._report(started), self._left) from None
        finally:
            self._items.close()
            self._jobs.close()
        return self._report(started)

    def _scan(self, source: Iterable[Item | Skip | Note | Unread]) -> None:
        self._items.read(source, progress=self._progress)

    def _pass_over(self, damage: Mending) -> None:
        """Find what there is to know of the collection, but for what is damaged."""
        damage.pass_over_unreadable(self._store, ((item.uri, item.id or derive_id(item.uri)) for item in self._items))
        self._damaged = damage.ids
        self._encode_again = damage.without_embedding
        self._known.without = damage.rows
        self._commits.watch = bool(damage.damage)
        self._before = self._store.at(self._store.version) or self._store
        if not damage.damage:
            self._store.keep_indexes()

    def _tell_overruled(self) -> None:
        if self._commits.overruled:
            many = self._commits.overruled > 1
            self._notes.append(
                Note(
                    f"{self._commits.overruled:,} item{'s' * many} keep{'s' * (not many)} what `update` set, where "
                    "the source says otherwise now",
                    remedy="set it anew with update, or remove the item and index with --restore (in Python: "
                    "restore=True) to have the source's",
                )
            )

    def _tell_vanished(self) -> None:
        if self._commits.vanished:
            many = self._commits.vanished > 1
            text = f"{self._commits.vanished:,} item{'s were' if many else ' was'} removed by another process meanwhile"
            self._notes.append(Note(f"{text}, and stay{'s' * (not many)} out"))

    def _check_memory(self) -> None:
        damaged = 0 if self._removed is None else self._removed.damaged
        if damaged:
            text = f"the memory of {damaged:,} removals is damaged: what they took out may come back"
            self._notes.append(Note(text, remedy="remove it again where it does"))

    def _report(self, started: float) -> AddReport:
        return AddReport(
            added=self._counts["added"],
            updated=self._counts["updated"] - self._commits.vanished_updates,
            moved=self._counts["moved"],
            unchanged=self._counts["unchanged"],
            removed=self._counts["removed"],
            encoded=self._counts["encoded"],
            skipped=(*self._items.skipped, *self._skipped),
            seconds=time.monotonic() - started,
            kept_out=self._counts["kept_out"],
            unread=dict(self._items.unread.most_common()),
            renamed=self._renamed,
            notes=(*self._items.notes(), *self._notes),
        )

    def _columns(self) -> Columns:
        """Settle the columns that the source needs."""
        rows = _Metadata(self._items)
        columns = self._store.settle_columns(self._items.names, rows, as_text=self._as_text)
        self._renamed = columns.renamed
        self._commits.fields = sorted(columns.kinds[name][0] for name in self._items.spoken if name in columns.kinds)
        self._by_call = frozenset(columns.renamed.get(name, name) for name in self._metadata)
        return columns

    # What has changed ----------------------------------------------------------------------------------------------

    def _compare(self, columns: Columns) -> None:
        """Settle what can be told without reading a file; what must be read goes to the jobs."""
        compare = partial(
            diff,
            known=self._known,
            claims=self._items.claims,
            stays_out=self._was_removed_at,
            encode_again=self._encode_again,
        )
        fit = partial(fit_items, columns, by_call=self._metadata, remarks=self._items.remarks)
        # A few are compared before anybody sees a bar.
        shown = self._progress and len(self._items) > _BLOCK
        with track("Comparing", len(self._items), enabled=shown) as advance:
            for block in blocks(iter(self._items), _BLOCK):
                self._commits.begin_block()
                for found in compare(fit(block)):
                    match found:
                        case SameBytes():
                            given = found.given
                            self._same_bytes(found.known, given.item, given.said, given.own)
                        case KeptOut():
                            self._counts["kept_out"] += 1
                        case Skip():
                            self._skipped.append(found)
                        case IngestJob():
                            self._jobs.append(found)
                advance(len(block))

    def _was_removed_at(self, uri: str, size: int | None, mtime_ns: int | None) -> bool:
        removed = self._removed is not None and not self._restore and self._removed.has_uri(uri)
        return removed and (size, mtime_ns) not in self._wandering

    def _same_bytes(self, known: Known, item: Item, said: str | None, own: str | None) -> None:
        self._counts["updated" if self._hear(known, item, said, own) else "unchanged"] += 1

    def _hear(self, known: Known, item: Item, said: str | None, own: str | None) -> bool:
        """Take over what the source says of an item that is known; whether it changes a value."""
        if said is None and self._known.current(known).said is None:
            return False
        return self._commits.hear(known, self._parts(item, said, own))

    def _parts(self, item: Item, said: str | None, own: str | None) -> list[Part]:
        """What each of those who speak says of an item: its source, and whoever called."""
        values = {"captions": list(item.captions) or None, **item.metadata}
        by_call = {name: values.pop(name) for name in self._by_call if name in values}
        parts = []
        if item.source is not None or said is not None:
            parts.append(Part(_speaker(item), values, digest=own, earlier=said))
        return [*parts, Part(CALL, by_call)] if by_call else parts

    # Reading and encoding ------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Read, and encode what is new to the collection, committing as it goes."""
        if not len(self._jobs):
            return
        self._pictures = KnownPictures(
            self._before, without=self._known.without | self._encode_again, asked=len(self._jobs)
        )
        with track("Reading", len(self._jobs), enabled=self._progress) as advance:
            for block in blocks(iter(self._jobs), _BLOCK):
                self._read_block(block, advance)
                if self._later:
                    self._commits.flush()
                    self._copy_later()

    def _read_block(self, block: list[IngestJob], advance: Callable[[int], None]) -> None:
        reader = ImageLoader(block, self._pictures.lacks, refused=self._stays_out, policy=self._policy)
        pictures = reader.pictures()
        stream: Iterator[Float32Array] = iter(())
        try:
            # The encoder takes seconds to load: only where there is something to encode.
            first = next(pictures, None)
            if first is not None:
                stream = stream_image(self._encoder(), chain([first], pictures), batch_size=self._batch_size)
            for vectors in stream:
                for vector in vectors:
                    picture, jobs = reader.encoded()
                    self._counts["encoded"] += 1
                    self._pictures.encoded(picture.sha256)
                    for job in jobs:
                        self._emit(job, picture, vector)
                self._finished(reader, advance)
                self._settle(reader)
                self._commits.commit_when_due()
        finally:
            # Threads of the encoder may still draw on the pictures: they end first.
            if isinstance(stream, Generator):
                stream.close()
            pictures.close()
            self._settle(reader)
            self._finished(reader, advance)

    def _finished(self, reader: ImageLoader, advance: Callable[[int], None]) -> None:
        done = reader.finished()
        if self._left is not None:
            self._left -= done
        advance(done)

    def _settle(self, reader: ImageLoader) -> None:
        """Take over what needed no encoding."""
        read: list[tuple[IngestJob, Picture]] = []
        while reader.settled:
            job, picture = reader.settled.popleft()
            if isinstance(picture, Skip):
                self._skipped.append(picture)
            else:
                read.append((job, picture))
        if not read:
            return
        self._commits.begin_block()
        there = self._known.by_row(job.known.row_id for job, _ in read if job.known is not None)
        others = self._holders({picture.sha256 for job, picture in read if not self._is_same(job, picture, there)})
        for job, picture in read:
            self._bytes_known(job, picture, there, others)

    def _holders(self, digests: Collection[str]) -> dict[str, list[Known]]:
        """The items with sound embeddings that have the bytes of pictures, or had them before the run, by digest."""
        found = self._known.by_digest(sorted(digests))
        missing = sorted(digest for digest in digests if digest not in found and digest in self._pictures)
        if missing:
            # Files that have changed places: a commit of this run has given that item another picture already. The
            # version before may have been cleaned away by others, who write for hours.
            with suppress(StorageError):
                found |= self._known.by_digest(missing, store=self._before)
        sound = {
            digest: [one for one in rows if one.row_id not in self._encode_again or one.id in self._commits.written]
            for digest, rows in found.items()
        }
        return {digest: rows for digest, rows in sound.items() if rows}

    @staticmethod
    def _is_same(job: IngestJob, picture: Picture, there: Mapping[int, Known]) -> bool:
        known = None if job.known is None else there.get(job.known.row_id)
        return known is not None and known.sha256 == picture.sha256

    def _bytes_known(
        self, job: IngestJob, picture: Picture, there: Mapping[int, Known], others: Mapping[str, list[Known]]
    ) -> None:
        """Settle an item whose bytes are in the collection: touched, moved or copied."""
        if self._stays_out(job, picture.sha256):
            self._keep_out(job)
            return
        stamp = {"bytes": job.size, "mtime_ns": job.mtime_ns}
        if job.known is not None and job.known.row_id not in there:
            self._commits.vanished += 1
            return
        if job.known is not None and self._is_same(job, picture, there) and job.known.row_id not in self._encode_again:
            known = self._known.current(there[job.known.row_id])
            if known.uri != job.item.uri:
                self._move(known, job, stamp)
                return
            self._commits.patch({"id": known.id, **stamp})
            self._same_bytes(known, job.item, job.said, job.own)
            return
        rows = others.get(picture.sha256)
        if rows is None:
            # Encoded in this run, from a file of the same bytes: its vector is taken once that is committed.
            self._later.append((job, picture))
            return
        if job.known is None and job.item.id is None:
            for row in map(self._known.current, rows):
                if self._is_gone(row):
                    self._move(row, job, stamp)
                    return
        if self._was_removed(job):
            self._keep_out(job)
            return
        vector, size = self._kept(rows[0], picture.sha256)
        self._emit(job, picture, vector, size=size)

    def _kept(self, known: Known, digest: str) -> tuple[Float32Array, dict[str, Any]]:
        """The embedding of a picture of these bytes that an item has, or had before the run, and the picture's size."""
        at = np.array([known.row_id], np.int64)
        store, columns = self._store, ["sha256", "width", "height"]
        there, table = store.take_there(at, ["sha256"])
        if not len(there) or table.column("sha256")[0].as_py() != digest:
            store = self._before
        size = store.take(at, columns).to_pylist()[0]
        del size["sha256"]
        return store.embeddings(at)[1][0].astype(np.float32), size

    def _copy_later(self) -> None:
        """Settle the copies of pictures that were encoded in this run."""
        later, self._later = self._later, []
        others = self._holders({picture.sha256 for _, picture in later})
        for job, picture in later:
            rows = others.get(picture.sha256)
            if rows is None:
                # What had its bytes was not written, or is gone again.
                self._skipped.append(Skip(job.item.uri, "its copy was taken away meanwhile; run the same again"))
                continue
            vector, size = self._kept(rows[0], picture.sha256)
            self._emit(job, picture, vector, size=size)
        self._commits.commit_when_due()

    # What was removed earlier --------------------------------------------------------------------------------------

    @cached_property
    def _wandering(self) -> frozenset[tuple[int | None, int | None]]:
        """Size and time of known files that are gone: one that lies where a removed one lay may be one of them."""
        places = chain.from_iterable(self._known.all_places())
        return frozenset((known.size, known.mtime_ns) for known in places if self._is_gone(known))

    def _is_gone(self, known: Known) -> bool:
        if known.uri is None or self._items.names_uri(known.uri) or uri_to_path(known.uri) is None:
            return False
        return not is_there(known.uri)

    def _was_removed(self, job: IngestJob) -> bool:
        if job.known is not None or self._restore or self._removed is None:
            return False
        return self._removed.has_uri(job.item.uri)

    def _stays_out(self, job: IngestJob, digest: str) -> bool:
        """Whether a picture stays out because it, or what lay in its place, was removed; another item may have it."""
        if job.known is not None or self._restore or self._removed is None or digest in self._pictures:
            return False
        return self._removed.has_picture(digest) or self._removed.has_uri(job.item.uri)

    def _keep_out(self, job: IngestJob) -> None:
        assert self._removed is not None
        self._counts["kept_out"] += 1
        if not self._removed.has_uri(job.item.uri):
            self._commits.keep_out(job.item.uri)

    # What is written -----------------------------------------------------------------------------------------------

    def _move(self, known: Known, job: IngestJob, stamp: Mapping[str, Any]) -> None:
        self._counts["moved"] += 1
        self._commits.move(known, job.item.uri, stamp)
        self._hear(known, job.item, job.said, job.own)

    def _emit(
        self, job: IngestJob, picture: Picture, vector: Float32Array, *, size: Mapping[str, int] | None = None
    ) -> None:
        """Queue a whole row for the next commit."""
        known = job.known
        if known is not None and known.uri != job.item.uri and _is_url(known.uri):
            # Another picture, now that it was read; the same one at another address was only moved.
            self._skipped.append(Skip(job.item.place or job.item.uri, taken_by(job.item, str(known.uri))))
            return
        if known is None and self._restore and self._removed is not None:
            self._commits.restore(job.item.uri, picture.sha256)
        name = self._id(job, picture)
        self._counts["added" if known is None and name not in self._damaged else "updated"] += 1
        values = dict(size or {"width": picture.width, "height": picture.height}) | {
            "id": name,
            "uri": job.item.uri,
            "sha256": picture.sha256,
            "kind": "image",
            "bytes": job.size if job.size is not None else picture.bytes,
            "mtime_ns": job.mtime_ns,
        }
        parts = self._parts(job.item, job.said, job.own)
        self._commits.add(NewRow(None if known is None else known.row_id, parts, values, vector))

    def _id(self, job: IngestJob, picture: Picture) -> str:
        if job.item.id is not None:
            return job.item.id
        if job.known is not None:
            return job.known.id
        derived = derive_id(job.item.uri)
        salt = picture.sha256
        while job.taken and self._known.by_id([derived]):
            # More than one picture may have moved away from here, and the same one more than once.
            derived = derive_id(job.item.uri, salt=salt)
            salt = derived + picture.sha256
        return derived

    def _prune(self, folder: str | None, exclusion: Exclusion | None, *, remove: bool) -> None:
        """Remove what is gone from the folder, or excluded, or say how much that is."""
        gone, excluded = [], []
        for row_ids, table in self._store.iter_rows(["uri"], rows=_BLOCK):
            uris = table.column("uri").to_pylist()
            named = self._items.names_uris([uri or "" for uri in uris]).tolist()
            for row_id, uri, is_named in zip(row_ids.tolist(), uris, named, strict=True):
                path = None if uri is None or is_named or row_id in self._known.without else uri_to_path(uri)
                if path is None:
                    continue
                there = os.path.lexists(path) and row_is_there(uri)
                if exclusion is not None and exclusion.covers(str(path)) and there:
                    excluded.append(row_id)
                elif folder is not None and Path(folder) in path.parents and not there:
                    gone.append(row_id)
        if remove:
            self._counts["removed"] += self._store.delete(np.array(gone + excluded, np.int64))
            return
        for rows, one, several in (
            (excluded, "is excluded now", "are excluded now"),
            (gone, "has no file any more", "have no file any more"),
        ):
            many = len(rows) > 1
            if rows:
                self._notes.append(
                    Note(
                        f"{len(rows):,} item{'s' * many} of the collection {several if many else one}",
                        remedy=f"add --prune to take {'them' if many else 'it'} out (in Python: prune=True)",
                    )
                )


def _speaker(item: Item) -> str:
    if item.source is None or item.source in (SIDECAR, ROWS):
        return item.source or ROWS
    return table_key(item.source)


class _Metadata:
    """What a source says of its items beside their bytes and captions; may be gone through several times."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (item.metadata for item in self._items)


def _is_url(uri: str | None) -> bool:
    return uri is not None and uri_to_path(uri) is None
