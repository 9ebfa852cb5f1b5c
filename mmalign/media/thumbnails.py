"""Small pictures of large ones, for sheets, pages and notebooks."""

from __future__ import annotations

import io

from PIL import Image

from mmalign.errors import MMAlignError
from mmalign.media.decoding import MAX_PIXELS, decode_image
from mmalign.media.policy import MediaPolicy

_QUALITY = 85
# Nothing is fetched because a notebook shows a value, and nothing is waited for long.
_LOCAL = MediaPolicy(allow_network=False, max_bytes=1 << 26)
_LOCAL_PIXELS = 100_000_000


def thumbnail(
    uri: str, *, size: int, policy: MediaPolicy | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image | None:
    """A picture, scaled to fit a square.

    Args:
        uri: Where it is.
        size: Longest side, in pixels.
        policy: What may be read; None for that of the environment.
        max_pixels: As for `decode_image`.

    Returns:
        An RGB picture, or None where it cannot be read.
    """
    try:
        picture = decode_image(uri, at_least=size, policy=policy, max_pixels=max_pixels).image
    except MMAlignError:
        return None
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def local_jpeg(uri: str, size: int) -> bytes | None:
    """A picture that lies on this machine, scaled to fit a square; nothing is fetched for it.

    Args:
        uri: Where it is.
        size: Longest side, in pixels.

    Returns:
        The bytes of a JPEG, or None where there is no such picture, or one of more than 64 MiB or 100 megapixels.
    """
    picture = thumbnail(uri, size=size, policy=_LOCAL, max_pixels=_LOCAL_PIXELS)
    return None if picture is None else as_jpeg(picture)


def as_jpeg(picture: Image.Image) -> bytes:
    """The bytes of a JPEG.

    Args:
        picture: Of mode RGB.
    """
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
