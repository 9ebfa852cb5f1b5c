"""Picture formats: which one some bytes are, by their first bytes, and the Pillow class that decodes it.

Pillow itself is imported only to decode, so that scanning a folder does not pay for it.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from mmalign.errors import DecodeError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jpg_large", ".jpg-large", ".png_large", ".png-large"}
    | {".png", ".apng", ".gif", ".webp", ".avif", ".heic", ".heif", ".hif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"}
    | {".qoi", ".ico", ".cur", ".tga"}
)
"""Lower-case endings of the file names that are taken for pictures."""

_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"qoif", "QOI"),
)
# JpegImageFile also for multi-picture files: their first picture is what is wanted.
_CLASSES = {
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "WebP": ("PIL.WebPImagePlugin", "WebPImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "PNM": ("PIL.PpmImagePlugin", "PpmImageFile"),
    "JPEG 2000": ("PIL.Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "QOI": ("PIL.QoiImagePlugin", "QoiImageFile"),
    "TGA": ("PIL.TgaImagePlugin", "TgaImageFile"),
}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_ICONS = {b"\0\0\1\0": "ICO", b"\0\0\2\0": "CUR"}
_DIB_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
_PNM = re.compile(rb"P[1-6f]\s+(?:#|\d)")
_TARGA_SUFFIXES = frozenset({".tga", ".icb", ".vda", ".vst"})
ENDLESS = frozenset({"BMP", "PNM", "TIFF", "QOI", "JPEG 2000", "ICO", "CUR", "TGA"})
"""Formats whose files do not tell whether they were cut off."""

_QUOTED = re.compile(r"""b?(['"]).*?\1""", re.DOTALL)
_TAILS = {"JPEG": b"\xff\xd9", "PNG": b"IEND", "GIF": b";"}


def sniff(data: bytes, name: str = "") -> str | None:
    """The format of a picture, by its first bytes.

    Args:
        data: The file's bytes; its first 64 are enough for every format that begins with a mark of its own.
        name: The file's name or URI. Targa files begin with no mark: they are known by their last bytes, or by a
            name that ends as theirs do with a header that makes sense.

    Returns:
        A name such as "JPEG" that `open_image` knows, or None for what is no picture.

    Example:
        >>> sniff(b"GIF89a...")
        'GIF'
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp":
        brands = {data[at : at + 4] for at in range(8, min(int.from_bytes(data[:4], "big"), 256), 4)}
        if brands & {b"avif", b"avis"}:
            return "AVIF"
        return "HEIC" if brands & _HEIF_BRANDS else None
    if _PNM.match(data[:64]):
        return "PNM"
    # Two letters are a weak mark, with which words begin as well.
    if data[:2] == b"BM" and (len(data) < 18 or int.from_bytes(data[14:18], "little") in _DIB_HEADERS):
        return "BMP"
    if data[:4] in _ICONS and _is_icon(data):
        return _ICONS[data[:4]]
    kind = next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
    return kind or ("TGA" if _is_targa(data, name) else None)


def _is_icon(data: bytes) -> bool:
    count = int.from_bytes(data[4:6], "little")
    if len(data) < 22:
        return count > 0
    size, offset = int.from_bytes(data[14:18], "little"), int.from_bytes(data[18:22], "little")
    # Reserved; and, of icons, how many planes and bits a pixel. A cursor has its hot spot there.
    plain = data[9] in {0, 255} and (data[2] == 2 or (data[10] < 2 and data[12] <= 32 and not data[11] | data[13]))
    return plain and count > 0 and size > 0 and offset >= 6 + 16 * count


def _is_targa(data: bytes, name: str) -> bool:
    if len(data) < 18:
        return False
    named = PurePosixPath(name.partition("?")[0]).suffix.lower() in _TARGA_SUFFIXES
    if not named and not data.endswith(b"TRUEVISION-XFILE.\0"):
        return False
    colours, kind, depth = data[1], data[2], data[16]
    width, height = int.from_bytes(data[12:14], "little"), int.from_bytes(data[14:16], "little")
    known = colours in {0, 1} and kind in {1, 2, 3, 9, 10, 11} and depth in {1, 8, 15, 16, 24, 32}
    return known and width > 0 and height > 0


def format_refusal(data: bytes) -> str:
    """Why bytes that `sniff` does not know are not decoded.

    Args:
        data: The file's bytes, at least one.

    Returns:
        One line, with the remedy where there is one.
    """
    head = data[:1024].lower()
    if b"<svg" in head:
        return "SVG is a drawing, not a raster picture; convert it to PNG first"
    if b"<html" in head or b"<!doctype html" in head:
        return "a web page, not a picture"
    if data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "JPEG XL cannot be decoded; convert it to PNG or JPEG first"
    if data.startswith(b"8BPS"):
        return "a Photoshop document; export it as PNG or JPEG first"
    if data.startswith(b"%PDF"):
        return "a PDF document, not a picture; convert its pages to PNG first"
    # Not how it begins: whoever may name a file is not to learn what is in it.
    return "not a picture, or of a format that is not known"


def decoder_says(kind: str | None, error: Exception) -> str:
    """What a decoder says of a damaged file, without what it repeats of the file.

    Args:
        kind: What `sniff` said.
        error: What the decoder raised.

    Returns:
        One line.
    """
    # The header of a PNM file is text, of which any file may have some.
    text = "" if kind == "PNM" else _QUOTED.sub("...", str(error))
    return text if text.isprintable() and text else type(error).__name__


def open_image(kind: str, file: BytesIO, uri: str) -> ImageFile:
    """Read a picture's header; its pixels are decoded when it is loaded.

    Args:
        kind: What `sniff` said.
        file: The file's bytes; owned by the picture from here on.
        uri: What to call the picture in errors.

    Returns:
        The opened picture.

    Raises:
        DecodeError: The decoder for this format is not installed.
        ImportError: It is installed, and cannot be loaded.
        Exception: Whatever Pillow raises on a damaged header.
    """
    match kind:
        case "HEIC":
            try:
                opener: Any = import_module("pillow_heif").HeifImageFile
            except ModuleNotFoundError as error:
                if error.name != "pillow_heif":
                    raise
                reason = "HEIC needs a further package; install it with: pip install 'mmalign[heif]'"
                raise DecodeError(uri, reason) from error
            return cast("ImageFile", opener(file))
        case "AVIF":
            from PIL import AvifImagePlugin

            if not AvifImagePlugin.SUPPORTED:
                reason = "this build of Pillow cannot decode AVIF; install one that can: pip install --upgrade pillow"
                raise DecodeError(uri, reason)
            return AvifImagePlugin.AvifImageFile(file)
        case "TIFF":
            return _tiff_class()(file)
        case "ICO" | "CUR":
            return cast("ImageFile", import_module("PIL.IcoImagePlugin").IcoFile(file).frame(0))
    module, name = _CLASSES[kind]
    return cast("ImageFile", getattr(import_module(module), name)(file))


@cache
def _tiff_class() -> type[ImageFile]:
    from PIL import Image, ImageFile
    from PIL.TiffImagePlugin import TiffImageFile

    class Tiff(TiffImageFile):
        def load_prepare(self) -> None:
            # Pillow's own version repeats the check of the global pixel limit here, with a warning. `_tile_size`
            # is Pillow's, too.
            if self._im is None:
                self.im = Image.new(self.mode, getattr(self, "_tile_size", self.size), None).im
            ImageFile.ImageFile.load_prepare(self)

    return Tiff


def ends_early(kind: str, data: bytes) -> bool:
    """Whether a file that failed to decode looks cut off, rather than damaged.

    Args:
        kind: What `sniff` said.
        data: The file's bytes.

    Returns:
        True where the format's own end is missing; False, too, for the formats in `ENDLESS`, which have none.
    """
    if kind in _TAILS:
        return _TAILS[kind] not in data[-16:]
    if kind == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind in {"HEIC", "AVIF"}:
        at = 0
        while at + 8 <= len(data):
            size = int.from_bytes(data[at : at + 4], "big")
            if size < 8:
                # 0 and 1 mean "to the end" and "64 bits": the last box either way.
                return False
            at += size
        return at != len(data)
    return False
