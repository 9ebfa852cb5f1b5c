"""What is chosen for which data and budgets, and what is said about it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from mmalign.errors import InputError, RecipeError
from mmalign.index.planning import choose as module
from mmalign.index.planning.choose import Budget, check_memory, choose, chooses_exact
from mmalign.index.planning.costs import Costs, build_seconds, cache_miss_share, load_costs, search_seconds
from mmalign.index.planning.estimate import Meter, check_estimate, estimate
from mmalign.index.planning.recipe import Recipe, list_recipes, load_recipe
from mmalign.index.planning.sizes import size_of
from mmalign.utils.quantities import parse_bytes

DIM = 384
# A machine that is easy to reckon with: everything takes a nanosecond, a read a tenth of a millisecond.
TABLE = dict.fromkeys(("exact", "Flat", "SQfp16", "SQ8", "PQ", "PQfs", "RaBitQ", "RaBitQfs"), 1e-9)
COSTS = Costs("a machine", "a day", "abc", call=1e-5, multiply=1e-9, project=1e-9, fetch=1e-8, graph=1e-9, link=1e-9,
              refine=1e-9, read=1e-4, probe={"PQfs": 1e-6}, scan=TABLE, encode=TABLE)  # fmt: skip


def refusals(choice: module.IndexChoice) -> dict[str, str]:
    return {one.recipe.name: one.refused for one in choice.candidates}


@pytest.mark.parametrize(
    ("rows", "has_faiss", "name", "reason"),
    [
        (0, True, "flat", "milliseconds"),
        (49_999, True, "flat", "49,999 vectors of dim 8: flat, since"),
        (50_000, True, "hnsw", "graph"),
        (999_999, True, "hnsw", "graph"),
        (1_000_000, True, "ivf-pq", "short codes"),
        (10**9, True, "ivf-pq", "short codes"),
        (10**6, False, "flat", "FAISS is not installed; pip install 'mmalign[cpu]' for ivf-pq"),
        (10, False, "flat", "milliseconds"),
    ],
)
def test_choice_by_size(rows: int, has_faiss: bool, name: str, reason: str) -> None:
    choice = choose(rows, 8, Budget(has_faiss=has_faiss))
    assert choice.recipe.name == choice.estimate.recipe == name
    assert reason in choice.reason
    assert {one.recipe.name for one in choice.candidates} == {recipe.name for recipe in list_recipes()}
    assert choice.candidates[0].recipe == choice.recipe
    assert all(one.refused for one in choice.candidates[1:])


def test_small_data_need_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chooses_exact(49_999, DIM)
    assert not chooses_exact(50_000, DIM)
    monkeypatch.setattr(module, "has_faiss_installed", lambda: False)
    assert chooses_exact(50_000, DIM)


def test_short_memory_leaves_parts_on_disk_and_says_so() -> None:
    choice = choose(100_000_000, DIM, Budget(memory=parse_bytes("32GB"), min_recall=0.9))
    assert choice.recipe.name == "rabitq4"
    assert choice.estimate.memory <= 32e9
    assert choice.estimate.least_build_memory <= 32e9
    assert "ivf-pq is not taken because building takes " in choice.reason
    told = refusals(choice)
    assert told["hnsw"].startswith("searching takes ")
    assert told["gpu-flat"] == "it is for device cuda"
    assert told["ivf-disk"] == "a part of it would have to stay on disk"
    # Nobody is promised more than was ever found.
    more = choose(100_000_000, DIM, Budget(memory=parse_bytes("32GB"), min_recall=0.95))
    assert more.recipe.name == "ivf-disk"
    assert refusals(more)["rabitq4"] == "it found at most 94.8% of the nearest where it was measured"
    shorter = choose(100_000_000, DIM, Budget(memory=parse_bytes("10GB")))
    assert shorter.recipe.storage == "disk"
    assert shorter.candidates[0].on_disk
    assert shorter.estimate.least_memory <= 10e9 < shorter.estimate.disk
    # Candidates that are compared again may stay on disk, where the index could be built.
    recipes = [load_recipe("ivf-pq")]
    free = choose(10**6, DIM, recipes=recipes)
    bound = choose(10**6, DIM, Budget(memory=free.estimate.least_build_memory), recipes=recipes)
    assert not free.candidates[0].on_disk
    assert bound.candidates[0].on_disk == (free.estimate.memory > free.estimate.least_build_memory)


def test_the_smallest_budget_that_works_works_and_less_does_not() -> None:
    for rows, budget in [(10**8, Budget(memory=1000)), (10**6, Budget(memory=5000, latency=0.05)),
                         (10**5, Budget(memory=10, min_recall=1.0))]:  # fmt: skip
        with pytest.raises(InputError, match=r"the smallest budget that works is [0-9.]+ [kMG]B, with \S+") as caught:
            choose(rows, DIM, budget)
        written, _, name = str(caught.value).partition("works is ")[2].partition(", with ")
        enough = parse_bytes(written)
        found = {one.recipe.name: one for one in choose(rows, DIM, replace(budget, memory=enough)).candidates}
        assert found[name].least <= enough
        assert not found[name].refused or "the chosen one" in found[name].refused or "meant" in found[name].refused
        with pytest.raises(InputError, match="smallest budget"):
            choose(rows, DIM, replace(budget, memory=int(enough * 0.85)))


def test_budgets_that_no_memory_helps_with() -> None:
    with pytest.raises(InputError, match=r"keeps to the budgets .*hnsw: a query takes about .*; ask for less recall"):
        choose(10**7, DIM, Budget(latency=1e-9))
    with pytest.raises(InputError, match="keeps to the budgets"):
        choose(10**7, DIM, Budget(latency=1e-9, memory=10**9))


def test_a_named_design_is_refused_where_memory_is_too_small() -> None:
    recipe = load_recipe("hnsw")
    with pytest.raises(
        InputError, match=r"building hnsw over 1,000,000 .* takes at least \S+ GB .* got a budget of 1 GB"
    ):
        check_memory(recipe, rows=10**6, dim=DIM, memory=10**9)
    least = estimate(recipe, rows=10**6, dim=DIM).least_build_memory
    check_memory(recipe, rows=10**6, dim=DIM, memory=least)
    check_memory(recipe, rows=10**6, dim=DIM, memory=None)
    check_memory(Recipe(name="odd", summary="x", factory="NSG32"), rows=10**6, dim=DIM, memory=1)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"min_recall": 0}, "above 0 and at most 1"), ({"min_recall": 1.1}, "at most 1"), ({"memory": 0}, "1 byte"),
     ({"latency": 0.0}, "above 0 seconds"), ({"latency": math.nan}, "above 0"), ({"threads": 0}, "threads"),
     ({"min_recall": math.nan}, "min_recall")],
)  # fmt: skip
def test_impossible_budgets(values: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget(**values)  # type: ignore[arg-type]


def test_latency_rules_out_scans_and_all_of_them_is_exact() -> None:
    fast = choose(5_000_000, DIM, Budget(latency=0.01))
    assert "a query takes about" in refusals(fast)["sq8"]
    latency = fast.estimate.latency
    assert latency is not None
    assert latency <= 0.01
    whole = choose(5_000_000, DIM, Budget(min_recall=1.0))
    assert whole.recipe.name in ("flat", "flat-fp16")
    assert refusals(whole)["hnsw"] == "it may miss some of the nearest"


def test_device_and_queries() -> None:
    assert choose(10**6, DIM, Budget(device="cuda")).recipe.device == "cuda"
    aware = replace(load_recipe("hnsw"), name="aware", query_aware=True)
    recipes = [load_recipe("flat"), aware]
    told = choose(100_000, DIM, recipes=recipes)
    assert told.recipe.name == "flat"
    assert refusals(told)["aware"] == "it learns from queries, and none are known"
    assert choose(100_000, DIM, Budget(queries_known=True), recipes=recipes).recipe.name == "aware"


@pytest.mark.parametrize(
    ("rows", "known", "unknown"), [(199_999, "hnsw", "hnsw"), (200_000, "lean", "hnsw"), (5_000_000, "lean", "ivf-pq")]
)
def test_short_codes_fitted_to_queries_are_taken_where_they_measured_faster(
    rows: int, known: str, unknown: str
) -> None:
    assert choose(rows, 384, Budget(queries_known=True)).recipe.name == known
    assert choose(rows, 384).recipe.name == unknown


def test_what_was_measured_counts() -> None:
    easy = {"data": "a", "k": 10, "efforts": [16, 64], "recall": [0.96, 0.99]}
    hard = {"data": "b", "k": 10, "efforts": [32, 128], "recall": [0.93, 0.97]}
    other = {"data": "c", "k": 100, "efforts": [16], "recall": [0.2]}
    measured = replace(load_recipe("hnsw"), measured=(easy, hard, other))
    recipes = [load_recipe("flat"), measured]
    found = choose(100_000, DIM, recipes=recipes).estimate
    assert (found.effort, found.recall, found.measured) == (128, 0.97, ("a", "b"))
    # On the data where it was lower: 0.93 with 32, while the other had 0.96 with 16.
    found = choose(100_000, DIM, Budget(min_recall=0.9), recipes=recipes).estimate
    assert (found.effort, found.recall) == (32, 0.93)
    bare = choose(100_000, DIM, recipes=[load_recipe("flat"), replace(measured, measured=(other,))]).estimate
    assert (bare.recall, bare.measured) == (None, ())
    told = choose(100_000, DIM, Budget(min_recall=0.98), recipes=recipes)
    assert told.recipe.name == "flat"
    assert refusals(told)["hnsw"] == "it found at most 97.0% of the nearest where it was measured"
    assert "hnsw is not taken because it found at most 97.0%" in told.reason


def test_a_recipe_whose_size_is_not_known_is_not_taken() -> None:
    odd = Recipe(name="odd", summary="x", factory="NSG32", min_rows=0)
    told = choose(10, DIM, recipes=[load_recipe("flat"), odd])
    assert told.recipe.name == "flat"
    assert "NSG32" in refusals(told)["odd"]
    with pytest.raises(RecipeError, match="NSG32"):
        estimate(odd, rows=10, dim=DIM)


@pytest.mark.parametrize(("rows", "dim"), [(-1, 8), (10, 0)])
def test_sizes_that_make_no_sense(rows: int, dim: int) -> None:
    with pytest.raises(InputError, match="expected rows of at least 0 and dim of at least 1"):
        choose(rows, dim)


@pytest.mark.parametrize("rows", [0, 1, 1000, 10**12])
@pytest.mark.parametrize("dim", [1, 7, 4096])
def test_every_recipe_has_an_estimate_at_the_edges(rows: int, dim: int) -> None:
    for recipe in list_recipes():
        found = estimate(recipe, rows=rows, dim=dim)
        assert 0 <= found.least_memory <= found.memory
        assert 0 < found.least_build_memory <= found.build_memory
        assert (found.latency is None) == (found.build_seconds is None) == (recipe.device == "cuda")
        if found.latency is not None:
            assert found.latency_on_disk is not None
            assert 0 < found.latency <= found.latency_on_disk


def test_times_add_up() -> None:
    exact = size_of("exact", 100)
    assert search_seconds(exact, COSTS, rows=1000, effort=None) == pytest.approx(1e-5 + 1000 * 100e-9)
    lists = size_of("IVF10,PQ50x4fs,Refine(SQfp16)", 100)
    # Centroids, the codes of 2 of 10 lists, 80 candidates, which a cache holds.
    memory = 1e-5 + 10 * 100e-9 + 2e-6 + 200 * 100e-9 + 80 * 100e-9
    assert search_seconds(lists, COSTS, rows=1000, effort=2, k_factor=8) == pytest.approx(memory)
    disk = search_seconds(lists, COSTS, rows=1000, effort=2, k_factor=8, on_disk=True)
    assert disk == pytest.approx(memory + 80 * 1e-4)
    graph = size_of("HNSW16,SQ8", 100)
    far = 1 - 2**25 / graph.searched(10**6)
    assert search_seconds(graph, COSTS, rows=10**6, effort=64) == pytest.approx(1e-5 + 64 * (100e-9 + far * 16e-8) / 2)
    # Coded and linked; a graph of half the links takes half the time.
    assert build_seconds(graph, COSTS, rows=1024, sample=0) == pytest.approx(1024 * 100e-9 * (1 + 10 / 2))
    for effort in (10, 40, 200):
        linked = 1024 * 100e-9 * 10 / 2 * (effort / 40) ** 0.9
        found = build_seconds(graph, COSTS, rows=1024, sample=0, ef_construction=effort)
        assert found == pytest.approx(1024 * 100e-9 + linked)
    one = build_seconds(lists, COSTS, rows=1000, sample=1000)
    assert build_seconds(lists, COSTS, rows=1000, sample=1000, threads=4) == pytest.approx(one / 4)
    # Ten rounds over the sample for the lists, 25 for the codes; then every vector finds its list and is coded twice.
    rounds = 10 * 1000 * 10 + 25 * 1000 * 16
    assert one == pytest.approx((rounds + 1000 * 10 + 2 * 1000) * 100e-9)


def test_costs_that_come_with_the_package() -> None:
    costs = load_costs()
    assert costs.machine
    assert costs.commit
    for recipe in list_recipes():
        layout = size_of(recipe.resolve(rows=10**6, dim=DIM), DIM)
        for code in (layout.code, layout.refine):
            if code is not None:
                # Width 1 of a code takes between a picosecond and a microsecond on any machine.
                assert 1e-12 < costs.scan[code.kind] < 1e-6
                assert 1e-12 < costs.encode[code.kind] < 1e-6
    with pytest.raises(RecipeError, match=r"lacks 'call'; measure again with: python -m benchmarks\.index_costs"):
        Costs.from_dict({"machine": "x", "date": "x", "commit": "x"})


def test_estimates_that_were_off_are_told() -> None:
    foreseen = {"bytes_per_vector": 100.0, "seconds": 10.0, "memory": 1e9}
    rows = 10_000
    assert check_estimate(foreseen, foreseen, rows=rows) == []
    near = {"bytes_per_vector": 149.0, "seconds": 6.7, "memory": 1.4e9}
    assert check_estimate(foreseen, near, rows=rows) == []
    told = check_estimate(foreseen, {"bytes_per_vector": 151.0, "seconds": 6.0, "memory": 2e9}, rows=rows)
    assert told == [
        "the index took 151 bytes a vector on disk, 1.5 times the estimate of 100 bytes",
        "the index took 6 s to build, 0.6 times the estimate of 10 s",
        "the index took 2 GB of memory to build, 2 times the estimate of 1 GB",
    ]
    # What is too small to tell, and what was not kept.
    assert check_estimate({"seconds": 0.01, "memory": 1e6}, {"seconds": 0.5, "memory": 1e8}, rows=rows) == []
    assert check_estimate({}, foreseen, rows=rows) == check_estimate(foreseen, {}, rows=rows) == []


@pytest.mark.parametrize(("rows", "notes"), [(0, 0), (11, 0), (4_999, 0), (5_000, 1)])
def test_the_size_of_a_small_index_is_no_matter(rows: int, notes: int) -> None:
    """What does not grow with the vectors is most of it; a megabyte in all is told of."""
    assert len(check_estimate({"bytes_per_vector": 100.0}, {"bytes_per_vector": 200.0}, rows=rows)) == notes


def test_a_graph_that_looks_further_takes_longer_to_build() -> None:
    usual = Recipe("x", "", "HNSW32,SQfp16")
    few, many = (estimate(replace(usual, ef_construction=n), rows=10**5, dim=384) for n in (None, 200))
    assert few.build_seconds is not None
    assert many.build_seconds is not None
    # Measured: 3.3 times over real vectors, 5.6 times over made-up ones.
    assert 3.3 < many.build_seconds / few.build_seconds < 5.6
    assert replace(many, build_seconds=few.build_seconds) == few


def test_meter() -> None:
    meter = Meter(load_recipe("sq8"), rows=1000, dim=16, threads=1)
    assert set(meter.estimated) == {"bytes_per_vector", "seconds", "memory"}
    taken = meter.taken()
    assert taken["seconds"] >= 0
    assert set(taken) <= {"seconds", "memory"}
    held = bytearray(b"x") * (300 << 20)
    assert meter.taken().get("memory", 300 << 20) >= len(held)
    assert Meter(Recipe(name="x", summary="x", factory="NSG8"), rows=9, dim=8, threads=1).estimated == {}


def test_a_graph_that_fits_no_cache_takes_longer_for_each_vector() -> None:
    layout = size_of("HNSW32,SQfp16", 64)
    costs = replace(COSTS, link=0.0, call=0.0, graph=0.0)
    # 20,000 vectors of 128 bytes and their links fit 32 MiB; of twenty million hardly any is at hand.
    small, large = (build_seconds(layout, costs, rows=rows, sample=0) / rows for rows in (20_000, 20_000_000))
    assert small == pytest.approx(64 * costs.encode["SQfp16"])
    assert large - small == pytest.approx(640 * costs.fetch, rel=0.01)
    found = [search_seconds(layout, costs, rows=rows, effort=10) for rows in (20_000, 20_000_000)]
    assert found == [0, pytest.approx(160 * costs.fetch, rel=0.01)]
    assert cache_miss_share(0) == cache_miss_share(1 << 20) == 0 < cache_miss_share(1 << 26) == 0.5
