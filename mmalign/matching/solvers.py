"""Solvers of the matching: each phrase alone, one-to-one, and jointly over the sentence's relations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mmalign.errors import InputError
from mmalign.matching.hungarian import match_one_to_one
from mmalign.matching.joint import search_assignment
from mmalign.matching.problem import Assignment, Problem

SolverName = Literal["argmax", "hungarian", "graph"]


@dataclass(frozen=True, slots=True)
class Solution:
    """An assignment of regions to phrases, and how good it is.

    Attributes:
        assignment: The regions of each phrase, best first; empty for a phrase that matches nothing.
        objective: Its worth, relations and sharing included, whichever solver found it.
        bound: No assignment is worth more than this; None where the solver says nothing of that.
        solver: The solver.
        converged: Whether the solver came to its end. Where `graph` stopped at a limit of its own, the gap says how far
            from a best one the assignment can be.
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
    solvers: dict[str, Callable[[Problem], Solution]] = {"argmax": _argmax, "hungarian": _hungarian, "graph": _graph}
    if not isinstance(solver, str) or solver not in solvers:
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
    return _scored(problem, assignment, "argmax")


def _hungarian(problem: Problem) -> Solution:
    assignment, rounds = match_one_to_one(problem)
    return _scored(problem, assignment, "hungarian", iterations=rounds)


def _graph(problem: Problem) -> Solution:
    starts = [solver(problem).assignment for solver in (_argmax, _hungarian)]
    found = search_assignment(problem, starts)
    solution = _scored(problem, found.assignment, "graph", iterations=found.rounds)
    # Sums in another order differ in their last digits.
    bound = max(found.bound, solution.objective)
    return replace(solution, bound=bound, converged=bound - solution.objective <= 1e-6)


def _scored(problem: Problem, assignment: Assignment, solver: SolverName, *, iterations: int = 1) -> Solution:
    return Solution(
        assignment=assignment,
        objective=problem.objective(assignment),
        bound=None,
        solver=solver,
        converged=True,
        iterations=iterations,
        feasible=problem.feasible(assignment),
    )
