from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmalign.errors import DimensionError, InputError, MissingExtraError
from mmalign.regions.given import given_regions
from mmalign.regions.peaks import peak_regions
from mmalign.regions.proposals import box_iou, box_prior, propose_regions, usual_boxes
from mmalign.regions.segmentation import SEGMENTATIONS, segment
from mmalign.types import Box, Region

THINGS = [(20, 30, 90, 110), (150, 20, 290, 70), (180, 120, 260, 210), (30, 150, 60, 180)]


@pytest.fixture(scope="module")
def scene() -> NDArray[np.uint8]:
    """Four things of a colour each on a grainy ground, 320 x 240."""
    grain = np.random.default_rng(1).integers(90, 110, (240, 320, 3), dtype=np.uint8)
    picture = Image.fromarray(grain)
    draw = ImageDraw.Draw(picture)
    for corners, colour in zip(THINGS, ("red", "blue", "yellow", "lime"), strict=True):
        draw.rectangle((corners[0], corners[1], corners[2] - 1, corners[3] - 1), fill=colour)
    return np.asarray(picture)


def naive_iou(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    common = wide * high if wide > 0 and high > 0 else 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


def test_overlaps_equal_a_loop() -> None:
    rng = np.random.default_rng(0)
    boxes = np.sort(rng.random((7, 2, 2)), axis=1).reshape(7, 4).astype(np.float32)
    boxes[1] = boxes[0]
    expected = [[naive_iou(tuple(one), tuple(other)) for other in boxes[2:]] for one in boxes]
    np.testing.assert_allclose(box_iou(boxes, boxes[2:]), expected, atol=1e-5)
    assert box_iou(boxes[:1], boxes[1:2])[0, 0] == 1


def test_things_of_a_drawn_scene_are_proposed(scene: NDArray[np.uint8]) -> None:
    def best(regions: tuple[Region, ...]) -> list[float]:
        return [max(naive_iou(thing, region.box.corners) for region in regions) for thing in THINGS]

    seen, usual = best(propose_regions(scene)), best(propose_regions(scene, segments=False))
    assert min(seen) > 0.7
    assert np.mean(seen) > np.mean(usual) + 0.15


def test_regions_are_the_same_every_time_and_lie_in_the_picture(scene: NDArray[np.uint8]) -> None:
    regions = propose_regions(scene)
    assert regions == propose_regions(scene.copy())
    assert len(regions) == len({region.box for region in regions}) == 100
    assert {region.source for region in regions} == {"segment", "usual"}
    for region in regions:
        left, top, right, bottom = region.box.corners
        assert 0 <= left < right <= 320.01
        assert 0 <= top < bottom <= 240.01
    scores = [region.score for region in regions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) <= 1 + 1e-5


def test_fewer_regions_are_the_first_of_more(scene: NDArray[np.uint8]) -> None:
    assert propose_regions(scene, most=7) == propose_regions(scene, most=30)[:7]


def test_each_choice_adds_most() -> None:
    """The usual boxes alone, chosen by a plain loop over all of them."""
    corners, belief = usual_boxes()
    worth = belief / (1 + np.exp((0.5 - np.array([[naive_iou(a, b) for b in corners] for a in corners])) / 0.05))
    covered, chosen = np.zeros(len(corners)), []
    for _ in range(5):
        gains = [
            float(np.maximum(row, covered).sum()) if index not in chosen else -1 for index, row in enumerate(worth)
        ]
        chosen.append(int(np.argmax(gains)))
        covered = np.maximum(covered, worth[chosen[-1]])
    regions = propose_regions(np.zeros((100, 100, 3), np.uint8), most=5, segments=False)
    np.testing.assert_allclose([region.box.corners for region in regions], corners[chosen] * 100, atol=1e-3)


def test_usual_boxes() -> None:
    corners, shares = usual_boxes()
    assert corners.shape == (len(shares), 4)
    assert shares.sum() == pytest.approx(1)
    assert (corners >= 0).all()
    assert (corners <= 1).all()
    assert (corners[:, 2:] > corners[:, :2]).all()


def test_usualness_is_the_share_of_things_with_such_a_box() -> None:
    corners, shares = usual_boxes()
    found = box_prior([Box(20, 30, 100, 60), Box(0, 0, 200, 100), Box(0, 0, 1, 1)], 200, 100)
    for got, box in zip(found, [(0.1, 0.3, 0.6, 0.9), (0, 0, 1, 1), (0, 0, 0.005, 0.01)], strict=True):
        near = [1 / (1 + math.exp((0.5 - naive_iou(box, tuple(other))) / 0.05)) for other in corners.tolist()]
        assert got == pytest.approx(sum(w * s for w, s in zip(near, shares.tolist(), strict=True)), rel=1e-3)
    assert found[1] > 0.1 > found[0] > found[2]
    assert box_prior([], 200, 100).shape == (0,)


def test_parts_of_a_hierarchy(scene: NDArray[np.uint8]) -> None:
    parts = segment(scene[::2, ::2])
    for number in range(len(SEGMENTATIONS)):
        own = parts.corners[parts.hierarchy == number]
        # A hierarchy of n segments has n - 1 merges, and the last is the whole picture.
        assert len(own) % 2 == 1
        np.testing.assert_array_equal(own[-1], [0, 0, 1, 1])
        assert parts.fill[parts.hierarchy == number][-1] == 1
    assert (parts.fill > 0).all()
    assert (parts.fill <= 1).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (3, 2), (40, 40)])
def test_pictures_without_parts(shape: tuple[int, int]) -> None:
    regions = propose_regions(np.full((*shape, 3), 200, np.uint8), most=12)
    assert len(regions) == 12
    assert max(naive_iou((0, 0, shape[1], shape[0]), region.box.corners) for region in regions) > 0.9


def test_pictures_that_are_none() -> None:
    with pytest.raises(InputError, match=r"an array of shape \(height, width, 3\), uint8, got \(4, 4\)"):
        propose_regions(np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="float64"):
        propose_regions(np.zeros((4, 4, 3)))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no pixels"):
        propose_regions(np.zeros((0, 4, 3), np.uint8))
    with pytest.raises(InputError, match="most must be at least 1, got 0"):
        propose_regions(np.zeros((4, 4, 3), np.uint8), most=0)


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mmalign\[regions\]'"):
        propose_regions(np.zeros((4, 4, 3), np.uint8))
    assert len(propose_regions(np.zeros((4, 4, 3), np.uint8), segments=False)) == 100


def test_a_peak_is_cut_out() -> None:
    heat = np.zeros((18, 18), np.float32)
    heat[4:10, 2:6] = 1
    heat[12:15, 11:17] = 0.8
    regions = peak_regions(heat, 360, 180)
    assert [region.box.to_list() for region in regions] == [[40, 40, 80, 60], [220, 120, 120, 30]]
    assert [region.score for region in regions] == pytest.approx([1, 0.8])
    assert [region.source for region in regions] == ["peak", "peak"]
    assert peak_regions(heat, 360, 180, peaks=1) == regions[:1]


def test_levels_cut_a_hill_at_several_heights() -> None:
    y, x = np.mgrid[:18, :18]
    heat = np.exp(-((x - 8) ** 2 + (y - 8) ** 2) / 18).astype(np.float32)
    boxes = [region.box for region in peak_regions(heat, 18, 18, peaks=1)]
    for level, box in zip((0.3, 0.5, 0.7), boxes, strict=True):
        scaled = (heat - np.median(heat)) / (heat.max() - np.median(heat))
        rows, columns = np.nonzero(scaled >= level)
        expected = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert box.to_list() == expected
    flat = np.full((3, 18, 18), 0.3, np.float32)
    assert peak_regions(flat, 18, 18) == ()
    both = np.stack([heat, flat[0], heat])
    assert [region.box for region in peak_regions(both, 18, 18, peaks=1)] == boxes


def test_maps_that_cannot_be_cut() -> None:
    with pytest.raises(InputError, match=r"has shape \(h, w\) or \(p, h, w\), got \(3,\)"):
        peak_regions(np.zeros(3, np.float32), 10, 10)
    with pytest.raises(InputError, match="NaN or infinity"):
        peak_regions(np.full((2, 2), np.nan, np.float32), 10, 10)
    with pytest.raises(InputError, match="above 0 pixels"):
        peak_regions(np.zeros((2, 2), np.float32), 0, 10)
    with pytest.raises(InputError, match="levels lie between"):
        peak_regions(np.zeros((2, 2), np.float32), 10, 10, levels=(1.5,))


def test_regions_of_the_caller() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:20, 30:50] = True
    named = Region(Box(1, 2, 3, 4), "detector", 0.5, "dog")
    regions, notes = given_regions([Box(0, 0, 80, 60.2), [70, 50, 20, 20], (1, 2, 3, 4), mask, named], 80, 60)
    assert [region.box.to_list() for region in regions] == [
        [0, 0, 80, 60], [70, 50, 10, 10], [1, 2, 3, 4], [30, 10, 20, 10], [1, 2, 3, 4],
    ]  # fmt: skip
    assert regions[4] == named
    assert {region.source for region in regions[:4]} == {"given"}
    assert len(notes) == 1
    assert notes[0].startswith("region 1, [70.0, 50.0, 20.0, 20.0], goes beyond the picture of 80 x 60 pixels")
    assert given_regions([], 80, 60) == ((), ())
    assert given_regions([[0, 0, 1, 1]], 1, 1)[0][0].box == Box(0, 0, 1, 1)


def test_regions_of_the_caller_that_mean_nothing() -> None:
    with pytest.raises(InputError, match=r"region 1: the box \[80.0, 0.0, 5.0, 5.0\] lies outside the picture"):
        given_regions([[0, 0, 5, 5], [80, 0, 5, 5]], 80, 60)
    with pytest.raises(InputError, match=r"region 0: a box is .* got \[9.0, 9.0, -4.0, 5.0\]"):
        given_regions([[9, 9, -4, 5]], 80, 60)
    with pytest.raises(InputError, match="region 0: a box is"):
        given_regions([[0, 0, float("nan"), 5]], 80, 60)
    with pytest.raises(InputError, match="region 0 is 'whole'; expected a box"):
        given_regions(["whole"], 80, 60)  # type: ignore[list-item]
    with pytest.raises(InputError, match=r"region 0 is \[1, 2, 3\]; expected a box"):
        given_regions([[1, 2, 3]], 80, 60)
    with pytest.raises(InputError, match="region 0: the mask is empty"):
        given_regions([np.zeros((60, 80), bool)], 80, 60)
    with pytest.raises(DimensionError, match=r"here \(60, 80\), got \(80, 60\)"):
        given_regions([np.ones((80, 60), bool)], 80, 60)
