"""Work on a large picture a strip at a time, so that only one strip is held twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from PIL import Image

STRIP_PIXELS = 1 << 22
"""Most pixels of a strip, unless one row is longer."""


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Cut a picture into strips of whole rows.

    Args:
        image: The picture; not changed.

    Yields:
        The first row of each strip, and the strip; a small picture is its own only strip.
    """
    width, height = image.size
    rows = max(1, STRIP_PIXELS // max(width, 1))
    if rows >= height:
        yield 0, image
        return
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Convert a picture strip by strip.

    Args:
        image: The picture; not changed.
        convert: Converts a strip to a picture of the same size; every strip to the same mode.

    Returns:
        The converted picture.
    """
    result: Image.Image | None = None
    for top, strip in strips(image):
        converted = convert(strip)
        if converted.size == image.size:
            return converted
        if result is None:
            result = Image.new(converted.mode, image.size)
        result.paste(converted, (0, top))
    assert result is not None, "a picture has rows"
    return result
