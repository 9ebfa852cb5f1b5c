"""Small pictures of items, for contact sheets and pages."""

from __future__ import annotations

from PIL import Image

from mmalign.errors import DecodeError
from mmalign.media import decode_image
from mmalign.types import Hit


def thumbnail(uri: str, *, size: int) -> Image.Image | None:
    """An item's picture, scaled to fit a square.

    Args:
        uri: Where it is.
        size: Longest side in pixels.

    Returns:
        An RGB picture, or None where it cannot be read any more.
    """
    try:
        picture = decode_image(uri, at_least=size).image
    except DecodeError:
        return None
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def name_of(hit: Hit) -> str:
    """What a hit is called in a few letters: the last part of its URI, else its id."""
    return hit.uri.rsplit("/", 1)[-1] or hit.id
