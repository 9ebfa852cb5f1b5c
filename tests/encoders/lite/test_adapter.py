from __future__ import annotations

import math

import numpy as np
import pytest

from mmalign.encoders.lite.adapter import Adapter
from mmalign.encoders.lite.quantised import quantise, to_float32


def tensors(rng: np.random.Generator, *, hidden: int) -> dict[str, np.ndarray]:
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (5, 7), "linear.bias": (5,)}
    if hidden:
        shapes |= {"hidden.weight": (hidden, 7), "hidden.bias": (hidden,), "output.weight": (5, hidden)}
    return {name: rng.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}


@pytest.mark.parametrize("hidden", [0, 11])
def test_equals_a_naive_loop(rng: np.random.Generator, hidden: int) -> None:
    weights = tensors(rng, hidden=hidden)
    features = rng.standard_normal((45, 7)).astype(np.float32)
    exact = {name: value.astype(np.float64) for name, value in weights.items()}
    for row, result in zip(features, Adapter(weights)(features), strict=True):
        y = exact["linear.weight"] @ row + exact["linear.bias"]
        if hidden:
            h = exact["hidden.weight"] @ row + exact["hidden.bias"]
            y += exact["output.weight"] @ np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in h])
        np.testing.assert_allclose(result, y / np.linalg.norm(y), atol=1e-5)


def test_the_class_prior_equals_a_naive_loop(rng: np.random.Generator) -> None:
    weights = tensors(rng, hidden=0)
    shapes = {"classifier.weight": (6, 4), "classifier.bias": (6,), "prior.weight": (6, 5)}
    weights |= {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    features = rng.standard_normal((35, 7)).astype(np.float32)
    exact = {name: value.astype(np.float64) for name, value in weights.items()}
    for row, result in zip(features, Adapter(weights)(features), strict=True):
        # The classifier reads the first four of the seven features.
        odds = [
            math.exp(w @ row[:4] + b) for w, b in zip(exact["classifier.weight"], exact["classifier.bias"], strict=True)
        ]
        y = exact["linear.weight"] @ row + exact["linear.bias"]
        y /= np.linalg.norm(y)
        for odd, direction in zip(odds, exact["prior.weight"], strict=True):
            y += odd / sum(odds) * direction
        np.testing.assert_allclose(result, y / np.linalg.norm(y), atol=1e-5)


def test_the_class_prior_weighs_the_same_whatever_the_length(rng: np.random.Generator) -> None:
    weights = tensors(rng, hidden=0)
    shapes = {"classifier.weight": (6, 4), "classifier.bias": (6,), "prior.weight": (6, 5)}
    weights |= {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    features = rng.standard_normal((35, 7)).astype(np.float32)
    longer = {name: value * 16 if name.startswith("linear.") else value for name, value in weights.items()}
    np.testing.assert_allclose(Adapter(longer)(features), Adapter(weights)(features), atol=1e-6)
    # The length of the learned part is kept, for what compares one place of a picture with another.
    np.testing.assert_allclose(Adapter(longer).project(features), 16 * Adapter(weights).project(features), rtol=1e-5)


def test_quantised_tensors_are_taken(rng: np.random.Generator) -> None:
    weights = tensors(rng, hidden=11)
    small = {name: quantise(value) if value.ndim == 2 else value for name, value in weights.items()}
    plain = {name: to_float32(value) for name, value in small.items()}
    features = rng.standard_normal((4, 7)).astype(np.float32)
    np.testing.assert_array_equal(Adapter(small)(features), Adapter(plain)(features))


def test_a_row_does_not_depend_on_its_batch(rng: np.random.Generator) -> None:
    adapter = Adapter(tensors(rng, hidden=11))
    features = rng.standard_normal((70, 7)).astype(np.float32)
    whole = adapter(features)
    alone = np.concatenate([adapter(row[None]) for row in features])
    np.testing.assert_allclose(whole, alone, atol=1e-6)


def test_no_rows(rng: np.random.Generator) -> None:
    adapter = Adapter(tensors(rng, hidden=0))
    assert (adapter.inputs, adapter.dim) == (7, 5)
    assert adapter(np.zeros((0, 7), np.float32)).shape == (0, 5)
