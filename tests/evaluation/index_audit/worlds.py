"""Vectors in clusters, and the truth about them by a naive loop in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

DIM = 16
Array = NDArray[np.float32]


@dataclass(frozen=True)
class World:
    vectors: Array
    queries: Array
    fresh: Array


def make_world(rows: int = 2_000, *, seed: int = 3, unit: bool = False) -> World:
    """Vectors of many lengths, or all of length 1, and queries that lie apart from them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(30, DIM))

    def some(count: int, spread: float) -> Array:
        made = centres[rng.integers(30, size=count)] + spread * rng.normal(size=(count, DIM))
        made *= rng.uniform(0.5, 2.0, size=(count, 1))
        if unit:
            made /= np.linalg.norm(made, axis=1, keepdims=True)
        return made.astype(np.float32)

    return World(some(rows, 0.6), some(160, 0.9), some(1_000, 0.9))


def score(metric: str, queries: Array, vectors: Array) -> NDArray[np.float64]:
    """Higher is nearer."""
    q, x = queries.astype(np.float64), vectors.astype(np.float64)
    if metric == "ip":
        return q @ x.T
    if metric == "cosine":
        return (q / np.linalg.norm(q, axis=1)[:, None]) @ (x / np.linalg.norm(x, axis=1)[:, None]).T
    return -np.stack([((one - x) ** 2).sum(axis=1) for one in q])


def nearest(metric: str, queries: Array, vectors: Array, k: int, allowed: NDArray[np.bool_] | None = None) -> list[set]:
    scores = score(metric, queries, vectors)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return [set(row.tolist()) for row in np.argsort(-scores, axis=1)[:, :k]]


def recall(found: list, truth: list[set]) -> float:
    return float(np.mean([len(set(map(int, a)) & b) / len(b) for a, b in zip(found, truth, strict=True)]))
