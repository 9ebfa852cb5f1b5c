"""Encoding a whole collection anew: the next generation is made beside the one in use, which it then replaces.

    photos.mm/generation-2/encoder.json     for which encoder it is begun
    photos.mm/generation-2/vectors.lance    an embedding for each picture, by the SHA-256 of its bytes
    photos.mm/generation-2/items.lance      written when all pictures are encoded, then views and index

Embeddings are committed every few seconds, so that a run that was stopped goes on from there. What takes long happens
while other processes search and write. At the end, while no other process writes, the items as they are then are
joined with the embeddings, and `collection.json` is replaced, which is the one step that readers see.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mmalign.collection.caption_view import captions_spec
from mmalign.collection.description import CollectionManifest, sync_tree
from mmalign.collection.embedding_cache import ReembedJob
from mmalign.collection.generation import Generation
from mmalign.collection.generation_files import (
    ITEMS,
    LOCK,
    REENCODE_LOCK,
    WORK,
    clear_earlier,
    clear_unfinished,
)
from mmalign.collection.item_schema import item_schema
from mmalign.collection.view_refresh import refresh_view
from mmalign.collection.views import remove_earlier_captions
from mmalign.encoders import Encoder, load_encoder, newer_version
from mmalign.errors import (
    CollectionError,
    CollectionFormatError,
    IndexFileError,
    InputError,
    ReencodeInterrupted,
    UnreadableItemsError,
)
from mmalign.index import IndexManifest, lifecycle
from mmalign.store import Store
from mmalign.types import Note, ReencodeReport, Skip
from mmalign.utils import lock, storage_errors, track

_NOTE = "encoder.json"
# How long to wait before looking again whether other processes have finished writing.
_WAIT_SECONDS = 0.2
_LISTED = 20


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
        InputError: The encoder encodes no pictures, or the collection goes by inner products of vectors of any length.
    """

    def __init__(self, path: Path, encoder: Encoder, options: ReencodeOptions) -> None:
        if "image" not in encoder.modalities:
            raise InputError(f"{encoder.name} encodes no pictures; a collection needs an encoder that does")
        self._path = path
        self._encoder = encoder
        self._options = options
        self._started = time.monotonic()
        self._renewal: ReembedJob | None = None
        self._dropped: tuple[Skip, ...] = ()
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
            if not self._current.description.unit_length:
                raise InputError(
                    f"{self._path} holds vectors of any length (metric ip), which no encoder makes; index the pictures "
                    "into a new collection"
                )
            self._items = len(self._current.latest())
            if self._current.description.fingerprint == self._encoder.fingerprint:
                clear_unfinished(self._path)
                return self._report()
            try:
                renewal = self._prepare()
                self._work_through(renewal)
                while not self._finish_when_alone(renewal):
                    self._wait()
                    self._work_through(renewal)
            except KeyboardInterrupt:
                if self._current.newest() is self._current:
                    if self._renewal is not None:
                        self._renewal.flush()
                    raise ReencodeInterrupted(self._report()) from None
            clear_earlier(self._path)
            return self._report()

    def _report(self) -> ReencodeReport:
        renewal = self._renewal
        return ReencodeReport(
            encoder=self._encoder.name,
            items=self._items,
            encoded=0 if renewal is None else renewal.encoded,
            kept=0 if renewal is None else renewal.resumed,
            updated=0 if renewal is None else renewal.updated,
            dropped=self._dropped,
            seconds=time.monotonic() - self._started,
        )

    def _prepare(self) -> ReembedJob:
        """Go on with the work that an earlier run for this encoder left, or begin."""
        encoder = self._encoder
        self._description = CollectionManifest(
            encoder.name, encoder.fingerprint, encoder.dim, generation=self._current.description.generation + 1
        )
        self._folder = self._description.data(self._path)
        note = self._folder / _NOTE
        wanted = {"encoder": encoder.name, "fingerprint": encoder.fingerprint, "dim": encoder.dim}
        try:
            same = json.loads(note.read_text(encoding="utf-8")) == wanted
            kept = Store.open(self._folder / WORK)
        except (OSError, ValueError, CollectionFormatError):
            same = False
        # What an earlier mmalign has begun holds captions where no search looks for them any more.
        remove_earlier_captions(self._folder)
        if not same:
            with storage_errors(self._folder):
                clear_unfinished(self._path)
                self._folder.mkdir()
                kept = Store.create(self._folder / WORK, dim=encoder.dim, schema=item_schema)
                # Last: a folder without it is begun again.
                note.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
        self._renewal = ReembedJob(kept, encoder, batch_size=self._options.batch_size, progress=self._options.progress)
        return self._renewal

    def _work_through(self, renewal: ReembedJob) -> None:
        """Do what takes long: encode what is not encoded yet of the items as they are now."""
        items = self._current.latest()
        if items.version == self._seen_version:
            return
        with items.reads_long():
            self._encode(renewal, items)
            self._refresh_captions(items)
        self._seen_version = items.version

    def _finish_when_alone(self, renewal: ReembedJob) -> bool:
        """Put the new generation in use, unless another process is writing at this moment."""
        with lock(self._path / LOCK, wait=False) as alone:
            if not alone:
                return False
            if self._current.newest() is not self._current:
                raise CollectionError(f"{self._path} was replaced meanwhile; run the same again")
            old = self._current.latest()
            self._encode(renewal, old)
            # What a run that was killed here has left.
            shutil.rmtree(self._folder / ITEMS, ignore_errors=True)
            renewal.join(old, self._folder / ITEMS)
            following = Generation(self._path, self._description, self._encoder, load=load_encoder)
            new = following.latest()
            self._refresh_captions(new)
            self._build_index(following)
            # As it is by now: patterns may have been added since this was begun.
            now = CollectionManifest.read(self._path)
            # Queries are kept from now on, too, in a new sample: the vectors of the earlier one mean nothing here.
            put_in_use(replace(self._description, excluded=now.excluded, query_log=now.query_log), self._path)
            self._items = len(new)
            return True

    def _wait(self) -> None:
        """Wait until other processes have finished writing, or there is something to do meanwhile."""
        with track("Waiting for other writers", None, enabled=self._options.progress):
            while self._current.latest().version == self._seen_version:
                time.sleep(_WAIT_SECONDS)
                with lock(self._path / LOCK, wait=False) as alone:
                    if alone:
                        return

    def _encode(self, renewal: ReembedJob, items: Store) -> None:
        """Encode what has no embedding yet; refuse what cannot be read, before the hours of encoding where possible."""
        work = renewal.missing(items)
        if not self._options.drop_missing:
            self._refuse(items, renewal.gone(work))
        renewal.encode(work)
        unreadable = renewal.unreadable(items)
        if self._options.drop_missing and len(unreadable) < len(items):
            self._dropped = tuple(unreadable)
        else:
            self._refuse(items, unreadable)

    def _refuse(self, items: Store, skips: list[Skip]) -> None:
        if not skips:
            return
        listed = [f"  {skip.uri}: {skip.reason}" for skip in skips[:_LISTED]]
        if len(skips) > _LISTED:
            listed.append(f"  ... and {len(skips) - _LISTED:,} more")
        remedy = "Bring the pictures back, or run `mmalign index SOURCE` first where they were moved"
        if len(skips) < len(items):
            remedy += "; to remove these items, add --drop-missing (in Python: drop_missing=True)"
        raise UnreadableItemsError(
            f"{len(skips):,} of {len(items):,} items of {self._path} cannot be encoded anew, since they have no "
            "picture that can be read; nothing was changed:\n" + "\n".join([*listed, remedy]),
            tuple(skips),
        )

    def _refresh_captions(self, items: Store) -> None:
        """Encode the captions, where those that are in use were ever searched."""
        if self._current.captions.exists and "text" in self._encoder.modalities:
            spec = captions_spec(self._folder, self._description, lambda: self._encoder)
            refresh_view(spec, items, progress=self._options.progress)

    def _build_index(self, following: Generation) -> None:
        """Build the designs of index that the collection has."""
        used, progress = self._current, self._options.progress
        if (manifest := _readable(lambda: lifecycle.read_manifest(used.index))) is not None:
            following.rebuild_index(manifest, progress=progress)
        if (manifest := _readable(lambda: used.captions.index_manifest)) is not None:
            following.captions.rebuild_index(manifest, progress=progress)


def _readable(read: Callable[[], IndexManifest | None]) -> IndexManifest | None:
    try:
        return read()
    except IndexFileError:
        # It could not be used: a search was exact, and will be again.
        return None


def put_in_use(description: CollectionManifest, path: Path) -> None:
    """Replace `collection.json`: from here on, readers and writers see the generation that it names.

    Args:
        description: What the new generation is made with.
        path: The collection.

    Raises:
        StorageError: The disk refused; the generation before it stays in use.
    """
    with storage_errors(path):
        sync_tree(description.data(path))
        description.write(path)


def choose_encoder(path: Path, description: CollectionManifest) -> str:
    """Say what to encode a collection anew with, where nobody has said it.

    Args:
        path: The collection, for the error's text.
        description: What it is made with.

    Returns:
        The newest version of the encoder that it is made with.

    Raises:
        InputError: It is made without one.
    """
    own = description.encoder
    if own is None:
        raise InputError(f"{path} was made without an encoder; say with which to encode its pictures")
    return newer_version(own) or own


def reencode_notes(path: Path, description: CollectionManifest) -> list[Note]:
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
    which = f"--collection {shlex.quote(str(path))}"
    if following.exists():
        try:
            begun = json.loads(following.read_text(encoding="utf-8"))["encoder"]
        except (OSError, ValueError, KeyError, TypeError):
            begun = newer or description.encoder
        notes.append(
            Note(
                f"to encode it anew with {begun} was begun; where that is not under way, go on with it",
                remedy=f"mmalign index --reencode --encoder {shlex.quote(begun)} {which}",
                about="encoder",
            )
        )
    elif newer is not None:
        text = f"made with {description.encoder}; {newer} is better"
        notes.append(Note(text, remedy=f"mmalign index --reencode {which}", about="encoder"))
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
