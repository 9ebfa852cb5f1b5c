"""Filters at search time, with every recipe, against brute force."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmalign.errors import InputError
from mmalign.index.base import Index
from mmalign.index.lifecycle.build import build_index
from mmalign.index.lifecycle.versions import IndexManifest
from mmalign.index.recall.measure import Measuring, measure_recall_profile
from mmalign.index.recall.recall_curves import RecallCurve, RecallProfile
from mmalign.search import plan as search_plan
from mmalign.search.searcher import Searcher
from mmalign.store.lance_store import Store
from mmalign.utils.similarity import Float32Array, Int64Array

ROWS, DIM, K = 5000, 16, 10
RECIPES = ["flat", "HNSW16,SQfp16", "IVF32,Flat", "IVF32,PQ8x4fs,Refine(SQfp16)", "SQ8", "PCA12,Flat"]


@pytest.fixture(scope="module")
def vectors() -> Float32Array:
    rng = np.random.default_rng(8)
    centres = rng.normal(size=(20, DIM))
    found = centres[np.arange(ROWS) % 20] + 0.5 * rng.normal(size=(ROWS, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)


@pytest.fixture(scope="module")
def queries(vectors: Float32Array) -> Float32Array:
    return jittered(vectors, 40, seed=9)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, vectors: Float32Array) -> Store:
    made = Store.create(tmp_path_factory.mktemp("filtered") / "items.lance", dim=DIM)
    made.upsert([{"id": str(i)} for i in range(ROWS)], vectors)
    return made


@pytest.fixture(scope="module", params=RECIPES)
def index(request: pytest.FixtureRequest, store: Store) -> Index:
    return build_index(request.param, store.iter_embeddings, rows=ROWS, dim=DIM)[0]


@pytest.fixture(scope="module")
def contract(index: Index, store: Store, vectors: Float32Array) -> RecallProfile:
    """What is measured of the index, with queries like those that the tests ask."""
    options = Measuring(ks=(10, 100), shares=(1.0, 0.1), start=8)
    measured = measure_recall_profile(index, store.iter_embeddings, {"text": jittered(vectors, 80, seed=3)}, options)
    return replace(measured, min_recall=0.9)


def jittered(vectors: Float32Array, count: int, *, seed: int) -> Float32Array:
    rng = np.random.default_rng(seed)
    near = vectors[rng.choice(len(vectors), count)] + 0.2 * rng.normal(size=(count, vectors.shape[1]))
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float32)


def searcher(store: Store, index: Index, contract: RecallProfile | None) -> Searcher:
    told = {} if contract is None else contract.to_dict()
    return Searcher(store, index, IndexManifest("r", index.factory, DIM, ROWS, store.version, contract=told))


def graph_contract(effort: int) -> RecallProfile:
    """A promise of a graph at one effort."""
    curves = [RecallCurve("text", share, k, (effort,), (1.0,), (0.96,), 240) for share in (1.0, 0.1) for k in (10, 100)]
    return RecallProfile(0.95, tuple(curves), min_recall=0.95)


def brute_force(
    vectors: Float32Array, queries: Float32Array, allowed: NDArray[np.bool_], k: int = K
) -> tuple[NDArray[np.float64], list[set[int]]]:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    scores[:, ~allowed] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, np.count_nonzero(allowed))]
    return np.take_along_axis(scores, order, axis=1), [set(row.tolist()) for row in order]


def recall(found: Int64Array, truth: list[set[int]], ids: Int64Array) -> float:
    place = {int(row): i for i, row in enumerate(ids)}
    got = [{place[row] for row in line.tolist() if row >= 0} for line in found]
    return float(np.mean([len(a & b) / len(b) for a, b in zip(got, truth, strict=True)]))


def masks(share: float) -> dict[str, NDArray[np.bool_]]:
    """Rows at random, and whole clusters, so that most neighbours of many queries are left out."""
    random = np.random.default_rng(4).random(ROWS) < share
    clusters = np.arange(ROWS) % 20 < max(1, round(20 * share))
    if 20 * share < 1:
        clusters &= np.random.default_rng(5).random(ROWS) < 20 * share
    return {"random": random, "clusters": clusters}


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 0.001])
def test_filters_keep_the_recall(
    share: float,
    index: Index,
    contract: RecallProfile,
    store: Store,
    vectors: Float32Array,
    queries: Float32Array,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = store.row_ids()
    # Else every filter over so few rows would be answered exactly.
    monkeypatch.setattr(search_plan, "EXACT_ROWS", 100)
    monkeypatch.setattr(search_plan.IndexCapabilities, "exact_cost", lambda self, allowed: 1e9)
    for name, mask in masks(share).items():
        scores, truth = brute_force(vectors, queries, mask)
        for promise in (contract, None):
            found = searcher(store, index, promise).search(queries, K, allowed=ids[mask], kinds=("text",))
            least = 0.99 if found.exact else 0.4 if promise is None else 0.9
            assert recall(found.row_ids, truth, ids) >= least, (name, found.reason)
            assert (found.row_ids >= 0).sum() == sum(map(len, truth))
            assert np.isin(found.row_ids[found.row_ids >= 0], ids[mask]).all()
            if found.exact:
                np.testing.assert_allclose(found.scores[:, : scores.shape[1]], scores, atol=2e-3)
            if share < 0.02:
                assert found.exact


def test_what_comes_back_short_is_compared_with_all_that_is_allowed(
    store: Store, vectors: Float32Array, queries: Float32Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_plan, "EXACT_ROWS", 100)
    monkeypatch.setattr(search_plan.IndexCapabilities, "exact_cost", lambda self, allowed: 1e9)
    graph = build_index("HNSW16,SQfp16", store.iter_embeddings, rows=ROWS, dim=DIM)[0]
    asked = searcher(store, graph, graph_contract(400))
    # Half of the items, and none that is near to any query.
    near = (queries @ vectors.T).max(axis=0)
    mask = near <= np.median(near)
    found = asked.search(queries, K, allowed=store.row_ids()[mask], kinds=("text",))
    assert not found.exact
    assert "first 40" in found.reason
    assert recall(found.row_ids, brute_force(vectors, queries, mask)[1], store.row_ids()) > 0.99
    # The graph by itself finds too few of these for some queries.
    plain = graph.search(queries, 100, effort=400)[1]
    assert (np.isin(plain, store.row_ids()[mask]).sum(axis=1) < K).any()


def test_recall_of_one_is_exact(
    index: Index, contract: RecallProfile, store: Store, vectors: Float32Array, queries: Float32Array
) -> None:
    everything = np.ones(ROWS, np.bool_)
    ids = store.row_ids()
    for allowed in (None, ids[::2]):
        found = searcher(store, index, contract).search(queries, K, allowed=allowed, min_recall=1.0, kinds=("text",))
        mask = everything if allowed is None else np.arange(ROWS) % 2 == 0
        scores, truth = brute_force(vectors, queries, mask)
        assert found.exact
        assert recall(found.row_ids, truth, ids) > 0.995
        np.testing.assert_allclose(found.scores, scores, atol=2e-3)
        # Few rows are compared one by one in any case.
        assert bool(found.notes) == (allowed is None and not index.exhaustive)


def test_an_index_without_a_contract_promises_nothing(index: Index, store: Store, queries: Float32Array) -> None:
    old = searcher(store, index, None)
    plain = old.search(queries, K)
    assert (plain.exact, plain.effort, plain.notes) == (index.exhaustive, index.default_effort, ())
    asked = old.search(queries, K, min_recall=0.5)
    assert asked.exact
    if not index.exhaustive:
        assert "no recall was measured" in asked.notes[0]
    damaged = searcher(store, index, None)
    damaged.manifest = replace(damaged.manifest, contract={"curves": 3}) if damaged.manifest else None
    assert damaged.recall_profile is None
    assert damaged.search(queries, K, min_recall=0.5).exact


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_min_recall_out_of_range(bad: float, index: Index, store: Store, queries: Float32Array) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        searcher(store, index, None).search(queries, K, min_recall=bad)


def test_filter_tail_and_tombstones_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    monkeypatch.setattr(search_plan, "EXACT_ROWS", 50)
    monkeypatch.setattr(search_plan.IndexCapabilities, "exact_cost", lambda self, allowed: 1e9)
    rows = rng.normal(size=(900, DIM))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float32)
    store = Store.create(tmp_path / "items.lance", dim=DIM)
    store.upsert([{"id": str(i)} for i in range(800)], rows[:800])
    graph = build_index("HNSW16,SQfp16", store.iter_embeddings, rows=800, dim=DIM)[0]
    built = searcher(store, graph, graph_contract(400))
    # Some replaced by other vectors, some new, some gone.
    store.upsert([{"id": str(i)} for i in range(750, 850)], rows[800:900])
    store.delete(store.row_ids()[::9])
    now = store.latest()
    asked = Searcher(now, graph, built.manifest)
    ids, vectors = now.embeddings()
    queries = rows[::60]
    for share in (1.0, 0.5, 0.1, 0.02):
        mask = rng.random(len(ids)) < share
        mask[3] = True
        scores, truth = brute_force(vectors.astype(np.float32), queries, mask)
        for least in (None, 1.0):
            allowed = None if share == 1 else ids[mask]
            found = asked.search(queries, K, allowed=allowed, min_recall=least, kinds=("text",))
            assert recall(found.row_ids, truth, ids) > 0.98, found.reason
            np.testing.assert_allclose(found.scores[:, 0], scores[:, 0], atol=2e-3)


def test_a_deleted_topic_costs_no_recall(
    tmp_path: Path, vectors: Float32Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_plan, "EXACT_ROWS", 50)
    monkeypatch.setattr(search_plan.IndexCapabilities, "exact_cost", lambda self, allowed: 1e9)
    store = Store.create(tmp_path / "items.lance", dim=DIM)
    store.upsert([{"id": str(i)} for i in range(ROWS)], vectors)
    graph = build_index("HNSW8,SQfp16", store.iter_embeddings, rows=ROWS, dim=DIM)[0]
    built = searcher(store, graph, graph_contract(16))
    topic = np.arange(ROWS) % 20 == 3
    queries = jittered(vectors[topic], 60, seed=4)
    store.delete(store.row_ids()[topic])
    now = store.latest()
    found = Searcher(now, graph, built.manifest).search(queries, K, kinds=("text",))
    ids, left = now.embeddings()
    truth = brute_force(left.astype(np.float32), queries, np.ones(len(left), np.bool_))[1]
    assert recall(found.row_ids, truth, ids) > 0.99
    # What the index finds when it skips the removed rows while it looks.
    skipped = graph.search(queries, K, where=np.isin(graph.ids, ids), effort=16)[1]
    assert recall(skipped, truth, ids) < recall(found.row_ids, truth, ids) - 0.01
    # Queries that are near to nothing that is gone are answered by the index alone, as before.
    elsewhere = jittered(vectors[np.arange(ROWS) % 20 == 11], 60, seed=5)
    before = built.search(elsewhere, K, kinds=("text",))
    after = Searcher(now, graph, built.manifest).search(elsewhere, K, kinds=("text",))
    unchanged = ~np.isin(before.row_ids, np.setdiff1d(graph.ids, ids)).any(axis=1)
    assert unchanged.mean() > 0.5
    np.testing.assert_array_equal(after.row_ids[unchanged], before.row_ids[unchanged])


def test_a_query_unlike_all_that_were_measured_is_answered_exactly(
    store: Store, vectors: Float32Array, queries: Float32Array
) -> None:
    graph = build_index("HNSW4,SQfp16", store.iter_embeddings, rows=ROWS, dim=DIM)[0]
    options = Measuring(ks=(10,), shares=(1.0,), start=8)
    near = measure_recall_profile(graph, store.iter_embeddings, {"text": jittered(vectors, 200, seed=3)}, options)
    asked = searcher(store, graph, replace(near, min_recall=0.5))
    noise = np.random.default_rng(6).normal(size=(300, DIM)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    found = asked.search(np.concatenate([queries, noise]), K, kinds=("text",))
    how = found.how_each()
    assert sum(one.exact for one in how[: len(queries)]) <= 2
    lowest = brute_force(vectors, jittered(vectors, 200, seed=3), np.ones(ROWS, np.bool_))[0][:, 0].min()
    far = brute_force(vectors, noise, np.ones(ROWS, np.bool_))[0][:, 0] < lowest - 0.01
    assert far.sum() > 10
    strange = np.flatnonzero(far) + len(queries)
    assert all(how[place].exact for place in strange)
    assert all("unlike all queries" in how[place].notes[0] for place in strange)
    truth = brute_force(vectors, noise, np.ones(ROWS, np.bool_))[1]
    found_of = found.row_ids[strange]
    assert recall(found_of, [truth[place - len(queries)] for place in strange], store.row_ids()) > 0.995


def test_each_query_of_a_batch_is_answered_as_its_own_kind_takes(
    store: Store, vectors: Float32Array, queries: Float32Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_plan.IndexCapabilities, "exact_cost", lambda self, allowed: 1e9)
    graph = build_index("HNSW16,SQfp16", store.iter_embeddings, rows=ROWS, dim=DIM)[0]
    efforts = {"sentence": 16, "word": 64, "rare": 128}
    curves = [RecallCurve(kind, 1.0, 10, (effort,), (1.0,), (0.96,), 240) for kind, effort in efforts.items()]
    asked = searcher(store, graph, RecallProfile(0.95, tuple(curves), min_recall=0.95))
    kinds = [("sentence",), ("word", "rare"), ("image",), ("sentence",)] * 10
    found = asked.search(queries, K, kinds=kinds)
    assert [one.effort for one in found.how_each()] == [16, 128, None, 16] * 10
    # What was not measured is answered exactly, and says so.
    assert [bool(one.notes) for one in found.how_each()] == [False, False, True, False] * 10
    for place, kind in enumerate(kinds):
        single = asked.search(queries[place : place + 1], K, kinds=kind)
        np.testing.assert_array_equal(single.row_ids[0], found.row_ids[place])
