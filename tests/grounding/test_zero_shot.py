from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders import EncoderBase
from mmalign.encoders.base import ImageLike
from mmalign.encoders.region_features import compare_regions
from mmalign.grounding.zero_shot import PlainGrounding
from mmalign.types import Box
from mmalign.utils.similarity import Float32Array, l2_normalize

SIZE = (120, 60)
GRID = (6, 12)


class Places(EncoderBase):
    """An encoder of which a grounding with its cells at hand asks nothing."""

    name, fingerprint, modalities = "places", "0", frozenset({"text", "image"})

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        raise AssertionError("texts are embedded already")

    def encode_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Float32Array:
        raise AssertionError("no region is cut out")


class Regions(Places):
    """An encoder with regions of its own: by their size alone; and crops by their brightness."""

    def encode_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Float32Array:
        rows = [[np.asarray(image).mean() / 255, 1, 0] for image in images]
        return l2_normalize(np.array(rows, np.float32))

    def encode_boxes(self, image: ImageLike, boxes: Sequence[Box]) -> Float32Array:
        return l2_normalize(np.array([[box.area / 7200, 0, 1] for box in boxes], np.float32))


@pytest.fixture
def grounding() -> PlainGrounding:
    rng = np.random.default_rng(0)
    cells = l2_normalize(rng.normal(size=(72, 8)).astype(np.float32)).reshape(*GRID, 8)
    text = l2_normalize(rng.normal(size=(3, 8)).astype(np.float32))
    return PlainGrounding(Places(8), Image.new("RGB", SIZE), text, cells)


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
    found = PlainGrounding(Places(3), Image.new("RGB", SIZE), text, cells)
    thing, part = Box(20, 10, 50, 40), Box(30, 20, 20, 20)
    boxes = [part, thing, Box(10, 0, 80, 60), Box(0, 0, 120, 60), Box(90, 20, 20, 20), Box(31, 21, 1, 1)]
    scores = found.score(boxes)
    assert scores[0].argmax() == 1
    assert scores[0].argmin() == 4
    assert np.isfinite(scores).all()


def test_a_few_regions_are_looked_at_one_by_one() -> None:
    picture = Image.new("RGB", SIZE, (40, 40, 40))
    picture.paste((250, 250, 250), (60, 0, 120, 60))
    encoder, boxes = Regions(3), [Box(0, 0, 20, 20), Box(70, 10, 20, 20), Box(60, 0, 60, 60)]
    text = l2_normalize(np.array([[1, 0, 0.2], [0, 1, 0.3]], np.float32))
    crops = [encoder.encode_image([picture.crop(tuple(map(int, box.corners)))])[0] for box in boxes]  # type: ignore[arg-type]
    cosines = np.array(
        [
            [t @ (crop + pooled) for crop, pooled in zip(crops, encoder.encode_boxes(picture, boxes), strict=True)]
            for t in text
        ]
    )
    expected = cosines - cosines.mean(axis=0)
    found = compare_regions(encoder, picture, boxes, text, ways=("crop", "pooled"))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), 0, atol=1e-6)
    alone = compare_regions(encoder, picture, boxes, text[:1], ways=("crop", "pooled"))
    np.testing.assert_allclose(alone, cosines[:1], atol=1e-6)
    cells = np.ones((*GRID, 3), np.float32) / math.sqrt(3)
    scores = PlainGrounding(encoder, picture, text, cells).score(boxes)
    centred = compare_regions(encoder, picture, boxes, text)
    standard = (centred - centred.mean(axis=1, keepdims=True)) / centred.std(axis=1, keepdims=True)
    np.testing.assert_allclose(scores, standard, atol=1e-4)
    # Of many regions only the map counts, and this one is the same everywhere.
    assert not PlainGrounding(encoder, picture, text, cells).score(boxes * 6).any()
