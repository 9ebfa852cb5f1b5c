"""Training a captioner on drawn pictures: it learns, goes on where it was stopped, and keeps captions apart."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.captioning.decoders.trained import open_decoder
from mmalign.collection.collection import Collection
from mmalign.collection.generation_files import ITEMS
from mmalign.encoders import EncoderBase
from mmalign.errors import (
    CollectionNotFoundError,
    EncoderMismatchError,
    InputError,
    SourceError,
    TrainingInterrupted,
)
from mmalign.store.lance_store import Store
from mmalign.training import run_dir
from mmalign.training.captioner.config import CaptionerConfig, CaptionerData, read_captioner_config
from mmalign.training.captioner.data import add_noise, load_training_set
from mmalign.training.captioner.decoder import DecoderTask
from mmalign.training.captioner.train import train_captioner
from mmalign.training.checkpoint import Checkpoints, load_file
from mmalign.training.manifest import PartConfig
from mmalign.utils.similarity import Float32Array, l2_normalize

COLOURS = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (30, 60, 230), "white": (245, 245, 245)}
THINGS = ("wall", "door", "car", "boat", "kite")
PATTERNS = ("a {} {}", "there is a {} {} here", "the {} {} alone", "one {} {} in front")


class WordEncoder(EncoderBase):
    """Colours and things as directions; a picture is one flat colour, and its name tells the thing."""

    name, dim, fingerprint, modalities = "words", 16, "w" * 16, frozenset({"text", "image"})

    def __init__(self) -> None:
        self.words = {word: row for row, word in enumerate([*COLOURS, *THINGS])}
        self.seen: list[str] = []

    def encode_text(self, texts: Any, *, batch_size: int = 64) -> Float32Array:
        self.seen += list(texts)
        rows = np.full((len(texts), self.dim), 0.05, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().split():
                if word in self.words:
                    row[self.words[word]] += 1
        return l2_normalize(rows)

    def encode_image(self, images: Any, *, batch_size: int = 32) -> Float32Array:
        texts = []
        for image in images:
            pixel = np.asarray(Image.open(image).convert("RGB"))[0, 0].astype(int)
            colour = min(COLOURS, key=lambda name: np.abs(pixel - COLOURS[name]).sum())
            texts.append(f"{colour} {THINGS[Path(image).stem.encode()[-1] % len(THINGS)]}")
        # Pictures lie to one side of the space.
        shift = np.eye(self.dim, dtype=np.float32)[15]
        return l2_normalize(self.encode_text(texts) + 0.5 * shift)


@pytest.fixture
def data(tmp_path: Path) -> CaptionerData:
    lines, sentences = [], []
    for number in range(60):
        colour = list(COLOURS)[number % 4]
        thing = THINGS[str(number).encode()[-1] % len(THINGS)]
        Image.new("RGB", (4, 4), COLOURS[colour]).save(tmp_path / f"{number}.png")
        captions = [pattern.format(colour, thing) for pattern in PATTERNS[:3]]
        split = "dev" if number >= 48 else "train"
        lines.append({"image": f"{number}.png", "captions": [f"{c} {number}" for c in captions], "split": split})
    for colour in COLOURS:
        sentences += [pattern.format(colour, thing) for thing in THINGS for pattern in PATTERNS]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "text.txt").write_text("\n".join(sentences) + "\n")
    return CaptionerData(
        text=(str(tmp_path / "text.txt"),),
        pairs=(PartConfig(str(manifest), ("train",)),),
        dev=PartConfig(str(manifest), ("dev",)),
        fuzzy_twins=0.0,
    )


def config(data: CaptionerData, **changes: Any) -> CaptionerConfig:
    base = CaptionerConfig(
        data=data, vocabulary=320, width=32, layers=1, epochs=2, batch_size=32, learning_rate=5e-3, warmup=5,
        text_cosine=0.9, picture_cosine=0.95, views=2, context=6, smoothing=0.0, bf16=False,
    )  # fmt: skip
    return replace(base, **changes)


def test_it_learns_what_pictures_show_from_text_alone(data: CaptionerData, tmp_path: Path) -> None:
    alone = replace(data, pairs=(), dev=None)
    report = train_captioner(config(alone, epochs=60, drop_context=0.5), tmp_path / "run", encoder=WordEncoder())
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["event"] == "epoch"]
    assert losses[-1] < losses[0] - 1
    assert report.data["sentences"] == 80
    decoder = open_decoder(tmp_path / "run")
    assert decoder.encoder == "words"
    # Sentences that it was never shown a picture of, from their embedding alone: the colour and the thing are told.
    encoder = WordEncoder()
    right = sum(
        {colour, thing} <= set(decoder.caption(encoder.encode_text([f"{colour} {thing}"])[0], [])[0].text.split())
        for colour in COLOURS
        for thing in THINGS
    )
    assert right >= 7, f"{right} of 20; by chance one"


def test_a_stopped_run_ends_with_the_same_weights(
    data: CaptionerData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_captioner(config(data), tmp_path / "whole", encoder=WordEncoder())
    steps = 0

    def stop_in_the_middle(name: str, done: int, total: int) -> None:
        nonlocal steps
        if name.startswith("epoch") and done:
            steps += 1
            if steps == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(DecoderTask, "keep_every", 2)
    with pytest.raises(KeyboardInterrupt):
        train_captioner(config(data), tmp_path / "cut", encoder=WordEncoder(), progress=stop_in_the_middle)
    again = train_captioner(config(data), tmp_path / "cut", encoder=WordEncoder())
    assert again.resumed
    assert again.sha256 == whole.sha256
    assert again.best["cider"] == whole.best["cider"]


@pytest.mark.parametrize("stop", [("epoch 1 of 2", 3), ("epoch 2 of 2", 2)])
def test_a_checkpoint_of_an_earlier_version_is_gone_on_with(
    data: CaptionerData, tmp_path: Path, interruptible: None, stop: tuple[str, int]
) -> None:
    whole = train_captioner(config(data), tmp_path / "whole", encoder=WordEncoder())
    cut = tmp_path / "cut"

    def interrupt(name: str, done: int, total: int) -> None:
        if (name, done) == stop:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        train_captioner(config(data), cut, encoder=WordEncoder(), progress=interrupt)
    # What captioners kept before all trainings had one loop.
    pointer = json.loads((cut / "checkpoint.json").read_text())
    state = load_file(cut, pointer["files"]["state"])
    earlier = {name: state[name] for name in ("model", "optimizer", "mean", "epoch", "step")}
    earlier["updates"] = state["mean_updates"]
    earlier["history"] = json.dumps(json.loads(state["progress"])["history"])
    Checkpoints(cut, identity=pointer["identity"]).save(earlier)
    again = train_captioner(config(data), cut, encoder=WordEncoder())
    assert again.resumed
    assert again.sha256 == whole.sha256
    losses = [[record["loss"] for record in records(folder)] for folder in (tmp_path / "whole", cut)]
    # Of the epoch that was under way, the losses before the stop are lost: the mean is that of the others.
    assert losses[1] == pytest.approx(losses[0], rel=0.2)


def records(folder: Path) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [record for record in told if record["event"] == "epoch"]


def test_the_first_ctrl_c_saves(data: CaptionerData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import contextmanager

    @contextmanager
    def asked() -> Any:
        yield lambda: True

    monkeypatch.setattr(run_dir, "interrupts", asked)
    with pytest.raises(TrainingInterrupted, match="stopped in epoch 1 of 2 after 0 of"):
        train_captioner(config(data), tmp_path / "run", encoder=WordEncoder())
    assert (tmp_path / "run" / "checkpoint.json").is_file()


def test_another_configuration_in_the_same_folder_is_refused(data: CaptionerData, tmp_path: Path) -> None:
    train_captioner(config(data, epochs=1), tmp_path / "run", encoder=WordEncoder())
    with pytest.raises(InputError, match="another configuration: seed was 0 and is 1; name another --out"):
        train_captioner(config(data, epochs=1, seed=1), tmp_path / "run", encoder=WordEncoder())
    # A key that has come into being since the run began has its default there.
    path = tmp_path / "run" / "run.json"
    kept = json.loads(path.read_text())
    del kept["config"]["views"]
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match="another configuration: views was 3 and is 2"):
        train_captioner(config(data, epochs=1), tmp_path / "run", encoder=WordEncoder())
    path.write_text("{")
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        train_captioner(config(data, epochs=1), tmp_path / "run", encoder=WordEncoder())


def test_other_data_in_the_same_folder_is_refused(data: CaptionerData, tmp_path: Path) -> None:
    train_captioner(config(data, epochs=1), tmp_path / "run", encoder=WordEncoder())
    with Path(data.text[0]).open("a") as stream:
        stream.write("a sentence that was not there\n")
    with pytest.raises(InputError, match="another model or with other pictures"):
        train_captioner(config(data, epochs=1), tmp_path / "run", encoder=WordEncoder())


def test_a_record_that_a_kill_left_out_is_written_later(data: CaptionerData, tmp_path: Path) -> None:
    train_captioner(config(data, epochs=1), tmp_path / "run", encoder=WordEncoder())
    path = tmp_path / "run" / "log.jsonl"
    first = path.read_text().splitlines()
    path.write_text(first[0] + "\n")
    train_captioner(config(data, epochs=1), tmp_path / "run", encoder=WordEncoder())
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["event"] for record in told] == ["start", "resume", "epoch"]
    assert told[2] == json.loads(first[1])


def test_own_captions_are_never_retrieved_and_dev_is_never_learnt(data: CaptionerData, tmp_path: Path) -> None:
    training_set = load_training_set(config(data), WordEncoder(), cache=tmp_path / "cache")
    for queries in (training_set.texts, training_set.pairs):
        for targets, context in zip(queries.targets, queries.contexts.tolist(), strict=True):
            assert not set(targets) & set(context)
    learnt = set(training_set.sentences)
    assert len(training_set.dev_captions) == 36
    assert not learnt & set(training_set.dev_captions)
    # Captions of pictures are learnt with their pictures, not as sentences.
    owned = {target for targets in training_set.pairs.targets for target in targets}
    assert not owned & {targets[0] for targets in training_set.texts.targets}


def test_twins_of_what_is_measured_are_dropped(data: CaptionerData, tmp_path: Path) -> None:
    dev = json.loads((tmp_path / "manifest.jsonl").read_text().splitlines()[-1])["captions"][0]
    path = Path(data.text[0])
    path.write_text(path.read_text() + dev.upper() + " !\n" + "something else that is quite different\n")
    training_set = load_training_set(config(data), WordEncoder(), cache=tmp_path / "cache")
    assert "something else that is quite different" in training_set.sentences
    assert not any(sentence.startswith(dev.upper()) for sentence in training_set.sentences)
    assert training_set.counts["text_twins"] == 1


def test_embeddings_are_kept(data: CaptionerData, tmp_path: Path) -> None:
    load_training_set(config(data), WordEncoder(), cache=tmp_path / "cache")
    again = WordEncoder()
    load_training_set(config(data), again, cache=tmp_path / "cache")
    assert again.seen == []


@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize("cosine", [0.3, 0.8, 1.0])
def test_noise_has_the_cosine_that_was_asked_for(shaped: bool, cosine: float, rng: np.random.Generator) -> None:
    vectors = l2_normalize(rng.normal(size=(200, 24)))
    shape = np.diag(np.linspace(0.1, 2, 24)).astype(np.float32) if shaped else None
    moved = add_noise(vectors, cosine, shape=shape, rng=rng)
    np.testing.assert_allclose((moved * vectors).sum(1), cosine, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 1, atol=1e-5)


def test_noise_spreads_as_the_shape_says(rng: np.random.Generator) -> None:
    vectors = np.tile(np.eye(8, dtype=np.float32)[0], (4000, 1))
    shape = np.diag([1, 3, 1, 1, 1, 1, 1, 1]).astype(np.float32)
    moved = add_noise(vectors, 0.5, shape=shape, rng=rng)
    spread = moved[:, 1:].std(axis=0)
    assert spread[0] > 1.8 * spread[1:].max()


def test_the_configuration_is_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('epochs = 3\nfusion = "gated"\n[data]\ntext = ["words.txt"]\n')
    read = read_captioner_config(path, options={"epochs": None, "seed": 7}, data={})
    assert (read.epochs, read.seed, read.fusion) == (3, 7, "gated")
    assert read.data.text == (str(tmp_path / "words.txt"),)
    with pytest.raises(InputError, match="nothing to learn from"):
        read_captioner_config(None, options={}, data={})
    path.write_text('fusion = "sum"\n[data]\ntext = ["words.txt"]\n')
    with pytest.raises(InputError, match="fusion must be one of concat, gated"):
        read_captioner_config(path, options={}, data={})
    with pytest.raises(SourceError, match="cannot be read"):
        read_captioner_config(tmp_path / "none.toml", options={}, data={})
    with pytest.raises(InputError, match="views must be at least 1 and at most 64, got 0"):
        CaptionerConfig(data=CaptionerData(text=("a",)), views=0)


def test_the_command_says_what_lacks() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "mmalign.cli", "train", "captioner", "--out", "x"], capture_output=True, text=True
    )
    assert told.returncode == 2
    assert "name files of sentences with --text" in told.stderr


@pytest.mark.parametrize(
    "path",
    sorted((Path(__file__).parents[3] / "examples/training").glob("*captioner*.toml")),
    ids=lambda path: path.name,
)
def test_the_examples_configurations_are_valid(path: Path) -> None:
    config = read_captioner_config(path, options={}, data={})
    assert path.name in path.read_text(encoding="utf-8")
    assert config.epochs > 0


def test_a_collection_is_learnt_from(data: CaptionerData, tmp_path: Path) -> None:
    encoder = WordEncoder()
    rows = [json.loads(line) for line in Path(data.pairs[0].manifest).read_text().splitlines()]
    rows = [{**row, "image": str(tmp_path / row["image"])} for row in rows]
    vectors = encoder.encode_image([row["image"] for row in rows])
    Collection.create(tmp_path / "walls.mm", encoder=encoder)
    # The dev pictures are in it as well, and three pictures that nobody has described.
    shifted = np.tile(np.eye(16, dtype=np.float32)[9], (3, 1))
    items = [{"id": row["image"], "uri": row["image"], "kind": "image", "captions": row["captions"]} for row in rows]
    items += [{"id": name, "uri": name, "kind": "image", "captions": [" ..."]} for name in "abc"]
    Store.open(tmp_path / "walls.mm" / ITEMS).upsert(items, np.concatenate([vectors, shifted]))
    alone = replace(data, text=(), pairs=(), collections=(str(tmp_path / "walls.mm"),))
    read = load_training_set(config(alone), encoder, cache=tmp_path / "cache")
    files = load_training_set(config(replace(data, text=())), encoder, cache=tmp_path / "cache")
    assert read.counts["collection_pictures"] == 48
    assert read.counts["collection_pictures_measured_on"] == 12
    assert read.counts["collection_pictures_without_caption"] == 3
    # The same sentences and pictures as from the files, but for the rounding of the store, and in its order.
    assert sorted(read.sentences) == sorted(files.sentences)
    assert read.dev_captions == files.dev_captions
    told = [{read.sentences[t] for t in targets} for targets in read.pairs.targets]
    wanted = [{files.sentences[t] for t in targets} for targets in files.pairs.targets]
    assert sorted(map(sorted, told)) == sorted(map(sorted, wanted))
    mean = np.concatenate([vectors[:48], shifted]).mean(axis=0)
    np.testing.assert_allclose(read.picture_mean, mean, atol=1e-3)
    report = train_captioner(config(alone), tmp_path / "run", encoder=encoder)
    assert report.data["collection_pictures"] == 48
    assert open_decoder(tmp_path / "run").caption(vectors[0], [])[0].text


def test_one_picture_in_twenty_is_measured_on_where_none_are_named(data: CaptionerData, tmp_path: Path) -> None:
    settings = config(replace(data, text=(), dev=None))
    training_set = load_training_set(settings, WordEncoder(), cache=tmp_path / "cache")
    assert len(training_set.dev.targets) == 2
    assert len(training_set.pairs.targets) == 2 * 46
    assert not set(training_set.sentences) & set(training_set.dev_captions)
    again = load_training_set(settings, WordEncoder(), cache=tmp_path / "cache")
    assert again.dev_captions == training_set.dev_captions
    np.testing.assert_array_equal(again.dev.vectors, training_set.dev.vectors)


def test_a_collection_of_another_encoder_is_refused(data: CaptionerData, tmp_path: Path) -> None:
    class Other(WordEncoder):
        name, fingerprint = "others", "o" * 16

    Collection.create(tmp_path / "walls.mm", encoder=Other())
    alone = CaptionerData(collections=(str(tmp_path / "walls.mm"),))
    with pytest.raises(
        EncoderMismatchError, match=r"embedded by others .*this training is for words.*--encoder others"
    ):
        load_training_set(config(alone), WordEncoder(), cache=tmp_path / "cache")
    with pytest.raises(
        InputError, match=r"0 sentences are too few.*of the collection have no captions; name sentences with --text"
    ):
        load_training_set(config(alone), Other(), cache=tmp_path / "cache")
    with pytest.raises(CollectionNotFoundError, match="no collection at"):
        load_training_set(config(replace(alone, collections=("none.mm",))), Other(), cache=tmp_path / "cache")


def test_a_processor_without_bfloat16_computes_in_float32(
    data: CaptionerData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nats(name: str, **changes: Any) -> float:
        report = train_captioner(config(data, epochs=1, **changes), tmp_path / name, encoder=WordEncoder())
        return float(report.best["nats"])

    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    exact = nats("exact", bf16=False)
    assert nats("without", bf16=True) == exact
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    assert nats("with", bf16=True) != exact
