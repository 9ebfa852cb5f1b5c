"""Exact search in the vectors of a store, by reading what is needed in the way that costs least."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.index import compare_all
from mmalign.search.masks import Masks
from mmalign.store import Float16Array, Store
from mmalign.utils import Float32Array, Int64Array, merge_top_k

# Row ids, their vectors, and which of them may be found; None for all.
_Chunk: TypeAlias = tuple[Int64Array, Float16Array, NDArray[np.bool_] | None]
# Vectors that are searched exactly stay in memory up to this size, and are read chunk by chunk beyond.
_CACHE_BYTES = 1 << 30
# To read one row by its id takes about as long as to read so many in order.
_SCATTERED = 100
# Vectors that are compared at once, in bytes of float16.
_CHUNK_BYTES = 1 << 26


class ExactRows:
    """Compares queries with rows of a store, and keeps in memory what is likely to be asked for again.

    Args:
        store: The items.
        unindexed: Row ids that every search looks at, int64 of shape (n,).
    """

    def __init__(self, store: Store, unindexed: Int64Array) -> None:
        self._store = store
        self._unindexed = unindexed
        self._width = 2 * store.dim
        self._known_unindexed: tuple[Int64Array, Float16Array] | None = None
        self._known: tuple[Int64Array, Float16Array] | None = None
        self._masks, self._tail_masks = Masks(), Masks()

    def search_unindexed(
        self, queries: Float32Array, k: int, *, allowed: Int64Array | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """Find the nearest of these rows.

        Args:
            queries: Shape (q, dim), float32.
            k: How many, at least 0.
            allowed: Row ids that may be found, in any order; None for all.

        Returns:
            `(scores, row_ids)` of shape (q, k'), float32 and int64, best first.
        """
        whole = len(self._unindexed) == len(self._store)
        if whole or self._width * len(self._unindexed) > _CACHE_BYTES:
            if allowed is not None:
                # The very array where that says the same: what was made of it is known by it.
                wanted = allowed if whole else np.intersect1d(self._unindexed, allowed)
            return self.search(queries, k, self._unindexed if allowed is None else wanted)
        if self._known_unindexed is None:
            self._known_unindexed = (
                self._store.embeddings(self._unindexed) if len(self._unindexed) else _nothing(self._store)
            )
        return _nearest(queries, k, [_only(self._known_unindexed, allowed, self._tail_masks)])

    def search(self, queries: Float32Array, k: int, rows: Int64Array) -> tuple[Float32Array, Int64Array]:
        """Find the nearest of given rows.

        Args:
            queries: Shape (q, dim), float32.
            k: How many, at least 0.
            rows: Row ids, int64 of shape (n,), each once.

        Returns:
            `(scores, row_ids)` of shape (q, k'), float32 and int64, best first.
        """
        return _nearest(queries, k, self._read(rows) if k and len(rows) else [])

    def _read(self, rows: Int64Array) -> Iterator[_Chunk]:
        everything = len(rows) == len(self._store)
        if self._known is None and not everything and len(rows) * _SCATTERED <= len(self._store):
            step = max(1024, _CHUNK_BYTES // self._width)
            for start in range(0, len(rows), step):
                yield *self._store.embeddings(np.sort(rows[start : start + step])), None
            return
        wanted = None if everything else rows
        if self._width * len(self._store) <= _CACHE_BYTES:
            if self._known is None:
                self._known = self._store.embeddings()
            yield _only(self._known, wanted, self._masks)
            return
        for chunk in self._store.iter_embeddings():
            yield _only(chunk, wanted, Masks())


def _only(known: tuple[Int64Array, Float16Array], wanted: Int64Array | None, masks: Masks) -> _Chunk:
    return *known, None if wanted is None else masks.of(wanted, lambda row_ids: np.isin(known[0], row_ids))


def _nothing(store: Store) -> tuple[Int64Array, Float16Array]:
    return np.zeros(0, np.int64), np.zeros((0, store.dim), np.float16)


def _nearest(queries: Float32Array, k: int, chunks: Iterable[_Chunk]) -> tuple[Float32Array, Int64Array]:
    best: tuple[Float32Array, Int64Array] | None = None
    for ids, vectors, mask in chunks:
        scores, positions = compare_all(queries, vectors, k, mask=mask)
        found = scores, ids[positions]
        best = found if best is None else merge_top_k(best, found, k)
    return _no_hits(len(queries)) if best is None else best


def _no_hits(queries: int) -> tuple[Float32Array, Int64Array]:
    return np.zeros((queries, 0), np.float32), np.zeros((queries, 0), np.int64)
