"""Specs of open_clip that mean nothing, and weights that are not what they should be."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.encoders import hub
from mmalign.encoders.open_clip import OpenClipEncoder, known_specs
from mmalign.encoders.open_clip_source import near_matches, published_preprocessing, resolve_source
from mmalign.encoders.registry import load_encoder
from mmalign.errors import EncoderSpecError, ModelUnavailableError
from tests.encoders import tiny_models as tiny


@pytest.fixture(scope="module")
def library() -> Any:
    import open_clip

    return open_clip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    tiny.save_clip(folder, "tiny-source")
    return folder / "tiny-source.pt"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("open_clip:ViT-B32/openai", r"no model 'ViT-B32'; near: open_clip:ViT-B-32/openai"),
        ("open_clip:vit-b-32/openai", r"no model 'vit-b-32'; near: open_clip:ViT-B-32/openai"),
        ("open_clip:ViT-B-3", r"no model 'ViT-B-3'; near: .*open_clip:ViT-B-32"),
        ("open_clip:ViT-B-32/laion2b", r"no weights 'laion2b' for ViT-B-32; near: .*ViT-B-32/laion2b_e16"),
        ("open_clip:ViT-B-32", r"names no weights; choose one: open_clip:ViT-B-32/openai, .*@/path/to/checkpoint"),
        ("open_clip:ViT-B16-SigLIP@/nowhere.pt", r"no model 'ViT-B16-SigLIP'; near: open_clip:ViT-B-16-SigLIP"),
        ("open_clip:https://example.org", r"no model 'https:.*'; near: "),
        ("open_clip:zzzzzzzz/qqqqqqqq", r"no model 'zzzzzzzz'; near: none; `mmalign models`"),
    ],
)
def test_a_wrong_spec_lists_near_matches(spec: str, message: str) -> None:
    with pytest.raises(EncoderSpecError, match=message):
        load_encoder(spec)


def test_weights_given_twice_are_refused(library: Any, weights: Path) -> None:
    with pytest.raises(EncoderSpecError, match="not both"):
        resolve_source(library, "ViT-B-32", pretrained="openai", checkpoint=weights)
    with pytest.raises(EncoderSpecError, match="brings its own weights"):
        resolve_source(library, "hf-hub:org/name", pretrained="openai")


def test_openai_weights_get_quickgelu_and_others_do_not(library: Any) -> None:
    # open_clip itself only warns and computes with GELU: https://github.com/mlfoundations/open_clip, factory.py.
    openai = resolve_source(library, "ViT-B-32", pretrained="openai")
    assert openai.options == {"force_quick_gelu": True}
    assert openai.architecture is not None
    assert openai.architecture["quick_gelu"] is True
    laion = resolve_source(library, "ViT-B-32", pretrained="laion2b_s34b_b79k")
    assert laion.options == {"force_quick_gelu": False}
    assert resolve_source(library, "ViT-B/32", pretrained="laion2b-s34b-b79k").spec == laion.spec


def test_quickgelu_reaches_the_model(weights: Path, monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    tag = {"file": str(weights), "quick_gelu": True}
    monkeypatch.setitem(library.pretrained._PRETRAINED, "tiny-source", {"mine": tag})
    monkeypatch.setattr(hub, "probe_hub", lambda: pytest.fail("the file is here"))
    monkeypatch.setattr("mmalign.encoders.open_clip.probe_hub", lambda: hub.HubProbe("none", False, "a test", 0.0))
    images, texts = tiny.pictures(3), tiny.sentences(3)
    expected = tiny.raw_open_clip("tiny-source", str(weights), images=images, texts=texts, force_quick_gelu=True)
    without = tiny.raw_open_clip("tiny-source", str(weights), images=images, texts=texts)

    encoder = load_encoder("open_clip:tiny-source/mine", device="cpu")

    np.testing.assert_allclose(encoder.encode_image(images), expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(encoder.encode_text(texts), expected[1], rtol=0, atol=1e-5)
    assert np.abs(expected[0] - without[0]).max() > 1e-4


def test_preprocessing_that_all_weights_share_serves_a_file(library: Any) -> None:
    siglip = published_preprocessing(library, "ViT-B-16-SigLIP2")
    assert (siglip["mean"], siglip["std"], siglip["resize_mode"]) == ((0.5,) * 3, (0.5,) * 3, "squash")
    mobile = published_preprocessing(library, "MobileCLIP2-S0")
    assert (mobile["mean"], mobile["std"], mobile["interpolation"]) == ((0.0,) * 3, (1.0,) * 3, "bilinear")
    # laion2b_s32b_b82k has another mean than the rest.
    assert published_preprocessing(library, "ViT-L-14") == {}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"there is no file .*none\.pt"):
        load_encoder(f"open_clip:ViT-B-32@{tmp_path / 'none.pt'}")
    with pytest.raises(ModelUnavailableError, match=r"this is a folder; use open_clip:local-dir:"):
        load_encoder(f"open_clip:ViT-B-32@{tmp_path}")


def test_weights_of_another_architecture_are_refused(weights: Path, tmp_path: Path) -> None:
    tiny.save_clip(tmp_path, "tiny-wider", {**tiny.CLIP, "embed_dim": 48})
    with pytest.raises(ModelUnavailableError, match="of another architecture than tiny-wider"):
        load_encoder(f"open_clip:tiny-wider@{weights}", device="cpu")
    tiny.save_clip(tmp_path, "tiny-custom", tiny.COCA)
    with pytest.raises(ModelUnavailableError, match="of another architecture than tiny-custom"):
        load_encoder(f"open_clip:tiny-custom@{weights}", device="cpu")


def test_code_in_a_checkpoint_is_never_run(weights: Path, tmp_path: Path) -> None:
    import torch

    marker = tmp_path / "ran"

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (marker,)

    torch.save({"state_dict": Harmful()}, tmp_path / "harmful.pt")
    with pytest.raises(ModelUnavailableError, match=r"holds more than tensors .* never executed"):
        load_encoder(f"open_clip:tiny-source@{tmp_path / 'harmful.pt'}", device="cpu")
    assert not marker.exists()


def test_a_file_that_is_no_checkpoint_is_refused(weights: Path, tmp_path: Path) -> None:
    for name in ("text.pt", "text.safetensors"):
        (tmp_path / name).write_text("no weights")
        with pytest.raises(ModelUnavailableError, match="tiny-source@"):
            load_encoder(f"open_clip:tiny-source@{tmp_path / name}", device="cpu")


def test_a_folder_must_hold_a_configuration_and_weights(tmp_path: Path) -> None:
    spec = f"open_clip:local-dir:{tmp_path}"
    with pytest.raises(ModelUnavailableError, match="there is no such folder"):
        load_encoder(f"{spec}/none")
    with pytest.raises(ModelUnavailableError, match=r"holds no open_clip_config\.json"):
        load_encoder(spec)
    config = tmp_path / "open_clip_config.json"
    config.write_text("{")
    with pytest.raises(ModelUnavailableError, match="not readable JSON"):
        load_encoder(spec)
    config.write_text(json.dumps({"model_cfg": {}}))
    with pytest.raises(ModelUnavailableError, match="no model_cfg with a text_cfg"):
        load_encoder(spec)
    config.write_text(json.dumps({"model_cfg": tiny.CLIP, "preprocess_cfg": {}}))
    # open_clip would go on with random weights.
    with pytest.raises(ModelUnavailableError, match="Required pretrained weights"):
        load_encoder(spec, device="cpu")


@pytest.mark.parametrize("spec", ["open_clip:ViT-B-32/laion2b_s34b_b79k", "open_clip:hf-hub:org/name"])
def test_a_hub_model_without_network_fails_fast_and_says_what_to_do(
    spec: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.perf_counter()
    with pytest.raises(ModelUnavailableError) as caught:
        load_encoder(spec, device="cpu")
    assert time.perf_counter() - start < 10
    text = str(caught.value)
    for part in (spec, "http://127.0.0.1:9 did not answer", "tried for", str(tmp_path), "use `lite`, which needs no"):
        assert part in text
    assert constants.HF_HUB_OFFLINE is False


def test_known_specs_are_those_of_open_clip() -> None:
    assert "open_clip:ViT-B-32/laion2b_s34b_b79k" in known_specs()


def test_near_matches_ignore_case_and_come_likeliest_first() -> None:
    assert near_matches("VIT-b-32", ["RN50", "ViT-B-16", "ViT-B-32"]) == ["ViT-B-32", "ViT-B-16"]
    assert near_matches("xyz", ["RN50"]) == []


def test_a_bad_device_or_precision_is_refused_before_anything_is_loaded() -> None:
    for options, message in (
        ({"device": "gpu"}, "device 'gpu' is not one that torch knows"),
        ({"device": "cuda:63"}, "sees .* CUDA devices; use cpu"),
        ({"device": "cpu", "precision": "fp16"}, "precision fp16 needs a CUDA device"),
        ({"device": "cpu", "precision": "int8"}, "precision must be one of auto, fp32, fp16, bf16, got 'int8'"),
    ):
        with pytest.raises(ValueError, match=message):
            OpenClipEncoder("no-such-model", pretrained="none", **options)  # type: ignore[arg-type]
