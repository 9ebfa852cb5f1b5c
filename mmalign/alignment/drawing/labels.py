"""Where to write labels in a picture so that none covers another: geometry alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PlacedLabels = NDArray[np.float64]


class Rectangle(NamedTuple):
    """Left, top, right and bottom edge in pixels; right and bottom are exclusive."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def area(self) -> float:
        """In square pixels; 0 where it is empty."""
        return max(self.right - self.left, 0.0) * max(self.bottom - self.top, 0.0)

    def common(self, other: Rectangle) -> float:
        """Area of the part that both cover, in square pixels."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(down, 0.0)

    def distance(self, other: Rectangle) -> float:
        """Between the nearest points of both, in pixels; 0 where they touch."""
        across = max(self.left - other.right, other.left - self.right, 0.0)
        down = max(self.top - other.bottom, other.top - self.bottom, 0.0)
        return float((across**2 + down**2) ** 0.5)


@dataclass(frozen=True, slots=True)
class LabelRequest:
    """A label that wants a place.

    Attributes:
        box: What it is about.
        sizes: Widths and heights that it can have, the best first: a long text, a short one.
    """

    box: Rectangle
    sizes: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class LabelPlacement:
    """A label's place.

    Attributes:
        place: Where it is written.
        size: Which of its sizes was taken.
        far: Whether it lies so far from its box that a line must join them.
    """

    place: Rectangle
    size: int
    far: bool


# What it costs to cover the inside of another thing's box, and of its own, in shares of the label; and a pixel away.
_COVERS_OTHER, _COVERS_OWN, _AWAY = 1.0, 0.35, 0.004
# What it costs to be written shorter.
_SHORTER = 1.2
_STEPS = 9


def place_labels(
    wanted: Sequence[LabelRequest], width: float, height: float, *, gap: float = 2.0
) -> list[LabelPlacement | None]:
    """Find places for labels beside their boxes: none covers another, all lie in the picture.

    Labels of small boxes choose first: large boxes have more room along their edges. Each takes the cheapest free
    place: it covers little of other things and is near to its own. Where there is none along the edges of its box,
    the whole picture is searched, and a line must join the two. Where not all find one, all are written short.

    Args:
        wanted: The labels.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        gap: Least distance of two labels, in pixels.

    Returns:
        For each label its place, or None where the picture has no free place for its smallest size.

    Source: the greedy point-feature labelling of Christensen, Marks and Shieber, 1995, with boxes for points.
    """
    placed = _place(wanted, width, height, gap, short=False)
    if None not in placed:
        return placed
    shorter = _place(wanted, width, height, gap, short=True)
    return shorter if shorter.count(None) < placed.count(None) else placed


def _place(
    wanted: Sequence[LabelRequest], width: float, height: float, gap: float, *, short: bool
) -> list[LabelPlacement | None]:
    placed: list[LabelPlacement | None] = [None] * len(wanted)
    taken = np.zeros((0, 4))
    boxes = np.array([each.box for each in wanted], float).reshape(-1, 4)
    for index in sorted(range(len(wanted)), key=lambda index: (wanted[index].box.area, index)):
        box, sizes = wanted[index].box, wanted[index].sizes
        others = boxes[(boxes != boxes[index]).any(axis=1) & (_areas(boxes) < box.area * 4)]
        for search in (_beside, _anywhere):
            best = np.inf
            for number, size in list(enumerate(sizes))[-1 if short else 0 :]:
                places = _inside(search(box, size, width, height), size, width, height)
                grown = places + np.array([-gap, -gap, gap, gap])
                places = places[~(_common(grown, taken) > 0).any(axis=1)]
                if not len(places):
                    continue
                costs = _costs(places, boxes[index], others) + number * _SHORTER
                cheapest = int(costs.argmin())
                if costs[cheapest] < best:
                    best = costs[cheapest]
                    place = Rectangle(*map(float, places[cheapest]))
                    placed[index] = LabelPlacement(place, number, place.distance(box) > size[1])
            found = placed[index]
            if found is not None:
                taken = np.concatenate([taken, [found.place]])
                break
    return placed


def _areas(places: PlacedLabels) -> PlacedLabels:
    result: PlacedLabels = np.clip(places[:, 2:] - places[:, :2], 0, None).prod(axis=1)
    return result


def _common(places: PlacedLabels, others: PlacedLabels) -> PlacedLabels:
    """Areas that are covered by both, shape (n, m)."""
    low = np.maximum(places[:, None, :2], others[None, :, :2])
    high = np.minimum(places[:, None, 2:], others[None, :, 2:])
    result: PlacedLabels = np.clip(high - low, 0, None).prod(axis=2)
    return result


def _costs(places: PlacedLabels, own: PlacedLabels, others: PlacedLabels) -> PlacedLabels:
    areas = np.maximum(_areas(places), 1e-6)
    covered = (_common(places, others) / areas[:, None]).sum(axis=1)
    gaps = np.maximum(np.maximum(places[:, :2] - own[2:], own[:2] - places[:, 2:]), 0)
    away = np.hypot(gaps[:, 0], gaps[:, 1])
    costs: PlacedLabels = (
        _COVERS_OTHER * covered + _COVERS_OWN * _common(places, own[None])[:, 0] / areas + _AWAY * away
    )
    return costs


def _beside(box: Rectangle, size: tuple[float, float], width: float, height: float) -> PlacedLabels:
    """Left and top of places along the edges of a box, outside and inside, shape (n, 2)."""
    wide, high = size
    shares = np.linspace(0, 1, _STEPS)
    across = box.left + shares * (box.right - box.left - wide)
    down = box.top + shares * (box.bottom - box.top - high)
    flat = [(left, top) for top in (box.top - high, box.top, box.bottom, box.bottom - high) for left in across]
    steep = [(left, top) for left in (box.left - wide, box.right, box.left, box.right - wide) for top in down]
    return np.array(flat + steep, float)


def _anywhere(box: Rectangle, size: tuple[float, float], width: float, height: float) -> PlacedLabels:
    """Left and top of places all over the picture, shape (n, 2)."""
    wide, high = size
    across = np.arange(0, max(width - wide, 0) + wide / 2, max(wide / 2, 1))
    down = np.arange(0, max(height - high, 0) + high / 2, max(high / 2, 1))
    return np.stack(np.meshgrid(across, down), axis=-1).reshape(-1, 2)


def _inside(places: PlacedLabels, size: tuple[float, float], width: float, height: float) -> PlacedLabels:
    """Places pushed into the picture where they stick out, shape (n, 4); none where it is too small for them."""
    wide, high = size
    if wide > width or high > height:
        return np.zeros((0, 4))
    corner = np.clip(places, 0, [width - wide, height - high])
    return np.concatenate([corner, corner + np.array([wide, high])], axis=1)
