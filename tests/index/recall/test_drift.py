"""Drift: told for other data, silent for more of the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from mmalign.errors import DimensionError, IndexFileError
from mmalign.index.recall.drift import compare_vectors, describe_vectors
from mmalign.utils.similarity import l2_normalize

DIM = 48


def pictures(count: int, seed: int, *, kinds: slice = slice(0, 12), spread: float = 0.5) -> NDArray[np.float32]:
    centres = np.random.default_rng(99).normal(size=(16, DIM))[kinds]
    rng = np.random.default_rng(seed)
    return l2_normalize(1 + centres[rng.integers(0, len(centres), count)] + spread * rng.normal(size=(count, DIM)))


@pytest.mark.parametrize("count", [40, 500, 4000])
def test_more_of_the_same_is_no_drift(count: int) -> None:
    described = describe_vectors(pictures(1000, 0))
    told = [compare_vectors(described, pictures(count, seed)) for seed in range(1, 41)]
    assert not [one for one in told if one.drifted]
    assert np.mean([one.spread for one in told]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("count", [100, 2000])
@pytest.mark.parametrize("kinds", [slice(12, 16), slice(2, 3), slice(10, 16)])
def test_other_kinds_are_drift(count: int, kinds: slice) -> None:
    described = describe_vectors(pictures(1000, 0))
    assert all(compare_vectors(described, pictures(count, seed, kinds=kinds)).drifted for seed in range(1, 11))


def test_the_shift_is_the_distance_of_the_means() -> None:
    """Against means and deviations of samples so large that chance plays no part."""
    old, new = pictures(100_000, 0), pictures(100_000, 1, kinds=slice(10, 16))
    expected = np.linalg.norm(new.mean(axis=0) - old.mean(axis=0)) / np.sqrt(old.var(axis=0).sum())
    told = compare_vectors(describe_vectors(pictures(2000, 2)), pictures(2000, 3, kinds=slice(10, 16)))
    assert told.shift == pytest.approx(expected, abs=0.03)


def test_data_all_alike_are_drift() -> None:
    described = describe_vectors(pictures(1000, 0, kinds=slice(0, 1), spread=1.0))
    assert compare_vectors(described, pictures(300, 1, kinds=slice(0, 1), spread=0.5)).drifted


def test_survives_json_and_says_nothing_of_too_few() -> None:
    described = json.loads(json.dumps(describe_vectors(pictures(1000, 0))))
    assert compare_vectors(described, pictures(200, 1, kinds=slice(12, 16))).drifted
    assert not compare_vectors(described, pictures(20, 1, kinds=slice(12, 16))).drifted
    assert not compare_vectors(describe_vectors(np.zeros((0, DIM))), pictures(200, 1)).drifted


def test_damage_is_found() -> None:
    described = describe_vectors(pictures(100, 0))
    with pytest.raises(IndexFileError, match="build the index again"):
        compare_vectors(described | {"mean": "x"}, pictures(50, 1))
    with pytest.raises(IndexFileError):
        compare_vectors({}, pictures(50, 1))
    with pytest.raises(DimensionError):
        compare_vectors(described, np.ones((50, DIM + 1)))


def test_short_and_long_vectors_drift_alike() -> None:
    for scale in (1e-6, 1.0, 1e4):
        described = json.loads(json.dumps(describe_vectors(scale * pictures(1000, 0))))
        same, other = (
            compare_vectors(described, scale * pictures(200, 1, kinds=kinds)) for kinds in (slice(0, 10), slice(12, 16))
        )
        alike = compare_vectors(describe_vectors(pictures(1000, 0)), pictures(200, 1, kinds=slice(12, 16)))
        assert (same.drifted, other.drifted) == (False, True)
        assert other.shift == pytest.approx(alike.shift, rel=1e-3)
