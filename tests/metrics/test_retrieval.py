from __future__ import annotations

import numpy as np
import pytest

from mmalign.errors import DimensionError, InputError
from mmalign.metrics import retrieval
from mmalign.metrics.retrieval import (
    any_hit_at_k,
    bootstrap_interval,
    median_rank,
    precision_at_k,
    recall_at_k,
    retrieval_ranks,
)


def naive_ranks(texts: np.ndarray, images: np.ndarray, owner: np.ndarray) -> tuple[list[int], list[int]]:
    """Sort whole lists, wrong answers before right ones where they tie."""
    scores = texts.astype(np.float64) @ images.astype(np.float64).T
    text_ranks = []
    for t in range(len(texts)):
        order = sorted(range(len(images)), key=lambda i: (-scores[t, i], i == owner[t]))
        text_ranks.append(order.index(owner[t]) + 1)
    image_ranks = []
    for i in range(len(images)):
        order = sorted(range(len(texts)), key=lambda t: (-scores[t, i], owner[t] == i))
        own = [place for place, t in enumerate(order) if owner[t] == i]
        image_ranks.append(own[0] + 1 if own else 0)
    return text_ranks, image_ranks


@pytest.mark.parametrize("block", [1 << 24, 40])
def test_ranks_equal_sorting(rng: np.random.Generator, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK_SCORES", block)
    # Small whole numbers, so that there are many exact ties.
    images = rng.integers(-2, 3, (17, 4)).astype(np.float32)
    texts = rng.integers(-2, 3, (60, 4)).astype(np.float32)
    owner = rng.integers(0, 16, 60)
    owner[:16] = np.arange(16)
    expected = naive_ranks(texts, images, owner)
    found = retrieval_ranks(texts, images, owner)
    assert found[0].tolist() == expected[0]
    assert found[1].tolist() == expected[1]
    assert found[1][16] == 0


def test_a_constant_score_earns_the_last_rank() -> None:
    ones = np.ones((4, 3))
    text_ranks, image_ranks = retrieval_ranks(ones, ones, [0, 1, 2, 3])
    assert text_ranks.tolist() == image_ranks.tolist() == [4, 4, 4, 4]


def test_own_captions_are_no_competitors() -> None:
    # Picture 0 has a good and a bad caption; the bad one does not count.
    text_ranks, image_ranks = retrieval_ranks([[1, 0], [-1, 0], [0, 1]], np.eye(2), [0, 0, 1])
    assert text_ranks.tolist() == [1, 2, 1]
    assert image_ranks.tolist() == [1, 1]


def test_bad_ranks_input() -> None:
    with pytest.raises(DimensionError):
        retrieval_ranks(np.ones((2, 3)), np.ones((2, 4)), [0, 1])
    with pytest.raises(DimensionError, match="each of 2 texts"):
        retrieval_ranks(np.ones((2, 3)), np.ones((2, 3)), [0])
    with pytest.raises(InputError, match=r"0\.\.1"):
        retrieval_ranks(np.ones((2, 3)), np.ones((2, 3)), [0, 2])


def test_any_hit_counts_queries() -> None:
    assert [any_hit_at_k([1, 2, 9, 20], k) for k in (1, 5, 10, 20)] == [0.25, 0.5, 0.75, 1.0]
    for ranks in ([], [0, 1], [[1]]):
        with pytest.raises(InputError, match="at least 1"):
            any_hit_at_k(ranks, 1)
    with pytest.raises(InputError, match="k must be"):
        any_hit_at_k([1], 0)


def test_set_recall_is_not_any_hit() -> None:
    found = [[4, 7, 1, -1], [2, 3, 5, 6]]
    relevant = [[7, 9, -1], [2, 3, 5]]
    assert recall_at_k(found, relevant, 1) == pytest.approx((0 + 1 / 3) / 2)
    assert recall_at_k(found, relevant, 2) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert recall_at_k(found, relevant, 99) == pytest.approx((1 / 2 + 1) / 2)


def test_set_recall_equals_sets(rng: np.random.Generator) -> None:
    found = np.stack([rng.permutation(30)[:12] for _ in range(20)])
    relevant = np.where(rng.random((20, 6)) < 0.3, -1, np.stack([rng.permutation(30)[:6] for _ in range(20)]))
    relevant[:, 0] = 3
    for k in (1, 4, 12):
        shares = [
            len(set(f[:k].tolist()) & (set(r.tolist()) - {-1})) / len(set(r.tolist()) - {-1})
            for f, r in zip(found, relevant, strict=True)
        ]
        assert recall_at_k(found, relevant, k) == pytest.approx(np.mean(shares))


def test_bad_set_recall_input() -> None:
    with pytest.raises(InputError, match="query 1 has no right answer"):
        recall_at_k([[1], [2]], [[1], [-1]], 1)
    with pytest.raises(InputError, match="one row a query"):
        recall_at_k([1], [[1]], 1)
    with pytest.raises(InputError, match="k must be"):
        recall_at_k([[1]], [[1]], 0)


def test_median_rank() -> None:
    assert median_rank([9, 1, 2]) == 2.0
    assert median_rank([1, 2, 4, 9]) == 3.0


def test_the_interval_covers_the_mean_about_as_often_as_it_says(rng: np.random.Generator) -> None:
    hits = 0
    for seed in range(150):
        low, high = bootstrap_interval(rng.random(80) < 0.3, resamples=300, seed=seed)
        hits += low <= 0.3 <= high
    assert 0.87 <= hits / 150 <= 0.995


def test_groups_widen_the_interval(rng: np.random.Generator) -> None:
    values = np.repeat(rng.random(60), 5)
    alone = bootstrap_interval(values, resamples=400)
    grouped = bootstrap_interval(values, groups=np.repeat(np.arange(60), 5), resamples=400)
    ratio = (grouped[1] - grouped[0]) / (alone[1] - alone[0])
    # Five equal values a group carry the information of one: sqrt(5) times wider.
    assert ratio == pytest.approx(np.sqrt(5), rel=0.25)
    assert bootstrap_interval(values, resamples=400) == alone


def test_the_interval_of_another_statistic() -> None:
    low, high = bootstrap_interval(np.arange(101), lambda sample: float(np.median(sample)), resamples=300)
    assert low < 50 < high
    for bad in ({"level": 1.0}, {"groups": [1, 2]}):
        with pytest.raises(InputError):
            bootstrap_interval([1.0, 2.0, 3.0], **bad)
    with pytest.raises(InputError, match="q >= 1"):
        bootstrap_interval([])


def test_precision_is_cut_at_the_number_of_right_answers() -> None:
    scores, right = [0.9, 0.8, 0.7, 0.6], [True, False, True, False]
    assert precision_at_k(scores, right, 1) == 1.0
    assert precision_at_k(scores, right, 2) == 0.5
    assert precision_at_k(scores, right, 10) == 0.5, "two right answers: the first two count"
    assert precision_at_k([1.0, 1.0, 1.0], [True, False, True], 2) == 0.5, "of equal scores the wrong one comes first"
    for bad in ([False] * 4, [True], [[True] * 4]):
        with pytest.raises(InputError, match="right answer"):
            precision_at_k(scores, bad, 1)
    with pytest.raises(InputError, match="at least 1"):
        precision_at_k(scores, right, 0)


def test_the_mean_by_sums_is_the_mean_of_the_drawn_values() -> None:
    rng = np.random.default_rng(4)
    values, groups = rng.random(60), rng.integers(0, 9, 60)
    for chosen in (None, groups):
        fast = bootstrap_interval(values, groups=chosen, resamples=200)
        assert fast == pytest.approx(bootstrap_interval(values, np.mean, groups=chosen, resamples=200), abs=1e-12)
