from __future__ import annotations

import json

import numpy as np
import pytest

from mmalign.alignment.build import build_alignment
from mmalign.alignment.explain import explain_phrase, split_objective
from mmalign.alignment.result import Alignment
from mmalign.errors import InputError
from mmalign.matching.build import build_problem
from mmalign.matching.marginals import conditional_worth, link_marginals
from mmalign.matching.problem import Problem
from mmalign.matching.solvers import solve
from mmalign.parsing.phrases import Parsed
from mmalign.types import Box, Phrase, Region, Relation
from tests.matching.instances import exhaustive, random_problem


def test_terms_and_shares_add_up_to_the_objective() -> None:
    rng = np.random.default_rng(0)
    kinds = set()
    for _ in range(1000):
        p = int(rng.integers(1, 5))
        problem = random_problem(rng, p=p, r=int(rng.integers(0, 6)))
        # Any assignment, not only the best one, since the sum must not depend on that.
        taken = tuple(
            tuple(rng.permutation(problem.shape[1])[: rng.integers(0, takes + 1)].tolist()) for takes in problem.takes
        )
        terms = split_objective(problem, taken)
        kinds |= {term.kind for term in terms}
        assert abs(sum(term.value for term in terms) - problem.objective(taken)) < 1e-6
        shares = [sum(term.share * term.phrases.count(i) for term in terms) for i in range(p)]
        assert abs(sum(shares) - problem.objective(taken)) < 1e-6
    assert kinds == {"similarity", "none", "relation", "sharing"}


def test_totals_of_the_phrases_add_up() -> None:
    rng = np.random.default_rng(1)
    for _ in range(40):
        problem = random_problem(rng, p=3, r=4)
        solution = solve(problem)
        phrases = [Phrase(f"thing {i}") for i in range(3)]
        told = [explain_phrase(problem, solution, i, phrases=phrases, relations=()) for i in range(3)]
        assert sum(explanation.total for explanation in told) == pytest.approx(solution.objective, abs=1e-6)
        for explanation in told:
            parts = explanation.similarity + explanation.relations + explanation.sharing + explanation.none
            assert explanation.total == pytest.approx(parts)
            assert explanation.null == pytest.approx(
                problem.null[explanation.phrase] * problem.takes[explanation.phrase]
            )


def test_the_loss_of_a_link_is_what_the_best_other_assignment_loses() -> None:
    rng = np.random.default_rng(2)
    links = 0
    for _ in range(40):
        problem = random_problem(rng, p=3, r=3)
        solution = solve(problem)
        phrases = [Phrase(f"thing {i}") for i in range(3)]
        for i, taken in enumerate(solution.assignment):
            explanation = explain_phrase(problem, solution, i, phrases=phrases, relations=())
            for alternative in explanation.alternatives:
                if alternative.without is None:
                    assert taken == ()
                    continue
                links += 1
                _, best = exhaustive(problem.forbid(i, alternative.without))
                assert alternative.without not in alternative.instead
                assert alternative.loss == pytest.approx(solution.objective - best, abs=1e-6)
                assert alternative.loss >= -1e-9
                assert sum(term.value for term in alternative.terms) == pytest.approx(best)
    assert links > 30


def test_soft_scores_agree_with_moving_one_phrase() -> None:
    rng = np.random.default_rng(3)
    for _ in range(40):
        problem = random_problem(rng, p=3, r=4, plurals=False)
        solution = solve(problem)
        worth = conditional_worth(problem, solution.assignment)
        for i in range(3):
            for j in range(5):
                moved = tuple(
                    (() if j == 4 else (j,)) if k == i else taken for k, taken in enumerate(solution.assignment)
                )
                if problem.feasible(moved):
                    change = problem.objective(moved) - solution.objective
                    now = solution.assignment[i][0] if solution.assignment[i] else 4
                    assert worth[i, j] - worth[i, now] == pytest.approx(change)
                else:
                    assert worth[i, j] < -1e5
        scores = link_marginals(problem, solution)
        assert scores.sum(axis=1).max() <= 1 + 1e-6
        for i, taken in enumerate(solution.assignment):
            if taken:
                assert scores[i, taken[0]] == pytest.approx(scores[i].max())


def test_soft_scores_of_argmax_look_at_no_relation() -> None:
    problem = random_problem(np.random.default_rng(4), p=3, r=4, density=3.0, plurals=False)
    together = np.exp(np.concatenate([problem.unary, problem.null[:, None]], axis=1))
    expected = (together / together.sum(axis=1, keepdims=True))[:, :4]
    assert link_marginals(problem, solve(problem, solver="argmax")) == pytest.approx(expected, rel=1e-5)


@pytest.fixture
def alignment() -> Alignment:
    """Two red circles alike, of which one is left of the square; and no tree."""
    boxes = [Box(0, 0, 10, 10), Box(80, 0, 10, 10), Box(40, 0, 10, 10)]
    phrases = (Phrase("the red circle"), Phrase("the square"), Phrase("a tree"))
    relations = (Relation(0, (1,), "right of", "to the right of"),)
    similarity = np.array([[0.5, 0.5, 0.1], [0.1, 0.1, 0.5], [0.1, 0.1, 0.1]])
    problem = build_problem(similarity, phrases, relations, boxes, existence=np.array([0.99, 0.99, 0.05]))
    parsed = Parsed("the red circle to the right of the square, and a tree", phrases, relations, "given", ())
    return build_alignment(parsed, [Region(box) for box in boxes], problem, solve(problem), notes=["a remark"])


def test_an_explanation_in_words(alignment: Alignment) -> None:
    told = alignment.explain("the red circle")
    assert told.regions == (1,)
    assert "is matched to the place at 80, 0 (10 x 10 pixels)" in told.text
    assert "'the red circle' to the right of 'the square' adds +0.6" in told.text
    assert "Without the place at 80, 0 (10 x 10 pixels), the place at 0, 0 (10 x 10 pixels) would be best" in told.text
    assert told.relations == pytest.approx(sum(term.share for term in told.terms if term.kind == "relation"))
    missing = alignment.explain(2)
    assert missing.regions == ()
    assert "'a tree' is not found in the picture" in missing.text
    assert "If it had to match something, the place at " in missing.text
    assert "region" not in told.text + missing.text
    assert json.loads(json.dumps(told.to_dict()))["phrase"] == 0


def test_an_alignment_as_values_and_as_a_graph(alignment: Alignment) -> None:
    told = json.loads(json.dumps(alignment.to_dict()))
    assert told["unmatched_phrases"] == [2]
    assert [(link["phrase"], link["region"]) for link in told["links"]] == [(0, 1), (1, 2)]
    assert told["notes"] == ["a remark"]
    assert sum(term.value for term in alignment.terms()) == pytest.approx(told["objective"])
    graph = alignment.to_graph()
    assert set(graph.successors(("phrase", 0))) == {("region", 1), ("phrase", 1)}
    (relation,) = graph.get_edge_data(("phrase", 0), ("phrase", 1)).values()
    assert relation["kind"] == "right of"
    assert relation["value"] == pytest.approx(sum(t.value for t in alignment.terms() if t.kind == "relation"))
    assert graph.out_degree(("phrase", 2)) == 0


@pytest.mark.parametrize("phrase", [3, -1, "a dog"])
def test_an_unknown_phrase(alignment: Alignment, phrase: int | str) -> None:
    with pytest.raises(InputError, match="the phrases are: 'the red circle'"):
        alignment.explain(phrase)


def test_no_regions() -> None:
    phrases = [Phrase("a dog")]
    problem = Problem(np.zeros((1, 0)))
    told = explain_phrase(problem, solve(problem), 0, phrases=phrases, relations=())
    assert told.alternatives == ()
    assert told.text == "'a dog' is matched to no region."
