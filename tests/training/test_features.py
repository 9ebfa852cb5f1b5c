from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders.efficientnet import INPUT_SIZE, preprocess
from mmalign.errors import InputError
from mmalign.training.duplicates import near_duplicates, same_words
from mmalign.training.features import cached_features, prepare_view, view_features

KEYS = [f"k{i}" for i in range(11)]


class Counted:
    """Computes rows, counts them, and stops where it is told to."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        self.rows: list[int] = []
        self.fail_at = fail_at

    def __call__(self, start: int, stop: int) -> np.ndarray:
        if self.fail_at is not None and stop > self.fail_at:
            raise KeyboardInterrupt
        self.rows += range(start, stop)
        return np.repeat(np.arange(start, stop, dtype=np.float32)[:, None], 2, axis=1)


def features(folder: Path, compute: Counted, *, keys: list[str] = KEYS, version: str = "1") -> np.ndarray:
    return cached_features(folder, "x", keys, compute, width=2, version=version, step=3)


def test_an_interrupted_cache_resumes(tmp_path: Path) -> None:
    first = Counted(fail_at=7)
    with pytest.raises(KeyboardInterrupt):
        features(tmp_path, first)
    assert first.rows == list(range(6))
    second = Counted()
    result = features(tmp_path, second)
    assert second.rows == list(range(6, 11))
    np.testing.assert_array_equal(result, np.repeat(np.arange(11, dtype=np.float32)[:, None], 2, axis=1))
    third = Counted()
    np.testing.assert_array_equal(features(tmp_path, third), result)
    assert third.rows == []


def test_other_keys_or_another_version_start_anew(tmp_path: Path) -> None:
    features(tmp_path, Counted())
    for change in ({"keys": [*KEYS[:-1], "new"]}, {"version": "2"}):
        compute = Counted()
        features(tmp_path, compute, **change)
        assert compute.rows == list(range(11))
    assert features(tmp_path, Counted(), keys=[]).shape == (0, 2)


def picture() -> Image.Image:
    array = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    return Image.fromarray(array)


def test_views() -> None:
    plain, flip = (prepare_view(picture(), view=view, seed=0) for view in ("plain", "flip"))
    np.testing.assert_array_equal(plain, preprocess(picture()))
    np.testing.assert_array_equal(flip, plain[:, ::-1])
    crop = prepare_view(picture(), view="crop-1", seed=0)
    assert crop.shape == (INPUT_SIZE, INPUT_SIZE, 3)
    np.testing.assert_array_equal(crop, prepare_view(picture(), view="crop-1", seed=0))
    for view, seed in (("crop-2", 0), ("crop-1", 1)):
        assert not np.array_equal(crop, prepare_view(picture(), view=view, seed=seed))
    with pytest.raises(InputError, match="no view is called 'zoom'"):
        prepare_view(picture(), view="zoom", seed=0)


def test_view_features_follow_the_order(tmp_path: Path) -> None:
    paths = []
    for value in (10, 200, 90):
        path = tmp_path / f"{value}.png"
        Image.new("RGB", (30, 20), (value,) * 3).save(path)
        paths.append(str(path))

    def extract(items: Iterable[tuple[int, str]], prepare: Callable[..., np.ndarray]) -> Iterator[np.ndarray]:
        for item in items:
            yield np.array([[prepare(item).mean()]], np.float32)

    found = view_features(tmp_path / "c", paths, extract, view="plain", width=1, version="1")
    assert found.ravel().tolist() == [10, 200, 90]


def test_near_duplicates_look_past_the_common_mean(rng: np.random.Generator) -> None:
    train = rng.standard_normal((30, 16)).astype(np.float32) + 50
    held_out = np.stack([train[4] + 0.01, train[9] * 1.0001, rng.standard_normal(16) + 50]).astype(np.float32)
    assert np.flatnonzero(near_duplicates(train, held_out, threshold=0.9)).tolist() == [4, 9]
    assert not near_duplicates(train, held_out[:0], threshold=0.9).any()


def test_same_words_ignores_case_spacing_and_punctuation() -> None:
    found = same_words(["A dog runs .", "a dog  runs", "a dogs run", "runs a dog"], ["A DOG, runs!"])
    assert found.tolist() == [True, True, False, False]
