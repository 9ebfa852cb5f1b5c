"""New embeddings for the items of a collection: made once for each picture, kept by its digest, joined with the items.

The embedding of a picture belongs to its bytes, so it is kept under their SHA-256. A run that was stopped then finds
what it had done, copies are encoded once, and what other processes move or change meanwhile needs no further thought.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmalign.collection.ingest import ImageLoader, IngestJob
from mmalign.encoders import Encoder, stream_image
from mmalign.media import Loaded, loader_of, row_is_there, uri_to_path
from mmalign.store import Float16Array, Store, rewrite, size_columns, to_array
from mmalign.types import Item, Skip
from mmalign.utils import Float32Array, track

# A commit is due after so many seconds or pictures: what a power cut can cost.
_COMMIT_SECONDS = 5.0
_COMMIT_PICTURES = 4096
# What an item's row says of the bytes of its picture.
_OF_BYTES = ("sha256", "bytes", "mtime_ns", "kind")

_Key = tuple[str | None, str | None]
"""An item's URI and digest: where they change, it must be looked at again."""


class ReembedJob:
    """New embeddings for the items of a collection.

    Args:
        kept: Where embeddings are kept: `id` is the SHA-256 of a picture's bytes.
        encoder: What makes them.
        batch_size: Pictures that go through the encoder at once.
        progress: Whether to show a progress bar.

    Attributes:
        encoded: Pictures that went through the encoder.
        resumed: Embeddings that were kept already.
        updated: Items that `join` wrote with other bytes than the collection knew of.
    """

    def __init__(self, kept: Store, encoder: Encoder, *, batch_size: int, progress: bool) -> None:
        self._kept = kept
        self._encoder = encoder
        self._batch_size = batch_size
        self._progress = progress
        self._done = set(kept.scan(["id"])[1].column("id").to_pylist())
        # The columns of sizes where embeddings are kept, by kind and by the size's name.
        self._sizes: dict[str, Mapping[str, str]] = {}
        self._queued: list[tuple[dict[str, Any], Float32Array]] = []
        self._last_commit = time.monotonic()
        # By id: items whose file has other bytes now than the collection knows of, and items that cannot be read.
        self._edited: dict[str, tuple[_Key, Loaded]] = {}
        self._unreadable: dict[str, tuple[_Key, Skip]] = {}
        self.encoded = 0
        self.resumed = len(self._done)
        self.updated = 0

    def missing(self, items: Store) -> list[IngestJob]:
        """Say which items' pictures must be read.

        Args:
            items: The items of the collection.

        Returns:
            Those whose bytes have no embedding yet and that were not tried before.
        """
        work = []
        for name, key in _keys(items):
            if key[1] in self._done or _known(self._edited, name, key) or _known(self._unreadable, name, key):
                continue
            if key[0] is None:
                self._unreadable[name] = key, Skip(name, "has no picture: its vector was given")
                continue
            work.append(IngestJob(Item(key[0], name), digest=key[1]))
        return work

    def encode(self, work: list[IngestJob]) -> None:
        """Read and encode pictures, committing every few seconds.

        Args:
            work: What `missing` gave.

        Raises:
            StorageError: The disk refused; what was committed before is kept.
        """
        if not work:
            return
        reader = ImageLoader(work, lambda digest: digest not in self._done)
        with track("Encoding", len(work), enabled=self._progress) as advance:
            pictures = reader.pictures()
            stream: Iterator[Float32Array] = iter(())
            try:
                first = next(pictures, None)
                if first is not None:
                    stream = stream_image(self._encoder, chain([first], pictures), batch_size=self._batch_size)
                for vectors in stream:
                    for vector in vectors:
                        self._take(*reader.encoded(), vector)
                    advance(reader.finished())
                    self._settle(reader)
                    due = time.monotonic() - self._last_commit > _COMMIT_SECONDS
                    if due or len(self._queued) >= _COMMIT_PICTURES:
                        self.flush()
            finally:
                # Threads of the encoder may still draw on the pictures: they end first.
                if isinstance(stream, Generator):
                    stream.close()
                pictures.close()
                self._settle(reader)
            advance(reader.finished())
        self.flush()

    def _take(self, picture: Loaded, jobs: list[IngestJob], vector: Float32Array) -> None:
        self.encoded += 1
        # Bytes that were read twice at the same time come twice.
        if picture.sha256 not in self._done:
            if picture.kind not in self._sizes:
                self._sizes[picture.kind] = self._kept.ensure_sizes(loader_of(picture.uri).sizes)
            columns = self._sizes[picture.kind]
            row = {"id": picture.sha256, **{columns[name]: value for name, value in picture.sizes.items()}}
            self._queued.append((row, vector))
            self._done.add(picture.sha256)
        for job in jobs:
            self._compare(job, picture)

    def _settle(self, reader: ImageLoader) -> None:
        """Take over what needed no encoding: what cannot be read, and copies."""
        while reader.settled:
            job, picture = reader.settled.popleft()
            if isinstance(picture, Skip):
                self._unreadable[str(job.item.id)] = (job.item.uri, job.digest), picture
            else:
                self._compare(job, picture)

    def _compare(self, job: IngestJob, picture: Loaded) -> None:
        """Remember an item whose file was edited since it was added."""
        if picture.sha256 != job.digest:
            self._edited[str(job.item.id)] = (job.item.uri, job.digest), picture

    def flush(self) -> None:
        """Commit what is encoded, for a run that goes on after this one."""
        if self._queued:
            self._kept.upsert([row for row, _ in self._queued], np.stack([vector for _, vector in self._queued]))
            self._queued = []
        self._last_commit = time.monotonic()

    def gone(self, work: list[IngestJob]) -> list[Skip]:
        """Find files that are not there, without reading those that are.

        Args:
            work: What `missing` gave.

        Returns:
            The items whose file is gone, unless a copy of the same bytes is among the others.
        """
        there, gone = set(), []
        for job in work:
            path = uri_to_path(job.item.uri)
            if path is None or (path.is_file() and row_is_there(job.item.uri)):
                there.add(job.digest)
            else:
                gone.append(job)
        return [Skip(job.item.uri, "not found") for job in gone if job.digest is None or job.digest not in there]

    def unreadable(self, items: Store) -> list[Skip]:
        """Say which items have no embedding after `encode`.

        Args:
            items: The items that were encoded.

        Returns:
            Each with the reason.
        """
        return [
            self._unreadable[name][1]
            for name, key in _keys(items)
            if key[1] not in self._done and not _known(self._edited, name, key)
        ]

    def join(self, items: Store, path: Path) -> None:
        """Write the items with their new embeddings, in their order, without those that have none.

        Args:
            items: The items that were encoded.
            path: Where the new dataset goes; nothing may be there.

        Raises:
            StorageError: The disk refused.
        """
        row_ids, table = self._kept.scan(["id"])
        places = dict(zip(table.column("id").to_pylist(), row_ids.tolist(), strict=True))
        self.updated = 0
        declared: dict[str, str] = {}
        for _, picture in self._edited.values():
            declared |= loader_of(picture.uri).sizes

        def renew(rows: pa.Table) -> tuple[pa.Table, Float16Array]:
            values = {name: rows.column(name).to_pylist() for name in ("id", "uri", *_OF_BYTES)}
            keys = list(zip(values["uri"], values["sha256"], strict=True))
            edits = {
                i: self._edited[name][1]
                for i, (name, key) in enumerate(zip(values["id"], keys, strict=True))
                if key[1] not in places and _known(self._edited, name, key)
            }
            if edits:
                self.updated += len(edits)
                rows = self._with_edits(rows, values, edits, places)
            digests = values["sha256"]
            chosen = [i for i, digest in enumerate(digests) if digest in places]
            if not chosen:
                return rows.slice(0, 0), np.zeros((0, self._encoder.dim), np.float16)
            wanted = np.array([places[digests[i]] for i in chosen], np.int64)
            return rows.take(pa.array(chosen)), self._kept.embeddings(wanted)[1]

        rewrite(items, path, dim=self._encoder.dim, renew=renew, sizes=declared)

    def _with_edits(
        self, rows: pa.Table, values: dict[str, list[Any]], edits: dict[int, Loaded], places: dict[str, int]
    ) -> pa.Table:
        """What is said of the bytes of edited files, in `rows` and `values`, becomes what was read of them."""
        wanted = np.array([places[picture.sha256] for picture in edits.values()], np.int64)
        kept, columns = self._kept.sizes, size_columns(rows.schema)
        values |= {column: rows.column(column).to_pylist() for column in columns.values()}
        taken = self._kept.take(wanted, ["id", *kept.values()]).to_pylist()
        for (i, picture), size in zip(edits.items(), taken, strict=True):
            stamp = {"sha256": picture.sha256, "bytes": picture.bytes, "mtime_ns": picture.mtime_ns}
            sizes = {column: size[kept[name]] if name in kept else None for name, column in columns.items()}
            for name, value in ({"kind": picture.kind} | stamp | sizes).items():
                values[name][i] = value
        for name in (*_OF_BYTES, *columns.values()):
            position = rows.schema.get_field_index(name)
            field = rows.schema.field(name)
            rows = rows.set_column(position, field, to_array(name, values[name], field.type))
        return rows


def _keys(items: Store) -> Iterator[tuple[str, _Key]]:
    _, table = items.scan(["id", "uri", "sha256"])
    names, uris, digests = (column.to_pylist() for column in table.columns)
    yield from zip(names, zip(uris, digests, strict=True), strict=True)


def _known(items: dict[str, tuple[_Key, Any]], name: str, key: _Key) -> bool:
    return name in items and items[name][0] == key
