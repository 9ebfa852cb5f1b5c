"""How long the solvers of alignment take, and how good what they find is, beside those of pygmtools.

Sentences of six phrases and five relations over fifty regions, drawn at random. All take turns on every one of them,
by processor time of one thread. What `pygmtools` is compared on is the same matching one-to-one with no phrase left
out, since its solvers of quadratic assignment know no other: their result is made whole by its Hungarian method, as
its documentation does.

python -m benchmarks.align_solvers [--count 200]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks import results
from mmalign.matching.build import Matching, build_problem
from mmalign.matching.problem import Assignment, Problem
from mmalign.matching.solvers import solve
from mmalign.types import Box, Phrase, Relation

KINDS = ("left of", "right of", "above", "on", "in", "near", "holding", "bigger")
# No phrase is ever better off without a region.
NEVER = -1000.0


def draw_problem(rng: np.random.Generator, *, phrases: int, regions: int, plural: bool = False) -> Problem:
    """A sentence's problem over random boxes; similarities are alike, so that relations matter."""
    boxes = [Box(*rng.uniform(0, 300, 2), *rng.uniform(20, 200, 2)) for _ in range(regions)]
    pairs = [rng.choice(phrases, 2, replace=False).tolist() for _ in range(phrases - 1)]
    return build_problem(
        rng.normal(0.2, 0.05, (phrases, regions)),
        [Phrase(f"thing {index}", plural=plural and index == 0) for index in range(phrases)],
        [Relation(one, (two,), str(rng.choice(KINDS))) for one, two in pairs],
        boxes,
        existence=rng.uniform(0.2, 0.99, phrases),
        matching=Matching(temperature=0.05),
    )


def one_to_one(problem: Problem) -> Problem:
    """The same problem with each phrase at a region of its own."""
    p, r = problem.shape
    return replace(problem, null=np.full(p, NEVER), capacity=np.ones(r), sharing=np.zeros((r, r)))


def affinity(problem: Problem) -> np.ndarray:
    """The objective as the matrix of a quadratic assignment, with rows in the order that pygmtools expects.

    Its solvers want affinities from 0 up. One-to-one, a phrase's worths and a relation's may each be raised by what
    they lack: that adds the same to every assignment.
    """
    p, r = problem.shape
    tensor = np.zeros((r, p, r, p))
    places = np.arange(r)
    for i in range(p):
        tensor[places, i, places, i] = problem.unary[i] - problem.unary[i].min()
    for edge in problem.edges:
        one, two = edge.phrases
        half = problem.weight * edge.weights[:, 0].max(axis=0) / 2
        half = half - half.min()
        tensor[:, one, :, two] += half
        tensor[:, two, :, one] += half.T
    return tensor.reshape(p * r, p * r)


def by_pygmtools(name: str, matrix: np.ndarray, problem: Problem) -> Assignment:
    import pygmtools

    p, r = problem.shape
    sizes = {"n1": np.array([p]), "n2": np.array([r])}
    with np.errstate(all="ignore"):
        soft = np.asarray(getattr(pygmtools, name)(matrix, **sizes, backend="numpy")).reshape(p, r)
    whole = np.asarray(pygmtools.hungarian(np.nan_to_num(soft), backend="numpy"))
    return tuple((int(row.argmax()),) for row in whole)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.thread_time()
    got = call()
    return (time.thread_time() - start) * 1e3, got


def spread(times: list[float]) -> dict[str, float]:
    middle, most, worst = np.percentile(times, [50, 95, 100])
    return {"median ms": round(middle, 2), "95% ms": round(most, 2), "worst ms": round(worst, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200, help="sentences")
    parser.add_argument("--phrases", type=int, default=6)
    parser.add_argument("--regions", type=int, default=50)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    sizes = {"phrases": options.phrases, "regions": options.regions}
    figures: dict[str, Any] = {}
    problems = [draw_problem(rng, **sizes) for _ in range(options.count)]
    for solver in ("argmax", "hungarian", "graph"):
        solve(problems[0], solver=solver)
    rounds = [
        {s: timed(lambda s=s, q=q: solve(q, solver=s)) for s in ("argmax", "hungarian", "graph")} for q in problems
    ]
    best = [max(found.objective for _, found in turn.values()) for turn in rounds]
    for solver in ("argmax", "hungarian", "graph"):
        found = [turn[solver][1] for turn in rounds]
        figures[solver] = {
            **spread([turn[solver][0] for turn in rounds]),
            "mean objective": round(float(np.mean([solution.objective for solution in found])), 3),
            "as good as the best found %": share([s.objective for s in found], best),
            **({"proven best %": percent([s.converged for s in found])} if solver == "graph" else {}),
        }
    plurals = [timed(lambda q=q: solve(q)) for q in (draw_problem(rng, **sizes, plural=True) for _ in problems)]
    figures["graph, one plural phrase"] = {
        **spread([taken for taken, _ in plurals]),
        "proven best %": percent([s.converged for _, s in plurals]),
    }
    figures |= against_pygmtools([one_to_one(problem) for problem in problems[: max(1, options.count // 4)]])
    data = (
        f"{options.count} random sentences of {options.phrases} phrases and {options.phrases - 1} relations over "
        f"{options.regions} regions, processor time of one thread; one-to-one against pygmtools on a quarter of them"
    )
    results.write("align_solvers", data, figures)


def against_pygmtools(problems: list[Problem]) -> dict[str, Any]:
    ours, theirs = ("hungarian", "graph"), ("ipfp", "rrwm", "sm")
    matrices = [affinity(problem) for problem in problems]
    by_pygmtools("sm", matrices[0], problems[0])
    times: dict[str, list[float]] = {}
    worths: dict[str, list[float]] = {}
    for problem, matrix in zip(problems, matrices, strict=True):
        for solver in ours:
            taken, solution = timed(lambda problem=problem, solver=solver: solve(problem, solver=solver))
            times.setdefault(solver, []).append(taken)
            worths.setdefault(solver, []).append(solution.objective)
        for name in theirs:
            taken, found = timed(lambda name=name, m=matrix, q=problem: by_pygmtools(name, m, q))
            times.setdefault(name, []).append(taken)
            worths.setdefault(name, []).append(problem.objective(found))
    best = np.max(list(worths.values()), axis=0).tolist()
    unit = float(np.median(times["graph"]))
    return {
        f"one-to-one: {name if name in ours else 'pygmtools ' + name}": {
            **spread(times[name]),
            "mean objective": round(float(np.mean(worths[name])), 3),
            "as good as the best found %": share(worths[name], best),
            "time beside graph": round(float(np.median(times[name])) / unit, 1),
        }
        for name in (*ours, *theirs)
    }


def share(worths: list[float], best: list[float]) -> float:
    return percent([worth >= most - 1e-6 for worth, most in zip(worths, best, strict=True)])


def percent(hits: list[bool]) -> float:
    return round(100 * float(np.mean(hits)), 1)


if __name__ == "__main__":
    main()
