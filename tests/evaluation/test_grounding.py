from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mmalign.alignment.aligner import Aligner, PhraseScores
from mmalign.cli import app
from mmalign.errors import InputError, SourceError
from mmalign.evaluation import grounding
from mmalign.evaluation.existence import (
    FALSE_LINKS,
    ExistenceSigns,
    auroc,
    conformal_threshold,
    file_half,
    is_named,
    measure_existence,
    replace_phrases,
)
from mmalign.evaluation.grounding import evaluate_grounding, given_boxes, ranked_answers
from mmalign.evaluation.phrases import PhrasePicture, read_phrases
from mmalign.evaluation.sentences import by_caption, place
from mmalign.types import Box, Region

WIDTH, HEIGHT = 60, 40
ROWS: list[dict[str, Any]] = [
    {
        "captions": ["A dog to the left of a cat .", "Two animals ."],
        "phrases": [
            {"phrase": "A dog", "box": [2, 10, 16, 20]},
            {"phrase": "a cat", "box": [40, 10, 16, 20]},
            {"phrase": "Two animals", "box": [2, 10, 16, 20]},
            {"phrase": "Two animals", "box": [40, 10, 16, 20]},
        ],
        "split": "dev",
    },
    {"captions": [], "phrases": [{"phrase": "a tree", "box": [0, 0, 60, 40]}], "split": "dev"},
    {"captions": ["A boat on a lake"], "phrases": [{"phrase": "a lake", "box": [20, 10, 20, 20]}], "split": "test"},
    {"captions": ["nothing is boxed here"], "split": "dev"},
]
REGIONS = [(2, 10, 16, 20), (40, 10, 16, 20), (0, 0, 60, 40), (20, 10, 20, 20), (5, 5, 5, 5)]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    lines = []
    for number, row in enumerate(ROWS):
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(tmp_path / f"{number:03}.png")
        lines.append(json.dumps({"image": f"{number:03}.png", **row}))
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


Scores = Callable[[str, Sequence[Box]], Sequence[float]]


class PlantedAligner(Aligner):
    """An aligner whose evidence a test can choose."""

    def __init__(
        self, scores: Scores, peak: tuple[int, int] = (0, 0), existence: dict[str, float] | None = None
    ) -> None:
        self.scores, self.peak, self.odds = scores, peak, existence
        self.parser, self.head = "rules", None
        self.encoder = type("Named", (), {"name": "planted@1"})()

    def score_phrases(self, image: Any, phrases: Sequence[str], *, regions: Any = "proposals") -> PhraseScores:
        boxes = [Box(*row) for row in REGIONS] if isinstance(regions, str) else list(regions)
        heat = np.zeros((len(phrases), 4, 6), np.float32)
        heat[:, self.peak[0], self.peak[1]] = 1
        there = None if self.odds is None else np.array([self.odds.get(p, 0.0) for p in phrases], np.float32)
        rows = [self.scores(phrase, boxes) for phrase in phrases]
        return PhraseScores(tuple(map(Region, boxes)), np.array(rows, np.float32), heat, there)


def truth_of(phrase: str) -> list[list[float]]:
    return [told["box"] for row in ROWS for told in row.get("phrases", []) if told["phrase"] == phrase]


def knowing(phrase: str, boxes: Sequence[Box]) -> list[float]:
    return [20.0 if box.to_list() in truth_of(phrase) else 0.0 for box in boxes]


def test_knowing_everything_is_full_marks(manifest: Path) -> None:
    told = evaluate_grounding(manifest, encoder=PlantedAligner(knowing), progress=False).to_dict()
    assert (told["n_images"], told["n_phrases"]) == (3, 5)
    for solver in ("argmax", "hungarian", "graph"):
        assert told["by_solver"][solver]["r@1"] == 100
    assert told["r@1_merged"] == 100
    # The tree alone fills the picture; its middle lies in the tree and in the lake.
    assert told["trivial"] == {"whole_image": 20.0, "center_pointing": 40.0}
    # Of five regions one is right, or two for the animals.
    assert told["chance"] == pytest.approx(100 * (4 * 1 + 2) / 25)
    assert told["over_argmax"]["graph"] == {"r@1": 0.0, "interval_95": [0.0, 0.0], "better": 0, "worse": 0}


def test_being_wrong_is_none(manifest: Path) -> None:
    def wrong(phrase: str, boxes: Sequence[Box]) -> list[float]:
        return [-score for score in knowing(phrase, boxes)]

    told = evaluate_grounding(manifest, encoder=PlantedAligner(wrong), progress=False).to_dict()
    assert told["by_solver"]["argmax"]["r@1"] == 0
    # All five regions are answered within ten, as none is a near copy of another.
    assert told["r@10"] == 100


def test_pointing_looks_at_the_peak(manifest: Path) -> None:
    # The cell at row 1, column 1 of 4 x 6 has its middle at (15, 15): in the dog's box and in the tree's.
    told = evaluate_grounding(manifest, encoder=PlantedAligner(knowing, peak=(1, 1)), progress=False).to_dict()
    assert told["pointing"] == pytest.approx(100 * 3 / 5)


def test_relations_decide_where_similarities_do_not(manifest: Path) -> None:
    def confused(phrase: str, boxes: Sequence[Box]) -> list[float]:
        """The dog looks a little like the cat's place, and the cat like the dog's."""
        right = {"A dog": 1, "a cat": 0}.get(phrase)
        return [5.0 + 0.1 * (place == right) if place < 2 else 0.0 for place in range(len(boxes))]

    found = evaluate_grounding(manifest, split="dev", encoder=PlantedAligner(confused), progress=False)
    argmax, graph = found.solvers["argmax"].ranks, found.solvers["graph"].ranks
    assert argmax[:2].tolist() == [2, 2]
    assert graph[:2].tolist() == [1, 1]
    assert found.to_dict()["over_argmax"]["graph"]["better"] == 2


def test_given_boxes_are_the_candidates(manifest: Path) -> None:
    seen: list[list[list[float]]] = []

    def look(phrase: str, boxes: Sequence[Box]) -> list[float]:
        seen.append([box.to_list() for box in boxes])
        return [0.0] * len(boxes)

    evaluate_grounding(manifest, split="dev", encoder=PlantedAligner(look), regions="given", progress=False)
    assert seen[0] == [[2, 10, 16, 20], [40, 10, 16, 20]]
    assert seen[-1] == [[0, 0, 60, 40]]


def test_given_boxes_are_cut_off_at_the_edges() -> None:
    picture = PhrasePicture("a", (), ("x",), (np.array([[-5.0, 0, 10, 10], [100, 100, 5, 5], [-5, 0, 10, 10]]),))
    assert [box.to_list() for box in given_boxes(picture, (50, 50))] == [[0, 0, 5, 10]]


def test_boxes_outside_the_picture_leave_nothing_to_choose_from(tmp_path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "a.png")
    line = {"image": "a.png", "phrases": [{"phrase": "a dog", "box": [100, 100, 5, 5]}]}
    (tmp_path / "m.jsonl").write_text(json.dumps(line))
    aligner = PlantedAligner(lambda phrase, boxes: [0.0] * len(boxes))
    told = evaluate_grounding(tmp_path / "m.jsonl", encoder=aligner, regions="given", progress=False).to_dict()
    assert (told["r@1"], told["r@10"], told["by_solver"]["graph"]["unmatched"]) == (0, 0, 100)


def test_answers_begin_with_what_was_taken_and_leave_out_copies() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 5, 5], [40, 0, 5, 5]], float)
    worth = np.array([3.0, 2.0, 1.0, 0.0])
    assert ranked_answers(worth, (), boxes, most=10) == [0, 2, 3]
    assert ranked_answers(worth, (3,), boxes, most=10) == [3, 0, 2]
    assert ranked_answers(worth, (1, 0), boxes, most=3) == [1, 0, 2]
    assert ranked_answers(worth, (), boxes, most=1) == [0]


def test_phrases_are_matched_with_those_of_their_caption() -> None:
    phrases = ["a dog", "the man", "A red ball", "a hat", "grass"]
    captions = ["A dog plays .", "The man with a hat throws a red ball left of a dog", "grass or glass"]
    found = by_caption(phrases, captions, parser="rules")
    assert [sentence.members for sentence in found] == [(0, 1, 2, 3), (4,)]
    relation = next(r for r in found[0].parsed.relations if r.kind == "left of")
    assert found[0].parsed.phrases[relation.objects[0]].text == "a dog"
    assert sorted(index for sentence in by_caption(phrases, [], parser="rules") for index in sentence.members) == [
        0,
        1,
        2,
        3,
        4,
    ]


def test_places_are_whole_words() -> None:
    assert place("The catalog has a Cat", "cat") == (18, 21)
    assert place("catalog", "cat") is None
    assert place("a hat", "hat") == (2, 5)


def test_absent_phrases(manifest: Path) -> None:
    present = {told["phrase"]: 0.9 for row in ROWS for told in row.get("phrases", [])}
    aligner = PlantedAligner(knowing, existence=present)
    told = evaluate_grounding(manifest, encoder=aligner, absent=True, progress=False).to_dict()
    # Strangers are phrases of the other pictures, which this aligner takes for present as well.
    assert told["absent"]["auroc"] == 50
    assert told["absent"]["at_probability_0.5"] == {"kept": 100.0, "false_links": 100.0}


def test_a_stranger_is_named_by_nothing_said_of_the_picture(manifest: Path) -> None:
    pictures = read_phrases(manifest) * 20
    for picture, stranger in zip(pictures, replace_phrases(pictures), strict=True):
        assert stranger is not None
        assert stranger.phrase not in picture.phrases
        assert not is_named(stranger.phrase, " ".join((*picture.captions, *picture.phrases)))
    assert is_named("Two Dogs", "a dog runs")
    assert is_named("the bus", "a bus stop")
    assert not is_named("a red cat .", "a dog")


def test_auroc_equals_a_loop(rng: np.random.Generator) -> None:
    first, second = rng.integers(0, 6, 40), rng.integers(0, 5, 30)
    pairs = [(a > b) + 0.5 * (a == b) for a in first for b in second]
    assert auroc(first, second) == pytest.approx(sum(pairs) / len(pairs))


def test_the_conformal_threshold_keeps_its_rate(rng: np.random.Generator) -> None:
    rates = [(rng.normal(size=200) > conformal_threshold(rng.normal(size=99), 0.1)).mean() for _ in range(400)]
    # The mean over draws of the threshold is at most the rate, and near it.
    assert 0.09 < np.mean(rates) < 0.105
    assert conformal_threshold(rng.normal(size=5), 0.1) == math.inf


def test_absence_is_measured_across_halves() -> None:
    uris = [f"{number}.jpg" for number in range(200)]
    signs = ExistenceSigns()
    for number in range(200):
        signs.pictures.append(number)
        signs.there.append(1.0 + number % 2)
        signs.strange.append(0.0)
    found = measure_existence(signs, uris)
    assert (found.auroc, found.kept.tolist(), found.false_links.tolist()) == (1, [1] * 3, [0] * 3)
    assert len(FALSE_LINKS) == 3
    assert {file_half(uri) for uri in uris} == {0, 1}
    assert file_half("/a/b/7.jpg") == file_half("c\\7.jpg")
    signs.pictures = [number for number in range(200) if file_half(uris[number]) == 0]
    signs.there, signs.strange = [1.0] * len(signs.pictures), [0.0] * len(signs.pictures)
    with pytest.raises(InputError, match="two halves"):
        measure_existence(signs, uris)


@pytest.mark.parametrize(
    ("phrases", "told"),
    [
        ('"a dog"', "a list"),
        ('[{"phrase": "a dog"}]', "box"),
        ('[{"phrase": " ", "box": [0, 0, 1, 1]}]', "phrase"),
        ('[{"phrase": "a dog", "box": [0, 0, -1, 1]}]', "above 0"),
        ('[{"phrase": "a dog", "box": [0, 0, 1]}]', "shape"),
        ('[{"phrase": "a dog", "box": [0, 0, 1, "x"]}]', "m.jsonl:1"),
        ('[{"phrase": "a dog", "box": [0, 0, 1, 1]}], "captions": "x"', "captions"),
    ],
)
def test_lines_that_are_not_as_described(tmp_path: Path, phrases: str, told: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(f'{{"image": "a.png", "phrases": {phrases}}}\n')
    with pytest.raises(SourceError, match=told):
        read_phrases(path)


def test_what_cannot_be_measured(manifest: Path) -> None:
    with pytest.raises(InputError, match="no split"):
        evaluate_grounding(manifest, split="nope", encoder=PlantedAligner(knowing))
    with pytest.raises(InputError, match="unknown solver"):
        evaluate_grounding(manifest, solver="magic", encoder=PlantedAligner(knowing))  # type: ignore[arg-type]
    for number in range(3):
        (manifest.parent / f"{number:03}.png").unlink()
    with pytest.raises(InputError, match="none of the 3 pictures"):
        evaluate_grounding(manifest, encoder=PlantedAligner(knowing))
    (manifest.parent / "empty.jsonl").write_text('{"image": "a.png", "captions": ["a"]}\n')
    with pytest.raises(InputError, match="phrases"):
        read_phrases(manifest.parent / "empty.jsonl")


def test_the_command(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (manifest.parent / "002.png").write_bytes(b"no picture")

    class Made(PlantedAligner):
        def __init__(self, encoder: str, *, head: str) -> None:
            assert (encoder, head) == ("lite", "auto")
            super().__init__(knowing)

    monkeypatch.setattr(grounding, "Aligner", Made)
    words = ["eval", "align", "--manifest", str(manifest)]
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    for name in ("n_images", "n_phrases", "r@1", "r@5", "r@10", "pointing", "r@1_merged", "trivial", "by_solver"):
        assert name in told
    assert [Path(skip["uri"]).name for skip in told["skipped"]] == ["002.png"]
    printed = CliRunner().invoke(app, words)
    assert "002.png" in printed.stderr
    assert "4 phrases of 2 pictures" in printed.stdout
    assert "argmax" in printed.stdout
