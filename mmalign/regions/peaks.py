"""Regions around the peaks of a phrase's similarity map."""

from __future__ import annotations

import numpy as np

from mmalign.errors import InputError
from mmalign.types import Box, Region
from mmalign.utils import Float32Array

LEVELS = (0.3, 0.5, 0.7)
"""Heights between a map's median and its maximum at which the regions are cut."""


def peak_regions(
    heat: Float32Array,
    width: float,
    height: float,
    *,
    levels: tuple[float, ...] = LEVELS,
    peaks: int = 2,
) -> tuple[Region, ...]:
    """Cut regions out of similarity maps: around each peak, the cells that are nearly as high and hang together.

    Args:
        heat: Array of shape (h, w), or (p, h, w) for p phrases: similarity of each cell of a grid over the picture;
            row 0 is the top.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        levels: Where to cut, each between 0 (the map's median) and 1 (the peak); a box for each.
        peaks: How many peaks of each map, at least 1. A next peak lies outside the widest cut of those before.

    Returns:
        Regions of source `peak`, without copies, for each map the highest peak first; each with the height of its
        peak, 0 for the median of its map and 1 for the maximum. A map that is the same everywhere gives none.

    Raises:
        InputError: Another shape, a value that is not finite, a size of 0 or less, a level outside 0 to 1, or `peaks`
            below 1.
    """
    from scipy.ndimage import label

    maps = np.asarray(heat, np.float32)
    maps = maps[None] if maps.ndim == 2 else maps
    if maps.ndim != 3 or 0 in maps.shape[1:]:
        raise InputError(f"a similarity map has shape (h, w) or (p, h, w), got {np.shape(heat)}")
    if not np.isfinite(maps).all():
        raise InputError("the similarity map holds NaN or infinity; were the features of the picture finite?")
    if not (np.isfinite(width) and np.isfinite(height) and width > 0 and height > 0):
        raise InputError(f"the picture's width and height must be above 0 pixels, got {width} x {height}")
    if peaks < 1 or not levels or not all(0 < level < 1 for level in levels):
        raise InputError(f"peaks must be at least 1 and levels lie between 0 and 1, got {peaks} and {levels}")
    found: dict[Box, Region] = {}
    for map_ in maps:
        low, high = float(np.median(map_)), float(map_.max())
        if high <= low:
            continue
        scaled = (map_ - low) / (high - low)
        left = scaled.copy()
        for _ in range(peaks):
            top = float(left.max())
            place = np.unravel_index(int(left.argmax()), left.shape)
            if top <= max(levels) / 2:
                break
            for level in sorted(levels):
                parts, _ = label(scaled >= level * top)
                part = parts == parts[place]
                box = _around(part, width, height)
                found.setdefault(box, Region(box, "peak", min(1.0, top)))
                if level == min(levels):
                    left[part] = -1.0
    return tuple(found.values())


def _around(part: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], width: float, height: float) -> Box:
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    down, across = height / part.shape[0], width / part.shape[1]
    top, left = float(rows[0]) * down, float(columns[0]) * across
    return Box(left, top, float(columns[-1] + 1) * across - left, float(rows[-1] + 1) * down - top)
