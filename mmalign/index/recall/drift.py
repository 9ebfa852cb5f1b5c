"""Whether later vectors are still like those that an index was measured with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmalign.errors import IndexFileError
from mmalign.utils import as_matrix

# How far the new mean may lie from the old one, and by which factor the spread may differ, before it is told. A fifth
# of a standard deviation is what one more kind of picture among five does.
_SHIFT, _SPREAD = 0.2, 1.25
# The squared distance of two means of the same data is this many times its expectation only by rare chance.
_CHANCE = 3.0


@dataclass(frozen=True, slots=True)
class Drift:
    """How other vectors differ from those that were described.

    Attributes:
        shift: Distance of the means in standard deviations (the root of the trace of the covariance), what chance
            explains taken off.
        spread: Standard deviation of the other vectors over that of those described.
        drifted: Whether the difference is one to act upon.
    """

    shift: float
    spread: float
    drifted: bool


def describe_vectors(vectors: ArrayLike) -> dict[str, Any]:
    """Sum up a sample of vectors.

    Args:
        vectors: Array-like of shape (n, dim), a random sample.

    Returns:
        JSON-ready values that `compare_vectors` understands: mean, standard deviation and n.
    """
    matrix = as_matrix(vectors).astype(np.float64)
    mean = matrix.mean(axis=0) if len(matrix) else matrix.sum(axis=0)
    spread = float(np.sqrt(((matrix - mean) ** 2).sum(axis=1).mean())) if len(matrix) else 0.0
    # Six digits, and not six places: vectors may be short.
    return {"mean": [float(f"{value:.6g}") for value in mean], "spread": spread, "sample": len(matrix)}


def compare_vectors(described: Mapping[str, Any], vectors: ArrayLike) -> Drift:
    """Compare other vectors with a description.

    The distance of the means is told where it is both large and more than the two samples' own errors explain.

    Args:
        described: What `describe_vectors` gave.
        vectors: Array-like of shape (m, dim), a random sample.

    Returns:
        The difference; none where one of the samples has fewer than 30 vectors.

    Raises:
        IndexFileError: The description is damaged.
        DimensionError: The width differs.
    """
    try:
        mean = np.asarray(described["mean"], dtype=np.float64)
        spread, sample = float(described["spread"]), int(described["sample"])
    except (KeyError, TypeError, ValueError) as error:
        raise IndexFileError(f"what drift is compared with is damaged ({error!r}); build the index again") from error
    matrix = as_matrix(vectors, dim=len(mean)).astype(np.float64)
    if min(sample, len(matrix)) < 30 or spread <= 0:
        return Drift(0.0, 1.0, drifted=False)
    other = matrix.mean(axis=0)
    ratio = float(np.sqrt(((matrix - other) ** 2).sum(axis=1).mean())) / spread
    squared = float(((other - mean) ** 2).sum()) / spread**2
    chance = 1 / sample + max(ratio, 1.0) ** 2 / len(matrix)
    shift = float(np.sqrt(max(0.0, squared - chance)))
    moved = shift > _SHIFT and squared > _CHANCE * chance
    return Drift(shift, ratio, drifted=moved or not 1 / _SPREAD < ratio < _SPREAD)
