"""The command `mmalign align`: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mmalign.cli.aligning import in_words, parse_box, parse_relation
from mmalign.encoders.registry import load_encoder
from mmalign.errors import InputError
from mmalign.types import Box, Relation
from tests.cli.conftest import Run
from tests.tools.color_encoder import COLORS, ColorEncoder

LEFT, RIGHT, BLUE = (10, 40, 30, 30), (120, 40, 30, 30), (65, 40, 30, 30)
BOXES = [word for box in (LEFT, RIGHT, BLUE) for word in ("--box", ",".join(map(str, box)))]


@pytest.fixture
def run(run: Run, tmp_path: Path, encoder: ColorEncoder, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in a folder with a picture of two red squares and a blue one between them."""
    picture = Image.new("RGB", (160, 120), COLORS["white"])
    for color, (x, y, width, height) in (("red", LEFT), ("red", RIGHT), ("blue", BLUE)):
        picture.paste(COLORS[color], (x, y, x + width, y + height))
    picture.save(tmp_path / "squares.png")
    monkeypatch.setattr(
        "mmalign.alignment.aligner.load_encoder",
        lambda spec, **rest: encoder if spec == "lite" else load_encoder(spec, **rest),
    )
    return partial(run, "align")


def linked(told: dict[str, Any]) -> list[list[float] | None]:
    boxes: list[list[float] | None] = [None] * len(told["phrases"])
    for link in told["links"]:
        boxes[link["phrase"]] = told["regions"][link["region"]]["box"]
    return boxes


def test_a_table_of_phrases_and_boxes(run: Run) -> None:
    done = run("squares.png", "a red square left of a blue square", "--parser", "rules", *BOXES)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].split() == ["phrase", "where", "pixels", "score", "probability", "there"]
    assert lines[1].split()[:5] == ["1", "a", "red", "square", "left"]
    assert "10, 40, 30 x 30" in lines[1]
    assert "%" in lines[1]
    assert lines[2].split()[:5] == ["2", "a", "blue", "square", "middle"]
    assert "65, 40, 30 x 30" in lines[2]
    assert lines[3].startswith("2 of 2 phrases found in ")
    assert max(map(len, lines)) <= 80
    assert done.err == ""


def test_json_holds_all(run: Run) -> None:
    done = run("squares.png", "a red square right of a blue square", "--json", "--explain", "--parser", "rules", *BOXES)
    told = json.loads(done.out)
    assert done.code == 0
    assert linked(told) == [list(RIGHT), list(BLUE)]
    assert told["relations"][0]["kind"] == "right of"
    assert [each["phrase"] for each in told["explanations"]] == [0, 1]
    assert sum(each["total"] for each in told["explanations"]) == pytest.approx(told["objective"], abs=1e-6)
    assert set(told["seconds"]) == {"decode", "parse", "propose", "encode", "score", "solve"}


def test_explain_says_why_in_words(run: Run) -> None:
    done = run("squares.png", "a red square left of a blue square", "--explain", "--parser", "rules", *BOXES)
    assert "'a red square' left of 'a blue square' adds" in done.out
    assert "the whole alignment would lose" in done.out
    assert "\n1. 'a red square' is matched to the place at 10, 40 (30 x 30 pixels).\n" in done.out
    assert "\n2. 'a blue square' is matched to the place at 65, 40 (30 x 30 pixels).\n" in done.out
    assert "region" not in done.out


def test_own_phrases_and_relations(run: Run) -> None:
    done = run("squares.png", "", "--phrase", "red", "--phrase", "blue", "--relation", "1 right of 2", "--json", *BOXES)
    assert done.code == 0, done.err
    assert linked(json.loads(done.out)) == [list(RIGHT), list(BLUE)]


def test_a_drawing_is_written_where_it_is_asked_for(run: Run, tmp_path: Path) -> None:
    done = run("squares.png", "a red square", "-o", "new/drawn.png", "--parser", "rules", *BOXES)
    assert done.code == 0
    assert done.err == "wrote new/drawn.png\n"
    with Image.open(tmp_path / "new" / "drawn.png") as drawn:
        assert drawn.width > 160


def test_what_is_not_there_is_unmatched_and_notes_are_said(run: Run) -> None:
    done = run("squares.png", "running", "--parser", "rules")
    assert done.code == 0
    assert "note: " in done.err
    assert done.out == "nothing to look for\n"


def test_argmax_is_taken_at_its_word(run: Run) -> None:
    done = run(
        "squares.png", "a red square", "--solver", "argmax", "--encoder", "lite", "--head", "none", "--json", *BOXES
    )
    assert json.loads(done.out)["solver"] == "argmax"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.png", "a dog"], "none.png"),
        (["squares.png", " "], "empty"),
        (["squares.png", "a dog", "-o", "drawn.gif"], "a drawing is a .jpeg, .jpg, .png, .webp file, got 'drawn.gif'"),
        (["squares.png", "a dog", "--box", "1,2,3"], "X,Y,WIDTH,HEIGHT"),
        (["squares.png", "a dog", "--box", "500,2,3,3"], "outside the picture"),
        (["squares.png", "a dog", "--box", "5,2,3,3", "--regions", "torchvision:x"], "give one of them"),
        (["squares.png", "a dog", "--regions", "yolo"], "got 'yolo'"),
        (["squares.png", "a dog", "--solver", "magic"], "argmax, hungarian, graph"),
        (["squares.png", "a dog", "--relation", "dog on cat"], "1 left of 2"),
        (["squares.png", "a dog", "--relation", "1 on 9"], "names phrase 9; the phrases are: 1 'a dog'"),
        (["squares.png", "a dog", "--relation", "0 on 1"], "numbered from 1"),
        (["squares.png", "a dog", "--encoder", "lit"], "near: lite"),
        (["squares.png", "a dog", "--parser", "nltk"], "nltk"),
        (["squares.png", "a dog", "--head", "big"], "auto or none"),
    ],
)
def test_bad_input_ends_with_one_clear_text(run: Run, words: list[str], message: str) -> None:
    done = run(*words)
    # What is not there ends with 1, what means nothing with 2.
    assert done.code == (1 if words[0] == "none.png" else 2)
    assert done.out == ""
    assert done.err.startswith("error: ")
    assert message in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1 left of 2", Relation(0, (1,), "left of")),
        (" 3  between 1 and  2 ", Relation(2, (0, 1), "between")),
        ("11 on 4", Relation(10, (3,), "on")),
    ],
)
def test_relations_are_read(text: str, wanted: Relation) -> None:
    assert parse_relation(text) == wanted


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (Box(0, 0, 30, 30), "top left"),
        (Box(140, 0, 20, 20), "top right"),
        (Box(60, 40, 40, 40), "middle"),
        (Box(60, 100, 40, 20), "bottom"),
        (Box(0, 50, 20, 20), "left"),
        (Box(1, 1, 158, 118), "nearly all of it"),
    ],
)
def test_where_a_box_is_in_words(box: Box, words: str) -> None:
    assert in_words(box, (160, 120)) == words


def test_boxes_are_read() -> None:
    assert parse_box("1,2.5,30,4") == Box(1, 2.5, 30, 4)
    with pytest.raises(InputError, match="above 0"):
        parse_box("1,2,0,4")


def test_help_teaches_with_an_example() -> None:
    run = subprocess.run([sys.executable, "-m", "mmalign.cli", "align", "--help"], capture_output=True, text=True)
    assert run.returncode == 0
    assert 'mmalign align street.jpg "a dog left of a red bicycle" -o aligned.png' in run.stdout


def test_explanations_keep_to_the_width_of_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    words = ("squares.png", "a red square left of a blue square", "--explain", "--parser", "rules", *BOXES)
    told = json.loads(run(*words, "--json").out)["explanations"]
    assert max(len(line) for each in told for line in each["text"].splitlines()) > 80
    lines = run(*words).out.splitlines()
    assert max(map(len, lines)) <= 80
    printed = " ".join(" ".join(lines).split())
    for each in told:
        assert f"{each['phrase'] + 1}. {' '.join(each['text'].split())}" in printed


def test_a_place_that_cannot_be_drawn_to_is_told_before_anything_is_computed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*args: Any, **options: Any) -> None:
        raise AssertionError("it has begun")

    monkeypatch.setattr("mmalign.alignment.Aligner", computed)
    (tmp_path / "folder.png").mkdir()
    done = run("squares.png", "a red square", "-o", "folder.png")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: 'folder.png' is a folder; name the file that the drawing goes to\n"
    (tmp_path / "file").write_text("no folder")
    done = run("squares.png", "a red square", "-o", "file/drawing.png")
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.endswith(": file\n")
