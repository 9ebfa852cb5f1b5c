"""Bringing a collection up to date with a source, doing only the work that something changed asks for.

A file whose size and modification time are known is not read. One that is read is known by the SHA-256 of its bytes:
where those are in the collection already, it has moved, was copied or was only touched, and is not encoded again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.collection.loader import ImageLoader, IngestJob
from mmalign.encoders import Encoder, stream_image
from mmalign.errors import AddInterrupted, InputError
from mmalign.media import Exclusion, MediaPolicy, Picture, row_is_there, uri_to_path
from mmalign.store import CALL, ROWS, SIDECAR, Mending, Part, Removed, Store, fit_items, hear, limit_notes, table_key
from mmalign.types import AddReport, Item, Note, Skip, Unread, as_id
from mmalign.utils import Float32Array, track

# A commit is due after so many seconds or items: what a power cut can cost.
_COMMIT_SECONDS = 5.0
_COMMIT_ITEMS = 4096
# Patches of more different sets of columns than this are made alike before they are committed.
_MOST_PATCHES = 6
# A copied or moved file whose embedding is here already needs no picture; -1 marks an item that is new.
_NEW = -1


def derive_id(uri: str, *, salt: str = "") -> str:
    """The id of an item that its source gives none: 16 hex digits from its URI at first sight.

    Args:
        uri: The item's URI.
        salt: Set where the id is taken by an item that once had this URI and has moved.

    Returns:
        16 lower-case hex digits.
    """
    return hashlib.blake2b(f"{uri}\n{salt}".encode(), digest_size=8).hexdigest()


@dataclass(slots=True)
class _Known:
    """What the collection holds before the run, by row number."""

    row_ids: np.ndarray[Any, np.dtype[np.int64]]
    ids: list[str]
    uris: list[str]
    digests: list[str | None]
    sizes: list[int | None]
    mtimes: list[int | None]
    said: list[str | None]
    by_id: dict[str, int] = field(init=False)
    by_uri: dict[str, int] = field(init=False)
    by_digest: dict[str, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.by_id = {value: row for row, value in enumerate(self.ids)}
        self.by_uri = {value: row for row, value in enumerate(self.uris) if value is not None}
        self.by_digest = {}
        for row, digest in enumerate(self.digests):
            if digest is not None:
                self.by_digest.setdefault(digest, []).append(row)

    @classmethod
    def read(cls, store: Store, *, without: Collection[int]) -> _Known:
        """Read what the collection holds.

        Args:
            store: The items.
            without: Row ids of items that are damaged.
        """
        row_ids, table = store.scan(["id", "uri", "sha256", "bytes", "mtime_ns", "said"], check=False)
        if without:
            kept = np.flatnonzero(~np.isin(row_ids, list(without)))
            row_ids, table = row_ids[kept], table.take(kept)
        return cls(row_ids, *(column.to_pylist() for column in table.columns))


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
        self._kept_out: list[tuple[str, str | None]] = []
        self._restored: list[tuple[str, str | None]] = []
        self._batch_size = batch_size
        self._progress = progress
        self._policy = policy
        self._as_text = tuple(as_text)
        self._skipped: list[Skip] = []
        self._notes: list[Note] = []
        self._unread: Counter[str] = Counter()
        self._renamed: Mapping[str, str] = {}
        self._fields: list[str] = []
        self._overridden: dict[Any, Note] = {}
        self._said: dict[tuple[str | None, str], str | None] = {}
        self._own: dict[tuple[str | None, str], str | None] = {}
        # Metadata that came with the call, by name and then by column.
        self._metadata: Collection[str] = ()
        self._by_call = frozenset[str]()
        # Items with values that the user has set, and a source says otherwise.
        self._overruled = 0
        self._counts = dict.fromkeys(("added", "updated", "moved", "unchanged", "removed", "encoded", "kept_out"), 0)
        # Whole rows to write: the number of the item that is there, what its sources say, and what its file says.
        self._rows: list[tuple[int, list[Part], dict[str, Any]]] = []
        self._vectors: list[Float32Array] = []
        # Ids of the items that were written whole, and row numbers of those whose embedding is damaged.
        self._written: set[str] = set()
        self._encode_again: frozenset[int] = frozenset()
        # Ids of items that are made anew, whatever they hold.
        self._damaged: frozenset[str] = frozenset()
        self._later: list[tuple[IngestJob, Picture]] = []
        self._patches: dict[tuple[str, ...], list[dict[str, Any]]] = {}
        # By id, for the items among the patches that were heard: the column `said` before, and what was heard.
        self._hearings: dict[str, tuple[str | None, list[list[Part]]]] = {}
        # The version after which only others have changed rows.
        self._looked = 0
        self._vanished = 0
        self._last_commit = time.monotonic()
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
            items = self._scan(source)
            self._looked = self._store.version
            damage = Mending.find(self._store)
            damage.pass_over_unreadable(
                self._store,
                places={item.uri for item in items},
                ids={item.id or derive_id(item.uri) for item in items},
            )
            self._known = _Known.read(self._store, without=damage.rows)
            self._damaged = damage.ids
            self._encode_again = damage.without_embedding(self._known.row_ids)
            self._forget_digests(self._encode_again)
            self._before = self._store.at(self._store.version) or self._store
            self._seen = {item.uri for item in items}
            self._check_memory()
            items = self._columns(self._settle_ids(items))
            work = self._compare(items)
            self._left = len(work)
            self._flush()
            self._read(work)
            self._flush()
            self._copy_later()
            self._flush()
            self._prune(folder, exclusion, remove=prune)
            self._notes += damage.settle(self._store, written=self._written)
            self._tell_overruled()
            self._tell_vanished()
        except KeyboardInterrupt:
            self._flush()
            self._notes += damage.settle(self._store, written=self._written, finished=False)
            raise AddInterrupted(self._report(started), self._left) from None
        return self._report(started)

    def _forget_digests(self, rows: Collection[int]) -> None:
        """Take no embedding from items whose own is damaged."""
        for row in rows:
            same = self._known.by_digest.get(str(self._known.digests[row]), [])
            if row in same:
                same.remove(row)
            if not same:
                self._known.by_digest.pop(str(self._known.digests[row]), None)

    def _tell_overruled(self) -> None:
        if self._overruled:
            many = self._overruled > 1
            self._notes.append(
                Note(
                    f"{self._overruled:,} item{'s' * many} keep{'s' * (not many)} what `update` set, where the source "
                    "says otherwise now",
                    remedy="set it anew with update, or remove the item and index with --restore (in Python: "
                    "restore=True) to have the source's",
                )
            )

    def _tell_vanished(self) -> None:
        if self._vanished:
            many = self._vanished > 1
            text = f"{self._vanished:,} item{'s were' if many else ' was'} removed by another process meanwhile"
            self._notes.append(Note(f"{text}, and stay{'s' * (not many)} out"))

    def _check_memory(self) -> None:
        damaged = 0 if self._removed is None else self._removed.damaged
        if damaged:
            text = f"the memory of {damaged:,} removals is damaged: what they took out may come back"
            self._notes.append(Note(text, remedy="remove it again where it does"))

    def _report(self, started: float) -> AddReport:
        return AddReport(
            added=self._counts["added"],
            updated=self._counts["updated"],
            moved=self._counts["moved"],
            unchanged=self._counts["unchanged"],
            removed=self._counts["removed"],
            encoded=self._counts["encoded"],
            skipped=tuple(self._skipped),
            seconds=time.monotonic() - started,
            kept_out=self._counts["kept_out"],
            unread=dict(self._unread.most_common()),
            renamed=self._renamed,
            notes=tuple(self._notes),
        )

    def _scan(self, source: Iterable[Item | Skip | Note | Unread]) -> list[Item]:
        """Read the whole source; several rows for one picture become one item with all their captions."""
        items: dict[tuple[str | None, str], Item] = {}
        left_out: list[tuple[str, Note]] = []
        with track("Scanning", None, enabled=self._progress) as advance:
            for entry in source:
                if isinstance(entry, Note):
                    self._notes.append(entry)
                    continue
                if isinstance(entry, Unread):
                    self._unread[entry.ending] += entry.count
                    continue
                advance(1)
                if isinstance(entry, Skip):
                    self._skipped.append(entry)
                    continue
                left_out += [(note.text.partition(" holds ")[0], note) for note in entry.left_out]
                try:
                    entry = entry if entry.id is None else replace(entry, id=as_id(entry.id))
                except InputError as error:
                    self._skipped.append(Skip(entry.place or entry.uri, str(error)))
                    continue
                key = (entry.id, entry.uri)
                items[key] = entry if key not in items else self._join(items[key], entry)
        self._notes += [*limit_notes(left_out), *self._overridden.values()]
        return list(items.values())

    def _join(self, first: Item, second: Item) -> Item:
        """Make one item of two rows for the same picture: with the captions of both, and the later of other values."""
        metadata = dict(first.metadata)
        for name, value in second.metadata.items():
            before = metadata.get(name)
            if value is None and before is not None:
                continue
            if before is not None and before != value and name not in self._overridden:
                self._overridden[name] = Note(
                    f"column {name!r} says {before!r:.40} and then {value!r:.40} of one picture; the last row counts",
                    remedy="say the same in all rows of a picture",
                    about=second.place or second.uri,
                )
            metadata[name] = value
        captions = tuple(dict.fromkeys(first.captions + second.captions))
        return replace(first, captions=captions, metadata=metadata)

    def _settle_ids(self, items: Sequence[Item]) -> list[Item]:
        """Leave out items whose id names another picture, in the source or in the collection."""
        known = self._known
        owner: dict[str, str] = {}
        for item in items:
            if item.id is None:
                continue
            row = known.by_id.get(item.id, _NEW)
            # The picture that has the id already keeps it, whichever the source names first.
            if item.id not in owner or (row != _NEW and known.uris[row] == item.uri):
                owner[item.id] = item.uri
        kept = []
        for item in items:
            other = None if item.id is None else owner[item.id]
            if item.id is not None and other == item.uri:
                row = known.by_id.get(item.id, _NEW)
                other = known.uris[row] if row != _NEW and _is_there(known.uris[row]) else other
            if other is None or other == item.uri:
                kept.append(item)
            else:
                self._skipped.append(Skip(item.place or item.uri, _taken(item, other)))
        return kept

    def _columns(self, items: Sequence[Item]) -> list[Item]:
        """Fit what the source says of the items to columns, and note what fits nowhere."""
        given = fit_items(self._store, items, as_text=self._as_text, by_call=self._metadata)
        self._skipped += given.skipped
        self._notes += given.notes
        self._renamed = given.renamed
        self._fields = given.columns
        names = [(item.id, item.uri) for item in given.items]
        self._said, self._own = (dict(zip(names, digests, strict=True)) for digests in (given.said, given.own))
        self._by_call = frozenset(given.renamed.get(name, name) for name in self._metadata)
        return given.items

    # What has changed ----------------------------------------------------------------------------------------------

    def _compare(self, items: Sequence[Item]) -> list[IngestJob]:
        """Settle what can be told without reading a file; return the rest."""
        known = self._known
        work = []
        for item in items:
            row = known.by_id.get(item.id, _NEW) if item.id is not None else known.by_uri.get(item.uri, _NEW)
            removed = row == _NEW and self._removed is not None and self._removed.has_uri(item.uri)
            said = self._said[item.id, item.uri]
            size = mtime_ns = None
            path = uri_to_path(item.uri)
            if path is not None:
                try:
                    status = path.stat()
                except OSError as error:
                    self._skipped.append(Skip(item.uri, _why(error)))
                    continue
                if stat.S_ISDIR(status.st_mode):
                    self._skipped.append(Skip(item.uri, "is a folder, not a picture"))
                    continue
                size, mtime_ns = status.st_size, status.st_mtime_ns
            if removed and not self._restore and (size, mtime_ns) not in self._wandering:
                self._counts["kept_out"] += 1
                continue
            if (
                row != _NEW
                and row not in self._encode_again
                and known.uris[row] == item.uri
                and (path is None or (known.sizes[row] == size and known.mtimes[row] == mtime_ns))
            ):
                self._same_bytes(row, item, said)
            else:
                work.append(IngestJob(item, row, size, mtime_ns, said))
        return work

    def _same_bytes(self, row: int, item: Item, said: str | None) -> None:
        self._counts["updated" if self._hear(row, item, said) else "unchanged"] += 1

    def _hear(self, row: int, item: Item, said: str | None) -> bool:
        """Take over what the source says of an item that is known; whether it changes a value."""
        if said is None and self._known.said[row] is None:
            return False
        before, parts = self._known.said[row], self._parts(item, said)
        heard = hear(before, parts, fields=self._fields)
        if heard is None:
            return False
        self._known.said[row] = heard.said
        self._hearings.setdefault(self._known.ids[row], (before, []))[1].append(parts)
        self._overruled += bool(heard.overruled)
        self._patch({"id": self._known.ids[row], "said": heard.said, **heard.values})
        return bool(heard.values)

    def _parts(self, item: Item, said: str | None) -> list[Part]:
        """What each of those who speak says of an item: its source, and whoever called."""
        values = {"captions": list(item.captions) or None, **item.metadata}
        by_call = {name: values.pop(name) for name in self._by_call if name in values}
        parts = []
        if item.source is not None or said is not None:
            own = self._own.get((item.id, item.uri))
            parts.append(Part(_speaker(item), values, digest=own, earlier=said))
        return [*parts, Part(CALL, by_call)] if by_call else parts

    def _patch(self, row: dict[str, Any]) -> None:
        self._patches.setdefault(tuple(row), []).append(row)
        self._commit_when_due()

    # Reading and encoding ------------------------------------------------------------------------------------------

    def _read(self, work: Sequence[IngestJob]) -> None:
        """Read, and encode what is new to the collection, committing as it goes."""
        if not work:
            return
        reader = ImageLoader(
            work,
            lambda digest: digest not in self._known.by_digest,
            refused=self._stays_out,
            policy=self._policy,
        )
        with track("Reading", len(work), enabled=self._progress) as advance:
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
                        for job in jobs:
                            self._emit(job, picture, vector)
                    self._finished(reader, advance)
                    self._settle(reader)
                    self._commit_when_due()
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
        while reader.settled:
            job, picture = reader.settled.popleft()
            if isinstance(picture, Skip):
                self._skipped.append(picture)
            else:
                self._bytes_known(job, picture)

    def _bytes_known(self, job: IngestJob, picture: Picture) -> None:
        """Settle an item whose bytes are in the collection: touched, moved or copied."""
        known = self._known
        if self._stays_out(job, picture.sha256):
            self._keep_out(job)
            return
        stamp = {"bytes": job.size, "mtime_ns": job.mtime_ns}
        same = job.row != _NEW and known.digests[job.row] == picture.sha256
        if same and job.row not in self._encode_again:
            same_place = known.uris[job.row] == job.item.uri
            if not same_place:
                self._move(job.row, job, stamp)
                return
            self._patch({"id": known.ids[job.row], **stamp})
            self._same_bytes(job.row, job.item, job.said)
            return
        rows = known.by_digest.get(picture.sha256)
        if rows is None:
            # Encoded in this run, from a file of the same bytes: its vector is taken once that is committed.
            self._later.append((job, picture))
            return
        if job.row == _NEW and job.item.id is None:
            for row in rows:
                if self._is_gone(row):
                    self._move(row, job, stamp)
                    return
        if self._was_removed(job):
            self._keep_out(job)
            return
        vector, size = self._kept(rows[0], picture.sha256)
        self._emit(job, picture, vector, size=size)

    def _kept(self, row: int, digest: str) -> tuple[Float32Array, dict[str, Any]]:
        """The embedding of a picture of these bytes that an item had before the run, and the picture's size."""
        at = self._known.row_ids[[row]]
        store, columns = self._store, ["sha256", "width", "height"]
        size = store.take(at, columns).to_pylist()[0]
        if size["sha256"] != digest:
            # Files that have changed places: a commit of this run has given that item another picture already.
            store = self._before
            size = store.take(at, columns).to_pylist()[0]
        del size["sha256"]
        return store.embeddings(at)[1][0].astype(np.float32), size

    def _copy_later(self) -> None:
        """Settle the copies of pictures that were encoded in this run."""
        if not self._later:
            return
        row_ids, table = self._store.scan(["sha256"], check=False)
        places = dict(zip(table.column("sha256").to_pylist(), row_ids.tolist(), strict=True))
        for start in range(0, len(self._later), _COMMIT_ITEMS):
            block = self._later[start : start + _COMMIT_ITEMS]
            rows = np.array([places[picture.sha256] for _, picture in block], np.int64)
            vectors = self._store.embeddings(rows)[1].astype(np.float32)
            sizes = self._store.take(rows, ["width", "height"]).to_pylist()
            for (job, picture), vector, size in zip(block, vectors, sizes, strict=True):
                self._emit(job, picture, vector, size=size)
            self._flush()
        self._later = []

    # What was removed earlier --------------------------------------------------------------------------------------

    @cached_property
    def _wandering(self) -> frozenset[tuple[int | None, int | None]]:
        """Size and time of known files that are gone: one that lies where a removed one lay may be one of them."""
        known = self._known
        return frozenset((known.sizes[row], known.mtimes[row]) for row in range(len(known.ids)) if self._is_gone(row))

    def _is_gone(self, row: int) -> bool:
        uri = self._known.uris[row]
        old = None if uri is None or uri in self._seen else uri_to_path(uri)
        return old is not None and not (old.exists() and row_is_there(str(uri)))

    def _was_removed(self, job: IngestJob) -> bool:
        if job.row != _NEW or self._restore or self._removed is None:
            return False
        return self._removed.has_uri(job.item.uri)

    def _stays_out(self, job: IngestJob, digest: str) -> bool:
        """Whether a picture stays out because it, or what lay in its place, was removed; another item may have it."""
        if job.row != _NEW or self._restore or self._removed is None or digest in self._known.by_digest:
            return False
        return self._removed.has_picture(digest) or self._removed.has_uri(job.item.uri)

    def _keep_out(self, job: IngestJob) -> None:
        assert self._removed is not None
        self._counts["kept_out"] += 1
        if not self._removed.has_uri(job.item.uri):
            # Next time it need not be read to be known.
            self._kept_out.append((job.item.uri, None))

    def _move(self, row: int, job: IngestJob, stamp: Mapping[str, Any]) -> None:
        self._counts["moved"] += 1
        self._known.uris[row] = job.item.uri
        self._patch({"id": self._known.ids[row], "uri": job.item.uri, **stamp})
        self._hear(row, job.item, job.said)

    def _emit(
        self, job: IngestJob, picture: Picture, vector: Float32Array, *, size: Mapping[str, int] | None = None
    ) -> None:
        """Queue a whole row for the next commit."""
        known = self._known
        if job.row != _NEW and known.uris[job.row] != job.item.uri and _is_url(known.uris[job.row]):
            # Another picture, now that it was read; the same one at another address was only moved.
            self._skipped.append(Skip(job.item.place or job.item.uri, _taken(job.item, known.uris[job.row])))
            return
        if job.row == _NEW and self._restore and self._removed is not None:
            self._restored.append((job.item.uri, picture.sha256))
        name = self._id(job, picture)
        self._counts["added" if job.row == _NEW and name not in self._damaged else "updated"] += 1
        row = dict(size or {"width": picture.width, "height": picture.height}) | {
            "id": name,
            "uri": job.item.uri,
            "sha256": picture.sha256,
            "kind": "image",
            "bytes": job.size if job.size is not None else picture.bytes,
            "mtime_ns": job.mtime_ns,
        }
        self._rows.append((job.row, self._parts(job.item, job.said), row))
        self._vectors.append(vector)

    def _id(self, job: IngestJob, picture: Picture) -> str:
        if job.item.id is not None:
            return job.item.id
        if job.row != _NEW:
            return self._known.ids[job.row]
        derived = derive_id(job.item.uri)
        salt = picture.sha256
        while derived in self._known.by_id:
            # More than one picture may have moved away from here, and the same one more than once.
            derived = derive_id(job.item.uri, salt=salt)
            salt = derived + picture.sha256
        return derived

    # Committing ----------------------------------------------------------------------------------------------------

    def _commit_when_due(self) -> None:
        queued = len(self._rows) + sum(map(len, self._patches.values()))
        if queued >= _COMMIT_ITEMS or time.monotonic() - self._last_commit > _COMMIT_SECONDS:
            self._flush()

    def _flush(self) -> None:
        """Commit what is queued."""
        if self._removed is not None:
            # What comes back is forgotten first: an item that is there counts as one, whatever is remembered of it.
            self._removed.remember(self._kept_out)
            self._removed.forget(self._restored)
            self._kept_out, self._restored = [], []
        if self._rows or self._patches:
            with self._store.alone():
                theirs = self._changed_by_others()
                self._write_rows(theirs)
                self._hear_again(theirs)
                if len(self._patches) > _MOST_PATCHES:
                    self._patches = self._evened()
                for rows in self._patches.values():
                    self._store.patch(rows)
                self._patches = {}
                self._looked = self._store.version
        self._last_commit = time.monotonic()

    def _changed_by_others(self) -> dict[str, dict[str, Any]]:
        """What others have written to the items that are queued since this run last looked, by id."""
        row_ids = self._store.row_ids(since=self._looked)
        if not len(row_ids):
            return {}
        queued = {*self._hearings, *(row["id"] for _, _, row in self._rows)}
        ids = self._store.take(row_ids, ["id"], check=False).column("id").to_pylist()
        row_ids = row_ids[[place for place, name in enumerate(ids) if name in queued]]
        table = self._store.take(row_ids, ["id", "captions", "said", *self._store.columns])
        return {row["id"]: row for row in table.to_pylist()}

    def _write_rows(self, theirs: Mapping[str, dict[str, Any]]) -> None:
        """Write whole rows; what the user or an earlier source said of an item outlives an edit of its bytes."""
        before = self._as_they_are([row for row, _, _ in self._rows if row != _NEW])
        rows, vectors = [], []
        for (number, parts, given), vector in zip(self._rows, self._vectors, strict=True):
            if number != _NEW and number not in before:
                self._vanished += 1
                self._counts["updated"] -= 1
                continue
            row = dict(before[number] if number != _NEW else theirs.get(given["id"], {}))
            heard = hear(row.get("said"), parts, fields=self._fields)
            if heard is not None:
                self._overruled += bool(heard.overruled)
                row |= {**heard.values, "said": heard.said}
            rows.append(row | given)
            vectors.append(vector)
        if rows:
            self._store.upsert(rows, np.stack(vectors))
            self._written.update(row["id"] for row in rows)
        self._rows, self._vectors = [], []

    def _as_they_are(self, numbers: Sequence[int]) -> dict[int, dict[str, Any]]:
        """What items hold now, by row number, without those that are gone."""
        if not numbers:
            return {}
        there = np.isin(self._known.row_ids[list(numbers)], self._store.row_ids())
        numbers = [number for number, is_there in zip(numbers, there.tolist(), strict=True) if is_there]
        names = ["captions", "said", *self._store.columns]
        table = self._store.take(self._known.row_ids[numbers], names)
        return dict(zip(numbers, table.to_pylist(), strict=True))

    def _hear_again(self, theirs: Mapping[str, dict[str, Any]]) -> None:
        """Compare once more what sources say of items of which others have changed who said what."""
        for name, (before, hearings) in self._hearings.items():
            said = theirs[name]["said"] if name in theirs else before
            if said == before:
                continue
            for rows in self._patches.values():
                rows[:] = [row for row in rows if row["id"] != name or "said" not in row]
            values: dict[str, Any] = {}
            for parts in hearings:
                heard = hear(said, parts, fields=self._fields)
                if heard is not None:
                    self._overruled += bool(heard.overruled)
                    said, values = heard.said, {**values, **heard.values}
            row = {"id": name, "said": said, **values}
            self._patches.setdefault(tuple(row), []).append(row)
        self._hearings = {}

    def _evened(self) -> dict[tuple[str, ...], list[dict[str, Any]]]:
        """Patches of the same columns for all: what a patch leaves as it is gets the value that is there.

        Each set of columns is a commit of its own, and rows of which each has other columns could make thousands.
        """
        joined: dict[str, dict[str, Any]] = {}
        for rows in self._patches.values():
            for row in rows:
                joined.setdefault(row["id"], {}).update(row)
        names = sorted({name for row in joined.values() for name in row})
        _, table = self._store.scan(names, check=False)
        there = [row for row in table.to_pylist() if row["id"] in joined]
        return {tuple(names): [row | joined[row["id"]] for row in there]}

    def _prune(self, folder: str | None, exclusion: Exclusion | None, *, remove: bool) -> None:
        """Remove what is gone from the folder, or excluded, or say how much that is."""
        gone, excluded = [], []
        for row, uri in enumerate(self._known.uris):
            path = uri_to_path(uri) if uri is not None and uri not in self._seen else None
            if path is None:
                continue
            there = os.path.lexists(path) and row_is_there(uri)
            if exclusion is not None and exclusion.covers(str(path)) and there:
                excluded.append(row)
            elif folder is not None and Path(folder) in path.parents and not there:
                gone.append(row)
        if remove:
            self._counts["removed"] += self._store.delete(self._known.row_ids[gone + excluded])
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


def _is_there(uri: str | None) -> bool:
    """Whether a picture is still where an item has it. What is on the web is looked at only when it is read."""
    path = None if uri is None else uri_to_path(uri)
    return path is not None and os.path.lexists(path) and row_is_there(str(uri))


def _is_url(uri: str | None) -> bool:
    return uri is not None and uri_to_path(uri) is None


def _taken(item: Item, other: str) -> str:
    place = f"{item.uri} was left out: " if item.place else ""
    return f"{place}id {item.id!r} names {other} already; give each picture an id of its own, or remove that item first"


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if isinstance(error, PermissionError):
        return "permission denied; make the file readable and run the same again"
    return error.strerror or str(error)
