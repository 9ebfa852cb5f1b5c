"""Calibration metrics: how well probabilities tell what happens, and how well scores tell right from wrong.

Outcomes are 1 where the event came about and 0 where it did not. Predicting the base rate for everything is
calibrated and useless; so the calibration error is read together with AUROC and the Brier skill score.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import InputError

Float64Array = NDArray[np.float64]


class Binning(StrEnum):
    """How probabilities are put into bins.

    Attributes:
        EQUAL_MASS: As nearly as possible the same number of predictions in each bin; equal predictions stay together.
        EQUAL_WIDTH: Bins of the same width from 0 to 1; each holds its upper end, the first also 0.
    """

    EQUAL_MASS = "equal-mass"
    EQUAL_WIDTH = "equal-width"


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Predictions of about the same probability, and what came about.

    Attributes:
        count: Predictions, at least 1.
        low: Smallest prediction.
        high: Largest prediction.
        predicted: Mean prediction, 0 to 1.
        observed: Share of them whose event came about, 0 to 1.
        interval: 95% Wilson interval of `observed`, as if the predictions were independent.
    """

    count: int
    low: float
    high: float
    predicted: float
    observed: float
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """What share of the answers is wrong when only the surest are given.

    Attributes:
        coverage: Share of the queries that is answered, shape (n,): 1/n, 2/n, ... 1.
        risk: Share of the answers given that is wrong, shape (n,), 0 to 1.
    """

    coverage: Float64Array
    risk: Float64Array

    @property
    def area(self) -> float:
        """Mean risk over all coverages, 0 to 1; lower is better. Random order has the area of the error rate."""
        return float(self.risk.mean())

    def at(self, coverage: float) -> float:
        """Risk when at least this share of the queries is answered.

        Args:
            coverage: Above 0, at most 1.

        Returns:
            From 0 to 1.

        Raises:
            InputError: `coverage` outside (0, 1].
        """
        if not 0 < coverage <= 1:
            raise InputError(f"expected a coverage above 0 and at most 1, got {coverage}")
        count = len(self.risk)
        # 0.3 * 10 is a little more than 3; that must not be the fourth answer.
        return float(self.risk[min(count, int(np.ceil(coverage * count - 1e-9))) - 1])


def reliability_table(
    probabilities: ArrayLike, outcomes: ArrayLike, *, bins: int = 15, binning: Binning = Binning.EQUAL_MASS
) -> list[ReliabilityBin]:
    """Put predictions into bins, and compare each bin's mean prediction with what came about.

    Args:
        probabilities: Predictions, shape (n,), 0 to 1.
        outcomes: What came about, shape (n,), 0 or 1.
        bins: How many bins, at least 1; empty ones are left out.
        binning: How the bins are cut.

    Returns:
        The bins, by rising prediction.

    Raises:
        InputError: No predictions, other shapes or values, or `bins` below 1.

    Example:
        >>> [(b.count, b.predicted, b.observed) for b in reliability_table([0.25, 0.25, 1.0], [0, 1, 1], bins=2)]
        [(2, 0.25, 0.5), (1, 1.0, 1.0)]
    """
    predicted, came = _pairs(probabilities, outcomes)
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    if binning is Binning.EQUAL_WIDTH:
        place = np.clip(np.ceil(predicted * bins).astype(np.int64) - 1, 0, bins - 1)
    else:
        # Equal predictions share the bin of their middle one: a bin must not depend on the order of what is equal.
        _, inverse, counts = np.unique(predicted, return_inverse=True, return_counts=True)
        middle = np.cumsum(counts) - counts + (counts - 1) / 2
        place = (middle * bins / predicted.size).astype(np.int64)[inverse]
    table = []
    for number in np.unique(place):
        inside = place == number
        own, right = predicted[inside], int(came[inside].sum())
        table.append(
            ReliabilityBin(
                count=own.size,
                low=float(own.min()),
                high=float(own.max()),
                predicted=float(own.mean()),
                observed=right / own.size,
                interval=wilson_interval(right, own.size),
            )
        )
    return table


def expected_calibration_error(
    probabilities: ArrayLike, outcomes: ArrayLike, *, bins: int = 15, binning: Binning = Binning.EQUAL_MASS
) -> float:
    """Mean distance between prediction and outcome over the bins, weighted by their sizes.

    Args:
        probabilities: Predictions, shape (n,), 0 to 1.
        outcomes: What came about, shape (n,), 0 or 1.
        bins: How many bins, at least 1.
        binning: How the bins are cut; equal width is the form most papers report, equal mass wastes no bin on
            predictions that hardly occur.

    Returns:
        From 0 (calibrated) to 1.

    Raises:
        InputError: As `reliability_table`.

    Source: Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015 (equal width);
    Nguyen and O'Connor, Posterior Calibration and Exploratory Analysis for NLP Models, 2015 (equal mass).

    Example:
        >>> expected_calibration_error([0.75, 0.75, 0.75, 0.75], [1, 1, 0, 0])
        0.25
    """
    table = reliability_table(probabilities, outcomes, bins=bins, binning=binning)
    total = sum(own.count for own in table)
    return sum(own.count * abs(own.predicted - own.observed) for own in table) / total


def brier_score(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """Mean squared distance between prediction and outcome.

    Args:
        probabilities: Predictions, shape (n,), 0 to 1.
        outcomes: What came about, shape (n,), 0 or 1.

    Returns:
        From 0 (certain and right) to 1 (certain and wrong).

    Raises:
        InputError: No predictions, or other shapes or values.

    Source: Brier, Verification of forecasts expressed in terms of probability, 1950.

    Example:
        >>> brier_score([1.0, 0.5], [1, 0])
        0.125
    """
    predicted, came = _pairs(probabilities, outcomes)
    return float(np.mean((predicted - came) ** 2))


def brier_skill_score(probabilities: ArrayLike, outcomes: ArrayLike) -> float:
    """How much of the Brier score of the constant base rate is saved.

    Args:
        probabilities: Predictions, shape (n,), 0 to 1.
        outcomes: What came about, shape (n,), 0 or 1; both must occur.

    Returns:
        1 for certain and right, 0 for what the base rate of these outcomes does, below 0 for worse.

    Raises:
        InputError: As `brier_score`, or all outcomes are the same.

    Source: Murphy, Skill scores based on the mean square error, 1988.

    Example:
        >>> brier_skill_score([0.5, 0.5], [1, 0])
        0.0
    """
    predicted, came = _both_outcomes(*_pairs(probabilities, outcomes))
    return 1 - brier_score(predicted, came) / float(np.var(came))


def auroc(scores: ArrayLike, outcomes: ArrayLike) -> float:
    """Probability that a right answer scores higher than a wrong one; equal scores count one half.

    Args:
        scores: Any finite numbers, higher for surer, shape (n,).
        outcomes: What came about, shape (n,), 0 or 1; both must occur.

    Returns:
        From 0 to 1; 0.5 for chance.

    Raises:
        InputError: No scores, other shapes or values, or all outcomes are the same.

    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, 1982.

    Example:
        >>> auroc([0.9, 0.5, 0.5, 0.1], [1, 1, 0, 0])
        0.875
    """
    values, came = _both_outcomes(*_pairs(scores, outcomes, low=-np.inf, high=np.inf))
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    # Equal scores share the mean of the ranks that they take up.
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    right = float(came.sum())
    wrong = came.size - right
    return float((ranks[came > 0].sum() - right * (right + 1) / 2) / (right * wrong))


def risk_coverage(scores: ArrayLike, outcomes: ArrayLike) -> RiskCoverage:
    """Risk at every coverage, when answers are given in order of falling score.

    Args:
        scores: Any finite numbers, higher for surer, shape (n,).
        outcomes: Whether the answer is right, shape (n,), 0 or 1.

    Returns:
        The curve; among equal scores the risk is that of a random order, on average.

    Raises:
        InputError: No scores, or other shapes or values.

    Source: El-Yaniv and Wiener, On the Foundations of Noise-free Selective Classification, 2010; the area as in
    Geifman et al., Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers, 2019.

    Example:
        >>> risk_coverage([0.9, 0.8, 0.1], [1, 0, 1]).risk.round(3).tolist()
        [0.0, 0.5, 0.333]
    """
    values, came = _pairs(scores, outcomes, low=-np.inf, high=np.inf)
    _, inverse, counts = np.unique(-values, return_inverse=True, return_counts=True)
    wrong = np.bincount(inverse, weights=1 - came) / counts
    answered = np.arange(1, values.size + 1)
    return RiskCoverage(answered / values.size, np.cumsum(np.repeat(wrong, counts)) / answered)


def wilson_interval(right: int, count: int) -> tuple[float, float]:
    """95% interval of a share.

    Args:
        right: How often the event came about.
        count: Out of how many, at least 1.

    Returns:
        `(low, high)`, 0 to 1.

    Raises:
        InputError: `count` below 1, or `right` outside 0 to `count`.

    Source: Wilson, Probable inference, the law of succession, and statistical inference, 1927.

    Example:
        >>> [round(end, 3) for end in wilson_interval(5, 10)]
        [0.237, 0.763]
    """
    if count < 1 or not 0 <= right <= count:
        raise InputError(f"expected 0 <= right <= count and count >= 1, got right={right}, count={count}")
    z = 1.959963984540054
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def _pairs(
    values: ArrayLike, outcomes: ArrayLike, *, low: float = 0.0, high: float = 1.0
) -> tuple[Float64Array, Float64Array]:
    predicted, came = np.asarray(values, np.float64), np.asarray(outcomes, np.float64)
    if predicted.ndim != 1 or predicted.size == 0 or came.shape != predicted.shape:
        raise InputError(
            f"expected predictions and outcomes of one shape (n,) with n >= 1, got {predicted.shape} and {came.shape}"
        )
    if not (np.isfinite(predicted) & (predicted >= low) & (predicted <= high)).all():
        span = "finite" if np.isinf(low) else f"from {low:g} to {high:g}"
        raise InputError(f"expected predictions that are {span}, got {predicted.min()}..{predicted.max()}")
    if not np.isin(came, (0, 1)).all():
        raise InputError(f"expected outcomes of 0 and 1, got {np.unique(came)[:5].tolist()}")
    return predicted, came


def _both_outcomes(values: Float64Array, came: Float64Array) -> tuple[Float64Array, Float64Array]:
    if came.min() == came.max():
        raise InputError(f"all {came.size} outcomes are {came[0]:g}; skill needs both right and wrong answers")
    return values, came
