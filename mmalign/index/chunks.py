"""Vectors in chunks, so that they need never be in memory together, and a random sample of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.utils import Float32Array, Int64Array

Chunks: TypeAlias = Callable[[], Iterable[tuple[Int64Array, NDArray[Any]]]]
"""Called once for each pass; yields `(ids, vectors)`, int64 of shape (n,) and float of shape (n, dim)."""


def sample_vectors(chunks: Chunks, *, rows: int, dim: int, size: int, seed: int) -> Float32Array:
    """Draw vectors uniformly without replacement, in one pass.

    Args:
        chunks: Called once; see `Chunks`.
        rows: How many vectors there are.
        dim: Their width.
        size: How many to draw, at most `rows`.
        seed: Of the draw.

    Returns:
        Array of shape (size, dim), float32.
    """
    chosen = np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))
    sample = np.empty((size, dim), np.float32)
    start = filled = 0
    for ids, vectors in chunks():
        stop = int(np.searchsorted(chosen, start + len(ids)))
        sample[filled:stop] = vectors[chosen[filled:stop] - start]
        start, filled = start + len(ids), stop
    return sample[:filled]
