"""Adapters behind an encoder, and the encoder that they make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmalign.encoders.registry import load_encoder
from mmalign.errors import EncoderSpecError, InputError, ModelUnavailableError
from mmalign.evaluation.retrieval import evaluate_retrieval
from mmalign.training.contrastive.adapter_model import AdapterModel
from mmalign.training.contrastive.config import parse_config
from mmalign.training.contrastive.train import train_contrastive
from tests.encoders.tiny_models import pictures, save_clip, sentences
from tests.training.toy import make_manifest, settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny CLIP with random weights."""
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder, "tiny-adapted")
    return f"open_clip:tiny-adapted@{folder / 'tiny-adapted'}.pt"


def train(tmp_path: Path, spec: str, **options: Any) -> Any:
    table = settings(
        make_manifest(tmp_path / "d"),
        model={"kind": "adapter", "encoder": spec, **options},
        optimization={"epochs": 15, "learning_rate": 5e-3},
    )
    return train_contrastive(parse_config(table, folder=tmp_path), tmp_path / "run")


def test_adapters_begin_as_the_identity(spec: str) -> None:
    model = AdapterModel({"encoder": spec, "hidden": 8}, device=CPU, seed=0).eval()
    rows = torch.from_numpy(load_encoder(spec).encode_text(sentences(4)))
    np.testing.assert_allclose(model.embed_texts({"embedding": rows}).detach(), rows, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"dim": 20, "hidden": 12}])
def test_an_adapter_helps_and_its_export_loads(spec: str, tmp_path: Path, options: dict[str, int]) -> None:
    report = train(tmp_path, spec, **options)
    adapted = load_encoder(f"adapter:{report.exported}")
    assert adapted.dim == options.get("dim", 32)
    assert adapted.modalities == {"text", "image"}
    manifest = tmp_path / "d" / "manifest.jsonl"

    def figures(encoder: Any) -> float:
        told = evaluate_retrieval(manifest, split="dev", encoder=encoder, progress=False).to_dict()
        return sum(
            told[direction][f"any_hit@{k}"] for direction in ("text_to_image", "image_to_text") for k in (1, 5, 10)
        )

    assert figures(adapted) > figures(spec) + 30
    assert figures(adapted) == pytest.approx(report.best["sum"], abs=3)
    # The trained network itself is the oracle of the exported one.
    from mmalign.training.contrastive.teachers import load_trained

    model, base = load_trained(report.out, device=CPU), load_encoder(spec)
    for own, embed, found in (
        (base.encode_text(sentences(5)), model.embed_texts, adapted.encode_text(sentences(5))),
        (base.encode_image(pictures(5)), model.embed_images, adapted.encode_image(pictures(5))),
    ):
        np.testing.assert_allclose(embed({"embedding": torch.from_numpy(own)}).detach(), found, atol=1e-5)
    assert adapted.encode_text([]).shape == (0, adapted.dim)
    assert adapted.fingerprint not in (base.fingerprint, "")


def test_folders_that_are_no_adapter(spec: str, tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"adapter\.json cannot be read"):
        load_encoder(f"adapter:{tmp_path}")
    model = AdapterModel({"encoder": spec}, device=CPU, seed=0)
    model.export(tmp_path, metadata={})
    first = load_encoder(f"adapter:{tmp_path}")
    description = json.loads((tmp_path / "adapter.json").read_text())
    with torch.no_grad():
        model.text.linear.weight[0, 0] += 1
    model.export(tmp_path, metadata={})
    assert load_encoder(f"adapter:{tmp_path}").fingerprint != first.fingerprint
    for change, error, match in (
        ({"format": 9}, EncoderSpecError, "has format 9, this mmalign reads 1"),
        ({"encoder_fingerprint": "0" * 64}, ModelUnavailableError, "trained behind another state of open_clip:tiny"),
        ({"encoder": 3}, ModelUnavailableError, "is damaged"),
    ):
        (tmp_path / "adapter.json").write_text(json.dumps(description | change))
        with pytest.raises(error, match=match):
            load_encoder(f"adapter:{tmp_path}")
    (tmp_path / "adapter.json").write_text(json.dumps(description))
    weights = (tmp_path / "adapter.safetensors").read_bytes()
    (tmp_path / "adapter.safetensors").write_bytes(weights[:100])
    with pytest.raises(ModelUnavailableError, match="cannot be read"):
        load_encoder(f"adapter:{tmp_path}")


def test_options_that_mean_nothing(spec: str) -> None:
    for options, match in (
        ({"encoder": spec, "hiden": 3}, r"model\.hiden is not a known key; did you mean hidden"),
        ({}, r"model\.encoder is missing"),
        ({"encoder": spec, "input_dropout": 1.5}, "input_dropout must be at least 0 and below 1"),
    ):
        with pytest.raises(InputError, match=match):
            AdapterModel(options, device=CPU, seed=0)
