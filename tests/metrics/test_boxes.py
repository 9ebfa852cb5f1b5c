from __future__ import annotations

import numpy as np
import pytest

from mmalign.errors import DimensionError, InputError
from mmalign.metrics.boxes import (
    first_hit,
    heat_peak,
    iou_matrix,
    points_inside,
    recall_of_ranks,
    union_box,
)


def naive_iou(a: list[int], b: list[int]) -> float:
    """Count unit squares one by one."""
    squares = [
        {(x, y) for x in range(box[0], box[0] + box[2]) for y in range(box[1], box[1] + box[3])} for box in (a, b)
    ]
    return len(squares[0] & squares[1]) / len(squares[0] | squares[1])


def some_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    return np.concatenate([rng.integers(0, 12, (count, 2)), rng.integers(1, 9, (count, 2))], axis=1)


def test_iou_equals_counting_squares(rng: np.random.Generator) -> None:
    first, second = some_boxes(rng, 30), some_boxes(rng, 20)
    expected = [[naive_iou(a, b) for b in second.tolist()] for a in first.tolist()]
    np.testing.assert_allclose(iou_matrix(first, second), expected, rtol=1e-12)
    assert iou_matrix([], second).shape == (0, 20)


def test_first_hit_equals_a_loop(rng: np.random.Generator) -> None:
    ranks = []
    for _ in range(200):
        ranked, truth = some_boxes(rng, int(rng.integers(0, 12))), some_boxes(rng, int(rng.integers(1, 4)))
        expected = 0
        for place, box in enumerate(ranked.tolist(), 1):
            if any(naive_iou(box, right) >= 0.5 for right in truth.tolist()):
                expected = place
                break
        assert first_hit(ranked, truth) == expected
        ranks.append(expected)
    for k in (1, 5, 10):
        assert recall_of_ranks(ranks, k) == pytest.approx(sum(0 < rank <= k for rank in ranks) / 200)
    assert 0 < recall_of_ranks(ranks, 1) < recall_of_ranks(ranks, 5) < 1


def test_exactly_half_is_enough() -> None:
    assert first_hit([[0, 0, 2, 1]], [[0, 0, 1, 1]]) == 1
    assert first_hit([[0, 0, 2.001, 1]], [[0, 0, 1, 1]]) == 0


def test_the_union_is_another_question_than_any_box() -> None:
    apart = [[0, 0, 1, 1], [9, 0, 1, 1]]
    assert union_box(apart).tolist() == [0, 0, 10, 1]
    whole = [[0, 0, 10, 1]]
    assert first_hit(whole, apart) == 0
    assert first_hit(whole, [union_box(apart)]) == 1


def test_pointing_includes_edges() -> None:
    truth = [[0, 0, 2, 2], [5, 5, 1, 1]]
    for point in ([0, 0], [2, 2], [5.5, 5.5], [6, 6]):
        assert points_inside(point, truth)
    for point in ([2.01, 1], [4.9, 5.5], [-0.1, 0]):
        assert not points_inside(point, truth)
    assert not points_inside([1, 1], [])


def test_the_peak_is_the_middle_of_the_best_cell(rng: np.random.Generator) -> None:
    for _ in range(20):
        heat = rng.normal(size=(5, 7))
        x, y = heat_peak(heat, 70, 50)
        assert heat[int(y // 10), int(x // 10)] == heat.max()
        assert (x % 10, y % 10) == (5, 5)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: iou_matrix([[0, 0, 1]], [[0, 0, 1, 1]]), DimensionError, "shape"),
        (lambda: iou_matrix([[0, 0, 0, 1]], [[0, 0, 1, 1]]), InputError, "above 0"),
        (lambda: iou_matrix([[0, np.nan, 1, 1]], []), InputError, "finite"),
        (lambda: union_box([]), InputError, "at least one box"),
        (lambda: first_hit([], []), InputError, "leave it out"),
        (lambda: first_hit([], [[0, 0, 1, 1]], iou=0.0), InputError, "above 0"),
        (lambda: recall_of_ranks([], 1), InputError, "at least one rank"),
        (lambda: recall_of_ranks([-1], 1), InputError, "rank"),
        (lambda: recall_of_ranks([1], 0), InputError, "at least 1"),
        (lambda: points_inside([1], [[0, 0, 1, 1]]), DimensionError, "point"),
        (lambda: points_inside([1, np.inf], [[0, 0, 1, 1]]), InputError, "finite"),
        (lambda: heat_peak([], 1, 1), DimensionError, "heat map"),
        (lambda: heat_peak([[np.nan]], 1, 1), InputError, "NaN"),
        (lambda: heat_peak([[1]], 0, 1), InputError, "above 0"),
    ],
)
def test_bad_input(call, error: type[Exception], told: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=told):
        call()
