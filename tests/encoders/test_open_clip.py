"""The open_clip encoder against open_clip's own calls."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders.base import Encoder
from mmalign.encoders.open_clip import OpenClipEncoder
from mmalign.encoders.registry import load_encoder
from mmalign.errors import DecodeError, InputError
from tests.encoders import tiny_models as tiny

TOLERANCE = {"rtol": 0, "atol": 1e-5}
SQUASH = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bilinear", "resize_mode": "squash"}
PLAIN = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0], "interpolation": "bilinear", "resize_mode": "shortest"}


@dataclass
class Case:
    spec: str
    raw: tuple[str, str | None]
    context_length: int
    dim: int


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """One small model of each kind, saved to disk."""
    folder = tmp_path_factory.mktemp("open_clip")
    tiny.save_clip(folder, "tiny-clip")
    tiny.save_clip(folder, "tiny-coca", tiny.COCA)
    siglip = tiny.save_local_dir(folder / "like-siglip", tiny.SIGLIP, SQUASH, tokenizer=True)
    mobile = tiny.save_local_dir(folder / "like-mobileclip", tiny.MOBILECLIP, PLAIN)
    pt, safetensors, coca = (folder / name for name in ("tiny-clip.pt", "tiny-clip.safetensors", "tiny-coca.pt"))
    return {
        "clip.pt": Case(f"open_clip:tiny-clip@{pt}", ("tiny-clip", str(pt)), 24, 32),
        "clip.safetensors": Case(f"open_clip:tiny-clip@{safetensors}", ("tiny-clip", str(safetensors)), 24, 32),
        "coca": Case(f"open_clip:tiny-coca@{coca}", ("tiny-coca", str(coca)), 24, 32),
        "siglip": Case(f"open_clip:local-dir:{siglip}", (f"local-dir:{siglip}", None), 12, 96),
        "mobileclip": Case(f"open_clip:local-dir:{mobile}", (f"local-dir:{mobile}", None), 24, 48),
    }


KINDS = ["clip.pt", "clip.safetensors", "coca", "siglip", "mobileclip"]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_open_clip_at_every_batch_size(cases: dict[str, Case], kind: str) -> None:
    case = cases[kind]
    images, texts = tiny.pictures(33), tiny.sentences(33)
    raw_images, raw_texts = tiny.raw_open_clip(*case.raw, images=images, texts=texts)
    assert not np.allclose(raw_images[0], raw_images[1:], atol=1e-3), "the oracle tells pictures apart"

    encoder = load_encoder(case.spec, device="cpu")

    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim, encoder.modalities) == (case.spec, case.dim, {"text", "image"})
    for batch_size in (1, 7, 32):
        found_images = encoder.encode_image(iter(images), batch_size=batch_size)
        found_texts = encoder.encode_text(texts, batch_size=batch_size)
        assert found_images.dtype == found_texts.dtype == np.float32
        np.testing.assert_allclose(found_images, raw_images, **TOLERANCE)
        np.testing.assert_allclose(found_texts, raw_texts, **TOLERANCE)
        np.testing.assert_allclose(np.linalg.norm(found_images, axis=1), 1, atol=1e-5)


@pytest.fixture(scope="module")
def encoder(cases: dict[str, Case]) -> OpenClipEncoder:
    loaded = load_encoder(cases["clip.pt"].spec, device="cpu")
    assert isinstance(loaded, OpenClipEncoder)
    return loaded


def test_the_stream_equals_the_whole_bit_by_bit(encoder: OpenClipEncoder) -> None:
    images = tiny.pictures(10)
    stream = list(encoder.stream_image(iter(images), batch_size=4))
    assert [len(batch) for batch in stream] == [4, 4, 2]
    assert np.array_equal(np.concatenate(stream), encoder.encode_image(images, batch_size=4))


def test_two_runs_and_two_loads_give_the_same_bits(encoder: OpenClipEncoder, cases: dict[str, Case]) -> None:
    images, texts = tiny.pictures(9), tiny.sentences(9)
    again = load_encoder(cases["clip.pt"].spec, device="cpu")
    for other in (encoder, again):
        assert np.array_equal(encoder.encode_image(images), other.encode_image(images))
        assert np.array_equal(encoder.encode_text(texts), other.encode_text(texts))


def test_nothing_gives_no_rows(encoder: OpenClipEncoder) -> None:
    for found in (encoder.encode_text([]), encoder.encode_image([])):
        assert (found.shape, found.dtype) == ((0, 32), np.float32)
    assert list(encoder.stream_image([])) == []


def test_paths_equal_pictures(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    images = tiny.pictures(5)
    for position, image in enumerate(images):
        image.save(tmp_path / f"{position}.png")
    paths: list[Any] = [tmp_path / "0.png", str(tmp_path / "1.png"), *(tmp_path / f"{i}.png" for i in (2, 3, 4))]
    assert np.array_equal(encoder.encode_image(paths), encoder.encode_image(images))


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1", "RGBA", "LA"])
def test_every_mode_equals_open_clip_on_its_rgb(encoder: OpenClipEncoder, cases: dict[str, Case], mode: str) -> None:
    images = [image.convert(mode) for image in tiny.pictures(3)]
    expected, _ = tiny.raw_open_clip(
        *cases["clip.pt"].raw, images=[image.convert("RGB") for image in images], texts=["a dog"]
    )
    np.testing.assert_allclose(encoder.encode_image(images), expected, **TOLERANCE)


def test_a_picture_that_cannot_be_decoded_comes_after_those_before_it(encoder: OpenClipEncoder, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_text("no picture")
    images = tiny.pictures(3)
    received: list[np.ndarray] = []

    def collect() -> None:
        for batch in encoder.stream_image([*images, tmp_path / "bad.jpg", images[0]], batch_size=2):
            received.append(batch)  # noqa: PERF402 - extend() may lose them with the error

    with pytest.raises(DecodeError, match=r"bad\.jpg"):
        collect()
    assert [len(batch) for batch in received] == [2, 1]
    np.testing.assert_allclose(np.concatenate(received), encoder.encode_image(images), **TOLERANCE)


def test_truncates_tells_what_the_tokenizer_cuts(encoder: OpenClipEncoder, cases: dict[str, Case]) -> None:
    # 24 places: start, 22 words of one token each, end.
    for count in (0, 1, 21, 22):
        assert not encoder.truncates(" ".join(["dog"] * count))
    for text in (" ".join(["dog"] * 23), " ".join(["dog"] * 500), "! " * 23, "! " * 24):
        assert encoder.truncates(text)
    assert not encoder.truncates("! " * 22)

    siglip = load_encoder(cases["siglip"].spec, device="cpu")
    assert isinstance(siglip, OpenClipEncoder)
    assert siglip.context_length == 12
    assert not siglip.truncates(" ".join(["dog"] * 10))
    assert siglip.truncates(" ".join(["dog"] * 11))


def test_what_is_cut_off_changes_nothing_and_what_is_kept_does(encoder: OpenClipEncoder) -> None:
    head = " ".join(["dog"] * 22)
    same = encoder.encode_text([head + " cat cat", head + " snow"])
    assert np.array_equal(same[0], same[1])
    assert not np.allclose(*encoder.encode_text([head, head.replace("dog", "cat")]), atol=1e-4)


def test_a_tower_that_looks_back_only_is_not_shown_the_padding(encoder: OpenClipEncoder) -> None:
    seen: list[tuple[int, ...]] = []
    model = encoder.parts().model
    hook = model.token_embedding.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape))
    found = encoder.encode_text(["dog", "two dog cat", " ".join(["dog"] * 30)], batch_size=1)
    hook.remove()
    # The start, a token a word, the end.
    assert seen == [(1, 3), (1, 5), (1, 24)]
    # And alone as together, but for the order of sums.
    np.testing.assert_allclose(found, encoder.encode_text(["dog", "two dog cat", " ".join(["dog"] * 30)]), atol=1e-6)


@pytest.mark.parametrize("pooling", ["argmax", "eos"])
def test_causal_towers_of_their_own_equal_open_clip(tmp_path: Path, pooling: str) -> None:
    """With `custom_text` the tower is a module of its own, and `eos` reads at a token's first place."""
    config = {**tiny.CLIP, "custom_text": True}
    config["text_cfg"] = {**tiny.CLIP["text_cfg"], "pool_type": pooling, "eos_id": 49407}
    folder = tiny.save_local_dir(tmp_path / f"causal-{pooling}", config, PLAIN)
    _, raw = tiny.raw_open_clip(f"local-dir:{folder}", None, images=tiny.pictures(1), texts=tiny.sentences(20))
    encoder = load_encoder(f"open_clip:local-dir:{folder}", device="cpu")
    widths: list[int] = []
    tower = encoder.parts().model.text  # type: ignore[attr-defined]
    tower.token_embedding.register_forward_hook(lambda _module, inputs, _output: widths.append(inputs[0].shape[1]))
    np.testing.assert_allclose(encoder.encode_text(tiny.sentences(20), batch_size=4), raw, **TOLERANCE)
    assert min(widths) < encoder.context_length  # type: ignore[attr-defined]


def test_fingerprint_is_of_the_content_not_of_the_place(cases: dict[str, Case], tmp_path: Path) -> None:
    def fingerprint(spec: str) -> str:
        return load_encoder(spec, device="cpu").fingerprint

    first = fingerprint(cases["clip.pt"].spec)
    assert len(first) == 64
    assert first == fingerprint(cases["clip.safetensors"].spec)

    import torch

    model = tiny.save_clip(tmp_path, "tiny-clip")
    with torch.no_grad():
        model.visual.proj[0, 0] += 1e-3
    torch.save(model.state_dict(), tmp_path / "changed.pt")
    changed = fingerprint(f"open_clip:tiny-clip@{tmp_path / 'changed.pt'}")

    # The same weights as another architecture, and with another preprocessing.
    tiny.save_clip(tmp_path, "tiny-clip-quickgelu", {**tiny.CLIP, "quick_gelu": True})
    gelu = fingerprint(f"open_clip:tiny-clip-quickgelu@{tmp_path / 'tiny-clip.pt'}")
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "weights.pt").write_bytes((tmp_path / "tiny-clip.pt").read_bytes())
    (beside / "open_clip_config.json").write_text(json.dumps({"model_cfg": tiny.CLIP, "preprocess_cfg": SQUASH}))
    squashed = fingerprint(f"open_clip:tiny-clip@{beside / 'weights.pt'}")

    assert len({first, changed, gelu, squashed}) == 4


def test_a_checkpoint_takes_the_preprocessing_that_lies_beside_it(tmp_path: Path) -> None:
    tiny.save_clip(tmp_path, "tiny-beside")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": tiny.CLIP, "preprocess_cfg": SQUASH}))
    images = tiny.pictures(4)
    options = {f"image_{key}": value for key, value in SQUASH.items()}
    expected, _ = tiny.raw_open_clip(
        "tiny-beside", str(tmp_path / "tiny-beside.pt"), images=images, texts=["a"], **options
    )
    default, _ = tiny.raw_open_clip("tiny-beside", str(tmp_path / "tiny-beside.pt"), images=images, texts=["a"])
    found = load_encoder(f"open_clip:tiny-beside@{tmp_path / 'tiny-beside.pt'}", device="cpu").encode_image(images)
    np.testing.assert_allclose(found, expected, **TOLERANCE)
    assert not np.allclose(found, default, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda encoder: encoder.encode_text("a dog"), "expected a sequence of texts, got one text"),
        (lambda encoder: encoder.encode_text(["a", 3]), "entry 1 is of type int"),
        (lambda encoder: encoder.encode_text(["a"], batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda encoder: encoder.encode_image([], batch_size=0), "batch_size must be at least 1, got 0"),
        (lambda encoder: encoder.encode_image([b"bytes"]), "expected a PIL picture or a path, got bytes"),
    ],
)
def test_wrong_input_says_what_was_expected(encoder: OpenClipEncoder, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(encoder)


def test_the_process_keeps_its_threads_and_its_logging(cases: dict[str, Case]) -> None:
    import logging

    import torch

    threads, handlers = torch.get_num_threads(), list(logging.getLogger().handlers)
    loaded = load_encoder(cases["clip.pt"].spec, device="cpu")
    loaded.encode_image(tiny.pictures(3))
    assert torch.get_num_threads() == threads
    assert logging.getLogger().handlers == handlers


def test_real_weights_equal_open_clip(shared: Path) -> None:
    folder = shared / "weights" / "openclip-lite0-minilm"
    if not folder.is_dir():
        pytest.skip("no open_clip weights in the shared data")
    names = sorted((shared / "data" / "flickr8k" / "images").iterdir())[:40]
    images = [Image.open(name).convert("RGB") for name in names]
    lines = (shared / "data" / "flickr8k" / "manifest.jsonl").read_text().splitlines()[:20]
    texts = [caption for line in lines for caption in json.loads(line)["captions"]] + ["", "dog " * 300]
    tower = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]["text_cfg"]
    expected_images, expected_texts = tiny.raw_open_clip(
        f"local-dir:{folder}", None, images=images, texts=texts, text_cfg={**tower, "hf_model_name": str(folder)}
    )

    encoder = load_encoder(f"open_clip:local-dir:{folder}", device="cpu")

    assert encoder.dim == 384
    for batch_size in (1, 7, 32):
        np.testing.assert_allclose(encoder.encode_text(texts, batch_size=batch_size), expected_texts, **TOLERANCE)
    np.testing.assert_allclose(encoder.encode_image(names, batch_size=16), expected_images, **TOLERANCE)
