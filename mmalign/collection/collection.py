"""Collection: items, their embeddings, an encoder and an index, as one thing that can be searched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.collection.answering import Filters
from mmalign.collection.checking import check_index, check_items
from mmalign.collection.description import METRICS, CollectionManifest, CollectionMetric, as_folder
from mmalign.collection.generation import Generation
from mmalign.collection.generation_files import LOCK, clear_earlier
from mmalign.collection.live_recall import LiveRecall
from mmalign.collection.opening import make_collection
from mmalign.collection.query_log import MOST, LoggedQueries, forget_queries, set_logging
from mmalign.collection.reading import (
    iter_items,
    read_arrow_table,
    read_embeddings,
    read_frame,
    read_items,
    reads_again,
    select_columns,
)
from mmalign.collection.recheck import RecallCheck, recheck_index
from mmalign.collection.removing import Removal
from mmalign.collection.searching import SearchOptions, search
from mmalign.collection.summary import owner_notes, summarize
from mmalign.collection.updating import Update, turn_into_text
from mmalign.collection.vector_rows import add_vectors, vector_rows
from mmalign.collection.view_refresh import VIEWS
from mmalign.encoders import Encoder, ImageLike, load_encoder, shorten
from mmalign.errors import CollectionExistsError, CollectionNotFoundError, InputError
from mmalign.index import Device, IndexManifest, lifecycle
from mmalign.media import MediaPolicy, same_uris
from mmalign.search import QueryLike, Reranker
from mmalign.store import Store
from mmalign.types import (
    AddReport,
    Caption,
    Hit,
    ItemCount,
    Note,
    ReencodeReport,
    SearchResult,
    StoredItem,
    as_id,
    as_ids,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_share,
    check_text,
    check_type,
)
from mmalign.utils import Float32Array, lock

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

    from mmalign.collection.captioner import CollectionCaptioner


_Read = TypeVar("_Read")


class Collection:
    """Pictures with their embeddings, searched by words, pictures and metadata.

    Use `Collection.create` or `Collection.open`; the constructor is theirs.

    Example:
        >>> photos = Collection.create("photos.mm")            # doctest: +SKIP
        >>> photos.add("photos/")                              # doctest: +SKIP
        >>> for hit in photos.search("two dogs in the snow"):  # doctest: +SKIP
        ...     print(hit.score, hit.uri)
    """

    def __init__(self, path: Path, encoder: Encoder | None) -> None:
        self.path = path
        self._generation = self._open_generation(encoder)
        # What the caller's own vectors were made with.
        self._fingerprint = self._generation.description.fingerprint
        self._lock = threading.Lock()
        self._captioner: tuple[tuple[object, ...], CollectionCaptioner] | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        encoder: str | Encoder | None = "lite",
        dim: int | None = None,
        metric: CollectionMetric = "cosine",
        overwrite: bool = False,
    ) -> Collection:
        """Make an empty collection.

        Args:
            path: Its folder, or the `file://` URI of that, `~` for the home folder; by custom the name ends in `.mm`.
            encoder: Spec or encoder; None for a collection of vectors from elsewhere, which then needs `dim`.
            dim: Width of the vectors, where there is no encoder; with one of `st:`, to how many of the first components
                its embeddings are cut, which models with Matryoshka embeddings are trained for.
            metric: How vectors are compared: `cosine` scales them and queries to length 1; `ip`, for vectors from
                elsewhere whose lengths mean something, keeps both as they are, and scores are inner products. It
                stays what it is.
            overwrite: Replace a collection that is there.

        Returns:
            The collection.

        Raises:
            CollectionExistsError: Something is there already.
            InputError: The path is in an object store, or none at all; `dim` is no width, or not the encoder's; or
                `metric` is another text, or `ip` with an encoder.
            EncoderSpecError: The encoder's name means nothing.
            ModelUnavailableError: The encoder's weights are not here.
            StorageError: The disk refused.
        """
        folder = as_folder(path)
        check_flag("overwrite", overwrite)
        check_choice("metric", metric, METRICS)
        loaded = None if encoder is None else shorten(load_encoder(encoder), dim)
        make_collection(folder, loaded, dim=dim, metric=metric, overwrite=overwrite)
        return cls(folder, loaded)

    @classmethod
    def open(
        cls, path: str | Path, *, encoder: str | Encoder | None = None, index_device: Device = "cpu"
    ) -> Collection:
        """Open a collection.

        Args:
            path: Its folder, or the `file://` URI of that.
            encoder: Only for a check, or to hand in an encoder that `load_encoder` cannot make by name.
            index_device: `cuda` to search the index on graphics cards, where its kind can be; what they cannot answer,
                such as narrow filters, the processor does, and a note says so.

        Returns:
            The collection.

        Raises:
            CollectionNotFoundError: There is none.
            InputError: The path is in an object store, or none at all.
            CollectionFormatError: Damaged, or written by a newer mmalign.
            EncoderMismatchError: It was made with another encoder than the one given.
            EnvironmentConflictError: `index_device` is `cuda`, and FAISS has no graphics card to work with.
        """
        check_choice("index_device", index_device, ("cpu", "cuda"))
        folder = as_folder(path)
        description = CollectionManifest.read(folder)
        # By its own name it is the same, and large weights need not be read to find that out.
        named = isinstance(encoder, str) and encoder == description.encoder
        given = None if encoder is None or named else load_encoder(encoder)
        if given is not None:
            description.check_encoder(folder, given)
        opened = cls(folder, given)
        if index_device == "cuda":
            from mmalign.index import require_gpu

            require_gpu()
            opened._generation.device = index_device
        return opened

    @classmethod
    def open_or_create(cls, path: str | Path, *, encoder: str | Encoder | None = None) -> Collection:
        """Open a collection, or make it where there is none; safe where another process does the same.

        Args:
            path: Its folder.
            encoder: Spec or encoder; None for the one that it was made with, or `lite` for a new one.

        Returns:
            The collection.

        Raises:
            As `open` and `create`.
        """
        try:
            return cls.open(path, encoder=encoder)
        except CollectionNotFoundError:
            try:
                return cls.create(path, encoder="lite" if encoder is None else encoder)
            except CollectionExistsError:
                return cls.open(path, encoder=encoder)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the path: whoever reads it opens the collection as it is then, with its encoder loaded by name.

        An encoder that was handed in as an object is not pickled; one that has no name that `load_encoder` knows is to
        be handed in again, with `Collection.open(path, encoder=...)`.
        """
        return _reopen, (str(self.path.absolute()), self._generation.device)

    def __copy__(self) -> Collection:
        return self._reopened()

    def __deepcopy__(self, memo: dict[int, Any]) -> Collection:
        return self._reopened()

    def _reopened(self) -> Collection:
        """The same collection, opened once more with the encoder that is here."""
        with self._lock:
            generation = self._generation
        made = Collection(self.path, generation.loaded_encoder)
        made._generation.device = generation.device
        made._fingerprint = self._fingerprint
        return made

    @property
    def description(self) -> CollectionManifest:
        """What the collection was made with."""
        return self._current().description

    @property
    def encoder(self) -> Encoder:
        """The encoder that the collection was made with, loaded at first use.

        Raises:
            CollectionError: The collection has none.
            EncoderMismatchError: The weights here are not those that it was made with.
        """
        return self._current().encoder

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self.description.dim

    @property
    def metric(self) -> CollectionMetric:
        """How vectors are compared: `cosine`, or `ip` where they keep their lengths."""
        return self.description.metric

    @property
    def columns(self) -> dict[str, str]:
        """The metadata columns, name to type, as `where` can use them."""
        return {name: str(kind) for name, kind in self.snapshot().columns.items()}

    def __len__(self) -> int:
        return len(self.snapshot())

    def __repr__(self) -> str:
        return f"Collection({str(self.path)!r}, encoder={self.description.encoder!r}, items={len(self)})"

    @reads_again
    def has(self, name: str | int) -> bool:
        """Whether there is an item with this id, URI or path.

        Raises:
            InputError: Neither text nor an integer.
            DamagedError: An item is not what was written: it may be the one.
        """
        asked, store = as_id(name, name="name"), self.snapshot()
        row_ids, unknown = store.match([asked], uris=same_uris)
        if unknown:
            store.verify()
        store.take(row_ids, ["id"])
        return not unknown

    def snapshot(self) -> Store:
        """The items as they are now; what is committed later does not show."""
        return self._current().latest()

    @reads_again
    def info(self) -> dict[str, Any]:
        """Say what the collection holds.

        Returns:
            Path, number of items, encoder, dim, metric, columns, names that were changed, index, measured recall, bytes
            on disk, how many captions are embedded and which index is over them, and notes.
        """
        return summarize(self._current())

    @reads_again
    def notes(self) -> list[Note]:
        """Say what the owner should know.

        Returns:
            A sentence where its encoder has a newer version, one where encoding it anew was begun, one for each kind
            of query whose recall the index cannot promise, one where the items have changed much since that was
            measured, and one for each way in which the index took other than it was estimated to take.
        """
        return owner_notes(self._current())

    def _open_generation(self, encoder: Encoder | None) -> Generation:
        return Generation.open(self.path, encoder, load=lambda spec: load_encoder(spec))

    def _current(self) -> Generation:
        """Items, index and encoder that belong together: those in use now."""
        with self._lock:
            self._generation = self._generation.newest()
            return self._generation

    @contextmanager
    def _writing(self) -> Iterator[Generation]:
        """What to write to; no process puts another generation in use meanwhile."""
        with lock(self.path / LOCK, shared=True):
            yield self._current()
            clear_earlier(self.path)

    # Reading -------------------------------------------------------------------------------------------------------

    @overload
    def get(self, ids: str | int) -> StoredItem: ...  # type: ignore[overload-overlap]
    @overload
    def get(self, ids: Iterable[str | int]) -> list[StoredItem]: ...
    def get(self, ids: str | int | Iterable[str | int]) -> StoredItem | list[StoredItem]:
        """Read items by their ids.

        Args:
            ids: An id, or several in a list or the like; text or integers, such as `hit.id`.

        Returns:
            The item, or the items in the order asked for; an id that comes twice gives its item twice.

        Raises:
            ItemNotFoundError: No item has one of the ids; its `unknown` names all of these. It is a `KeyError`, too.
            InputError: An id that is neither text nor an integer.
            DamagedError: One is not what was written.
        """
        # What is no text and cannot be gone through is one id, or says what is wrong with it.
        one = isinstance(ids, str) or not isinstance(ids, Iterable)
        names = [as_id(ids)] if one else as_ids(ids)
        items = self._again(read_items, names)
        return items[0] if one else items

    def __iter__(self) -> Iterator[StoredItem]:
        """Go through all items, as they are when it begins; they are read some at a time."""
        with self.snapshot().reads_long():
            yield from iter_items(self.snapshot())

    def __contains__(self, name: object) -> bool:
        """Whether there is an item with this id, URI or path; as `has`."""
        return self.has(name)  # type: ignore[arg-type]

    def to_batches(
        self, *, columns: Iterable[str] | None = None, where: str | None = None, batch_size: int = 8_192
    ) -> Iterator[pa.RecordBatch]:
        """Read columns in batches, as they are when it begins; never more than a few batches are in memory.

        Args:
            columns: Names of columns, in the order wanted; None for all but `embedding`, which is float16 lists of
                length `dim`. Every item has the columns that `docs/filters.md` names; `columns` tells the others.
            where: As for `search`.
            batch_size: Rows of a batch, at least 1; the last has what is left.

        Returns:
            An iterator over batches of Arrow, in the order in which the items are stored: a change moves an item to
            the end. It is gone through once, and for an hour at most while others write.

        Raises:
            InputError: No column is called so, or a batch size below 1.
            FilterError: The filter is no condition over the columns; the text says what they hold.
            DamagedError: While it is gone through: an item is not what was written.
        """
        check_integer("batch_size", batch_size, least=1)
        store = self.snapshot()
        chosen = select_columns(store, columns)
        store.check_filter(where)

        def batches() -> Iterator[pa.RecordBatch]:
            with self.snapshot().reads_long():
                for _, batch in self.snapshot().iter_rows(chosen, where=where, rows=batch_size):
                    yield batch

        return batches()

    def to_arrow(self, *, columns: Iterable[str] | None = None, where: str | None = None) -> pa.Table:
        """Read columns of all items into one table of Arrow.

        Args:
            columns: As for `to_batches`.
            where: As for `search`.

        Returns:
            The table, one row an item.

        Raises:
            As `to_batches`.
        """
        chosen = select_columns(self.snapshot(), columns)
        return self._again(read_arrow_table, chosen, where=where)

    def to_pandas(self, *, columns: Iterable[str] | None = None, where: str | None = None) -> pandas.DataFrame:
        """Read columns of all items into a data frame.

        Args:
            columns: As for `to_batches`.
            where: As for `search`.

        Returns:
            The frame, one row an item. No value changes: integers and truth values are in pandas' nullable types.

        Raises:
            MissingExtraError: pandas is not installed.
            As `to_batches`.
        """
        return read_frame(partial(self.to_arrow, columns=columns, where=where))

    def embeddings(self, ids: Iterable[str | int] | None = None) -> tuple[list[str], Float32Array]:
        """Read embeddings into memory; `to_batches(columns=["id", "embedding"])` needs less of it.

        Args:
            ids: n ids, text or integers; None for all items.

        Returns:
            `(ids, embeddings)`: the n ids, in the order asked for, and float32 of shape (n, dim), each row of length 1,
            or with metric `ip` as it was given, but for the rounding to float16, as which they are kept.

        Raises:
            ItemNotFoundError: As `get`.
            InputError: `ids` is a text alone, or holds what is neither text nor an integer.
            DamagedError: One is not what was written.
        """
        return self._again(read_embeddings, None if ids is None else as_ids(ids))

    @reads_again
    def _again(self, read: Callable[..., _Read], *asked: Any, **options: Any) -> _Read:
        """Read from the items as they are now; what is asked for can be gone through more than once."""
        return read(self.snapshot(), *asked, **options)

    # Changing ------------------------------------------------------------------------------------------------------

    def add(
        self,
        source: str | Path | Iterable[Any],
        *,
        metadata: Mapping[str, Any] | None = None,
        prune: bool = False,
        exclude: str | Sequence[str] = (),
        restore: bool = False,
        progress: bool = True,
        batch_size: int = 32,
        policy: MediaPolicy | None = None,
        as_text: Iterable[str] = (),
    ) -> AddReport:
        """Bring the collection up to date with a source of pictures.

        Only what is new or edited is encoded: unchanged files are not read again, and moved ones are recognised by
        their bytes. Work is committed every few seconds, so that the same call goes on where an earlier one stopped.
        Where captions were searched before, or have an index, those that are new are embedded at the end, so that no
        search waits for it.

        Args:
            source: A folder, a table (jsonl, csv, parquet) with a path or URL column, a glob, `-` for paths on
                standard input, or an iterable of paths.
            metadata: Columns to set for every item of the source.
            prune: Remove items of that folder whose file is gone, or is excluded.
            exclude: Patterns as in a `.gitignore`, relative to the source's folder, of files and folders to leave out.
                The collection keeps to them from now on; `!P` takes the pattern `P` back.
            restore: Bring back what `remove` took out of the collection; otherwise it stays out, and
                `report.kept_out` counts it.
            progress: Whether to show progress bars.
            batch_size: Pictures that go through the encoder at once.
            policy: What may be read, such as which hosts of URLs; None for that of the environment.
            as_text: Names of columns that are to be text, whatever they hold; those that are there are turned into it.

        Returns:
            What was done. A value that its column cannot hold exactly costs that cell, of which `notes` tells; a name
            that cannot be a column's is changed, which `renamed` says.

        Raises:
            SourceError: The source cannot be read.
            InputError: `exclude` holds what is no pattern, or `prune` with a source that has no folder.
            MetadataError: `metadata` does not fit the collection's columns, or no column is called as `as_text` says.
            AddInterrupted: Ctrl-C; what was encoded is kept.
            StorageError: The disk refused; what was committed before is kept.
        """
        # Late: searches should not pay for it.
        from mmalign.collection.ingest import AddOptions, AddSource

        options = AddOptions(
            metadata=metadata,
            prune=prune,
            exclude=exclude,
            restore=restore,
            progress=progress,
            batch_size=batch_size,
            policy=policy,
            as_text=as_text,
        )
        opened = AddSource(self.path, self.description, source, options)
        with self._writing() as generation:
            return opened.run(
                generation.writer(),
                lambda: generation.encoder,
                refresh_views=partial(generation.refresh_views, progress=progress),
            )

    def add_embeddings(
        self,
        ids: Iterable[str | int],
        vectors: ArrayLike,
        *,
        metadata: Mapping[str, Sequence[Any]] | None = None,
        uris: Sequence[str | None] | None = None,
        captions: Sequence[str | Sequence[str] | None] | None = None,
    ) -> AddReport:
        """Add vectors that were computed elsewhere; an id that is there already is replaced.

        Args:
            ids: n identifiers, text or integers.
            vectors: Array-like of shape (n, dim); scaled to length 1, but with metric `ip`.
            metadata: Name to n values. A name that cannot be a column's is changed, which the report's `renamed` says.
            uris: n places where the media are, if any.
            captions: For each of the n the sentences that describe it, one or a list, or None: what
                `search_captions` and `caption` look through, and recall is measured with.

        Returns:
            What was done.

        Raises:
            DimensionError: The vectors have another width.
            EncoderMismatchError: The collection was encoded anew with another encoder since it was opened.
            InputError: Counts differ, ids repeat, or vectors hold NaN, infinity or only zeros; or with metric `ip`
                values above 65,504, or only such as float16 rounds to zero.
            MetadataError: A value that cannot be kept, or that its column cannot hold exactly; nothing was changed.
        """
        if metadata is not None:
            check_type("metadata", metadata, Mapping, "a mapping of column names to values")
        with self._writing() as generation:
            generation.check_vectors(self._fingerprint)
            rows, given, matrix = vector_rows(
                ids,
                vectors,
                dim=generation.description.dim,
                metadata=metadata or {},
                uris=uris,
                captions=captions,
                unit_length=generation.description.unit_length,
            )
            return add_vectors(self.path, generation.writer(), rows, given, matrix)

    def remove(
        self, ids: Iterable[str | int] | None = None, *, where: str | None = None, purge: bool = False
    ) -> ItemCount:
        """Remove items; a later `add` does not bring them back, unless it is asked to `restore` them.

        What is remembered for that are digests of their URIs and of their pictures: a picture that is moved or renamed
        stays out too, unless the same bytes are in the collection as another item, and so does whatever lies under
        the same URI. `add_embeddings` brings back what it names.

        Args:
            ids: A list of identifiers or URIs.
            where: SQL over the columns; with `ids`, both must hold.
            purge: Rewrite the data and the index so that no byte of the items is left.

        Returns:
            How many items were removed; its `unknown` has the names that no item has.

        Raises:
            InputError: Neither `ids` nor `where`, or `ids` is a text alone.
            FilterError: The filter is not a condition on the columns; the text says what they hold.
            CollectionError: With `purge`, while another process encodes the collection anew or builds an index on disk,
                or writes to it for longer than a minute.
        """
        if ids is None and where is None:
            raise InputError("say what to remove: ids or where")
        check_flag("purge", purge)
        names = None if ids is None else as_ids(ids)
        self.snapshot().check_filter(where)
        removal = Removal(self.path, names, where)
        if purge:
            return removal.purge(self._current, self._writing)
        with self._writing() as generation:
            store = generation.writer()
            removed = removal.run(store)
            store.compact()
        return removed

    def update(self, ids: Iterable[str | int], metadata: Mapping[str, Any]) -> ItemCount:
        """Set metadata columns of items; what is set stays, whatever a source says of it later.

        Args:
            ids: A list of identifiers.
            metadata: Name to the value that every one of them gets, None for none; `captions` takes a list of
                sentences, of which blank ones are left out. A name is that of a column, or the one that a source gave
                it.

        Returns:
            How many items were changed; its `unknown` has the ids that no item has.

        Raises:
            InputError: `ids` is a text alone.
            MetadataError: A value that cannot be kept, or that its column cannot hold exactly; nothing was changed.
        """
        update = Update.of(as_ids(ids), metadata)
        with self._writing() as generation:
            return update.run(generation.writer())

    def make_text(self, *columns: str) -> None:
        """Turn metadata columns into text, so that they take values of any kind; what they hold stays, spelled out.

        Args:
            columns: Names of columns, as `info` shows them or as a source gave them.

        Raises:
            MetadataError: There is no such column.
        """
        for name in columns:
            check_text("columns", name)
        with self._writing() as generation:
            turn_into_text(generation.writer(), columns)

    def reencode(
        self,
        encoder: str | Encoder | None = None,
        *,
        drop_missing: bool = False,
        progress: bool = True,
        batch_size: int = 32,
    ) -> ReencodeReport:
        """Encode all pictures anew with another encoder; ids, captions, metadata and order stay.

        Each picture is read again from where it is. The collection stays as it is until all is done, and is then
        replaced in one step; searches go on meanwhile, and what other processes add is encoded too. A call that was
        stopped, also by a power cut, goes on where it was. Until it is done it needs about one and a half times the
        collection's room on disk in addition; what the old data take is free again an hour later, with the next write.

        Args:
            encoder: Spec or encoder; None for the newest version of the one that the collection was made with.
            drop_missing: Remove items whose picture cannot be read; otherwise they are an error, and nothing changes.
            progress: Whether to show progress bars.
            batch_size: Pictures that go through the encoder at once.

        Returns:
            What was done.

        Raises:
            InputError: No encoder, or one that encodes no pictures; or the collection's metric is `ip`.
            EncoderSpecError: The encoder's name means nothing.
            ModelUnavailableError: The encoder's weights are not here.
            UnreadableItemsError: Pictures cannot be read; `unreadable` lists their items. What was encoded is kept.
            CollectionError: No item has a picture, or another process encodes the collection anew.
            ReencodeInterrupted: Ctrl-C; what was encoded is kept.
            StorageError: The disk refused; the collection is as it was, and what was encoded is kept.
        """
        # Late: searches should not pay for it.
        from mmalign.collection.reencode import Reencode, ReencodeOptions, choose_encoder

        check_flag("drop_missing", drop_missing)
        check_integer("batch_size", batch_size, least=1)
        loaded = load_encoder(choose_encoder(self.path, self.description) if encoder is None else encoder)
        options = ReencodeOptions(drop_missing=drop_missing, progress=progress, batch_size=batch_size)
        report = Reencode(self.path, loaded, options).run()
        with self._lock:
            device = self._generation.device
            self._generation = self._open_generation(loaded)
            self._generation.device = device
            self._fingerprint = loaded.fingerprint
        return report

    # Searching -----------------------------------------------------------------------------------------------------

    @overload
    def search(
        self,
        query: list[Any] | np.ndarray[tuple[int, int], np.dtype[Any]],
        *,
        k: int | None = 10,
        where: Filters = None,
        min_recall: float | None = None,
        min_probability: float | None = None,
        min_score: float | None = None,
        offset: int = 0,
        explain: bool = False,
        rerank: str | Reranker | Sequence[str | Reranker] | None = None,
        on_hit: Callable[[Hit], None] | None = None,
        progress: bool = True,
        copies: bool = False,
        view: Literal["image", "captions"] = "image",
        group_by: Literal["item"] | None = None,
        allow_media: bool = True,
        policy: MediaPolicy | None = None,
    ) -> list[SearchResult]: ...
    @overload
    def search(
        self,
        query: QueryLike,
        *,
        k: int | None = 10,
        where: str | None = None,
        min_recall: float | None = None,
        min_probability: float | None = None,
        min_score: float | None = None,
        offset: int = 0,
        explain: bool = False,
        rerank: str | Reranker | Sequence[str | Reranker] | None = None,
        on_hit: Callable[[Hit], None] | None = None,
        progress: bool = True,
        copies: bool = False,
        view: Literal["image", "captions"] = "image",
        group_by: Literal["item"] | None = None,
        allow_media: bool = True,
        policy: MediaPolicy | None = None,
    ) -> SearchResult: ...
    @reads_again
    def search(
        self,
        query: QueryLike | list[Any] | NDArray[Any],
        *,
        k: int | None = 10,
        where: Filters = None,
        min_recall: float | None = None,
        min_probability: float | None = None,
        min_score: float | None = None,
        offset: int = 0,
        explain: bool = False,
        rerank: str | Reranker | Sequence[str | Reranker] | None = None,
        on_hit: Callable[[Hit], None] | None = None,
        progress: bool = True,
        copies: bool = False,
        view: Literal["image", "captions"] = "image",
        group_by: Literal["item"] | None = None,
        allow_media: bool = True,
        policy: MediaPolicy | None = None,
    ) -> SearchResult | list[SearchResult]:
        """Find the items, or their captions, nearest to a query; every committed item is seen, indexed or not.

        Args:
            query: Words, a picture (path or PIL), a vector of shape (dim,), or a `Query`; a list of them, or an array
                of shape (n, dim), gives a list of results. The words of a list go through the encoder together, which
                takes a fraction of the time; scores may differ from those of single queries in the last bits.
            k: How many hits; fewer where there are fewer items. None, with a `min_score`, for all from that on, 10,000
                at most; a note says where there are more.
            where: SQL over the columns that hits must meet, such as `year >= 2020 AND label = 'dog'`: columns as they
                are or in double quotes, texts and dates in single ones; `docs/filters.md` says what else it may hold.
                For a list of queries it may be a list of as many, one for each, None for no filter; queries with the
                same filter are served together.
            min_recall: The share of the true nearest items that searches of this kind must find on average, 0 to 1;
                None for what the index was built to keep. What the index was not measured to keep is answered
                exactly, and a note says so; 1 is always exact.
            min_probability: Leave out hits that are less likely to be the picture that the words describe, 0 to 1.
                Needs a query in words alone, and an encoder that was calibrated, as `lite` is. Where nothing is
                left, a note says how likely the best hit was.
            min_score: Leave out hits with a lower score, -1 to 1. Scores are cosines, which differ from encoder to
                encoder and from words to pictures: a `min_probability` means the same everywhere. With metric `ip`
                any finite number, as scores are inner products. Where nothing is left, a note says what the best hit
                has.
            offset: Leave out so many of the hits that there would be, the best ones; `k` counts those after them.
            explain: Look for the query's words in the pictures of the `k` hits, and give each its `regions`; their
                order stays. Takes as long as to align so many pictures.
            rerank: What puts the hits in another order, one after the other: `relations` compares the best 20 pictures
                with what the words say of places, such as `a dog left of a bicycle`, and puts them in order by how well
                they bear that out (`agreement`) as well as by the score, and a note says so; `relations:N` compares
                the best N, and the other hits follow in the order of their scores. Or a `Reranker` of your own.
            on_hit: With `explain` or `relations`: called with each hit once its picture was looked at, in the order
                of the scores.
            progress: With `explain` or `relations`: whether to show a progress bar.
            copies: Whether items with the same bytes are hits of their own. Otherwise the oldest of those that meet
                `where` stands for all; its `copies` names the others, and `k` counts it once.
            view: What the query is compared with: `image`, the items themselves, or `captions`, what is said of them,
                where each caption is a hit: `id` and `uri` of its item, and `metadata["captions"]` holding it alone.
                Captions that are new are embedded first. `min_probability`, `min_score`, `offset`, `explain`, `rerank`
                and `copies` are about pictures.
            group_by: With captions: `item` for one hit an item, that of its nearest caption; None for one a caption.
            allow_media: Whether a query may name pictures by path or URL. Otherwise a text is words, whatever it looks
                like, and no file and no server is looked at; a path is an error.
            policy: What may be read where a query names a picture; None for that of the environment.

        Returns:
            The hits, best first; those of a query in words have a `probability` where the encoder was calibrated.

        Raises:
            InputError: `k` is negative, or None without `min_score`, `min_recall` or `min_probability` is not from 0 to
                1, `min_score` no score that there can be, `offset` negative, `where` is a list of another length than
                `query`, `explain` with an encoder that does not take both words and pictures, no view is called so, or
                it has no use for an option.
            QueryError: The query cannot be parsed or encoded, has no probability where one is asked for, or has no
                words for `explain` to look for.
            CalibrationError: `min_probability` with an encoder that was not calibrated.
            FilterError: The filter is no condition over the columns; the text says what they hold.
            SearchInterrupted: Ctrl-C while pictures are looked at for `explain`; it holds what was found until then.
        """
        options = SearchOptions(
            k=k,
            where=where,
            min_recall=min_recall,
            min_probability=min_probability,
            min_score=min_score,
            offset=offset,
            explain=explain,
            rerank=rerank,
            on_hit=on_hit,
            progress=progress,
            copies=copies,
            view=view,
            group_by=group_by,
            allow_media=allow_media,
            policy=policy,
        )
        return search(self._current(), query, options, made_with=self._fingerprint)

    def search_captions(
        self,
        query: QueryLike,
        *,
        k: int = 10,
        where: str | None = None,
        min_recall: float | None = None,
        group_by: Literal["item"] | None = None,
        allow_media: bool = True,
        policy: MediaPolicy | None = None,
    ) -> SearchResult:
        """Find the captions nearest to a query: image-to-text where the query is a picture.

        It is `search` with `view="captions"`.

        Args:
            query: As for `search`.
            k: How many captions, or items where they are grouped.
            where: SQL over the columns of the items that the captions belong to.
            min_recall: As for `search`, where the captions have an index; else all of them are compared with.
            group_by: `item` for one hit an item, that of its nearest caption; None for one a caption.
            allow_media: As for `search`.
            policy: As for `search`.

        Returns:
            One hit a caption, best first: `id` and `uri` of its item, and `metadata["captions"]` holding it alone.

        Raises:
            InputError: `k` is negative, `min_recall` is not from 0 to 1, or `group_by` is another text.
            QueryError: The query cannot be parsed or encoded.
            FilterError: The filter is no condition over the columns; the text says what they hold.
        """
        return self.search(
            query,
            view="captions",
            k=k,
            where=where,
            min_recall=min_recall,
            group_by=group_by,
            allow_media=allow_media,
            policy=policy,
        )

    @reads_again
    def caption(
        self,
        image: ImageLike,
        *,
        mode: str = "decoder",
        influence: bool = False,
        ground: bool = False,
        rerank: bool = False,
        floor: float | None = None,
    ) -> Caption:
        """Describe a picture from the captions of the items that are like it.

        Captions that are new since the last call are encoded first; those of the picture itself are not used.

        Args:
            image: A decoded picture, or a path.
            mode: `decoder`, `consensus`, `nearest`, or a decoder such as `hf:NAME` or a path; see `Captioner`.
            influence: Whether to say what each retrieved caption did for what was written.
            ground: Whether to look for the caption's phrases in the picture, and flag those that are not found.
            rerank: Whether to look for the phrases of the eight best drafts in the picture, and let how well they fit
                it have half a say in which is taken; takes eight alignments.
            floor: Least cosine of a retrieved caption; None for all.

        Returns:
            The caption, the captions that it was written from, and what speaks for each content word.

        Raises:
            DecodeError: The picture cannot be read.
            EncoderMismatchError: The decoder belongs to another encoder.
            InputError: No item has a caption, and the mode needs some.
        """
        check_flag("ground", ground)
        check_flag("rerank", rerank)
        check_flag("influence", influence)
        generation = self._current()
        aligner = generation.aligner() if ground or rerank else None
        writer = self.captioner(mode=mode, floor=floor)
        return writer.caption(image, influence=influence, aligner=aligner, ground=ground, rerank=rerank)

    def captioner(self, *, mode: str = "decoder", floor: float | None = None) -> CollectionCaptioner:
        """What `caption` uses, kept as long as the collection and the settings stay the same."""
        # Late: captioning needs torch, and searches should not pay for it.
        from mmalign.collection.captioner import CollectionCaptioner

        check_text("mode", mode)
        if floor is not None:
            check_number("floor", floor)
        generation = self._current()
        key = (id(generation), generation.latest().version, mode, floor)
        if self._captioner is None or self._captioner[0] != key:
            self._captioner = (key, CollectionCaptioner(generation, mode=mode, floor=floor))
        return self._captioner[1]

    def caption_items(
        self, *, mode: str = "decoder", where: str | None = None, again: bool = False, progress: bool = True
    ) -> Iterator[tuple[str, Caption]]:
        """Caption items and store what was written in their column `written_caption`.

        Args:
            mode: As for `caption`.
            where: SQL over the columns; None for all items.
            again: Whether items that have a written caption get a new one; otherwise a call that was stopped goes on.
            progress: Whether to show a progress bar.

        Yields:
            Each item's id and caption, once it is stored.

        Raises:
            InputError: As `caption`.
            FilterError: The filter is no condition over the columns; the text says what they hold.
        """
        # Late: captioning needs torch, and searches should not pay for it.
        from mmalign.collection.captioner import store_captions

        self.snapshot().check_filter(where)
        check_flag("again", again)
        writer = self.captioner(mode=mode)
        for block in writer.caption_items(where=where, again=again, progress=progress):
            with self._writing() as generation:
                store_captions(generation.writer(), block)
            yield from block

    # Indexing ------------------------------------------------------------------------------------------------------

    @property
    def index_manifest(self) -> IndexManifest | None:
        """What the index in use was built from, or None where search is exact over all items."""
        return lifecycle.read_manifest(self._current().index)

    def build_index(
        self,
        recipe: str = "auto",
        *,
        min_recall: float = 0.95,
        queries: ArrayLike | None = None,
        memory: int | None = None,
        device: Device = "cpu",
        view: Literal["image", "captions"] = "image",
        progress: bool = True,
    ) -> IndexManifest | None:
        """Build an index over all items or captions and put it in use in one step; searches go on meanwhile.

        Its recall is measured against exact search, with queries of the kinds that will be asked: the items' captions
        or else a bank of sentences, the items themselves as pictures, and what the caller gives. Where queries that
        were really asked are kept (`log_queries`), kinds of which there are 100 or more are measured with these
        instead. What was measured is the manifest's `contract`; its notes say where `min_recall` cannot be promised.

        Args:
            recipe: Name of a recipe, path of a recipe file, FAISS factory string, or `auto` to choose by size.
            min_recall: The mean recall, 0 to 1, that a search that names none is to have.
            queries: Vectors such as will be searched with, shape (q, dim), some 400 that are independent of one
                another; measured beside the other kinds.
            memory: Bytes that building may take, for `auto` to choose by and for an index that is built on disk, such
                as `ivf-disk`, to keep to. A build on disk that was killed is gone on with by the next call.
            device: `cuda` to build with graphics cards; what is built serves any machine.
            view: What `search` looks through, `image`, or what `search_captions` does, `captions`; captions that are
                new are embedded first.
            progress: Whether to show a progress bar.

        Returns:
            What was built; None where `auto` finds that exact search over so few items needs no index.

        Raises:
            RecipeError: The recipe means nothing.
            InputError: `min_recall` is not from 0 to 1, `queries` are no finite vectors or fewer than two, or the
                captions are those of a collection of format 1 or 2, which have no index.
            DimensionError: `queries` have another width.
            MissingExtraError: It needs FAISS, which is not installed.
            EnvironmentConflictError: For device `cuda`, where FAISS has no graphics card to work with.
            StorageError: The disk refused; the index in use stays.
        """
        check_text("recipe", recipe)
        check_choice("device", device, ("cpu", "cuda"))
        check_choice("view", view, VIEWS)
        if memory is not None:
            check_integer("memory", memory, least=1)
        with self._writing() as generation:
            return generation.build_index(
                recipe,
                view=view,
                min_recall=min_recall,
                queries=queries,
                memory=memory,
                device=device,
                progress=progress,
            )

    def refresh_index(
        self, recipe: str = "auto", *, rebuild: bool = False, progress: bool = True
    ) -> IndexManifest | None:
        """Bring the index up to date where it is another design than asked for, or has fallen behind the items.

        New items are taken into the index in use, which costs a copy of it. It is built again where too much of what it
        holds is gone, or it was made for less than half of what is there; see `mmalign.collection.maintenance`.
        Searches and writes go on meanwhile, and see the new index whole. Captions that were searched before get an
        index once they are many, which is kept up to date likewise.

        Args:
            recipe: As for `build_index`; `auto` keeps to what was asked for when the index in use was built. That of
                the captions is always as with `auto`.
            rebuild: Build the indexes again and measure them anew, whatever is due.
            progress: Whether to show a progress bar.

        Returns:
            What is in use now for the items.

        Raises:
            As `build_index`.
        """
        check_text("recipe", recipe)
        check_flag("rebuild", rebuild)
        if rebuild or self._current().index_is_due(recipe):
            with self._writing() as generation:
                generation.refresh_index(recipe, rebuild=rebuild, progress=progress)
        return self.index_manifest

    @reads_again
    def check_recall(
        self, *, min_recall: float | None = None, k: int = 10, seed: int | None = None, progress: bool = True
    ) -> list[RecallCheck]:
        """Measure what searches find, with other queries than the index was measured with.

        Args:
            min_recall: The promise to test, 0 to 1; None for what the index was built to keep.
            k: How many hits, at least 1.
            seed: Of the queries that are drawn; None for others each time.
            progress: Whether to show a progress bar.

        Returns:
            The figures for each kind of query, of pictures and of captions; none where there is no index, or one that
            compares with every vector.

        Raises:
            InputError: `min_recall` or `k` is out of range.
        """
        check_integer("k", k, least=1)
        if min_recall is not None:
            check_share("min_recall", min_recall)
        if seed is not None:
            check_integer("seed", seed, least=0)
        generation = self._current()
        found = recheck_index(
            generation.searcher(),
            generation.sample_eval_queries,
            min_recall=min_recall,
            k=k,
            seed=seed,
            progress=progress,
        )
        return found + generation.captions.check_recall(min_recall=min_recall, k=k, seed=seed, progress=progress)

    # Queries that are kept ------------------------------------------------------------------------------------------

    def log_queries(self, most: int = MOST) -> None:
        """Keep a sample of the queries that are really asked, of all processes that search this collection.

        Nothing is kept unless this is called. Of a query its vector is kept, its kind, how deep it was searched,
        whether there was a filter, `min_recall`, how it was answered, and when; never its words. A vector, too, tells
        what was asked about: who has the encoder can find words that are near to it. Once there are more queries than
        `most`, those that are kept are a uniform sample of all. `check_live_recall` and `mmalign doctor` measure with
        them, and so does `build_index`.

        Args:
            most: How many queries are kept at most; 0 to keep no more, and those that are there stay until
                `forget_queries`.

        Raises:
            InputError: `most` is negative.
            StorageError: The disk refused.
        """
        check_integer("most", most, least=0)
        set_logging(self.path, int(most))

    def logged_queries(self) -> LoggedQueries:
        """Read the queries that are kept; see `log_queries`.

        Returns:
            The queries in random order, and of how many they are the sample; none where none were kept, or they are of
            another encoder.

        Raises:
            StorageError: They cannot be read.
        """
        return self._current().logged_queries()

    def forget_queries(self) -> int:
        """Delete the queries that are kept; where `log_queries` is on, a new sample begins.

        Returns:
            How many there were.

        Raises:
            StorageError: The disk refused.
        """
        return forget_queries(self.path)

    @reads_again
    def check_live_recall(self, *, most: int = 500, seed: int | None = None) -> LiveRecall:
        """Compare what searches find of queries that were really asked with the exact answer.

        It is quick with few queries, so that a service can look again and again: what takes time is one pass over all
        embeddings, however many queries there are. A query with a filter is asked without.

        Args:
            most: How many of the queries that are kept to compare, at least 1.
            seed: Of which these are; None for others each time.

        Returns:
            The figures by kind of query, of pictures and of captions, and a remark with its remedy for each kind for
            which the index does not keep its promise; neither where no queries are kept, or no index is in use.

        Raises:
            InputError: `most` or `seed` is out of range.
        """
        check_integer("most", most, least=1)
        if seed is not None:
            check_integer("seed", seed, least=0)
        return self._current().check_live_recall(most=most, seed=seed)

    def check_items(self) -> list[str]:
        """Read every item, embedding and caption, and compare them with their checksums.

        Returns:
            One sentence for each that is damaged; `add` of their source makes them anew.

        Raises:
            DamagedError: Which items there are cannot be told.
            StorageError: The items cannot be read.
        """
        return check_items(self._current())

    def check_index(self) -> IndexManifest | None:
        """Read every byte of the index in use, and of that of the captions, and compare it with its checksums.

        Returns:
            The manifest of the items' index, or None where there is none.

        Raises:
            IndexFileError: A file is missing or damaged, or the index was built from other items.
            MissingExtraError: It needs FAISS, which is not installed.
        """
        return check_index(self._current())


def _reopen(path: str, device: Device) -> Collection:
    """Undo `Collection.__reduce__`."""
    return Collection.open(path, index_device=device)
