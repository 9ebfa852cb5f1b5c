"""Colours that a file names by number (ITU-T H.273) instead of by a profile: HEIC, AVIF and PNG's `cICP`."""

from __future__ import annotations

from functools import cache

from mmalign.media.depth import png_chunk
from mmalign.utils import matrix_profile

_D65 = (0.3127, 0.3290)
# BT.709's are those of sRGB.
_PRIMARIES = {
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *_D65),
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *_D65),
}
# Curves of standard range, all of them taken for sRGB's, as browsers do. PQ (16) and HLG (18) are left as they are.
_STANDARD = frozenset({1, 2, 6, 13, 14, 15})
_HEAD_BYTES = 1 << 16


def named_profile(kind: str, data: bytes) -> bytes | None:
    """A colour profile for the primaries that a file names by number.

    Args:
        kind: What `sniff` said.
        data: The file's bytes.

    Returns:
        The profile of Display P3, DCI P3 or BT.2020 colours; None for sRGB, for none named, and for high dynamic range.
    """
    if kind == "PNG":
        code = png_chunk(data, b"cICP")
        primaries, transfer = (code[0], code[1]) if len(code) >= 4 else (2, 2)
    elif kind in {"HEIC", "AVIF"}:
        at = data.find(b"colrnclx", 0, _HEAD_BYTES) + 8
        if at < 8:
            return None
        primaries, transfer = int.from_bytes(data[at : at + 2], "big"), int.from_bytes(data[at + 2 : at + 4], "big")
    else:
        return None
    return _profile(primaries) if primaries in _PRIMARIES and transfer in _STANDARD else None


@cache
def _profile(primaries: int) -> bytes:
    return matrix_profile(_PRIMARIES[primaries])
