"""What decoding a picture will ask for: pixels, memory and work, by its header and before any of it is taken."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmalign.media.av1 import largest_frame
from mmalign.media.jpeg import jpeg_frame
from mmalign.media.jpeg2000 import codestream
from mmalign.media.tiff import tiff_layout
from mmalign.utils import STRIP_PIXELS

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_SCAN_PIXELS = 4_000_000_000
"""Most pixels that all scans of a progressive JPEG may go over together: a few seconds' work."""

MAX_SLOW_PIXELS = 50_000_000
"""Most pixels of the formats that Pillow decodes in Python, byte by byte: QOI, and rare kinds of BMP and PNM."""

_LEAST_SCAN_PIXELS = 1 << 16
_SLOW_DECODERS = frozenset({"qoi", "bmp_rle", "ppm", "ppm_plain"})
_FEW_TILES = 4096
_LEAST_TILE_PIXELS = 1024
_MOST_PART_PIXELS = 1 << 24
_FIXED_BYTES = 8 << 20
_STRIP_BYTES = 24
_PNM_HEADER = re.compile(rb"P[1-6f](?:\s|#[^\r\n]*[\r\n])+\d+(?:\s|#[^\r\n]*[\r\n])+\d+(?:\s|#[^\r\n]*[\r\n])+[-+.\d]")
_PNM_HEADER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Demand:
    """What decoding a picture will ask for.

    Attributes:
        extents: What is held whole at some time, each with its name ("" for the picture itself), width and height.
        peak_bytes: Memory at the most, beside the file's own bytes.
        refusal: Why it is not decoded although its pixels are few enough; None where it is.
    """

    extents: tuple[tuple[str, int, int], ...]
    peak_bytes: int
    refusal: str | None = None


def early_size(kind: str, data: bytes) -> tuple[int, int] | None:
    """Width and height of the formats whose plugins take memory, or look at global limits, when they open a file.

    Args:
        kind: What `sniff` said.
        data: The file's bytes.

    Returns:
        `(width, height)` in pixels; None for all other formats.
    """
    if kind == "WebP":
        return _webp_size(data)
    if kind == "GIF":
        return _gif_size(data)
    return None


def early_refusal(kind: str, data: bytes) -> str | None:
    """Why a file is not even opened.

    Args:
        kind: What `sniff` said.
        data: The file's bytes.

    Returns:
        The reason; None where it is opened.
    """
    if kind == "PNM" and data[1:2] not in b"14" and not _PNM_HEADER.match(data[:_PNM_HEADER_BYTES]):
        return "damaged or truncated PNM: its header is not whole within the first 64 KiB"
    return None


def demand(kind: str, data: bytes, image: ImageFile, *, turned: bool, converted: bool) -> Demand:
    """What decoding an opened picture will ask for.

    Args:
        kind: What `sniff` said.
        data: The file's bytes.
        image: The opened picture, not loaded yet.
        turned: Whether it may have to be turned upright.
        converted: Whether its colours have to be converted although they are RGB.

    Returns:
        The demand; an estimate where it is about memory, and rather too high than too low.
    """
    width, height = image.size
    extents = [("", width, height)]
    pixels = width * height
    converted = converted or image.mode != "RGB" or "transparency" in image.info
    stored = _mode_bytes(image.mode)
    # Deep grey becomes grey of one byte and is let go before that becomes RGB.
    deep = image.mode in {"I", "F"} or image.mode.startswith("I;16")
    each = (max(stored + 1, 5) if deep else stored + 4 * converted) + 4 * turned
    extra, refusal = 0, None
    match kind:
        case "JPEG":
            extra, refusal = _jpeg(data, pixels)
        case "TIFF":
            more, extra, refusal = _tiff(data)
            extents += more
        case "JPEG 2000":
            more, extra, refusal = _jpeg2000(data)
            extents += more
        case "WebP":
            # The animation's two canvases, the frame as bytes, and what the lossless decoder holds.
            extra = 16 * pixels
        case "AVIF" | "HEIC":
            # Luma and chroma of up to 16 bits, with a reference frame, and the frame as bytes.
            extra = 14 * pixels
            if kind == "AVIF":
                frame = largest_frame(data)
                extents.append(("a frame of ", *frame))
                refusal = _larger_than_needed("AVIF", "frames", frame, image.size)
        case "GIF":
            extra = 4 * pixels
    slow = next((tile[0] for tile in getattr(image, "tile", ()) if tile[0] in _SLOW_DECODERS), None)
    if slow is not None:
        extra = 8 * pixels
        if pixels > MAX_SLOW_PIXELS:
            refusal = (
                f"too many pixels for its format: {width} x {height} is {pixels / 1e6:,.1f} million, and pictures of "
                f"this kind are decoded slowly, up to {MAX_SLOW_PIXELS / 1e6:,.0f} million; convert it to PNG first"
            )
    strip = _STRIP_BYTES * min(pixels, STRIP_PIXELS) if converted else 0
    peak = pixels * each + extra + strip + _FIXED_BYTES
    return Demand(tuple(extents), peak, refusal)


def _mode_bytes(mode: str) -> int:
    if mode in {"1", "L", "P"}:
        return 1
    return 2 if mode.startswith("I;16") else 4


def _jpeg(data: bytes, pixels: int) -> tuple[int, str | None]:
    frame = jpeg_frame(data)
    if not frame.buffered:
        return 0, None
    work = frame.scans * max(pixels, frame.width * frame.height, _LEAST_SCAN_PIXELS)
    refusal = None
    if work > MAX_SCAN_PIXELS:
        refusal = (
            f"too many scans: {frame.scans:,} over {frame.width} x {frame.height} pixels would take too long; "
            "save it again as an ordinary JPEG"
        )
    # Coefficients of 16 bits, of all colours.
    return 2 * frame.components * frame.width * frame.height, refusal


def _tiff(data: bytes) -> tuple[list[tuple[str, int, int]], int, str | None]:
    layout = tiff_layout(data)
    refusal = None
    if layout.raw_photo:
        refusal = "a camera's raw photo (DNG), not a finished picture; export it as JPEG first"
    extents = [("", layout.width, layout.height)]
    if not layout.compressed:
        return extents, 0, refusal
    width, height = layout.block
    extents.append(("a tile or strip of ", width, height))
    refusal = refusal or _larger_than_needed("TIFF", "tiles", layout.block, (layout.width, layout.height))
    # Its samples as they are packed, the same again as they are unpacked, and what libtiff reads of the file.
    block = width * height * max(layout.samples * layout.bits // 8, 4)
    return extents, 2 * block + 2 * min(len(data), block), refusal


def _larger_than_needed(kind: str, what: str, part: tuple[int, int], whole: tuple[int, int]) -> str | None:
    if part[0] * part[1] <= _MOST_PART_PIXELS + 4 * whole[0] * whole[1]:
        return None
    return f"damaged {kind}: {what} of {part[0]} x {part[1]} pixels for a picture of {whole[0]} x {whole[1]}"


def _jpeg2000(data: bytes) -> tuple[list[tuple[str, int, int]], int, str | None]:
    stream = codestream(data)
    width, height = stream.width, stream.height
    tile = stream.tile[0] * stream.tile[1]
    refusal = None
    if stream.tiles > _FEW_TILES + width * height // _LEAST_TILE_PIXELS:
        refusal = f"damaged JPEG 2000: {stream.tiles:,} tiles for {width} x {height} pixels"
    elif stream.overhead > (64 << 20) + 8 * stream.components * width * height:
        refusal = f"damaged JPEG 2000: lists of {stream.overhead / 1e6:,.0f} MB for {width} x {height} pixels"
    # 32 bits a sample, and as many as it was packed in.
    return [("", width, height)], 6 * stream.components * tile + stream.overhead + 2 * len(data), refusal


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height that a WebP file's header declares; (0, 0) where the header is damaged."""
    chunk = data[12:16]
    if len(data) < 30:
        return 0, 0
    if chunk == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
    return 0, 0


def _gif_size(data: bytes) -> tuple[int, int]:
    """Width and height of a GIF: of its screen, or of its first frame where that reaches beyond."""
    width, height = int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")
    for left, top, across, down in _gif_frames(data):
        return max(width, left + across), max(height, top + down)
    return width, height


def _gif_frames(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    at = 13
    if len(data) > 10 and data[10] & 128:
        at += 3 << (data[10] & 7) + 1
    while at + 10 <= len(data):
        if data[at] == 0x2C:
            box: Any = [int.from_bytes(data[at + n : at + n + 2], "little") for n in (1, 3, 5, 7)]
            yield tuple(box)
            return
        if data[at] != 0x21:
            at += 1
            continue
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
