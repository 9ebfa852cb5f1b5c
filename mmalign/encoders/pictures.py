"""One picture, as the encoders that run on torch take it: upright and RGB."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote_to_bytes

from PIL import Image, ImageOps, UnidentifiedImageError

from mmalign.encoders.base import ImageLike
from mmalign.errors import DecodeError, InputError
from mmalign.pixels import to_rgb


def load_rgb(image: ImageLike) -> Image.Image:
    """Return a picture as RGB: a path is decoded and turned upright, transparency is laid on white.

    Args:
        image: A decoded picture of any PIL mode, or the path or `file://` URI of one. 16-bit grey is scaled.

    Returns:
        The picture in mode RGB; an RGB picture is returned as it is.

    Raises:
        DecodeError: The path is missing, is not a picture, is truncated, or holds more pixels than PIL allows.
        InputError: Neither a picture nor a path.

    Example:
        >>> load_rgb(Image.new("LA", (2, 2), (0, 0))).getpixel((0, 0))
        (255, 255, 255)
    """
    if isinstance(image, Image.Image):
        return to_rgb(image)
    if not isinstance(image, str | Path):
        raise InputError(f"expected a PIL picture or a path, got {type(image).__name__}")
    local = re.match(r"file://(?:localhost)?(?=/)", str(image), re.IGNORECASE)
    # What mmalign prints for names that are not printable.
    path = os.fsdecode(unquote_to_bytes(str(image)[local.end() :])) if local else image
    try:
        with Image.open(path) as opened:
            return to_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError as error:
        raise DecodeError(str(image), "there is no such file") from error
    except UnidentifiedImageError as error:
        raise DecodeError(str(image), "not a picture in a format that PIL reads") from error
    except Image.DecompressionBombError as error:
        raise DecodeError(str(image), f"too many pixels: {error}") from error
    except IsADirectoryError as error:
        raise DecodeError(str(image), "a folder, not a picture") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        # SyntaxError: what PIL raises for a broken PNG.
        raise DecodeError(str(image), f"cannot be decoded: {error}") from error
