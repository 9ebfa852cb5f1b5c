"""Measured recall, against indexes whose recall is known and against brute force on other queries."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mmalign.errors import DimensionError, InputError
from mmalign.index.exact import ExactIndex
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.recall.measure import Measuring, QuerySet, efforts_to_try, measure_recall_profile
from mmalign.index.recall.recall_curves import RecallProfile
from mmalign.utils.similarity import l2_normalize
from tests.index.helpers import DIM, ROWS, Data, naive, recall


def chunks_of(data: Data):  # type: ignore[no-untyped-def]
    def chunks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating]]]:
        for start in range(0, len(data.ids), 800):
            yield data.ids[start : start + 800], data.vectors[start : start + 800].astype(np.float16)

    return chunks


def near(data: Data, count: int, seed: int, spread: float = 0.3) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return l2_normalize(data.vectors[rng.integers(0, ROWS, count)] + spread * rng.normal(size=(count, DIM)))


def built(data: Data, factory: str, **options: Any) -> FaissIndex:
    index = FaissIndex(factory, DIM, **options)
    index.train(data.vectors)
    index.add(data.ids, data.vectors)
    return index


class Forgetful(ExactIndex):
    """Loses each hit with a chance that falls with the effort."""

    exhaustive = False
    default_effort: int | None = 16

    def max_effort(self, share: float = 1.0) -> int | None:
        return 64

    @staticmethod
    def kept(effort: int) -> float:
        return 1 - 0.7**effort if effort < 64 else 1.0

    def search(self, vectors: Any, k: int, *, where: Any = None, effort: int | None = None) -> Any:
        scores, ids = super().search(vectors, k, where=where)
        lost = np.random.default_rng([7, k, effort or 0]).random(ids.shape) > self.kept(effort or 16)
        ids[lost] = -1
        return scores, ids


@pytest.fixture
def forgetful(data: Data) -> Forgetful:
    index = Forgetful(DIM)
    index.add(data.ids, data.vectors)
    return index


def test_recall_is_what_it_is(data: Data, forgetful: Forgetful) -> None:
    options = Measuring(ks=(1, 20), shares=(1.0,))
    profile = measure_recall_profile(forgetful, chunks_of(data), {"given": near(data, 200, 1)}, options)
    assert [(curve.kind, curve.k, curve.queries) for curve in profile.curves] == [
        ("given", 1, 150),
        ("given", 20, 150),
    ]
    for curve in profile.curves:
        # Efforts of less recall than anyone asks for are left out.
        assert min(curve.efforts) in (2, 3, 4)
        # Full recall of the tuning queries is not trusted: efforts beyond are measured too.
        assert max(curve.efforts) >= 23
        for effort, mean, lower in zip(curve.efforts, curve.recall, curve.lower, strict=True):
            assert mean == pytest.approx(forgetful.kept(effort), abs=4 * 0.5 / np.sqrt(150 * curve.k))
            assert lower == pytest.approx(mean, abs=0.09)


@pytest.mark.parametrize(("factory", "limit"), [("IVF64,Flat", 32), ("HNSW8,SQfp16", ROWS // 16), ("SQ4", None)])
def test_holds_for_queries_that_were_not_measured(data: Data, factory: str, limit: int | None) -> None:
    index = built(data, factory)
    options = Measuring(ks=(10,), shares=(1.0, 0.2), start=2)
    profile = measure_recall_profile(index, chunks_of(data), {"given": near(data, 160, 1)}, options)
    fresh = Data(data.ids, data.vectors, near(data, 400, 2))
    for curve in profile.curves:
        mask = None if curve.share == 1 else np.random.default_rng(3).random(ROWS) < curve.share
        truth = naive(fresh, 10, mask)[1]
        assert limit is None or max(curve.efforts) <= limit
        assert limit is None or curve.share < 1 or curve.recall[-1] > curve.recall[0]
        for effort, lower in zip(curve.efforts, curve.lower, strict=True):
            # The mean of 400 others has an error of its own.
            found = index.search(fresh.queries, 10, where=mask, effort=effort)[1]
            assert recall(found, truth) >= lower - 0.02
    if limit is not None:
        effort = profile.effort_for(0.9, kinds=("given",), k=10)
        assert effort is not None
        assert effort < profile.curves[0].efforts[-1]


def test_the_row_a_query_was_made_from_is_not_looked_for(data: Data) -> None:
    """An index that finds nothing but that row has a recall of 0, one that misses nothing else one of 1."""
    rows = np.random.default_rng(4).choice(ROWS, 100, replace=False)
    own = data.ids[rows]

    class OnlyItself(ExactIndex):
        exhaustive = False

        def search(self, vectors: Any, k: int, *, where: Any = None, effort: int | None = None) -> Any:
            scores, ids = super().search(vectors, k, where=where)
            ids[:, 1:] = -1
            return scores, ids

    class NeverItself(ExactIndex):
        exhaustive = False

        def search(self, vectors: Any, k: int, *, where: Any = None, effort: int | None = None) -> Any:
            scores, ids = super().search(vectors, k + 1, where=where)
            return scores[:, 1:], ids[:, 1:]

    for kind, expected in ((OnlyItself, 0.0), (NeverItself, 1.0)):
        index = kind(DIM)
        index.add(data.ids, data.vectors)
        asked = {"image": QuerySet(data.vectors[rows], own)}
        profile = measure_recall_profile(index, chunks_of(data), asked, Measuring(ks=(1, 10), shares=(1.0,)))
        assert [curve.recall for curve in profile.curves] == [(expected,), (expected,)]


def test_a_filter_counts_by_its_worse_form(data: Data) -> None:
    """What sees no farther than some distance finds rows at random, but not those that lie together elsewhere."""

    class Nearsighted(ExactIndex):
        exhaustive = False

        def search(self, vectors: Any, k: int, *, where: Any = None, effort: int | None = None) -> Any:
            scores, ids = super().search(vectors, k, where=where)
            return scores, np.where(scores > 0.3, ids, -1)

    index = Nearsighted(DIM)
    index.add(data.ids, data.vectors)
    fresh = Data(data.ids, data.vectors, near(data, 300, 2))
    mask = np.random.default_rng(3).random(ROWS) < 0.1
    scattered = recall(index.search(fresh.queries, 10, where=mask)[1], naive(fresh, 10, mask)[1])
    options = Measuring(ks=(10,), shares=(0.1,))
    profile = measure_recall_profile(index, chunks_of(data), {"given": near(data, 300, 1)}, options)
    assert scattered > 0.9
    assert profile.curves[0].recall[0] < scattered - 0.1


def test_rows_that_cannot_be_found_are_not_missed(data: Data) -> None:
    index = built(data, "IVF64,Flat")
    gone = np.random.default_rng(3).random(ROWS) < 0.5
    half = Data(data.ids[:2900], data.vectors[:2900], data.queries)
    for chunks, where in ((chunks_of(data), ~gone), (chunks_of(half), np.arange(ROWS) < 2900)):
        options = Measuring(ks=(10,), shares=(1.0,), where=where)
        profile = measure_recall_profile(index, chunks, {"given": near(data, 100, 1)}, options)
        assert profile.curves[0].recall[-1] > 0.98


def test_copies_of_a_picture_count_as_one_another(data: Data) -> None:
    """A thousand copies of one row: whichever are found, nothing nearer is missed."""
    vectors = data.vectors.copy()
    vectors[:1000] = vectors[0]
    copies = Data(data.ids, vectors, data.queries)
    index = built(copies, "HNSW16,SQfp16")
    place = {name: i for i, name in enumerate(data.ids.tolist())}
    queries = {"given": l2_normalize(vectors[0] + 0.02 * np.random.default_rng(1).normal(size=(100, DIM)))}
    blind = measure_recall_profile(index, chunks_of(copies), queries, Measuring(ks=(10,), shares=(1.0,)))

    def read(ids: NDArray[np.int64]) -> NDArray[np.floating]:
        return vectors[[place[i] for i in ids.tolist()]].astype(np.float16)

    profile = measure_recall_profile(
        index, chunks_of(copies), queries, Measuring(ks=(10,), shares=(1.0,), vectors=read)
    )
    assert blind.curves[0].recall[-1] < 0.9
    assert profile.curves[0].recall[-1] == 1.0


def test_is_the_same_again_and_counts_its_steps(data: Data) -> None:
    index = built(data, "IVF64,Flat")
    steps: list[int] = []
    options = Measuring(ks=(1, 10), advance=steps.append)
    queries = {"text": near(data, 60, 1), "image": near(data, 60, 2)}
    first = measure_recall_profile(index, chunks_of(data), queries, options)
    assert first == measure_recall_profile(index, chunks_of(data), queries, options)
    assert len(steps) == 2 * options.steps(ROWS, 2)
    assert RecallProfile.from_dict(first.to_dict()) == first


def test_an_index_that_compares_with_everything_needs_no_measuring(data: Data, exact: ExactIndex) -> None:
    assert measure_recall_profile(exact, chunks_of(data), {"given": near(data, 20, 1)}).curves == ()


def test_shares_are_those_at_which_an_index_is_searched() -> None:
    assert Measuring().shares_for(3000) == (1.0,)
    assert Measuring().shares_for(50_000) == (1.0, 0.4)
    assert Measuring().shares_for(400_000) == (1.0, 0.1, 0.05)
    assert Measuring().shares_for(10**8) == (1.0, 0.1, 0.01)


def test_efforts_end_where_exact_search_costs_less(data: Data) -> None:
    graph = efforts_to_try(built(data, "HNSW8"), 1)
    assert graph[0] == 4
    # The graph holds the vectors, and so saves no reading.
    assert graph[-1] == max(ROWS // 128, 64)
    assert 64 in graph
    assert efforts_to_try(built(data, "HNSW8"), 100)[0] == 100
    lists = efforts_to_try(built(data, "IVF64,Flat"), 100, start=2)
    assert (lists[0], lists[-1]) == (2, 32)
    assert efforts_to_try(built(data, "SQ8"), 10) == [1]
    # A filter lets each effort look further.
    assert efforts_to_try(built(data, "IVF64,Flat"), 100, start=2, share=0.25)[-1] == 16
    assert efforts_to_try(built(data, "HNSW8"), 1, share=0.5)[-1] == 64
    assert all(b / a < 1.8 for a, b in itertools.pairwise(graph))


def test_too_few_queries_are_refused(data: Data) -> None:
    index = built(data, "IVF64,Flat")
    with pytest.raises(InputError, match="at least 2 given queries"):
        measure_recall_profile(index, chunks_of(data), {"given": near(data, 1, 1)})
    with pytest.raises(DimensionError):
        measure_recall_profile(index, chunks_of(data), {"given": np.zeros((5, DIM + 1), np.float32)})


class Counted(FaissIndex):
    """Counts queries by effort."""

    asked: dict[int, int]

    def search(self, vectors: Any, k: int, *, where: Any = None, effort: int | None = None) -> Any:
        self.asked = getattr(self, "asked", {})
        self.asked[effort or 0] = self.asked.get(effort or 0, 0) + len(vectors)
        return super().search(vectors, k, where=where, effort=effort)


@pytest.mark.parametrize("factory", ["HNSW16,Flat", "IVF32,Flat"])
def test_queries_that_found_all_are_left_alone_and_no_recall_changes(
    data: Data, factory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = {"near": near(data, 200, 1), "far": near(data, 200, 2, spread=3.0)}
    index = Counted(factory, DIM, default_effort=2)
    index.train(data.vectors)
    index.add(data.ids, data.vectors)
    options = Measuring(ks=(10,), shares=(1.0,))
    resting = measure_recall_profile(index, chunks_of(data), queries, options)
    few, index.asked = index.asked, {}
    monkeypatch.setattr("mmalign.index.recall.measure._RESTED", 1_000)
    asking = measure_recall_profile(index, chunks_of(data), queries, options)
    assert resting == asking
    assert sum(few.values()) < sum(index.asked.values())


def test_an_index_that_forgets_is_asked_everything_again(data: Data) -> None:
    class Forgets(Counted):
        """Finds all with little effort, and nothing with much."""

        def search(self, vectors: Any, k: int, *, where: Any = None, effort: int | None = None) -> Any:
            scores, ids = super().search(vectors, k, where=where, effort=32)
            return (scores, np.full_like(ids, -1)) if effort == 16 else (scores, ids)

    index = Forgets("IVF32,Flat", DIM, default_effort=1)
    index.train(data.vectors)
    index.add(data.ids, data.vectors)
    options = Measuring(ks=(10,), shares=(1.0,), efforts=(1, 2, 4, 8), always=(16,))
    curve = measure_recall_profile(index, chunks_of(data), {"near": near(data, 200, 1)}, options).curves[0]
    assert curve.efforts[-1] == 16
    assert min(curve.recall[:-1]) > 0.99
    assert curve.recall[-1] == 0
