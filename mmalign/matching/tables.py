"""A problem of matching as tables over slots, which is what the joint solver computes on.

A phrase that may take several regions has as many slots, each of which takes one region or none. The last row and
column of a table stand for none.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmalign.matching.problem import FORBIDDEN, Assignment, FloatArray, Problem

IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Triple:
    """A relation of three slots: the best of several ways, each a sum of two tables.

    Attributes:
        slots: The subject's and the two objects' slots.
        first: Shape (ways, r + 1, r + 1): subject by first object.
        second: The same for the second object.
    """

    slots: tuple[int, int, int]
    first: FloatArray
    second: FloatArray

    @property
    def most(self) -> float:
        """No choice of regions is worth more; nothing where one of the slots takes none."""
        none = self.first.shape[1] - 1
        best = self.first[:, :none, :none].max(axis=2) + self.second[:, :none, :none].max(axis=2)
        return max(0.0, float(best.max()))

    def given(self, slot: int, choices: IntArray) -> FloatArray:
        """Give the worth of each region for one slot where the other two are known.

        Args:
            slot: The slot.
            choices: What all slots took, shape (b, n) or more columns; those of this relation's other slots are read.

        Returns:
            Shape (b, r + 1); 0 where one of the three takes none.
        """
        subject, one, two = self.slots
        none = self.first.shape[1] - 1
        if slot == subject:
            other, another = choices[:, one], choices[:, two]
            worth = (self.first[:, :, other] + self.second[:, :, another]).max(axis=0).T
        elif slot == one:
            other, another = choices[:, subject], choices[:, two]
            worth = (self.first[:, other, :] + self.second[:, other, another][:, :, None]).max(axis=0)
        else:
            other, another = choices[:, subject], choices[:, one]
            worth = (self.second[:, other, :] + self.first[:, other, another][:, :, None]).max(axis=0)
        worth = worth.copy()
        worth[(other == none) | (another == none)] = 0.0
        worth[:, none] = 0.0
        return np.asarray(worth)


@dataclass(frozen=True, slots=True)
class Tables:
    """A problem over slots, in the order in which they are decided.

    Attributes:
        problem: Where it comes from.
        owner: Phrase of each slot, shape (n,).
        unary: Worth of each region and, last, of none; shape (n, r + 1).
        pairs: By two slots, the lower first: worth of their choices, shape (r + 1, r + 1).
        triples: Relations of three slots.
        strange: Whether two slots are different things, shape (n, n), bool.
        sharing: What it costs where two different things take these regions, shape (r + 1, r + 1); None where nothing.
        tight: Whether a region may be full, so that capacities have to be looked at.
    """

    problem: Problem
    owner: IntArray
    unary: FloatArray
    pairs: dict[tuple[int, int], FloatArray]
    triples: tuple[Triple, ...]
    strange: NDArray[np.bool_]
    sharing: FloatArray | None
    tight: bool

    def assignment(self, choice: Sequence[int] | IntArray) -> Assignment:
        """Give what the phrases take from what the slots take, best regions first."""
        p, r = self.problem.shape
        taken: list[list[int]] = [[] for _ in range(p)]
        for slot, region in enumerate(choice):
            if region < r:
                taken[self.owner[slot]].append(int(region))
        return tuple(
            tuple(sorted(regions, key=lambda j: (-self.problem.unary[i, j], j))) for i, regions in enumerate(taken)
        )

    def choice(self, assignment: Assignment) -> IntArray:
        """Give what the slots take from what the phrases take."""
        r = self.problem.shape[1]
        choice = np.full(len(self.owner), r)
        for phrase, regions in enumerate(assignment):
            slots = np.flatnonzero(self.owner == phrase)
            worth = self.problem.unary[phrase]
            choice[slots[: len(regions)]] = [j for _, j in sorted((-worth[j], j) for j in regions)]
        return choice

    def given(self, slot: int, choice: IntArray) -> FloatArray:
        """Give the worth of each region for one slot where all others are known.

        Args:
            slot: The slot.
            choice: What all slots took, shape (n,).

        Returns:
            Shape (r + 1,), none last; what is not allowed is worth `FORBIDDEN` or less.
        """
        worth = self.unary[slot].copy()
        for (one, two), table in self.pairs.items():
            if slot == one:
                worth += table[:, choice[two]]
            elif slot == two:
                worth += table[choice[one]]
        for triple in self.triples:
            if slot in triple.slots:
                worth += triple.given(slot, choice[None])[0]
        if self.sharing is not None:
            worth -= self.sharing[choice[self.strange[slot]]].sum(axis=0)
        if self.tight:
            worth[:-1][self._full(slot, choice)] += FORBIDDEN
        return np.asarray(worth)

    def _full(self, slot: int, choice: IntArray) -> NDArray[np.bool_]:
        groups = self.problem.groups[self.owner]
        r = self.problem.shape[1]
        things = np.zeros((len(self.problem.groups) + 1, r + 1), bool)
        _, dense = np.unique(groups, return_inverse=True)
        others = np.arange(len(choice)) != slot
        things[dense[others], choice[others]] = True
        return np.asarray(
            (things.sum(axis=0) >= np.append(self.problem.capacity, 1 << 30))[:r] & ~things[dense[slot], :r]
        )


def tabulate(problem: Problem) -> Tables:
    """Spread a problem over slots.

    Args:
        problem: What each choice is worth.

    Returns:
        Its tables, phrases with relations first and next to those that they are related to.
    """
    r = problem.shape[1]
    order = _order(problem)
    owner = np.array([phrase for phrase in order for _ in range(int(problem.takes[phrase]))], np.int64)
    slots: dict[int, list[int]] = {}
    for slot, phrase in enumerate(owner):
        slots.setdefault(int(phrase), []).append(slot)
    pairs: dict[tuple[int, int], FloatArray] = {}
    triples: list[Triple] = []
    for edge in problem.edges:
        weights = np.zeros((*edge.weights.shape[:2], r + 1, r + 1))
        weights[:, :, :r, :r] = edge.weights * problem.weight
        subject, *objects = edge.phrases
        if edge.one_object_twice:
            weights = np.concatenate([weights, weights[:, ::-1]])
        for slot in slots[subject]:
            if len(objects) == 1:
                best = weights[:, 0].max(axis=0)
                for other in slots[objects[0]]:
                    key, table = ((slot, other), best) if slot < other else ((other, slot), best.T)
                    pairs[key] = pairs[key] + table if key in pairs else table
                continue
            triples += [
                Triple((slot, one, two), weights[:, 0], weights[:, 1])
                for one in slots[objects[0]]
                for two in slots[objects[1]]
                if objects[0] != objects[1] or one < two
            ]
    unary = np.concatenate([problem.unary, problem.null[:, None]], axis=1)[owner]
    for phrase, own in slots.items():
        if len(own) > 1:
            ranked = np.argsort(-problem.unary[phrase], kind="stable")
            exclusive = _exclusive(problem, ranked)
            pairs |= dict.fromkeys(itertools.combinations(own, 2), exclusive)
            for place, slot in enumerate(own):
                # Those before it take better regions, so that the best ones are not left.
                unary[slot, ranked[:place]] = FORBIDDEN
    groups = problem.groups[owner]
    sharing = np.zeros((r + 1, r + 1))
    sharing[:r, :r] = problem.sharing
    return Tables(
        problem=problem,
        owner=owner,
        unary=unary,
        pairs={key: np.ascontiguousarray(table) for key, table in pairs.items()},
        triples=tuple(triples),
        strange=groups[:, None] != groups[None, :],
        sharing=sharing if sharing.any() else None,
        tight=bool((problem.capacity < len(set(problem.groups.tolist()))).any()),
    )


def _exclusive(problem: Problem, ranked: IntArray) -> FloatArray:
    """What two slots of one phrase may take together: the earlier one the better region, none after all others.

    The order leaves one way to take the same regions, and a search that begins with a bad region cannot hope for
    better ones.
    """
    r = problem.shape[1]
    rank = np.empty(r, np.int64)
    rank[ranked] = np.arange(r)
    free = rank[:, None] < rank[None, :]
    if problem.clash is not None:
        free &= ~problem.clash
    table = np.full((r + 1, r + 1), FORBIDDEN)
    table[:r, :r][free] = 0.0
    table[:, r] = 0.0
    return table


def _order(problem: Problem) -> list[int]:
    """Phrases with many relations first, each next to those that it is related to."""
    p, _ = problem.shape
    near = np.zeros((p, p))
    for edge in problem.edges:
        for one in edge.phrases:
            for two in edge.phrases:
                near[one, two] += one != two
    degrees = near.sum(axis=1)
    order: list[int] = []
    links = np.zeros(p)
    for _ in range(p):
        left = [phrase for phrase in range(p) if phrase not in order]
        chosen = max(left, key=lambda phrase: (links[phrase], degrees[phrase], -phrase))
        order.append(chosen)
        links += near[chosen]
    return order
