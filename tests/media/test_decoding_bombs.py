"""Small files that declare large things are refused before memory or time is taken for them."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.media.av1 import largest_frame
from mmalign.media.decoding import decode_image
from mmalign.media.demand import MAX_SCAN_PIXELS, MAX_SLOW_PIXELS
from mmalign.media.jpeg import jpeg_frame
from mmalign.media.jpeg2000 import codestream
from mmalign.media.tiff import tiff_layout
from tests.media.media_helpers import FORMATS, encode, png, reason

MEASURE = """
import re, sys
from mmalign.errors import DecodeError
from mmalign.media.decoding import decode_image
from PIL import (AvifImagePlugin, GifImagePlugin, IcoImagePlugin, Jpeg2KImagePlugin, JpegImagePlugin, PngImagePlugin,
                 QoiImagePlugin, TiffImagePlugin, WebPImagePlugin)
data = open(sys.argv[1], "rb").read()
kilobytes = lambda name: int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = kilobytes("VmHWM")
try:
    said = str(decode_image(data).image.size)
except DecodeError as error:
    said = error.reason
print(kilobytes("VmHWM") - before, said)
"""


def peak_and_answer(data: bytes, tmp_path: Path) -> tuple[float, str]:
    """Megabytes that a process of its own takes to decode, and what decoding said."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell how much memory a process took")
    path = tmp_path / "bomb"
    path.write_bytes(data)
    run = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    kilobytes, _, said = run.stdout.strip().partition(" ")
    return int(kilobytes) / 1024, said


def tiff(tags: list[tuple[int, int, int]], data: bytes, *, order: str = "<", big: bool = False) -> bytes:
    """A TIFF made by hand; `tags` are (number, type, value) in the order of the file, and may repeat."""
    wide, head = ("Q", 16) if big else ("I", 8)
    entries = b""
    size = (
        head + struct.calcsize(order + ("Q" if big else "H")) + len(tags) * (20 if big else 12) + struct.calcsize(wide)
    )
    for tag, kind, value in [*tags]:
        value = size if value == -1 else value
        code = {1: "B", 3: "H", 4: "I", 16: "Q"}[kind]
        packed = struct.pack(order + code, value)
        entries += struct.pack(order + "HH" + wide, tag, kind, 1) + packed.ljust(struct.calcsize(wide), b"\0")
    start = (b"MM" if order == ">" else b"II") + struct.pack(order + "H", 43 if big else 42)
    start += struct.pack(order + "HHQ", 8, 0, 16) if big else struct.pack(order + "I", 8)
    count = struct.pack(order + ("Q" if big else "H"), len(tags))
    return start + count + entries + bytes(struct.calcsize(wide)) + data


EMPTY = zlib.compress(b"")


def tiled(
    side: int, *, compression: int = 8, bits: int = 8, samples: int = 1, extra: Any = ()
) -> list[tuple[int, int, int]]:
    photometric = 2 if samples > 2 else 1
    tags = [(256, 4, 10), (257, 4, 10), (258, 3, bits), (259, 3, compression), (262, 3, photometric), (277, 3, samples),
            (322, 4, side), (323, 4, side), (324, 4, -1), (325, 4, len(EMPTY))]  # fmt: skip
    return sorted([*tags, *extra], key=lambda tag: tag[0])


BIG = 20_000
TIFFS: dict[str, bytes] = {
    "tile": tiff(tiled(BIG), EMPTY),
    "tile, other byte order": tiff(tiled(BIG), EMPTY, order=">"),
    "tile, BigTIFF": tiff(tiled(BIG), EMPTY, big=True),
    "tile, LZW": tiff(tiled(BIG, compression=5), b"\x80\x00\x40"),
    "tile, 16 bits of 4": tiff(tiled(12_000, bits=16, samples=4), EMPTY),
    "tile within the limit": tiff(tiled(13_000), EMPTY),
    "width twice, the small one last": tiff([(256, 4, 10), *tiled(BIG), (322, 4, 16), (323, 4, 16)], EMPTY),
    "one side long": tiff([t if t[0] != 322 else (322, 4, 1 << 28) for t in tiled(16)], EMPTY),
    "tile of JPEG": tiff(tiled(BIG, compression=7), b"\xff\xd8\xff\xd9"),
    "tile of planes": tiff(tiled(BIG, samples=3, extra=[(284, 3, 2)]), EMPTY),
}


@pytest.mark.parametrize("name", TIFFS)
def test_a_tiff_of_a_few_pixels_with_large_tiles_takes_no_memory(name: str, tmp_path: Path) -> None:
    data = TIFFS[name]
    assert len(data) < 400
    megabytes, said = peak_and_answer(data, tmp_path)
    assert megabytes < 24
    assert "too many pixels: a tile or strip of" in said or "damaged TIFF: tiles of" in said


def test_strips_count_no_more_rows_than_the_picture_has(tmp_path: Path, photo: Image.Image) -> None:
    tags = [(256, 4, 40), (257, 4, 30), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, -1), (277, 3, 1),
            (278, 4, 2**32 - 1), (279, 4, 0)]  # fmt: skip
    packed = zlib.compress(bytes(range(40)) * 30)
    data = tiff([(*tag[:2], len(packed) if tag[0] == 279 else tag[2]) for tag in tags], packed)
    assert np.asarray(decode_image(data).image)[7, :, 0].tolist() == list(range(40))
    # A strip that claims to be longer than the file, and one that unpacks to more than it should.
    packed = zlib.compress(bytes(50 << 20), 9)
    for claimed in (len(packed), 2**31):
        data = tiff([(*tag[:2], claimed if tag[0] == 279 else tag[2]) for tag in tags], packed)
        megabytes, _ = peak_and_answer(data, tmp_path)
        assert megabytes < 24
    assert tiff_layout(data).block == (40, 30)
    real = tiff_layout(encode(photo, "TIFF", compression="tiff_lzw"))
    assert (real.width, real.height, real.samples, real.bits, real.compressed) == (96, 64, 3, 8, True)
    assert tiff_layout(b"II*\0").width == 0


def test_a_usual_tile_that_is_larger_than_its_picture_is_decoded() -> None:
    packed = zlib.compress(bytes(range(256)) * 256)
    tags = [(*tag[:2], len(packed) if tag[0] == 325 else tag[2]) for tag in tiled(256)]
    assert np.asarray(decode_image(tiff(tags, packed)).image)[3, :, 0].tolist() == list(range(10))


def test_a_raw_photo_is_not_taken_for_its_thumbnail() -> None:
    data = tiff(sorted([*tiled(16), (50706, 1, 1)], key=lambda tag: tag[0]), EMPTY)
    assert "raw photo (DNG)" in reason(data)


def scans(side: int, count: int, *, embedded: bytes = b"") -> bytes:
    """A progressive grey JPEG whose second scan is repeated so often."""
    data = encode(Image.new("L", (side, side), 128), "JPEG", progressive=True, comment=embedded)
    start = len(data) - len(data[data.index(b"\xff\xda") :])
    found = [match.start() + start for match in re.finditer(rb"\xff\xda", data[start:])]
    return data[:-2] + data[found[1] : found[2]] * count + b"\xff\xd9"


def test_a_progressive_jpeg_of_very_many_scans_is_refused_at_once(tmp_path: Path) -> None:
    data = scans(3000, 1000)
    assert len(data) < 100_000
    megabytes, said = peak_and_answer(data, tmp_path)
    assert said.startswith("too many scans: 1,006 over 3000 x 3000 pixels would take too long")
    assert megabytes < 24
    # Reduced decoding reads all of them as well.
    assert reason(data, at_least=100).startswith("too many scans")
    assert jpeg_frame(data).scans * 9_000_000 > MAX_SCAN_PIXELS
    assert decode_image(scans(64, 300)).image.size == (64, 64)


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"progressive": True, "subsampling": 0}, {"restart_marker_rows": 1}]
)
def test_ordinary_scans_are_counted_right(options: dict[str, Any], photo: Image.Image) -> None:
    inside = encode(photo.resize((32, 32)), "JPEG", progressive=True)
    data = encode(photo, "JPEG", comment=inside, **options) + inside
    frame = jpeg_frame(data)
    assert (frame.width, frame.height, frame.components) == (96, 64, 3)
    assert frame.buffered == ("progressive" in options)
    assert frame.scans == (10 if frame.buffered else 1)


def test_a_picture_of_usual_scans_at_the_limit_of_pixels_is_not_refused() -> None:
    assert MAX_SCAN_PIXELS > 10 * 178_956_970


def icon(width: int, height: int, picture: bytes, *, kind: int = 1) -> bytes:
    return (
        struct.pack("<HHH", 0, kind, 1)
        + struct.pack("<BBBBHHII", width, height, 0, 0, 1, 32, len(picture), 22)
        + picture
    )


def test_an_icon_is_as_large_as_its_pictures_say(tmp_path: Path) -> None:
    rows = zlib.compressobj(9)
    packed = b"".join(rows.compress(bytes(2501 * 1000)) for _ in range(20)) + rows.flush()
    bomb = png((BIG, BIG), 1, 0, b"")
    end = bomb.index(b"IDAT") - 4
    bomb = (
        bomb[:end] + struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed))
    )
    for data in (icon(16, 16, bomb), icon(16, 16, bomb, kind=2)):
        megabytes, said = peak_and_answer(data, tmp_path)
        assert said.startswith("too many pixels: 20000 x 20000")
        assert megabytes < 24
    bitmap = struct.pack("<IiiHHIIiiII", 40, BIG, 2 * BIG, 1, 32, 0, 0, 0, 0, 0, 0)
    assert reason(icon(16, 16, bitmap)).startswith("too many pixels: 20000 x 20000")


def test_jpeg_2000_is_as_large_as_its_codestream_says(tmp_path: Path) -> None:
    inner = bytearray(encode(Image.new("L", (64, 64), 77), "JPEG2000"))
    at = inner.index(b"\xff\x4f\xff\x51") + 8
    struct.pack_into(">II", inner, at, BIG, BIG)
    struct.pack_into(">II", inner, at + 16, BIG, BIG)
    assert codestream(bytes(inner)).width == BIG
    megabytes, said = peak_and_answer(bytes(inner), tmp_path)
    assert said.startswith("too many pixels: 20000 x 20000")
    assert megabytes < 24
    tiny = bytearray(encode(Image.new("L", (200, 200), 77), "JPEG2000", no_jp2=True))
    struct.pack_into(">II", tiny, tiny.index(b"\xff\x51") + 22, 1, 1)
    megabytes, said = peak_and_answer(bytes(tiny), tmp_path)
    assert "40,000 tiles for 200 x 200 pixels" in said
    assert megabytes < 24
    options: dict[str, Any] = {"precinct_size": (8, 8), "codeblock_size": (4, 4)}
    lists = bytearray(encode(Image.new("L", (64, 64), 77), "JPEG2000", no_jp2=True, **options))
    struct.pack_into(">IIIIII", lists, 8, 12_000, 12_000, 0, 0, 12_000, 12_000)
    megabytes, said = peak_and_answer(bytes(lists), tmp_path)
    assert "lists of" in said
    assert megabytes < 24
    usual = encode(Image.new("L", (600, 400), 77), "JPEG2000", precinct_size=(128, 128), tile_size=(256, 256))
    assert decode_image(usual).image.size == (600, 400)


def test_avif_is_as_large_as_its_frames_are(tmp_path: Path) -> None:
    side = 7000
    data = bytearray(encode(Image.new("RGB", (side, side)), "AVIF", speed=10, quality=10))
    assert largest_frame(bytes(data)) == (side, side)
    at = data.index(b"ispe") + 8
    assert data[at : at + 8] == struct.pack(">II", side, side)
    data[at : at + 8] = struct.pack(">II", 16, 16)
    megabytes, said = peak_and_answer(bytes(data), tmp_path)
    assert said == f"damaged AVIF: frames of {side} x {side} pixels for a picture of 16 x 16"
    assert megabytes < 24


@pytest.mark.parametrize(
    "options", [{}, {"save_all": True}, {"subsampling": "4:4:4"}, {"quality": 100}, {"xmp": b"<x/>"}]
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_the_size_of_av1_frames_is_read_right(options: dict[str, Any], mode: str) -> None:
    frames = [Image.new(mode, (133, 77), (colour,) * len(mode)) for colour in (1, 200)]
    more = {"append_images": frames[1:]} if "save_all" in options else {}
    assert largest_frame(encode(frames[0], "AVIF", **options, **more)) == (133, 77)


def test_pictures_that_are_decoded_in_python_are_limited(tmp_path: Path) -> None:
    side = int(MAX_SLOW_PIXELS**0.5) + 10
    qoi = b"qoif" + struct.pack(">IIBB", side, side, 3, 0) + b"\xfd" * 100
    rle = (
        b"BM"
        + struct.pack("<IHHI", 200, 0, 0, 1078)
        + struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 0, 0, 0, 0, 0)
    )
    rle += bytes(range(256)) * 4 + b"\0\0" * 50
    for data in (qoi, rle, b"P1 %d %d\n0 1" % (side, side), b"P5 %d %d 1023\n\0\0" % (side, side)):
        megabytes, said = peak_and_answer(data, tmp_path)
        assert said.startswith("too many pixels for its format")
        assert megabytes < 24


def test_a_header_without_end_is_refused() -> None:
    assert "its header is not whole" in reason(b"P6 #" + b"x" * 200_000)
    assert decode_image(b"P6 # a comment\n1\n# another\n1 255\n\1\2\3").image.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
def test_compressed_texts_and_profiles_do_not_grow(chunk: bytes, tmp_path: Path) -> None:
    bomb = b"name\0\0" + zlib.compress(bytes(200 << 20), 9)
    data = png((4, 4), 8, 0, b"\0\1\2\3\4" * 4, (chunk, bomb))
    megabytes, _ = peak_and_answer(data, tmp_path)
    assert megabytes < 24


@pytest.mark.parametrize(("kind", "options", "tolerance"), FORMATS)
def test_what_is_really_there_is_still_decoded(kind: str, options: dict[str, Any], tolerance: float) -> None:
    image = Image.effect_noise((301, 203), 60).convert("RGB")
    assert decode_image(encode(image, kind, **options)).image.size == (301, 203)


def test_a_file_of_frames_costs_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("P", (1000, 1000), colour) for colour in range(60)]
    build: Callable[..., bytes] = encode
    for kind in ("GIF", "TIFF"):
        data = build(
            frames[0],
            kind,
            save_all=True,
            append_images=frames[1:],
            **({"compression": "tiff_deflate"} if kind == "TIFF" else {}),
        )
        megabytes, said = peak_and_answer(data, tmp_path)
        assert said == "(1000, 1000)"
        assert megabytes < 60
    assert Image.open(BytesIO(data)).n_frames == 60  # type: ignore[attr-defined]
