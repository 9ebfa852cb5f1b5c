"""Which way a search is answered."""

from __future__ import annotations

import pytest

from mmalign.index.exact import ExactIndex
from mmalign.index.recall.recall_curves import EXACT_ROWS, RecallCurve, RecallProfile
from mmalign.search.plan import IndexCapabilities, SearchRequest, capabilities_of, plan_search

MILLION = 1_000_000


def curve(share: float, k: int, *lower: float, kind: str = "text") -> RecallCurve:
    """Efforts 10, 100, 1000... with these lower bounds."""
    return RecallCurve(kind, share, k, tuple(10 ** (i + 1) for i in range(len(lower))), lower, lower, 240)


CONTRACT = RecallProfile(
    0.95,
    (
        curve(1.0, 1, 0.9, 0.97, 0.995),
        curve(1.0, 10, 0.8, 0.96, 0.99),
        curve(1.0, 100, 0.5, 0.93, 0.98),
        curve(0.1, 10, 0.4, 0.7, 0.97),
        curve(1.0, 10, 0.99, 0.995, 0.998, kind="image"),
    ),
    min_recall=0.95,
)
GRAPH = IndexCapabilities(MILLION, core="hnsw", default_effort=64, scans=True)
LISTS = IndexCapabilities(
    MILLION, core="ivf", lists=4000, default_effort=250, rerank_factor=16, codes=True, scans=True, min_selectivity=0.01
)
CODES = IndexCapabilities(MILLION, core="ivf", lists=4000, default_effort=250, codes=True, min_selectivity=0.01)
BLIND = IndexCapabilities(MILLION, default_effort=8, filters=False, min_selectivity=0.1)
FLAT = IndexCapabilities(MILLION, core="scan", exhaustive=True, scans=True)


@pytest.mark.parametrize(
    ("wish", "index", "way", "effort", "depth"),
    [
        # What was promised at the build, and what is asked for.
        (SearchRequest(10, kinds=("text",)), GRAPH, "index", 100, 10),
        (SearchRequest(10, min_recall=0.98, kinds=("text",)), GRAPH, "index", 1000, 10),
        (SearchRequest(10, min_recall=0.5, kinds=("text",)), GRAPH, "index", 10, 10),
        (SearchRequest(1, kinds=("text",)), GRAPH, "index", 100, 10),
        (SearchRequest(50, kinds=("text",)), GRAPH, "index", 1000, 50),
        (SearchRequest(10, kinds=("image",)), GRAPH, "index", 10, 10),
        # A vector may be anything: the most careful of what was measured.
        (SearchRequest(10, kinds=("given",)), GRAPH, "index", 100, 10),
        (SearchRequest(10, kinds=None), GRAPH, "index", 100, 10),
        # Nothing promises that.
        (SearchRequest(10, min_recall=0.995, kinds=("text",)), GRAPH, "exact", None, 0),
        (SearchRequest(10, min_recall=1.0, kinds=("text",)), GRAPH, "exact", None, 0),
        (SearchRequest(500, kinds=("text",)), GRAPH, "exact", None, 0),
        (SearchRequest(10, allowed=50_000, kinds=("text",)), LISTS, "exact", None, 0),
        # Few rows cost less than any way around them.
        (SearchRequest(10, allowed=0, kinds=("text",)), GRAPH, "exact", None, 0),
        (SearchRequest(10, allowed=EXACT_ROWS, kinds=("text",)), CODES, "exact", None, 0),
        # Half: what is allowed among the first forty.
        (SearchRequest(10, allowed=500_000, kinds=("text",)), GRAPH, "overfetch", 1000, 40),
        (SearchRequest(10, allowed=500_000, kinds=("text",)), CODES, "overfetch", 1000, 40),
        (SearchRequest(10, allowed=500_000, min_recall=0.9, kinds=("text",)), GRAPH, "overfetch", 100, 40),
        # A tenth: a hundred would not reach; the measured selector, where there is one.
        (SearchRequest(10, allowed=100_000, kinds=("text",)), CODES, "prefilter", 1000, 10),
        (SearchRequest(10, allowed=100_000, kinds=("text",)), BLIND, "exact", None, 0),
        # To copy and compare a tenth costs no more than so many steps of a graph.
        (SearchRequest(10, allowed=30_000, min_recall=0.9, kinds=("text",)), GRAPH, "exact", None, 0),
        # Exhaustive indexes are always right.
        (SearchRequest(10, min_recall=1.0), FLAT, "index", None, 10),
        (SearchRequest(10, allowed=500, min_recall=1.0), FLAT, "prefilter", None, 10),
    ],
)
def test_way_by_contract(
    wish: SearchRequest, index: IndexCapabilities, way: str, effort: int | None, depth: int
) -> None:
    plan = plan_search(wish, index, CONTRACT)
    assert (plan.strategy, plan.effort, plan.fetch_k) == (way, effort, depth), plan.reason
    assert plan.reason


@pytest.mark.parametrize(
    ("wish", "index", "way", "fell_back"),
    [
        (SearchRequest(10), GRAPH, "index", False),
        (SearchRequest(10, allowed=500_000), GRAPH, "prefilter", False),
        (SearchRequest(10, allowed=EXACT_ROWS), GRAPH, "exact", False),
        (SearchRequest(10, allowed=99_999), BLIND, "exact", False),
        (SearchRequest(10, min_recall=0.1), GRAPH, "exact", True),
        (SearchRequest(10, min_recall=1.0), FLAT, "index", False),
    ],
)
def test_way_without_a_contract(wish: SearchRequest, index: IndexCapabilities, way: str, fell_back: bool) -> None:
    plan = plan_search(wish, index, None)
    assert (plan.strategy, plan.fell_back) == (way, fell_back)
    assert plan.effort == (index.default_effort if way in ("index", "prefilter") else None)


def test_falling_back_is_told_apart_from_choosing_exact_search() -> None:
    assert not plan_search(SearchRequest(10, allowed=500, kinds=("text",)), GRAPH, CONTRACT).fell_back
    plan = plan_search(SearchRequest(10, min_recall=0.995, kinds=("text",)), GRAPH, CONTRACT)
    assert plan.fell_back
    assert "recall@10 of 0.995 for text queries" in plan.reason
    assert (
        "among 5% of the items"
        in plan_search(SearchRequest(10, allowed=50_000, kinds=("text",)), LISTS, CONTRACT).reason
    )
    unmeasured = RecallProfile(0.95, (curve(1.0, 10, 0.99, kind="image"),), min_recall=0.9)
    assert plan_search(SearchRequest(10, kinds=("text",)), GRAPH, unmeasured).fell_back


def test_exact_search_is_taken_where_it_costs_no_more() -> None:
    small = IndexCapabilities(30_000, core="hnsw", default_effort=64, scans=True)
    assert plan_search(SearchRequest(10, kinds=("text",), min_recall=0.98), small, CONTRACT).strategy == "exact"
    assert plan_search(SearchRequest(10, kinds=("image",)), small, CONTRACT).strategy == "index"


def test_a_step_of_a_graph_costs_as_much_as_160_vectors() -> None:
    """With an effort of 100 that is 16,000 vectors compared one by one: so many rows, and one more, tell it."""
    assert GRAPH.cost(100, 10) == 100 * GRAPH.cost(1, 1) == 160 * 100
    # A graph that looks for more hits than its effort goes as many steps; without an effort it goes its default.
    assert GRAPH.cost(10, 200) == 160 * 200
    assert GRAPH.cost(None, 10) == 160 * 64
    asked = SearchRequest(10, kinds=("text",))
    for rows, way in ((16_000, "exact"), (16_001, "index")):
        plan = plan_search(asked, IndexCapabilities(rows, core="hnsw", default_effort=64, scans=True), CONTRACT)
        assert (plan.strategy, plan.fell_back) == (way, False)
    # Vectors that the index does not hold are read from the collection first, at ten times the cost.
    for rows, way in ((1_600, "exact"), (1_601, "index")):
        assert plan_search(asked, IndexCapabilities(rows, core="hnsw", default_effort=64), CONTRACT).strategy == way


def test_deeper_keeps_the_promise_at_both_ends() -> None:
    curves = (curve(1.0, 10, 0.8, 0.9, 0.96), curve(1.0, 100, 0.96, 0.97, 0.98))
    plan = plan_search(
        SearchRequest(10, allowed=500_000, kinds=("text",)), CODES, RecallProfile(0.95, curves, min_recall=0.95)
    )
    assert (plan.strategy, plan.effort) == ("overfetch", 1000)
    curves = (curve(1.0, 10, 0.8, 0.9, 0.94), curves[1])
    assert plan_search(
        SearchRequest(10, allowed=500_000, kinds=("text",)), CODES, RecallProfile(0.95, curves, min_recall=0.95)
    ).fell_back


def test_effort_means_nothing_to_some_indexes() -> None:
    scan = IndexCapabilities(MILLION, core="scan")
    single = RecallProfile(0.95, (RecallCurve("text", 1.0, 10, (1,), (0.97,), (0.96,), 240),), min_recall=0.95)
    plan = plan_search(SearchRequest(10, kinds=("text",)), scan, single)
    assert (plan.strategy, plan.effort) == ("index", None)


def test_costs_rise_with_the_work() -> None:
    for index in (GRAPH, LISTS, CODES):
        costs = [index.cost(effort, 10) for effort in (1, 64, 1000, 4000)]
        assert costs == sorted(costs)
        exact = [index.exact_cost(rows) for rows in (1, 1000, 100_000, MILLION // 4)]
        assert exact == sorted(exact)
    assert CODES.exact_cost(1000) > LISTS.exact_cost(1000)


def test_traits_of_an_index_that_says_only_what_the_protocol_asks() -> None:
    index = ExactIndex(4)
    assert capabilities_of(index) == IndexCapabilities(0, exhaustive=True, filters=True)
