from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from mmalign.media.decoding import decode_image
from tests.media.media_helpers import encode, pixels, png


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_moves_the_red_corner_to_the_top_left(orientation: int) -> None:
    upright = Image.new("RGB", (64, 32), (255, 255, 255))
    upright.paste((255, 0, 0), (0, 0, 16, 16))
    upright.paste((0, 0, 255), (48, 0, 64, 16))
    # How the picture lies in the file: the inverse of what the tag asks for.
    stored = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    lying = upright.transpose(stored[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind, options in (("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        for at_least in (None, 8):
            decoded = decode_image(encode(lying, kind, exif=exif, **options), at_least=at_least)
            assert (decoded.width, decoded.height) == (64, 32)
            width, height = decoded.image.size
            assert width == 2 * height
            corners = np.asarray(decoded.image).astype(int)
            assert np.abs(corners[1, 1] - [255, 0, 0]).max() < 12
            assert np.abs(corners[1, -2] - [0, 0, 255]).max() < 12
            assert np.abs(corners[-2, 1] - 255).max() < 12
            # Upright once is upright for good.
            assert (pixels(decoded.image) == corners).all()


def test_a_damaged_exif_block_does_not_cost_the_picture(photo: Image.Image) -> None:
    data = encode(photo, "PNG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert (pixels(data) == np.asarray(photo)).all()


def test_alpha_is_composited_over_white() -> None:
    rgba = Image.new("RGBA", (3, 1))
    rgba.putdata([(255, 0, 0, 255), (0, 0, 0, 0), (0, 0, 0, 128)])
    expected = [[255, 0, 0], [255, 255, 255], [127, 127, 127]]
    for source in (rgba, encode(rgba, "PNG"), encode(rgba, "WEBP", lossless=True, exact=True), encode(rgba, "TIFF")):
        assert np.abs(pixels(source)[0] - expected).max() <= 1
    grey = Image.new("LA", (2, 1), (0, 0))
    assert (pixels(encode(grey, "PNG")) == 255).all()
    for mode in ("La", "RGBa", "PA"):
        assert (pixels(Image.new(mode, (2, 1))) == 255).all()


def test_transparent_palette_entries_are_white() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    expected = [[255, 0, 0], [255, 255, 255], [0, 0, 255]]
    assert pixels(encode(image, "GIF", transparency=1))[0].tolist() == expected
    assert pixels(encode(image, "PNG", transparency=1))[0].tolist() == expected
    partial = encode(image, "PNG", transparency=bytes([255, 0, 128]))
    assert np.abs(pixels(partial)[0] - [[255, 0, 0], [255, 255, 255], [127, 127, 255]]).max() <= 1


def test_a_transparent_colour_of_grey_and_rgb_pngs_is_white() -> None:
    assert pixels(png((2, 1), 8, 0, b"\0\x00\x40", (b"tRNS", b"\0\0")))[0, :, 0].tolist() == [255, 64]
    assert pixels(png((2, 1), 1, 0, b"\0\x40", (b"tRNS", b"\0\0")))[0, :, 0].tolist() == [255, 255]
    rows = b"\0" + bytes([0, 0, 0, 9, 9, 9])
    assert pixels(png((2, 1), 8, 2, rows, (b"tRNS", bytes(6))))[0].tolist() == [[255] * 3, [9] * 3]
    deep = b"\0" + struct.pack(">2H", 0, 0x8000)
    assert pixels(png((2, 1), 16, 0, deep, (b"tRNS", b"\0\0")))[0, :, 0].tolist() == [255, 128]


SIXTEEN = np.array([[0, 257, 32768, 65535]], np.uint16)
EIGHT = [0, 1, 128, 255]


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    image = Image.fromarray(SIXTEEN)
    assert image.mode == "I;16"
    for source in (image, encode(image, "PNG"), encode(image, "TIFF"), encode(image, "TIFF", compression="tiff_lzw")):
        assert pixels(source)[0, :, 1].tolist() == EIGHT
    pgm = b"P5 4 1 65535\n" + SIXTEEN.astype(">u2").tobytes()
    assert pixels(pgm)[0, :, 0].tolist() == EIGHT
    dark = b"P5 2 1 65535\n" + np.array([0, 200], ">u2").tobytes()
    assert pixels(dark)[0, :, 0].tolist() == [0, 1]
    assert pixels(b"P5 2 1 1023\n" + np.array([0, 1023], ">u2").tobytes())[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_both_byte_orders_of_sixteen_bits(mode: str) -> None:
    order = ">u2" if mode.endswith("B") else "<u2"
    image = Image.frombytes(mode, (4, 1), SIXTEEN.astype(order).tobytes())
    assert pixels(image)[0, :, 0].tolist() == EIGHT


def test_sixteen_bits_a_channel() -> None:
    rgb = b"\0" + struct.pack(">6H", 0, 32768, 65535, 65535, 0, 257)
    assert np.abs(pixels(png((2, 1), 16, 2, rgb))[0] - [[0, 128, 255], [255, 0, 1]]).max() <= 1
    rgba = b"\0" + struct.pack(">8H", 65535, 0, 0, 65535, 0, 0, 0, 0)
    assert pixels(png((2, 1), 16, 6, rgba))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    grey_alpha = b"\0" + struct.pack(">4H", 32768, 65535, 0, 0)
    assert pixels(png((2, 1), 16, 4, grey_alpha))[0, :, 0].tolist() == [128, 255]


def tiff(values: np.ndarray[Any, Any], tags: dict[int, tuple[int, int]]) -> bytes:
    """An uncompressed one-row little-endian TIFF made by hand; `tags` are (type, value) by number."""
    data = values.tobytes()
    every = {256: (3, values.size), 257: (3, 1), 259: (3, 1), 273: (4, 8), 277: (3, 1), 279: (4, len(data))} | tags
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(every.items()))
    pad = len(data) % 2
    return (
        b"II*\0" + struct.pack("<I", 8 + len(data) + pad) + data + bytes(pad)
        + struct.pack("<H", len(every)) + entries + bytes(4)
    )  # fmt: skip


def test_a_tiff_whose_zero_is_white_is_inverted() -> None:
    data = tiff(SIXTEEN, {258: (3, 16), 262: (3, 0)})
    assert pixels(data)[0, :, 0].tolist() == [255, 254, 127, 0]


def test_a_twelve_bit_tiff_is_scaled_by_its_own_full_scale() -> None:
    packed = np.frombuffer(bytes([0x00, 0x0F, 0xFF]), np.uint8)
    data = tiff(packed, {256: (3, 2), 258: (3, 12), 262: (3, 1)})
    assert pixels(data)[0, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.0, 255.0], [0, 128, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([float("nan"), float("inf"), 1.0], [0, 0, 255]),
    ],
)
def test_float_pictures_are_scaled_by_their_range(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert image.mode == "F"
    for source in (image, encode(image, "TIFF")):
        assert pixels(source)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 128, 255], [0, 128, 255]),
        ([0, 32768, 65535], [0, 128, 255]),
        ([0, 500_000, 1_000_000], [0, 128, 255]),
        ([-1000, 0, 1000], [0, 128, 255]),
        ([7, 7, 7], [7, 7, 7]),
    ],
)
def test_integer_pictures_are_scaled_by_their_range(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    assert image.mode == "I"
    assert np.abs(pixels(image)[0, :, 0] - expected).max() <= (1 if max(values) > 65535 else 0)


def test_cmyk_and_the_inverted_cmyk_of_photoshop() -> None:
    ink = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    plain = encode(ink, "JPEG", quality=95)
    assert b"Adobe" in plain
    assert np.abs(pixels(plain) - [255, 0, 0]).max() < 12
    assert np.abs(pixels(encode(ink, "TIFF")) - [255, 0, 0]).max() == 0


def test_every_other_mode_becomes_rgb() -> None:
    red = Image.new("RGB", (2, 2), (255, 0, 0))
    lab = ImageCms.profileToProfile(
        red, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    for image in (red.convert("YCbCr"), red.convert("HSV"), red.convert("RGBX"), lab):
        assert np.abs(pixels(image) - [255, 0, 0]).max() <= 6
    assert (pixels(Image.new("1", (2, 2), 1)) == 255).all()
    assert (pixels(Image.new("L", (2, 2), 9)) == 9).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(pixels(data) - [255, 0, 0]).max() < 8
