from __future__ import annotations

import pytest
import torch

from mmalign.encoders.fingerprint import model_fingerprint, tokens_digest

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1.5, dtype=torch.bfloat16), "c": torch.zeros(0)}


def test_order_and_memory_layout_do_not_matter() -> None:
    expected = model_fingerprint(STATE, {"x": 1, "y": [2, 3]})
    strided = {"c": STATE["c"], "b": STATE["b"].clone(), "a": STATE["a"].t().contiguous().t()}
    assert model_fingerprint(strided, {"y": (2, 3), "x": 1}) == expected
    assert len(expected) == 64


@pytest.mark.parametrize(
    ("state", "description"),
    [
        (STATE | {"a": STATE["a"] + 1e-6}, {"x": 1}),
        (STATE | {"a": STATE["a"].reshape(3, 2)}, {"x": 1}),
        (STATE | {"a": STATE["a"].double()}, {"x": 1}),
        ({"d" if name == "a" else name: value for name, value in STATE.items()}, {"x": 1}),
        (STATE, {"x": 2}),
    ],
)
def test_each_change_of_content_matters(state: dict[str, torch.Tensor], description: dict[str, object]) -> None:
    assert model_fingerprint(state, description) != model_fingerprint(STATE, {"x": 1})


def test_tokens_digest_tells_ids_and_vocabularies_apart() -> None:
    digests = {tokens_digest([[1]], {"a": 1}), tokens_digest([[2]], {"a": 1}), tokens_digest([[1]], {"a": 2})}
    assert len(digests) == 3
    assert tokens_digest([[1]], {"a": 1, "b": 2}) == tokens_digest([[1]], {"b": 2, "a": 1})
