"""How much work a JPEG asks for: how often its scans go over the picture."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_ALONE = frozenset({0x01, 0xD8})
_SCAN, _END = 0xDA, 0xD9


@dataclass(frozen=True, slots=True)
class JpegFrame:
    """What a JPEG's markers say of it.

    Attributes:
        width: In pixels; 0 where no frame header was found.
        height: In pixels.
        components: Colours: 1, 3 or 4.
        buffered: Whether the whole picture's coefficients are held until the last scan is read.
        scans: Scans that go over the picture; 1 where they are not buffered.
    """

    width: int
    height: int
    components: int
    buffered: bool
    scans: int


def jpeg_frame(data: bytes) -> JpegFrame:
    """Read the markers of a JPEG, of the entropy-coded data no more than is needed to count the scans.

    Args:
        data: The file's bytes.

    Returns:
        What they say, as far as the file goes.
    """
    width = height = components = scans = 0
    buffered = False
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        code = data[found.start() + 1]
        at = found.end()
        if code == _END:
            break
        if code in _ALONE:
            continue
        segment = data[at : at + 16]
        at += max(2, int.from_bytes(segment[:2], "big"))
        if code in _FRAMES and not components and len(segment) >= 8:
            height, width = int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[5:7], "big")
            components = segment[7]
            buffered = code in _PROGRESSIVE
        elif code == _SCAN and len(segment) >= 3:
            scans += 1
            # A sequential picture whose first scan holds every colour is decoded as it comes.
            if scans == 1 and segment[2] < components:
                buffered = True
            if not buffered:
                break
    return JpegFrame(width, height, components, buffered, scans)
