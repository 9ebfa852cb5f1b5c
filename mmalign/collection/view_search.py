"""Searching a view: the rows of its table that belong to one version of the items, and hits made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmalign.collection.view_table import ViewTable
from mmalign.errors import MissingExtraError, StorageError
from mmalign.index import IndexManifest, build_index
from mmalign.search import FoundRows, How, Searcher
from mmalign.store import Float16Array, Store
from mmalign.types import Hit, Note, Part
from mmalign.utils import Float32Array, Int64Array, as_cosines, exact_top_k, merge_top_k

# Rows beyond those asked for, among which equal ones may stand.
_EQUAL = 16
# Where several rows of one item crowd the first hits, the next search looks this many times as deep.
_DEEPER = 4
# Vectors without an index that are brought into memory, in bytes.
_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Unsaved:
    """Rows that could not be stored, as in a collection that may only be read.

    Attributes:
        texts: m texts.
        vectors: Their embeddings, float16 of shape (m, dim).
    """

    texts: Sequence[str]
    vectors: Float16Array


@dataclass(frozen=True, slots=True, eq=False)
class ViewRows:
    """The rows of a view that belong to one version of the items.

    Attributes:
        items: The items.
        table: The table; None where there is none.
        row_ids: Its rows that belong to the items, rising, int64 of shape (n,).
        owners: Row id of the item of each row, int64 of shape (n + m,): of those in the table, then of the others.
        unsaved: m rows that are not in the table; None where all are.
        notes: Remarks that a person should see.
    """

    items: Store
    table: ViewTable | None
    row_ids: Int64Array
    owners: Int64Array
    unsaved: Unsaved | None = None
    notes: tuple[Note, ...] = ()

    def texts_and_parts(self, places: Int64Array) -> list[tuple[str, Part | None]]:
        """Read what rows say, and of which parts of their items.

        Args:
            places: Of some rows, each from 0 to n + m - 1.

        Returns:
            Text and part of each; the part is None for the whole item, as for rows that are not in the table.
        """
        stored = places < len(self.row_ids)
        found = np.empty(len(places), object)
        if self.table is not None and stored.any():
            for place, one in zip(
                np.flatnonzero(stored).tolist(), self.table.texts_and_parts(self.row_ids[places[stored]]), strict=True
            ):
                found[place] = one
        if self.unsaved is not None:
            for place in np.flatnonzero(~stored).tolist():
                found[place] = self.unsaved.texts[int(places[place]) - len(self.row_ids)], None
        return list(found)

    def texts(self) -> list[str]:
        """Read the n + m texts."""
        return [text for text, _ in self.texts_and_parts(np.arange(len(self)))]

    def vectors(self) -> Float16Array:
        """Read all embeddings, float16 of shape (n + m, dim)."""
        vectors = np.zeros((0, self.items.dim), np.float16)
        if self.table is not None and len(self.row_ids):
            _, vectors = self.table.store.embeddings(self.row_ids)
        return vectors if self.unsaved is None else np.concatenate([vectors, self.unsaved.vectors])

    def __len__(self) -> int:
        return len(self.owners)


@dataclass(frozen=True, slots=True)
class ViewHits:
    """What a search of a view found.

    Attributes:
        hits: Best first.
        exact: Whether these are certain to be the true nearest.
        effort: Effort that the index was asked for; None where it was not used.
        notes: Remarks that a person should see.
    """

    hits: tuple[Hit, ...]
    exact: bool
    effort: int | None
    notes: tuple[Note, ...]


class ViewSearcher:
    """Searches the rows of a view that belong to one version of the items, and keeps what that takes.

    Where there is no index, the first search compares with what it reads from the table. From the second on, the
    vectors are in memory where they fit and where FAISS is installed, whose scan of float16 takes a quarter of the
    time.

    Args:
        rows: The rows.
        searcher: The table with the index in use; None where there is no table.

    Attributes:
        rows: As given.
        searcher: As given, until the vectors are in memory.
    """

    def __init__(self, rows: ViewRows, searcher: Searcher | None) -> None:
        self.rows = rows
        self.searcher = searcher
        # In a table that may only be read some rows may belong to no item any more.
        self._some = searcher is not None and len(rows.row_ids) < searcher.items
        self._searches = 0

    @property
    def current(self) -> bool:
        """Whether nobody has written to the items or the table since."""
        stores = (self.rows.items, None if self.rows.table is None else self.rows.table.store)
        try:
            return all(store is None or store.latest() is store for store in stores)
        except StorageError:
            # Somebody may have deleted the view.
            return False

    def allowed(self, where: str | None) -> NDArray[np.bool_] | None:
        """Say which rows a filter lets through.

        Args:
            where: SQL over the columns of the items; None for all.

        Returns:
            For each row whether it does, shape (n + m,); None for all.

        Raises:
            FilterError: The filter is no condition over the columns; the text says what they hold.
        """
        return None if where is None else np.isin(self.rows.owners, self.rows.items.row_ids(where=where))

    def search(
        self,
        vector: Float32Array,
        k: int,
        *,
        allowed: NDArray[np.bool_] | None = None,
        grouped: bool = False,
        min_recall: float | None = None,
        kinds: tuple[str, ...] | None = None,
    ) -> ViewHits:
        """Find the rows nearest to a vector; equal scores come in the order of the rows.

        Args:
            vector: Shape (dim,), float32, of length 1.
            k: How many hits, at least 0.
            allowed: What `allowed` says of a filter.
            grouped: Whether an item is one hit, that of its best row, and `k` counts items.
            min_recall: As for `Searcher.search`.
            kinds: Likewise.

        Returns:
            What was found: one hit a row, or an item, best first: `id` and `uri` of its item, and
            `metadata["captions"]` holds its text alone.

        Raises:
            InputError: `min_recall` is not from 0 to 1.
        """
        rows = self.rows
        self._searches += 1
        if self._searches == 2 and self.searcher is not None and self.searcher.index is None:
            self.searcher = _in_memory(self.searcher)
        found = FoundRows(*_nothing(), (How(True, None),))
        there = len(rows) if allowed is None else int(np.count_nonzero(allowed))
        if grouped:
            owners = rows.owners if allowed is None else rows.owners[allowed]
            wanted = min(k, len(np.unique(owners)))
        else:
            wanted = min(k, there)
        depth = min(wanted + _EQUAL, there)
        places, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        while wanted:
            found = self._look(vector, depth, allowed, min_recall=min_recall, kinds=kinds)
            scores, places = _in_order(found.scores[0], found.row_ids[0])
            chosen = _first_of_each(rows.owners[places]) if grouped else np.arange(len(places))
            # Rows that are equal to the last one may stand beyond what was fetched.
            if len(places) == there or (len(chosen) >= wanted and scores[-1] < scores[chosen[wanted - 1]]):
                scores, places = scores[chosen[:wanted]], places[chosen[:wanted]]
                break
            if len(places) < depth:
                # An index that looks at some lists alone may find fewer than there are.
                min_recall = 1.0
            depth = min(_DEEPER * depth, there)
        notes = found.notes + rows.notes + (() if self.searcher is None else self.searcher.notes)
        return ViewHits(self._hits(scores, places), found.exact, found.effort, notes)

    def _look(
        self,
        vector: Float32Array,
        depth: int,
        allowed: NDArray[np.bool_] | None,
        *,
        min_recall: float | None,
        kinds: tuple[str, ...] | None,
    ) -> FoundRows:
        """The nearest rows, by their places instead of row ids."""
        rows = self.rows
        stored = len(rows.row_ids)
        found = FoundRows(*_nothing(), (How(True, None),))
        if self.searcher is not None:
            only = rows.row_ids if self._some else None
            only = only if allowed is None else rows.row_ids[allowed[:stored]]
            found = self.searcher.search(vector[None], depth, allowed=only, min_recall=min_recall, kinds=kinds)
            there = found.row_ids >= 0
            found = replace(found, row_ids=np.where(there, np.searchsorted(rows.row_ids, found.row_ids), -1))
        if rows.unsaved is not None:
            places = np.arange(stored, len(rows))
            places = places if allowed is None else places[allowed[stored:]]
            scores, nearest = exact_top_k(vector[None], rows.unsaved.vectors[places - stored], depth)
            both = merge_top_k((found.scores, found.row_ids), (as_cosines(scores), places[nearest]), depth)
            found = replace(found, scores=both[0], row_ids=both[1])
        return found

    def _hits(self, scores: Float32Array, places: Int64Array) -> tuple[Hit, ...]:
        if not len(places):
            return ()
        rows = self.rows
        items = rows.items.take(rows.owners[places], ["id", "uri"]).to_pylist()
        return tuple(
            Hit(item["id"], item["uri"] or "", score, metadata={"captions": [text]}, part=part)
            for item, score, (text, part) in zip(items, scores.tolist(), rows.texts_and_parts(places), strict=True)
        )


def _in_memory(searcher: Searcher) -> Searcher:
    """The same with all vectors in memory; the same itself where they do not fit, or FAISS is not installed."""
    store = searcher.store
    rows, dim = len(store), store.dim
    if not rows or 2 * dim * rows > _MEMORY:
        return searcher
    try:
        index, used = build_index("flat-fp16", store.iter_embeddings, rows=rows, dim=dim)
    except MissingExtraError:
        return searcher
    manifest = IndexManifest(used, index.factory, dim, rows, store.version)
    return Searcher(store, index, manifest, version=searcher.version, notes=searcher.notes)


def _nothing() -> tuple[Float32Array, Int64Array]:
    return np.zeros((1, 0), np.float32), np.zeros((1, 0), np.int64)


def _in_order(scores: Float32Array, places: Int64Array) -> tuple[Float32Array, Int64Array]:
    """Best first, equal ones by their places, without the empty ones."""
    there = places >= 0
    scores, places = scores[there], places[there]
    order = np.lexsort((places, -scores))
    return scores[order], places[order]


def _first_of_each(owners: Int64Array) -> Int64Array:
    """Where each owner stands first, in that order."""
    return np.sort(np.unique(owners, return_index=True)[1])
