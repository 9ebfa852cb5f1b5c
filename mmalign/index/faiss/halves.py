"""Comparing queries with vectors of float16 where they lie: FAISS's scan of a memory or a memory map, without a copy.

It takes half the reads of float32 and decodes in registers; to widen float16 for a matrix product, as NumPy must, takes
several times as long as one such scan, and pays from some dozen queries on (`python -m benchmarks.exact_search`).
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from mmalign.index.faiss.library import load_faiss
from mmalign.utils import Float32Array, Int64Array

# Hits beyond those asked for: FAISS cuts equal scores anywhere, and these tell whether it has.
_EQUAL = 4


class _Scanner:
    """FAISS's scanner of one width; it holds a query, so that one search at a time may use it.

    Args:
        dim: The width.
        filtered: Whether it asks a selector about each vector, which is set before each search.
    """

    def __init__(self, dim: int, filtered: bool) -> None:
        faiss = load_faiss()
        self._quantizer = faiss.ScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16)
        self._everything = faiss.IDSelectorAll() if filtered else None
        # Without a quantiser of lists, positions for ids, and no residuals.
        self.scanner = self._quantizer.select_InvertedListScanner(
            faiss.METRIC_INNER_PRODUCT, None, True, self._everything, False
        )
        self.scanner.set_list(0, 0.0)
        self.pointer = faiss.swig_ptr


# Python cannot delete a scanner, so that those that are free are used again: as many as ever ran at once.
_free: dict[tuple[int, bool], list[_Scanner]] = defaultdict(list)


def scan_halves(
    queries: Float32Array, vectors: NDArray[np.float16], k: int, mask: NDArray[np.bool_] | None
) -> tuple[Float32Array, Int64Array] | None:
    """Find the nearest vectors of each query by comparing with all, equal scores in order of position.

    Args:
        queries: Shape (q, dim), float32, C-contiguous.
        vectors: Shape (n, dim), C-contiguous, in memory or mapped.
        k: How many, at least 1 and at most as many as are allowed.
        mask: Which vectors are allowed, bool of shape (n,); None for all.

    Returns:
        `(scores, positions)`, float32 and int64 of shape (q, k), best first; None where more vectors than were looked
        at have the score of the last one, so that FAISS may have kept any of them.
    """
    key = vectors.shape[1], mask is not None
    try:
        borrowed = _free[key].pop()
    except IndexError:
        borrowed = _Scanner(*key)
    try:
        return _scan(borrowed, queries, vectors, k, mask)
    finally:
        _free[key].append(borrowed)


def _scan(
    borrowed: _Scanner, queries: Float32Array, vectors: NDArray[np.float16], k: int, mask: NDArray[np.bool_] | None
) -> tuple[Float32Array, Int64Array] | None:
    scanner, pointer = borrowed.scanner, borrowed.pointer
    rows = there = len(vectors)
    if mask is not None:
        there = int(np.count_nonzero(mask))
        bits = np.packbits(mask, bitorder="little")
        # Kept by this name until the search is over.
        scanner.sel = selector = load_faiss().IDSelectorBitmap(bits)  # noqa: F841
    fetch = min(there, k + _EQUAL)
    codes = pointer(vectors.view(np.uint8))
    found = []
    for query in queries:
        scores, positions = np.full(fetch, -np.inf, np.float32), np.full(fetch, -1, np.int64)
        scanner.set_query(pointer(query))
        scanner.scan_codes(rows, codes, None, pointer(scores), pointer(positions), fetch)
        # What FAISS leaves is a heap. One row at a time: `take_along_axis` takes as long as a small scan.
        order = np.lexsort((positions, -scores))
        if fetch < there and scores[order[-1]] == scores[order[k - 1]]:
            return None
        order = order[:k]
        found.append((scores[order], positions[order]))
    if len(found) == 1:
        return found[0][0][None], found[0][1][None]
    return np.stack([one[0] for one in found]), np.stack([one[1] for one in found])
