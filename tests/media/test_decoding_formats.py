"""Icons, Targa and multi-picture files; what begins with a mark and what is known by its name; faults that are not the
picture's."""

from __future__ import annotations

import builtins
import errno
import struct
import sys
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin, PngImagePlugin

from mmalign.errors import DecodeError, EnvironmentConflictError
from mmalign.media.decoding import decode_image
from mmalign.media.formats import IMAGE_SUFFIXES, sniff
from mmalign.media.images import load_pictures
from tests.media.media_helpers import FORMATS, encode, pixels, reason


@pytest.mark.parametrize(("kind", "options", "tolerance"), FORMATS)
def test_the_first_64_bytes_tell_the_format(
    kind: str, options: dict[str, Any], tolerance: float, photo: Image.Image
) -> None:
    data = encode(photo, kind, **options)
    assert sniff(data[:64]) == sniff(data)
    assert sniff(data[:64]) is not None


def icon(image: Image.Image, *, bitmap: bool, cursor: bool = False) -> bytes:
    data = bytearray(encode(image, "ICO", sizes=[image.size], bitmap_format="bmp" if bitmap else "png"))
    if cursor:
        data[2] = 2
    return bytes(data)


@pytest.mark.parametrize("bitmap", [False, True])
@pytest.mark.parametrize("cursor", [False, True])
def test_icons_and_cursors_keep_their_pixels(bitmap: bool, cursor: bool, photo: Image.Image) -> None:
    image = photo.convert("RGBA").resize((48, 32))
    image.putpixel((3, 4), (200, 100, 50, 0))
    data = icon(image, bitmap=bitmap, cursor=cursor)
    want = np.asarray(image.convert("RGB")).astype(int)
    want[4, 3] = 255
    assert (pixels(data) == want).all()
    assert sniff(data[:64]) == ("CUR" if cursor else "ICO")


def test_an_icon_is_its_largest_picture_whatever_its_directory_says(photo: Image.Image) -> None:
    small, large = encode(photo.resize((16, 16)), "PNG"), encode(photo.resize((300, 200)), "PNG")
    head, offset = struct.pack("<HHH", 0, 1, 2), 6 + 32
    head += struct.pack("<BBBBHHII", 64, 64, 0, 0, 1, 32, len(small), offset)
    head += struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(large), offset + len(small))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decoded = decode_image(head + small + large)
    assert (decoded.width, decoded.height) == (300, 200)
    assert (np.asarray(decoded.image) == np.asarray(photo.resize((300, 200)))).all()


@pytest.mark.parametrize(
    "data", [b"\0\0\1\0\1\0" + bytes(16), b"\0\0\1\0\0\0" + bytes(40), b"\0\0\1\0\xff\xff" + b"\x20" * 60]
)
def test_damaged_icons_are_reported(data: bytes) -> None:
    assert reason(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
@pytest.mark.parametrize("rle", [False, True])
def test_targa_is_known_by_its_end_or_its_name(mode: str, rle: bool, photo: Image.Image, tmp_path: Path) -> None:
    image = photo.convert(mode)
    data = encode(image, "TGA", rle=rle)
    assert data.endswith(b"TRUEVISION-XFILE.\0")
    want = np.asarray(image.convert("RGB"))
    assert (pixels(data) == want).all()
    # The first version of the format has neither mark nor footer.
    old = data[:-26]
    assert sniff(old) is None
    assert sniff(old, "a/b.TGA") == sniff(old, "http://x/y.tga?size=3") == "TGA"
    path = tmp_path / "old.tga"
    path.write_bytes(old)
    assert (pixels(path) == want).all()
    assert sniff(b"words that are no picture, whatever their name", "a.tga") is None
    assert sniff(encode(photo, "PNG"), "a.tga") == "PNG"


def test_targa_of_32_bits_without_transparency_is_not_transparent(photo: Image.Image) -> None:
    image = photo.convert("RGBA")
    image.putalpha(0)
    data = bytearray(encode(image, "TGA"))
    assert (pixels(bytes(data)) == 255).all()
    data[17] &= 0xF0
    assert (pixels(bytes(data)) == np.asarray(photo)).all()


def test_a_multi_picture_file_is_its_first_picture(photo: Image.Image, tmp_path: Path) -> None:
    file = BytesIO()
    photo.save(file, "MPO", save_all=True, append_images=[Image.new("RGB", (96, 64))], quality=95)
    for name in ("a.mpo", "a.jfif", "a.jpg_large", "a", "a.png"):
        path = tmp_path / name
        path.write_bytes(file.getvalue())
        assert np.abs(pixels(path) - np.asarray(photo)).mean() < 6
        assert not path.suffix or path.suffix in IMAGE_SUFFIXES


def test_words_are_not_taken_for_pictures() -> None:
    for data in (b"BMW is a maker of cars and motorcycles", b"P1 and P2 are two names", b"P6", b"\0\0\1\0" + b" " * 30):
        assert sniff(data) is None


def test_photoshop_documents_are_told() -> None:
    assert "Photoshop" in reason(b"8BPS\0\1" + bytes(40))


# Faults that are not the picture's --------------------------------------------------------------------------------


def test_a_decoder_that_cannot_be_loaded_is_not_a_damaged_picture(
    monkeypatch: pytest.MonkeyPatch, photo: Image.Image, tmp_path: Path
) -> None:
    data = encode(photo, "QOI")
    monkeypatch.setitem(sys.modules, "PIL.QoiImagePlugin", None)
    with pytest.raises(EnvironmentConflictError, match="a module that decodes QOI cannot be loaded"):
        decode_image(data)
    path = tmp_path / "a.qoi"
    path.write_bytes(data)
    # A run over many stops and says so, rather than calling each of them damaged.
    with pytest.raises(EnvironmentConflictError, match="pip install"):
        list(load_pictures([str(path)]))


def test_an_installed_package_that_is_broken_is_not_a_damaged_picture(
    monkeypatch: pytest.MonkeyPatch, photo: Image.Image
) -> None:
    data = encode(photo, "HEIF")
    real = builtins.__import__

    def broken(name: str, *rest: Any, **named: Any) -> Any:
        if name == "_pillow_heif":
            raise ImportError("libheif.so: cannot open shared object file")
        return real(name, *rest, **named)

    for name in [name for name in sys.modules if name.startswith(("pillow_heif", "_pillow_heif"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(EnvironmentConflictError, match=r"libheif\.so: cannot open shared object"):
        decode_image(data)


def test_a_fault_of_the_code_is_not_a_damaged_picture(monkeypatch: pytest.MonkeyPatch, photo: Image.Image) -> None:
    def load(self: Any) -> None:
        raise AttributeError("a name that was misspelt")

    data = encode(photo, "PNG")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    with pytest.raises(AttributeError, match="misspelt"):
        decode_image(data)


@pytest.mark.parametrize(
    ("raised", "said"),
    [(MemoryError(), "not enough memory to decode this JPEG"),
     (OSError(errno.EMFILE, "Too many open files"), "cannot be decoded: Too many open files"),
     (ValueError("bad bytes"), "damaged JPEG: bad bytes")],
)  # fmt: skip
def test_what_the_machine_lacks_is_said(
    raised: Exception, said: str, monkeypatch: pytest.MonkeyPatch, photo: Image.Image
) -> None:
    def load(self: Any) -> None:
        raise raised

    data = encode(photo, "JPEG")
    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load", load)
    with pytest.raises(DecodeError) as caught:
        decode_image(data)
    assert caught.value.reason == said
