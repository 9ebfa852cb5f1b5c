"""What each cell of a picture should say of a phrase: how much of it is there, and which box it should draw."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmalign.utils import Float32Array


def coverage(corners: Float32Array, height: int, width: int) -> Float32Array:
    """The share of each cell that any of a phrase's boxes covers, the largest over the boxes.

    Args:
        corners: Boxes as left, top, right and bottom, shares of the picture, shape (t, 4).
        height: Rows of cells.
        width: Columns of cells.

    Returns:
        Array of shape (h, w), float32, 0 to 1.
    """
    rows = _shares(corners[:, 1], corners[:, 3], height)
    columns = _shares(corners[:, 0], corners[:, 2], width)
    result: Float32Array = (rows[:, :, None] * columns[:, None, :]).max(axis=0)
    return result


def drawn_boxes(corners: Float32Array, height: int, width: int) -> NDArray[np.int64]:
    """Which of a phrase's boxes each cell should draw.

    Args:
        corners: Boxes as for `coverage`, at least one.
        height: Rows of cells.
        width: Columns of cells.

    Returns:
        Array of shape (h, w), int64: the smallest box that holds the middle of the cell, -1 where none does. A box
        that holds no cell's middle, or loses all its cells to smaller ones, is drawn by the cell that its own lies in.
    """
    y, x = (np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width
    left, top, right, bottom = corners.T
    inside = ((y >= top[:, None]) & (y <= bottom[:, None]))[:, :, None] & (
        (x >= left[:, None]) & (x <= right[:, None])
    )[:, None, :]
    areas = (right - left) * (bottom - top)
    result = np.full((height, width), -1, np.int64)
    for index in np.argsort(-areas, kind="stable"):
        result[inside[index]] = index
    for index in range(len(corners)):
        if not (result == index).any():
            row = min(height - 1, max(0, int((top[index] + bottom[index]) / 2 * height)))
            column = min(width - 1, max(0, int((left[index] + right[index]) / 2 * width)))
            result[row, column] = index
    return result


def _shares(low: Float32Array, high: Float32Array, cells: int) -> Float32Array:
    edges = np.arange(cells + 1) / cells
    both = np.minimum(high[:, None], edges[1:]) - np.maximum(low[:, None], edges[:-1])
    result: Float32Array = np.clip(both * cells, 0, 1).astype(np.float32)
    return result
