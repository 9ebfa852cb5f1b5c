"""Dense features of a convolutional encoder: an embedding for each cell of a grid laid over the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from PIL import Image

from mmalign.encoders.lite.adapter import Adapter
from mmalign.encoders.lite.efficientnet import INPUT_SIZE, EfficientNetLite2, preprocess
from mmalign.errors import InputError
from mmalign.types import Box
from mmalign.utils import Float32Array, l2_normalize

if TYPE_CHECKING:
    import torch

Resolution: TypeAlias = Literal["fine", "coarse"]
"""`fine` is 18 x 18 cells, of a picture enlarged to twice the side, at about four times the work; `coarse` is 9 x 9,
too coarse to point at things (docs/decisions.md)."""

CONTEXT = 8.0
"""How much of the whole picture is in each cell, by default. The length of a cell's projection says how much is to be
seen there, and normalising it away lets bland cells win; beside a large common part it keeps its say."""

_SIDES = {"fine": 2 * INPUT_SIZE, "coarse": INPUT_SIZE}
# Deviation of the smoothing, as a share of the picture's side: one cell of the fine grid.
_SMOOTHING = 1 / 18


def encode_cells(
    model: EfficientNetLite2, adapter: Adapter, image: Image.Image, *, resolution: Resolution, context: float
) -> Float32Array:
    """Embed the places of a picture in the space of whole pictures and texts.

    Each cell of the last map, with the means of the earlier maps over its place, goes through the projection of the
    whole picture. What is kept of a cell is how it departs from the mean over all cells, smoothed over its neighbours
    (nothing departs beyond the edges), plus `context` times that mean.

    Args:
        model: The picture model.
        adapter: Its projection.
        image: A picture of mode RGB.
        resolution: `fine` for 18 x 18 cells, `coarse` for 9 x 9.
        context: Weight of the mean over the cells, at least 0. With 0 only the departures are left; the larger it
            is, the closer all rows lie to the whole picture's, and the better the highest cosine points at what a
            text names.

    Returns:
        Array of shape (h, w, dim), float32, each row of length 1; row 0 is the top of the picture.

    Raises:
        InputError: Another resolution, or a context below 0 or not finite.

    Source: class activation maps, Zhou et al., Learning Deep Features for Discriminative Localization, 2016: with a
    mean over places before a linear head, the head applied to each place adds up to the whole. The mean is added as
    a residual; mmalign's own measurements chose its weight and the smoothing (docs/decisions.md).
    """
    if resolution not in get_args(Resolution):
        raise InputError(f"resolution must be one of {', '.join(get_args(Resolution))}, got {resolution!r}")
    if not (np.isfinite(context) and context >= 0):
        raise InputError(f"context must be at least 0 and finite, got {context}")
    features = _cell_features(model, preprocess(image, size=_SIDES[resolution]))
    height, width, channels = features.shape
    cells = adapter.project(features.reshape(-1, channels)).reshape(height, width, -1)
    mean = cells.mean(axis=(0, 1))
    departures = _smooth(_smooth(cells - mean).transpose(1, 0, 2)).transpose(1, 0, 2)
    mixed: Float32Array = departures + np.float32(context) * mean
    return l2_normalize(mixed.reshape(height * width, -1)).reshape(height, width, -1)


def encode_boxes(
    model: EfficientNetLite2, adapter: Adapter, image: Image.Image, boxes: Sequence[Box], *, resolution: Resolution
) -> Float32Array:
    """Embed regions of a picture in the space of whole pictures and texts, all in one pass.

    The mean of the maps over a region goes through the projection of the whole picture, as if the region were one.

    Args:
        model: The picture model.
        adapter: Its projection.
        image: A picture of mode RGB.
        boxes: r regions in pixels, inside the picture.
        resolution: `fine` for means over 18 x 18 cells, `coarse` for 9 x 9.

    Returns:
        Array of shape (r, dim), float32, each row of length 1.

    Raises:
        InputError: Another resolution.

    Source: RoI pooling, Girshick, Fast R-CNN, 2015, with the mean in the place of the maximum.
    """
    if resolution not in get_args(Resolution):
        raise InputError(f"resolution must be one of {', '.join(get_args(Resolution))}, got {resolution!r}")
    features = _cell_features(model, preprocess(image, size=_SIDES[resolution]))
    weights = cell_weights(boxes, image.size, features.shape[:2])
    return adapter(weights @ features.reshape(weights.shape[1], -1))


def cell_weights(boxes: Sequence[Box], size: tuple[int, int], grid: tuple[int, ...]) -> Float32Array:
    """Give how much of each region lies in each cell of a grid laid over the picture.

    Args:
        boxes: r regions in pixels, inside the picture.
        size: Width and height of the picture in pixels.
        grid: Rows and columns of the grid.

    Returns:
        Array of shape (r, rows * columns), float32, each row adding up to 1.

    Example:
        >>> cell_weights([Box(0, 0, 3, 2)], (4, 2), (1, 2)).tolist()
        [[0.6666666865348816, 0.3333333432674408]]
    """
    (width, height), (rows, columns) = size, grid
    corners = np.array([box.corners for box in boxes], np.float64).reshape(-1, 4)
    across = _shares(corners[:, 0] / width, corners[:, 2] / width, columns)
    down = _shares(corners[:, 1] / height, corners[:, 3] / height, rows)
    result: Float32Array = (down[:, :, None] * across[:, None, :]).reshape(-1, rows * columns).astype(np.float32)
    return result


def _cell_features(model: EfficientNetLite2, picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Float32Array:
    import torch

    from mmalign.encoders.device import autocast, mixed_dtype

    with torch.inference_mode(), autocast(model.device, mixed_dtype(model.device, "auto")):
        cells: torch.Tensor = model.cell_features(model.to_input([picture]))
    result: Float32Array = cells[0].cpu().numpy()
    return result


def _smooth(cells: Float32Array) -> Float32Array:
    """Blur along the first axis with a Gaussian, zeros beyond the edges."""
    places = np.arange(len(cells), dtype=np.float32)
    deviation = _SMOOTHING * len(cells)
    reach = np.arange(-len(cells), len(cells) + 1) / deviation
    weights = np.exp(-(((places[:, None] - places) / deviation) ** 2) / 2) / np.exp(-(reach**2) / 2).sum()
    result: Float32Array = np.tensordot(weights.astype(np.float32), cells, axes=1)
    return result


def _shares(start: np.ndarray[Any, Any], stop: np.ndarray[Any, Any], cells: int) -> np.ndarray[Any, Any]:
    """How much of each stretch from `start` to `stop`, both 0 to 1, lies in each of the equal cells."""
    edges = np.arange(cells + 1) / cells
    common = np.minimum(stop[:, None], edges[1:]) - np.maximum(start[:, None], edges[:-1])
    common = np.maximum(common, 0.0)
    # The sum is the stretch itself but for rounding; dividing by it makes the shares add up to 1.
    shares: np.ndarray[Any, Any] = common / common.sum(axis=1, keepdims=True)
    return shares
