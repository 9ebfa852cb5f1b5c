"""The benchmark of regions: how usual boxes are chosen, and its figures beside plain loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import region_features, region_proposals
from mmalign.evaluation.phrases import read_phrases
from mmalign.regions.proposals import propose_regions
from mmalign.types import Box


def naive_iou(one: list[float], other: list[float]) -> float:
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    common = wide * high if wide > 0 and high > 0 else 0.0
    return common / (one[2] * one[3] + other[2] * other[3] - common)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = []
    for number in range(3):
        pixels = rng.integers(0, 40, (60, 80, 3), dtype=np.uint8)
        pixels[10:40, 20:60] = (200, 40 * number, 0)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        phrases = [
            {"phrase": "a block", "box": [20, 10, 40, 30]},
            {"phrase": "dots", "box": [0, 0, 9, 9]},
            {"phrase": "dots", "box": [70, 50, 10, 10]},
        ]
        lines.append(json.dumps({"image": f"{number}.png", "phrases": phrases, "split": "train"}))
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_usual_boxes_cover_the_most_common_first() -> None:
    rng = np.random.default_rng(1)
    centres = np.array([[0.1, 0.1, 0.4, 0.5], [0.5, 0.5, 0.9, 0.9], [0, 0, 1, 1]], np.float32)
    which = np.repeat([0, 1, 2], [600, 300, 100])
    corners = np.clip(centres[which] + rng.normal(0, 0.005, (1000, 4)).astype(np.float32), 0, 1)
    rows = np.array(region_proposals.usual_boxes(corners, count=3))
    np.testing.assert_allclose(rows[:, :4], centres, atol=0.03)
    np.testing.assert_allclose(rows[:, 4], [0.6, 0.3, 0.1])


def test_boxes_are_read_as_shares(manifest: Path) -> None:
    corners = region_proposals.phrase_corners(read_phrases(manifest, split="train"))
    assert corners.shape == (9, 4)
    np.testing.assert_allclose(corners[0], [0.25, 1 / 6, 0.75, 2 / 3], atol=1e-6)


def test_recall_equals_a_loop(manifest: Path) -> None:
    pictures = read_phrases(manifest)
    figures = region_proposals.measure(pictures)
    best = []
    for picture in pictures:
        regions = propose_regions(np.asarray(Image.open(picture.uri)), most=20)
        for truth in picture.boxes:
            pairs = [(region.box.to_list(), box.tolist()) for region in regions for box in truth]
            best.append(max(naive_iou(*pair) for pair in pairs))
    assert figures["proposals, recall"]["20 regions"] == round(100 * np.mean(np.array(best) >= 0.5), 1)
    assert figures["proposals, mean best overlap"]["20 regions"] == pytest.approx(100 * np.mean(best), abs=0.051)
    assert figures["whole picture, recall"]["10 regions"] == 0


def test_a_phrase_is_right_where_any_of_its_boxes_is(manifest: Path) -> None:
    picture = read_phrases(manifest)[0]
    boxes = [Box(20, 10, 40, 30), Box(0, 0, 9, 9), Box(70, 50, 10, 10)]
    # The second region is alike to both phrases, and wins both until that is taken away.
    cosine = np.array([[0.5, 0.6, 0.1], [0.1, 0.7, 0.3]], np.float32)
    told = region_features.right(picture, boxes, dict.fromkeys(region_features.WAYS, cosine))
    assert told["pooled"] == [False, True]
    assert told["pooled, centred"] == [True, True]
    assert told["crop + context"] == [False, True]
    np.testing.assert_allclose(told["chance"], [1 / 3, 2 / 3])
