"""The true nearest neighbours of many queries, from one scan of the vectors in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import InputError
from mmalign.index.chunks import Chunks
from mmalign.utils import Float32Array, Int64Array, as_matrix, merge_top_k

# Scores of one block: 32 MiB of float32, so that scores and vectors of a block stay near the processor.
_BLOCK_SCORES = 1 << 23
# Inner products of the same unit vectors in another order of summation differ by less.
TIE = 2e-6
"""Scores that differ by no more than this count as equal, where vectors are of length 1."""
# Where they are of any length, the part of a score that rounding may change.
_RELATIVE_TIE = 1e-5


@dataclass(frozen=True, slots=True)
class Truth:
    """The true nearest neighbours of some queries.

    Attributes:
        scores: Shape (q, depth), float32, best first; -inf where fewer rows are allowed.
        ids: Shape (q, depth), int64; -1 where fewer rows are allowed.
    """

    scores: Float32Array
    ids: Int64Array

    def recall(
        self, found: Int64Array, k: int, *, lookup: Lookup | None = None, unit_length: bool = True
    ) -> NDArray[np.float64]:
        """Say what share of the true k nearest each query found.

        A row that scores as much as the k-th nearest, to within `TIE`, counts as one of them: which of several
        copies of a picture is found makes no difference.

        Args:
            found: Ids of shape (q, k'), -1 for an empty place; only the first k of each row count.
            k: How many were to be found, at least 1 and at most the depth.
            lookup: Scores pairs of query and id, for ties that reach beyond the depth; without it they do not count.
            unit_length: Whether the vectors are of length 1. Where they are not, scores count as equal that differ by
                a hundred thousandth of themselves.

        Returns:
            Shape (q,), from 0 to 1; 1 where nothing was to be found.

        Raises:
            InputError: `k` is out of range.
        """
        depth = self.ids.shape[1]
        if not 1 <= k <= max(1, depth):
            raise InputError(f"k must be from 1 to the depth of the truth, {depth}, got {k}")
        wanted = np.minimum(k, np.count_nonzero(self.ids >= 0, axis=1))
        if not depth or not len(wanted):
            return np.ones(len(wanted))
        last = self.scores[np.arange(len(wanted)), np.maximum(wanted - 1, 0)]
        bounds = last - (TIE if unit_length else _RELATIVE_TIE * np.abs(last))
        good = (self.scores >= bounds[:, None]) & (self.ids >= 0)
        met = np.zeros(self.ids.shape, np.bool_)
        for column in found[:, :k].T:
            met |= self.ids == column[:, None]
        counts = np.count_nonzero(met & good, axis=1)
        if lookup is not None:
            for query in np.flatnonzero(good.all(axis=1) & (counts < wanted)):
                others = np.setdiff1d(found[query, :k], [*self.ids[query], -1])
                counts[query] += np.count_nonzero(lookup(int(query), others) >= bounds[query])
        shares: NDArray[np.float64] = np.minimum(1.0, counts / np.maximum(wanted, 1))
        shares[wanted == 0] = 1.0
        return shares


Lookup = Callable[[int, Int64Array], NDArray[np.floating]]
"""Takes the position of a query and ids of shape (m,), and returns their inner products, shape (m,)."""


def exact_truth(
    queries: ArrayLike,
    chunks: Chunks,
    k: int,
    *,
    allowed: Callable[[Int64Array], NDArray[np.bool_]] | None = None,
    skip: Int64Array | None = None,
    advance: Callable[[int], None] | None = None,
) -> Truth:
    """Find the true nearest neighbours of many queries in one pass over the vectors.

    Memory is that of one chunk, one block of 32 MiB of scores, and the result.

    Args:
        queries: Array-like of shape (q, dim).
        chunks: Yields `(ids, vectors)`, int64 of shape (n,) and float16 or float32 of shape (n, dim).
        k: How many for each query, at least 0; fewer where there are fewer rows.
        allowed: Given the ids of a chunk, shape (n,), says which rows may be found: bool of shape (n,) for all
            queries, or (q, n) for each.
        skip: For each query the id of a row that is not its neighbour, such as the row that it was made from; shape
            (q,), -1 for none.
        advance: Called with the number of rows after each chunk.

    Returns:
        The neighbours; rows of equal score in the order of the scan.

    Raises:
        InputError: `k` is negative, or `skip` has another length.
        DimensionError: The widths differ.
    """
    matrix = as_matrix(queries, name="queries")
    if k < 0:
        raise InputError(f"k must be at least 0, got {k}")
    if skip is not None and skip.shape != (len(matrix),):
        raise InputError(f"skip must hold one id for each of {len(matrix)} queries, got shape {skip.shape}")
    scores = np.full((len(matrix), k), -np.inf, np.float32)
    best: tuple[Float32Array, Int64Array] = (scores, np.full((len(matrix), k), -1, np.int64))
    rows = 0
    for ids, vectors in chunks():
        matrix = as_matrix(matrix, dim=vectors.shape[1], name="queries")
        mask = None if allowed is None else allowed(ids)
        block = max(256, _BLOCK_SCORES // max(len(matrix), vectors.shape[1], 1))
        for start in range(0, len(ids) if len(matrix) and k else 0, block):
            part = slice(start, start + block)
            scores = matrix @ np.asarray(vectors[part], dtype=np.float32).T
            if mask is not None:
                scores[~np.broadcast_to(mask[..., part], scores.shape)] = -np.inf
            if skip is not None:
                scores[skip[:, None] == ids[None, part]] = -np.inf
            best = _better(best, scores, ids[part])
        rows += len(ids)
        if advance is not None:
            advance(len(ids))
    return Truth(best[0][:, :rows], best[1][:, :rows])


def _better(
    best: tuple[Float32Array, Int64Array], scores: Float32Array, ids: Int64Array
) -> tuple[Float32Array, Int64Array]:
    """Merge a block of scores into the best so far; soon few of a block are better, and only those are sorted."""
    k = best[0].shape[1]
    if scores.shape[1] > k:
        # Until each query has k hits, the k-th best of the block itself is what must be reached.
        bound = best[0][:, -1:]
        if np.isneginf(bound).any():
            bound = np.maximum(bound, np.partition(scores, -k, axis=1)[:, -k, None])
            better = scores >= bound
        else:
            better = scores > bound
    else:
        better = scores > best[0][:, -1:]
    better &= ~np.isneginf(scores)
    counts = np.count_nonzero(better, axis=1)
    if not counts.any():
        return best
    width = int(counts.max())
    query, column = np.nonzero(better)
    place = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.full((len(counts), width), -np.inf, np.float32), np.full((len(counts), width), -1, np.int64)
    kept[0][query, place] = scores[query, column]
    kept[1][query, place] = ids[column]
    return merge_top_k(best, kept, k)
