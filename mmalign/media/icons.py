"""Windows icons and cursors: which of their pictures is the largest, and its bytes.

Pillow's own plugin believes the directory of the file, whose sizes are one byte a side: it decodes a PNG of any size
before anyone can ask how large it is, and warns where the two differ. Here the pictures themselves say it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_PNG = b"\x89PNG\r\n\x1a\n"
_ENTRY = struct.Struct("<BBBBHHII")


@dataclass(frozen=True, slots=True)
class IconEntry:
    """One picture of an icon.

    Attributes:
        width: In pixels, as the picture itself says.
        height: In pixels, as the picture itself says.
        bits: Bits of a pixel; 32 for a PNG.
        png: The bytes of the PNG, where it is one.
        icon: The picture alone as an icon of one entry, where it is a bitmap.
    """

    width: int
    height: int
    bits: int
    png: bytes | None
    icon: bytes | None


def largest_entry(data: bytes) -> IconEntry:
    """The largest picture of an icon or a cursor; of several as large, the one with the most bits.

    Args:
        data: The file's bytes.

    Returns:
        The picture.

    Raises:
        ValueError: No picture of the file can be used.
    """
    view = memoryview(data)
    found = []
    for number in range(int.from_bytes(data[4:6], "little")):
        at = 6 + 16 * number
        if at + 16 > len(data):
            break
        size, offset = struct.unpack_from("<II", data, at + 8)
        measured = _measure(view[offset : offset + size], size)
        if measured is not None:
            width, height, bits = measured
            found.append((width * height, bits, -number, width, height, offset, size))
    if not found:
        raise ValueError("truncated, or it holds no picture")
    _, bits, _, width, height, offset, size = max(found)
    picture = data[offset : offset + size]
    if picture.startswith(_PNG):
        return IconEntry(width, height, bits, picture, None)
    # One byte a side, and 0 for 256: what is wider cannot be said, and Pillow looks at the picture itself.
    sides = (width if width < 256 else 0), (height if height < 256 else 0)
    return IconEntry(
        width, height, bits, None, b"\0\0\1\0\1\0" + _ENTRY.pack(*sides, 0, 0, 1, bits, size, 22) + picture
    )


def _measure(picture: memoryview, size: int) -> tuple[int, int, int] | None:
    """Width, height and bits of a pixel; None for what is cut off or neither a PNG nor a bitmap."""
    if len(picture) < max(size, 40):
        return None
    if picture[:8] == _PNG:
        width, height = struct.unpack_from(">II", picture, 16)
        return width, height, 32
    header, width, height, _, bits = struct.unpack_from("<IiiHH", picture, 0)
    # The picture and, below it, its mask: twice the height.
    return (width, height // 2, bits) if 40 <= header <= 124 and width > 0 and height > 1 else None
