from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmalign.encoders.adapter import Adapter
from mmalign.encoders.quantised import map_safetensors
from mmalign.errors import InputError
from mmalign.training.adapters import TrainableAdapter, save_adapters
from mmalign.training.contrastive import ContrastiveConfig, train_adapters
from mmalign.training.features import CaptionedFeatures
from mmalign.training.losses import caption_contrastive_loss

CONFIG = ContrastiveConfig(
    dim=8, hidden=6, epochs=12, batch_size=16, learning_rate=1e-2, warmup=2, input_dropout=0.1, views=("plain", "flip")
)


def unit(rng: np.random.Generator, rows: int, dim: int = 6) -> np.ndarray:
    x = rng.standard_normal((rows, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def made_up(seed: int, *, pictures: int = 48, captions: int = 3) -> CaptionedFeatures:
    """Pictures and captions that are two noisy linear views of the same hidden causes."""
    rng = np.random.default_rng(7)
    to_image, to_text = rng.standard_normal((5, 12)), rng.standard_normal((5, 10))
    rng = np.random.default_rng(seed)
    causes = rng.standard_normal((pictures, 5))
    owner = np.repeat(np.arange(pictures), captions)

    def noisy(clean: np.ndarray) -> np.ndarray:
        return (clean + 0.1 * rng.standard_normal(clean.shape)).astype(np.float32)

    return CaptionedFeatures(
        views=(noisy(causes @ to_image), noisy(causes @ to_image)), texts=noisy(causes[owner] @ to_text), owner=owner
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_equals_a_naive_loop(rng: np.random.Generator, smoothing: float) -> None:
    owner = np.array([0, 0, 1, 2, 2, 2, 3])
    images, texts, scale = unit(rng, 4), unit(rng, 7), 5.0
    to_image, to_text = [], []
    for caption, picture in enumerate(owner):
        scores = [scale * float(texts[caption] @ image) for image in images]
        total = math.log(sum(math.exp(score) for score in scores))
        share = [smoothing / 4 + (1 - smoothing) * (i == picture) for i in range(4)]
        to_image.append(sum(p * (total - score) for p, score in zip(share, scores, strict=True)))
        positive = scores[picture]
        negatives = [scale * float(texts[t] @ images[picture]) for t in range(7) if owner[t] != picture]
        to_text.append(math.log(math.exp(positive) + sum(map(math.exp, negatives))) - positive)
    expected = (np.mean(to_image) + np.mean(to_text)) / 2
    found = caption_contrastive_loss(
        torch.from_numpy(images), torch.from_numpy(texts), torch.from_numpy(owner), scale, label_smoothing=smoothing
    )
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_one_caption_a_picture_is_clips_own_loss(rng: np.random.Generator) -> None:
    images, texts = torch.from_numpy(unit(rng, 9)), torch.from_numpy(unit(rng, 9))
    logits = 3.0 * texts @ images.T
    own = torch.arange(9)
    expected = (torch.nn.functional.cross_entropy(logits, own) + torch.nn.functional.cross_entropy(logits.T, own)) / 2
    assert caption_contrastive_loss(images, texts, own, 3.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_training_finds_the_shared_causes() -> None:
    records: list[dict[str, Any]] = []
    train_adapters(made_up(1), CONFIG, dev=made_up(2), log=lambda record: records.append(dict(record)))
    assert [record["epoch"] for record in records] == list(range(1, 13))
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    # Chance is 2 % at 1 among 48.
    assert records[-1]["t2i@1"] > 60
    assert records[-1]["i2t@1"] > 60


def test_the_same_seed_gives_the_same_weights() -> None:
    torch.manual_seed(3)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    first, second = (train_adapters(made_up(1), CONFIG) for _ in range(2))
    assert torch.equal(torch.rand(1), expected_next)
    other = train_adapters(made_up(1), dataclasses.replace(CONFIG, seed=1))
    for name, value in first.image.state_dict().items():
        assert torch.equal(value, second.image.state_dict()[name])
    assert not torch.equal(first.text.linear.weight, other.text.linear.weight)


def test_all_zero_captions_and_too_few_pictures() -> None:
    data = made_up(1)
    few = CaptionedFeatures(views=data.views, texts=data.texts[:3], owner=data.owner[:3])
    with pytest.raises(InputError, match="at least two pictures"):
        train_adapters(few, CONFIG)
    broken = CaptionedFeatures(views=data.views, texts=np.full_like(data.texts, np.nan), owner=data.owner)
    with pytest.raises(InputError, match="the loss is nan"):
        train_adapters(broken, CONFIG)


def test_the_exported_adapter_computes_the_same(rng: np.random.Generator, tmp_path: Path) -> None:
    features = (rng.standard_normal((40, 12)) * rng.uniform(0.1, 3, 12) + 2).astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = {"dim": 8, "hidden": 6, "input_dropout": 0.3, "hidden_dropout": 0.3}
        text, image = (TrainableAdapter(features, **shape).eval() for _ in range(2))
    save_adapters(tmp_path / "a.safetensors", text=text, image=image, metadata={"license": "x"})
    tensors = map_safetensors(tmp_path / "a.safetensors")
    for side, module in (("text.", text), ("image.", image)):
        own = {name.removeprefix(side): value for name, value in tensors.items() if name.startswith(side)}
        with torch.inference_mode():
            expected = module(torch.from_numpy(features)).numpy()
        # float16 weights keep about three digits.
        np.testing.assert_allclose(Adapter(own)(features), expected, atol=5e-3)


def test_records_are_json(tmp_path: Path) -> None:
    lines: list[str] = []
    train_adapters(
        made_up(1), dataclasses.replace(CONFIG, epochs=1), dev=made_up(2), log=lambda r: lines.append(json.dumps(r))
    )
    assert json.loads(lines[0])["t2i@10"] >= json.loads(lines[0])["t2i@1"]
