"""Exact search in the vectors of a store, by reading what is needed in the way that costs least."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from mmalign.store import Float16Array, Store
from mmalign.utils import Float32Array, Int64Array, exact_top_k, merge_top_k

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
        if len(self._unindexed) == len(self._store) or self._width * len(self._unindexed) > _CACHE_BYTES:
            wanted = self._unindexed if allowed is None else np.intersect1d(self._unindexed, allowed)
            return self.search(queries, k, wanted)
        if self._known_unindexed is None:
            self._known_unindexed = (
                self._store.embeddings(self._unindexed) if len(self._unindexed) else _nothing(self._store)
            )
        return _nearest(queries, k, [_only(self._known_unindexed, allowed)])

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

    def _read(self, rows: Int64Array) -> Iterator[tuple[Int64Array, Float16Array]]:
        everything = len(rows) == len(self._store)
        if self._known is None and not everything and len(rows) * _SCATTERED <= len(self._store):
            step = max(1024, _CHUNK_BYTES // self._width)
            for start in range(0, len(rows), step):
                yield self._store.embeddings(np.sort(rows[start : start + step]))
            return
        wanted = None if everything else rows
        if self._width * len(self._store) <= _CACHE_BYTES:
            if self._known is None:
                self._known = self._store.embeddings()
            yield _only(self._known, wanted)
            return
        for chunk in self._store.iter_embeddings():
            yield _only(chunk, wanted)


def _only(known: tuple[Int64Array, Float16Array], wanted: Int64Array | None) -> tuple[Int64Array, Float16Array]:
    if wanted is None:
        return known
    chosen = np.flatnonzero(np.isin(known[0], wanted))
    return known[0][chosen], known[1][chosen]


def _nothing(store: Store) -> tuple[Int64Array, Float16Array]:
    return np.zeros(0, np.int64), np.zeros((0, store.dim), np.float16)


def _nearest(
    queries: Float32Array, k: int, chunks: Iterable[tuple[Int64Array, Float16Array]]
) -> tuple[Float32Array, Int64Array]:
    best = (np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64))
    for ids, vectors in chunks:
        scores, positions = exact_top_k(queries, vectors, k)
        best = merge_top_k(best, (scores, ids[positions]), k)
    return best
