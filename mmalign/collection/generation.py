"""One generation of a collection: the items, the index and the views that one encoder made.

To encode a collection anew makes the next generation beside the one in use, and puts it in use by replacing
`collection.json`. What belongs together is therefore reached through one object, so that a search never compares a
vector of one encoder with those of another.

    photos.mm/collection.json       names the generation in use
    photos.mm/items.lance ...       the first generation
    photos.mm/generation-2/...      the second: items.lance, index/ and views/
"""

from __future__ import annotations

import shlex
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmalign.calibration import Calibration
from mmalign.collection.description import FILE, CollectionManifest
from mmalign.collection.indexing import IndexBuilder
from mmalign.collection.maintenance import Action
from mmalign.collection.recall import EvalQueries, drift_notes, sample_eval_queries
from mmalign.collection.view_refresh import CAPTIONS, IMAGE, ViewPlace, ViewSpec
from mmalign.collection.view_search import ViewSearcher
from mmalign.collection.view_table import captions_of
from mmalign.collection.views import View, remove_views
from mmalign.encoders import Encoder
from mmalign.errors import (
    CollectionError,
    CollectionFormatError,
    EncoderMismatchError,
    EncoderSpecError,
    StorageError,
)
from mmalign.index import IndexManifest, QuerySet, lifecycle, place_index
from mmalign.search import Searcher, find_calibration
from mmalign.store import Store
from mmalign.types import Note
from mmalign.utils import Float32Array, lock

LOCK = ".lock"
"""Writers share it, and who puts the next generation in use holds it alone: nothing that is written is left behind."""
REENCODE_LOCK = ".reencode.lock"
"""Held by who makes the next generation."""
ITEMS, INDEX = "items.lance", "index"
WORK = "vectors.lance"
"""Embeddings by the digest of a picture's bytes, while a generation is made."""
# Drift is looked for anew whenever this part of the items has been added.
_LOOKS = 50
# How long an earlier generation stays, so that a search in another process can finish with it.
_KEEP_SECONDS = 3600.0
# How long to wait for those that write, where nobody else may.
_WAIT_FOR_WRITERS = 60.0
_Stamp = tuple[int, int, int]


class Generation:
    """One generation of a collection.

    Args:
        path: The collection's folder.
        description: What `collection.json` says, or will say.
        encoder: The encoder, where it is loaded already.
        load: Makes an encoder by its name.
        stamp: What `collection.json` was known by when it was read; None for a generation that is not in use yet.

    Attributes:
        path: The collection's folder.
        description: As given.
        items: The dataset of items.
        index: The folder of the index's versions.
        captions: The view of the items by their captions.
        device: Where searches without a filter run, `cpu` or `cuda`; what follows this generation takes it over.
    """

    def __init__(
        self,
        path: Path,
        description: CollectionManifest,
        encoder: Encoder | None,
        *,
        load: Callable[[str], Encoder],
        stamp: _Stamp | None = None,
    ) -> None:
        self.path = path
        self.description = description
        self.data = description.data(path)
        self.items, self.index = self.data / ITEMS, self.data / INDEX
        self.device = "cpu"
        self._stamp = stamp
        self._store = Store.open(self.items)
        _check_items(self._store, description, self.items)
        self._encoder = encoder
        self._load = load
        self._searcher: Searcher | None = None
        self._remarks: tuple[tuple[str | None, int] | None, tuple[Note, ...]] = (None, ())
        self._lock = threading.Lock()
        fingerprint = description.fingerprint
        self._builder = IndexBuilder(
            self.index, self.writer, dim=description.dim, fingerprint=fingerprint, queries=self.sample_eval_queries
        )
        captions = captions_spec(self.data, description, lambda: self.encoder)
        self.captions = View(captions, fingerprint=fingerprint, queries=self._caption_queries)

    @classmethod
    def open(cls, path: Path, encoder: Encoder | None, *, load: Callable[[str], Encoder]) -> Generation:
        """Open the generation in use.

        Args:
            path: The collection's folder.
            encoder: An encoder to use where it is the one that the collection was made with.
            load: Makes an encoder by its name.

        Returns:
            The generation.

        Raises:
            CollectionNotFoundError: There is no collection.
            CollectionFormatError: Damaged, or written by a newer mmalign.
        """
        # Before it is read: what is replaced in between is then seen at the next look.
        stamp = _stamp(path)
        description = CollectionManifest.read(path)
        fits = encoder is not None and encoder.fingerprint == description.fingerprint
        return cls(path, description, encoder if fits else None, load=load, stamp=stamp)

    def newest(self) -> Generation:
        """Return the generation in use now: this one, unless another process has put the next in use.

        Raises:
            CollectionNotFoundError: The collection is gone.
        """
        if _stamp(self.path) == self._stamp:
            return self
        following = Generation.open(self.path, self._encoder, load=self._load)
        following.device = self.device
        return following

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded at first use.

        Raises:
            CollectionError: The collection has none.
            EncoderMismatchError: The weights here are not those that it was made with.
        """
        if self._encoder is None:
            name = self.description.encoder
            if name is None:
                raise CollectionError(
                    f"{self.path} holds vectors from elsewhere and has no encoder; search it by vector"
                )
            try:
                loaded = self._load(name)
            except EncoderSpecError as error:
                raise EncoderSpecError(
                    f"{self.path} was made with {name}: {error}; an encoder of your own is handed in with "
                    "Collection.open(path, encoder=...)"
                ) from error
            check_encoder(self.path, self.description, loaded)
            self._encoder = loaded
        return self._encoder

    @property
    def loaded_encoder(self) -> Encoder | None:
        """The encoder where it is here already: handed in, or loaded by a search; else None."""
        return self._encoder

    def calibration(self) -> Calibration | None:
        """What turns scores into probabilities: the collection's own, else the encoder's; None where there is none.

        Raises:
            CalibrationError: There is one alone that is damaged, or of another encoder.
        """
        return find_calibration(self.path, self.encoder, fingerprint=self.description.fingerprint)

    def latest(self) -> Store:
        """The items at their newest version, for reading."""
        self._store = self._store.latest()
        return self._store

    def writer(self) -> Store:
        """A handle of its own for writing: one that a search holds must not move on under it."""
        return Store.open(self.items)

    def searcher(self) -> Searcher:
        """What searches the newest items with the index in use."""
        with self._lock:
            try:
                return self._open_searcher()
            except StorageError:
                # Its version was cleaned away while it was read, as many small writes do.
                with self.latest().reads_long():
                    return self._open_searcher()

    def _open_searcher(self) -> Searcher:
        store = self.latest()
        folder = lifecycle.current(self.index)
        current = None if folder is None else folder.name
        known = self._searcher
        if known is None or known.store is not store or known.version != current:
            known = Searcher.open(store, self.index, previous=known)
            if known.foreign and (newer := self.latest()) is not store:
                # The index is newer than the look at the items.
                known = Searcher.open(newer, self.index)
            if known.index is not None:
                remark = place_index(known.index, self.device)
                if remark is not None and remark not in known.notes:
                    known.notes += (Note(remark, about="index"),)
            self._searcher = known
        return known

    def caption_searcher(self, *, progress: bool = True) -> ViewSearcher:
        """What searches the captions of the newest items; captions that are new are embedded first.

        Args:
            progress: Whether to show a progress bar.
        """
        return self.captions.searcher(self.latest(), progress=progress)

    def build_index(self, recipe: str, *, view: str = IMAGE, **options: Any) -> IndexManifest | None:
        """Build an index over all items or captions, measure its recall and put it in use; as in `Collection`."""
        if view == IMAGE:
            return self._builder.build(recipe, **options)
        return self.captions.build_index(recipe, self.latest(), **options)

    def purge(self) -> None:
        """Leave no byte of removed items in items, captions and other generations; while nobody else writes.

        The index follows with `purge_index`, while others may write again.

        Raises:
            StorageError: The disk refused.
        """
        store = self.writer()
        store.purge()
        self.captions.purge(store)
        clear_earlier(self.path, at_once=True)
        clear_unfinished(self.path)

    def clear_work(self) -> bool:
        """Remove what builds of an index on disk have left behind; False where one is under way, whose files stay."""
        return lifecycle.clear_work(self.index) and self.captions.clear_work()

    def purge_index(self) -> None:
        """Leave no byte of removed items in any version of an index; one in use is built again where it has some.

        Raises:
            As `build_index`.
        """
        self._builder.purge(self.searcher)
        self.captions.purge_index()

    def rebuild_index(self, manifest: IndexManifest, *, progress: bool = True) -> None:
        """Build the design of index that was in use again; none is in use where too few items are left for it.

        Args:
            manifest: Of the index that was in use.
            progress: Whether to show progress bars.

        Raises:
            As `build_index`, but for a design that cannot be trained on so few.
        """
        self._builder.rebuild(manifest, progress=progress)

    def upkeep(self) -> Action:
        """Say what is to be done with the index in use; see `mmalign.collection.maintenance`."""
        return self._builder.action(self.searcher())

    def extend_index(self, *, progress: bool = True) -> IndexManifest:
        """Take into the index in use what it lacks, without training it again.

        Recall is measured again where the items have grown or drifted since it was.
        """
        return self._builder.extend(progress=progress)

    def sample_eval_queries(
        self,
        store: Store,
        given: Float32Array | None = None,
        *,
        sample: int = 0,
        seed: int = 0,
        progress: bool = True,
    ) -> EvalQueries:
        """Gather queries that stand for those that will be asked of some version of the items."""
        encoder = None if self.description.encoder is None else lambda: self.encoder
        return sample_eval_queries(store, encoder, given=given, sample=sample, seed=seed, progress=progress)

    def _caption_queries(
        self,
        store: Store,
        given: Float32Array | None = None,
        *,
        sample: int = 0,
        seed: int = 0,
        progress: bool = True,
    ) -> EvalQueries:
        """Gather queries that stand for those that will be asked of the captions: other words, and pictures."""
        held = sample_eval_queries(
            self.latest(),
            lambda: self.encoder,
            given=given,
            sample=sample,
            seed=seed,
            captions=False,
            progress=progress,
        )
        # They are of items, none of which is a row of the captions.
        asked = {kind: QuerySet(one.vectors) for kind, one in held.asked.items()}
        return replace(held, asked=asked)

    def remarks(self, searcher: Searcher) -> tuple[Note, ...]:
        """Say whether the items have drifted away from those that the index in use was measured with.

        Args:
            searcher: What `searcher` gave.

        Returns:
            A sentence where there is something to say.
        """
        # Looked at again once as many items have come as could make a difference.
        state = (searcher.version, _LOOKS * len(searcher.tail) // max(searcher.items, 1))
        if self._remarks[0] != state:
            self._remarks = (state, tuple(drift_notes(searcher.store, searcher.manifest, searcher.tail)))
        return self._remarks[1]


def captions_spec(data: Path, description: CollectionManifest, encoder: Callable[[], Encoder]) -> ViewSpec:
    """What the view of a generation's captions is made of.

    Args:
        data: The folder that holds its items, or will.
        description: What it is made with.
        encoder: Gives the encoder.
    """
    place = ViewPlace.of(data, CAPTIONS, format=description.format)
    return ViewSpec(CAPTIONS, place, captions_of, encoder, description.dim)


def _check_items(store: Store, description: CollectionManifest, path: Path) -> None:
    """Refuse items that are not those that `collection.json` tells of: one of the two is from another copy.

    Raises:
        CollectionFormatError: They are not.
    """
    if store.dim != description.dim:
        raise CollectionFormatError(
            f"{FILE} tells of embeddings of dim {description.dim}, {path} holds such of dim {store.dim}: one of them "
            "is from another collection or an older copy; bring back the two that belong together, or make the "
            "collection anew: mmalign index SOURCE --collection NEW"
        )


def check_encoder(path: Path, description: CollectionManifest, encoder: Encoder) -> None:
    """Refuse an encoder that a collection was not made with.

    Args:
        path: The collection, for the error's text.
        description: What it was made with.
        encoder: The encoder.

    Raises:
        EncoderMismatchError: It is another one.
    """
    if description.encoder is None:
        raise EncoderMismatchError(f"{path} holds vectors from elsewhere and takes no encoder, got {encoder.name}")
    if encoder.fingerprint != description.fingerprint:
        same_name = encoder.name == description.encoder
        raise EncoderMismatchError(
            f"{path} was made with {description.encoder} (fingerprint {str(description.fingerprint)[:12]}), "
            f"got {encoder.name} (fingerprint {encoder.fingerprint[:12]})"
            + ("; the weights or preprocessing behind that name have changed" if same_name else "; use that encoder")
            + ", or encode the pictures anew: "
            + f"mmalign index --reencode --encoder {encoder.name} --collection {shlex.quote(str(path))}"
        )


@contextmanager
def alone_in_writing(path: Path) -> Iterator[None]:
    """Keep other processes from writing to a collection while the block runs; what they are writing is waited for.

    Args:
        path: The collection.

    Raises:
        CollectionError: Another process has been writing for a minute.
    """
    deadline = time.monotonic() + _WAIT_FOR_WRITERS
    while True:
        with lock(path / LOCK, wait=False) as alone:
            if alone:
                yield
                return
        if time.monotonic() > deadline:
            raise CollectionError(f"another process is writing to {path}; wait until it is done, or stop it")
        time.sleep(0.05)


def clear_earlier(path: Path, *, at_once: bool = False) -> None:
    """Remove the generations before the one in use, an hour after that was put in use.

    A search looks at `collection.json` before it begins, so that after an hour none can be at work on them.

    Args:
        path: The collection.
        at_once: Do not wait for the hour: processes that search at this moment may fail, and can search again.
    """
    description = CollectionManifest.read(path)
    if description.generation == 1:
        return
    shutil.rmtree(description.data(path) / WORK, ignore_errors=True)
    age = time.time() - (path / FILE).stat().st_mtime
    if not at_once and age < _KEEP_SECONDS:
        return
    for name in (ITEMS, INDEX):
        shutil.rmtree(path / name, ignore_errors=True)
    remove_views(path)
    for number, folder in _generations(path):
        if number < description.generation:
            shutil.rmtree(folder, ignore_errors=True)


def clear_unfinished(path: Path) -> None:
    """Remove a generation that was begun and never put in use; only while `REENCODE_LOCK` is held.

    Args:
        path: The collection.
    """
    used = CollectionManifest.read(path).generation
    for number, folder in _generations(path):
        if number > used:
            shutil.rmtree(folder)


def _generations(path: Path) -> list[tuple[int, Path]]:
    found = [(folder.name.rpartition("-")[2], folder) for folder in path.glob("generation-*")]
    return [(int(number), folder) for number, folder in found if number.isdecimal()]


def _stamp(path: Path) -> _Stamp | None:
    """What tells one `collection.json` from the next without reading it; None where it cannot be looked at."""
    try:
        state = (path / FILE).stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns
