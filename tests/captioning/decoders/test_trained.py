from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmalign.captioning.decoders.base import Decoder
from mmalign.captioning.decoders.generation import GenerationConfig
from mmalign.captioning.decoders.model import DecoderConfig, make_model
from mmalign.captioning.decoders.registry import SHIPPED, load_decoder
from mmalign.captioning.decoders.tokenizer import CaptionTokenizer, plain_words
from mmalign.captioning.decoders.trained import DecoderFile, TrainedDecoder, open_decoder, read_decoder, write_decoder
from mmalign.errors import DimensionError, InputError, ModelUnavailableError

CAPTIONS = ["A dog runs .", "Two dogs run in the snow .", "A man rides a bike .", "The man sits ."] * 3
NOTES = {"encoder": "toy", "fingerprint": "f" * 8, "license": "none", "provenance": "a test"}


def decoder_file() -> DecoderFile:
    tokenizer = CaptionTokenizer.train(CAPTIONS, size=320)
    config = DecoderConfig(dim=6, vocabulary=tokenizer.size, width=16, layers=1, heads=2, longest=16, context=3)
    torch.manual_seed(0)
    mean = np.full(6, 0.1, np.float32)
    return DecoderFile(config, tokenizer, make_model(config).state_dict(), mean, NOTES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_decoder(tmp_path / "captioner.safetensors", decoder_file())
    return tmp_path / "captioner.safetensors"


def test_words_lose_case_and_punctuation() -> None:
    assert plain_words("A man\u2019s  T-shirt , torn !") == "a man's t-shirt torn"
    assert plain_words("...") == ""
    assert plain_words("\ud800 ok") == "ok"


@pytest.mark.parametrize("caption", ["a dog runs", "zwei hunde im schnee", "雪の中の二匹の犬", "qwxz's"])
def test_any_words_survive_the_tokenizer(caption: str) -> None:
    tokenizer = CaptionTokenizer.train(CAPTIONS, size=320)
    assert tokenizer.decode(tokenizer.encode([caption])[0]) == plain_words(caption)
    again = CaptionTokenizer(tokenizer.to_json())
    assert again.encode([caption]) == tokenizer.encode([caption])


def test_a_page_of_text_is_cut() -> None:
    tokenizer = CaptionTokenizer.train(CAPTIONS, size=320)
    assert len(tokenizer.encode(["dog " * 10_000], longest=16)[0]) == 16


def test_a_vocabulary_must_hold_the_bytes() -> None:
    with pytest.raises(InputError, match="at least 300, got 10"):
        CaptionTokenizer.train(CAPTIONS, size=10)
    with pytest.raises(InputError, match="expected the JSON of a tokenizer"):
        CaptionTokenizer("{}")


def test_what_is_written_is_read(path: Path) -> None:
    written, read = decoder_file(), read_decoder(path)
    assert read.config == written.config
    assert read.tokenizer.to_json() == written.tokenizer.to_json()
    assert read.notes["encoder"] == "toy"
    assert read.state.keys() == written.state.keys()
    for name, tensor in written.state.items():
        torch.testing.assert_close(read.state[name], tensor.half().float(), rtol=0, atol=0)


def test_a_trained_decoder_writes(path: Path) -> None:
    decoder = open_decoder(path)
    assert isinstance(decoder, Decoder)
    vector = np.eye(6, dtype=np.float32)[0]
    drafts = decoder.caption(vector, CAPTIONS[:2])
    assert 1 <= len(drafts) <= 21
    assert [draft.score for draft in drafts] == sorted((draft.score for draft in drafts), reverse=True)
    assert all(draft.text and draft.log_likelihood is not None and draft.log_likelihood < 0 for draft in drafts)
    # One at a time and many at once are the same; so are a path and its folder.
    many = open_decoder(path.parent).caption_many(np.stack([vector, -vector]), [CAPTIONS[:2], []])
    assert [draft.text for draft in many[0]] == [draft.text for draft in drafts]


def test_the_mean_of_pictures_is_taken_off(path: Path) -> None:
    decoder = open_decoder(path)
    file = decoder_file()
    moved = TrainedDecoder(
        DecoderFile(file.config, file.tokenizer, file.state, np.zeros(6, np.float32), NOTES), name=""
    )
    vector = np.array([0.5, 0.5, 0.1, -0.5, 0.1, 0.5], np.float32)
    difference = vector - 0.1
    by_hand = moved.caption(difference / np.linalg.norm(difference), [])
    assert decoder.caption(vector, [])[0].log_likelihood == pytest.approx(by_hand[0].log_likelihood, abs=0.02)


@pytest.mark.parametrize(("vector", "context"), [(False, False), (False, True), (True, False)])
def test_either_side_may_be_missing(path: Path, vector: bool, context: bool) -> None:
    drafts = open_decoder(path).caption(
        np.eye(6, dtype=np.float32)[0] if vector else None, [*CAPTIONS, "...", ""] if context else [],
        config=GenerationConfig("greedy"),
    )  # fmt: skip
    assert len(drafts) == 1


def test_vectors_of_another_encoder_are_refused(path: Path) -> None:
    with pytest.raises(DimensionError, match="expected dim 6"):
        open_decoder(path).caption(np.ones(7, np.float32), [])


def test_files_that_are_none_are_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelUnavailableError, match=r"is not a caption decoder.*mmalign train captioner"):
        load_decoder(tmp_path / "other.safetensors")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailableError, match=r"no caption decoder at .*a language model is named hf:.*model"):
        load_decoder(tmp_path / "model")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelUnavailableError, match="is not a caption decoder"):
        load_decoder(path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelUnavailableError, match="there is no caption decoder"):
        load_decoder(tmp_path / "empty")
    with pytest.raises(InputError, match=r"expected a caption decoder \(lite, .*got 'litr'"):
        load_decoder("litr")


def test_notes_are_asked_for(tmp_path: Path) -> None:
    file = decoder_file()
    with pytest.raises(InputError, match="license"):
        write_decoder(tmp_path / "x", DecoderFile(file.config, file.tokenizer, file.state, file.mean, {"encoder": "a"}))
    file.state["decoder.bias"][0] = 1e6
    with pytest.raises(InputError, match="float16 cannot"):
        write_decoder(tmp_path / "x", file)


@pytest.mark.skipif(not SHIPPED.is_file(), reason="the decoder is not shipped yet")
def test_the_shipped_decoder_loads_and_other_bytes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SHIPPED.stat().st_size <= 15_000_000
    decoder = load_decoder("lite")
    assert decoder.caption(None, ["A black dog runs through the snow ."] * 5)[0].text
    damaged = tmp_path / SHIPPED.name
    damaged.write_bytes(SHIPPED.read_bytes()[:-1] + b"\x00\x01")
    monkeypatch.setattr("mmalign.captioning.decoders.registry.SHIPPED", damaged)
    with pytest.raises(ModelUnavailableError, match="expected SHA-256"):
        load_decoder("lite")
