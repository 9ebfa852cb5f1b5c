"""A soft prefix tells a frozen language model of the picture, and fits no other model and no other encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmalign.captioning.captioner import Captioner
from mmalign.captioning.decoders.hf import LanguageModel
from mmalign.captioning.decoders.prefix import PrefixFile, SoftPrefix, read_prefix, write_prefix
from mmalign.captioning.decoders.prompts import plain_prompt
from mmalign.captioning.decoders.registry import load_decoder
from mmalign.captioning.retrieval import TextStore
from mmalign.errors import DimensionError, EncoderMismatchError, InputError, ModelUnavailableError
from mmalign.training.captioner.config import CaptionerConfig, CaptionerData, read_captioner_config
from mmalign.training.captioner.prefix import PrefixTask, _Example
from mmalign.training.captioner.train import train_captioner
from mmalign.utils.similarity import l2_normalize
from tests.captioning.decoders.toy import tiny_language_model
from tests.training.captioner.test_train import COLOURS, PATTERNS, THINGS, WordEncoder

SENTENCES = [pattern.format(colour, thing) for colour in COLOURS for thing in THINGS for pattern in PATTERNS]
WORDS = " ".join([*SENTENCES, "Captions of one picture , by different people : Caption"]).split()


def language_model(folder: Path, *, seed: int = 0) -> Path:
    """One that has learnt to write of the colour and the thing that came before, such as in retrieved captions."""
    rng = np.random.default_rng(seed)
    same = [
        rng.permutation(len(PATTERNS)) + len(PATTERNS) * rng.integers(len(COLOURS) * len(THINGS)) for _ in range(320)
    ]
    texts = [
        f"{plain_prompt([SENTENCES[row] for row in rows[: i % 3]])} {SENTENCES[rows[2]]}" for i, rows in enumerate(same)
    ]
    return tiny_language_model(folder, WORDS, texts=texts, seed=seed)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return language_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def config(tmp_path: Path, model: Path) -> CaptionerConfig:
    (tmp_path / "text.txt").write_text("\n".join(SENTENCES) + "\n")
    return CaptionerConfig(
        data=CaptionerData(text=(str(tmp_path / "text.txt"),), fuzzy_twins=0.0),
        language_model=f"hf:{model}", prefix_length=3, epochs=2, batch_size=16, learning_rate=1e-2, warmup=5,
        text_cosine=0.95, context=3, drop_context=0.2, bf16=False,
    )  # fmt: skip


def trainer(config: CaptionerConfig, folder: Path) -> PrefixTask:
    from mmalign.training.captioner.data import load_training_set

    training_set = load_training_set(config, WordEncoder(), cache=folder / "cache")
    return PrefixTask(config, training_set, dim=16, device=torch.device("cpu"))


def test_captions_become_likelier_and_the_language_model_stays_as_it_is(
    config: CaptionerConfig, tmp_path: Path, model: Path
) -> None:
    before = {name: tensor.clone() for name, tensor in LanguageModel(str(model)).model.state_dict().items()}
    train_captioner(replace(config, epochs=25, drop_context=1.0), tmp_path / "run", encoder=WordEncoder())
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    epochs = [record for record in records if record["event"] == "epoch"]
    # Of about eight words, the colour and the thing are what the language model cannot know.
    assert epochs[-1]["loss"] < epochs[0]["loss"] - 0.25
    assert len({record["nats_without"] for record in epochs}) == 1, "the language model does not learn"
    after = LanguageModel(str(model)).model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_it_learns_is_the_picture(config: CaptionerConfig, tmp_path: Path) -> None:
    train_captioner(replace(config, epochs=40, drop_context=1.0), tmp_path / "run", encoder=WordEncoder())
    learnt = trainer(config, tmp_path / "other")
    learnt.model.load_state_dict(read_prefix(tmp_path / "run" / "export" / "prefix.safetensors").prefix.state_dict())
    encoder = WordEncoder()
    told = [f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]
    vectors = l2_normalize(encoder.encode_text(told) - learnt._set.picture_mean)
    answers = [learnt._language.answer(text) for text in told]

    def cost(turn: int) -> float:
        shown = [_Example(vector, [], text) for vector, text in zip(np.roll(vectors, turn, axis=0), told, strict=True)]
        return float(learnt._nats(shown, answers).detach()) / sum(map(len, answers))

    assert cost(0) < min(cost(7), cost(13)) - 0.15


def test_the_loss_is_that_of_one_row_after_the_other(config: CaptionerConfig, tmp_path: Path) -> None:
    one = trainer(config, tmp_path / "run")
    vectors = l2_normalize(np.random.default_rng(0).standard_normal((3, 16)))
    told = [
        _Example(vectors[0], ["a red car", "one blue boat in front"], "a red car"),
        _Example(vectors[1], [], "there is a white kite here"),
        _Example(vectors[2], ["the red door alone"] * 3, "one green wall in front"),
    ]
    answers = [one._language.answer(item.caption) for item in told]
    language, expected, bare = one._language, 0.0, 0.0
    for item, answer in zip(told, answers, strict=True):
        prefix = one.model(torch.from_numpy(item.vector[None]))[0]
        for shown, blind in ((prefix, False), (prefix[:0], True)):
            rows = torch.cat([language.embed(language.prompt(item.context)[0]), shown, language.embed(answer)])
            scores = language.model(inputs_embeds=rows[None]).logits[0].log_softmax(-1).detach()
            start = len(rows) - len(answer) - 1
            cost = -sum(float(scores[start + i, token]) for i, token in enumerate(answer.tolist()))
            bare, expected = (bare + cost, expected) if blind else (bare, expected + cost)
    assert float(one._nats(told, answers).detach()) == pytest.approx(expected, rel=1e-5)
    assert float(one._nats(told, answers, blind=True).detach()) == pytest.approx(bare, rel=1e-5)
    one._short = not one._short
    assert float(one._nats(told, answers).detach()) == pytest.approx(expected, rel=1e-5)


def test_a_stopped_run_ends_with_the_same_prefix(
    config: CaptionerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_captioner(config, tmp_path / "whole", encoder=WordEncoder())
    steps = 0

    def stop_in_the_middle(name: str, done: int, total: int) -> None:
        nonlocal steps
        steps += name.startswith("epoch") and done > 0
        if steps == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(PrefixTask, "keep_every", 2)
    with pytest.raises(KeyboardInterrupt):
        train_captioner(config, tmp_path / "cut", encoder=WordEncoder(), progress=stop_in_the_middle)
    again = train_captioner(config, tmp_path / "cut", encoder=WordEncoder())
    assert again.resumed
    assert again.sha256 == whole.sha256


def test_it_writes_with_the_language_model(
    config: CaptionerConfig, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_captioner(config, tmp_path / "run", encoder=WordEncoder())
    vectors = WordEncoder().encode_text(["a red car", "the white kite alone"])
    context = ["a red car", "one red car in front"]
    monkeypatch.chdir(tmp_path)
    from_folder, named = load_decoder("run"), load_decoder(f"hf:{model}", prefix="run/export/prefix.safetensors")
    assert (from_folder.name, named.name) == ("run", f"hf:{model}")
    assert from_folder.caption(vectors[0], context) == named.caption(vectors[0], context)
    plain = load_decoder(f"hf:{model}")
    # Without a picture there is no prefix either.
    assert named.caption(None, context) == plain.caption(None, context)
    assert named.caption(vectors[0], context)[0].score != plain.caption(vectors[0], context)[0].score
    with pytest.raises(DimensionError, match="expected dim 16"):
        named.caption(vectors[0][:5], context)


def test_likelihood_with_a_prefix_is_the_models_own(config: CaptionerConfig, tmp_path: Path, model: Path) -> None:
    train_captioner(config, tmp_path / "run", encoder=WordEncoder())
    file = read_prefix(tmp_path / "run" / "export" / "prefix.safetensors")
    vector, context = WordEncoder().encode_text(["a red car"])[0], ["the red car alone"]
    draft = load_decoder(tmp_path / "run").caption(vector, context)[0]
    language = LanguageModel(str(model))
    told = language.tokenizer(draft.text, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        moved = l2_normalize(vector[None] - file.mean)
        shown = [language.embed(language.prompt(context)[0]), file.prefix(torch.from_numpy(moved))[0]]
        shown.append(language.embed(torch.tensor(told)))
        scores = language.model(inputs_embeds=torch.cat(shown)[None]).logits[0].log_softmax(-1)
    total = sum(float(scores[len(scores) - len(told) - 1 + i, token]) for i, token in enumerate(told))
    assert draft.log_likelihood == pytest.approx(total, abs=1e-3)


def test_another_language_model_or_encoder_is_refused(config: CaptionerConfig, tmp_path: Path) -> None:
    train_captioner(config, tmp_path / "run", encoder=WordEncoder())
    other = language_model(tmp_path / "other", seed=1)
    with pytest.raises(ModelUnavailableError, match=r"was trained for the language model .* has other weights"):
        load_decoder(f"hf:{other}", prefix=tmp_path / "run")
    with pytest.raises(InputError, match="a soft prefix is for hf:NAME_OR_PATH, got 'lite'"):
        load_decoder("lite", prefix=tmp_path / "run")
    with pytest.raises(ModelUnavailableError, match="is not a soft prefix"):
        load_decoder(config.language_model, prefix=tmp_path / "text.txt")

    class Other(WordEncoder):
        fingerprint = "o" * 16

    with pytest.raises(EncoderMismatchError):
        Captioner(Other(), TextStore(("a red car",), Other().encode_text(["a red car"])), mode=str(tmp_path / "run"))
    told = Captioner(WordEncoder(), TextStore((), np.zeros((0, 16), np.float32)), mode=str(tmp_path / "run"))
    written = told.caption(WordEncoder().encode_text(["a red car"])[0])
    assert written.text, "with a prefix, the embedding alone is enough"


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    notes = dict.fromkeys(("encoder", "fingerprint", "language_model", "language_model_digest", "license"), "x")
    file = PrefixFile(SoftPrefix(4, 6, length=2), np.zeros(4, np.float32), notes)
    with pytest.raises(InputError, match="'provenance'"):
        write_prefix(tmp_path / "a.safetensors", file)
    write_prefix(tmp_path / "a.safetensors", replace(file, notes={**notes, "provenance": "x"}))
    assert read_prefix(tmp_path / "a.safetensors").prefix.length == 2
    content = (tmp_path / "a.safetensors").read_bytes()
    for name, damaged in (("cut", content[:-20]), ("other", content.replace(b"soft prefix 1", b"soft prefix 9"))):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ModelUnavailableError, match="is not a soft prefix"):
            read_prefix(tmp_path / name)


def test_the_configuration_names_a_language_model(tmp_path: Path, model: Path) -> None:
    (tmp_path / "near").symlink_to(model)
    path = tmp_path / "run.toml"
    path.write_text('language_model = "hf:near"\n[data]\ntext = ["words.txt"]\n')
    assert read_captioner_config(path, options={}, data={}).language_model == f"hf:{tmp_path / 'near'}"
    path.write_text('language_model = "hf:someone/on-the-hub"\n[data]\ntext = ["words.txt"]\n')
    assert read_captioner_config(path, options={}, data={}).language_model == "hf:someone/on-the-hub"
    wrong: Any
    for wrong in ("gpt2", "hf:", "openai:x@y"):
        with pytest.raises(InputError, match="language_model is hf:NAME_OR_PATH"):
            read_captioner_config(path, options={"language_model": wrong}, data={})
