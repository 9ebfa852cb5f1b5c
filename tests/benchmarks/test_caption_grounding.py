"""The rates of flags: which phrases count as absent, and what is counted."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks.caption_grounding import THINGS, is_absent, measure, split_spans, swap
from mmalign.evaluation.manifest import read_manifest_rows
from mmalign.parsing.phrases import parse_sentence
from mmalign.types import Box, CaptionSpan, Region

CAPTIONS = [["A dog runs on the beach ."], ["A man throws a frisbee ."], ["A child holds a red balloon ."]]


@pytest.mark.parametrize(
    ("phrase", "said", "absent"),
    [
        ("a cow", "A dog runs .", True),
        ("two dogs", "A dog runs .", False),
        ("a bear", "Two wild toys .", False),
        ("an airplane", "A jet in the sky .", False),
        ("a woman", "A man runs .", False),
        ("a woman", "A dog runs .", True),
    ],
)
def test_absent(phrase: str, said: str, absent: bool) -> None:
    assert is_absent(phrase, [said]) is absent


def test_things_are_phrases() -> None:
    for thing in THINGS:
        assert [phrase.text for phrase in parse_sentence(f"I see {thing}", parser="rules").phrases][-1:] == [thing]


def test_swap_keeps_the_rest() -> None:
    span = CaptionSpan("A dog", 0, 5, "phrase")
    assert swap("A dog runs", span, "a cow") == ("A cow runs", 0, 5)
    at, rest = split_spans([span, CaptionSpan("the beach", 9, 18, "phrase")], 2, 7)
    assert ([one.text for one in at], [one.text for one in rest]) == (["A dog"], ["the beach"])


class _Oracle:
    """Finds exactly the phrases that the picture's own captions name."""

    def __init__(self, known: dict[int, str]) -> None:
        self._known = known

    def align(self, picture: Image.Image, sentence: str) -> SimpleNamespace:
        phrases = parse_sentence(sentence, parser="rules").phrases
        said = self._known[picture.getpixel((0, 0))[0]].lower()
        links = [SimpleNamespace(phrase=number, region=0, score=0.9)
                 for number, phrase in enumerate(phrases) if phrase.text.lower() in said]  # fmt: skip
        return SimpleNamespace(phrases=phrases, links=links, regions=[Region(Box(0, 0, 4, 4))])


def test_an_oracle_flags_what_was_swapped_and_nothing_else(tmp_path: Path) -> None:
    lines = []
    for number, own in enumerate(CAPTIONS):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "captions": own}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines))
    oracle = _Oracle({number: own[0] for number, own in enumerate(CAPTIONS)})
    figures = measure(oracle, read_manifest_rows(tmp_path / "manifest.jsonl"))  # type: ignore[arg-type]
    assert figures["left in place"]["phrases"] == 6
    assert figures["left in place"]["flagged, percent"] == 0
    for kind in ("phrase of another picture", "conspicuous thing"):
        assert figures[f"swapped for a {kind}"]["phrases"] == 3
        assert figures[f"swapped for a {kind}"]["flagged, percent"] == 100
        assert figures[f"beside a {kind}"]["flagged, percent"] == 0
