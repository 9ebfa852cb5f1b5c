from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.errors import DecodeError
from mmalign.media.decoding import decode_image
from mmalign.media.formats import IMAGE_SUFFIXES
from tests.media.media_helpers import FORMATS, encode, pixels, reason, unprivileged

# Formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options", "tolerance"), FORMATS)
def test_every_format_keeps_its_pixels(
    kind: str, options: dict[str, Any], tolerance: float, photo: Image.Image
) -> None:
    decoded = decode_image(encode(photo, kind, **options))
    assert (decoded.width, decoded.height) == decoded.image.size == (96, 64)
    assert np.abs(np.asarray(decoded.image).astype(int) - np.asarray(photo)).mean() <= tolerance


@pytest.mark.parametrize(("kind", "options", "tolerance"), FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_a_file_cut_short_is_reported_as_truncated(
    kind: str, options: dict[str, Any], tolerance: float, kept: float, photo: Image.Image
) -> None:
    data = encode(photo, kind, **options)
    assert "truncated" in reason(data[: int(len(data) * kept)])


def test_damaged_bytes_in_a_whole_file_are_reported_as_damaged(photo: Image.Image) -> None:
    data = bytearray(encode(photo, "PNG"))
    data[60:90] = bytes(30)
    assert reason(bytes(data)).startswith("damaged PNG: ")


def test_what_is_no_raster_picture_says_what_it_is() -> None:
    assert reason(b"") == "empty file (0 bytes)"
    assert "SVG is a drawing, not a raster picture" in reason(b"<?xml version='1.0'?><svg xmlns='x'></svg>")
    assert "web page" in reason(b"<!DOCTYPE html><html></html>")
    assert "JPEG XL" in reason(b"\xff\x0a" + bytes(20))
    assert "PDF" in reason(b"%PDF-1.7")
    assert reason(b"hello world, no picture") == "not a picture, or of a format that is not known"
    assert "not a picture" in reason(b"\0\0\0\x18ftypisom\0\0\0\0isommp42")


def test_programs_are_not_started_for_postscript() -> None:
    assert "not a picture" in reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")


def test_heic_without_its_package_says_what_to_type(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(photo, "HEIF")
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    assert reason(data).endswith("pip install 'mmalign[heif]'")


def test_avif_in_a_pillow_without_it_says_what_to_do(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import AvifImagePlugin

    data = encode(photo, "AVIF")
    monkeypatch.setattr(AvifImagePlugin, "SUPPORTED", False)
    assert "pip install --upgrade pillow" in reason(data)


def test_suffixes_cover_what_pillow_writes() -> None:
    Image.init()
    ours = {"JPEG", "PNG", "GIF", "WEBP", "BMP", "PPM", "TIFF", "AVIF", "JPEG2000", "QOI", "MPO", "ICO", "CUR", "TGA"}
    named = {suffix for suffix in IMAGE_SUFFIXES if Image.EXTENSION.get(suffix) in ours}
    shops = {".jpg_large", ".jpg-large", ".png_large", ".png-large"}
    assert IMAGE_SUFFIXES - named == {".heic", ".heif", ".hif"} | shops


# Sources of bytes -----------------------------------------------------------------------------------------------


def test_bytes_paths_uris_and_images_are_all_taken(tmp_path: Path, photo: Image.Image, server: Any) -> None:
    path = tmp_path / "two\nlines.png"
    path.write_bytes(encode(photo, "PNG"))
    uri = f"file://{tmp_path}/two%0Alines.png"
    with Image.open(path) as opened:
        for source in (path.read_bytes(), path, str(path), uri, f"{server.url}/ok.png", photo, opened):
            assert (pixels(source) == np.asarray(photo)).all()


def test_errors_carry_the_uri(tmp_path: Path) -> None:
    for source, options, uri in (
        (tmp_path / "no\n.png", {}, f"file://{tmp_path}/no%0A.png"),
        (b"text", {"uri": "http://x/a.png"}, "http://x/a.png"),
    ):
        with pytest.raises(DecodeError) as caught:
            decode_image(source, **options)  # type: ignore[arg-type]
        assert caught.value.uri == uri


def test_the_callers_own_image_is_not_shared(photo: Image.Image) -> None:
    before = photo.tobytes()
    decode_image(photo).image.paste((0, 0, 0), (0, 0, 96, 64))
    assert photo.tobytes() == before


def test_a_file_without_permission_is_reported(open_tmp: Path, photo: Image.Image) -> None:
    path = open_tmp / "secret.png"
    path.write_bytes(encode(photo, "PNG"))
    path.chmod(0)
    assert "permission denied" in unprivileged(lambda: decode_image(path).image.size)
