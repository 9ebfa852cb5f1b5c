"""Drawn alignments: nothing covers anything else, everything can be told apart, and nothing is too odd to draw."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw

from mmalign.alignment.build import build_alignment
from mmalign.alignment.drawing.draw import draw_alignment, plan_drawing
from mmalign.alignment.drawing.labels import LabelPlacement, LabelRequest, Rectangle, place_labels
from mmalign.alignment.drawing.palette import COLOURS, INK, font_for, style_of
from mmalign.alignment.drawing.sentence import wrapped_runs
from mmalign.alignment.result import Alignment
from mmalign.matching.build import Matching, build_problem
from mmalign.matching.solvers import solve
from mmalign.parsing.phrases import given_phrases
from mmalign.types import Box, Phrase, Region


def aligned(
    sentence: str,
    phrases: Sequence[str | Phrase],
    boxes: Sequence[Sequence[float]],
    *,
    at: Sequence[int | None],
    heat: bool = True,
) -> Alignment:
    """An alignment in which each phrase has got the box that is asked for, or none."""
    parsed = given_phrases(sentence, phrases)
    scores = np.zeros((len(phrases), len(boxes)))
    there = np.full(len(phrases), 0.001)
    for i, j in enumerate(at):
        if j is not None:
            scores[i, j], there[i] = 50.0, 0.999
    regions = [Region(Box(*box)) for box in boxes]
    problem = build_problem(
        scores, parsed.phrases, (), [region.box for region in regions], existence=there,
        matching=Matching(temperature=1.0, sharing=0.0),
    )  # fmt: skip
    rng = np.random.default_rng(len(phrases))
    maps = rng.random((len(phrases), 6, 8)).astype(np.float32) if heat else None
    return build_alignment(parsed, regions, problem, solve(problem, solver="argmax"), notes=(), heat=maps)


def assert_apart(placed: Sequence[LabelPlacement | None], width: float, height: float) -> int:
    """No two overlap, all are inside; returns how many there are."""
    places = [each.place for each in placed if each is not None]
    for i, one in enumerate(places):
        assert one.left >= 0
        assert one.top >= 0
        assert one.right <= width
        assert one.bottom <= height
        for other in places[i + 1 :]:
            assert (
                one.right <= other.left or other.right <= one.left or one.bottom <= other.top or other.bottom <= one.top
            )
    return len(places)


@pytest.mark.parametrize("count", [1, 6, 25])
@pytest.mark.parametrize("size", [(300, 200), (1000, 700), (2000, 80)])
def test_no_two_labels_overlap(rng: np.random.Generator, size: tuple[int, int], count: int) -> None:
    width, height = size
    for _ in range(8):
        corners = np.sort(rng.random((count, 2, 2)), axis=1) * [width, height]
        wanted = [
            LabelRequest(Rectangle(*low, *(high + 1)), ((float(rng.integers(40, 160)), 22.0), (18.0, 22.0)))
            for low, high in corners
        ]
        assert assert_apart(place_labels(wanted, width, height), width, height) == count


def test_labels_of_one_and_the_same_box_are_apart() -> None:
    wanted = [LabelRequest(Rectangle(10, 10, 60, 60), ((80.0, 20.0), (16.0, 20.0)))] * 12
    assert assert_apart(place_labels(wanted, 240, 160), 240, 160) == 12


def test_a_label_goes_beside_its_box_and_not_over_another_thing() -> None:
    boxes = [Rectangle(100, 100, 200, 200), Rectangle(100, 60, 200, 98)]
    found = place_labels([LabelRequest(box, ((60.0, 20.0),)) for box in boxes], 400, 300)
    assert found[0] is not None
    assert not found[0].far
    assert found[0].place.common(boxes[1]) == 0
    assert found[0].place.distance(boxes[0]) == 0


def test_a_full_picture_takes_the_short_label_or_none() -> None:
    tiny = place_labels([LabelRequest(Rectangle(0, 0, 30, 20), ((90.0, 20.0), (15.0, 20.0)))] * 3, 30, 20)
    assert [each is not None and each.size for each in tiny].count(1) == 1
    assert tiny.count(None) == 2
    assert place_labels([LabelRequest(Rectangle(0, 0, 5, 5), ((20.0, 20.0),))], 5, 5) == [None]


def test_a_far_label_says_so() -> None:
    crowd = [LabelRequest(Rectangle(0, 0, 20, 20), ((30.0, 20.0),)) for _ in range(9)]
    found = place_labels(crowd, 120, 120)
    assert assert_apart(found, 120, 120) == 9
    assert any(each is not None and each.far for each in found)


SENTENCE = "A brown dog on a skateboard left of two women and a bench near the fountain ."
PHRASES = ["A brown dog", "a skateboard", "two women", "a bench", "the fountain"]
BOXES = [[20, 60, 90, 90], [10, 140, 120, 30], [150, 20, 80, 140], [150, 20, 82, 141], [0, 0, 320, 240]]


@pytest.mark.parametrize("size", [(300, 225), (500, 375), (1280, 960), (3000, 2250)])
def test_a_drawing_of_any_size(size: tuple[int, int]) -> None:
    scale = size[0] / 320
    boxes = [[value * scale for value in box] for box in BOXES]
    found = aligned(SENTENCE, PHRASES, boxes, at=[0, 1, 2, 3, None])
    picture = Image.effect_noise(size, 60).convert("RGB")

    layout = plan_drawing(found, size)

    assert 800 <= max(layout.size) <= 2000
    assert layout.size[0] / layout.size[1] == pytest.approx(size[0] / size[1], rel=0.01)
    assert assert_apart([placed for _, placed, _ in layout.labels], *layout.size) == 4
    drawn = found.draw(picture)
    assert drawn.mode == "RGB"
    assert drawn.width > layout.size[0]
    assert drawn.height > layout.size[1] + 4 * layout.text
    for phrase in range(4):
        assert_drawn(drawn, layout.styles[phrase].colour)
    assert_not_drawn(drawn, layout.styles[4].colour)
    assert picture.size == size, "the picture is left as it was"


def assert_drawn(drawn: Image.Image, colour: tuple[int, int, int]) -> None:
    assert (np.asarray(drawn) == colour).all(axis=2).sum() > 200


def assert_not_drawn(drawn: Image.Image, colour: tuple[int, int, int]) -> None:
    # A speckle of the noise may have any colour.
    assert (np.asarray(drawn) == colour).all(axis=2).sum() < 50


def test_heat_can_be_left_out_and_changes_the_picture_where_it_is() -> None:
    found = aligned("a dog", ["a dog"], [[100, 50, 40, 40]], at=[0])
    peaked = np.zeros((1, 4, 4), np.float32)
    peaked[0, 3, 0] = 1.0
    object.__setattr__(found, "heat", peaked)
    picture = Image.new("RGB", (200, 200), (120, 120, 120))
    plain, heated = draw_alignment(found, picture, heat=False), draw_alignment(found, picture)
    box = ImageChops.difference(plain, heated).crop((0, 0, *heated.size)).getbbox()
    layout = plan_drawing(found, picture.size)
    assert box is not None
    # The lowest and leftmost cell, and what the smoothing spreads.
    upper = ImageChops.difference(plain, heated).crop((0, 0, heated.width, layout.size[1] // 2)).getbbox()
    assert upper is None


def test_styles_differ_in_more_than_colour() -> None:
    styles = [style_of(index) for index in range(28)]
    assert len({(style.colour, style.dashes) for style in styles}) == 28
    assert len({style.number for style in styles}) == 28
    for one, other in itertools.pairwise(styles):
        assert one.colour != other.colour
        assert one.dashes != other.dashes


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """WCAG 2.1."""
    lights = []
    for colour in (one, other):
        parts = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        lights.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_labels_can_be_read() -> None:
    for index in range(len(COLOURS)):
        style = style_of(index)
        assert contrast(style.colour, style.ink) >= 4.5


# Machado, Oliveira and Fernandes, 2009, severity 1: linear RGB as it is seen without red, green and blue cones.
SEEN = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("kind", SEEN)
def test_neighbouring_colours_differ_to_every_eye(kind: str) -> None:
    linear = (np.array(COLOURS) / 255) ** 2.2
    seen = np.clip(linear @ np.array(SEEN[kind]).T, 0, 1) ** (1 / 2.2) * 255
    for index in range(len(seen)):
        assert np.linalg.norm(seen[index] - seen[(index + 1) % len(seen)]) > 40


def test_the_sentence_is_told_in_full_and_in_order() -> None:
    found = aligned(SENTENCE, PHRASES, BOXES, at=[0, 1, 2, 3, None])
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    for width in (90, 300, 3000):
        lines = list(wrapped_runs(found, width, font_for(16), measure, [12] * 5))
        assert " ".join("".join(run.text for run in line) for line in lines) == SENTENCE
        firsts = [run.phrase for line in lines for run in line if run.first]
        assert firsts == [0, 1, 2, 3, 4]
        for index, phrase in enumerate(PHRASES):
            told = "".join(run.text for line in lines for run in line if run.phrase == index)
            assert told.replace(" ", "") == phrase.replace(" ", "")
    assert len(list(wrapped_runs(found, 3000, font_for(16), measure, [12] * 5))) == 1


def test_a_phrase_inside_another_is_seen() -> None:
    outer, inner = Phrase("a man in a hat", 0, 14), Phrase("a hat", 9, 14)
    found = aligned("a man in a hat", [outer, inner], [[0, 0, 10, 10]], at=[0, 0])
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    (line,) = wrapped_runs(found, 900, font_for(16), measure, [12, 12])
    assert [(run.text, run.phrase) for run in line if run.phrase >= 0 and run.text.strip()] == [
        ("a", 0), ("man", 0), ("in", 0), ("a", 1), ("hat", 1),
    ]  # fmt: skip


def test_a_pronoun_shares_its_phrase_s_colour_and_is_not_written_twice() -> None:
    dog, it = Phrase("a dog", 0, 5), Phrase("it", 10, 12, antecedent=0)
    found = aligned("a dog and it", [dog, it, "a cat"], [[0, 0, 50, 50], [60, 60, 30, 30]], at=[0, 0, 1])
    layout = plan_drawing(found, (100, 100))
    assert [style.number for style in layout.styles] == [1, 1, 2]
    assert [texts[1] for _, _, texts in layout.labels] == ["1", "2"]


@pytest.mark.parametrize(
    ("sentence", "phrases", "boxes", "at"),
    [
        ("", [], [], []),
        ("running", [], [], []),
        ("a dog", ["a dog"], [], [None]),
        ("一只狗在自行车旁边", ["狗", "自行车"], [[0, 0, 40, 40], [20, 20, 40, 40]], [0, 1]),
        ("a " * 199 + "dog", ["dog"], [[0, 0, 5, 5]], [0]),
        ("word" * 200, ["word" * 200], [[0, 0, 5, 5]], [0]),
        (" ".join(f"thing{n}" for n in range(40)), [f"thing{n}" for n in range(40)],
         [[n, n, 30, 30] for n in range(40)], list(range(40))),
    ],
    ids=["nothing", "no phrases", "no regions", "chinese", "long sentence", "long word", "40 phrases"],
)  # fmt: skip
@pytest.mark.parametrize("size", [(1, 1), (2000, 3)])
def test_odd_input_can_be_drawn(
    sentence: str, phrases: list[str], boxes: list[list[float]], at: list[int | None], size: tuple[int, int]
) -> None:
    found = aligned(sentence, phrases, boxes, at=at)
    drawn = found.draw(Image.new("RGBA", size, (10, 20, 30, 128)))
    layout = plan_drawing(found, size)
    assert_apart([placed for _, placed, _ in layout.labels], *layout.size)
    assert drawn.mode == "RGB"
    assert drawn.width <= 2100
    assert len(phrases) < 2 or (np.asarray(drawn) == INK).all(axis=2).any()


def test_boxes_beyond_the_picture_are_drawn_inside_it() -> None:
    found = aligned("a dog", ["a dog"], [[-50, -50, 400, 400]], at=[0])
    assert_drawn(found.draw(Image.new("RGB", (100, 100))), COLOURS[0])
