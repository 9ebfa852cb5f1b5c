from __future__ import annotations

import itertools

import numpy as np
import pytest

from mmalign.errors import DimensionError, InputError
from mmalign.matching.build import Matching, build_problem
from mmalign.matching.problem import FORBIDDEN, Edge, Problem
from mmalign.matching.solvers import solve
from mmalign.types import Box, Phrase, Relation

BOXES = [Box(0, 0, 10, 10), Box(50, 0, 10, 10), Box(0, 50, 10, 10), Box(1, 0, 10, 10)]


def test_the_worth_is_the_logarithm_of_both_softmaxes() -> None:
    similarity = np.random.default_rng(0).normal(size=(3, 4))
    problem = build_problem(similarity, [Phrase(t) for t in "abc"], [], BOXES, matching=Matching(temperature=0.5))
    powers = np.exp(similarity / 0.5)
    for i, j in itertools.product(range(3), range(4)):
        expected = np.log(powers[i, j] / powers[i].sum()) + np.log(powers[i, j] / powers[:, j].sum())
        assert problem.unary[i, j] == pytest.approx(expected)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_a_phrase_is_matched_where_its_probability_is_above_the_threshold(threshold: float) -> None:
    rng = np.random.default_rng(1)
    existence = np.array([0.1, 0.3, 0.6, 0.9])
    similarity = rng.normal(size=(4, 4)) + 5 * np.eye(4)
    problem = build_problem(
        similarity,
        [Phrase(t) for t in "abcd"],
        [],
        [Box(30 * k, 0, 10, 10) for k in range(4)],
        existence=existence,
        matching=Matching(threshold=threshold, temperature=1.0),
    )
    for solver in ("argmax", "hungarian", "graph"):
        found = solve(problem, solver=solver).assignment
        assert [bool(taken) for taken in found] == (existence > threshold).tolist()
    spread = np.minimum(existence[:, None], rng.random((4, 4)))
    spread[:, 0] = existence
    again = build_problem(
        similarity,
        [Phrase(t) for t in "abcd"],
        [],
        [Box(30 * k, 0, 10, 10) for k in range(4)],
        existence=spread,
        matching=Matching(threshold=threshold, temperature=1.0),
    )
    assert again.null == pytest.approx(problem.null)


def test_a_phrase_that_names_nothing_in_one_place_is_left_out() -> None:
    phrases = [Phrase("a dog"), Phrase("a sunny day", abstract=True)]
    problem = build_problem(np.eye(2, 4), phrases, [], BOXES)
    assert [bool(taken) for taken in solve(problem).assignment] == [True, False]


def test_plurals_and_numbers() -> None:
    phrases = [Phrase("dogs", plural=True), Phrase("two dogs", plural=True, count=2), Phrase("a dog", count=1)]
    phrases += [Phrase("ninety dogs", plural=True, count=90), Phrase("it")]
    problem = build_problem(np.zeros((5, 4)), phrases, [], BOXES, matching=Matching(plural=4))
    assert problem.takes.tolist() == [4, 2, 1, 8, 1]
    assert problem.clash is not None
    assert problem.clash[0, 3]
    assert not problem.clash[0, 1]


def test_mentions_of_one_thing_are_drawn_together() -> None:
    phrases = [Phrase("a dog"), Phrase("a cat"), Phrase("it", antecedent=0), Phrase("its", antecedent=2)]
    problem = build_problem(np.zeros((4, 4)), phrases, [], BOXES)
    assert problem.groups.tolist() == [0, 1, 0, 0]
    assert [edge.phrases for edge in problem.edges if edge.kind == "same"] == [(2, 0), (3, 2)]
    # "it" itself is like another region, a little.
    similarity = np.array([[0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 0.9, 0.0], [0.0, 0.05, 0.0, 0.0], [0.0, 0.04, 0.0, 0.0]])
    found = solve(build_problem(similarity, phrases, [], BOXES, matching=Matching(temperature=0.2)))
    assert found.assignment[0] == found.assignment[2] == found.assignment[3] == (0,)


def test_two_things_pay_for_much_the_same_place() -> None:
    problem = build_problem(np.zeros((2, 4)), [Phrase("a"), Phrase("b")], [], BOXES, matching=Matching(sharing=2.0))
    assert problem.sharing.diagonal() == pytest.approx(2.0)
    assert problem.sharing[0, 3] == pytest.approx(2.0 * (90 / 110 - 0.5) / 0.5)
    assert problem.sharing[0, 1] == 0


def test_relations_become_edges() -> None:
    phrases = [Phrase("a"), Phrase("b"), Phrase("trees", plural=True)]
    relations = [Relation(0, (1,), "left of"), Relation(0, (1,), "with"), Relation(0, (2,), "between")]
    problem = build_problem(np.zeros((3, 4)), phrases, relations, BOXES, matching=Matching(relation_weight=0.3))
    assert [(edge.relation, edge.phrases) for edge in problem.edges] == [(0, (0, 1)), (2, (0, 2, 2))]
    assert problem.weight == 0.3
    edge = problem.edges[0]
    assert edge.value((0, 1)) > 0 > edge.value((1, 0))


def test_the_worth_of_an_edge_is_the_best_of_its_ways() -> None:
    weights = np.random.default_rng(2).normal(size=(3, 2, 4, 4))
    edge = Edge((0, 1, 2), weights)
    for j, m, n in itertools.product(range(4), repeat=3):
        assert edge.value((j, m, n)) == pytest.approx(max(way[0, j, m] + way[1, j, n] for way in weights))
    one = Edge((0, 1, 1), weights)
    assert one.value((0, 1, 2)) == one.value((0, 2, 1)) == max(edge.value((0, 1, 2)), edge.value((0, 2, 1)))
    assert list(one.placements(((3,), (2, 0, 1)))) == [(3, 0, 1), (3, 0, 2), (3, 1, 2)]
    assert list(Edge((0, 1, 2), weights).placements(((3,), (1,), ()))) == []


def test_forbidding_a_link() -> None:
    problem = Problem([[2.0, 1.0]])
    assert solve(problem).assignment == ((0,),)
    assert solve(problem.forbid(0, 0)).assignment == ((1,),)
    assert problem.forbid(0, 0).unary[0, 0] == FORBIDDEN
    assert problem.unary[0, 0] == 2.0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"unary": [[np.nan, 1.0]]}, "1 values that are NaN"),
        ({"unary": [[np.inf, 1.0]]}, "NaN or infinite"),
        ({"unary": [1.0, 2.0]}, r"\(phrases, regions\)"),
        ({"unary": [["a", "b"]]}, "must be numbers"),
        ({"null": [1.0, 2.0]}, r"expected an array of shape \(1,\)"),
        ({"capacity": [0, 1]}, "whole numbers from 1"),
        ({"capacity": [1]}, r"expected an array of shape \(2,\)"),
        ({"takes": [0]}, "whole numbers from 1"),
        ({"takes": [1.5]}, "whole numbers from 1"),
        ({"sharing": -1.0}, "0 or more"),
        ({"sharing": [[0.0, 1.0], [0.0, 0.0]]}, "same both ways"),
        ({"weight": np.nan}, "weight of relations"),
        ({"edges": (Edge((0, 1), np.zeros((1, 1, 2, 2)), "on"),)}, "names phrase 1, but there are 1"),
        ({"edges": (Edge((0, 0), np.zeros((1, 1, 2, 2)), "on"),)}, "with respect to one or two others"),
        ({"unary": np.zeros((2, 2)), "edges": (Edge((0, 1), np.zeros((2, 2)), "on"),)}, "weights of the relation"),
        ({"unary": np.zeros((2, 2)), "edges": (Edge((0, 1), np.full((1, 1, 2, 2), np.nan), "on"),)}, "hold NaN"),
    ],
)
def test_problems_that_make_no_sense(parts: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Problem(**{"unary": [[1.0, 2.0]], **parts})


def test_input_that_makes_no_sense() -> None:
    phrases = [Phrase("a"), Phrase("b")]
    with pytest.raises(InputError, match="1 similarities are NaN"):
        build_problem([[0, 0, 0, np.nan], [0, 0, 0, 0]], phrases, [], BOXES)
    with pytest.raises(DimensionError, match=r"expected similarities of shape \(2, 4\)"):
        build_problem(np.zeros((2, 3)), phrases, [], BOXES)
    with pytest.raises(InputError, match=r"names the phrases \[0, 5\], but there are 2"):
        build_problem(np.zeros((2, 4)), phrases, [Relation(0, (5,), "on")], BOXES)
    with pytest.raises(InputError, match="unknown relation 'beneath'"):
        build_problem(np.zeros((2, 4)), phrases, [Relation(0, (1,), "beneath")], BOXES)
    with pytest.raises(InputError, match="stands for phrase 7"):
        build_problem(np.zeros((1, 4)), [Phrase("it", antecedent=7)], [], BOXES)
    with pytest.raises(InputError, match="must be 0 to 1"):
        build_problem(np.zeros((2, 4)), phrases, [], BOXES, existence=[0.5, 1.5])
    with pytest.raises(InputError, match="must be 0 to 1"):
        build_problem(np.zeros((2, 4)), phrases, [], BOXES, existence=[0.5, np.nan])
    with pytest.raises(DimensionError, match="expected probabilities"):
        build_problem(np.zeros((2, 4)), phrases, [], BOXES, existence=[0.5])


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0}, {"temperature": np.nan}, {"threshold": 1}, {"sharing": -1}, {"capacity": 0}, {"plural": 0}],
)
def test_weights_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Matching(**wrong)


def test_nothing_to_match() -> None:
    phrases = [Phrase("a"), Phrase("dogs", plural=True)]
    assert solve(build_problem(np.zeros((2, 0)), phrases, [Relation(0, (1,), "on")], [])).assignment == ((), ())
    assert solve(build_problem([], [], [], BOXES)).assignment == ()
