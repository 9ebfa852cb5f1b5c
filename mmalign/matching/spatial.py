"""How well boxes bear out what a sentence says of their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError
from mmalign.types import Box

FloatArray = NDArray[np.float64]

# A relation that the boxes speak against is taken for a fault of the boxes this often.
_FLOOR = 0.1
# Of boxes that are much alike, nothing can be said.
_UNKNOWN = 0.5


def corners(boxes: Sequence[Box]) -> FloatArray:
    """Give the edges of boxes.

    Args:
        boxes: The boxes.

    Returns:
        Shape (r, 4), float64: left, top, right, bottom, in pixels.
    """
    return np.array([box.corners for box in boxes], np.float64).reshape(-1, 4)


def _areas(edges: FloatArray) -> FloatArray:
    return np.asarray((edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1]))


def _intersections(edges: FloatArray) -> FloatArray:
    low = np.maximum(edges[:, None, :2], edges[None, :, :2])
    high = np.minimum(edges[:, None, 2:], edges[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=-1))


def mutual_iou(boxes: Sequence[Box]) -> FloatArray:
    """Give how much boxes overlap one another.

    Args:
        boxes: The boxes, r of them.

    Returns:
        Intersection over union, shape (r, r), float64, 0 to 1.
    """
    edges = corners(boxes)
    common, areas = _intersections(edges), _areas(edges)
    return np.asarray(common / (areas[:, None] + areas[None, :] - common))


def _sigmoid(values: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(values, -50, 50))))


def _ahead(edges: FloatArray, axis: int) -> FloatArray:
    """How surely the first box comes before the second along an axis, by their centres, and not rather beside it."""
    centres = (edges[:, :2] + edges[:, 2:]) / 2
    sizes = edges[:, 2:] - edges[:, :2]
    along = centres[None, :, axis] - centres[:, None, axis]
    across = np.abs(centres[None, :, 1 - axis] - centres[:, None, 1 - axis])
    scale = (sizes[None, :, axis] + sizes[:, None, axis]) / 2
    # A thing that is far above and a little to the left is rather above.
    shifted = np.sign(along) * np.clip(np.abs(along) - across / 3, 0, None)
    return _sigmoid(4 * shifted / scale)


def _bigger(edges: FloatArray) -> FloatArray:
    logs = np.log(_areas(edges))
    return _sigmoid(3 * (logs[:, None] - logs[None, :]))


def _inside(edges: FloatArray) -> FloatArray:
    """Share of the first box that lies in the second, where the second is the larger."""
    return np.asarray(_intersections(edges) / _areas(edges)[:, None] * _bigger(edges).T)


def _near(edges: FloatArray) -> FloatArray:
    low = np.maximum(edges[:, None, :2], edges[None, :, :2])
    high = np.minimum(edges[:, None, 2:], edges[None, :, 2:])
    gaps = np.linalg.norm(np.clip(low - high, 0, None), axis=-1)
    sizes = np.sqrt(_areas(edges))
    return np.asarray(np.exp(-gaps / (sizes[:, None] + sizes[None, :])))


def _touching(edges: FloatArray) -> FloatArray:
    return np.asarray(_near(edges) ** 4)


def _on(edges: FloatArray) -> FloatArray:
    """Whether the first box rests on the second: side by side it shares its width, and its foot is not below it."""
    left = np.maximum(edges[:, None, 0], edges[None, :, 0])
    right = np.minimum(edges[:, None, 2], edges[None, :, 2])
    widths = edges[:, 2] - edges[:, 0]
    heights = edges[:, 3] - edges[:, 1]
    shared = np.clip(right - left, 0, None) / np.minimum(widths[:, None], widths[None, :])
    foot, top, bottom = edges[:, None, 3], edges[None, :, 1], edges[None, :, 3]
    slack = 0.15 * (heights[:, None] + heights[None, :])
    # From a little above the second box's upper edge down to its lower edge.
    off = np.maximum(np.clip(top - foot, 0, None), np.clip(foot - bottom, 0, None)) / slack
    return np.asarray(shared * np.exp(-off) * _ahead_plain(edges))


def _ahead_plain(edges: FloatArray) -> FloatArray:
    """How surely the first box's centre is the higher one."""
    middle = (edges[:, 1] + edges[:, 3]) / 2
    heights = edges[:, 3] - edges[:, 1]
    return _sigmoid(4 * (middle[None, :] - middle[:, None]) / ((heights[:, None] + heights[None, :]) / 2))


def _holding(edges: FloatArray) -> FloatArray:
    return np.asarray(_touching(edges) * _bigger(edges))


_PAIRS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "left of": lambda edges: _ahead(edges, 0),
    "right of": lambda edges: _ahead(edges, 0).T,
    "above": lambda edges: _ahead(edges, 1),
    "below": lambda edges: _ahead(edges, 1).T,
    "on": _on,
    "in": _inside,
    "near": _near,
    "holding": _holding,
    "wearing": lambda edges: _inside(edges).T,
    "bigger": _bigger,
    "smaller": lambda edges: _bigger(edges).T,
}
KINDS = (*_PAIRS, "between", "with")


def relation_strength(kind: str, boxes: Sequence[Box]) -> FloatArray:
    """Give how well each two boxes bear out a relation.

    Args:
        kind: One of `KINDS` for two things, so not `between` and not `with`.
        boxes: The boxes, r of them.

    Returns:
        Shape (r, r), float64, 0 to 1: at [j, l] for the subject in box j and the object in box l; 1 bears it out,
        0.5 says nothing, 0 speaks against it. A box with respect to itself is never more than 0.5.

    Raises:
        InputError: Another kind.
    """
    if kind not in _PAIRS:
        raise InputError(f"unknown relation {kind!r} of two things; there are: {', '.join(_PAIRS)}")
    strength = _PAIRS[kind](corners(boxes))
    np.fill_diagonal(strength, np.minimum(strength.diagonal(), _UNKNOWN))
    return strength


def relation_scores(strength: FloatArray) -> FloatArray:
    """Turn how well boxes bear something out into what that is worth.

    Args:
        strength: 0 to 1, any shape.

    Returns:
        The logarithm of how much likelier that is than not knowing, 0 at 0.5, between -1.6 and 0.7 nats.
    """
    return np.asarray(np.log(np.clip(strength, _FLOOR, 1.0) / _UNKNOWN))


def relation_weights(kind: str, boxes: Sequence[Box]) -> FloatArray | None:
    """Give what a relation is worth for each choice of boxes.

    Args:
        kind: One of `KINDS`.
        boxes: The boxes, r of them.

    Returns:
        Shape (ways, objects, r, r) as `Edge.weights`, float64, in nats; None for `with`, which says nothing of places.
        `between` has two objects, and is the best of four ways: the first to the left and the second to the right,
        the other way round, and both again from top to bottom.

    Raises:
        InputError: Another kind.
    """
    if kind == "with":
        return None
    if kind not in KINDS:
        raise InputError(f"unknown relation {kind!r}; there are: {', '.join(KINDS)}")
    if kind != "between":
        return relation_scores(relation_strength(kind, boxes))[None, None]
    sides = [relation_strength(side, boxes) for side in ("right of", "left of", "below", "above")]
    # Both halves must hold, so that their strengths multiply, and the 0.5 of not knowing is shared by the two.
    halves = [relation_scores(side) + np.log(_UNKNOWN) / 2 for side in sides]
    right, left, below, above = halves
    return np.array([[right, left], [left, right], [below, above], [above, below]])
