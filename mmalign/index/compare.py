"""Comparing queries with every vector, or every allowed one: the exact search of indexes and collections.

Few queries are answered by FAISS's scan of float16 where FAISS is installed, many by matrix products, and so are small
collections, which need not wait for the import of FAISS. Scores differ in the last bits between the two: how many
vectors and queries there are decides, and nothing else, so that the same search gives the same scores.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import EnvironmentConflictError, MissingExtraError
from mmalign.utils import Float32Array, Int64Array, exact_top_k, merge_top_k

# From so many queries on, matrix products are faster.
_MANY = 16
# Fewer values than this NumPy compares with in a tenth of a millisecond.
_SMALL = 1 << 17
# One allowed row in so many, or fewer, are copied and the copy compared with.
_COPY_ONE_IN = 8
# Allowed rows are copied in pieces of this many, so that a filter over a large memory map stays small in memory.
_GATHER = 65_536
_Hits: TypeAlias = tuple[Float32Array, Int64Array]
_Scan: TypeAlias = Callable[[Float32Array, NDArray[Any], int, NDArray[np.bool_] | None], _Hits | None]


def compare_all(
    queries: Float32Array, vectors: NDArray[Any], k: int, *, mask: NDArray[np.bool_] | None = None
) -> _Hits:
    """The `k` vectors with the largest inner product for each query, by brute force; equal scores in order of position.

    Args:
        queries: Shape (q, dim), float32, finite, C-contiguous.
        vectors: Shape (n, dim), float16 or float32, finite.
        k: How many, at least 0; fewer are returned where fewer are allowed.
        mask: Which vectors are allowed, bool of shape (n,); None for all.

    Returns:
        `(scores, positions)` of shape (q, min(k, allowed)): float32, best first, and int64.
    """
    k = min(k, len(vectors) if mask is None else int(np.count_nonzero(mask)))
    few = 0 < len(queries) < _MANY and k > 0 and vectors.size >= _SMALL
    scan = _load_scan() if few and vectors.dtype == np.float16 and vectors.flags.c_contiguous else None
    if mask is None:
        return _compare(queries, vectors, k, scan)
    allowed = np.flatnonzero(mask)
    if scan is not None and len(allowed) * _COPY_ONE_IN > len(mask):
        found = scan(queries, vectors, k, mask)
        if found is not None:
            return found
    best: _Hits = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(allowed), _GATHER):
        positions = allowed[start : start + _GATHER]
        scores, order = _compare(queries, vectors[positions], min(k, len(positions)), scan)
        best = merge_top_k(best, (scores, positions[order]), k)
    return best


def _compare(queries: Float32Array, vectors: NDArray[Any], k: int, scan: _Scan | None) -> _Hits:
    found = None if scan is None else scan(queries, vectors, k, None)
    return exact_top_k(queries, vectors, k) if found is None else found


@cache
def _load_scan() -> _Scan | None:
    from mmalign.index.faiss.halves import scan_halves

    try:
        scan_halves(np.zeros((1, 8), np.float32), np.zeros((1, 8), np.float16), 1, None)
    except (MissingExtraError, EnvironmentConflictError, AttributeError, TypeError, NotImplementedError):
        # Not there, or a FAISS that names these things otherwise.
        return None
    return scan_halves
