"""10 and 12 bits in 16: white is what the file declares, in grey and in colour."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media.media_helpers import encode, pixels, png

GREY = np.array([[0, 1, 513, 1023]], np.uint16)
COLOUR = np.array([[[0, 512, 1023], [1, 1000, 300]]], np.uint16)


def eight(values: np.ndarray[Any, Any], bits: int) -> Any:
    """What values of so many bits are in 8, by the definition of full scale."""
    return np.rint(values.astype(float) / (2**bits - 1) * 255)


def tiff(values: np.ndarray[Any, Any], *tags: tuple[int, bytes], order: str = "<", packed: bool = False) -> bytes:
    """A 16-bit TIFF of one strip made by hand; each tag is its number and the 10 bytes of type, count and value."""
    rows, columns, samples = (*values.shape, 1)[:3]
    data = values.astype(order + "u2").tobytes()
    compression = 1
    if packed:
        import zlib

        data, compression = zlib.compress(data), 8
    data += bytes(len(data) % 2)
    short = lambda value: struct.pack(order + "HIHH", 3, 1, value, 0)  # noqa: E731
    entries = {256: short(columns), 257: short(rows), 259: short(compression), 262: short(2 if samples > 2 else 1),
               273: struct.pack(order + "HII", 4, 1, 8), 277: short(samples), 278: short(rows),
               279: struct.pack(order + "HII", 4, 1, len(data))}  # fmt: skip
    bits = struct.pack(order + "H", 16) * samples
    if samples > 2:
        entries[258] = struct.pack(order + "HII", 3, samples, 8 + len(data))
        data += bits
    else:
        entries[258] = short(16)
    entries |= dict(tags)
    listing = b"".join(struct.pack(order + "H", tag) + entry for tag, entry in sorted(entries.items()))
    head = (b"MM" if order == ">" else b"II") + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + struct.pack(order + "H", len(entries)) + listing + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("colour", [False, True])
def test_a_tiff_says_so_by_its_largest_value(order: str, packed: bool, bits: int, colour: bool) -> None:
    values = (COLOUR if colour else GREY) << (bits - 10)
    values[values == 1023 << (bits - 10)] = 2**bits - 1
    largest = 281, struct.pack(order + "HIHH", 3, 1, 2**bits - 1, 0)
    found = pixels(tiff(values, largest, order=order, packed=packed))
    want = eight(values, bits)
    assert np.abs(found - (want if colour else want[..., None])).max() <= 1
    assert found.max() == 255
    # Without the tag, they are what they are: dark.
    assert pixels(tiff(values, order=order, packed=packed)).max() <= 256 >> 16 - bits


def test_a_largest_value_that_is_no_full_scale_is_a_statistic() -> None:
    for top in (1000, 600, 0, 65535, 255):
        largest = 281, struct.pack("<HIHH", 3, 1, top, 0)
        assert pixels(tiff(GREY, largest)).max() == 4


def test_a_value_that_is_larger_than_declared_is_believed_instead() -> None:
    bright = np.array([[0, 1023, 40_000]], np.uint16)
    largest = 281, struct.pack("<HIHH", 3, 1, 1023, 0)
    assert (pixels(tiff(bright, largest)) == eight(bright, 16)[..., None]).all()


def test_an_ome_description_says_so() -> None:
    text = b'<Pixels Type="uint16" SignificantBits="12" SizeX="4"/>\0'
    data = bytearray(encode(Image.fromarray(GREY * 4), "TIFF", description=text[:-1].decode()))
    assert (pixels(bytes(data)) == eight(GREY * 4, 12)[..., None]).all()


def grey_png(values: np.ndarray[Any, Any], bits: int | None) -> bytes:
    chunk = [] if bits is None else [(b"sBIT", bytes([bits]))]
    return png(values.shape[::-1], 16, 0, b"".join(b"\0" + row.astype(">u2").tobytes() for row in values), *chunk)


def test_a_png_of_few_bits_that_lie_low_is_scaled() -> None:
    assert (pixels(grey_png(GREY, 10)) == eight(GREY, 10)[..., None]).all()
    assert pixels(grey_png(GREY, None)).max() == 4
    rows = b"\0" + COLOUR.astype(">u2").tobytes()
    found = pixels(png((2, 1), 16, 2, rows, (b"sBIT", bytes([10, 10, 10]))))
    assert np.abs(found - eight(COLOUR, 10)).max() <= 1
    clear = np.concatenate([COLOUR, np.full((1, 2, 1), 65535, np.uint16)], axis=-1)
    rows = b"\0" + clear.astype(">u2").tobytes()
    found = pixels(png((2, 1), 16, 6, rows, (b"sBIT", bytes([10, 10, 10, 16]))))
    assert np.abs(found - eight(COLOUR, 10)).max() <= 1


@pytest.mark.parametrize("replicated", [False, True])
def test_a_png_of_few_bits_that_is_scaled_already_is_left_alone(replicated: bool) -> None:
    dark = np.arange(16, dtype=np.uint16)[None]
    for values in (GREY, dark):
        scaled = values << 6 | (values >> 4 if replicated else 0)
        found = pixels(grey_png(scaled, 10))
        assert (found == np.minimum(eight(scaled, 16), 255)[..., None]).all()


def test_a_pgm_is_scaled_by_its_own_largest_value() -> None:
    for top in (1023, 4095, 16383):
        values = np.array([[0, top // 2, top]], np.uint16)
        found = pixels(b"P5 3 1 %d\n" % top + values.astype(">u2").tobytes())[0, :, 0]
        assert found.tolist() == [0, 127 if top // 2 * 2 < top else 128, 255]


def test_jpeg_2000_of_sixteen_bits() -> None:
    values = np.tile(np.array([0, 257, 32768, 65535], np.uint16), (8, 8))
    assert (pixels(encode(Image.fromarray(values), "JPEG2000")) == eight(values, 16)[..., None]).all()
