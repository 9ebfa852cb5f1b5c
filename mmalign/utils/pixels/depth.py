"""Grey of more than 8 bits as 8 bits: what is white is what the file declares, or else the least usual full scale."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.utils.pixels.strips import by_strips, strips

_BITS_PER_SAMPLE, _PHOTOMETRIC = 0x0102, 0x0106


def grey_of(image: Image.Image, bits: int | None = None) -> Image.Image:
    """Scale a 16-bit, 32-bit or float grey picture to 8 bits.

    Args:
        image: A picture of mode I;16 and its like, I or F; not changed.
        bits: How many of the 16 bits are used, where the file says so; white is then the largest value of so many.

    Returns:
        The picture in mode L; a transparent value is white.
    """
    if image.mode.startswith("I;16"):
        table = _declared_scale(image, bits)
        clear = image.info.get("transparency")

        def look_up(strip: Image.Image) -> Image.Image:
            array = np.asarray(strip)
            grey = table[array]
            if isinstance(clear, int):
                grey[array == clear] = 255
            return Image.fromarray(grey)

        return by_strips(image, look_up)
    low, top = _range(image)

    def scale(strip: Image.Image) -> Image.Image:
        values = _finite(strip)
        values -= np.float32(low)
        values *= np.float32(255.0 / top)
        values += np.float32(0.5)
        return Image.fromarray(values.astype(np.uint8))

    return by_strips(image, scale)


def _declared_scale(image: Image.Image, bits: int | None) -> NDArray[np.uint8]:
    """The 8-bit grey of each 16-bit value, shape (65536,): full scale is what the file declares."""
    tags: Any = getattr(image, "tag_v2", {})
    if bits is None:
        stored = tags.get(_BITS_PER_SAMPLE, 16)
        bits = int(stored[0] if isinstance(stored, tuple) else stored)
    top = (1 << bits) - 1
    table = np.minimum(np.arange(1 << 16) * 255.0 / top + 0.5, 255.0).astype(np.uint8)
    return table[::-1] if tags.get(_PHOTOMETRIC) == 0 else table


def _range(image: Image.Image) -> tuple[float, float]:
    """Black and the distance to white of values whose scale no header declares: the least usual that holds them all."""
    low, high = 0.0, 0.0
    for number, (_, strip) in enumerate(strips(image)):
        values = _finite(strip)
        if values.size:
            least, most = float(values.min()), float(values.max())
            low, high = (least, most) if number == 0 else (min(low, least), max(high, most))
    scales = [65535.0] if image.format == "PPM" else [255.0, 65535.0]
    if image.mode == "F":
        scales.insert(0, 1.0)
    top = next((scale for scale in scales if low >= 0.0 and high <= scale), None)
    return (0.0, top) if top is not None else (low, high - low or 1.0)


def _finite(strip: Image.Image) -> NDArray[np.float32]:
    values = np.array(strip, dtype=np.float32)
    finite = np.isfinite(values)
    if not finite.all():
        values[~finite] = 0.0
    return values
