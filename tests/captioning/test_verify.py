from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mmalign.captioning.verify import AlignmentJudge, ground_caption, objective_of
from mmalign.types import Box, Caption, Phrase, Region

TEXT = "a dog on a zebra in the background"
PHRASES = (Phrase("a dog", 0, 5), Phrase("a zebra", 9, 16), Phrase("the background", 20, 34, abstract=True))
REGIONS = (Region(Box(0, 0, 5, 5)), Region(Box(2, 2, 4, 4)))


class FixedAligner:
    """Finds the dog twice, better the second time, and no zebra."""

    def align(self, picture: Any, sentence: str) -> Any:
        assert sentence == TEXT
        links = (SimpleNamespace(phrase=0, region=0, score=0.2), SimpleNamespace(phrase=0, region=1, score=0.7))
        return SimpleNamespace(phrases=PHRASES, regions=REGIONS, links=links, notes=("a note",), objective=-3.0)


def test_phrases_get_their_best_region_or_are_flagged() -> None:
    told = ground_caption(Caption(TEXT, 0.0, "decoder"), "x.jpg", FixedAligner())  # type: ignore[arg-type]
    dog, zebra = told.spans
    assert (dog.text, dog.region, dog.supported, dog.probability) == ("a dog", REGIONS[1], True, 0.7)
    assert TEXT[zebra.start : zebra.end] == "a zebra"
    assert told.unsupported == (zebra,)
    assert told.notes == ("a note",)
    assert told.to_dict()["spans"][1]["region"] is None


def test_a_caption_without_words_is_left_as_it_is() -> None:
    empty = Caption("", 0.0, "decoder")
    assert ground_caption(empty, "x.jpg", FixedAligner()) is empty  # type: ignore[arg-type]


def test_objective_is_by_phrase() -> None:
    assert objective_of(FixedAligner().align(None, TEXT)) == -1.0


class ScriptedAligner:
    """Knows the objective and the number of phrases of each sentence."""

    def __init__(self, known: dict[str, tuple[float, int]]) -> None:
        self.known, self.asked = known, list[str]()

    def align(self, picture: Any, sentence: str) -> Any:
        assert picture == "x.jpg"
        self.asked.append(sentence)
        objective, phrases = self.known[sentence]
        return SimpleNamespace(phrases=PHRASES[:1] * phrases, regions=(), links=(), notes=(), objective=objective)


def test_a_judge_tells_the_objective_a_phrase_and_aligns_once() -> None:
    aligner = ScriptedAligner({"a": (6.0, 3), "b": (-1.0, 2), "c": (5.0, 0)})
    judge = AlignmentJudge("x.jpg", aligner)  # type: ignore[arg-type]
    assert judge(["a", "b", "c", " "]) == [2.0, -0.5, 5.0, 0.0]
    assert judge(["b"]) == [-0.5]
    assert aligner.asked == ["a", "b", "c"]
    # What was aligned is not aligned again to ground it.
    told = ground_caption(Caption("b", 0.0, "decoder"), "x.jpg", aligner, found=judge.align("b"))  # type: ignore[arg-type]
    assert aligner.asked == ["a", "b", "c"]
    assert told.unsupported
