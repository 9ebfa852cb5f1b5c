"""The ladder of captioners on tiny pictures, and what its two commands print."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mmalign.captioning.decoders.base import Draft
from mmalign.captioning.retrieval import Retrieval
from mmalign.cli import app
from mmalign.errors import EncoderMismatchError, InputError, SourceError, StorageError
from mmalign.evaluation import captions as ladder_module
from mmalign.evaluation.caption_store import embed_sentences, read_stored_captions
from mmalign.evaluation.captions import CaptionEvalOptions, evaluate_captions, human_scores, most_frequent
from mmalign.metrics.caption import FIGURES, score_captions
from tests.evaluation.helpers import TableEncoder, write

OWN = [
    ["a red dog runs fast", "the red dog runs", "a dog runs on grass"],
    ["a blue cat sleeps here", "the cat sleeps", "a cat sleeps on a chair"],
    ["two men ride horses", "men ride brown horses", "two men on horses"],
]
STORE = ["a dog runs", "a dog runs", "a red dog runs on grass", "the cat sleeps here", "two men ride", "a boat"]
NEAREST = [2, 3, 4]


class Words(TableEncoder):
    """Each caption of the datastore on an axis of its own, and each picture near its own one; all else anywhere."""

    calls = 0

    def __init__(self) -> None:
        images = np.zeros((3, 8), np.float32)
        for row, axis in enumerate(NEAREST):
            images[row, [axis, 0]] = 0.9, 0.43
        super().__init__({}, images)

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        self.calls += len(texts)
        return np.stack([np.eye(8, dtype=np.float32)[STORE.index(text) if text in STORE else 7] for text in texts])


class Parrot:
    """Says the first caption that it is given, or nothing but a number."""

    name, encoder, fingerprint = "parrot", "table@1", "0"

    def caption(self, vector: np.ndarray, context: Sequence[str]) -> list[Draft]:
        return [Draft(context[0] if context else f"number {vector.argmax()}", None, 0.0)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Three pictures with captions, and a file of captions; an encoder that stands in for every spec."""
    monkeypatch.setattr(ladder_module, "load_encoder", lambda spec: Words())
    monkeypatch.setenv("MMALIGN_CACHE", str(tmp_path / "cache"))
    store = tmp_path / "store.txt"
    store.write_text("\n".join(STORE), encoding="utf-8")
    return write(tmp_path, [{"captions": own, "split": "dev"} for own in OWN]), store


def measure(files: tuple[Path, Path], **rest: Any) -> ladder_module.CaptionsTable:
    return evaluate_captions(files[0], [files[1]], encoder=Words(), progress=False, **rest)


def test_the_rungs(files: tuple[Path, Path]) -> None:
    ladder = measure(files, decoders={"decoder": Parrot(), "hf": "not asked for"})
    said = ladder.captions
    nearest = [STORE[place] for place in NEAREST]
    assert said["nearest"] == said["decoder"] == nearest
    assert said["frequency"] == ["a dog runs"] * 3
    assert said["decoder_no_retrieval"] == ["number 2", "number 3", "number 4"]
    assert said["decoder_random"] != nearest
    told = ladder.to_dict()
    expected = score_captions(nearest, OWN).to_dict()
    assert {name: told["nearest"][name] for name in FIGURES} == pytest.approx(
        {name: expected[name] for name in FIGURES}, abs=0.01
    )
    assert list(ladder.scores) == [
        "frequency", "nearest", "consensus", "decoder_no_retrieval", "decoder_random", "decoder",
    ]  # fmt: skip
    assert told["missing"] == {"hf": "not asked for"}
    assert told["n"] == 3
    assert told["datastore"] == {"captions": 5, "too_long": 0}
    difference, low, high = told["differences"]["nearest - frequency"]["cider"]
    assert difference == pytest.approx(told["nearest"]["cider"] - told["frequency"]["cider"], abs=0.02)
    assert low <= difference <= high
    # Equal captions: no difference, whatever is drawn.
    assert told["differences"]["decoder - nearest"]["bleu4"] == [0, 0, 0]


def test_people_against_one_another() -> None:
    found = human_scores(OWN)
    rounds = [
        score_captions([own[i] for own in OWN], [[c for j, c in enumerate(own) if j != i] for own in OWN]).to_dict()
        for i in range(3)
    ]
    # BLEU and ROUGE need no weights of words; those of CIDEr are counted from all captions.
    for name in FIGURES[1:]:
        assert found[name] == pytest.approx(np.mean([one[name] for one in rounds]), abs=1e-3)
    assert found["cider"] > 0
    assert human_scores([["alone"], ["alone, too"]]) == {}


def test_a_pictures_own_captions_never_come(files: tuple[Path, Path]) -> None:
    found = evaluate_captions(files[0], [files[0]], encoder=Words(), progress=False)
    for own, said in zip(OWN, found.captions["nearest"], strict=True):
        assert said not in own


def test_near_copies_of_references_are_left_out(files: tuple[Path, Path]) -> None:
    def twins(sentences: Sequence[str], references: Sequence[str]) -> np.ndarray:
        assert sorted(references) == sorted(caption for own in OWN for caption in own)
        return np.array(["red dog" in sentence for sentence in sentences])

    found = measure(files, twins=twins)
    assert found.datastore["twins_of_references"] == 1
    assert found.captions["nearest"][0] == "a dog runs"
    # A caption whose picture is known is of another picture, however like a reference it is.
    both = evaluate_captions(files[0], [files[0]], encoder=Words(), twins=twins, progress=False)
    assert both.datastore["twins_of_references"] == 0
    with pytest.raises(InputError, match="name another datastore"):
        measure(files, twins=lambda sentences, references: np.ones(len(sentences), bool))


def test_nothing_above_the_floor(files: tuple[Path, Path]) -> None:
    found = measure(files, options=CaptionEvalOptions(retrieval=Retrieval(floor=1.5)))
    assert found.without_context == 3
    assert found.captions["nearest"] == found.captions["consensus"] == ["a dog runs"] * 3


def test_a_decoder_of_another_encoder(files: tuple[Path, Path]) -> None:
    stranger = Parrot()
    stranger.fingerprint = "f" * 64
    with pytest.raises(EncoderMismatchError, match=r"trained for table@1 \(ffffffff\).*embedded by table@1 \(0\)"):
        measure(files, decoders={"decoder": stranger})


def test_scores_by_the_encoder(files: tuple[Path, Path]) -> None:
    found = measure(files, options=CaptionEvalOptions(clip=True, rungs=("nearest",))).to_dict()
    assert found["nearest"]["clip_score"] == pytest.approx(100 * 2.5 * 0.9 / np.hypot(0.9, 0.43), abs=0.01)
    with pytest.raises(InputError, match="the rungs are frequency"):
        CaptionEvalOptions(rungs=("best",))


def test_embeddings_are_kept(files: tuple[Path, Path], tmp_path: Path) -> None:
    sentences, encoder = read_stored_captions([files[1]]), Words()
    first = embed_sentences(sentences, encoder, progress=False)
    assert encoder.calls == 5
    again = embed_sentences(sentences, encoder, progress=False)
    assert encoder.calls == 5
    assert (again.vectors == first.vectors).all()
    assert first.vectors.argmax(axis=1).tolist() == [0, 2, 3, 4, 5]
    # Of another encoder nothing is taken, and a damaged file is made anew.
    other = Words()
    other.fingerprint = "1"
    embed_sentences(sentences, other, progress=False)
    assert other.calls == 5
    for file in (tmp_path / "cache").rglob("*.npy"):
        file.write_bytes(b"no array")
    embed_sentences(sentences, encoder, progress=False)
    assert encoder.calls == 10
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StorageError, match="MMALIGN_CACHE"):
        embed_sentences(sentences, encoder, cache=blocked, progress=False)


def test_datastores_that_are_none(tmp_path: Path, files: tuple[Path, Path]) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    with pytest.raises(InputError, match=r"the datastore holds no captions, expected two at least: .*empty\.txt"):
        read_stored_captions([empty])
    single = tmp_path / "single.txt"
    single.write_text("a dog runs\n")
    with pytest.raises(InputError, match=r"the datastore holds 1 captions, expected two at least: .*single\.txt"):
        read_stored_captions([empty, single])
    with pytest.raises(SourceError, match=r"gone\.txt cannot be read"):
        read_stored_captions([tmp_path / "gone.txt"])
    with pytest.raises(InputError, match="no split 'test'"):
        read_stored_captions([files[0]], split="test")


def test_odd_captions_of_a_datastore(tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes("a dog\r\n  a   dog \n{}\n狗在跑\n\xff\n".format("dog " * 10_000).encode("latin-1", "replace"))
    found = read_stored_captions([path])
    assert found.captions[0] == "a dog"
    assert found.counts == {"captions": 3, "too_long": 1}


def test_the_most_frequent_caption() -> None:
    assert most_frequent(["A cat.", "Two dogs run.", "two dogs run", "A boat"]) == "Two dogs run."


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["eval", *map(str, words)])


def test_eval_caption(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "said.jsonl"
    words = ("caption", "--manifest", files[0], "--split", "dev", "--datastore", files[1], "--decoder", "none")
    told = json.loads(run(*words, "--twins", 0, "--json", "--out", out).stdout)
    assert (told["n"], told["n_references"], told["encoder"], told["skipped"]) == (3, 9, "table@1", [])
    assert set(told["consensus"]) == set(told["human"]) == set(FIGURES)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["nearest"] for line in lines] == [STORE[place] for place in NEAREST]
    printed = run(*words, "--twins", 0)
    assert printed.stdout.startswith("table@1 on 3 pictures with 9 captions; datastore: 5 captions\n")
    assert "decoder left out: not asked for" in printed.stderr
    # Several files; and near copies are left out unless that is turned off.
    both = json.loads(run(*words, "--datastore", files[0], "--json").stdout)
    assert both["datastore"]["captions"] == 14


def test_eval_text(tmp_path: Path) -> None:
    references, candidates, weights = (tmp_path / name for name in ("people.jsonl", "program.jsonl", "words.json"))
    references.write_text("\n".join(json.dumps({"id": i, "captions": own}) for i, own in enumerate(OWN)))
    said = ["a red dog", "a cat sleeps", "men ride horses"]
    candidates.write_text("\n".join(json.dumps({"id": i, "caption": said[i]}) for i in (2, 0, 1)))
    words = ("text", "--references", references, "--candidates", candidates)
    told = json.loads(run(*words, "--json", "--write-frequencies", weights).stdout)
    assert told == score_captions(said, OWN).to_dict()
    assert run(*words).stdout.startswith("3 captions, 9 references\n")
    # One alone has no CIDEr of its own, and with the weights of all three it has.
    references.write_text(json.dumps({"image": "x.jpg", "captions": OWN[0], "split": "dev"}))
    candidates.write_text(json.dumps({"image": "x.jpg", "caption": said[0]}))
    assert "two pictures or more" in str(run(*words).exception)
    alone = json.loads(run(*words, "--frequencies", weights, "--json", "--split", "dev").stdout)
    assert alone["cider"] == pytest.approx(100 * float(score_captions(said, OWN).cider[0]), abs=1e-3)
    assert "nothing of split 'test'" in str(run(*words, "--split", "test").exception)


@pytest.mark.parametrize(
    ("people", "program", "message"),
    [
        ('{"id": 1, "captions": ["a"]}', '{"id": 2, "caption": "a"}', "1 have no candidate, 1 no reference"),
        ('{"id": 1, "captions": ["a"]}', '{"caption": "a"}', 'expected an object with "id" or "image"'),
        ('{"id": 1, "captions": ["a"]}', "nonsense", "not an object in JSON"),
        ('{"id": 1, "captions": ["a"]}', "[1]", "not an object in JSON"),
        ('{"id": 1, "captions": ["a"]}', '{"id": 1, "caption": 7}', "a text, in candidates"),
        ('{"id": 1, "captions": "a"}', '{"id": 1, "caption": "a"}', "a list of texts, in references"),
        ('{"id": 1, "captions": ["a"]}\n{"id": "1", "captions": []}', '{"id": 1, "caption": "a"}', "is there twice"),
        ("", '{"id": 1, "caption": "a"}', "holds nothing"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, people: str, program: str, message: str) -> None:
    (tmp_path / "people.jsonl").write_text(people)
    (tmp_path / "program.jsonl").write_text(program)
    found = run("text", "--references", tmp_path / "people.jsonl", "--candidates", tmp_path / "program.jsonl")
    assert isinstance(found.exception, InputError)
    assert message in str(found.exception)
