from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIM = 24
ROWS = 3000
QUERIES = 40


@dataclass(frozen=True)
class Data:
    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    queries: NDArray[np.float32]


def naive(
    data: Data, k: int, allowed: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sort all inner products in float64."""
    scores = data.queries.astype(np.float64) @ data.vectors.astype(np.float64).T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(scores, order, axis=1)
    return found, np.where(np.isinf(found), -1, data.ids[order])


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Mean share of the true ids that were found."""
    shares = [
        len(set(a[a >= 0].tolist()) & set(b[b >= 0].tolist())) / np.count_nonzero(b >= 0)
        for a, b in zip(found, truth, strict=True)
    ]
    return float(np.mean(shares))


def true_scores(data: Data, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """Inner products of each query with the rows of its ids; -inf for id -1."""
    position = np.full(data.ids.max() + 1, -1)
    position[data.ids] = np.arange(len(data.ids))
    rows = data.vectors[position[np.maximum(ids, 0)]].astype(np.float64)
    scores = np.einsum("qkd,qd->qk", rows, data.queries.astype(np.float64))
    return np.where(ids < 0, -np.inf, scores)
