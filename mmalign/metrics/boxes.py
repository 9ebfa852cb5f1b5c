"""Grounding metrics: overlap of boxes, hits among the first k boxes, and pointing.

Boxes are rows of [x, y, width, height] in any unit, the same in both arguments. A phrase may have several true boxes;
it is found where any one of them is, or where their union is (`union_box`), which is another question.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import DimensionError, InputError
from mmalign.utils import Int64Array

Float64Array = NDArray[np.float64]

ENOUGH = 0.5
"""The overlap from which a box counts as found."""


def iou_matrix(boxes: ArrayLike, others: ArrayLike) -> Float64Array:
    """Intersection over union of every box with every other.

    Args:
        boxes: Array of shape (n, 4).
        others: Array of shape (m, 4).

    Returns:
        Array of shape (n, m), float64, from 0 to 1.

    Raises:
        DimensionError: Not of shape (n, 4).
        InputError: A number that is not finite, or a width or height that is not above 0.

    Source: the Jaccard index, as Everingham et al., The Pascal Visual Object Classes Challenge, 2010, use it.

    Example:
        >>> iou_matrix([[0, 0, 2, 2]], [[1, 0, 2, 2]]).round(3).tolist()
        [[0.333]]
    """
    first, second = as_boxes(boxes), as_boxes(others)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum((first[:, :2] + first[:, 2:])[:, None], (second[:, :2] + second[:, 2:])[None])
    both = np.prod(np.maximum(high - low, 0.0), axis=2)
    areas = np.prod(first[:, 2:], axis=1)[:, None] + np.prod(second[:, 2:], axis=1)[None]
    result: Float64Array = both / (areas - both)
    return result


def union_box(boxes: ArrayLike) -> Float64Array:
    """The smallest box that holds all boxes.

    Args:
        boxes: Array of shape (n, 4), at least one row.

    Returns:
        Array of shape (4,), float64.

    Raises:
        DimensionError: Not of shape (n, 4).
        InputError: No boxes, or as for `iou_matrix`.

    Example:
        >>> union_box([[0, 0, 1, 1], [2, 1, 1, 3]]).tolist()
        [0.0, 0.0, 3.0, 4.0]
    """
    found = as_boxes(boxes)
    if len(found) == 0:
        raise InputError("the union of no boxes is none; give at least one box")
    low = found[:, :2].min(axis=0)
    high = (found[:, :2] + found[:, 2:]).max(axis=0)
    return np.concatenate([low, high - low])


def first_hit(ranked: ArrayLike, truth: ArrayLike, *, iou: float = ENOUGH) -> int:
    """Rank of the first box that overlaps any true box enough.

    Args:
        ranked: Boxes that were answered, best first, shape (k, 4); k may be 0.
        truth: True boxes, shape (t, 4), at least one.
        iou: The overlap that is enough, above 0 and at most 1.

    Returns:
        From 1; 0 where none does.

    Raises:
        DimensionError: Not of shape (n, 4).
        InputError: No true box, an `iou` outside its range, or as for `iou_matrix`.

    Example:
        >>> first_hit([[5, 5, 1, 1], [0, 0, 2, 2]], [[0, 0, 2, 3]])
        2
    """
    if not 0.0 < iou <= 1.0:
        raise InputError(f"iou must be above 0 and at most 1, got {iou}")
    right = as_boxes(truth)
    if len(right) == 0:
        raise InputError("a phrase without a true box cannot be looked for; leave it out")
    hits = np.flatnonzero((iou_matrix(ranked, right) >= iou).any(axis=1))
    return int(hits[0]) + 1 if len(hits) else 0


def recall_of_ranks(ranks: ArrayLike, k: int) -> float:
    """R@k: the share of phrases with a hit among the first k boxes.

    Args:
        ranks: What `first_hit` gave for each phrase, shape (n,), 0 for none, at least one.
        k: How many boxes are looked at, at least 1.

    Returns:
        From 0 to 1.

    Raises:
        InputError: No ranks, a negative one, or `k` below 1.

    Source: the protocol of Plummer et al., Flickr30k Entities, 2015.

    Example:
        >>> recall_of_ranks([1, 0, 3, 6], 5)
        0.5
    """
    found: Int64Array = np.asarray(ranks, dtype=np.int64).reshape(-1)
    if len(found) == 0 or (found < 0).any():
        raise InputError(f"expected at least one rank, 0 or more each, got {found.tolist()[:8]}")
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    return float(np.mean((found >= 1) & (found <= k)))


def points_inside(point: ArrayLike, truth: ArrayLike) -> bool:
    """Whether a point lies in any true box, its edges included: the pointing game.

    Args:
        point: [x, y], shape (2,).
        truth: True boxes, shape (t, 4).

    Returns:
        True where it does.

    Raises:
        DimensionError: Not of those shapes.
        InputError: A number that is not finite, or as for `iou_matrix`.

    Source: Zhang et al., Top-down Neural Attention by Excitation Backprop, 2016, without their margin of 15 pixels.

    Example:
        >>> points_inside([3, 3], [[0, 0, 2, 2], [2, 2, 2, 2]])
        True
    """
    place = np.asarray(point, dtype=np.float64)
    if place.shape != (2,):
        raise DimensionError(f"a point is [x, y], got an array of shape {place.shape}")
    if not np.isfinite(place).all():
        raise InputError(f"a point must be finite, got {place.tolist()}")
    right = as_boxes(truth)
    inside = (place >= right[:, :2]) & (place <= right[:, :2] + right[:, 2:])
    return bool(inside.all(axis=1).any())


def heat_peak(heat: ArrayLike, width: float, height: float) -> tuple[float, float]:
    """Where a heat map is highest: the middle of its best cell, the first one of equals.

    Args:
        heat: Array of shape (h, w), row 0 at the top, the cells dividing the picture evenly.
        width: Of the picture.
        height: Of the picture.

    Returns:
        (x, y) in the unit of `width` and `height`.

    Raises:
        DimensionError: Not 2-d, or without cells.
        InputError: A NaN, or a size that is not above 0.

    Example:
        >>> heat_peak([[0, 1], [0, 0]], 100, 50)
        (75.0, 12.5)
    """
    cells = np.asarray(heat, dtype=np.float64)
    if cells.ndim != 2 or cells.size == 0:
        raise DimensionError(f"a heat map has shape (h, w), at least one cell, got {cells.shape}")
    if np.isnan(cells).any():
        raise InputError("a heat map must not hold NaN")
    if not (width > 0 and height > 0):
        raise InputError(f"a picture's width and height are above 0, got {width} x {height}")
    row, column = divmod(int(np.argmax(cells)), cells.shape[1])
    return (column + 0.5) * width / cells.shape[1], (row + 0.5) * height / cells.shape[0]


def as_boxes(boxes: ArrayLike) -> Float64Array:
    """Return boxes as a finite matrix, or say what is wrong with them.

    Args:
        boxes: Rows of [x, y, width, height], shape (n, 4); an empty list is no boxes.

    Returns:
        Array of shape (n, 4), float64.

    Raises:
        DimensionError: Of another shape.
        InputError: A number that is not finite, or a width or height that is not above 0.
    """
    found = np.asarray(boxes, dtype=np.float64)
    if found.size == 0 and found.ndim <= 2:
        return np.zeros((0, 4))
    if found.ndim != 2 or found.shape[1] != 4:
        raise DimensionError(f"boxes are rows of [x, y, width, height], shape (n, 4), got {found.shape}")
    if not np.isfinite(found).all() or (found[:, 2:] <= 0).any():
        bad = found[~np.isfinite(found).all(axis=1) | (found[:, 2:] <= 0).any(axis=1)][0]
        raise InputError(f"a box is finite, with a width and height above 0, got {bad.tolist()}")
    return found
