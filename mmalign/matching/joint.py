"""The joint solver: a search over whole assignments that knows how good one could still get, and so when to stop.

1. Messages between related phrases (TRW-S: Kolmogorov, 2006) shift worth from relations to regions without changing
   any assignment's sum, so that a sum of separate maxima becomes a tight bound. Where the relations form a tree, it
   is the optimum but for sharing and capacities.
2. Slots are decided one after another, keeping the partial assignments of the highest bound. What cannot beat the best
   known assignment is dropped for good; where more than the width of the search is left, the best bound that was
   dropped is the bound of the result. The width grows until nothing was dropped, or a limit is met.
3. The best known assignment begins as the better one of `argmax` and `hungarian`, improved slot by slot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmalign.matching.problem import FORBIDDEN, Assignment, FloatArray, Problem
from mmalign.matching.tables import IntArray, Tables, tabulate

# Partial assignments kept at first, and how often that many times more are.
_WIDTH = 64
_GROWTH = 8
# Numbers that a search may hold: slots x regions x width; 768 KiB of float64.
_MOST_NUMBERS = 3 << 15
# Rounds of messages.
_ROUNDS = 3
# Sums that differ by less are equal.
_TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class FoundAssignment:
    """What the search found: the assignment, a bound of all, and the rounds that it took."""

    assignment: Assignment
    bound: float
    rounds: int


def search_assignment(problem: Problem, starts: Iterable[Assignment]) -> FoundAssignment:
    """Find the best assignment, or one with a bound of how much better another could be.

    Args:
        problem: What each choice is worth.
        starts: Assignments to begin with; those that are not allowed are left out.

    Returns:
        An assignment that is no worse than any of the starts, and the bound.
    """
    tables = tabulate(problem)
    nothing: Assignment = tuple(() for _ in range(problem.shape[0]))
    best, value = nothing, problem.objective(nothing)
    for start in dict.fromkeys(starts):
        if problem.feasible(start):
            improved = tables.assignment(_improve(tables, tables.choice(start)))
            if (worth := problem.objective(improved)) > value:
                best, value = improved, worth
    n, states = tables.unary.shape
    if n == 0:
        return FoundAssignment(best, value, 0)
    shifted = _Shifted.of(tables)
    bound = max(value, shifted.bound)
    most = max(_WIDTH, _MOST_NUMBERS // (n * states))
    width, rounds = 0, 0
    while bound > value + _TOLERANCE and width < most:
        rounds += 1
        wider = max(_WIDTH, width * _GROWTH)
        # Not twice nearly the same.
        width = wider if 2 * wider <= most else most
        choice, dropped = _sweep(shifted, value, width)
        if choice is not None:
            found = tables.assignment(_improve(tables, choice))
            if (worth := problem.objective(found)) > value:
                best, value = found, worth
        bound = max(value, min(bound, dropped))
    return FoundAssignment(best, bound, rounds)


def _improve(tables: Tables, choice: IntArray) -> IntArray:
    """Let each slot take what is best given the others, until none would change."""
    choice = choice.copy()
    for _ in range(100):
        changed = False
        for slot in range(len(choice)):
            worth = tables.given(slot, choice)
            better = int(worth.argmax())
            if worth[better] > worth[choice[slot]] + _TOLERANCE:
                choice[slot], changed = better, True
        if not changed:
            break
    return choice


@dataclass(frozen=True, slots=True)
class _Shifted:
    """Tables of which worth was shifted between relations and regions; every assignment's sum is as it was."""

    tables: Tables
    unary: FloatArray
    pairs: dict[tuple[int, int], FloatArray]
    # What the relations are worth at most of which no slot, or only one of three, is decided after each slot.
    later: FloatArray
    bound: float

    @classmethod
    def of(cls, tables: Tables) -> _Shifted:
        # What forbids would send messages of any size; between the slots of one phrase it is left to the search.
        own = {key: table for key, table in tables.pairs.items() if tables.owner[key[0]] == tables.owner[key[1]]}
        related = {key: table for key, table in tables.pairs.items() if key not in own}
        unary, pairs = _pass_messages(tables.unary, related)
        pairs |= own
        n = len(unary)
        later = np.zeros(n + 1)
        for (one, _), table in pairs.items():
            later[: one + 1] += table.max()
        for triple in tables.triples:
            later[: sorted(triple.slots)[1] + 1] += triple.most
        return cls(tables, unary, pairs, later, float(unary.max(axis=1).sum() + later[0]))


def _pass_messages(
    unary: FloatArray, pairs: dict[tuple[int, int], FloatArray]
) -> tuple[FloatArray, dict[tuple[int, int], FloatArray]]:
    n, states = unary.shape
    unary = unary.copy()
    before: list[list[int]] = [[one for one, two in pairs if two == slot] for slot in range(n)]
    after: list[list[int]] = [[two for one, two in pairs if one == slot] for slot in range(n)]
    share = [1.0 / max(1, len(before[slot]), len(after[slot])) for slot in range(n)]
    # Messages into the lower and the higher slot of each pair; they are part of `unary` all the time.
    low = {key: np.zeros(states) for key in pairs}
    high = {key: np.zeros(states) for key in pairs}
    for _ in range(_ROUNDS):
        for slot in range(n):
            for other in after[slot]:
                key = slot, other
                new = ((share[slot] * unary[slot] - low[key])[:, None] + pairs[key]).max(axis=0)
                unary[other] += new - high[key]
                high[key] = new
        for slot in reversed(range(n)):
            for other in before[slot]:
                key = other, slot
                new = ((share[slot] * unary[slot] - high[key])[None, :] + pairs[key]).max(axis=1)
                unary[other] += new - low[key]
                low[key] = new
    return unary, {key: table - low[key][:, None] - high[key][None, :] for key, table in pairs.items()}


def _sweep(shifted: _Shifted, known: float, width: int) -> tuple[IntArray | None, float]:
    """Decide slot after slot, with at most `width` partial assignments.

    Returns:
        The best whole assignment above `known`, or None where there is none among those kept; and the best bound of
        what was left out for want of room, -inf where nothing was.
    """
    tables = shifted.tables
    n, states = shifted.unary.shape
    none = states - 1
    choices = np.full((1, n), none)
    score = np.zeros(1)
    # What each region is worth to each slot that is not yet decided, given those that are.
    worth = shifted.unary[None].copy()
    full = _Full(tables) if tables.tight else None
    dropped = -np.inf
    for slot in range(n):
        if full is not None:
            full.forbid(slot, worth)
        partial = score[:, None] + worth[:, slot]
        rest = worth[:, slot + 1 :].max(axis=2).sum(axis=1) + shifted.later[slot]
        bounds = (partial + rest[:, None]).ravel()
        keep = np.flatnonzero(bounds > known + _TOLERANCE)
        keep, dropped = _best(keep, bounds, width, dropped)
        parents, regions = np.divmod(keep, states)
        choices, worth = choices[parents], worth[parents]
        choices[:, slot] = regions
        score = partial[parents, regions]
        _condition(shifted, slot, choices, worth)
        if full is not None:
            full.take(slot, parents, regions)
        bounds = score + worth[:, slot + 1 :].max(axis=2).sum(axis=1) + shifted.later[slot + 1]
        keep = np.flatnonzero(bounds > known + _TOLERANCE)
        if len(keep) == 0:
            return None, dropped
        if len(keep) < len(bounds):
            choices, worth, score = choices[keep], worth[keep], score[keep]
            if full is not None:
                full.keep(keep)
    return choices[int(score.argmax())], dropped


def _best(keep: IntArray, bounds: FloatArray, width: int, dropped: float) -> tuple[IntArray, float]:
    if len(keep) <= width:
        return keep, dropped
    order = np.argpartition(-bounds[keep], width)
    return keep[order[:width]], max(dropped, float(bounds[keep[order[width]]]))


def _condition(shifted: _Shifted, slot: int, choices: IntArray, worth: FloatArray) -> None:
    """Add to the worth of what is undecided what it is worth beside the slot just decided."""
    tables = shifted.tables
    taken = choices[:, slot]
    for (one, two), table in shifted.pairs.items():
        if one == slot:
            worth[:, two] += table[taken]
    for triple in tables.triples:
        middle, last = sorted(triple.slots)[1:]
        if slot == middle:
            worth[:, last] += triple.given(last, choices)
    if tables.sharing is not None:
        strange = np.flatnonzero(tables.strange[slot, slot + 1 :]) + slot + 1
        if len(strange):
            worth[:, strange] -= tables.sharing[taken][:, None]


class _Full:
    """Which things each partial assignment has put into each region, so that none gets more than it may hold."""

    def __init__(self, tables: Tables) -> None:
        _, self._group = np.unique(tables.problem.groups[tables.owner], return_inverse=True)
        r = tables.problem.shape[1]
        self._capacity = np.append(tables.problem.capacity, 1 << 30)
        self._things: NDArray[np.bool_] = np.zeros((1, int(self._group.max()) + 1, r + 1), bool)

    def forbid(self, slot: int, worth: FloatArray) -> None:
        own = self._things[:, self._group[slot]]
        worth[:, slot][(self._things.sum(axis=1) >= self._capacity) & ~own] += FORBIDDEN

    def take(self, slot: int, parents: IntArray, regions: IntArray) -> None:
        self._things = self._things[parents]
        self._things[np.arange(len(parents)), self._group[slot], regions] = True

    def keep(self, rows: IntArray) -> None:
        self._things = self._things[rows]
