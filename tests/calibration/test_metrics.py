"""Calibration metrics, against scikit-learn and loops that follow the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, roc_auc_score

from mmalign.calibration.metrics import (
    Binning,
    auroc,
    brier_score,
    brier_skill_score,
    expected_calibration_error,
    reliability_table,
    risk_coverage,
    wilson_interval,
)
from mmalign.errors import InputError


@pytest.fixture
def made(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Predictions with many ties, and outcomes that follow them only in part."""
    predicted = np.round(rng.beta(1, 2, 700), 2)
    return predicted, (rng.random(700) < 0.2 + 0.5 * predicted).astype(int)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_equal_width_is_the_textbook_sum(made: tuple[np.ndarray, np.ndarray], bins: int) -> None:
    predicted, came = made
    expected = 0.0
    for i in range(bins):
        low, high = i / bins, (i + 1) / bins
        inside = [j for j, p in enumerate(predicted) if low < p <= high or (i == 0 and p == 0)]
        if inside:
            expected += abs(sum(predicted[j] - came[j] for j in inside)) / len(predicted)
    assert expected_calibration_error(predicted, came, bins=bins, binning=Binning.EQUAL_WIDTH) == pytest.approx(
        expected, abs=1e-12
    )


def test_bins_equal_those_of_scikit_learn(rng: np.random.Generator) -> None:
    # Without ties, where both cut at the same places.
    predicted = rng.permutation(np.linspace(0.003, 0.997, 600))
    came = (rng.random(600) < predicted).astype(int)
    for binning, strategy in ((Binning.EQUAL_MASS, "quantile"), (Binning.EQUAL_WIDTH, "uniform")):
        observed, mean = calibration_curve(came, predicted, n_bins=10, strategy=strategy)
        table = reliability_table(predicted, came, bins=10, binning=binning)
        assert [own.observed for own in table] == pytest.approx(observed.tolist(), abs=0.02)
        assert [own.predicted for own in table] == pytest.approx(mean.tolist(), abs=0.003)


def test_equal_mass_keeps_ties_together_and_masses_equal(rng: np.random.Generator) -> None:
    table = reliability_table(rng.random(1000), rng.integers(0, 2, 1000), bins=8)
    assert [own.count for own in table] == [125] * 8
    tied = np.repeat([0.1, 0.2, 0.9], [50, 900, 50])
    came = rng.integers(0, 2, 1000)
    order = rng.permutation(1000)
    table = reliability_table(tied[order], came[order], bins=8)
    assert [(own.count, own.low, own.high) for own in table] == [(50, 0.1, 0.1), (900, 0.2, 0.2), (50, 0.9, 0.9)]
    assert table == reliability_table(tied, came, bins=8)


def test_the_base_rate_is_calibrated_and_has_no_skill(made: tuple[np.ndarray, np.ndarray]) -> None:
    _, came = made
    constant = np.full(came.size, came.mean())
    assert expected_calibration_error(constant, came) == pytest.approx(0, abs=1e-12)
    assert brier_skill_score(constant, came) == pytest.approx(0, abs=1e-12)
    assert auroc(constant, came) == 0.5


def test_scores_equal_those_of_scikit_learn(made: tuple[np.ndarray, np.ndarray]) -> None:
    predicted, came = made
    assert auroc(predicted, came) == pytest.approx(roc_auc_score(came, predicted), abs=1e-12)
    assert auroc(-predicted, came) == pytest.approx(1 - roc_auc_score(came, predicted), abs=1e-12)
    assert brier_score(predicted, came) == pytest.approx(brier_score_loss(came, predicted), abs=1e-12)
    base = brier_score_loss(came, np.full(came.size, came.mean()))
    assert brier_skill_score(predicted, came) == pytest.approx(1 - brier_score_loss(came, predicted) / base)


def test_auroc_counts_pairs(rng: np.random.Generator) -> None:
    scores, came = rng.integers(0, 4, 40), rng.integers(0, 2, 40)
    right, wrong = scores[came == 1], scores[came == 0]
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in right for b in wrong]
    assert auroc(scores, came) == pytest.approx(np.mean(wins))


def test_risk_coverage_is_the_mean_over_orders_of_ties(rng: np.random.Generator) -> None:
    scores, right = rng.integers(0, 3, 30), rng.integers(0, 2, 30)
    runs = []
    for _ in range(20_000):
        order = sorted(range(30), key=lambda i: (-scores[i], rng.random()))
        runs.append(np.cumsum(1 - right[order]) / np.arange(1, 31))
    curve = risk_coverage(scores, right)
    assert curve.risk == pytest.approx(np.mean(runs, axis=0), abs=0.02)
    assert curve.coverage.tolist() == [(i + 1) / 30 for i in range(30)]
    assert curve.risk[-1] == pytest.approx(1 - right.mean())
    assert curve.area == pytest.approx(np.mean(curve.risk))


def test_risk_at_a_coverage() -> None:
    curve = risk_coverage(np.arange(10, 0, -1), [1] * 3 + [0] * 7)
    assert curve.at(0.3) == 0
    assert curve.at(0.31) == pytest.approx(1 / 4)
    assert curve.at(1.0) == pytest.approx(0.7)
    assert curve.at(1e-9) == 0
    for wrong in (0.0, -1.0, 1.01, float("nan")):
        with pytest.raises(InputError, match="coverage"):
            curve.at(wrong)


def test_wilson_interval_against_its_definition() -> None:
    for right, count in ((0, 4), (3, 10), (950, 951)):
        low, high = wilson_interval(right, count)
        for end in (low, high):
            # Each end is a share p from which the observation is 1.96 standard errors away, or a bound of [0, 1].
            if 0 < end < 1:
                assert abs(right / count - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / count), rel=1e-4)
        assert 0 <= low <= right / count <= high <= 1
    with pytest.raises(InputError, match="right"):
        wilson_interval(2, 1)


@pytest.mark.parametrize(
    ("predicted", "came", "message"),
    [
        ([], [], "n >= 1"),
        ([0.5], [1, 0], "one shape"),
        ([[0.5]], [[1]], "one shape"),
        ([1.5], [1], "from 0 to 1"),
        ([-0.1], [1], "from 0 to 1"),
        ([float("nan")], [1], "from 0 to 1"),
        ([0.5], [2], "outcomes of 0 and 1"),
        ([0.5], [0.5], "outcomes of 0 and 1"),
    ],
)
def test_bad_predictions_are_refused(predicted: list, came: list, message: str) -> None:
    for measure in (reliability_table, expected_calibration_error, brier_score, brier_skill_score):
        with pytest.raises(InputError, match=message):
            measure(predicted, came)


def test_what_cannot_be_measured_is_refused() -> None:
    for measure in (auroc, brier_skill_score):
        with pytest.raises(InputError, match="both right and wrong"):
            measure([0.1, 0.2], [1, 1])
    for measure in (auroc, risk_coverage):
        with pytest.raises(InputError, match="finite"):
            measure([np.inf, 0], [1, 0])
    with pytest.raises(InputError, match="bins"):
        expected_calibration_error([0.5], [1], bins=0)
