"""Regions of a picture that a phrase may be about, from pixels alone: no network, the same every time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.errors import InputError
from mmalign.regions.segmentation import segment
from mmalign.types import Box, Region
from mmalign.utils import Float32Array

MAX_PROPOSALS = 100
"""Regions of a picture, by default (docs/decisions.md)."""

# The longer side of the picture that is segmented. Finer costs more and splits into parts that nobody speaks of.
_SIDE = 200
# How much of the belief about where things are comes from the picture, beside where things usually are.
_BELIEF = 0.7
# Hypotheses that are kept for the choice, which takes time with their square.
_HYPOTHESES = 600
# Least area of a part, as a share of the picture.
_LEAST = 0.003
# Boxes that overlap by this much count as found, within about this much.
_OVERLAP, _SOFTNESS = 0.5, 0.05


def propose_regions(
    picture: NDArray[np.uint8], *, most: int = MAX_PROPOSALS, segments: bool = True
) -> tuple[Region, ...]:
    """Propose regions, so chosen that whatever a person may speak of is likely to overlap with one of them.

    Hypotheses of where something may be are the parts of the picture (`segment`), each believed by how often things
    have such a box, and the usual boxes by themselves. The regions are chosen among them one after another, each
    the one that adds most to the belief that is overlapped by half: near copies add nothing and are left out.

    Args:
        picture: Array of shape (h, w, 3), uint8, RGB.
        most: How many regions at most, at least 1.
        segments: False to leave the picture itself out of account: the usual boxes alone, for which scikit-image is
            not needed.

    Returns:
        Regions in pixels of the picture, the most useful first, each with the share of the belief that it added as
        its score. Their source is `segment` or `usual`.

    Raises:
        InputError: Not such a picture, or `most` below 1.
        MissingExtraError: scikit-image is not installed and segments were asked for.

    Source: the greedy choice is that of maximum coverage (Nemhauser, Wolsey and Fisher, 1978); usual boxes were chosen
    in the same way among the phrase boxes of the training pictures (benchmarks/region_proposals.py).
    """
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        shape = getattr(picture, "shape", type(picture).__name__)
        raise InputError(
            f"a picture is an array of shape (height, width, 3), uint8, got {shape}, {getattr(picture, 'dtype', '')}; "
            "np.asarray(image.convert('RGB')) gives one"
        )
    if 0 in picture.shape:
        raise InputError(f"the picture has no pixels: its shape is {picture.shape}")
    if most < 1:
        raise InputError(f"most must be at least 1, got {most}")
    height, width = picture.shape[:2]
    corners, belief = usual_boxes()
    usual = len(corners)
    if segments:
        parts, believed = _believed_parts(picture)
        corners = np.concatenate([corners, parts])
        belief = np.concatenate([(1 - _BELIEF) * belief, _BELIEF * believed]) if len(parts) else belief
    chosen, gains = _cover(corners, belief, most)
    regions = []
    for index, gain in zip(chosen, gains, strict=True):
        left, top, right, bottom = (float(edge) for edge in corners[index])
        box = Box(left * width, top * height, (right - left) * width, (bottom - top) * height)
        regions.append(Region(box, "usual" if index < usual else "segment", min(1.0, max(0.0, float(gain)))))
    return tuple(regions)


@lru_cache(maxsize=1)
def usual_boxes() -> tuple[Float32Array, Float32Array]:
    """Where things that people speak of usually are.

    Returns:
        Corners of n boxes, shape (n, 4), float32: left, top, right, bottom as shares of the picture's sides; and the
        share of things that each is the nearest to, shape (n,), float32, adding up to 1.
    """
    rows = json.loads(Path(__file__).with_name("usual_boxes.json").read_text(encoding="utf-8"))["boxes"]
    table = np.array(rows, np.float32)
    return table[:, :4], table[:, 4] / table[:, 4].sum()


def box_prior(boxes: Sequence[Box], width: float, height: float) -> Float32Array:
    """Say how often things that people speak of have about these boxes.

    Args:
        boxes: r boxes in pixels.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.

    Returns:
        Array of shape (r,), float32: shares of things, 0 to 1.
    """
    sides = np.array([width, height, width, height], np.float32)
    corners = np.array([box.corners for box in boxes], np.float32).reshape(-1, 4) / sides
    usual, shares = usual_boxes()
    result: Float32Array = nearness(box_iou(corners, usual)) @ shares
    return result


def box_iou(boxes: Float32Array, others: Float32Array) -> Float32Array:
    """Give the intersection over union of boxes.

    Args:
        boxes: Array of shape (n, 4): left, top, right, bottom.
        others: Array of shape (m, 4), likewise.

    Returns:
        Array of shape (n, m), float32, 0 to 1.
    """
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(boxes[:, None, :2], others[None, :, :2])
    common = np.maximum(sides, 0).prod(axis=2)
    areas, other_areas = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others))
    result: Float32Array = (common / (areas[:, None] + other_areas - common)).astype(np.float32)
    return result


def nearness(overlap: Float32Array) -> Float32Array:
    """Say how far boxes may be taken for the same: soft, so that closer is better.

    Args:
        overlap: Intersections over unions, 0 to 1.

    Returns:
        Array of the same shape, float32: 1/2 at half an overlap, about 0 below and about 1 above.
    """
    result: Float32Array = (1 / (1 + np.exp((_OVERLAP - overlap) / _SOFTNESS))).astype(np.float32)
    return result


def _believed_parts(picture: NDArray[np.uint8]) -> tuple[Float32Array, Float32Array]:
    """The parts' boxes without copies, and how much each is believed, adding up to 1."""
    height, width = picture.shape[:2]
    scale = _SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    reduced = Image.fromarray(picture).resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
    parts = segment(np.asarray(reduced))
    corners = parts.corners
    large = (corners[:, 2:] - corners[:, :2]).prod(axis=1) >= _LEAST
    _, first = np.unique(np.round(corners[large] * 40), axis=0, return_index=True)
    boxes = corners[large][np.sort(first)]
    # The square root: a part is worth a look also where things seldom are.
    belief = np.sqrt(box_prior([Box(x, y, right - x, bottom - y) for x, y, right, bottom in boxes.tolist()], 1, 1))
    return boxes, belief / belief.sum()


def _cover(corners: Float32Array, belief: Float32Array, most: int) -> tuple[list[int], list[float]]:
    """Choose boxes one by one, each the one that adds most belief, with what each added."""
    kept = np.argsort(-belief, kind="stable")[:_HYPOTHESES]
    worth = nearness(box_iou(corners[kept], corners[kept])) * belief[kept].astype(np.float32)
    covered = np.zeros(len(kept), np.float32)
    chosen: list[int] = []
    gains: list[float] = []
    for _ in range(min(most, len(kept))):
        added = np.maximum(worth - covered, 0).sum(axis=1)
        added[chosen] = -1.0
        best = int(added.argmax())
        chosen.append(best)
        gains.append(float(added[best]))
        covered = np.maximum(covered, worth[best])
    return [int(kept[index]) for index in chosen], gains
