"""The lower bound of a mean, against what it is to be sure of: populations whose true mean is known."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.stats import beta

from mmalign.errors import InputError
from mmalign.index.recall.bounds import lower_bound

TRIALS = 200
# 5% and three standard errors of a share of 5% over so many trials.
TOLERATED = 0.05 + 3 * np.sqrt(0.05 * 0.95 / TRIALS)
LEVELS = np.arange(11) / 10
# Chances of recall 0, 0.1, ... 1 of a query.
POPULATIONS = {
    "mean 0.56": np.array([0.2, 0, 0, 0, 0.2, 0, 0.2, 0, 0.2, 0, 0.2]),
    "mean 0.95, spread": np.array([0, 0, 0, 0, 0.01, 0.01, 0.02, 0.05, 0.06, 0.09, 0.76]),
    "mean 0.95, all or nothing": np.array([0.05] + 9 * [0] + [0.95]),
    "mean 0.99, single misses": np.array([0] * 9 + [0.1, 0.9]),
    "mean 0.99, all or nothing": np.array([0.01] + 9 * [0] + [0.99]),
    "mean 0.999": np.array([0.0005, 0, 0, 0, 0, 0.001] + 4 * [0] + [0.9985]),
}


@cache
def bound_of(counts: tuple[int, ...]) -> float:
    return lower_bound(np.repeat(LEVELS, counts))


@pytest.mark.parametrize("queries", [40, 200])
@pytest.mark.parametrize("population", POPULATIONS)
def test_is_rarely_above_the_true_mean(population: str, queries: int, rng: np.random.Generator) -> None:
    chances = POPULATIONS[population]
    assert chances.sum() == pytest.approx(1)
    truth = float(chances @ LEVELS)
    draws = rng.multinomial(queries, chances, size=TRIALS)
    failures = sum(bound_of(tuple(counts.tolist())) > truth for counts in draws)
    assert failures <= TOLERATED * TRIALS


def test_a_plain_bootstrap_would_fail_this_check(rng: np.random.Generator) -> None:
    chances = POPULATIONS["mean 0.99, all or nothing"]
    failures = 0
    for counts in rng.multinomial(40, chances, size=TRIALS):
        values = np.repeat(LEVELS, counts)
        means = rng.choice(values, size=(500, 40)).mean(axis=1)
        failures += float(np.quantile(means, 0.05)) > chances @ LEVELS
    assert failures > 5 * TOLERATED * TRIALS


@pytest.mark.parametrize(("hits", "queries"), [(60, 60), (57, 60), (30, 60), (1, 60), (0, 60), (1, 1), (295, 300)])
def test_of_zeros_and_ones_is_clopper_and_pearson(hits: int, queries: int) -> None:
    expected = beta.ppf(0.05, hits, queries - hits + 1) if hits else 0.0
    assert lower_bound([1.0] * hits + [0.0] * (queries - hits)) == pytest.approx(expected, abs=0.005)


def test_closes_in_on_the_mean_as_queries_grow(rng: np.random.Generator) -> None:
    chances = POPULATIONS["mean 0.95, spread"]
    bounds = [lower_bound(rng.choice(LEVELS, size=n, p=chances)) for n in (30, 300, 3000, 30_000)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(chances @ LEVELS, abs=0.005)


def test_more_confidence_is_a_lower_bound() -> None:
    values = [1.0] * 50 + [0.5] * 10
    assert lower_bound(values, confidence=0.99) < lower_bound(values, confidence=0.9) < np.mean(values)


def test_nothing_seen_promises_nothing() -> None:
    assert lower_bound([]) == 0.0


@pytest.mark.parametrize("values", [[1.1], [-0.1], [np.nan]])
def test_values_out_of_range_are_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        lower_bound(values)


def test_confidence_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        lower_bound([1.0], confidence=1.0)
