"""Safe decoding: bytes of any picture format to an upright 8-bit sRGB picture.

Pillow's plugin classes are used directly rather than through `Image.open`. That call compares the size with a global
limit and warns through the global `warnings` filters, neither of which can be set for one thread; and it tries
formats (EPS, WMF) that start other programs. Here what a picture asks for is compared with the caller's own limit, and
with the memory that all threads share, before it is given.
"""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from mmalign.errors import DecodeError, EnvironmentConflictError, InputError, MMAlignError
from mmalign.media.demand import demand, early_refusal, early_size
from mmalign.media.depth import claimed_bits, full_range, grey_values, uses_only
from mmalign.media.formats import ENDLESS, decoder_says, ends_early, format_refusal, open_image, sniff
from mmalign.media.icons import largest_entry
from mmalign.media.memory import decoding_budget
from mmalign.media.nclx import named_profile
from mmalign.media.policy import MediaPolicy
from mmalign.media.reading import os_reason, read_media
from mmalign.media.uris import to_uri
from mmalign.utils import profile_conversion, to_rgb

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_PIXELS = 178_956_970
"""Most pixels that are decoded by default: what Pillow, too, refuses beyond (about 0.7 GB in memory)."""

# Whose plugins take memory when they open a file: how many bytes a pixel.
_EAGER_BYTES = {"WebP": 24, "ICO": 16, "CUR": 16}
_TAIL_BYTES = 1 << 16
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What Pillow's plugins raise on damaged bytes. A missing module or a fault of our own is not among it.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    AssertionError,
    RuntimeError,
    SystemError,
    struct.error,
    zlib.error,
    # Where warnings are errors, Pillow's warnings of damage are.
    Warning,
)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded picture.

    Attributes:
        image: Upright 8-bit RGB, in sRGB; smaller than the original where `at_least` allowed it.
        width: Width of the upright original, in pixels.
        height: Height of the upright original, in pixels.
    """

    image: Image.Image
    width: int
    height: int


def decode_image(
    source: bytes | str | os.PathLike[str] | Image.Image,
    *,
    uri: str | None = None,
    max_pixels: int = MAX_PIXELS,
    at_least: int | None = None,
    policy: MediaPolicy | None = None,
    admit: Callable[[int], None] | None = None,
) -> Decoded:
    """Decode a picture to upright 8-bit sRGB: first frame, transparency over white, deep grey scaled, profile applied.

    Safe to call from many threads; changes no global state. All threads together take no more memory for decoding than
    `decoding_budget` holds, unless one picture alone needs more.

    Args:
        source: The bytes of a file, a path, a URI, an http(s) URL, or a Pillow image.
        uri: What to call the picture in errors, where `source` does not say it.
        max_pixels: Refuse a picture with more pixels, or with tiles of more, judged by its header before memory is
            taken.
        at_least: Allow a reduced picture whose shorter side is still at least this many pixels (a JPEG then
            decodes several times faster); None keeps the full size. A smaller original is not enlarged.
        policy: What may be read where `source` names a file or a URL; None for that of the environment.
        admit: Called with the bytes of the finished picture before memory is taken; may wait.

    Returns:
        The picture, with the size of the original.

    Raises:
        DecodeError: It cannot be read or decoded; `reason` says why.
        EnvironmentConflictError: A decoder that is installed cannot be loaded.
        InputError: `max_pixels` or `at_least` is below 1.

    Example:
        >>> decode_image(Image.new("LA", (4, 3), (0, 0))).image.getpixel((0, 0))
        (255, 255, 255)
    """
    for name, value in (("max_pixels", max_pixels), ("at_least", at_least)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    if isinstance(source, Image.Image):
        uri = uri or getattr(source, "filename", None) or "a Pillow image"
        with _faults(uri, source.format or "picture"):
            _check_pixels(uri, [("", *source.size)], max_pixels)
            with _blaming(uri, source.format or "picture", b""):
                source.load()
            return _finish(source, None, at_least, orientation=_orientation(source), own=False)
    if isinstance(source, bytes):
        data, uri = source, uri or "a picture in memory"
        if not data:
            raise DecodeError(uri, "empty file (0 bytes)")
    elif not isinstance(source, str | os.PathLike):
        raise InputError(f"a picture is a path, a URL, its bytes or a PIL picture, got {type(source).__name__}")
    else:
        uri = to_uri(source)
        data = read_media(uri, policy=policy).data
    kind = sniff(data, uri)
    if kind is None:
        raise DecodeError(uri, format_refusal(data))
    with _faults(uri, kind):
        return _decode(uri, kind, data, max_pixels, at_least, admit or (lambda _: None))


@contextmanager
def _faults(uri: str, kind: str) -> Iterator[None]:
    """What is the machine's fault, and not the picture's, is said to be."""
    try:
        yield
    except MMAlignError:
        raise
    except MemoryError as error:
        raise DecodeError(uri, f"not enough memory to decode this {kind}") from error
    except ImportError as error:
        raise EnvironmentConflictError(
            f"a module that decodes {kind} cannot be loaded ({error}); "
            "reinstall it with: pip install --force-reinstall pillow pillow-heif"
        ) from error


@contextmanager
def _blaming(uri: str, kind: str, data: bytes) -> Iterator[None]:
    """What plugins raise on damaged bytes, as an error that says so."""
    try:
        yield
    except MMAlignError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DecodeError(uri, f"too many pixels: {error}") from error
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DecodeError(uri, f"cannot be decoded: {os_reason(error)}") from error
        if ends_early(kind, data) or "truncated" in str(error):
            raise DecodeError(uri, f"truncated {kind}: the file ends too early") from error
        if str(error) == "unknown pixel mode":
            raise DecodeError(uri, f"a {kind} of a kind that cannot be decoded; convert it to PNG first") from error
        state = "truncated or damaged" if kind in ENDLESS else "damaged"
        raise DecodeError(uri, f"{state} {kind}: {decoder_says(kind, error)}") from error


def _check_pixels(uri: str, extents: Any, max_pixels: int) -> None:
    for what, width, height in extents:
        if width * height > max_pixels:
            raise DecodeError(
                uri,
                f"too many pixels: {what}{width} x {height} is {width * height / 1e6:,.1f} million, "
                f"the limit is {max_pixels / 1e6:,.1f} million; store a smaller copy, or raise max_pixels",
            )


def _decode(
    uri: str, kind: str, data: bytes, max_pixels: int, at_least: int | None, admit: Callable[[int], None]
) -> Decoded:
    size = early_size(kind, data)
    if kind in {"ICO", "CUR"}:
        with _blaming(uri, kind, data):
            entry = largest_entry(data)
        size = entry.width, entry.height
        kind, data = ("PNG", entry.png) if entry.png is not None else (kind, entry.icon or b"")
    reason = early_refusal(kind, data)
    if reason is not None:
        raise DecodeError(uri, reason)
    if size is not None:
        _check_pixels(uri, [("", *size)], max_pixels)
    eager = 0 if size is None else _EAGER_BYTES.get(kind, 0)
    with ExitStack() as stack:
        if size is not None and eager:
            admit(_result_bytes(size, at_least))
            stack.enter_context(decoding_budget().reserve(eager * size[0] * size[1]))
        with _blaming(uri, kind, data):
            image = stack.enter_context(open_image(kind, io.BytesIO(data), uri))
            profile = None if "icc_profile" in image.info else named_profile(kind, data)
            if profile is not None:
                image.info["icc_profile"] = profile
            converted = profile_conversion(image) is not None
            need = demand(kind, data, image, turned=_may_turn(kind, data, image), converted=converted)
        _check_pixels(uri, need.extents, max_pixels)
        if need.refusal is not None:
            raise DecodeError(uri, need.refusal)
        size = image.size
        if kind == "JPEG" and at_least is not None:
            image.draft(None, (at_least, at_least))
        reduced = image.size != size
        if not eager:
            admit(_result_bytes(size, at_least))
            stack.enter_context(decoding_budget().reserve(need.peak_bytes))
        with _blaming(uri, kind, data):
            image.load()
            bits = claimed_bits(kind, data, image)
            whole = image if bits is None else _scaled(kind, data, image, uri, bits)
        if whole.mode.startswith("I;16") and bits is not None:
            bits = bits if uses_only(grey_values(whole), bits, lower=kind == "PNG") else None
        if kind == "TGA" and whole.mode == "RGBA" and not data[17] & 15:
            # 32 bits, of which the header says that none is transparency.
            whole = whole.convert("RGB")
        return _finish(whole, size if reduced else None, at_least, orientation=_orientation(image), bits=bits, own=True)


def _scaled(kind: str, data: bytes, image: ImageFile, uri: str, bits: int) -> Image.Image:
    """A picture of three or four 16-bit channels, of which Pillow keeps the upper bytes, with its few bits scaled."""
    if image.mode not in {"RGB", "RGBA"}:
        return image
    with open_image(kind, io.BytesIO(data), uri) as second:
        second.tile = [_lower_bytes(tile) for tile in second.tile]
        second.load()
        scaled = full_range(image, second, bits, png=kind == "PNG")
    scaled.info = dict(image.info)
    return scaled


def _lower_bytes(tile: Any) -> Any:
    """The same tile, read as if its 16-bit samples were of the other byte order: the upper byte is then the lower."""
    other = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
    parts = (tile.args,) if isinstance(tile.args, str) else tile.args
    raw = parts[0]
    if ";16" in raw:
        parts = (raw[:-1] + other[raw[-1]], *parts[1:])
    return tile._replace(args=parts[0] if isinstance(tile.args, str) else parts)


def _result_bytes(size: tuple[int, int], at_least: int | None) -> int:
    factor = 1 if at_least is None else max(1, min(size) // at_least)
    return 4 * (size[0] // factor) * (size[1] // factor)


def _finish(
    image: Image.Image,
    original: tuple[int, int] | None,
    at_least: int | None,
    *,
    orientation: Any,
    own: bool,
    bits: int | None = None,
) -> Decoded:
    """Upright and RGB; `original` is the header's size of a picture that was decoded smaller."""
    upright = _UPRIGHT.get(orientation)
    rgb = to_rgb(image, bits=bits, consume=own)
    if rgb is image:
        # The caller's own picture stays the caller's, and an opened file does not live on with its picture.
        rgb = image._new(image.im) if own else image.copy()
    if upright is not None:
        rgb = rgb.transpose(upright)
    # A reduced picture may be reduced for good: its original's size is the header's, turned like the picture.
    sideways = upright in {_UPRIGHT[5], _UPRIGHT[6], _UPRIGHT[7], _UPRIGHT[8]}
    width, height = rgb.size if original is None else original[::-1] if sideways else original
    factor = 1 if at_least is None else min(rgb.size) // at_least
    if factor > 1:
        rgb = rgb.reduce(factor)
    # Without the EXIF block and the profile, so that nobody turns or converts the picture a second time.
    rgb.info = {}
    return Decoded(rgb, width, height)


def _may_turn(kind: str, data: bytes, image: ImageFile) -> bool:
    if kind == "PNG":
        # To ask its plugin would load it; and what turns it may stand behind the pixels.
        return "exif" in image.info or b"eXIf" in data[-_TAIL_BYTES:]
    return kind == "TIFF" or _orientation(image) not in {None, 1}


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION)
    except _DAMAGE:
        # A damaged EXIF block says nothing about the picture itself.
        return None
