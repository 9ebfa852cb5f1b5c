from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders import EncoderBase
from mmalign.encoders.base import ImageLike
from mmalign.encoders.dense import cell_weights
from mmalign.encoders.lite.efficientnet import preprocess
from mmalign.encoders.lite.v2 import Lite2Encoder
from mmalign.encoders.region_features import cut_out, encode_regions, in_context
from mmalign.errors import DecodeError, InputError
from mmalign.types import Box
from mmalign.utils.similarity import Float32Array, l2_normalize

BOXES = [Box(3.5, 2, 20, 30), Box(0, 0, 80, 60), Box(70, 50, 20, 20), Box(40.2, 20.4, 0.3, 0.3)]


class Colours(EncoderBase):
    """An encoder without methods of its own for regions: the mean colour, and a fourth number that is always there."""

    name, dim, fingerprint, modalities = "colours", 4, "0", frozenset({"text", "image"})

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        return np.ones((len(texts), 4), np.float32) / 2

    def encode_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Float32Array:
        rows = []
        for image in images:
            assert isinstance(image, Image.Image)
            self.seen.append(image.size)
            rows.append([*(np.asarray(image) / 255).mean(axis=(0, 1)), 1])
        return l2_normalize(np.array(rows, np.float32))


class Cells(Colours):
    has_patches = True

    def encode_patches(self, image: ImageLike) -> Float32Array:
        assert isinstance(image, Image.Image)
        reduced = np.asarray(image.resize((4, 3), Image.Resampling.BOX)) / 255
        return l2_normalize(np.dstack([reduced, np.ones((3, 4))]).astype(np.float32).reshape(12, 4)).reshape(3, 4, 4)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def lite() -> Lite2Encoder:
    return Lite2Encoder(device="cpu")


def test_cell_weights_equal_a_count_of_small_squares() -> None:
    rng = np.random.default_rng(0)
    boxes = []
    for _ in range(10):
        x, y = rng.integers(0, 60), rng.integers(0, 40)
        boxes.append(Box(float(x), float(y), float(rng.integers(1, 80 - x)), float(rng.integers(1, 60 - y))))
    # 80 x 60 pixels and 5 x 7 cells: 1/7 pixel of squares divides both.
    for box, row in zip(boxes, cell_weights(boxes, (80, 60), (7, 5)), strict=True):
        fine = np.zeros((60 * 7, 80), bool)
        left, top, right, bottom = (int(edge) for edge in box.corners)
        fine[top * 7 : bottom * 7, left:right] = True
        count = fine.reshape(7, 60, 5, 16).sum(axis=(1, 3))
        np.testing.assert_allclose(row.reshape(7, 5), count / count.sum(), atol=1e-6)
    assert cell_weights([], (80, 60), (7, 5)).shape == (0, 35)


def test_crops_are_what_the_encoder_makes_of_them(picture: Image.Image) -> None:
    encoder = Colours()
    found = encode_regions(encoder, picture, BOXES, ways=("context", "crop"))
    assert list(found) == ["context", "crop"]
    pixels = np.asarray(picture) / 255
    windows = [pixels[2:32, 3:24], pixels, pixels[50:60, 70:80], pixels[20:21, 40:41]]
    expected = l2_normalize(np.array([[*window.mean(axis=(0, 1)), 1] for window in windows], np.float32))
    np.testing.assert_allclose(found["crop"], expected, atol=1e-6)
    assert found["context"].shape == (4, 4)
    np.testing.assert_allclose(np.linalg.norm(found["context"], axis=1), 1, atol=1e-6)
    assert encoder.seen[:4] == [(21, 30), (80, 60), (10, 10), (1, 1)]


def test_surroundings_are_shown_blurred_and_dimmed(picture: Image.Image) -> None:
    box = Box(20, 20, 20, 10)
    shown = np.asarray(in_context(picture, box)).astype(float)
    # Half as much again along each side: from 15 to 45, and from 17.5 to 32.5 outwards to whole pixels.
    assert shown.shape == (16, 30, 3)
    np.testing.assert_array_equal(shown[3:13, 5:25], np.asarray(picture)[20:30, 20:40])
    around = np.ones((16, 30), bool)
    around[3:13, 5:25] = False
    original = np.asarray(picture)[17:33, 15:45].astype(float)
    assert shown[around].mean() == pytest.approx(0.6 * original[around].mean(), rel=0.05)
    assert shown[around].std() < original[around].std() / 2
    assert cut_out(picture, Box(79.9, 59.9, 0.1, 0.1)).size == (1, 1)


def test_dense_is_the_mean_of_the_cells(picture: Image.Image) -> None:
    encoder = Cells()
    found = encode_regions(encoder, picture, [Box(20, 20, 40, 20), Box(10, 0, 20, 20)], ways=("dense",))["dense"]
    cells = encoder.encode_patches(picture)
    np.testing.assert_allclose(found[0], l2_normalize((cells[1, 1] + cells[1, 2])[None])[0], atol=1e-6)
    np.testing.assert_allclose(found[1], l2_normalize((cells[0, 0] + cells[0, 1])[None])[0], atol=1e-6)
    assert encoder.seen == []


def test_pooled_regions_of_lite(lite: Lite2Encoder, picture: Image.Image) -> None:
    found = encode_regions(lite, picture, BOXES, ways=("pooled", "dense"))
    assert {way: rows.shape for way, rows in found.items()} == {"pooled": (4, lite.dim), "dense": (4, lite.dim)}
    # One cell, the whole, and half of two cells, by the model's own maps.
    model = lite.picture_model()
    with torch.inference_mode():
        maps = model.cell_features(model.to_input([preprocess(picture, size=576)]))[0].numpy()
    wide, high = 80 / 18, 60 / 18
    boxes = [Box(2 * wide, 5 * high, wide, high), Box(0, 0, 80, 60), Box(2.5 * wide, 0, wide, high)]
    means = np.stack([maps[5, 2], maps.mean(axis=(0, 1)), (maps[0, 2] + maps[0, 3]) / 2])
    pooled = encode_regions(lite, picture, boxes, ways=("pooled",))["pooled"]
    np.testing.assert_allclose(pooled, lite.image_adapter(means), atol=1e-4)
    assert lite.encode_boxes(picture, boxes, resolution="coarse").shape == (3, lite.dim)


def test_pictures_of_one_pixel_and_no_regions(lite: Lite2Encoder) -> None:
    dot = Image.new("RGB", (1, 1), (200, 10, 10))
    for way, rows in encode_regions(lite, dot, [Box(0, 0, 1, 1)], ways=("dense", "pooled", "crop", "context")).items():
        assert rows.shape == (1, lite.dim), way
        assert np.isfinite(rows).all()
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    nothing = encode_regions(lite, dot, [], ways=("dense", "crop"))
    assert {way: rows.shape for way, rows in nothing.items()} == {"dense": (0, lite.dim), "crop": (0, lite.dim)}


def test_requests_that_mean_nothing(lite: Lite2Encoder, picture: Image.Image) -> None:
    with pytest.raises(InputError, match=r"ways must be some of dense, pooled, crop, context, got \['mask'\]"):
        encode_regions(lite, picture, BOXES, ways=("mask",))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ways must be some of"):
        encode_regions(lite, picture, BOXES, ways=())
    with pytest.raises(InputError, match="colours has no encode_patches, which the way 'dense' needs; use 'crop'"):
        encode_regions(Colours(), picture, BOXES)
    with pytest.raises(InputError, match="lies outside the picture"):
        encode_regions(lite, picture, [Box(80, 0, 5, 5)])
    with pytest.raises(InputError, match="lies outside the picture"):
        lite.encode_boxes(picture, [Box(80, 0, 5, 5)])
    with pytest.raises(InputError, match="resolution must be one of"):
        lite.encode_boxes(picture, [], resolution="finest")  # type: ignore[arg-type]
    with pytest.raises(DecodeError, match="there is no such file"):
        encode_regions(lite, "/nowhere.jpg", BOXES)
