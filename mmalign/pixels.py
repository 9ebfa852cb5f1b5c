"""Pictures of any mode as 8-bit RGB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BITS_PER_SAMPLE, _PHOTOMETRIC = 0x0102, 0x0106
_WHITE = (255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a decoded picture to 8-bit RGB: transparency over white, 16-bit and float grey scaled.

    Args:
        image: A picture of any mode; not changed.

    Returns:
        The picture in mode RGB; an opaque RGB picture is returned as it is.

    Example:
        >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _grey_to_rgb(image)
    if mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data or mode == "RGBa":
        rgba = image.convert("RGBA")
        canvas = Image.new("RGB", rgba.size, _WHITE)
        canvas.paste(rgba, mask=rgba.getchannel("A"))
        return canvas
    return image if mode == "RGB" else image.convert("RGB")


def _grey_to_rgb(image: Image.Image) -> Image.Image:
    array = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey = _declared_scale(image)[array]
        clear = image.info.get("transparency")
        if isinstance(clear, int):
            grey[array == clear] = 255
    else:
        grey = _guessed_scale(array, sixteen_bit=image.format == "PPM")
    return Image.fromarray(grey).convert("RGB")


def _declared_scale(image: Image.Image) -> NDArray[np.uint8]:
    """The 8-bit grey of each 16-bit value, shape (65536,): full scale is what the file declares."""
    tags: Any = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, 16)
    top = (1 << int(bits[0] if isinstance(bits, tuple) else bits)) - 1
    table = np.minimum(np.arange(1 << 16) * 255.0 / top + 0.5, 255.0).astype(np.uint8)
    return table[::-1] if tags.get(_PHOTOMETRIC) == 0 else table


def _guessed_scale(array: NDArray[Any], *, sixteen_bit: bool) -> NDArray[np.uint8]:
    """Grey of 32-bit or float values, whose full scale no header declares: the least usual one that holds them all."""
    values = array.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        values[~finite] = 0.0
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    scales = [65535.0] if sixteen_bit else [255.0, 65535.0]
    if array.dtype.kind == "f":
        scales.insert(0, 1.0)
    top = next((scale for scale in scales if low >= 0.0 and high <= scale), None)
    if top is None:
        values -= low
        top = high - low
    values *= np.float32(255.0 / top)
    values += np.float32(0.5)
    return values.astype(np.uint8)
