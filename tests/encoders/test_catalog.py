from __future__ import annotations

import json
from pathlib import Path

import pytest

from mmalign.encoders import catalog
from mmalign.encoders.catalog import SPECS, list_models
from mmalign.encoders.registry import load_encoder
from mmalign.encoders.specs import LITE_SPEC, LITE_SPECS

OPEN_CLIP = [card for card in list_models() if card.spec.startswith("open_clip:")]


@pytest.fixture(autouse=True)
def _forget_measurements() -> None:
    catalog._measured.cache_clear()


def test_specs_are_unique_and_lite_comes_first() -> None:
    cards = list_models()
    assert tuple(card.spec for card in cards) == SPECS
    assert SPECS[: len(LITE_SPECS)] == LITE_SPECS
    assert SPECS[0] == LITE_SPEC
    assert "lite@1" in LITE_SPECS
    assert len(set(SPECS)) == len(SPECS) >= 10


@pytest.mark.parametrize("card", OPEN_CLIP, ids=lambda card: card.spec)
def test_open_clip_knows_the_weights_and_their_width(card: catalog.ModelCard) -> None:
    import open_clip

    model, _, tag = card.spec.removeprefix("open_clip:").partition("/")
    published = open_clip.pretrained.get_pretrained_cfg(model, tag)
    assert published["hf_hub"].rstrip("/").lower() == card.repository.lower()
    config = open_clip.get_model_config(model)
    assert card.dim == config["embed_dim"]
    # The activation of the architecture is that of the weights, or the encoder sets it.
    assert published.get("quick_gelu", False) or not config.get("quick_gelu", False)


@pytest.mark.slow
@pytest.mark.parametrize("card", [card for card in OPEN_CLIP if "MobileCLIP2" in card.spec], ids=lambda card: card.spec)
def test_the_number_of_weights_is_that_of_open_clips_architecture(card: catalog.ModelCard) -> None:
    import open_clip

    model = open_clip.create_model(card.spec.removeprefix("open_clip:").partition("/")[0], load_weights=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == card.parameters
    assert card.bytes == 4 * card.parameters


def test_every_published_figure_names_its_source() -> None:
    for card in list_models()[len(LITE_SPECS) :]:
        assert card.quality is None or "(" in card.quality, card.spec
        assert card.licence
        assert card.note
        json.dumps(card.to_dict())


def test_cached_follows_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert not any(card.cached for card in list_models()[len(LITE_SPECS) :])
    for repository, name in (
        ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "open_clip_pytorch_model.bin"),
        ("sentence-transformers/clip-ViT-B-32", "modules.json"),
    ):
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        (folder / "snapshots" / "abc").mkdir(parents=True)
        (folder / "snapshots" / "abc" / name).touch()
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
    here = {card.spec for card in list_models()[len(LITE_SPECS) :] if card.cached}
    assert here == {"open_clip:ViT-B-32/laion2b_s34b_b79k", "st:clip-ViT-B-32"}


@pytest.mark.parametrize("position", range(len(LITE_SPECS)))
def test_lite_takes_its_figures_from_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, position: int
) -> None:
    monkeypatch.setattr(catalog, "files", lambda package: tmp_path)
    assert list_models()[position].quality is None
    catalog._measured.cache_clear()
    (tmp_path / "weights").mkdir()
    measured = {"dim": 512, "bytes": 7, "parameters": 9, "quality": "any-hit@10 61.8%", "seed": 3}
    name = LITE_SPECS[position].replace("@", "-")
    (tmp_path / "weights" / f"{name}.json").write_text(json.dumps(measured))
    cards = list_models()
    lite = cards[position]
    assert (lite.dim, lite.bytes, lite.parameters, lite.quality) == (512, 7, 9, "any-hit@10 61.8%")
    assert [card.quality for card in cards[: len(LITE_SPECS)]].count(None) == len(LITE_SPECS) - 1


def test_lite_1_is_here_when_its_weight_packages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    position = LITE_SPECS.index("lite@1")
    monkeypatch.setattr(catalog, "find_spec", lambda name: object())
    assert list_models()[position].cached
    monkeypatch.setattr(catalog, "find_spec", lambda name: None)
    assert not list_models()[position].cached


def test_lite_is_here_when_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "files", lambda package: tmp_path)
    monkeypatch.setattr(catalog, "find_spec", lambda name: object())
    (tmp_path / "weights").mkdir()
    for position, spec in enumerate(LITE_SPECS):
        for name in catalog._VERSIONS[spec].files:
            assert not list_models()[position].cached
            (tmp_path / "weights" / name).touch()
        assert list_models()[position].cached


@pytest.mark.parametrize("spec", LITE_SPECS)
def test_lite_s_card_agrees_with_the_encoder(spec: str) -> None:
    card = list_models()[LITE_SPECS.index(spec)]
    if not card.cached:
        pytest.skip(f"the weights of {spec} are not installed")
    assert card.spec == spec
    assert card.dim == load_encoder(spec, device="cpu").dim
