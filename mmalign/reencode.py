"""Encoding a whole collection anew: the next generation is made beside the one in use, which it then replaces.

    photos.mm/generation-2/encoder.json     for which encoder it is begun
    photos.mm/generation-2/vectors.lance    an embedding for each picture, by the SHA-256 of its bytes
    photos.mm/generation-2/items.lance      written when all pictures are encoded, then captions and index

Embeddings are committed every few seconds, so that a run that was stopped goes on from there. What takes long happens
while other processes search and write. At the end, while no other process writes, the items as they are then are
joined with the embeddings, and `collection.json` is replaced, which is the one step that readers see. Each step is a
function of this module, so that a test can stop a process before and after it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mmalign.caption_search import refresh_captions
from mmalign.encoders.base import Encoder, stream_image
from mmalign.encoders.registry import load_encoder, newer_version
from mmalign.errors import (
    CollectionError,
    CollectionFormatError,
    IndexFileError,
    InputError,
    ReencodeInterrupted,
    UnreadableItemsError,
)
from mmalign.generation import CAPTIONS, ITEMS, LOCK, REENCODE_LOCK, WORK, Generation, clear_earlier, clear_unfinished
from mmalign.index import publish
from mmalign.locks import lock
from mmalign.media.images import Picture
from mmalign.media.uris import uri_to_path
from mmalign.progress import track
from mmalign.reader import Reader, Work
from mmalign.similarity import Float32Array
from mmalign.store.columns import to_array
from mmalign.store.description import Description, sync_tree
from mmalign.store.lance_store import Float16Array, Store, storage_errors
from mmalign.store.rewrite import rewrite
from mmalign.types import Item, ReencodeReport, Skip

_NOTE = "encoder.json"
# A commit is due after so many seconds or pictures: what a power cut can cost.
_COMMIT_SECONDS = 5.0
_COMMIT_PICTURES = 4096
# How long to wait before looking again whether other processes have finished writing.
_WAIT_SECONDS = 0.2
_TOLD = 20
# What an item's row says of the bytes of its picture.
_OF_BYTES = ("sha256", "bytes", "mtime_ns", "width", "height", "kind")

_Key = tuple[str | None, str | None]
"""An item's URI and digest: where they change, it must be looked at again."""


@dataclass(frozen=True, slots=True)
class ReencodeOptions:
    """How to encode anew.

    Attributes:
        drop_missing: Leave out items whose picture cannot be read, instead of refusing.
        progress: Whether to show progress bars.
        batch_size: Pictures that go through the encoder at once.
    """

    drop_missing: bool = False
    progress: bool = True
    batch_size: int = 32


class Reencode:
    """One run that encodes a collection anew.

    Args:
        path: The collection's folder.
        encoder: The encoder.
        options: How.

    Raises:
        InputError: The encoder encodes no pictures.
    """

    def __init__(self, path: Path, encoder: Encoder, options: ReencodeOptions) -> None:
        if "image" not in encoder.modalities:
            raise InputError(f"{encoder.name} encodes no pictures; a collection needs an encoder that does")
        self._path = path
        self._encoder = encoder
        self._options = options
        self._started = time.monotonic()
        self._encoded = 0
        self._kept = 0
        self._done: set[str] = set()
        self._rows: list[dict[str, Any]] = []
        self._vectors: list[Float32Array] = []
        self._last_commit = self._started
        # By id: items whose file has other bytes now than the collection knows of, and items that cannot be read.
        self._edited: dict[str, tuple[_Key, Picture]] = {}
        self._unreadable: dict[str, tuple[_Key, Skip]] = {}
        self._dropped: tuple[Skip, ...] = ()
        self._updated = 0
        self._seen_version = -1

    def run(self) -> ReencodeReport:
        """Encode all pictures and put the new generation in use.

        Returns:
            What was done; nothing where the collection is made with this encoder already.

        Raises:
            As `Collection.reencode`.
        """
        with alone_in_reencoding(self._path):
            self._current = Generation.open(self._path, None, load=load_encoder)
            if self._current.description.fingerprint == self._encoder.fingerprint:
                clear_unfinished(self._path)
                return self._report(len(self._current.latest()))
            try:
                self._prepare()
                self._work_through()
                while not self._finish_when_alone():
                    self._wait()
                    self._work_through()
            except KeyboardInterrupt:
                self._flush()
                if self._current.newest() is self._current:
                    raise ReencodeInterrupted(self._report(len(self._current.latest()))) from None
            clear_earlier(self._path)
            return self._report(self._items)

    def _report(self, items: int) -> ReencodeReport:
        return ReencodeReport(
            encoder=self._encoder.name,
            items=items,
            encoded=self._encoded,
            kept=self._kept,
            updated=self._updated,
            dropped=self._dropped,
            seconds=time.monotonic() - self._started,
        )

    # The next generation -------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Go on with the work that an earlier run for this encoder left, or begin."""
        encoder = self._encoder
        self._description = Description(
            encoder.name, encoder.fingerprint, encoder.dim, generation=self._current.description.generation + 1
        )
        self._folder = self._description.data(self._path)
        note = self._folder / _NOTE
        wanted = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "dim": encoder.dim}
        try:
            same = json.loads(note.read_text(encoding="utf-8")) == wanted
            self._work = Store.open(self._folder / WORK)
        except (OSError, ValueError, CollectionFormatError):
            same = False
        if not same:
            with storage_errors(self._folder):
                clear_unfinished(self._path)
                self._folder.mkdir()
                self._work = Store.create(self._folder / WORK, dim=encoder.dim)
                # Last: a folder without it is begun again.
                note.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
        self._done = set(self._work.scan(["id"])[1].column("id").to_pylist())
        self._kept = len(self._done)

    def _work_through(self) -> None:
        """Do what takes long: encode what is not encoded yet of the items as they are now."""
        store = self._current.latest()
        if store.version == self._seen_version:
            return
        self._encode(store)
        self._refuse_unreadable(store)
        self._refresh_captions(store)
        self._seen_version = store.version

    def _finish_when_alone(self) -> bool:
        """Put the new generation in use, unless another process is writing at this moment."""
        with lock(self._path / LOCK, wait=False) as alone:
            if not alone:
                return False
            if self._current.newest() is not self._current:
                raise CollectionError(f"{self._path} was replaced meanwhile; run the same again")
            store = self._current.latest()
            self._encode(store)
            self._refuse_unreadable(store)
            assemble(store, self._folder / ITEMS, dim=self._encoder.dim, renew=self._renewer())
            following = Generation(self._path, self._description, self._encoder, load=load_encoder)
            items = following.latest()
            self._items = len(items)
            self._refresh_captions(items)
            self._build_index(following)
            put_in_use(self._description, self._path)
            return True

    def _wait(self) -> None:
        """Wait until other processes have finished writing, or there is something to do meanwhile."""
        with track("Waiting for other writers", None, enabled=self._options.progress):
            while self._current.latest().version == self._seen_version:
                time.sleep(_WAIT_SECONDS)
                with lock(self._path / LOCK, wait=False) as alone:
                    if alone:
                        return

    def _refresh_captions(self, items: Store) -> None:
        if self._current.captions.exists() and "text" in self._encoder.modalities:
            refresh_captions(
                self._folder / CAPTIONS,
                items,
                lambda: self._encoder,
                dim=self._encoder.dim,
                progress=self._options.progress,
            )

    def _build_index(self, following: Generation) -> None:
        """Build the design of index that the collection has."""
        try:
            manifest = publish.read_manifest(self._current.index)
        except IndexFileError:
            # It could not be used: a search was exact, and will be again.
            return
        if manifest is not None:
            following.build_index(manifest.asked or manifest.recipe, progress=self._options.progress)

    # Encoding ------------------------------------------------------------------------------------------------------

    def _encode(self, store: Store) -> None:
        """Encode the pictures of all items that have no embedding yet, committing as it goes."""
        work = self._missing(store)
        if not work:
            return
        if not self._options.drop_missing:
            # Before the hours of encoding, not after.
            self._refuse_gone(store, work)
        reader = Reader(work, lambda digest: digest not in self._done)
        with track("Encoding", len(work), enabled=self._options.progress) as advance:
            pictures = reader.pictures()
            stream: Iterator[Float32Array] = iter(())
            try:
                first = next(pictures, None)
                if first is not None:
                    stream = stream_image(self._encoder, chain([first], pictures), batch_size=self._options.batch_size)
                for vectors in stream:
                    for vector in vectors:
                        picture, jobs = reader.encoded()
                        self._encoded += 1
                        self._keep(picture, vector)
                        for job in jobs:
                            self._compare(job, picture)
                    advance(reader.finished())
                    self._settle(reader)
                    if len(self._rows) >= _COMMIT_PICTURES or time.monotonic() - self._last_commit > _COMMIT_SECONDS:
                        self._flush()
            finally:
                # Threads of the encoder may still draw on the pictures: they end first.
                if isinstance(stream, Generator):
                    stream.close()
                pictures.close()
                self._settle(reader)
            advance(reader.finished())
        self._flush()

    def _missing(self, store: Store) -> list[Work]:
        """The items whose picture must be read."""
        work = []
        for name, key in _items(store):
            if key[1] in self._done or _known(self._edited, name, key) or _known(self._unreadable, name, key):
                continue
            if key[0] is None:
                self._unreadable[name] = key, Skip(name, "has no picture: its vector was given")
                continue
            work.append(Work(Item(key[0], name), -1, None, None, key[1]))
        return work

    def _keep(self, picture: Picture, vector: Float32Array) -> None:
        if picture.sha256 not in self._done:
            self._done.add(picture.sha256)
            self._rows.append({"id": picture.sha256, "width": picture.width, "height": picture.height})
            self._vectors.append(vector)

    def _settle(self, reader: Reader) -> None:
        """Take over what needed no encoding: what cannot be read, and copies."""
        while reader.settled:
            job, picture = reader.settled.popleft()
            if isinstance(picture, Skip):
                self._unreadable[str(job.item.id)] = (job.item.uri, job.said), picture
            else:
                self._compare(job, picture)

    def _compare(self, job: Work, picture: Picture) -> None:
        """Remember an item whose file was edited since it was added."""
        if picture.sha256 != job.said:
            self._edited[str(job.item.id)] = (job.item.uri, job.said), picture

    def _flush(self) -> None:
        """Commit what is encoded."""
        if self._rows:
            commit_embeddings(self._work, self._rows, np.stack(self._vectors))
            self._rows, self._vectors = [], []
        self._last_commit = time.monotonic()

    # Pictures that are gone ----------------------------------------------------------------------------------------

    def _refuse_gone(self, store: Store, work: list[Work]) -> None:
        """Raise where files are not there, unless a copy of the same bytes is."""
        there, gone = set(), []
        for job in work:
            path = uri_to_path(job.item.uri)
            if path is None or path.is_file():
                there.add(job.said)
            else:
                gone.append(job)
        self._refuse(
            store, [Skip(job.item.uri, "not found") for job in gone if job.said is None or job.said not in there]
        )

    def _refuse_unreadable(self, store: Store) -> None:
        skips = []
        for name, key in _items(store):
            if key[1] not in self._done and not _known(self._edited, name, key):
                skips.append(self._unreadable[name][1])
        if len(skips) == len(store) and skips:
            reasons = "\n".join(f"  {skip.uri}: {skip.reason}" for skip in skips[:_TOLD])
            raise UnreadableItemsError(
                f"none of the {len(skips):,} items of {self._path} has a picture that can be read, so that they "
                f"cannot be encoded anew:\n{reasons}",
                tuple(skips),
            )
        if self._options.drop_missing:
            self._dropped = tuple(skips)
        else:
            self._refuse(store, skips)

    def _refuse(self, store: Store, skips: list[Skip]) -> None:
        if not skips:
            return
        listed = [f"  {skip.uri}: {skip.reason}" for skip in skips[:_TOLD]]
        if len(skips) > _TOLD:
            listed.append(f"  ... and {len(skips) - _TOLD:,} more")
        raise UnreadableItemsError(
            f"{len(skips):,} of {len(store):,} items of {self._path} cannot be encoded anew, since their pictures "
            "cannot be read; nothing was changed:\n" + "\n".join(listed) + "\n"
            "Bring the pictures back, or run `mmalign index SOURCE` first where they were moved; "
            "to remove these items, add --drop-missing (in Python: drop_missing=True)",
            tuple(skips),
        )

    # Joining items and embeddings ----------------------------------------------------------------------------------

    def _renewer(self) -> Callable[[pa.Table], tuple[pa.Table, Float16Array]]:
        """What gives items their new embeddings, and leaves out those that have none."""
        row_ids, table = self._work.scan(["id"])
        places = dict(zip(table.column("id").to_pylist(), row_ids.tolist(), strict=True))
        self._updated = 0

        def renew(items: pa.Table) -> tuple[pa.Table, Float16Array]:
            values = {name: items.column(name).to_pylist() for name in ("id", "uri", *_OF_BYTES)}
            edits: dict[int, Picture] = {}
            digests: list[str | None] = values["sha256"]
            for i, (name, key) in enumerate(zip(values["id"], zip(values["uri"], digests, strict=True), strict=True)):
                if key[1] not in places and _known(self._edited, name, key):
                    edits[i] = self._edited[name][1]
            wanted = [edits[i].sha256 if i in edits else digest for i, digest in enumerate(digests)]
            chosen = [i for i, digest in enumerate(wanted) if digest in places]
            rows = np.array([places[str(wanted[i])] for i in chosen], np.int64)
            if edits:
                self._updated += len(edits)
                items = self._with_edits(items, values, edits, places)
            if not len(rows):
                return items.slice(0, 0), np.zeros((0, self._encoder.dim), np.float16)
            return items.take(pa.array(chosen)), self._work.embeddings(rows)[1]

        return renew

    def _with_edits(
        self, items: pa.Table, values: dict[str, list[Any]], edits: dict[int, Picture], places: dict[str, int]
    ) -> pa.Table:
        """What is said of the bytes of edited files becomes what was read of them."""
        rows = np.array([places[picture.sha256] for picture in edits.values()], np.int64)
        sizes = self._work.take(rows, ["width", "height"]).to_pylist()
        for (i, picture), size in zip(edits.items(), sizes, strict=True):
            told = {"sha256": picture.sha256, "bytes": picture.bytes, "mtime_ns": picture.mtime_ns, "kind": "image"}
            for name, value in (told | size).items():
                values[name][i] = value
        for name in _OF_BYTES:
            position = items.schema.get_field_index(name)
            field = items.schema.field(name)
            items = items.set_column(position, field, to_array(name, values[name], field.type))
        return items


def reencode_notes(path: Path, description: Description) -> list[str]:
    """Say why and how a collection should be encoded anew.

    Args:
        path: The collection.
        description: What it is made with.

    Returns:
        A sentence where its encoder has a newer version, and one where encoding it anew was begun.
    """
    notes = []
    following = replace(description, generation=description.generation + 1).data(path) / _NOTE
    newer = newer_version(description.encoder)
    if following.exists():
        try:
            begun = json.loads(following.read_text(encoding="utf-8"))["encoder"]
        except (OSError, ValueError, KeyError, TypeError):
            begun = newer or description.encoder
        notes.append(
            f"to encode it anew with {begun} was begun; where that is not under way, go on with: "
            f"mmalign index --reencode --encoder {begun} --collection {path}"
        )
    elif newer is not None:
        notes.append(
            f"made with {description.encoder}; {newer} is better: mmalign index --reencode --collection {path}"
        )
    return notes


@contextmanager
def alone_in_reencoding(path: Path) -> Iterator[None]:
    """Keep other processes from encoding a collection anew while the block runs.

    Args:
        path: The collection.

    Raises:
        CollectionError: Another process does so at this moment.
    """
    with lock(path / REENCODE_LOCK, wait=False) as alone:
        if not alone:
            raise CollectionError(f"another process encodes {path} anew; wait until it is done, or stop it")
        yield


# The steps of `Reencode.run` that change what is on disk.


def commit_embeddings(work: Store, rows: list[dict[str, Any]], vectors: Float32Array) -> None:
    """Keep embeddings for a run that goes on after this one."""
    work.upsert(rows, vectors)


def assemble(items: Store, path: Path, *, dim: int, renew: Callable[[pa.Table], tuple[pa.Table, Float16Array]]) -> None:
    """Write the items with their new embeddings."""
    # What a run that was killed here has left.
    shutil.rmtree(path, ignore_errors=True)
    rewrite(items, path, dim=dim, renew=renew)


def put_in_use(description: Description, path: Path) -> None:
    """Replace `collection.json`: from here on, readers and writers see the new generation."""
    with storage_errors(path):
        sync_tree(description.data(path))
        description.write(path)


def _items(store: Store) -> Iterator[tuple[str, _Key]]:
    _, table = store.scan(["id", "uri", "sha256"])
    names, uris, digests = (column.to_pylist() for column in table.columns)
    yield from zip(names, zip(uris, digests, strict=True), strict=True)


def _known(items: dict[str, tuple[_Key, Any]], name: str, key: _Key) -> bool:
    return name in items and items[name][0] == key
