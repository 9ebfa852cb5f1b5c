"""Colours of other spaces than sRGB, against matrices written out here."""

from __future__ import annotations

import struct
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from mmalign.encoders.pictures import load_rgb
from mmalign.media.decoding import decode_image
from mmalign.media.depth import png_chunk
from mmalign.media.nclx import named_profile
from mmalign.utils.pixels.profiles import matrix_profile, profile_conversion
from tests.media.media_helpers import encode, pixels, png

# Linear Display P3 and BT.2020 to linear sRGB, as published (W3C CSS Color 4; ITU-R BT.2087).
P3_TO_SRGB = np.array([[1.2249, -0.2247, 0.0], [-0.0420, 1.0419, 0.0], [-0.0197, -0.0786, 1.0979]])
BT2020_TO_SRGB = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])
P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)
SRGB = (0.640, 0.330, 0.300, 0.600, 0.150, 0.060, 0.3127, 0.3290)
COLOURS = np.array(
    [[0, 0, 0], [255, 255, 255], [200, 100, 50], [90, 140, 160], [128, 128, 128], [180, 160, 60], [70, 60, 120]]
)


def expected(colours: np.ndarray[Any, Any], matrix: np.ndarray[Any, Any], gamma: float | None = None) -> Any:
    """What 8-bit colours are in sRGB; the curve is sRGB's own, or a power."""
    values = colours / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    if gamma is not None:
        linear = values**gamma
    linear = np.clip(linear @ matrix.T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


def picture(colours: np.ndarray[Any, Any] = COLOURS) -> Image.Image:
    """A patch of 16 x 16 pixels for each colour."""
    return Image.fromarray(np.repeat(np.repeat(colours[None].astype(np.uint8), 16, 0), 16, 1))


def patches(source: Any, **options: Any) -> np.ndarray[Any, Any]:
    array = pixels(source, **options)
    step = array.shape[1] // len(COLOURS)
    return array[array.shape[0] // 2, step // 2 :: step]


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [("JPEG", {"quality": 98, "subsampling": 0}, 4), ("PNG", {}, 1), ("TIFF", {}, 1),
     ("TIFF", {"compression": "tiff_lzw"}, 1),
     ("WEBP", {"lossless": True}, 1),
     ("AVIF", {"quality": 98, "subsampling": "4:4:4"}, 5),
     ("HEIF", {"quality": 95, "chroma": 444}, 5)],
)  # fmt: skip
def test_display_p3_becomes_srgb(kind: str, options: dict[str, Any], tolerance: float) -> None:
    data = encode(picture(), kind, icc_profile=matrix_profile(P3), **options)
    assert np.abs(patches(data) - expected(COLOURS, P3_TO_SRGB)).max() <= tolerance
    plain = encode(picture(), kind, **options)
    assert np.abs(patches(plain) - COLOURS).max() <= tolerance


def test_a_reduced_or_turned_or_opened_picture_is_converted_once(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = tmp_path / "a.png"
    path.write_bytes(
        encode(picture().transpose(Image.Transpose.ROTATE_180), "PNG", icc_profile=matrix_profile(P3), exif=exif)
    )
    want = expected(COLOURS, P3_TO_SRGB)
    assert np.abs(patches(path) - want).max() <= 1
    assert np.abs(patches(path, at_least=8) - want).max() <= 1
    with Image.open(path) as opened:
        assert np.abs(patches(opened) - want).max() <= 1
    once = decode_image(path).image
    assert (np.asarray(decode_image(once).image) == np.asarray(once)).all()
    # What encoders are given as a path or as an opened picture is the same.
    for given in (path, Image.open(path).transpose(Image.Transpose.ROTATE_180)):
        rgb = load_rgb(given)
        assert (np.asarray(rgb) == np.asarray(once)).all()
        assert load_rgb(rgb) is rgb


def test_adobe_rgb_has_another_curve() -> None:
    adobe = (0.640, 0.330, 0.210, 0.710, 0.150, 0.060, 0.3127, 0.3290)
    to_srgb = np.array([[1.3984, -0.3984, 0.0], [0.0, 1.0, 0.0], [0.0, -0.0429, 1.0429]])
    data = encode(picture(), "PNG", icc_profile=matrix_profile(adobe, 2.19921875))
    assert np.abs(patches(data) - expected(COLOURS, to_srgb, 2.19921875)).max() <= 2


def test_transparency_and_palettes_keep_theirs() -> None:
    rgba = picture().convert("RGBA")
    rgba.putpixel((0, 8), (200, 0, 0, 0))
    array = pixels(encode(rgba, "PNG", icc_profile=matrix_profile(P3)))
    assert array[8, 0].tolist() == [255, 255, 255]
    assert np.abs(array[8, 8::16] - expected(COLOURS, P3_TO_SRGB)).max() <= 1
    palette = picture().quantize(16)
    data = encode(palette, "PNG", icc_profile=matrix_profile(P3))
    assert np.abs(patches(data) - expected(COLOURS, P3_TO_SRGB)).max() <= 1


@pytest.mark.parametrize("profile", ["lcms", "matrix"])
def test_srgb_profiles_change_no_pixel(profile: str) -> None:
    data = (
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        if profile == "lcms"
        else matrix_profile(SRGB)
    )
    image = picture()
    assert (pixels(encode(image, "PNG", icc_profile=data)) == np.asarray(image)).all()
    image.info["icc_profile"] = data
    assert profile_conversion(image) is None


def grey_profile(gamma: float) -> bytes:
    """A grey profile made by hand: white and one power."""
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"text" + bytes(4) + b"grey\0\0\0\0"
    tags = [(b"desc", text), (b"cprt", text), (b"wtpt", white), (b"kTRC", curve)]
    body, table, at = b"", b"", 132 + 12 * len(tags)
    for name, value in tags:
        table += struct.pack(">4sII", name, at + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + white[8:] + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def ink_profile() -> bytes:
    """A profile of a press whose inks are all grey, made by hand: lightness falls with the ink, from 100 to 0."""
    straight = bytes(range(256))
    corners = [(c, m, y, k) for c in (0, 1) for m in (0, 1) for y in (0, 1) for k in (0, 1)]
    lights = b"".join(bytes([round(255 * (1 - k) * (1 - (c + m + y) / 3)), 128, 128]) for c, m, y, k in corners)
    unit = struct.pack(">9i", *(65536 * (n % 4 == 0) for n in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + unit + straight * 4 + lights + straight * 3
    text = b"text" + bytes(4) + b"ink\0"
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    tags = [(b"desc", text), (b"cprt", text), (b"wtpt", white), (b"A2B0", table)]
    body, listing, at = b"", b"", 132 + 12 * len(tags)
    for name, value in tags:
        listing += struct.pack(">4sII", name, at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + white[8:] + bytes(48)
    return head + struct.pack(">I", len(tags)) + listing + body


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_the_profiles_of_presses_are_applied(kind: str) -> None:
    inks = np.array([[0, 0, 0, 0], [0, 0, 0, 128], [255, 0, 0, 0], [255, 255, 0, 0], [0, 0, 0, 255], [90, 90, 90, 0]])
    values = np.repeat(np.repeat(inks[None].astype(np.uint8), 16, 0), 16, 1)
    image = Image.frombytes("CMYK", (16 * len(inks), 16), values.tobytes())
    share = inks / 255
    lightness = 100 * (1 - share[:, 3]) * (1 - share[:, :3].sum(1) / 3)
    # Lightness to luminance to sRGB, by their definitions (CIE 15; IEC 61966-2-1).
    luminance = np.where(lightness > 8, ((lightness + 16) / 116) ** 3, lightness / 903.3)
    want = 255 * np.where(luminance <= 0.0031308, luminance * 12.92, 1.055 * luminance ** (1 / 2.4) - 0.055)
    options = {"quality": 98} if kind == "JPEG" else {}
    found = pixels(encode(image, kind, icc_profile=ink_profile(), **options))[8, 8::16]
    assert np.abs(found - want[:, None]).max() <= 4
    # Without it, the inks have colours.
    assert np.ptp(pixels(encode(image, kind, **options))[8, 40]) > 100


def test_grey_profiles_are_applied() -> None:
    grey = Image.fromarray(np.arange(0, 256, 5, dtype=np.uint8)[None])
    values = np.arange(0, 256, 5)[:, None].repeat(3, 1)
    want = expected(values, np.eye(3), 1.0)
    deep = Image.fromarray((np.asarray(grey).astype(np.uint16)) * 257)
    for image in (grey, grey.convert("LA"), deep):
        data = encode(image, "PNG", icc_profile=grey_profile(1.0))
        assert np.abs(pixels(data)[0] - want).max() <= 2


@pytest.mark.parametrize(
    "damage",
    [lambda p: p[:140], lambda p: p[:200] + bytes(len(p) - 200), lambda p: b"\xff" * len(p),
     lambda p: p[:36] + b"nope" + p[40:],
     lambda p: p[:128] + struct.pack(">I", 2**31) + p[132:], lambda p: b"", lambda p: bytes(9 << 20)],
)  # fmt: skip
def test_a_damaged_profile_costs_nothing(damage: Any) -> None:
    image = picture()
    data = encode(image, "TIFF", icc_profile=damage(matrix_profile(P3)) or b"x")
    assert (pixels(data) == np.asarray(image)).all()


def test_a_profile_for_other_colours_is_ignored() -> None:
    image = picture()
    assert (pixels(encode(image, "PNG", icc_profile=grey_profile(1.0))) == np.asarray(image)).all()
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    assert (pixels(encode(ink, "TIFF", icc_profile=matrix_profile(P3))) == pixels(encode(ink, "TIFF"))).all()


def test_lab_profiles_are_applied() -> None:
    lab_profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.createProfile("sRGB")
    lab = ImageCms.profileToProfile(picture(), srgb, lab_profile, outputMode="LAB")
    assert lab is not None
    data = encode(lab, "TIFF", icc_profile=lab_profile.tobytes())
    assert np.abs(patches(data) - COLOURS).max() <= 4


def test_primaries_that_are_named_by_number() -> None:
    rows = b"".join(b"\0" + bytes(row) for row in np.asarray(picture()).reshape(16, -1).tolist())
    size = (16 * len(COLOURS), 16)
    for code, matrix in ((12, P3_TO_SRGB), (9, BT2020_TO_SRGB), (1, np.eye(3))):
        data = png(size, 8, 2, rows, (b"cICP", bytes([code, 13, 0, 1])))
        assert np.abs(patches(data) - expected(COLOURS, matrix)).max() <= 2
    # High dynamic range is left as it is stored.
    assert np.abs(patches(png(size, 8, 2, rows, (b"cICP", bytes([9, 16, 0, 1])))) - COLOURS).max() == 0
    avif = encode(picture(), "AVIF", quality=98, subsampling="4:4:4")
    at = avif.index(b"colrnclx") + 8
    named = avif[:at] + struct.pack(">HH", 12, 13) + avif[at + 4 :]
    assert named_profile("AVIF", avif) is None
    assert np.abs(patches(named) - expected(COLOURS, P3_TO_SRGB)).max() <= 5
    assert png_chunk(data, b"cICP")[:1] == b"\1"
    assert named_profile("JPEG", b"") is None


def test_large_pictures_are_converted_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    tall = picture().resize((112, 900), Image.Resampling.NEAREST)
    sources = [
        encode(tall, "PNG", icc_profile=matrix_profile(P3)),
        encode(tall.convert("RGBA"), "PNG"),
        encode(Image.fromarray(np.arange(90_000, dtype=np.uint16).reshape(900, 100)), "PNG"),
        encode(Image.fromarray(np.linspace(-4, 4, 90_000, dtype=np.float32).reshape(900, 100)), "TIFF"),
        encode(tall.quantize(8), "PNG", transparency=3),
    ]
    whole = [pixels(source) for source in sources]
    monkeypatch.setattr("mmalign.utils.pixels.strips.STRIP_PIXELS", 7000)
    for source, want in zip(sources, whole, strict=True):
        assert (pixels(source) == want).all()


def test_many_threads_convert_alike() -> None:
    from concurrent.futures import ThreadPoolExecutor

    data = [encode(picture(), "PNG", icc_profile=matrix_profile((*P3[:7], 0.3290 + n / 1e4))) for n in range(100)]
    alone = [pixels(one) for one in data]
    with ThreadPoolExecutor(8) as pool:
        assert all((one == want).all() for one, want in zip(pool.map(pixels, data), alone, strict=True))


def test_a_missing_colour_module_is_the_fault_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import _util

    from mmalign.errors import EnvironmentConflictError

    deferred = _util.DeferredError(ImportError("no _imagingcms"))
    monkeypatch.setattr(ImageCms, "core", deferred)
    profile = matrix_profile((*P3[:7], 0.3333))
    with pytest.raises(EnvironmentConflictError, match="no _imagingcms"):
        decode_image(encode(picture(), "PNG", icc_profile=profile))
    assert Image.open(BytesIO(encode(picture(), "PNG"))).mode == "RGB"
