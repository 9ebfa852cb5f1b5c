"""Pictures of any mode as 8-bit sRGB."""

from __future__ import annotations

from PIL import Image

from mmalign.utils.pixels.depth import grey_of
from mmalign.utils.pixels.profiles import profile_conversion
from mmalign.utils.pixels.strips import by_strips

_WHITE = (255, 255, 255)


def to_rgb(image: Image.Image, *, bits: int | None = None, consume: bool = False) -> Image.Image:
    """Convert a decoded picture to 8-bit sRGB: transparency over white, deep grey scaled, its colour profile applied.

    Args:
        image: A picture of any mode; not changed, unless consumed.
        bits: How many of 16 bits a grey picture uses, where its file says so.
        consume: Whether the picture may be emptied as soon as it is not needed any more, to save memory.

    Returns:
        The picture in mode RGB; an opaque RGB picture in sRGB is returned as it is.

    Example:
        >>> to_rgb(Image.new("LA", (1, 1), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        grey = grey_of(image, bits)
        grey.info = dict(image.info)
        grey.info.pop("transparency", None)
        if consume:
            image.close()
        image, mode = grey, "L"
    profiled = profile_conversion(image)
    if image.has_transparency_data or mode in {"RGBa", "La"}:
        return by_strips(image, lambda strip: _over_white(strip, profiled))
    if profiled is not None:
        return by_strips(image, profiled)
    return image if mode == "RGB" else image.convert("RGB")


def _over_white(image: Image.Image, profiled: object) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    colours = profiled(image) if callable(profiled) else rgba
    canvas = Image.new("RGB", rgba.size, _WHITE)
    canvas.paste(colours, mask=rgba.getchannel("A"))
    return canvas
