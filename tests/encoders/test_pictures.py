from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.encoders.pictures import load_rgb
from mmalign.errors import DecodeError, InputError


def test_rgb_is_returned_as_it_is() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    assert load_rgb(image) is image


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "F"])
def test_opaque_modes_equal_pillows_own_conversion(mode: str) -> None:
    image = Image.linear_gradient("L").resize((16, 16)).convert("RGB").convert(mode)
    assert np.array_equal(np.asarray(load_rgb(image)), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_is_laid_on_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    result = load_rgb(image.convert(mode))
    assert result.getpixel((0, 0)) == (255, 255, 255)
    assert result.getpixel((1, 0)) == (0, 0, 0)


def test_a_transparent_palette_colour_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=0)
    result = load_rgb(tmp_path / "a.png")
    assert [result.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), (200, 100, 50)]


def test_sixteen_bits_are_scaled() -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    expected = [0, 1, 1, 128, 255]
    for image in (Image.fromarray(values), Image.fromarray(values.astype(np.int32))):
        assert np.asarray(load_rgb(image))[0, :, 0].tolist() == expected


def test_a_path_is_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert load_rgb(tmp_path / "a.jpg").size == (2, 4)
    assert load_rgb(str(tmp_path / "a.jpg")).size == (2, 4)


def test_what_cannot_be_decoded_says_why(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Image.new("RGB", (64, 64)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:300])
    for name, reason in {
        "missing.jpg": "no such file",
        "text.jpg": "not a picture",
        "empty.png": "not a picture",
        "cut.jpg": "cannot be decoded",
    }.items():
        with pytest.raises(DecodeError, match=reason) as caught:
            load_rgb(tmp_path / name)
        assert caught.value.uri == str(tmp_path / name)


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(InputError, match="expected a PIL picture or a path, got ndarray"):
        load_rgb(np.zeros((2, 2, 3), np.uint8))  # type: ignore[arg-type]
