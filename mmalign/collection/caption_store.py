"""Image-to-text: the captions in a collection's metadata as texts that a query can find.

Text and picture embeddings lie apart from one another in a contrastive space, so captions are kept in a store of
their own beside the items: mixed in, they would crowd the pictures out of every text query's hits. The store holds a
row for each caption of each item: `id` is made of item and text, `uri` holds the item's id, `captions` the text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders import Encoder
from mmalign.errors import CollectionFormatError, MissingExtraError, StorageError
from mmalign.index import Index, build_index
from mmalign.search import ExactRows
from mmalign.store import Float16Array, Store
from mmalign.types import Hit, Note
from mmalign.utils import Float32Array, Int64Array, exact_top_k, lock, merge_top_k, track

if TYPE_CHECKING:
    import pyarrow as pa

# One commit: some ten seconds of encoding, which is what a power cut can cost.
_CHUNK = 4096
# Hits beyond those asked for, among which equal ones may stand.
_EQUAL = 16
# Vectors of captions that are kept in memory, in bytes.
_MEMORY = 1 << 30
LOCK = ".captions.lock"
"""Beside the store of captions, held by who writes to it."""


@dataclass(frozen=True, slots=True, eq=False)
class Unsaved:
    """Captions that could not be stored, as in a collection that may only be read.

    Attributes:
        texts: m captions.
        vectors: Their embeddings, float16 of shape (m, dim).
    """

    texts: Sequence[str]
    vectors: Float16Array


@dataclass(frozen=True, slots=True, eq=False)
class Captions:
    """The captions of one version of the items.

    Attributes:
        items: The items.
        store: The store of captions; None where there is none.
        row_ids: Its rows that hold a caption of the items, rising, int64 of shape (n,).
        owners: Row id of the item of each caption, int64 of shape (n + m,): of those in the store, then of the others.
        unsaved: m captions that are not in the store; None where all are.
        notes: Remarks that a person should see.
    """

    items: Store
    store: Store | None
    row_ids: Int64Array
    owners: Int64Array
    unsaved: Unsaved | None = None
    notes: tuple[Note, ...] = ()

    def texts(self) -> list[str]:
        """Read the n + m texts."""
        texts: list[str] = []
        if self.store is not None and len(self.row_ids):
            texts = [text for (text,) in self.store.take(self.row_ids, ["captions"]).column("captions").to_pylist()]
        return texts if self.unsaved is None else [*texts, *self.unsaved.texts]

    def vectors(self) -> Float16Array:
        """Read their embeddings, float16 of shape (n + m, dim)."""
        vectors = np.zeros((0, self.items.dim), np.float16)
        if self.store is not None and len(self.row_ids):
            _, vectors = self.store.embeddings(self.row_ids)
        return vectors if self.unsaved is None else np.concatenate([vectors, self.unsaved.vectors])

    def __len__(self) -> int:
        return len(self.owners)


def refresh_captions(
    path: Path, items: Store, encoder: Callable[[], Encoder], *, dim: int, progress: bool = True
) -> Captions:
    """Bring the store of captions in line with the captions of the items; only new captions are encoded.

    Where nothing has changed nothing is written. Where the store cannot be written, what is new is encoded into memory.

    Args:
        path: Where the store of captions is, or will be.
        items: The items; where captions must be written, their newest version is followed.
        encoder: Gives the encoder; called only when a caption must be encoded.
        dim: Width of its embeddings.
        progress: Whether to show a progress bar.

    Returns:
        The captions.

    Raises:
        StorageError: The disk refused for another reason than that it may only be read.
    """
    wanted = _Wanted.read(items)
    store, look = _look(path, wanted)
    if look.in_line:
        return _captions(items, store, look)
    try:
        with lock(path.parent / LOCK):
            # Another process may have done it meanwhile, and what was removed meanwhile must not come back.
            items = items.latest()
            wanted = _Wanted.read(items)
            store, look = _look(path, wanted)
            if not look.in_line:
                if store is None:
                    # Half made by a process that was killed, damaged, or not there: nothing in it is worth keeping.
                    store = Store.create(path, dim=dim, overwrite=path.exists())
                _write(store, wanted, look, encoder, progress=progress)
                look = _compare(store, wanted)
            return _captions(items, store, look)
    except StorageError as error:
        if not _read_only(error):
            raise
    return _in_memory(items, store, wanted, look, encoder, dim=dim, progress=progress)


def purge_captions(path: Path, items: Store) -> None:
    """Leave no byte of a caption that no item has.

    Args:
        path: Where the store of captions is; it need not exist.
        items: The items, at their newest version.

    Raises:
        StorageError: The disk refused.
    """
    if not path.exists():
        return
    with lock(path.parent / LOCK):
        store, look = _look(path, _Wanted.read(items.latest()))
        if store is None:
            # Damaged or half made; it is made again when captions are searched.
            Store.create(path, dim=items.dim, overwrite=True).purge()
            return
        store.delete(look.stale)
        store.purge()


def check_captions(path: Path) -> list[str]:
    """Read all captions that are stored, and compare them with their checksums.

    Args:
        path: Where the store of captions is; it need not exist.

    Returns:
        One sentence for each that is damaged; the next search of captions makes it anew.
    """
    if not path.exists():
        return []
    try:
        return [f"caption: {one.describe()}" for one in Store.open(path).find_damage(again=True)]
    except (CollectionFormatError, StorageError) as error:
        return [str(error)]


class CaptionSearcher:
    """Searches the captions of one version of the items, and keeps what that takes.

    The first search compares with what it reads from the store. From the second on, the vectors are in memory where
    they fit and where FAISS is installed, whose scan of float16 takes a quarter of the time.

    Args:
        captions: The captions.

    Attributes:
        captions: As given.
    """

    def __init__(self, captions: Captions) -> None:
        self.captions = captions
        self._rows = None if captions.store is None else ExactRows(captions.store, captions.row_ids)
        self._index: Index | None = None
        self._searches = 0

    @property
    def current(self) -> bool:
        """Whether nobody has written to the items or the captions since."""
        stores = (self.captions.items, self.captions.store)
        return all(store is None or store.latest() is store for store in stores)

    def search(self, vector: Float32Array, k: int, *, where: str | None = None) -> tuple[Hit, ...]:
        """Find the captions nearest to a vector.

        Args:
            vector: Shape (dim,), float32, of length 1.
            k: How many, at least 0.
            where: SQL over the columns of the items.

        Returns:
            One hit a caption, best first: `id` and `uri` of its item, and `metadata["captions"]` holding it alone.

        Raises:
            FilterError: The filter is no condition over the columns; the text says what they hold.
        """
        allowed = None if where is None else np.isin(self.captions.owners, self.captions.items.row_ids(where=where))
        index = self._index
        self._searches += 1
        if index is None and self._searches == 2:
            index = self._index = self._fill()
        if index is None:
            scores, places = self._compare(vector, k, allowed)
        else:
            scores, places = _nearest(index, vector, k, allowed)
        return self._hits(scores, places)

    def _fill(self) -> Index | None:
        """Bring the vectors into memory; None where they do not fit, or FAISS is not installed."""
        captions = self.captions
        dim = captions.items.dim
        if not len(captions) or 2 * dim * len(captions) > _MEMORY:
            return None
        vectors = captions.vectors()
        try:
            index, _ = build_index(
                "flat-fp16", lambda: [(np.arange(len(vectors)), vectors)], rows=len(vectors), dim=dim
            )
        except MissingExtraError:
            return None
        # It holds a copy of them for itself.
        self._rows = None
        return index

    def _compare(
        self, vector: Float32Array, k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[Float32Array, Int64Array]:
        """Scores and places of the nearest captions, by comparing with what is read from the store."""
        captions = self.captions
        stored = len(captions.row_ids)
        best = (np.zeros((1, 0), np.float32), np.zeros((1, 0), np.int64))
        if self._rows is not None:
            rows = captions.row_ids if allowed is None else captions.row_ids[allowed[:stored]]
            scores, found = self._rows.search(vector[None], k, rows)
            best = scores, np.searchsorted(captions.row_ids, found)
        if captions.unsaved is not None:
            places = np.arange(stored, len(captions))
            places = places if allowed is None else places[allowed[stored:]]
            scores, found = exact_top_k(vector[None], captions.unsaved.vectors[places - stored], k)
            best = merge_top_k(best, (scores, places[found]), k)
        return best[0][0], best[1][0]

    def _hits(self, scores: Float32Array, places: Int64Array) -> tuple[Hit, ...]:
        if not len(places):
            return ()
        captions, unsaved = self.captions, self.captions.unsaved
        stored = places < len(captions.row_ids)
        texts = np.empty(len(places), object)
        if captions.store is not None and stored.any():
            told = captions.store.take(captions.row_ids[places[stored]], ["captions"]).column("captions").to_pylist()
            texts[stored] = [text for (text,) in told]
        if unsaved is not None and not stored.all():
            texts[~stored] = [unsaved.texts[place] for place in (places[~stored] - len(captions.row_ids)).tolist()]
        rows = captions.items.take(captions.owners[places], ["id", "uri"]).to_pylist()
        return tuple(
            Hit(row["id"], row["uri"] or "", score, metadata={"captions": [text]})
            for row, score, text in zip(rows, scores.tolist(), texts.tolist(), strict=True)
        )


def _nearest(
    index: Index, vector: Float32Array, k: int, allowed: NDArray[np.bool_] | None
) -> tuple[Float32Array, Int64Array]:
    """Scores and places of the nearest captions, equal scores in the order of the places.

    FAISS gives equal ones, of which captions that are the same word for word have many, in any order, and any of those
    that stand at the end; so as many are asked for as share the last score.
    """
    depth = k + _EQUAL
    while True:
        found = index.search(vector[None], depth, where=allowed)
        scores, places = (one[0][found[1][0] >= 0] for one in found)
        if not k or len(scores) < depth or scores[-1] < scores[k - 1]:
            order = np.lexsort((places, -scores))[:k]
            return scores[order], places[order]
        depth *= 4


@dataclass(frozen=True, slots=True, eq=False)
class _Wanted:
    """The captions that the items have, in columns: n of them, each once an item.

    Attributes:
        ids: Ids of the items that have captions.
        row_ids: Their row ids, int64.
        texts: The different texts.
        item: Place in `ids` of each caption, int64 of shape (n,).
        text: Place in `texts` of each, int64 of shape (n,).
    """

    ids: pa.Array
    row_ids: Int64Array
    texts: pa.Array
    item: Int64Array
    text: Int64Array

    @classmethod
    def read(cls, items: Store) -> _Wanted:
        import pyarrow.compute as pc

        row_ids, table = items.scan(["id", "captions"], also="captions IS NOT NULL")
        column = table.column("captions").combine_chunks()
        encoded = pc.dictionary_encode(pc.list_flatten(column))
        encoded = encoded.combine_chunks() if hasattr(encoded, "combine_chunks") else encoded
        codes = np.stack([_numbers(pc.list_parent_indices(column)), _numbers(encoded.indices)])
        # A null among the captions has no place, and says nothing.
        item, text = np.unique(codes[:, codes[1] >= 0], axis=1)
        return cls(table.column("id").combine_chunks(), row_ids, encoded.dictionary, item, text)

    @property
    def code(self) -> Int64Array:
        """One number for each caption of each item."""
        return self.item * max(len(self.texts), 1) + self.text

    def of(self, chosen: Int64Array) -> list[tuple[str, str]]:
        """Item and text of some captions, by their places."""
        import pyarrow as pa

        names = self.ids.take(pa.array(self.item[chosen])).to_pylist()
        return list(zip(names, self.texts.take(pa.array(self.text[chosen])).to_pylist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """How a store of captions stands to the captions that are wanted.

    Attributes:
        row_ids: Its rows that are wanted, rising.
        owners: Row id of the item of each.
        stale: Row ids that no item has, or that hold what another row holds.
        missing: Places of wanted captions that it lacks.
    """

    row_ids: Int64Array
    owners: Int64Array
    stale: Int64Array
    missing: Int64Array

    @property
    def in_line(self) -> bool:
        return not len(self.stale) and not len(self.missing)


def _look(path: Path, wanted: _Wanted) -> tuple[Store | None, _Look]:
    """What is stored, and how it stands to what should be; None where nothing is, or nothing that can be read."""
    store = _open(path)
    try:
        return store, _compare(store, wanted)
    except StorageError as error:
        if _read_only(error):
            raise
        return None, _compare(None, wanted)


def _compare(store: Store | None, wanted: _Wanted) -> _Look:
    import pyarrow.compute as pc

    code = wanted.code
    nothing = np.zeros(0, np.int64)
    if store is None:
        return _Look(nothing, nothing, nothing, np.arange(len(code)))
    # What is damaged is no caption of any item, and so is made anew.
    damaged = [one.row_id for one in store.find_damage()]
    row_ids, table = store.scan(["uri", "captions"], check=False)
    column = table.column("captions").combine_chunks()
    item = _numbers(pc.index_in(table.column("uri").combine_chunks(), value_set=wanted.ids))
    # Rows of more or fewer than one caption are not ours, and are written again.
    single = _numbers(pc.list_value_length(column)) == 1
    text = np.full(len(row_ids), -1, np.int64)
    chosen = pc.list_flatten(column.filter(_mask(single)))
    text[single] = _numbers(pc.index_in(chosen, value_set=wanted.texts))
    held = np.where((item >= 0) & (text >= 0), item * max(len(wanted.texts), 1) + text, -1)
    held[np.isin(row_ids, damaged)] = -1
    valid = np.isin(held, code)
    first = np.zeros(len(held), np.bool_)
    first[np.unique(held, return_index=True)[1]] = True
    valid &= first
    order = np.argsort(row_ids[valid], kind="stable")
    return _Look(
        row_ids=row_ids[valid][order],
        owners=wanted.row_ids[item[valid]][order],
        stale=row_ids[~valid],
        missing=np.flatnonzero(~np.isin(code, held)),
    )


def _write(store: Store, wanted: _Wanted, look: _Look, encoder: Callable[[], Encoder], *, progress: bool) -> None:
    store.delete(look.stale)
    with track("Captions", len(look.missing), enabled=progress and bool(len(look.missing))) as advance:
        for start in range(0, len(look.missing), _CHUNK):
            chunk = wanted.of(look.missing[start : start + _CHUNK])
            vectors = encoder().encode_text([caption for _, caption in chunk])
            rows = [
                {"id": _caption_id(item, caption), "uri": item, "kind": "caption", "captions": [caption]}
                for item, caption in chunk
            ]
            store.upsert(rows, vectors)
            advance(len(chunk))
    store.compact()


def _in_memory(
    items: Store,
    store: Store | None,
    wanted: _Wanted,
    look: _Look,
    encoder: Callable[[], Encoder],
    *,
    dim: int,
    progress: bool,
) -> Captions:
    captions = _captions(items, store, look)
    if not len(look.missing):
        return captions
    pairs = wanted.of(look.missing)
    texts = [text for _, text in pairs]
    vectors = np.zeros((len(texts), dim), np.float16)
    with track("Captions", len(texts), enabled=progress) as advance:
        for start in range(0, len(texts), _CHUNK):
            chunk = texts[start : start + _CHUNK]
            vectors[start : start + len(chunk)] = encoder().encode_text(chunk)
            advance(len(chunk))
    note = Note(
        f"{len(texts):,} captions are not stored yet and were encoded for this process alone, since the collection may "
        "only be read here",
        remedy="search captions once where it may be written",
        about="captions",
    )
    owners = np.concatenate([captions.owners, wanted.row_ids[wanted.item[look.missing]]])
    return replace(captions, owners=owners, unsaved=Unsaved(texts, vectors), notes=(note,))


def _captions(items: Store, store: Store | None, look: _Look) -> Captions:
    return Captions(items, store, look.row_ids, look.owners)


def _open(path: Path) -> Store | None:
    if not path.exists():
        return None
    try:
        return Store.open(path)
    except CollectionFormatError:
        return None


def _read_only(error: BaseException | None) -> bool:
    """Whether what the disk refused is that somebody writes: by the chain of errors, and by Lance's texts."""
    while error is not None:
        if isinstance(error, PermissionError) or getattr(error, "errno", None) in _REFUSED:
            return True
        if any(text in str(error) for text in ("os error 13)", "os error 30)", "ermission denied", "ead-only file")):
            return True
        error = error.__cause__
    return False


# EACCES, EPERM and EROFS.
_REFUSED = (1, 13, 30)


def _numbers(values: Any) -> Int64Array:
    """Arrow integers as int64; null becomes -1."""
    import pyarrow.compute as pc

    numbers: Int64Array = pc.fill_null(pc.cast(values, "int64"), -1).to_numpy(zero_copy_only=False)
    return numbers


def _mask(chosen: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.array(chosen)


def _caption_id(item: str, caption: str) -> str:
    return hashlib.blake2b(f"{item}\n{caption}".encode(), digest_size=12).hexdigest()
