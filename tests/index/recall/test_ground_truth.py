"""Exact truth from a chunked scan, against sorting all inner products in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from mmalign.errors import DimensionError, InputError
from mmalign.index.recall import ground_truth as module
from mmalign.index.recall.ground_truth import Truth, exact_truth
from tests.index.helpers import DIM, ROWS, Data, naive


def chunked(data: Data, size: int, dtype: type = np.float32):  # type: ignore[no-untyped-def]
    def chunks() -> Iterator[tuple[NDArray[np.int64], NDArray[np.floating]]]:
        for start in range(0, len(data.ids), size):
            yield data.ids[start : start + size], data.vectors[start : start + size].astype(dtype)

    return chunks


@pytest.mark.parametrize("size", [1, 700, ROWS])
@pytest.mark.parametrize("k", [1, 10, 130])
def test_finds_what_sorting_finds(data: Data, size: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if size == 1:
        data = Data(data.ids[:150], data.vectors[:150], data.queries)
    monkeypatch.setattr(module, "_BLOCK_SCORES", 300 * len(data.queries))
    seen: list[int] = []
    found = exact_truth(data.queries, chunked(data, size), k, advance=seen.append)
    scores, ids = naive(data, k)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    assert np.mean(found.ids == ids) > 0.999
    assert sum(seen) == len(data.ids)


def test_half_precision_is_taken_as_it_is(data: Data) -> None:
    rounded = Data(data.ids, data.vectors.astype(np.float16).astype(np.float32), data.queries)
    found = exact_truth(data.queries, chunked(data, 900, np.float16), 10)
    np.testing.assert_allclose(found.scores, naive(rounded, 10)[0], atol=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.003, 0.0])
def test_a_mask_for_all_queries(data: Data, share: float, rng: np.random.Generator) -> None:
    allowed = rng.random(ROWS) < share
    known = data.ids[allowed]
    found = exact_truth(data.queries, chunked(data, 700), 10, allowed=lambda ids: np.isin(ids, known))
    scores, ids = naive(data, 10, allowed)
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    assert (found.ids == ids).all()


def test_a_mask_for_each_query_and_rows_to_skip(data: Data, rng: np.random.Generator) -> None:
    masks = rng.random((len(data.queries), ROWS)) < 0.2
    skip = data.ids[: len(data.queries)].copy()
    skip[::2] = -1
    order = np.argsort(data.ids)

    def allowed(ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        return masks[:, order[np.searchsorted(data.ids[order], ids)]]

    found = exact_truth(data.queries, chunked(data, 700), 10, allowed=allowed, skip=skip)
    for i in range(len(data.queries)):
        one = Data(data.ids, data.vectors, data.queries[i : i + 1])
        expected = naive(one, 10, masks[i] & (data.ids != skip[i]))
        np.testing.assert_allclose(found.scores[i], expected[0][0], atol=1e-5)
        assert (found.ids[i] == expected[1][0]).all()


def test_more_than_there_are(data: Data) -> None:
    few = Data(data.ids[:7], data.vectors[:7], data.queries)
    assert exact_truth(few.queries, chunked(few, 3), 50).ids.shape == (len(few.queries), 7)
    assert exact_truth(few.queries, chunked(few, 3), 0).ids.shape == (len(few.queries), 0)
    assert exact_truth(few.queries, lambda: iter(()), 5).ids.shape == (len(few.queries), 0)
    assert exact_truth(np.zeros((0, DIM)), chunked(few, 3), 5).ids.shape == (0, 5)


def test_what_makes_no_sense_is_refused(data: Data) -> None:
    with pytest.raises(DimensionError):
        exact_truth(np.zeros((1, DIM + 1)), chunked(data, 700), 5)
    with pytest.raises(InputError, match="at least 0"):
        exact_truth(data.queries, chunked(data, 700), -1)
    with pytest.raises(InputError, match="one id for each"):
        exact_truth(data.queries, chunked(data, 700), 1, skip=np.zeros(3, np.int64))


def test_recall_by_hand() -> None:
    truth = Truth(np.array([[0.9, 0.8, 0.7, 0.6], [0.5, -np.inf, -np.inf, -np.inf]], np.float32),
                  np.array([[1, 2, 3, 4], [5, -1, -1, -1]]))  # fmt: skip
    found = np.array([[2, 9, 3, 1], [5, -1, -1, -1]])
    assert truth.recall(found, 1).tolist() == [0.0, 1.0]
    assert truth.recall(found, 2).tolist() == [0.5, 1.0]
    assert truth.recall(found, 3).tolist() == [pytest.approx(2 / 3), 1.0]
    assert truth.recall(np.full((2, 4), -1), 4).tolist() == [0.0, 0.0]
    # The same row twice is one hit.
    assert truth.recall(np.array([[1, 1], [5, 5]]), 2).tolist() == [0.5, 1.0]
    with pytest.raises(InputError, match="depth"):
        truth.recall(found, 5)


def test_nothing_to_find_is_found() -> None:
    assert Truth(np.full((1, 2), -np.inf, np.float32), np.full((1, 2), -1)).recall(np.full((1, 2), -1), 1).tolist() == [
        1.0
    ]


def test_a_tie_counts_as_found() -> None:
    truth = Truth(np.array([[0.9, 0.8, 0.8, 0.8, 0.1]], np.float32), np.array([[1, 2, 3, 4, 5]]))
    assert truth.recall(np.array([[1, 4]]), 2).tolist() == [1.0]
    assert truth.recall(np.array([[4, 3]]), 2).tolist() == [1.0]
    assert truth.recall(np.array([[1, 5]]), 2).tolist() == [0.5]


def test_ties_beyond_the_depth_are_looked_up() -> None:
    truth = Truth(np.array([[0.9, 0.8, 0.8]], np.float32), np.array([[1, 2, 3]]))
    found = np.array([[1, 77, 88]])
    scores = {77: 0.8, 88: 0.3}
    assert truth.recall(found, 3).tolist() == [pytest.approx(1 / 3)]
    looked_up = truth.recall(found, 3, lookup=lambda query, ids: np.array([scores[i] for i in ids.tolist()]))
    assert looked_up.tolist() == [pytest.approx(2 / 3)]


def test_ties_among_vectors_of_any_length() -> None:
    """A tie is what rounding makes: a part of the score, however long or short the vectors are."""
    scores, ids = np.array([[3.0, 2.0, 1.999999, 1.99]], np.float32), np.array([[1, 2, 3, 4]])
    for scale in (1.0, 1e5, 1e-5, -1e4):
        truth = Truth(np.sort(scores * np.float32(scale))[:, ::-1], ids if scale > 0 else ids[:, ::-1])
        near = truth.recall(np.array([[1, 3]] if scale > 0 else [[4, 2]]), 2, unit_length=False)
        assert near.tolist() == [1.0]
        far = truth.recall(np.array([[1, 4]] if scale > 0 else [[4, 1]]), 2, unit_length=False)
        assert far.tolist() == [0.5]
    # What would be a tie of unit vectors is none of short ones.
    short = Truth(scores * np.float32(1e-5), ids)
    assert short.recall(np.array([[1, 4]]), 2).tolist() == [1.0]
