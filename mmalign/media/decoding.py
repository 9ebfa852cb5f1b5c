"""Safe decoding: bytes of any picture format to an upright 8-bit RGB picture.

Pillow's plugin classes are used directly rather than through `Image.open`. That call compares the size with a global
limit and warns through the global `warnings` filters, neither of which can be set for one thread; and it tries
formats (EPS, WMF) that start other programs. Here the size is compared with the caller's own limit.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import Any

from PIL import Image

from mmalign.errors import DecodeError, InputError
from mmalign.media.formats import ENDLESS, decoder_says, ends_early, open_image, refusal, sniff, webp_size
from mmalign.media.policy import MediaPolicy
from mmalign.media.reading import read_media
from mmalign.media.uris import to_uri
from mmalign.pixels import to_rgb

MAX_PIXELS = 178_956_970
"""Most pixels that are decoded by default: what Pillow, too, refuses beyond (about 0.7 GB in memory)."""

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded picture.

    Attributes:
        image: Upright 8-bit RGB; smaller than the original where `at_least` allowed it.
        width: Width of the upright original, in pixels.
        height: Height of the upright original, in pixels.
    """

    image: Image.Image
    width: int
    height: int


def decode_image(
    source: bytes | str | os.PathLike[str] | Image.Image,
    *,
    uri: str | None = None,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    policy: MediaPolicy | None = None,
) -> Decoded:
    """Decode a picture to upright 8-bit RGB: first frame, transparency over white, 16-bit and float grey scaled.

    Safe to call from many threads; changes no global state.

    Args:
        source: The bytes of a file, a path, a URI, an http(s) URL, or a Pillow image.
        uri: What to call the picture in errors, where `source` does not say it.
        max_pixels: Refuse a picture with more pixels, judged by its header before anything is decoded.
        at_least: Allow a reduced picture whose shorter side is still at least this many pixels (a JPEG then
            decodes several times faster); None keeps the full size. A smaller original is not enlarged.
        policy: What may be read where `source` names a file or a URL; None for that of the environment.

    Returns:
        The picture, with the size of the original.

    Raises:
        DecodeError: It cannot be read or decoded; `reason` says why.
        InputError: `max_pixels` or `at_least` is below 1.

    Example:
        >>> decode_image(Image.new("LA", (4, 3), (0, 0))).image.getpixel((0, 0))
        (255, 255, 255)
    """
    for name, value in (("max_pixels", max_pixels), ("at_least", at_least)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if isinstance(source, Image.Image):
        uri = uri or getattr(source, "filename", None) or "a Pillow image"
        return _guarded(uri, source, None, b"", max_pixels, at_least)
    if isinstance(source, bytes):
        data, uri = source, uri or "a picture in memory"
        if not data:
            raise DecodeError(uri, "empty file (0 bytes)")
    else:
        uri = to_uri(source)
        data = read_media(uri, policy=policy).data
    kind = sniff(data)
    if kind is None:
        raise DecodeError(uri, refusal(data))
    return _guarded(uri, None, kind, data, max_pixels, at_least)


def _guarded(
    uri: str, image: Image.Image | None, kind: str | None, data: bytes, max_pixels: int, at_least: int | None
) -> Decoded:
    name = kind or getattr(image, "format", None) or "picture"
    try:
        if image is not None:
            return _decode(uri, image, max_pixels, at_least, draft=False)
        if kind == "WebP":
            # Its plugin allocates the whole canvas when it opens the file.
            _check_pixels(uri, webp_size(data), max_pixels)
        with open_image(str(kind), io.BytesIO(data), uri) as opened:
            return _decode(uri, opened, max_pixels, at_least, draft=kind == "JPEG")
    except DecodeError:
        raise
    except MemoryError as error:
        raise DecodeError(uri, f"not enough memory to decode this {name}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodeError(uri, f"too many pixels: {error}") from error
    except Exception as error:
        # Plugins raise anything on damaged bytes: OSError, SyntaxError, struct.error, KeyError, ZeroDivisionError...
        if kind is not None and (ends_early(kind, data) or "truncated" in str(error)):
            raise DecodeError(uri, f"truncated {name}: the file ends too early") from error
        if kind in ENDLESS:
            raise DecodeError(uri, f"truncated or damaged {name}: {decoder_says(kind, error)}") from error
        raise DecodeError(uri, f"damaged {name}: {decoder_says(kind, error)}") from error


def _check_pixels(uri: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise DecodeError(
            uri,
            f"too many pixels: {width} x {height} is {width * height / 1e6:,.1f} million, "
            f"the limit is {max_pixels / 1e6:,.1f} million; store a smaller copy, or raise max_pixels",
        )


def _decode(uri: str, image: Image.Image, max_pixels: int, at_least: int | None, *, draft: bool) -> Decoded:
    size = image.size
    _check_pixels(uri, size, max_pixels)
    if draft and at_least is not None:
        image.draft(None, (at_least, at_least))
    reduced = image.size != size
    image.load()
    upright = _UPRIGHT.get(_orientation(image))
    rgb = to_rgb(image)
    if upright is not None:
        rgb = rgb.transpose(upright)
    # A reduced picture may be reduced for good: its original's size is the header's, turned like the picture.
    sideways = upright in {_UPRIGHT[5], _UPRIGHT[6], _UPRIGHT[7], _UPRIGHT[8]}
    width, height = (size[::-1] if sideways else size) if reduced else rgb.size
    factor = 1 if at_least is None else min(rgb.size) // at_least
    if factor > 1:
        rgb = rgb.reduce(factor)
    if rgb is image:
        # The caller's own picture stays the caller's, and an opened file does not live on with its picture.
        rgb = rgb.copy()
    # Without the EXIF block, so that nobody turns the picture a second time.
    rgb.info = {}
    return Decoded(rgb, width, height)


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION)
    except Exception:
        # A damaged EXIF block says nothing about the picture itself.
        return None
