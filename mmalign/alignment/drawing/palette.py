"""Colours, line styles and writing that are told apart by eyes of every kind."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

# Okabe and Ito, Color Universal Design, 2008; without black, which is the ink.
COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
INK, FAINT, PAPER, HOLE = (25, 25, 25), (110, 110, 110), (255, 255, 255), (226, 226, 226)

# On and off, in widths of the line; empty is one stroke.
_DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2.5), (1.2, 1.8), (6, 2, 1.2, 2))
# Fonts with more letters than the one that comes with Pillow, on the usual systems.
_WIDER = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "msyh.ttc",
    "PingFang.ttc", "Arial Unicode.ttf", "DejaVuSans.ttf", "Arial.ttf",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Style:
    """How one thing is drawn.

    Attributes:
        number: What it is called in the picture, from 1.
        colour: Its colour.
        dashes: Its line: lengths on and off in widths of the line; empty for an unbroken one.
    """

    number: int
    colour: Colour
    dashes: tuple[float, ...]

    @property
    def ink(self) -> Colour:
        """Black or white, whichever is read on the colour."""
        red, green, blue = (channel / 255 for channel in self.colour)
        # Relative luminance, nearly; the bound is where both have the same contrast.
        light = 0.2126 * red**2.2 + 0.7152 * green**2.2 + 0.0722 * blue**2.2
        return INK if light > 0.18 else PAPER


def style_of(index: int) -> Style:
    """Give the style of the n-th thing.

    Args:
        index: From 0.

    Returns:
        Its style: the first 28 differ in colour or line, and all in their number.
    """
    return Style(index + 1, COLOURS[index % len(COLOURS)], _DASHES[index % len(_DASHES)])


@lru_cache(maxsize=64)
def font_for(size: int, wide: bool = False) -> Font:
    """Give a font.

    Args:
        size: In pixels, from 1.
        wide: Whether letters are needed that the font coming with Pillow lacks; one of the system is looked for.

    Returns:
        The font; without one of the system, Pillow's.
    """
    for name in _WIDER if wide else ():
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)


def needs_wide(text: str) -> bool:
    """Say whether a text has letters that the font coming with Pillow lacks."""
    return any(ord(letter) > 0x17F and not 0x2010 <= ord(letter) <= 0x2026 for letter in text)


def draw_line(draw: ImageDraw.ImageDraw, points: Sequence[tuple[float, float]], style: Style, width: int) -> None:
    """Draw a line through points in a style, on a darker and a lighter rim, so that it is seen on any ground.

    Args:
        draw: Where.
        points: Corners in pixels.
        style: Colour and dashes.
        width: In pixels.
    """
    strokes = list(_strokes(points, [length * width for length in style.dashes]))
    for colour, wider in ((INK, 4), (PAPER, 2), (style.colour, 0)):
        if wider == 2 and width < 3:
            continue
        for start, end in strokes:
            draw.line((*start, *end), fill=colour, width=width + wider // (1 if width >= 4 else 2))


def _strokes(
    points: Sequence[tuple[float, float]], dashes: Sequence[float]
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    strokes = []
    for start, end in itertools.pairwise(points):
        length = ((end[0] - start[0]) ** 2 + (end[1] - start[1]) ** 2) ** 0.5
        if not dashes or length == 0:
            strokes.append((start, end))
            continue
        at, turn = 0.0, 0
        while at < length:
            upto = min(at + dashes[turn % len(dashes)], length)
            if turn % 2 == 0:
                one, two = (
                    (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)
                    for share in (at / length, upto / length)
                )
                strokes.append((one, two))
            at, turn = upto, turn + 1
    return strokes


def fitted(draw: ImageDraw.ImageDraw, text: str, font: Font, width: float) -> str:
    """Shorten a text until it fits.

    Args:
        draw: What it is to be drawn with.
        text: The text.
        font: Its font.
        width: In pixels.

    Returns:
        The text, or its beginning with an ellipsis; perhaps nothing but that.
    """
    text = " ".join(text.split())
    if draw.textlength(text, font=font) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if draw.textlength(text[:middle] + "...", font=font) <= width else (low, middle - 1)
    return text[:low].rstrip() + "..."
