"""What a TIFF declares of its layout, read from its first directory.

libtiff takes the memory of a whole tile or strip, whatever the size of the picture. And where a tag is given twice, it
believes the first and Pillow the last; so the directory is read here, and the largest value counts.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS, _PLANAR = 256, 257, 258, 259, 262, 277, 278, 284
_TILE_WIDTH, _TILE_LENGTH, _DNG_VERSION = 322, 323, 50706
_MOST_VALUES = 64


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """What the first directory of a TIFF declares.

    Attributes:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        samples: Samples of a pixel.
        bits: Bits of a sample: the most of any sample.
        block: Width and height of a tile, or of a strip, in pixels.
        compressed: Whether libtiff decodes it.
        raw_photo: Whether it is a camera's raw photo (DNG), whose pixels are no picture yet.
    """

    width: int
    height: int
    samples: int
    bits: int
    block: tuple[int, int]
    compressed: bool
    raw_photo: bool


def tiff_layout(data: bytes) -> TiffLayout:
    """Read the first directory of a TIFF.

    Args:
        data: The file's bytes.

    Returns:
        What it declares; zeros for what is missing or cannot be read.
    """
    tags = _first_directory(data)
    width, height = tags.get(_WIDTH, 0), tags.get(_LENGTH, 0)
    samples = max(1, tags.get(_SAMPLES, 1))
    if _TILE_WIDTH in tags or _TILE_LENGTH in tags:
        block = max(tags.get(_TILE_WIDTH, 0), 1), max(tags.get(_TILE_LENGTH, 0), 1)
    else:
        block = width, min(tags.get(_ROWS, height) or height, height)
    compressed = tags.get(_COMPRESSION, 1) != 1
    bits = max(1, tags.get(_BITS, 1))
    return TiffLayout(width, height, samples, bits, block, compressed, _DNG_VERSION in tags)


def _first_directory(data: bytes) -> dict[int, int]:
    order = ">" if data[:2] == b"MM" else "<"
    big = 43 in (data[2], data[3]) if len(data) > 3 else False
    try:
        if big:
            (at,) = struct.unpack_from(order + "Q", data, 8)
            (count,) = struct.unpack_from(order + "Q", data, at)
            return _entries(data, order, at + 8, count, "HHQ", "Q")
        (at,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, at)
        return _entries(data, order, at + 2, count, "HHI", "I")
    except (struct.error, OverflowError):
        return {}


def _entries(data: bytes, order: str, at: int, count: int, head: str, offset: str) -> dict[int, int]:
    tags: dict[int, int] = {}
    head_size, offset_size = struct.calcsize("<" + head), struct.calcsize("<" + offset)
    step = head_size + offset_size
    for number in range(min(count, (len(data) - at) // step)):
        place = at + number * step
        tag, kind, values = struct.unpack_from(order + head, data, place)
        code = _INTEGERS.get(kind)
        if code is None or not values:
            continue
        size = struct.calcsize("<" + code)
        start = place + head_size
        if values * size > offset_size:
            (start,) = struct.unpack_from(order + offset, data, start)
        read = min(values, _MOST_VALUES, max(0, (len(data) - start) // size))
        if read:
            largest = max(struct.unpack_from(f"{order}{read}{code}", data, start))
            tags[tag] = max(tags.get(tag, 0), largest)
    return tags
