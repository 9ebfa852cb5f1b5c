"""How many of 16 bits a picture uses: 10 or 12 bits of a camera or microscope, stored in 16.

A file says so in a tag of its own (PNG: `sBIT`; TIFF: `MaxSampleValue` that is the largest value of so many bits, or
`SignificantBits` of its OME description). It is believed where no value is larger. A PNG ought to be scaled to 16 bits
all the same, and many are: only one whose values lie in the lower bits is scaled here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.utils import strips

_MAX_SAMPLE, _SMAX_SAMPLE, _DESCRIPTION, _BITS_PER_SAMPLE = 281, 341, 270, 258
_OME = re.compile(r'SignificantBits="(\d+)"')


def claimed_bits(kind: str, data: bytes, image: Image.Image) -> int | None:
    """How many of 16 bits a file says that it uses.

    Args:
        kind: What `sniff` said.
        data: The file's bytes.
        image: The opened picture.

    Returns:
        9 to 15; None where it says nothing, or has no 16 bits.
    """
    if kind == "PNG" and data[24:25] == b"\x10":
        bits = max(png_chunk(data, b"sBIT")[:3], default=0)
    elif kind == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        if set(_integers(tags.get(_BITS_PER_SAMPLE))) != {16}:
            return None
        bits = _tiff_bits(tags)
    else:
        return None
    return bits if 8 < bits < 16 else None


def _tiff_bits(tags: Any) -> int:
    for tag in (_MAX_SAMPLE, _SMAX_SAMPLE):
        for top in _integers(tags.get(tag)):
            # Other values are statistics of the picture, which must not change how it looks (TIFF 6.0, page 37).
            if top > 0 and top & (top + 1) == 0:
                return top.bit_length()
    declared = _OME.search(str(tags.get(_DESCRIPTION, "")))
    return int(declared[1]) if declared else 0


def _integers(value: Any) -> list[int]:
    values = value if isinstance(value, tuple) else (value,)
    return [int(number) for number in values if isinstance(number, int | float) and number == int(number)]


def png_chunk(data: bytes, wanted: bytes) -> bytes:
    """The contents of a PNG's chunk that stands before its pixels.

    Args:
        data: The file's bytes.
        wanted: The chunk's name.

    Returns:
        Its contents; empty where there is none.
    """
    at = 8
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if name == wanted:
            return data[at + 8 : at + 8 + size]
        if name in {b"IDAT", b"IEND"}:
            break
        at += 12 + size
    return b""


def uses_only(values: Iterator[NDArray[np.uint16]], bits: int, *, lower: bool) -> bool:
    """Whether 16-bit values use no more than so many bits.

    Args:
        values: The values, some at a time.
        bits: How many, 9 to 15.
        lower: Whether values that are scaled to 16 bits, by zeros or by their own upper bits below, do not count.

    Returns:
        True where they fit, and are not only so small because the picture is dark.
    """
    shift = 16 - bits
    unscaled = not lower
    for array in values:
        if array.size and int(array.max()) >> bits:
            return False
        if not unscaled:
            upper = array >> shift
            scaled = (array == upper << shift) | (array == (upper << shift | upper >> bits - shift))
            unscaled = not bool(scaled.all())
    return unscaled


def grey_values(image: Image.Image) -> Iterator[NDArray[np.uint16]]:
    """The values of a 16-bit grey picture, strip by strip.

    Args:
        image: A picture of mode I;16 or its like.

    Yields:
        Arrays of shape (rows, columns).
    """
    for _, strip in strips(image):
        yield np.asarray(strip).astype(np.uint16, copy=False)


def full_range(upper: Image.Image, lower: Image.Image, bits: int, *, png: bool) -> Image.Image:
    """A colour picture of few bits in 16, scaled to 8 bits.

    Args:
        upper: Its upper bytes, as Pillow decodes it.
        lower: Its lower bytes.
        bits: How many of the 16 bits the file says that it uses.
        png: Whether it is a PNG, which may be scaled already.

    Returns:
        The scaled picture, or `upper` where it uses more bits.
    """
    colours = 3

    def values() -> Iterator[NDArray[np.uint16]]:
        for (_, high), (_, low) in zip(strips(upper), strips(lower), strict=True):
            yield np.asarray(high).astype(np.uint16)[..., :colours] << 8 | np.asarray(low)[..., :colours]

    if not uses_only(values(), bits, lower=png):
        return upper
    result = upper.copy()
    for (top, high), array in zip(strips(upper), values(), strict=True):
        scaled = (array * (255.0 / ((1 << bits) - 1)) + 0.5).astype(np.uint8)
        alpha = np.asarray(high)[..., colours:]
        result.paste(Image.fromarray(np.concatenate([scaled, alpha], axis=-1)), (0, top))
    return result
