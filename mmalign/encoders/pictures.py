"""One picture, as the encoders that run on torch take it: upright and RGB."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

from PIL import Image

from mmalign.encoders.base import ImageLike
from mmalign.errors import DecodeError, InputError
from mmalign.media import decode_image, parse_embedded
from mmalign.utils import to_rgb


def load_rgb(image: ImageLike) -> Image.Image:
    """Return a picture as RGB: a path is decoded as `index` decodes it, transparency is laid on white.

    Args:
        image: A decoded picture of any PIL mode, or the path or `file://` URI of one, also of one that is stored in a
            Parquet file. 16-bit grey is scaled, and a colour profile is applied.

    Returns:
        The picture in mode RGB; an RGB picture is returned as it is.

    Raises:
        DecodeError: The path is missing, is not a picture, is truncated, or holds more pixels than are decoded.
        InputError: Neither a picture nor a path.

    Example:
        >>> load_rgb(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, str | Path):
        raise InputError(f"expected a PIL picture or a path, got {type(image).__name__}")
    if parse_embedded(str(image)) is not None:
        return decode_image(str(image)).image
    local = re.match(r"file://(?:localhost)?(?=/)", str(image), re.IGNORECASE)
    # What mmalign prints for names that are not printable.
    path = os.fsdecode(unquote_to_bytes(str(image)[local.end() :])) if local else image
    uri = str(image)
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DecodeError(uri, "there is no such file") from error
    except IsADirectoryError as error:
        raise DecodeError(uri, "a folder, not a picture") from error
    except (OSError, ValueError) as error:
        raise DecodeError(uri, f"cannot be read: {error}") from error
    if not data:
        raise DecodeError(uri, "not a picture: an empty file (0 bytes)")
    try:
        return decode_image(data, uri=uri).image
    except DecodeError as error:
        raise DecodeError(uri, f"cannot be decoded: {error.reason}") from error
