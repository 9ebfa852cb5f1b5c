"""One region for each thing, by linear assignment: similarities and the costs of sharing, without relations."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.optimize import linear_sum_assignment

from mmalign.matching.problem import FORBIDDEN, Assignment, FloatArray, Problem


def match_one_to_one(problem: Problem) -> tuple[Assignment, int]:
    """Find the best assignment where relations count for nothing.

    Mentions of one thing are a single row, worth what they are together, so that they get the same regions. A phrase
    that may take several regions has a row for each; a region that several things may share has a column for each, of
    which the second costs one sharing, the third two more. Each row may also take none.

    Args:
        problem: What each choice is worth.

    Returns:
        The assignment, best regions first, and how many linear assignments were solved: one, and one more whenever a
        phrase got the same place twice. Then the worse of the two is not allowed any more, so that the result is no
        longer certain to be a best one.

    Source: Kuhn, 1955, as in `scipy.optimize.linear_sum_assignment`; copies of columns for capacities.
    """
    p, r = problem.shape
    things = [np.flatnonzero(problem.groups == group) for group in dict.fromkeys(problem.groups.tolist())]
    takes = np.array([problem.takes[members].min() for members in things], np.int64)
    rows = np.repeat(np.arange(len(things)), takes)
    worth = np.array([problem.unary[things[thing]].sum(axis=0) for thing in rows]).reshape(len(rows), r)
    null = np.array([problem.null[things[thing]].sum() for thing in rows])
    copies = [(region, copy) for region in range(r) for copy in range(min(int(problem.capacity[region]), len(things)))]
    columns = np.array([region for region, _ in copies], np.int64)
    cost = np.array([copy * problem.sharing[region, region] for region, copy in copies])
    rounds = 0
    while True:
        rounds += 1
        taken = _assign(worth[:, columns] - cost, null)
        got = [(int(rows[row]), row, int(columns[c])) for row, c in enumerate(taken) if c < len(columns)]
        clashes = [
            # The same region twice, or the worse one of two that are the same place.
            max(pair, key=lambda choice: (-problem.unary[things[choice[0]], choice[2]].sum(), choice[2], choice[1]))
            for pair in itertools.combinations(got, 2)
            if pair[0][0] == pair[1][0] and not problem.compatible(pair[0][2], pair[1][2])
        ]
        if not clashes:
            break
        for thing, row, region in clashes:
            kept = any(choice[2] == region and choice[1] != row for choice in got if choice[0] == thing)
            worth[row if kept else rows == thing, region] = FORBIDDEN
    assignment: list[tuple[int, ...]] = [()] * p
    for thing, members in enumerate(things):
        regions = [region for owner, _, region in got if owner == thing]
        for phrase in members:
            ranked = sorted(regions, key=lambda region: (-problem.unary[phrase, region], region))
            assignment[phrase] = tuple(ranked)
    return tuple(assignment), rounds


def _assign(worth: FloatArray, null: FloatArray) -> list[int]:
    """The column of each row, or a number from the count of columns on where it takes none."""
    nothing = np.full((len(null), len(null)), 2 * FORBIDDEN)
    np.fill_diagonal(nothing, null)
    _, taken = linear_sum_assignment(np.concatenate([worth, nothing], axis=1), maximize=True)
    return [int(column) for column in taken]
