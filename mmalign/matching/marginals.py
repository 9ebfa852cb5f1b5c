"""How probable each region is for a phrase, given where the others are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from mmalign.matching.problem import Assignment, FloatArray, Problem
from mmalign.matching.solvers import Solution
from mmalign.matching.tables import tabulate


def link_marginals(problem: Problem, solution: Solution) -> NDArray[np.float32]:
    """Give the probability of each region for each phrase, given where the other phrases are.

    Args:
        problem: What was solved, of shape (p, r).
        solution: What the solver said. What its solver does not look at counts for nothing here either: relations for
            `hungarian`, and sharing and capacities too for `argmax`.

    Returns:
        Shape (p, r), float32, 0 to 1: the softmax of what each region would add to the objective, among all regions
        and none. A phrase that may take several regions is looked at as if it took one.
    """
    p, r = problem.shape
    if p == 0 or r == 0:
        return np.zeros((p, r), np.float32)
    if solution.solver == "argmax":
        problem = replace(problem, edges=(), sharing=np.zeros((r, r)), capacity=np.full(r, p))
    elif solution.solver == "hungarian":
        problem = replace(problem, edges=())
    return np.asarray(softmax(conditional_worth(problem, solution.assignment), axis=1)[:, :r], np.float32)


def conditional_worth(problem: Problem, assignment: Assignment) -> FloatArray:
    """Give what each region, and none, would be worth to each phrase if all other phrases stayed where they are.

    Args:
        problem: What was solved, of shape (p, r).
        assignment: Where the phrases are.

    Returns:
        Shape (p, r + 1), float64, in nats, the last column for none; `FORBIDDEN` or less where others fill a region.
    """
    p, r = problem.shape
    tables = tabulate(problem)
    choice = tables.choice(assignment)
    worth = np.zeros((p, r + 1))
    for phrase in range(p):
        slots = np.flatnonzero(tables.owner == phrase)
        alone = choice.copy()
        alone[slots] = r
        worth[phrase] = tables.given(int(slots[0]), alone)
    return worth
