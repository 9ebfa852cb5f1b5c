"""Where to write labels in a picture so that none covers another: geometry alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


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

    def grown(self, by: float) -> Rectangle:
        """The rectangle with a rim."""
        return Rectangle(self.left - by, self.top - by, self.right + by, self.bottom + by)

    def distance(self, other: Rectangle) -> float:
        """Between the nearest points of both, in pixels; 0 where they touch."""
        across = max(self.left - other.right, other.left - self.right, 0.0)
        down = max(self.top - other.bottom, other.top - self.bottom, 0.0)
        return float((across**2 + down**2) ** 0.5)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A label that wants a place.

    Attributes:
        box: What it is about.
        sizes: Widths and heights that it can have, the best first: a long text, a short one.
    """

    box: Rectangle
    sizes: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Placed:
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


def place_labels(wanted: Sequence[Wanted], width: float, height: float, *, gap: float = 2.0) -> list[Placed | None]:
    """Find places for labels beside their boxes: none covers another, all lie in the picture.

    Labels of small boxes choose first: large boxes have more room along their edges. Each takes the cheapest free
    place: it covers little of other things and is near to its own. Where there is none along the edges of its box,
    the whole picture is searched, and a line must join the two.

    Args:
        wanted: The labels.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        gap: Least distance of two labels, in pixels.

    Returns:
        For each label its place, or None where the picture has no free place for its smallest size.

    Source: the greedy point-feature labelling of Christensen, Marks and Shieber, 1995, with boxes for points.
    """
    placed: list[Placed | None] = [None] * len(wanted)
    taken: list[Rectangle] = []
    for index in sorted(range(len(wanted)), key=lambda index: (wanted[index].box.area, index)):
        others = [other.box for k, other in enumerate(wanted) if k != index and other.box != wanted[index].box]
        best: tuple[float, Placed] | None = None
        for search in (_beside, _anywhere):
            for number, size in enumerate(wanted[index].sizes):
                for place in search(wanted[index].box, size, width, height):
                    if any(place.grown(gap).common(other) > 0 for other in taken):
                        continue
                    cost = _cost(place, wanted[index].box, others) + number * _SHORTER
                    if best is None or cost < best[0]:
                        far = place.distance(wanted[index].box) > size[1]
                        best = cost, Placed(place, number, far)
            if best is not None:
                break
        if best is not None:
            placed[index] = best[1]
            taken.append(best[1].place)
    return placed


def _cost(place: Rectangle, own: Rectangle, others: Sequence[Rectangle]) -> float:
    area = max(place.area, 1e-6)
    covered = sum(min(place.common(other) / area, 1.0) for other in others if other.area < own.area * 4)
    return _COVERS_OTHER * covered + _COVERS_OWN * place.common(own) / area + _AWAY * place.distance(own)


def _beside(box: Rectangle, size: tuple[float, float], width: float, height: float) -> Iterator[Rectangle]:
    """Places along the edges of a box, outside and inside, that lie in the picture."""
    wide, high = size
    shares = [step / (_STEPS - 1) for step in range(_STEPS)]
    for top in (box.top - high, box.top, box.bottom, box.bottom - high):
        for share in shares:
            yield from _inside(box.left + share * (box.right - box.left - wide), top, size, width, height)
    for left in (box.left - wide, box.right, box.left, box.right - wide):
        for share in shares:
            yield from _inside(left, box.top + share * (box.bottom - box.top - high), size, width, height)


def _anywhere(box: Rectangle, size: tuple[float, float], width: float, height: float) -> Iterator[Rectangle]:
    wide, high = size
    down, across = int(max(height - high, 0) // high) + 1, int(max(width - wide, 0) // max(wide / 3, 1)) + 1
    for row in range(down + 1):
        for column in range(across + 1):
            left, top = min(column * max(wide / 3, 1), width - wide), min(row * high, height - high)
            yield from _inside(left, top, size, width, height)


def _inside(left: float, top: float, size: tuple[float, float], width: float, height: float) -> Iterator[Rectangle]:
    """The place itself, pushed into the picture where it sticks out; none where the picture is too small."""
    wide, high = size
    if wide > width or high > height:
        return
    left, top = min(max(left, 0.0), width - wide), min(max(top, 0.0), height - high)
    yield Rectangle(left, top, left + wide, top + high)
