"""Speeds at equal recall, beside points whose speeds are known, and which index counts as the best."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.equal_recall import best, frontier, median, ratio, speed_at


def test_the_logarithm_of_the_speed_is_linear_between_two_points() -> None:
    points = [(0.90, 1000.0), (0.96, 250.0)]
    # Half way between the logarithms of 1000 and 250.
    assert speed_at(points, 0.93) == pytest.approx(500)
    assert speed_at(points, 0.92) == pytest.approx(1000 * 4 ** (-1 / 3))
    assert speed_at(points, 0.90) == pytest.approx(1000)
    assert speed_at(points, 0.96) == pytest.approx(250)


def test_it_is_what_numpy_interpolates() -> None:
    rng = np.random.default_rng(0)
    recalls = np.sort(rng.uniform(0.5, 1.0, 12))
    speeds = np.sort(rng.uniform(100, 9000, 12))[::-1]
    points = list(zip(recalls.tolist(), speeds.tolist(), strict=True))
    rng.shuffle(points)
    for recall in rng.uniform(recalls[0], recalls[-1], 50):
        expected = math.exp(np.interp(recall, recalls, np.log(speeds)))
        assert speed_at(points, float(recall)) == pytest.approx(expected)


def test_points_beyond_the_neighbours_do_not_matter() -> None:
    inner = [(0.94, 800.0), (0.97, 400.0)]
    assert speed_at([(0.5, 9e9), *inner, (0.999, 1.0)], 0.95) == pytest.approx(speed_at(inner, 0.95))


def test_a_recall_that_no_effort_reaches_has_no_speed() -> None:
    assert speed_at([(0.90, 1000.0), (0.949, 10.0)], 0.95) is None
    assert speed_at([], 0.95) is None


def test_where_the_least_effort_finds_more_its_speed_counts() -> None:
    assert speed_at([(0.97, 700.0), (0.99, 300.0)], 0.90) == 700


def test_a_point_that_another_beats_counts_for_nothing() -> None:
    good = [(0.90, 1000.0), (0.96, 250.0)]
    assert frontier([*good, (0.93, 200.0), (0.90, 900.0)]) == good
    assert speed_at([*good, (0.93, 200.0)], 0.93) == pytest.approx(500)
    # Noise may make more effort seem faster: then the less effort is what is beaten.
    assert speed_at([(0.90, 1000.0), (0.94, 1100.0), (0.96, 500.0)], 0.92) == pytest.approx(1100)


def test_the_best_is_that_of_the_highest_median() -> None:
    turns = {"a": [100.0, 110.0, 900.0], "b": [200.0, 120.0, 130.0], "c": [999.0, None, 999.0], "mine": [5e3] * 3}
    assert median(turns["c"]) is None
    assert best(turns, ["a", "b", "c"]) == "b"
    assert best(turns, ["a", "absent"]) == "a"
    assert best(turns, ["c"]) is None
    assert best(turns, []) is None


def test_ratios_are_of_the_same_turn() -> None:
    # Twice as fast in each turn, while the machine's speed changes a hundredfold.
    turns = {"mine": [200.0, 20.0, 2.0], "other": [100.0, 10.0, 1.0]}
    assert ratio(turns, "mine", "other") == (2, 2, 2)
    assert ratio({"mine": [3.0, 1.0, 2.0], "other": [1.0, 1.0, 1.0]}, "mine", "other") == (2, 1, 3)
