"""Fine-tuning of models of open_clip, from the configuration to the exported weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders.registry import load_encoder
from mmalign.errors import InputError
from mmalign.evaluation.retrieval import evaluate_retrieval
from mmalign.training.contrastive.config import parse_config
from mmalign.training.contrastive.open_clip_model import OpenClipModel
from mmalign.training.contrastive.train import train_contrastive
from tests.encoders.tiny_models import SIGLIP, pictures, save_clip, save_local_dir, sentences
from tests.training.toy import make_manifest, settings

NAME = "tiny-finetuned"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny CLIP with random weights."""
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder, NAME)
    return f"{NAME}@{folder / NAME}.pt"


def model(spec: str, **options: Any) -> OpenClipModel:
    return OpenClipModel({"spec": spec, **options}, device=CPU, seed=0)


def table(tmp_path: Path, spec: str, *, cached: bool = False, epochs: int = 4, **options: Any) -> dict[str, Any]:
    views = ["plain", "flip"] if cached else ["plain"]
    return settings(
        make_manifest(tmp_path / "d"),
        model={"kind": "open_clip", "spec": spec, **options},
        data={"cached": cached, "views": views},
        optimization={"epochs": epochs, "batch_size": 20, "learning_rate": 2e-3, "ema_decay": 0.0},
    )


def train(table: dict[str, Any], out: Path) -> Any:
    return train_contrastive(parse_config(table, folder=out.parent), out)


def test_the_parts_give_the_encoders_own_embeddings(spec: str) -> None:
    encoder, trained = load_encoder(f"open_clip:{spec}"), model(spec).eval()
    images = pictures(5)
    prepared = np.stack([trained.prepare_image(image) for image in images])
    arrays = {n: torch.from_numpy(a) for n, a in trained.freeze_images(prepared).items()}
    texts = {n: torch.from_numpy(a) for n, a in trained.freeze_texts(sentences(6)).items()}
    with torch.inference_mode():
        np.testing.assert_allclose(trained.embed_images(arrays), encoder.encode_image(images), atol=2e-6)
        np.testing.assert_allclose(trained.embed_texts(texts), encoder.encode_text(sentences(6)), atol=2e-6)


@pytest.mark.parametrize(("image_layers", "text_layers"), [(-1, -1), (0, -1)])
def test_fine_tuning_helps_and_the_export_loads(spec: str, tmp_path: Path, image_layers: int, text_layers: int) -> None:
    settings_ = table(tmp_path, spec, epochs=6, cached=not image_layers, image_layers=image_layers)
    report = train({**settings_, "model": {**settings_["model"], "text_layers": text_layers}}, tmp_path / "run")
    manifest = tmp_path / "d" / "manifest.jsonl"

    def figures(name: str) -> float:
        told = evaluate_retrieval(manifest, split="dev", encoder=name, progress=False).to_dict()
        return sum(
            told[direction][f"any_hit@{k}"] for direction in ("text_to_image", "image_to_text") for k in (1, 5, 10)
        )

    before, after = figures(f"open_clip:{spec}"), figures(f"open_clip:local-dir:{report.exported}")
    assert after > before + 50
    assert after == pytest.approx(report.best["sum"], abs=0.1)
    # The file of weights alone is a checkpoint of the model it began as.
    names = [f"{NAME}@{report.exported}/open_clip_model.safetensors", f"local-dir:{report.exported}"]
    first, second = (load_encoder(f"open_clip:{name}") for name in names)
    np.testing.assert_array_equal(first.encode_text(sentences(3)), second.encode_text(sentences(3)))
    np.testing.assert_array_equal(first.encode_image(pictures(3)), second.encode_image(pictures(3)))


def test_a_local_folder_keeps_its_tokenizer(tmp_path: Path) -> None:
    preprocessing = {"size": [160, 160], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    source = save_local_dir(tmp_path / "siglip", SIGLIP, {**preprocessing, "resize_mode": "squash"}, tokenizer=True)
    trained = model(f"local-dir:{source}")
    assert trained.initial_scale() is not None
    (tmp_path / "out").mkdir()
    exported = trained.export(tmp_path / "out", metadata={"scale": "20.0", "bias": "-3.0"})
    before, after = (load_encoder(f"open_clip:local-dir:{folder}") for folder in (source, exported))
    np.testing.assert_array_equal(before.encode_text(["a dog"]), after.encode_text(["a dog"]))
    image = [Image.new("RGB", (30, 40), (200, 10, 10))]
    np.testing.assert_array_equal(before.encode_image(image), after.encode_image(image))
    scale, bias = model(f"local-dir:{exported}").initial_scale() or (0, 0)
    assert (scale, bias) == pytest.approx((20, -3), rel=1e-5)


def test_what_is_trained_follows_from_the_layers(spec: str) -> None:
    trained = model(spec, image_layers=1, text_layers=0, image_rate=0.5)
    factors = {name: trained.learning_rate_factor(name) for name, _ in trained.named_parameters()}
    # Two blocks: of the picture tower the second and what follows it.
    assert factors["clip.visual.transformer.resblocks.1.mlp.c_fc.weight"] == 0.5
    assert factors["clip.visual.proj"] == factors["clip.visual.ln_post.weight"] == 0.5
    assert factors["clip.visual.transformer.resblocks.0.mlp.c_fc.weight"] == 0
    assert factors["clip.visual.conv1.weight"] == factors["clip.visual.positional_embedding"] == 0
    assert {factor for name, factor in factors.items() if "visual" not in name} == {0}
    whole = model(spec, layer_decay=0.5)
    assert whole.learning_rate_factor("clip.visual.transformer.resblocks.1.ln_1.weight") == 1
    assert whole.learning_rate_factor("clip.visual.transformer.resblocks.0.ln_1.weight") == 0.5
    assert whole.learning_rate_factor("clip.visual.conv1.weight") == 0.25
    assert whole.learning_rate_factor("clip.logit_scale") == 0


def test_locked_weights_stay_as_they_are(spec: str, tmp_path: Path) -> None:
    settings_ = table(tmp_path, spec, epochs=1, image_layers=1)
    report = train(settings_, tmp_path / "run")
    before, after = model(spec).clip.state_dict(), model(f"local-dir:{report.exported}").clip.state_dict()
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert "visual.transformer.resblocks.1.mlp.c_fc.weight" in moved
    assert not any(name.startswith(("visual.conv1", "visual.transformer.resblocks.0.")) for name in moved)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"spce": "x"}, r"model\.spce is not a known key; did you mean spec\?"),
        ({"image_layers": 7}, r"model\.image_layers is 7, the image tower .* has 2 blocks"),
        ({"layer_decay": 0.0}, "layer_decay must be more than 0"),
        ({"image_layers": "all"}, r"model\.image_layers must be a whole number, got 'all'"),
    ],
)
def test_options_that_mean_nothing(spec: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        model(spec, **options)
