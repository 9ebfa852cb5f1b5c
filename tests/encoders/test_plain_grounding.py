from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders.lite2 import Lite2Encoder
from mmalign.encoders.plain_grounding import PlainGrounding
from mmalign.similarity import Float32Array, l2_normalize
from mmalign.types import Box

SIZE = (120, 60)
GRID = (6, 12)


@pytest.fixture
def grounding() -> PlainGrounding:
    rng = np.random.default_rng(0)
    cells = l2_normalize(rng.normal(size=(72, 8)).astype(np.float32)).reshape(*GRID, 8)
    text = l2_normalize(rng.normal(size=(3, 8)).astype(np.float32))
    return PlainGrounding(Lite2Encoder(device="cpu"), Image.new("RGB", SIZE), text, cells)


def by_loops(found: PlainGrounding, boxes: list[Box]) -> Float32Array:
    """The formula for boxes of whole cells, ten pixels each."""
    assert found.cells is not None
    maps = []
    for text in found.text:
        cosines = [[float(text @ cell) for cell in row] for row in found.cells]
        mean, spread = np.mean(cosines), np.std(cosines)
        maps.append([[(value - mean) / spread for value in row] for row in cosines])
    common = np.mean(maps, axis=0) / 2
    scores = []
    for map_ in maps:
        row = []
        for box in boxes:
            left, top, right, bottom = (int(edge / 10) for edge in box.corners)
            inside = [map_[y][x] - common[y][x] for y in range(top, bottom) for x in range(left, right)]
            share = min(len(inside) / 72, 0.98)
            row.append(sum(inside) / len(inside) * math.sqrt(share / (1 - share)))
        scores.append([(value - np.mean(row)) / np.std(row) for value in row])
    return np.array(scores, np.float32)


def test_scores_of_places_equal_loops(grounding: PlainGrounding) -> None:
    boxes = [Box(0, 0, 120, 60), Box(10, 20, 30, 40), Box(50, 0, 70, 10), Box(70, 30, 10, 10)]
    np.testing.assert_allclose(grounding.score(boxes), by_loops(grounding, boxes), atol=1e-4)
    assert grounding.score([]).shape == (3, 0)


def test_all_of_a_thing_is_better_than_a_part_or_too_much() -> None:
    cells = np.zeros((*GRID, 3), np.float32)
    cells[..., 0] = 1
    cells[1:5, 2:7] = (0, 1, 0)
    text = np.array([[0, 1, 0], [0, 0, 1]], np.float32)
    found = PlainGrounding(Lite2Encoder(device="cpu"), Image.new("RGB", SIZE), text, cells)
    thing, part = Box(20, 10, 50, 40), Box(30, 20, 20, 20)
    boxes = [part, thing, Box(10, 0, 80, 60), Box(0, 0, 120, 60), Box(90, 20, 20, 20), Box(31, 21, 1, 1)]
    scores = found.score(boxes)
    assert scores[0].argmax() == 1
    assert scores[0].argmin() == 4
    assert np.isfinite(scores).all()
