"""Every kind of index against exact search, by numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import DimensionError, InputError
from mmalign.index.backends import load_index
from mmalign.index.base import Index
from mmalign.index.exact import ExactIndex
from tests.index.helpers import DIM, QUERIES, ROWS, Data, naive, recall, true_scores

# Factory -> least recall@10, and whether scores are those of the vectors, to 1e-3.
LOSSLESS = {"exact": 0.999, "Flat": 1.0, "SQfp16": 0.999, "Flat,RFlat": 1.0, "IDMap2,Flat": 1.0}
GRAPHS = {"HNSW32": 0.97, "HNSW32,SQfp16": 0.97, "IDMap2,HNSW32": 0.97, "NSG32": 0.75}
LISTS = {
    "IVF32,Flat": 0.95,
    "IVF32_HNSW16,Flat": 0.95,
    "IVF32,PQ12x4fs,RFlat": 0.85,
    "IVF32,PQ12x4fs,Refine(SQfp16)": 0.85,
    "IDMap2,IVF32,PQ12x4fs,RFlat": 0.85,
    "PQ12x4fs,RFlat": 0.85,
    "PCA20,SQ8,RFlat": 0.9,
    "IVF32,PQ12np,Refine(SQfp16)": 0.85,
    "PCA16,HNSW16,SQ8,Refine(SQfp16)": 0.85,
}
LOSSY = {"SQ8": 0.95, "HNSW32,SQ8": 0.9, "PQ12x4np": 0.3, "PQ12x4fs": 0.3, "IVF32,PQ12x4": 0.3, "IVF32,RaBitQ": 0.3,
         "IVF32,LSQ4x4": 0.15, "RR24,SQ8": 0.95, "RR24,RaBitQ,Refine(SQ8)": 0.85,
         "RR24,IVF32,RaBitQfs,Refine(SQ8)": 0.85,
         "RaBitQfs": 0.3, "OPQ6,IVF32,PQ6x4fs,Refine(SQ8)": 0.75, "IVF32,RaBitQfs4": 0.8}  # fmt: skip
FLOORS = LOSSLESS | GRAPHS | LISTS | LOSSY


@pytest.fixture(scope="session")
def built() -> dict[str, Index]:
    return {}


@pytest.fixture(params=sorted(FLOORS))
def index(request: pytest.FixtureRequest, data: Data, built: dict[str, Index]) -> Index:
    """An index over all of the data; shared between tests, which must not change it."""
    if request.param not in built:
        built[request.param] = build(request.param, data)
    return built[request.param]


def build(factory: str, data: Data) -> Index:
    if factory == "exact":
        index: Index = ExactIndex(DIM)
    else:
        from mmalign.index.faiss.index import FaissIndex

        index = FaissIndex(factory, DIM)
    index.train(data.vectors)
    # A second add has to go on where the first ended; NSG is built by one.
    cut = ROWS if factory.startswith("NSG") else ROWS // 3
    index.add(data.ids[:cut], data.vectors[:cut])
    index.add(data.ids[cut:], data.vectors[cut:])
    return index


def check(index: Index, data: Data, found: tuple[np.ndarray, np.ndarray], allowed: np.ndarray | None = None) -> None:
    """What holds for every result of every index."""
    scores, ids = found
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64
    assert not np.isnan(scores).any()
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert ((ids < 0) == np.isneginf(scores)).all()
    assert np.isin(ids[ids >= 0], data.ids if allowed is None else data.ids[allowed]).all()
    assert all(len(set(row[row >= 0])) == np.count_nonzero(row >= 0) for row in ids)
    if index.factory not in LOSSY:
        hit = ids >= 0
        np.testing.assert_allclose(scores[hit], true_scores(data, ids)[hit], atol=1e-3)


def test_nearest_are_the_true_ones(index: Index, data: Data) -> None:
    found = index.search(data.queries, 10)
    check(index, data, found)
    assert (found[1] >= 0).all()
    truth = naive(data, 10)
    assert recall(found[1], truth[1]) >= FLOORS[index.factory]
    if index.factory in LOSSLESS:
        np.testing.assert_allclose(found[0], truth[0], atol=1e-3)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_filter_keeps_recall_and_number_of_hits(index: Index, data: Data, share: float) -> None:
    allowed = np.random.default_rng(round(1000 * share)).random(ROWS) < share
    by_ids = index.search(data.queries, 10, where=np.random.default_rng(1).permutation(data.ids[allowed]))
    by_mask = index.search(data.queries, 10, where=allowed)
    np.testing.assert_array_equal(by_ids[1], by_mask[1])
    np.testing.assert_array_equal(by_ids[0], by_mask[0])
    check(index, data, by_mask, allowed)
    assert (by_mask[1] >= 0).all()
    truth = naive(data, 10, allowed)
    assert recall(by_mask[1], truth[1]) >= FLOORS[index.factory] - 0.03
    if index.factory in LOSSLESS:
        np.testing.assert_allclose(by_mask[0], truth[0], atol=1e-3)


def test_filter_that_allows_fewer_than_k(index: Index, data: Data) -> None:
    allowed = np.zeros(ROWS, np.bool_)
    allowed[[7, 1500, 2999]] = True
    scores, ids = index.search(data.queries, 10, where=allowed)
    check(index, data, (scores, ids), allowed)
    assert scores.shape == ids.shape == (QUERIES, 10)
    assert (np.sort(ids[:, :3], axis=1) == np.sort(data.ids[allowed])).all()
    assert (ids[:, 3:] == -1).all()
    assert np.isneginf(scores[:, 3:]).all()


@pytest.mark.parametrize("where", [np.zeros(0, np.int64), np.zeros(ROWS, np.bool_), np.array([10 * ROWS + 1])])
def test_filter_that_allows_nothing(index: Index, data: Data, where: np.ndarray) -> None:
    scores, ids = index.search(data.queries, 5, where=where)
    assert (ids == -1).all()
    assert ids.shape == (QUERIES, 5)
    assert np.isneginf(scores).all()


def test_k_of_nothing_and_of_everything(index: Index, data: Data) -> None:
    scores, ids = index.search(data.queries, 0)
    assert scores.shape == ids.shape == (QUERIES, 0)
    found = index.search(data.queries[:3], 10 * ROWS)
    check(index, Data(data.ids, data.vectors, data.queries[:3]), found)
    assert found[1].shape == (3, ROWS)
    # A navigating graph alone may have rows that it cannot reach.
    least = 0.95 if index.factory.startswith("NSG") else 1.0
    assert (found[1] >= 0).mean() >= least
    none = index.search(np.zeros((0, DIM), np.float32), 4)
    assert none[1].shape == (0, 4)


def test_unnormalised_queries_scale_the_scores(index: Index, data: Data) -> None:
    if index.factory in LOSSY:
        pytest.skip("codes may be compared differently with longer queries")
    scores, ids = index.search(data.queries, 5)
    scaled_scores, scaled_ids = index.search(3 * data.queries, 5)
    assert recall(scaled_ids, ids) > 0.99
    np.testing.assert_allclose(scaled_scores, 3 * scores, atol=5e-3)


@pytest.mark.parametrize(
    "factory", ["exact", "Flat", "SQfp16", "HNSW32", "IVF32,Flat", "IVF32,PQ12x4fs,RFlat", "NSG32"]
)
def test_longer_vector_wins_by_inner_product(factory: str, data: Data) -> None:
    # By L2 distance the first would be nearer to the query.
    vectors = data.vectors.copy()
    vectors[0], vectors[1] = data.queries[0], 2 * data.queries[0]
    index = build(factory, Data(np.arange(ROWS), vectors, data.queries))
    scores, ids = index.search(data.queries[0], 2)
    assert ids.tolist() == [[1, 0]]
    np.testing.assert_allclose(scores, [[2, 1]], atol=2e-3)


@pytest.mark.parametrize("mmap", [True, False])
def test_saved_and_loaded_index_finds_the_same(index: Index, data: Data, tmp_path: Path, mmap: bool) -> None:
    index.save(tmp_path)
    loaded = load_index(tmp_path, mmap=mmap)
    assert (loaded.factory, loaded.dim, len(loaded), loaded.default_effort, loaded.min_selectivity) == (
        index.factory,
        DIM,
        ROWS,
        index.default_effort,
        index.min_selectivity,
    )
    allowed = np.random.default_rng(3).random(ROWS) < 0.2
    for where in (None, allowed):
        for left, right in zip(
            index.search(data.queries, 7, where=where), loaded.search(data.queries, 7, where=where), strict=True
        ):
            np.testing.assert_array_equal(left, right)
    # Tombstones outlive another save, also of a mapped index.
    gone = index.search(data.queries, 1)[1][:, 0]
    assert loaded.remove(gone) == len(set(gone))
    loaded.save(tmp_path / "again")
    again = load_index(tmp_path / "again", mmap=mmap)
    assert len(again) == ROWS - len(set(gone))
    assert not np.isin(again.search(data.queries, 10)[1], gone).any()


def test_remove_and_add_again(index: Index, data: Data, tmp_path: Path) -> None:
    index.save(tmp_path)
    changed = load_index(tmp_path, mmap=False)
    gone = np.random.default_rng(4).permutation(data.ids)[: ROWS // 2]
    assert changed.remove(gone) == ROWS // 2
    assert changed.remove(gone) == 0
    assert len(changed) == changed.ntotal == ROWS - ROWS // 2
    alive = ~np.isin(data.ids, gone)
    found = changed.search(data.queries, 10)
    check(index, data, found, alive)
    assert recall(found[1], naive(data, 10, alive)[1]) >= FLOORS[index.factory] - 0.03
    np.testing.assert_array_equal(changed.search(data.queries, 10, where=data.ids)[1], found[1])
    assert (changed.search(data.queries, 3, where=gone)[1] == -1).all()
    if index.factory.startswith("NSG"):
        with pytest.raises(InputError, match="cannot add"):
            changed.add(gone[:1], data.vectors[:1])
        return
    # An update: the same id with another vector, the query itself.
    changed.add(gone[:1], data.queries[:1])
    assert len(changed) == ROWS - ROWS // 2 + 1
    least = 1 if index.factory not in LOSSY else 40
    assert gone[0] in changed.search(data.queries[:1], least)[1]
    assert (changed.search(data.queries, ROWS)[1] == gone[0]).sum(axis=1).max() == 1


def test_concurrent_searches_equal_serial_ones(index: Index, data: Data) -> None:
    rng = np.random.default_rng(6)
    jobs = [
        (rng.choice([1, 4, 30]), rng.choice([1, 5, 20]), None if i % 3 == 0 else rng.random(ROWS) < 0.1 * (i % 7 + 1))
        for i in range(24)
    ]

    def search(job: tuple[int, int, np.ndarray | None]) -> tuple[np.ndarray, np.ndarray]:
        effort, k, where = job
        return index.search(data.queries[:8], int(k), where=where, effort=int(effort))

    serial = [search(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(serial, pool.map(search, jobs), strict=True):
            np.testing.assert_array_equal(one[1], other[1])
            np.testing.assert_array_equal(one[0], other[0])


def test_bad_input(index: Index, data: Data) -> None:
    before = len(index)
    with pytest.raises(InputError, match="k must be at least 0, got -1"):
        index.search(data.queries, -1)
    with pytest.raises(InputError, match="effort must be at least 1"):
        index.search(data.queries, 1, effort=0)
    with pytest.raises(DimensionError, match="expected dim 24"):
        index.search(np.ones((2, DIM + 1), np.float32), 1)
    with pytest.raises(InputError, match="NaN"):
        index.search(np.full((1, DIM), np.nan), 1)
    with pytest.raises(InputError, match="mask must have shape"):
        index.search(data.queries, 1, where=np.ones(5, np.bool_))
    with pytest.raises(InputError, match="ids must be integers"):
        index.search(data.queries, 1, where=np.ones(5))  # type: ignore[arg-type]
    new = data.vectors[:2]
    fresh = np.array([10 * ROWS + 1, 10 * ROWS + 2])
    with pytest.raises(InputError, match="NaN or infinity, the first is row 1"):
        index.add(fresh, np.vstack([new[0], np.full(DIM, np.inf)]))
    with pytest.raises(DimensionError):
        index.add(fresh, np.ones((2, DIM - 1)))
    with pytest.raises(InputError, match="1 ids for 2 vectors"):
        index.add(fresh[:1], new)
    with pytest.raises(InputError, match="come twice"):
        index.add([fresh[0], fresh[0]], new)
    with pytest.raises(InputError, match="in the index already"):
        index.add([fresh[0], data.ids[5]], new)
    with pytest.raises(InputError, match="at least 0"):
        index.add([-1, 3], new)
    assert len(index) == before


def test_index_has_the_protocol_and_says_what_it_is(index: Index) -> None:
    assert isinstance(index, Index)
    assert index.exhaustive == (index.factory in LOSSLESS)
    assert index.exact_scores == (index.factory not in LOSSY)
