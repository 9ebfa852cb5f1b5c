"""What the tests of the media room share beside fixtures."""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.errors import DecodeError
from mmalign.media.decoding import decode_image

NOBODY = 65534

# Format, how to save it, and how far a pixel may be off.
FORMATS: list[tuple[str, dict[str, Any], float]] = [
    ("JPEG", {"quality": 95}, 6),
    ("JPEG", {"quality": 95, "progressive": True}, 6),
    ("PNG", {}, 0),
    ("GIF", {}, 12),
    ("WEBP", {"lossless": True}, 0),
    ("WEBP", {"quality": 95}, 10),
    ("BMP", {}, 0),
    ("PPM", {}, 0),
    ("TIFF", {}, 0),
    ("TIFF", {"compression": "tiff_lzw"}, 0),
    ("AVIF", {"quality": 95}, 10),
    ("HEIF", {"quality": 95}, 10),
    ("JPEG2000", {}, 0),
    ("QOI", {}, 0),
]


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a picture in a format."""
    if kind == "HEIF":
        import pillow_heif

        file = BytesIO()
        pillow_heif.from_pillow(image).save(file, **options)
        return file.getvalue()
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def pixels(source: Any, **options: Any) -> np.ndarray[Any, Any]:
    image = decode_image(source, **options).image
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def reason(source: Any, **options: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        decode_image(source, **options)
    return caught.value.reason


def png(size: tuple[int, int], depth: int, colour: int, raw: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG made by hand: `raw` is the rows, each after its filter byte."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


def unprivileged(function: Callable[[], Any]) -> Any:
    """What `function` returns in a process for which file permissions count: as another user where we are root."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Forking beside threads is what newer Pythons warn of; the child only runs `function`.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            result: Any = function()
        except BaseException as error:
            result = repr(error)
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(pickle.dumps(result))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        result = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    return result
