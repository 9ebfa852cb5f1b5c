"""One generation of a collection: the items, the index and the views that one encoder made.

To encode a collection anew makes the next generation beside the one in use, and puts it in use by replacing
`collection.json`. What belongs together is therefore reached through one object, so that a search never compares a
vector of one encoder with those of another.

    photos.mm/collection.json       names the generation in use
    photos.mm/items.lance ...       the first generation
    photos.mm/generation-2/...      the second: items.lance, index/ and views/
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.calibration import Calibration
from mmalign.collection.caption_view import captions_view
from mmalign.collection.description import FILE, CollectionManifest
from mmalign.collection.eval_queries import EvalQueries, sample_eval_queries
from mmalign.collection.generation_files import INDEX, ITEMS, clear_earlier, clear_unfinished
from mmalign.collection.indexing import IndexBuilder
from mmalign.collection.live_recall import LiveRecall, MeasuredWithLogged, check_logged, live_notes
from mmalign.collection.query_log import LoggedQueries, open_log, read_log
from mmalign.collection.recall import drift_notes
from mmalign.collection.view_refresh import IMAGE
from mmalign.collection.view_search import ViewSearcher
from mmalign.encoders import Encoder
from mmalign.errors import CollectionError, EncoderMismatchError, EncoderSpecError, StorageError
from mmalign.index import IndexManifest, lifecycle, place_index
from mmalign.search import HitReader, Searcher, find_calibration
from mmalign.store import Store
from mmalign.types import Note
from mmalign.utils import Float32Array, Stamp, file_stamp

if TYPE_CHECKING:
    from mmalign.alignment import Aligner

# Drift is looked for anew whenever this part of the items has been added.
_LOOKS = 50


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
        query_log: What gathers the queries of searches; None where none are kept.
        device: Where searches without a filter run, `cpu` or `cuda`; what follows this generation takes it over.
    """

    def __init__(
        self,
        path: Path,
        description: CollectionManifest,
        encoder: Encoder | None,
        *,
        load: Callable[[str], Encoder],
        stamp: Stamp | None = None,
    ) -> None:
        self.path = path
        self.description = description
        self.data = description.data(path)
        self.items, self.index = self.data / ITEMS, self.data / INDEX
        self.device = "cpu"
        self._file = os.fspath(path / FILE)
        self._stamp = stamp
        self._store = Store.open(self.items)
        description.check_dim(self.items, self._store.dim)
        self._encoder = encoder
        self._load = load
        self._searcher: Searcher | None = None
        self._pointer = lifecycle.Pointer(self.index)
        self._drift: tuple[tuple[str | None, int] | None, tuple[Note, ...]] = (None, ())
        self._lock = threading.Lock()
        fingerprint = description.fingerprint
        queries = MeasuredWithLogged(self.sample_eval_queries, self.logged_queries, IMAGE)
        self._builder = IndexBuilder(
            self.index,
            self.writer,
            dim=description.dim,
            fingerprint=fingerprint,
            queries=queries,
            unit_length=description.unit_length,
        )
        self.captions = captions_view(
            self.data, description, lambda: self.caption_encoder, self.latest, self.logged_queries
        )
        self.query_log = open_log(path, description)
        self._aligner: Aligner | None = None
        self._reader: HitReader | None = None

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
        stamp = file_stamp(os.fspath(path / FILE))
        description = CollectionManifest.read(path)
        fits = encoder is not None and encoder.fingerprint == description.fingerprint
        return cls(path, description, encoder if fits else None, load=load, stamp=stamp)

    def newest(self) -> Generation:
        """Return the generation in use now: this one, unless another process has put the next in use.

        Raises:
            CollectionNotFoundError: The collection is gone.
        """
        if file_stamp(self._file) == self._stamp:
            return self
        following = Generation.open(self.path, self._encoder, load=self._load)
        following.device = self.device
        if following._encoder is self._encoder:
            following._aligner = self._aligner
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
                    f"{self.path} holds vectors from elsewhere and has no encoder for words and pictures; search it by "
                    "vector, and add to it with add_embeddings"
                )
            try:
                loaded = self._load(name)
            except EncoderSpecError as error:
                raise EncoderSpecError(
                    f"{self.path} was made with {name}: {error}; an encoder of your own is handed in with "
                    "Collection.open(path, encoder=...)"
                ) from error
            self.description.check_encoder(self.path, loaded)
            self._encoder = loaded
        return self._encoder

    @property
    def caption_encoder(self) -> Encoder:
        """The encoder, for captions, which are embedded with it also where they are searched by vector.

        Raises:
            As `encoder`.
        """
        if self._encoder is None and self.description.encoder is None:
            raise CollectionError(
                f"{self.path} holds vectors from elsewhere and has no encoder, without which captions cannot be "
                f"searched; search the items, with view={IMAGE!r}, or make a collection with an encoder"
            )
        return self.encoder

    @property
    def loaded_encoder(self) -> Encoder | None:
        """The encoder where it is here already: handed in, or loaded by a search; else None."""
        return self._encoder

    def check_vectors(self, fingerprint: str | None) -> None:
        """Refuse the caller's own vectors where they were made for what the collection was before.

        Args:
            fingerprint: That of the encoder when the caller opened the collection.

        Raises:
            EncoderMismatchError: It was encoded anew since.
        """
        if self.description.fingerprint != fingerprint:
            raise EncoderMismatchError(
                f"{self.path} was encoded anew with {self.description.encoder} since it was opened; "
                "open it again and give vectors of that encoder"
            )

    def aligner(self) -> Aligner:
        """What looks for words in pictures with this encoder; made at first use.

        Raises:
            InputError: The encoder does not take both words and pictures.
        """
        if self._aligner is None:
            # Late: a search that explains nothing should not pay for it.
            from mmalign.alignment import Aligner

            # The parser that found what the query says of places.
            self._aligner = Aligner(self.encoder, parser="rules")
        return self._aligner

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
        current, known = self._pointer.version(), self._searcher
        if known is None or known.store is not store or known.version != current:
            unit_length = self.description.unit_length
            known = Searcher.open(store, self.index, previous=known, unit_length=unit_length)
            if known.foreign and (newer := self.latest()) is not store:
                # The index is newer than the look at the items.
                known = Searcher.open(newer, self.index, unit_length=unit_length)
            if known.index is not None:
                remark = place_index(known.index, self.device)
                if remark is not None and remark not in known.notes:
                    known.notes += (Note(remark, about="index"),)
            self._searcher = known
        return known

    def hit_reader(self, store: Store) -> HitReader:
        """What reads the hits of one version of the items; kept until there is another version."""
        reader = self._reader
        if reader is None or reader.store is not store:
            reader = self._reader = HitReader(store)
        return reader

    def caption_searcher(self, *, progress: bool = True) -> ViewSearcher:
        """What searches the captions of the newest items; captions that are new are embedded first.

        Args:
            progress: Whether to show a progress bar.
        """
        return self.captions.searcher(self.latest(), progress=progress)

    def refresh_views(self, *, progress: bool = True) -> tuple[Note, ...]:
        """Bring the views that were asked for before in line with the items; say what could not be done."""
        return self.captions.refresh(self.latest(), progress=progress)

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

    def index_is_due(self, recipe: str = "auto") -> bool:
        """Whether `refresh_index` has something to do; see `mmalign.collection.maintenance`."""
        return self._builder.due(self.searcher, recipe) != "keep" or self.captions.index_is_due()

    def refresh_index(self, recipe: str = "auto", *, rebuild: bool = False, progress: bool = True) -> None:
        """Do what is due for the indexes in use; as `Collection.refresh_index`."""
        action = "build" if rebuild else self._builder.due(self.searcher, recipe)
        self._builder.refresh(action, recipe, progress=progress)
        if rebuild or self.captions.index_is_due():
            self.captions.refresh_index(rebuild=rebuild, progress=progress)

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
        return sample_eval_queries(
            store,
            encoder,
            given=given,
            sample=sample,
            seed=seed,
            unit_length=self.description.unit_length,
            progress=progress,
        )

    def logged_queries(self) -> LoggedQueries:
        """Read the queries that were really asked, as far as some are kept."""
        return read_log(self.path, self.description)

    def check_live_recall(self, *, most: int, seed: int | None) -> LiveRecall:
        """Measure what searches find of queries that were really asked; as `Collection.check_live_recall`."""
        logged = self.logged_queries()
        some = logged.part(np.random.default_rng(seed).permutation(len(logged))[:most])
        checks = check_logged(self.searcher(), some.of(IMAGE), view=IMAGE) if len(some) else []
        checks += self.captions.check_logged(some) if len(some) else []
        notes = live_notes(checks, logged, path=self.path)
        return LiveRecall(tuple(checks), tuple(notes), len(logged), logged.seen)

    def drift_notes(self, searcher: Searcher) -> tuple[Note, ...]:
        """Say whether the items have drifted away from those that the index in use was measured with.

        Args:
            searcher: What `searcher` gave.

        Returns:
            A sentence where there is something to say.
        """
        # Looked at again once as many items have come as could make a difference.
        state = (searcher.version, _LOOKS * len(searcher.unindexed) // max(searcher.items, 1))
        if self._drift[0] != state:
            self._drift = (state, tuple(drift_notes(searcher.store, searcher.manifest, searcher.unindexed)))
        return self._drift[1]
