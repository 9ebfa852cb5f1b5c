"""Solvers of the matching: each phrase alone, one-to-one, and jointly over the sentence's relations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from mmalign.alignment.problem import Assignment, Problem
from mmalign.errors import InputError

SolverName = Literal["argmax", "hungarian", "graph"]


@dataclass(frozen=True, slots=True)
class Solution:
    """An assignment of regions to phrases, and how good it is.

    Attributes:
        assignment: The regions of each phrase, best first; empty for a phrase that matches nothing.
        objective: Its worth, relations and sharing included, whichever solver found it.
        bound: No assignment is worth more than this; None where the solver says nothing of that.
        solver: The solver.
        converged: Whether the solver came to its end, and did not stop at a limit of its own.
        iterations: Rounds that it took.
        feasible: Whether the assignment keeps to the capacities; `argmax` does not look at them.
    """

    assignment: Assignment
    objective: float
    bound: float | None
    solver: SolverName
    converged: bool
    iterations: int
    feasible: bool = True

    @property
    def gap(self) -> float | None:
        """How much better another assignment can be at most; 0 where this one is certain to be a best one."""
        return None if self.bound is None else max(0.0, self.bound - self.objective)


def solve(problem: Problem, *, solver: SolverName = "graph") -> Solution:
    """Match phrases and regions.

    Args:
        problem: What each choice is worth.
        solver: `argmax` gives each phrase its best regions, whatever the others take. `hungarian` is best over
            similarities and the costs of sharing one region, and does not look at relations. `graph` looks at all.

    Returns:
        The assignment with its worth and, for `graph`, a bound of what any assignment is worth.

    Raises:
        InputError: An unknown solver.
    """
    solvers: dict[str, Callable[[Problem], Solution]] = {"argmax": _argmax}
    if solver not in solvers:
        raise InputError(f"unknown solver {solver!r}; there are: {', '.join(solvers)}")
    return solvers[solver](problem)


def solve_many(problems: Iterable[Problem], *, solver: SolverName = "graph") -> list[Solution]:
    """Match the phrases and regions of many pictures.

    Args:
        problems: One a picture.
        solver: See `solve`.

    Returns:
        Their solutions, in order.
    """
    return [solve(problem, solver=solver) for problem in problems]


def best_regions(problem: Problem, phrase: int) -> tuple[int, ...]:
    """Give the best regions of one phrase by itself: as many as it may take and as are better than none.

    Args:
        problem: What each choice is worth.
        phrase: Index of the phrase.

    Returns:
        The regions, best first; of equal ones the first.
    """
    chosen: list[int] = []
    for region in np.argsort(-problem.unary[phrase], kind="stable"):
        if len(chosen) == problem.takes[phrase] or problem.unary[phrase, region] <= problem.null[phrase]:
            break
        if all(problem.compatible(int(region), other) for other in chosen):
            chosen.append(int(region))
    return tuple(chosen)


def _argmax(problem: Problem) -> Solution:
    assignment = tuple(best_regions(problem, phrase) for phrase in range(problem.shape[0]))
    return scored(problem, assignment, "argmax")


def scored(problem: Problem, assignment: Assignment, solver: str, *, iterations: int = 1) -> Solution:
    """Make the solution of a solver that gives no bound."""
    return Solution(
        assignment=assignment,
        objective=problem.objective(assignment),
        bound=None,
        solver=cast(SolverName, solver),
        converged=True,
        iterations=iterations,
        feasible=problem.feasible(assignment),
    )
