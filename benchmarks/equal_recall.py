"""Speeds at equal recall, the best of several, and how many times as fast one is as another.

An index that is searched with growing efforts gives points of recall and speed. Between the two points that lie around
a recall, the logarithm of the speed is taken as linear in the recall. A point that another beats in both counts for
nothing. Where even the least effort finds more than is asked, its speed counts; where no effort finds as much, there is
no speed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

Point: TypeAlias = tuple[float, float]
# The speed of each index in each turn.
Turns: TypeAlias = Mapping[str, Sequence[float | None]]


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats, by growing recall and so by falling speed."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (-point[0], -point[1])):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept[::-1]


def speed_at(points: Iterable[Point], recall: float) -> float | None:
    """The speed at a recall.

    Args:
        points: Recall and speed, the speed above 0.
        recall: Which is asked for.

    Returns:
        The speed, or None where no point has this recall.
    """
    kept = frontier(points)
    if not kept or kept[-1][0] < recall:
        return None
    after = next(i for i, point in enumerate(kept) if point[0] >= recall)
    if not after:
        return kept[0][1]
    (low, fast), (high, slow) = kept[after - 1], kept[after]
    share = (recall - low) / (high - low)
    return math.exp((1 - share) * math.log(fast) + share * math.log(slow))


def median(speeds: Sequence[float | None]) -> float | None:
    """The median over turns, or None where a turn has no speed."""
    known = [speed for speed in speeds if speed is not None]
    return statistics.median(known) if known and len(known) == len(speeds) else None


def best(turns: Turns, names: Iterable[str]) -> str | None:
    """Which of some indexes has the highest median speed; None where none of them has one."""
    medians = {name: median(turns[name]) for name in names if name in turns}
    known = {name: speed for name, speed in medians.items() if speed is not None}
    return max(known, key=lambda name: known[name]) if known else None


def ratio(turns: Turns, mine: str, other: str) -> tuple[float, float, float]:
    """How many times as fast one index is as another: the median over turns, the least and the largest.

    Each turn is compared with itself, so that what slows the machine down slows both.
    """
    pairs = zip(turns[mine], turns[other], strict=True)
    found = [a / b for a, b in pairs if a is not None and b is not None]
    return statistics.median(found), min(found), max(found)
