"""Random problems of matching, and the best assignment of a small one by looking at all."""

from __future__ import annotations

import itertools

import numpy as np

from mmalign.matching.problem import Assignment, Edge, Problem


def random_problem(
    rng: np.random.Generator,
    *,
    p: int,
    r: int,
    density: float = 0.6,
    triples: bool = True,
    plurals: bool = True,
    capacity: bool = True,
) -> Problem:
    """A problem with everything that a problem may hold: ties, sharing, plurals, capacities, groups, triples."""
    edges = []
    for one, two in itertools.permutations(range(p), 2):
        if rng.random() < density / max(1, p - 1):
            edges.append(Edge((one, two), rng.normal(size=(1, 1, r, r)), kind="left of", relation=len(edges)))
    if triples and p >= 3 and rng.random() < 0.5:
        edges.append(Edge(tuple(rng.permutation(p)[:3].tolist()), rng.normal(size=(4, 2, r, r)), kind="between"))
    takes = np.where(rng.random(p) < 0.2, 2, 1) if plurals else np.ones(p, int)
    if triples and takes[0] == 2 and p >= 2:
        edges.append(Edge((1, 0, 0), rng.normal(size=(2, 2, r, r)), kind="between"))
    sharing = np.abs(rng.normal(size=(r, r))) * (rng.random((r, r)) < 0.2) + np.eye(r) * rng.choice([0.0, 0.5, 3.0])
    clash = rng.random((r, r)) < 0.1
    return Problem(
        unary=rng.normal(size=(p, r)).round(1) * rng.choice([0.3, 1.0, 3.0]),
        null=rng.normal(size=p) - 0.5,
        capacity=rng.integers(1, 3, r) if capacity and rng.random() < 0.5 else np.full(r, p),
        takes=takes,
        groups=np.where(rng.random(p) < 0.3, 0, np.arange(p)),
        sharing=sharing + sharing.T,
        clash=clash | clash.T,
        edges=tuple(edges),
        weight=float(rng.choice([0.0, 0.5, 1.0, 2.0])),
    )


def exhaustive(problem: Problem) -> tuple[Assignment, float]:
    """The best allowed assignment among all, by the plain definition of the objective."""
    p, r = problem.shape
    choices = [
        [taken for size in range(int(problem.takes[i]) + 1) for taken in itertools.combinations(range(r), size)]
        for i in range(p)
    ]
    allowed = (assignment for assignment in itertools.product(*choices) if problem.feasible(assignment))
    best = max(allowed, key=problem.objective)
    return best, problem.objective(best)
