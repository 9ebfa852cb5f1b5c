"""What a JPEG 2000 codestream declares of its layout.

OpenJPEG takes memory for every tile, code block and precinct that the codestream declares, before it reads one; and the
size that the file's outer header declares may be another than the codestream's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_START = b"\xff\x4f\xff\x51"
_COD, _COC, _TILE_PART, _DATA = 0x52, 0x53, 0x90, 0x93
_TILE_BYTES, _COMPONENT_BYTES = 6_000, 1_200
_BLOCK_BYTES, _PRECINCT_BYTES = 120, 300


@dataclass(frozen=True, slots=True)
class Codestream:
    """What a JPEG 2000 codestream declares.

    Attributes:
        width: Of the picture, in pixels; 0 where there is no codestream.
        height: Of the picture, in pixels.
        components: Colours and transparency.
        tiles: Number of tiles.
        tile: Width and height of a tile, in pixels, no larger than the picture.
        overhead: Bytes of the decoder's lists of tiles, code blocks and precincts.
    """

    width: int
    height: int
    components: int
    tiles: int
    tile: tuple[int, int]
    overhead: int


def codestream(data: bytes) -> Codestream:
    """Read the markers of a JPEG 2000 file's codestream.

    Args:
        data: The file's bytes, with or without the boxes around the codestream.

    Returns:
        What they declare, as far as the file goes.
    """
    start = _codestream_at(data)
    if start is None or not data.startswith(_START, start) or len(data) < start + 46:
        return Codestream(0, 0, 0, 0, (0, 0), 0)
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", data, start + 8
    )
    width, height = max(0, right - left), max(0, bottom - top)
    across = -(-max(0, right - tile_left) // max(tile_width, 1))
    down = -(-max(0, bottom - tile_top) // max(tile_height, 1))
    tile = min(tile_width, width), min(tile_height, height)
    overhead = across * down * (_TILE_BYTES + components * _COMPONENT_BYTES)
    area = tile[0] * tile[1] * components
    most = max((_lists(coding, area) for coding in _codings(data, start + 2)), default=0)
    return Codestream(width, height, components, across * down, tile, overhead + most)


def _lists(coding: bytes, area: int) -> int:
    """Bytes of the lists for one tile of `area` samples; `coding` begins with the number of resolution levels."""
    if len(coding) < 5:
        return 0
    blocks = area >> min((coding[1] & 15) + 2 + (coding[2] & 15) + 2, 12)
    levels = coding[0]
    # Each level is half as wide as the next; its precincts are listed whether they hold a code block or not.
    precincts = sum(
        (area >> 2 * max(0, levels - level)) >> (size & 15) + (size >> 4) for level, size in enumerate(coding[5:])
    )
    return blocks * _BLOCK_BYTES + precincts * _PRECINCT_BYTES


def _codestream_at(data: bytes) -> int | None:
    """Where the codestream begins: at once, or in the box that is made for it."""
    if data.startswith(_START):
        return 0
    at = 0
    while at + 16 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        head = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            head = 16
        if name == b"jp2c":
            return at + head
        if size < head:
            return None
        at += size
    return None


def _codings(data: bytes, at: int) -> Iterator[bytes]:
    """What follows the style of each coding marker of the main header and of every tile's header."""
    tile_end: int | None = None
    tile_start = 0
    while at + 4 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if code == _DATA:
            if tile_end is None or tile_end <= at:
                return
            at, tile_end = tile_end, None
            continue
        if code == _TILE_PART and at + 12 <= len(data):
            tile_start = at
            size = int.from_bytes(data[at + 6 : at + 10], "big")
            tile_end = tile_start + size if size else None
        elif code == _COD:
            yield _with_precincts(data[at + 4], data[at + 9 : at + 2 + length])
        elif code == _COC:
            yield _with_precincts(data[at + 5], data[at + 6 : at + 2 + length])
        at += 2 + max(length, 2)


def _with_precincts(style: int, coding: bytes) -> bytes:
    return coding if style & 1 else coding[:5]
