"""Reading what must be read, encoding what is new to the collection, and settling what is not."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any

import numpy as np

from mmalign.collection.ingest.claims import ClaimMerger, Tally
from mmalign.collection.ingest.commit import Commits
from mmalign.collection.ingest.diff import taken_by
from mmalign.collection.ingest.jobs import IngestJob, Known, NewRow, derive_id
from mmalign.collection.ingest.known import KnownItems, KnownPictures
from mmalign.collection.ingest.load import ImageLoader
from mmalign.collection.ingest.removals import Removals
from mmalign.collection.ingest.spool import Spool, blocks
from mmalign.encoders import Encoder, stream_image
from mmalign.errors import StorageError
from mmalign.media import Loaded, MediaPolicy, loader_of, uri_to_path
from mmalign.store import Mending, Store
from mmalign.types import Skip
from mmalign.utils import Float32Array, track

# Items that are read, and so held, at once.
_BLOCK = 8192


class Encode:
    """Reads and encodes for one run.

    Args:
        store: The items.
        before: The items when the run began.
        known: What they hold.
        commits: Where rows and changes go.
        merger: Takes over what the source says.
        removals: Says what stays out.
        tally: Counts the items.
        damage: What is damaged of the collection.
        encoder: Gives the encoder; called only when a picture must be encoded.
        batch_size: Pictures that go through the encoder at once.
        policy: What may be read; None for that of the environment.
    """

    def __init__(
        self,
        store: Store,
        before: Store,
        *,
        known: KnownItems,
        commits: Commits,
        merger: ClaimMerger,
        removals: Removals,
        tally: Tally,
        damage: Mending,
        encoder: Callable[[], Encoder],
        batch_size: int,
        policy: MediaPolicy | None,
    ) -> None:
        self._store, self._before = store, before
        self._known = known
        self._commits = commits
        self._merger = merger
        self._removals = removals
        self._tally = tally
        # Row ids of items whose embedding is damaged, and ids of items that are made anew, whatever they hold.
        self._encode_again, self._damaged = damage.without_embedding, damage.ids
        self._encoder = encoder
        self._batch_size = batch_size
        self._policy = policy
        # By kind; they are made when the first item of the kind comes.
        self._sizes: dict[str, Mapping[str, str]] = {}
        self._later: list[tuple[IngestJob, Loaded]] = []

    def run(self, jobs: Spool[IngestJob], *, progress: bool) -> None:
        """Read, and encode what is new to the collection, committing as it goes.

        Args:
            jobs: What must be read.
            progress: Whether to show a progress bar.
        """
        without = self._known.without | self._encode_again
        self._pictures = KnownPictures(self._before, without=without, asked=len(jobs))
        with track("Reading", len(jobs), enabled=progress) as advance:
            for block in blocks(iter(jobs), _BLOCK):
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
                    self._tally.counts["encoded"] += 1
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
        if self._tally.left is not None:
            self._tally.left -= done
        advance(done)

    def _settle(self, reader: ImageLoader) -> None:
        """Take over what needed no encoding."""
        read: list[tuple[IngestJob, Loaded]] = []
        while reader.settled:
            job, picture = reader.settled.popleft()
            if isinstance(picture, Skip):
                self._tally.skipped.append(picture)
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
    def _is_same(job: IngestJob, picture: Loaded, there: Mapping[int, Known]) -> bool:
        known = None if job.known is None else there.get(job.known.row_id)
        return known is not None and known.sha256 == picture.sha256

    def _bytes_known(
        self, job: IngestJob, picture: Loaded, there: Mapping[int, Known], others: Mapping[str, list[Known]]
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
            self._merger.same_bytes(known, job.item, job.digest, job.own_digest)
            return
        rows = others.get(picture.sha256)
        if rows is None:
            # Encoded in this run, from a file of the same bytes: its vector is taken once that is committed.
            self._later.append((job, picture))
            return
        if job.known is None and job.item.id is None:
            for row in map(self._known.current, rows):
                if self._removals.is_gone(row):
                    self._move(row, job, stamp)
                    return
        if self._removals.has_place(job):
            self._keep_out(job)
            return
        vector, sizes = self._kept(rows[0], picture.sha256)
        self._emit(job, picture, vector, sizes=sizes)

    def _kept(self, known: Known, digest: str) -> tuple[Float32Array, Mapping[str, Any]]:
        """The embedding of a picture of these bytes that an item has, or had before the run, and its sizes by name."""
        at = np.array([known.row_id], np.int64)
        store = self._store
        there, table = store.take_there(at, ["sha256"])
        if not len(there) or table.column("sha256")[0].as_py() != digest:
            store = self._before
        columns = store.sizes
        row = store.take(at, ["sha256", *columns.values()]).to_pylist()[0]
        sizes = {name: row[column] for name, column in columns.items()}
        return store.embeddings(at)[1][0].astype(np.float32), sizes

    def _copy_later(self) -> None:
        """Settle the copies of pictures that were encoded in this run."""
        later, self._later = self._later, []
        others = self._holders({picture.sha256 for _, picture in later})
        for job, picture in later:
            rows = others.get(picture.sha256)
            if rows is None:
                # What had its bytes was not written, or is gone again.
                self._tally.skipped.append(Skip(job.item.uri, "its copy was taken away meanwhile; run the same again"))
                continue
            vector, sizes = self._kept(rows[0], picture.sha256)
            self._emit(job, picture, vector, sizes=sizes)
        self._commits.commit_when_due()

    def _stays_out(self, job: IngestJob, digest: str) -> bool:
        return self._removals.stay_out(job, digest, self._pictures)

    def _keep_out(self, job: IngestJob) -> None:
        self._tally.counts["kept_out"] += 1
        if not self._removals.has_place(job):
            self._commits.keep_out(job.item.uri)

    # What is written --------------------------------------------------------------------------------------------------

    def _move(self, known: Known, job: IngestJob, stamp: Mapping[str, Any]) -> None:
        self._tally.counts["moved"] += 1
        self._commits.move(known, job.item.uri, stamp)
        self._merger.merge_claims(known, job.item, job.digest, job.own_digest)

    def _emit(
        self, job: IngestJob, picture: Loaded, vector: Float32Array, *, sizes: Mapping[str, Any] | None = None
    ) -> None:
        """Queue a whole row for the next commit."""
        known = job.known
        if known is not None and known.uri != job.item.uri and _is_url(known.uri):
            # Another picture, now that it was read; the same one at another address was only moved.
            self._tally.skipped.append(Skip(job.item.place or job.item.uri, taken_by(job.item, str(known.uri))))
            return
        if known is None and self._removals.restores:
            self._commits.restore(job.item.uri, picture.sha256)
        name = self._id(job, picture)
        self._tally.counts["added" if known is None and name not in self._damaged else "updated"] += 1
        sizes = picture.sizes if sizes is None else sizes
        values = {column: sizes.get(size) for size, column in self._size_columns(picture).items()} | {
            "id": name,
            "uri": job.item.uri,
            "sha256": picture.sha256,
            "kind": picture.kind,
            "bytes": job.size if job.size is not None else picture.bytes,
            "mtime_ns": job.mtime_ns,
        }
        parts = self._merger.claims(job.item, job.digest, job.own_digest)
        self._commits.add(NewRow(None if known is None else known.row_id, parts, values, vector))

    def _size_columns(self, picture: Loaded) -> Mapping[str, str]:
        """The columns of the sizes that items of a kind have, by the names of the sizes."""
        if picture.kind not in self._sizes:
            self._sizes[picture.kind] = self._store.ensure_sizes(loader_of(picture.uri).sizes)
        return self._sizes[picture.kind]

    def _id(self, job: IngestJob, picture: Loaded) -> str:
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


def _is_url(uri: str | None) -> bool:
    return uri is not None and uri_to_path(uri) is None
