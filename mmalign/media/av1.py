"""How large the frames within an AVIF file are, whatever its outer boxes say.

The decoder takes the memory of a frame as the AV1 data itself declares it, and scales the result to the declared size.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress

_HEAD_BYTES = 1 << 16
_OBU_BYTES = 512
_MOST_BOXES, _MOST_ITEMS, _MOST_EXTENTS = 8, 4096, 64
_SEQUENCE, _DELIMITER = 1, 2


def largest_frame(data: bytes) -> tuple[int, int]:
    """The largest frame that an AVIF file's AV1 data declares.

    Args:
        data: The file's bytes.

    Returns:
        `(width, height)` in pixels; (0, 0) where none was found.

    Raises:
        ValueError: More items or pieces than a picture has.
    """
    sizes = [_sequence_size(start) for start in _starts(data)]
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


def _starts(data: bytes) -> Iterator[bytes]:
    """The first bytes of every item and track, and of the configurations that their boxes hold."""
    head = data[:_HEAD_BYTES]
    for name, reader in ((b"iloc", _items), (b"stco", _chunks), (b"av1C", _configuration)):
        at = head.find(name)
        for _ in range(_MOST_BOXES):
            if at < 0:
                break
            # A box that is cut off ends the file.
            with suppress(struct.error):
                yield from reader(data, at + 4)
            at = head.find(name, at + 4)


def _configuration(data: bytes, at: int) -> Iterator[bytes]:
    yield data[at + 4 : at + 4 + _OBU_BYTES]


def _chunks(data: bytes, at: int) -> Iterator[bytes]:
    count, offset = struct.unpack_from(">II", data, at + 4)
    if count:
        yield data[offset : offset + _OBU_BYTES]


def _items(data: bytes, at: int) -> Iterator[bytes]:
    version = data[at]
    sizes = struct.unpack_from(">H", data, at + 4)[0]
    offset_size, length_size, base_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15
    index_size = sizes & 15 if version else 0
    at += 6
    wide = ">I" if version == 2 else ">H"
    (count,) = struct.unpack_from(wide, data, at)
    at += struct.calcsize(wide)
    if count > _MOST_ITEMS:
        raise ValueError(f"{count:,} items, the limit is {_MOST_ITEMS:,}")
    boxed = data.find(b"idat", 0, _HEAD_BYTES) + 4
    for _ in range(count):
        at += struct.calcsize(wide)
        method = 0
        if version:
            method = struct.unpack_from(">H", data, at)[0] & 15
            at += 2
        base = int.from_bytes(data[at + 2 : at + 2 + base_size], "big") + (boxed if method == 1 else 0)
        at += 2 + base_size
        (extents,) = struct.unpack_from(">H", data, at)
        at += 2
        if extents > _MOST_EXTENTS:
            raise ValueError(f"an item in {extents:,} pieces, the limit is {_MOST_EXTENTS}")
        start = b""
        for _ in range(extents):
            at += index_size
            offset = base + int.from_bytes(data[at : at + offset_size], "big")
            at += offset_size
            length = int.from_bytes(data[at : at + length_size], "big") or _OBU_BYTES
            at += length_size
            if len(start) < _OBU_BYTES:
                start += data[offset : offset + min(length, _OBU_BYTES)]
        yield start


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self._at = 0

    def read(self, count: int) -> int:
        self._at += count
        return int(self._bits[self._at - count : self._at] or "0", 2)

    def variable(self) -> int:
        zeros = 0
        while self._at < len(self._bits) and not self.read(1):
            zeros += 1
        return self.read(min(zeros, 32))


def _sequence_size(data: bytes) -> tuple[int, int]:
    """Most width and height of a frame, by the sequence header (AV1 specification, 5.5.1)."""
    at = 0
    while at + 2 <= len(data):
        kind, extended, sized = data[at] >> 3 & 15, data[at] >> 2 & 1, data[at] >> 1 & 1
        at += 1 + extended
        size = shift = 0
        while sized and at < len(data):
            size |= (data[at] & 127) << shift
            shift += 7
            at += 1
            if not data[at - 1] & 128:
                break
        if not sized:
            size = len(data) - at
        if kind == _SEQUENCE:
            return _frame_size(_Bits(data[at : at + min(size, _OBU_BYTES)]))
        at += size
    return 0, 0


def _frame_size(bits: _Bits) -> tuple[int, int]:
    bits.read(4)
    if bits.read(1):
        # A reduced header for a still picture.
        bits.read(5)
    else:
        delay_bits = 0
        if bits.read(1):
            bits.read(64)
            if bits.read(1):
                bits.variable()
            if bits.read(1):
                delay_bits = bits.read(5) + 1
                bits.read(42)
        display_delay = bits.read(1)
        for _ in range(bits.read(5) + 1):
            bits.read(12)
            if bits.read(5) > 7:
                bits.read(1)
            if delay_bits and bits.read(1):
                bits.read(2 * delay_bits + 1)
            if display_delay and bits.read(1):
                bits.read(4)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(width_bits) + 1, bits.read(height_bits) + 1
