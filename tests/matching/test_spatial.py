from __future__ import annotations

import itertools

import numpy as np
import pytest

from mmalign.errors import InputError
from mmalign.matching.spatial import KINDS, mutual_iou, relation_scores, relation_strength, relation_weights
from mmalign.types import Box

# A person on a horse who wears a hat and holds a stick, a bird far up, and a small dog to the right on the ground.
PLACES = {
    "person": Box(100, 60, 40, 100),
    "horse": Box(60, 120, 130, 100),
    "hat": Box(108, 56, 24, 16),
    "stick": Box(136, 80, 20, 30),
    "bird": Box(110, 0, 15, 10),
    "dog": Box(260, 190, 40, 30),
    "tree": Box(330, 40, 60, 180),
}
NAMES = list(PLACES)
BOXES = list(PLACES.values())


def strength(kind: str, subject: str, other: str) -> float:
    return float(relation_strength(kind, BOXES)[NAMES.index(subject), NAMES.index(other)])


@pytest.mark.parametrize(
    ("kind", "subject", "other"),
    [
        ("left of", "horse", "dog"),
        ("right of", "tree", "dog"),
        ("above", "bird", "person"),
        ("below", "horse", "bird"),
        ("on", "person", "horse"),
        ("on", "hat", "person"),
        ("in", "hat", "person"),
        ("near", "hat", "person"),
        ("near", "stick", "person"),
        ("holding", "person", "stick"),
        ("wearing", "person", "hat"),
        ("bigger", "horse", "dog"),
        ("smaller", "bird", "tree"),
    ],
)
def test_what_is_so(kind: str, subject: str, other: str) -> None:
    assert strength(kind, subject, other) > 0.6
    if kind != "near":
        assert strength(kind, other, subject) < 0.5


@pytest.mark.parametrize(
    ("kind", "subject", "other"),
    [
        ("on", "horse", "person"),
        ("on", "dog", "horse"),
        ("on", "bird", "person"),
        ("in", "dog", "tree"),
        ("near", "bird", "dog"),
        ("holding", "person", "dog"),
        ("wearing", "person", "tree"),
        ("left of", "bird", "horse"),
        ("above", "dog", "tree"),
    ],
)
def test_what_is_not_so(kind: str, subject: str, other: str) -> None:
    assert strength(kind, subject, other) <= 0.5


def test_between_needs_both_sides() -> None:
    weights = relation_weights("between", BOXES)
    assert weights is not None

    def worth(me: str, one: str, two: str) -> float:
        j, m, n = (NAMES.index(name) for name in (me, one, two))
        return float(max(way[0, j, m] + way[1, j, n] for way in weights))

    assert worth("dog", "horse", "tree") > 0.5
    assert worth("dog", "horse", "tree") == pytest.approx(worth("dog", "tree", "horse"))
    assert worth("horse", "dog", "tree") < 0
    assert worth("tree", "horse", "dog") < 0
    for names in itertools.permutations(NAMES, 3):
        assert worth(*names) <= np.log(2) + 1e-9


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"between", "with"}])
def test_strengths_are_shares_and_no_box_is_beyond_itself(kind: str) -> None:
    rng = np.random.default_rng(0)
    boxes = [Box(*rng.uniform(0, 300, 2), *rng.uniform(0.1, 200, 2)) for _ in range(40)]
    values = relation_strength(kind, boxes)
    assert values.shape == (40, 40)
    assert ((values >= 0) & (values <= 1 + 1e-9)).all()
    assert (values.diagonal() <= 0.5).all()
    moved = [Box(box.x * 3 + 50, box.y * 3 + 70, box.width * 3, box.height * 3) for box in boxes]
    assert relation_strength(kind, moved) == pytest.approx(values, abs=1e-6)
    assert relation_strength(kind, []).shape == (0, 0)


def test_opposites() -> None:
    for kind, other in (("left of", "right of"), ("above", "below"), ("bigger", "smaller")):
        assert relation_strength(kind, BOXES) == pytest.approx(relation_strength(other, BOXES).T)


def test_evidence_says_nothing_at_a_half() -> None:
    assert relation_scores(np.array([0.5, 1.0, 0.0])) == pytest.approx([0.0, np.log(2), np.log(0.2)])
    assert relation_weights("with", BOXES) is None


def test_overlaps_equal_a_plain_count_of_pixels() -> None:
    grid = np.zeros((len(BOXES), 240, 400), bool)
    for index, box in enumerate(BOXES):
        left, top, right, bottom = map(int, box.corners)
        grid[index, top:bottom, left:right] = True
    for j, m in itertools.product(range(len(BOXES)), repeat=2):
        assert mutual_iou(BOXES)[j, m] == pytest.approx((grid[j] & grid[m]).sum() / (grid[j] | grid[m]).sum())


@pytest.mark.parametrize("kind", ["beneath", ""])
def test_unknown_relations(kind: str) -> None:
    with pytest.raises(InputError, match="left of"):
        relation_weights(kind, BOXES)
    with pytest.raises(InputError, match="left of"):
        relation_strength(kind, BOXES)
