from __future__ import annotations

import resource
import struct
import threading
import time
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from mmalign.errors import DecodeError, InputError
from mmalign.media.decoding import decode_image
from tests.media.media_helpers import FORMATS, encode, png, reason, unprivileged


def test_a_bomb_of_900_million_pixels_is_refused_at_once_with_little_memory(tmp_path: Path) -> None:
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(3751 * 1000)) for _ in range(30)) + packer.flush()
    data = png((30_000, 30_000), 1, 0, b"").replace(
        struct.pack(">I", 8)
        + b"IDAT"
        + zlib.compress(b"")
        + struct.pack(">I", zlib.crc32(b"IDAT" + zlib.compress(b""))),
        struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed)),
    )
    path = tmp_path / "bomb.png"
    path.write_bytes(data)

    def attempt() -> tuple[str, float, int]:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        try:
            text = str(decode_image(data).image.size)
        except DecodeError as error:
            text = error.reason
        return text, time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    text, seconds, kibibytes = unprivileged(attempt)
    assert text.startswith("too many pixels: 30000 x 30000 is 900.0 million, the limit is 179.0 million")
    assert seconds < 1
    assert kibibytes < 32 * 1024
    assert len(data) < 1 << 20
    assert "too many pixels" in reason(path)
    # Nothing but its size is wrong with it in Pillow's eyes.
    with pytest.raises(Image.DecompressionBombError):
        Image.open(path)


@pytest.mark.parametrize(("kind", "options", "tolerance"), FORMATS)
def test_pillows_own_limit_neither_warns_nor_decides(
    kind: str, options: dict[str, Any], tolerance: float, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encode(photo, kind, **options)
    # 96 x 64 lies between Pillow's warning and its error then; warnings are errors here.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    assert decode_image(data).image.size == (96, 64)
    assert decode_image(data, max_pixels=96 * 64).image.size == (96, 64)
    assert "too many pixels: 96 x 64" in reason(data, max_pixels=96 * 64 - 1)
    assert Image.MAX_IMAGE_PIXELS == 4000


def test_pillows_error_for_a_frame_larger_than_its_canvas_does_not_leak(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(encode(Image.new("P", (4, 4)), "GIF"))
    at = data.index(b",")
    data[at + 5 : at + 9] = struct.pack("<HH", 60_000, 60_000)
    assert reason(bytes(data)).startswith("too many pixels")


def test_decoding_leaves_pillows_settings_alone(photo: Image.Image) -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    decode_image(encode(photo, "JPEG"))
    after = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    assert after == before


@pytest.mark.parametrize("name", ["max_pixels", "at_least"])
def test_limits_below_one_are_refused(name: str, photo: Image.Image) -> None:
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        decode_image(photo, **{name: 0})  # type: ignore[arg-type]


# Reduced size ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("at_least", "shorter"), [(1000, 600), (600, 600), (301, 600), (300, 300), (70, 75)])
def test_a_reduced_picture_keeps_the_shorter_side_and_the_original_size(
    kind: str, at_least: int, shorter: int, photo: Image.Image
) -> None:
    original = photo.resize((900, 600), Image.Resampling.BICUBIC)
    decoded = decode_image(encode(original, kind), at_least=at_least)
    assert (decoded.width, decoded.height) == (900, 600)
    size = min(decoded.image.size)
    assert at_least <= size <= shorter or size == shorter
    assert abs(decoded.image.width / decoded.image.height - 1.5) < 0.02
    same = np.asarray(original.resize(decoded.image.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(decoded.image) - same).mean() < 4


def test_many_threads_decode_alike(photo: Image.Image) -> None:
    files = [(encode(photo, kind, **options), np.asarray(decode_image(encode(photo, kind, **options)).image))
             for kind, options, _ in FORMATS]  # fmt: skip
    wrong: list[str] = []

    def work() -> None:
        for data, expected in files * 5:
            try:
                if not (np.asarray(decode_image(data).image) == expected).all():
                    wrong.append("pixels")
                decode_image(BytesIO(data).getvalue()[: len(data) // 2])
                wrong.append("no error")
            except DecodeError:
                continue

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
