"""Colour profiles: what the numbers of a picture mean, and the same colours in sRGB.

LittleCMS, which comes with Pillow, converts. A profile that is damaged, or that is not for such a picture, is ignored,
as browsers do; one that means sRGB costs a look into a dictionary.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Callable
from functools import cache, partial
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsProfile, ImageCmsTransform

MAX_PROFILE_BYTES = 8 << 20
"""Larger profiles are ignored; those of printing presses have 3 MB at most."""

_SPACES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK", b"Lab ": "LAB"}
_GREYS = frozenset({"1", "L", "LA"})
_SAME = 2
_MOST_KEPT = 64
_kept: dict[bytes, ImageCmsTransform | None] = {}
_lock = threading.Lock()


def profile_conversion(image: Image.Image) -> Callable[[Image.Image], Image.Image] | None:
    """How a picture's colours become sRGB.

    Args:
        image: A picture of 8 bits a channel, with its profile as Pillow's plugins hand it out (`info["icc_profile"]`).

    Returns:
        Converts such a picture, or a strip of it, to mode RGB, without regard for transparency. None where there is
        nothing to convert: no profile, sRGB, a damaged one, or one for other colours than the picture has.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 128 < len(profile) <= MAX_PROFILE_BYTES:
        return None
    space = _SPACES.get(profile[16:20])
    mode = image.mode
    fits = space == mode if mode in {"CMYK", "LAB"} else space == "RGB" or (space == "L" and mode in _GREYS)
    transform = _transform(profile, str(space)) if fits else None
    return None if transform is None else partial(_convert, transform=transform, mode=str(space))


def _convert(image: Image.Image, *, transform: ImageCmsTransform, mode: str) -> Image.Image:
    colours = image if image.mode == mode else image.convert(mode)
    result = transform.apply(colours)
    result.info = {}
    return result


def _transform(profile: bytes, mode: str) -> ImageCmsTransform | None:
    key = hashlib.sha256(profile).digest()
    with _lock:
        if key in _kept:
            return _kept[key]
    transform = _build(profile, mode)
    with _lock:
        if len(_kept) >= _MOST_KEPT:
            _kept.pop(next(iter(_kept)))
        _kept[key] = transform
    return transform


def _build(profile: bytes, mode: str) -> ImageCmsTransform | None:
    from PIL import ImageCms

    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
    if mode == "L":
        # A table of few steps would be too coarse for the dark ones of a straight curve.
        flags |= ImageCms.Flags.NOOPTIMIZE
    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.ImageCmsTransform(source, _srgb(), mode, "RGB", ImageCms.Intent.PERCEPTUAL, flags=flags)
        same = mode in {"RGB", "L"} and _changes_nothing(transform, mode)
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError):
        # A damaged profile says nothing about the picture itself.
        return None
    return None if same else transform


@cache
def _srgb() -> ImageCmsProfile:
    from PIL import ImageCms

    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _changes_nothing(transform: ImageCmsTransform, mode: str) -> bool:
    """Whether no colour of a coarse grid moves by more than two of 255 steps, as for the many versions of sRGB."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    if mode == "L":
        probe = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    else:
        grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        probe = Image.fromarray(grid)
    moved = np.asarray(transform.apply(probe)).astype(int) - np.asarray(probe.convert("RGB"))
    return bool(np.abs(moved).max() <= _SAME)


def matrix_profile(primaries: tuple[float, ...], gamma: float | None = None) -> bytes:
    """A colour profile of three primaries and a tone curve, for files that name them by number.

    Args:
        primaries: x and y of red, green, blue and white.
        gamma: Exponent of the tone curve; that of sRGB where None.

    Returns:
        The profile's bytes.
    """
    white = np.array(_xyz(*primaries[6:8]))
    columns = np.array([_xyz(*primaries[at : at + 2]) for at in (0, 2, 4)]).T
    columns = _adaptation(white) @ (columns * np.linalg.solve(columns, white))
    curve = b"para" + bytes(4)
    if gamma is None:
        curve += struct.pack(
            ">HH5i", 3, 0, *(round(v * 65536) for v in (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045))
        )
    else:
        curve += struct.pack(">HHi", 0, 0, round(gamma * 65536))
    text = b"mluc" + bytes(4) + struct.pack(">II2s2sII", 1, 12, b"en", b"US", 8, 28) + "mmal".encode("utf-16-be")
    tags = {b"desc": text, b"cprt": text, b"wtpt": _point(np.array(_D50))}
    for number, name in enumerate((b"r", b"g", b"b")):
        tags |= {name + b"XYZ": _point(columns[:, number]), name + b"TRC": curve}
    table, body, at = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        value += bytes(-len(value) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(value))
        body += value
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x04300000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _point(np.array(_D50))[8:] + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def _xyz(x: float, y: float) -> tuple[float, float, float]:
    return x / y, 1.0, (1.0 - x - y) / y


def _adaptation(white: NDArray[np.float64]) -> NDArray[np.float64]:
    """What white light of one colour makes of another's: Bradford's matrix to D50, shape (3, 3)."""
    scale = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    adapted: NDArray[np.float64] = np.linalg.inv(_BRADFORD) @ np.diag(scale) @ _BRADFORD
    return adapted


def _point(xyz: NDArray[np.float64]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(float(value) * 65536) for value in xyz))
