"""Boxes around the parts of a picture: segments of even colour, and what they make when they are merged.

scikit-image is imported when a picture is segmented, not before.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import MissingExtraError
from mmalign.utils import Float32Array

Space: TypeAlias = Literal["rgb", "lab"]
"""The colours in which neighbouring pixels are compared."""

SEGMENTATIONS: tuple[tuple[Space, float], ...] = (("rgb", 50.0), ("rgb", 150.0), ("lab", 50.0), ("lab", 150.0))
"""The hierarchies: their colours and Felzenszwalb's scale; each finds what the others join too early."""

# Blur before the segmentation and the least segment, in pixels of the reduced picture.
_SIGMA, _LEAST = 0.8, 20
_BINS = 25


@dataclass(frozen=True, slots=True)
class Parts:
    """The boxes of one or several hierarchies.

    Attributes:
        corners: Array of shape (n, 4), float32: left, top, right and bottom as shares of the picture's sides.
        fill: Array of shape (n,), float32: the share of its box that a part takes, 0 to 1.
        hierarchy: Array of shape (n,), int64: which hierarchy it comes from.
    """

    corners: Float32Array
    fill: Float32Array
    hierarchy: NDArray[np.int64]


def segment(picture: NDArray[np.uint8]) -> Parts:
    """Give the boxes of all parts of all hierarchies of a picture, whole picture included.

    Args:
        picture: Array of shape (h, w, 3), uint8, RGB; about 200 pixels wide for the settings here.

    Returns:
        The parts, in the order of merging.

    Raises:
        MissingExtraError: scikit-image is not installed.

    Source: Felzenszwalb and Huttenlocher, Efficient Graph-Based Image Segmentation, 2004; the merging is that of
    Uijlings et al., Selective Search for Object Recognition, 2013, without texture.
    """
    try:
        from skimage.color import rgb2lab
        from skimage.segmentation import felzenszwalb
    except ImportError as error:
        raise MissingExtraError("proposing regions by segmentation", package="scikit-image", extra="regions") from error
    height, width = picture.shape[:2]
    colours = {"rgb": picture / 255.0, "lab": rgb2lab(picture) / 100.0}
    found = []
    for number, (space, scale) in enumerate(SEGMENTATIONS):
        labels = felzenszwalb(colours[space], scale=scale, sigma=_SIGMA, min_size=_LEAST)
        corners, sizes = _merge(labels, _binned(colours[space]))
        areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
        found.append((corners / [width, height, width, height], sizes / areas, np.full(len(sizes), number)))
    boxes, fill, hierarchy = (np.concatenate(column) for column in zip(*found, strict=True))
    return Parts(boxes.astype(np.float32), fill.astype(np.float32), hierarchy)


def _binned(colours: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bin of each channel of each pixel, the channels one after another; bins span what occurs."""
    low, high = colours.min(axis=(0, 1)), colours.max(axis=(0, 1))
    scaled = (colours - low) / np.maximum(high - low, 1e-9) * _BINS
    bins: NDArray[np.int64] = np.minimum(scaled.astype(np.int64), _BINS - 1)
    return bins + _BINS * np.arange(3)


def _merge(labels: NDArray[np.int64], bins: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Merge the two most alike neighbours until one part is left.

    Args:
        labels: Array of shape (h, w): the segment of each pixel, from 0 without gaps.
        bins: Array of shape (h, w, 3): what `_binned` gave.

    Returns:
        Corners in pixels, shape (n, 4), and sizes in pixels, shape (n,), of the segments and of all that was merged.
    """
    flat, pixels, least = labels.ravel(), labels.size, int(labels.max()) + 1
    columns = (flat[:, None] * (3 * _BINS) + bins.reshape(-1, 3)).ravel()
    histograms = np.bincount(columns, minlength=least * 3 * _BINS).reshape(least, -1).astype(np.float64)
    sizes = [float(size) for size in np.bincount(flat)]
    shares = list(histograms / histograms.sum(axis=1, keepdims=True))
    boxes = _boxes(labels, least)
    neighbours = _neighbours(labels, least)

    def alike(one: int, other: int) -> float:
        """Colour in common, both small, and the box of both filled: 0 to 3."""
        left, top, right, bottom = _union(boxes[one], boxes[other])
        both = sizes[one] + sizes[other]
        colour = float(np.minimum(shares[one], shares[other]).sum())
        return colour + (1 - both / pixels) + (1 - ((right - left) * (bottom - top) - both) / pixels)

    queue = [(-alike(one, other), one, other) for one in range(least) for other in neighbours[one] if one < other]
    heapq.heapify(queue)
    alive = [True] * least
    while queue:
        _, one, other = heapq.heappop(queue)
        if not (alive[one] and alive[other]):
            continue
        merged, size = len(sizes), sizes[one] + sizes[other]
        shares.append((shares[one] * sizes[one] + shares[other] * sizes[other]) / size)
        boxes.append(_union(boxes[one], boxes[other]))
        sizes.append(size)
        alive[one] = alive[other] = False
        alive.append(True)
        around = (neighbours[one] | neighbours[other]) - {one, other}
        neighbours.append(around)
        for near in sorted(around):
            neighbours[near] -= {one, other}
            neighbours[near].add(merged)
            heapq.heappush(queue, (-alike(merged, near), near, merged))
    return np.array(boxes, np.float64), np.array(sizes)


def _boxes(labels: NDArray[np.int64], count: int) -> list[tuple[int, int, int, int]]:
    from scipy.ndimage import find_objects

    slices = find_objects(labels + 1, max_label=count)
    return [(across.start, down.start, across.stop, down.stop) for down, across in slices]


def _neighbours(labels: NDArray[np.int64], count: int) -> list[set[int]]:
    near: list[set[int]] = [set() for _ in range(count)]
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        edge = one != other
        for left, right in np.unique(np.stack([one[edge], other[edge]], axis=1), axis=0).tolist():
            near[left].add(right)
            near[right].add(left)
    return near


def _union(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])
