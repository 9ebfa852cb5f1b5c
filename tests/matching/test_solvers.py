from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from mmalign.errors import InputError
from mmalign.matching.problem import Edge, Problem
from mmalign.matching.solvers import solve, solve_many
from tests.matching.instances import exhaustive, random_problem


@pytest.mark.parametrize("part", range(4))
def test_graph_finds_the_best_of_all_assignments(part: int) -> None:
    rng = np.random.default_rng(part)
    for _ in range(400):
        problem = random_problem(rng, p=int(rng.integers(1, 4)), r=int(rng.integers(1, 4)))
        _, best = exhaustive(problem)
        found = solve(problem)
        assert found.feasible
        assert found.converged
        assert found.objective == pytest.approx(best, abs=1e-7)
        assert found.objective == pytest.approx(problem.objective(found.assignment))
        assert found.bound is not None
        assert found.bound >= best - 1e-7


def test_graph_finds_the_best_of_more_phrases_and_regions() -> None:
    rng = np.random.default_rng(7)
    for _ in range(25):
        problem = random_problem(rng, p=4, r=5, plurals=False)
        _, best = exhaustive(problem)
        assert solve(problem).objective == pytest.approx(best, abs=1e-7)


def test_without_relations_hungarian_is_best() -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        problem = random_problem(rng, p=3, r=4, density=0, triples=False, plurals=False)
        # Only sharing of one and the same region is linear, and mentions of one thing are kept together.
        sharing = np.eye(4) * rng.choice([0.0, 0.7, 5.0])
        problem = Problem(problem.unary, null=problem.null, capacity=problem.capacity, sharing=sharing)
        _, best = exhaustive(problem)
        found = solve(problem, solver="hungarian")
        assert found.feasible
        assert found.objective == pytest.approx(best)
        assert found.bound is None


def test_hungarian_keeps_to_what_is_allowed() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        problem = random_problem(rng, p=3, r=4)
        found = solve(problem, solver="hungarian")
        assert found.feasible
        assert found.objective == pytest.approx(problem.objective(found.assignment))
        assert solve(problem).objective >= found.objective - 1e-9


def test_argmax_is_each_phrase_by_itself() -> None:
    rng = np.random.default_rng(3)
    problem = Problem(rng.normal(size=(5, 7)), null=rng.normal(size=5) + 1, capacity=np.ones(7))
    expected = tuple(
        (int(row.argmax()),) if row.max() > null else () for row, null in zip(problem.unary, problem.null, strict=True)
    )
    assert solve(problem, solver="argmax").assignment == expected


def test_argmax_says_where_it_gives_a_region_away_twice() -> None:
    problem = Problem([[1.0, 0.0], [1.0, 0.5]], capacity=[1, 1])
    assert not solve(problem, solver="argmax").feasible
    for solver in ("hungarian", "graph"):
        found = solve(problem, solver=solver)
        assert found.feasible
        assert found.assignment == ((0,), (1,))


def test_relations_tell_apart_what_looks_alike() -> None:
    # Phrase 1 can only be region 2; phrase 0 is as much like 0 as like 1, and related to 2 in one of them alone.
    weights = np.zeros((1, 1, 3, 3))
    weights[0, 0, 1, 2] = 0.5
    problem = Problem([[1.0, 1.0, -9.0], [-9.0, -9.0, 1.0]], edges=(Edge((0, 1), weights, "left of"),))
    assert solve(problem, solver="hungarian").assignment == ((0,), (2,))
    assert solve(problem).assignment == ((1,), (2,))


def test_a_plural_phrase_takes_several_regions_but_not_the_same_place() -> None:
    clash = np.zeros((3, 3), bool)
    clash[0, 1] = clash[1, 0] = True
    problem = Problem([[3.0, 2.9, 1.0]], takes=[2], clash=clash)
    for solver in ("argmax", "hungarian", "graph"):
        assert solve(problem, solver=solver).assignment == ((0, 2),)


def test_mentions_of_one_thing_share_for_nothing() -> None:
    unary = [[2.0, 0.0], [2.0, 1.5]]
    strangers = Problem(unary, sharing=1.0)
    mentions = Problem(unary, sharing=1.0, groups=[4, 4], capacity=[1, 1])
    assert solve(strangers).assignment == ((0,), (1,))
    for solver in ("hungarian", "graph"):
        assert solve(mentions, solver=solver).assignment == ((0,), (0,))


@pytest.mark.parametrize("solver", ["argmax", "hungarian", "graph"])
def test_nothing_to_match(solver: str) -> None:
    none = solve(Problem(np.zeros((2, 0)), null=[0.5, 1.0], takes=[1, 3]), solver=solver)
    assert none.assignment == ((), ())
    assert none.objective == pytest.approx(3.5)
    assert solve(Problem(np.zeros((0, 3))), solver=solver).assignment == ()


@pytest.mark.parametrize("solver", ["argmax", "hungarian", "graph"])
def test_many_are_solved_as_one_by_one(solver: str) -> None:
    rng = np.random.default_rng(4)
    problems = [random_problem(rng, p=3, r=5) for _ in range(5)]
    assert solve_many(problems, solver=solver) == [solve(problem, solver=solver) for problem in problems]


def test_the_bound_holds_where_the_search_stops_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.matching.joint._WIDTH", 1)
    monkeypatch.setattr("mmalign.matching.joint._MOST_NUMBERS", 1)
    rng = np.random.default_rng(5)
    open_ends = 0
    for _ in range(150):
        problem = random_problem(rng, p=3, r=4, density=2.0, plurals=False)
        found = solve(problem)
        _, best = exhaustive(problem)
        assert found.bound is not None
        assert found.objective - 1e-9 <= best <= found.bound + 1e-7
        assert found.gap == pytest.approx(found.bound - found.objective)
        if not found.converged:
            open_ends += 1
            assert found.gap > 1e-6
    assert open_ends > 10


def test_unknown_solver() -> None:
    with pytest.raises(InputError, match="argmax, hungarian, graph"):
        solve(Problem([[1.0]]), solver="magic")  # type: ignore[arg-type]


def test_one_to_one_agrees_with_pygmtools_and_pot() -> None:
    pygmtools = pytest.importorskip("pygmtools")
    ot = pytest.importorskip("ot")
    rng = np.random.default_rng(6)
    for _ in range(10):
        unary = rng.normal(size=(4, 4))
        problem = Problem(unary, null=np.full(4, -100.0), capacity=np.ones(4))
        found = solve(problem, solver="hungarian")
        theirs = pygmtools.hungarian(unary, backend="numpy")
        plan = ot.emd(np.full(4, 0.25), np.full(4, 0.25), -unary)
        assert [(int(row.argmax()),) for row in theirs] == list(found.assignment)
        assert found.objective == pytest.approx(4 * (plan * unary).sum())
        rows, columns = linear_sum_assignment(unary, maximize=True)
        assert found.objective == pytest.approx(unary[rows, columns].sum())


def affinity(problem: Problem) -> np.ndarray:
    """The objective of a one-to-one problem as the matrix of a quadratic assignment, by columns as pygmtools has it."""
    p, r = problem.shape
    matrix = np.zeros((p * r, p * r))
    for i, j in itertools.product(range(p), range(r)):
        matrix[j * p + i, j * p + i] = problem.unary[i, j]
    for edge in problem.edges:
        one, two = edge.phrases
        for j, m in itertools.product(range(r), range(r)):
            matrix[j * p + one, m * p + two] += problem.weight * edge.weights[0, 0, j, m] / 2
            matrix[m * p + two, j * p + one] += problem.weight * edge.weights[0, 0, j, m] / 2
    return matrix


def test_graph_is_no_worse_than_the_solvers_of_pygmtools() -> None:
    pygmtools = pytest.importorskip("pygmtools")
    rng = np.random.default_rng(8)
    equal = 0
    for _ in range(10):
        p, r = 3, 5
        edges = tuple(Edge(pair, rng.random((1, 1, r, r)), "on") for pair in ((0, 1), (1, 2), (2, 0)))
        problem = Problem(rng.random((p, r)), null=np.full(p, -100.0), capacity=np.ones(r), edges=edges)
        found = solve(problem)
        for solver in (pygmtools.ipfp, pygmtools.rrwm):
            # Theirs divides 0 by 0 where a step changes nothing.
            with np.errstate(all="ignore"):
                soft = solver(affinity(problem), np.array([p]), np.array([r]), backend="numpy")
            theirs = pygmtools.hungarian(np.asarray(soft).reshape(p, r), backend="numpy")
            worth = problem.objective(tuple((int(row.argmax()),) for row in theirs))
            vector = theirs.T.ravel()
            assert worth == pytest.approx(vector @ affinity(problem) @ vector)
            assert found.objective >= worth - 1e-9
            equal += found.objective == pytest.approx(worth)
    assert equal > 0
