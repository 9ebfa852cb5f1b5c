"""The whole way from a picture and a sentence to boxes, with encoders whose answers are known."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmalign
from mmalign.alignment.aligner import Aligner, align, normalise_heat, referent_texts
from mmalign.alignment.scores import detector_bonus
from mmalign.errors import DecodeError, DimensionError, InputError
from mmalign.grounding.zero_shot import ground_plainly
from mmalign.matching.build import Matching
from mmalign.parsing import spacy_parser as spacy_phrases
from mmalign.types import Box, Phrase, Region, Relation
from tests.tools.color_encoder import COLORS, ColorEncoder


class PatchEncoder(ColorEncoder):
    """The same with places: a cell's embedding is that of its part of the picture."""

    name = "color-patches@1"
    cells = (6, 8)

    has_patches = True

    def encode_patches(self, image: Image.Image) -> np.ndarray:
        rows, columns = self.cells
        across, down = image.width / columns, image.height / rows
        parts = [
            image.crop((round(x * across), round(y * down), round((x + 1) * across), round((y + 1) * down)))
            for y in range(rows)
            for x in range(columns)
        ]
        return self.encode_image(parts).reshape(rows, columns, -1)


def scene(*things: tuple[str, tuple[int, int, int, int]], size: tuple[int, int] = (160, 120)) -> Image.Image:
    """Rectangles of a colour on white."""
    picture = Image.new("RGB", size, COLORS["white"])
    for color, (x, y, width, height) in things:
        picture.paste(COLORS[color], (x, y, x + width, y + height))
    return picture


RED, BLUE, GREEN = (20, 20, 40, 40), (100, 20, 40, 40), (60, 80, 40, 20)
SCENE = scene(("red", RED), ("blue", BLUE), ("green", GREEN))


def box_of(found: mmalign.Alignment, phrase: int) -> tuple[float, ...] | None:
    links = [link for link in found.links if link.phrase == phrase]
    return tuple(found.regions[links[0].region].box.to_list()) if links else None


@pytest.fixture(params=[ColorEncoder, PatchEncoder], ids=["crops", "places"])
def aligner(request: pytest.FixtureRequest) -> Aligner:
    return Aligner(request.param(), parser="rules")


@pytest.mark.parametrize("solver", ["argmax", "hungarian", "graph"])
def test_given_boxes_go_to_their_phrases(aligner: Aligner, solver: Any) -> None:
    found = aligner.align(
        SCENE, "a red square and a blue square above a green square", solver=solver, regions=[BLUE, GREEN, RED]
    )
    assert [phrase.text for phrase in found.phrases] == ["a red square", "a blue square", "a green square"]
    assert [box_of(found, index) for index in range(3)] == [RED, BLUE, GREEN]
    assert found.unmatched_phrases == ()
    assert found.solver == solver
    assert found.matrix.shape == (3, 3)
    assert found.matrix.argmax(axis=1).tolist() == [2, 0, 1]


def test_every_stage_is_timed_and_told(aligner: Aligner) -> None:
    found = aligner.align(SCENE, "a red square", regions=[RED, BLUE])
    assert found.seconds.keys() == {"decode", "parse", "propose", "encode", "score", "solve"}
    assert all(seconds >= 0 for seconds in found.seconds.values())
    told = json.loads(json.dumps(found.to_dict()))
    assert told["seconds"] == pytest.approx(dict(found.seconds))
    assert told["existence"] is None
    assert told["regions"][told["links"][0]["region"]]["box"] == list(RED)


def test_proposals_come_near_what_is_there(aligner: Aligner) -> None:
    picture = scene(("red", (30, 30, 120, 90)), ("blue", (200, 120, 90, 90)), size=(320, 240))
    found = aligner.align(picture, "a red square and a blue square")
    for index, (x, y, width, height) in enumerate([(30, 30, 120, 90), (200, 120, 90, 90)]):
        got = Box(*box_of(found, index) or ())
        common = max(min(got.corners[2], x + width) - max(got.x, x), 0) * max(
            min(got.corners[3], y + height) - max(got.y, y), 0
        )
        assert common / (got.area + width * height - common) >= 0.5
    assert len({region.box for region in found.regions}) == len(found.regions)


def test_relations_decide_between_things_that_look_alike() -> None:
    left, right, blue = (10, 40, 30, 30), (120, 40, 30, 30), (65, 40, 30, 30)
    picture = scene(("red", left), ("red", right), ("blue", blue))
    aligner = Aligner(ColorEncoder(), parser="rules")
    for words, wanted in (("left of", left), ("right of", right)):
        found = aligner.align(picture, f"a red square {words} a blue square", regions=[left, right, blue])
        assert box_of(found, 0) == wanted
        assert box_of(found, 1) == blue
        assert found.relations[0].kind == words
    told = aligner.align(
        picture, "", regions=[left, right, blue], phrases=["red", "blue"], relations=[Relation(0, (1,), "right of")]
    )
    assert box_of(told, 0) == right
    # What the caller says counts in the place of what the sentence says.
    other = aligner.align(
        picture, "a red square left of a blue square", regions=[left, right, blue],
        relations=[Relation(0, (1,), "right of")],
    )  # fmt: skip
    assert box_of(other, 0) == right


def test_the_heat_is_where_the_thing_is() -> None:
    heat = Aligner(PatchEncoder()).heat(SCENE, ["red", "blue", "green"])
    assert heat.shape == (3, 6, 8)
    assert heat.dtype == np.float32
    for index, (x, y, width, height) in enumerate([RED, BLUE, GREEN]):
        row, column = np.unravel_index(heat[index].argmax(), (6, 8))
        assert x <= (column + 0.5) * 20 <= x + width
        assert y <= (row + 0.5) * 20 <= y + height


def test_without_places_the_heat_is_painted_from_regions() -> None:
    picture = scene(("red", (30, 30, 120, 90)), size=(320, 240))
    heat = Aligner(ColorEncoder()).heat(picture, ["red"])
    assert heat.shape == (1, 18, 18)
    row, column = np.unravel_index(heat[0].argmax(), (18, 18))
    assert 30 <= (column + 0.5) * 320 / 18 <= 150
    assert 30 <= (row + 0.5) * 240 / 18 <= 120


def test_similarity_is_a_row_for_each_phrase(aligner: Aligner) -> None:
    scores = aligner.similarity(SCENE, ["red", "blue"], [RED, BLUE, GREEN])
    assert scores.shape == (2, 3)
    assert scores.argmax(axis=1).tolist() == [0, 1]
    found = aligner.score_phrases(SCENE, ["red", "blue"], regions=[RED, BLUE, GREEN])
    assert np.array_equal(found.similarity, scores)
    assert found.existence is None
    assert [region.box.to_list() for region in found.regions] == [list(box) for box in (RED, BLUE, GREEN)]


def test_plain_scores_are_standard_deviations() -> None:
    """The formula, written out: cosines with crops, less their mean, over their spread."""
    encoder = ColorEncoder()
    boxes = [Box(*RED), Box(*BLUE), Box(*GREEN), Box(0, 0, 160, 120)]
    found = ground_plainly(encoder, SCENE, ["red"]).score(boxes)[0]
    crops = [SCENE.crop(tuple(int(edge) for edge in box.corners)) for box in boxes]  # type: ignore[arg-type]
    cosines = [float(encoder.encode_text(["red"])[0] @ row) for row in encoder.encode_image(crops)]
    mean = sum(cosines) / 4
    spread = (sum((value - mean) ** 2 for value in cosines) / 4) ** 0.5
    np.testing.assert_allclose(found, [(value - mean) / spread for value in cosines], rtol=1e-5)


def test_many_pictures_give_what_each_gives_alone(tmp_path: Path) -> None:
    SCENE.save(tmp_path / "one.png")
    aligner = Aligner(PatchEncoder(), parser="rules")
    pairs: list[tuple[Any, str]] = [(SCENE, "a red square"), (tmp_path / "one.png", "a blue square")]
    together = aligner.align_many(pairs, progress=False)
    assert aligner.align_many([], progress=False) == []
    for found, (picture, sentence) in zip(together, pairs, strict=True):
        alone = aligner.align(picture, sentence)
        assert found.to_dict() | {"seconds": None} == alone.to_dict() | {"seconds": None}


def test_the_function_does_what_the_class_does() -> None:
    found = align(SCENE, "a red square", encoder=PatchEncoder(), regions=[RED, BLUE], parser="rules", solver="argmax")
    assert isinstance(found, mmalign.Alignment)
    assert box_of(found, 0) == RED
    assert mmalign.align is align


def test_the_probability_of_a_place_is_that_of_all_regions_there() -> None:
    near = (22, 20, 40, 40)
    found = Aligner(ColorEncoder(), parser="rules").align(SCENE, "a red square", regions=[RED, near, BLUE])
    (link,) = found.links
    assert found.probability(link) == pytest.approx(found.matrix[0, 0] + found.matrix[0, 1])
    assert found.probability(link) > link.score
    assert found.to_dict()["links"][0]["probability"] == found.probability(link)


def test_a_pronoun_is_looked_for_as_what_it_stands_for() -> None:
    dog, it, again, hers = (
        Phrase("a dog"), Phrase("it", antecedent=0), Phrase("the big dog", antecedent=0), Phrase("them", antecedent=1),
    )  # fmt: skip
    assert referent_texts([dog, it, again, hers]) == ["a dog", "a dog", "the big dog", "a dog"]
    loop = [Phrase("it", antecedent=1), Phrase("he", antecedent=0)]
    assert len(referent_texts(loop)) == 2


def test_what_a_detector_says_counts_for_the_phrases_that_hold_its_label() -> None:
    regions = [
        Region(Box(*RED), "detector", 0.9, "dog"),
        Region(Box(*BLUE), "detector", 0.5, "sports ball"),
        Region(Box(*GREEN)),
    ]
    said = detector_bonus(regions, ["a brown Dog", "two dogs", "a hotdog", "a sports ball"])
    odds = [np.log(9) + 3, 3.0]
    np.testing.assert_allclose(said, [[odds[0], 0, 0], [odds[0], 0, 0], [0, 0, 0], [0, odds[1], 0]], atol=1e-5)
    assert detector_bonus([Region(Box(*RED), "detector", 0.01, "dog")], ["a dog"]).tolist() == [[0.0]]


class Detector:
    """Finds one thing, whatever it is asked."""

    name, open_vocabulary = "torchvision:fake", True
    asked: list[str]

    def detect(self, image: Image.Image, phrases: Any = (), **_: Any) -> tuple[Region, ...]:
        self.asked = list(phrases)
        return (
            Region(Box(*BLUE), "detector", 0.8, "a blue square"),
            Region(Box(*RED), "detector", 0.7, "a red square"),
        )


def test_a_detector_proposes_and_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def load(spec: str, *, device: str | None = None) -> Detector:
        made.append(spec)
        return detector

    detector = Detector()
    monkeypatch.setattr("mmalign.regions.load_detector", load)
    aligner = Aligner(PatchEncoder(), parser="rules")
    for _ in range(2):
        found = aligner.align(SCENE, "a red square and a blue square", regions="torchvision:fake")
        assert [box_of(found, index) for index in range(2)] == [RED, BLUE]
    assert made == ["torchvision:fake"]
    assert detector.asked == ["a red square", "a blue square"]
    assert aligner.align(SCENE, "x", phrases=[], regions="torchvision:fake").regions == ()


def test_without_scikit_image_usual_boxes_are_proposed_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.split(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "skimage", None)
    found = Aligner(PatchEncoder(), parser="rules").align(SCENE, "a red square")
    assert {region.source for region in found.regions} <= {"usual", "peak"}
    assert any("mmalign[regions]" in note for note in found.notes)


def test_without_spacy_the_rules_find_the_phrases_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    spacy_phrases._load.cache_clear()
    for module in [name for name in sys.modules if name.split(".")[0] == "spacy"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "spacy", None)
    found = Aligner(ColorEncoder()).align(SCENE, "a red square left of a blue square", regions=[RED, BLUE])
    assert [phrase.text for phrase in found.phrases] == ["a red square", "a blue square"]
    assert any("by rules" in note and "mmalign[phrases]" in note for note in found.notes)


@pytest.mark.parametrize("encoder", [ColorEncoder, PatchEncoder])
@pytest.mark.parametrize("size", [(1, 1), (2, 300), (400, 3)])
def test_pictures_of_any_shape(encoder: Callable[[], ColorEncoder], size: tuple[int, int]) -> None:
    found = Aligner(encoder(), parser="rules").align(Image.new("RGBA", size, (255, 0, 0, 255)), "a red square")
    assert len(found.matrix) == 1
    assert np.isfinite(found.matrix).all()
    assert found.draw(Image.new("RGB", size)).width > 500


def test_a_sentence_that_names_nothing_says_so(aligner: Aligner) -> None:
    found = aligner.align(SCENE, "running", phrases=[])
    assert found.links == found.phrases == ()
    assert found.matrix.shape[0] == 0
    assert "phrases of your own" in found.notes[-1]


def test_one_word(aligner: Aligner) -> None:
    found = aligner.align(SCENE, "red", phrases=["red"], regions=[RED, BLUE])
    assert box_of(found, 0) == RED


def test_two_hundred_words() -> None:
    words = " and ".join(["a red square", "a blue square"] * 29)
    assert len(words.split()) >= 200
    found = Aligner(PatchEncoder(), parser="rules").align(SCENE, words, regions=[RED, BLUE, GREEN])
    assert len(found.phrases) >= 58
    assert np.isfinite(found.objective)


def test_no_regions(aligner: Aligner) -> None:
    found = aligner.align(SCENE, "a red square", regions=[])
    assert found.unmatched_phrases == (0,)
    assert "no regions" in found.notes[-1]
    assert found.matrix.shape == (1, 0)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"regions": [[500, 10, 20, 20]]}, InputError, "outside the picture"),
        ({"regions": [[10, 10, -5, 20]]}, InputError, "width and height above 0"),
        ({"regions": [[10, 10, float("nan"), 20]]}, InputError, "width and height above 0"),
        ({"regions": [np.zeros((3, 3), bool)]}, DimensionError, "mask"),
        ({"regions": "yolo"}, InputError, "torchvision:NAME, hf:NAME or a list of boxes, got 'yolo'"),
        ({"solver": "magic"}, InputError, "argmax, hungarian, graph"),
        ({"relations": [Relation(0, (7,), "on")]}, InputError, "phrase 7"),
        ({"phrases": "a dog"}, InputError, "list"),
        ({"phrases": [" "]}, InputError, "empty"),
    ],
)
def test_bad_input_is_named(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Aligner(ColorEncoder(), parser="rules").align(SCENE, "a red square", **{"regions": [RED], **options})


def test_bad_sentences_pictures_and_encoders_are_named(tmp_path: Path) -> None:
    aligner = Aligner(ColorEncoder(), parser="rules")
    with pytest.raises(InputError, match="empty"):
        aligner.align(SCENE, "  ")
    with pytest.raises(DecodeError, match=r"none\.jpg"):
        aligner.align(tmp_path / "none.jpg", "a dog")
    with pytest.raises(InputError, match="list of texts"):
        aligner.heat(SCENE, "a dog")
    with pytest.raises(InputError, match="auto or none, got 'best'"):
        Aligner(ColorEncoder(), head="best")  # type: ignore[arg-type]
    words = ColorEncoder()
    words.modalities = frozenset({"text"})
    with pytest.raises(InputError, match="an encoder of both, color@1 has text"):
        Aligner(words)


class BrokenEncoder(ColorEncoder):
    def encode_text(self, texts: Any, **_: Any) -> np.ndarray:
        return np.full((len(texts), self.dim), np.nan, np.float32)


def test_similarities_that_are_no_numbers_are_named() -> None:
    with pytest.raises(InputError, match="NaN"):
        Aligner(BrokenEncoder(), parser="rules").align(SCENE, "a red square", regions=[RED, BLUE])


def test_maps_are_brought_to_one_for_drawing() -> None:
    maps = np.array([[[-2.0, 2.0]], [[3.0, 3.0]]], np.float32)
    assert normalise_heat(maps).tolist() == [[[0.0, 1.0]], [[0.0, 0.0]]]
    chances = np.array([[[0.1, 0.2]]], np.float32)
    assert normalise_heat(chances) is chances


def test_how_things_are_weighed_can_be_said(aligner: Aligner) -> None:
    vague = aligner.align(SCENE, "a red square", regions=[RED, BLUE], matching=Matching(temperature=100.0))
    sure = aligner.align(SCENE, "a red square", regions=[RED, BLUE], matching=Matching(temperature=0.1))
    assert vague.links[0].score < 0.6 < sure.links[0].score
