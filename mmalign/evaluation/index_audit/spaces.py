"""Nearest by cosine, inner product or distance, said as one: which vectors have the largest inner product.

mmalign's exact search knows inner products. The vectors are changed so that their inner products with the queries,
which stay as they are, put them in the order of the database's own metric, and so that scores are about as large as
those of unit vectors, for which ties are told apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.evaluation.index_audit.target import Metric
from mmalign.utils import Float32Array, l2_normalize


@dataclass(frozen=True, slots=True)
class Space:
    """How vectors of one metric become such that the nearest have the largest inner product.

    Attributes:
        metric: The metric.
        mean: Of the vectors, float64 of shape (dim,).
        scale: What scores are divided by.
    """

    metric: Metric
    mean: NDArray[np.float64]
    scale: float

    def queries(self, queries: Float32Array) -> Float32Array:
        """Queries as exact search takes them, of shape (q, width)."""
        if self.metric != "l2":
            return queries
        return np.concatenate([queries, np.ones((len(queries), 1), np.float32)], axis=1)

    def asked(self, queries: Float32Array) -> Float32Array:
        """What was given to `queries`, so as the database takes them."""
        return queries if self.metric != "l2" else np.ascontiguousarray(queries[:, :-1])

    def vectors(self, vectors: NDArray[Any]) -> Float32Array:
        """Vectors as exact search takes them, of shape (n, width)."""
        if self.metric == "cosine":
            return l2_normalize(vectors) / np.float32(self.scale)
        if self.metric == "ip":
            return np.asarray(vectors, np.float32) / np.float32(self.scale)
        # |q - x|^2 = |q - m|^2 - 2 (q (x - m) - m (x - m) - |x - m|^2 / 2), and the first term is that of all x.
        apart = vectors.astype(np.float64) - self.mean
        last = -(apart @ self.mean) - 0.5 * (apart**2).sum(axis=1)
        found: Float32Array = (np.column_stack([apart, last]) / self.scale).astype(np.float32)
        return found


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the vectors are.

    Attributes:
        least: The shortest but the zeros.
        most: The longest.
        zeros: How many are all zeros.
    """

    least: float
    most: float
    zeros: int

    @property
    def alike(self) -> bool:
        """Whether all have one length, to within what float16 rounds."""
        return self.most <= 1.01 * self.least


def look(metric: Metric, chunks: Callable[[], Iterable[NDArray[Any]]], queries: Float32Array) -> tuple[Space, Lengths]:
    """Find out what a space has to know of its vectors.

    Args:
        metric: The metric.
        chunks: The vectors, piece by piece.
        queries: Shape (q, dim).

    Returns:
        The space, and how long the vectors are.
    """
    rows, total, squares = 0, 0.0, 0.0
    least, most, zeros = np.inf, 0.0, 0
    for part in chunks():
        block = part.astype(np.float64)
        lengths = np.linalg.norm(block, axis=1)
        there = lengths[lengths > 0]
        zeros += len(lengths) - len(there)
        least, most = min(least, there.min(initial=np.inf)), max(most, lengths.max(initial=0.0))
        rows, total, squares = rows + len(block), total + block.sum(axis=0), squares + float((block**2).sum())
    mean = np.asarray(total) / max(rows, 1)
    asked = float(np.sqrt((queries.astype(np.float64) ** 2).sum(axis=1).mean())) or 1.0
    if metric == "cosine":
        scale = asked
    elif metric == "ip":
        scale = asked * float(np.sqrt(squares / max(rows, 1)))
    else:
        scale = squares / max(rows, 1) - float((mean**2).sum())
    return Space(metric, mean, scale if scale > 0 else 1.0), Lengths(float(least), float(most), zeros)
