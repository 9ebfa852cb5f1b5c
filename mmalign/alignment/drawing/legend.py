"""The legend of a drawn alignment: a cell for each phrase, with a small map where it was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from mmalign.alignment.drawing.palette import FAINT, INK, PAPER, Style, draw_line, fitted, font_for, needs_wide

# Beyond so many phrases the maps are left out.
_MOST_MAPS = 12


@dataclass(frozen=True, eq=False)
class LegendEntry:
    """What a legend tells of a phrase.

    Attributes:
        style: How it is drawn.
        text: The phrase.
        probability: Of its region, 0 to 1, or None where it was not found.
        count: How many regions it got.
        picture: A small map, or None.
    """

    style: Style
    text: str
    probability: float | None
    count: int
    picture: Image.Image | None

    @property
    def remark(self) -> str:
        """What is said beneath the phrase."""
        if self.probability is None:
            return "not found"
        return f"{self.probability:.0%}" + (f", {self.count} places" if self.count > 1 else "")


def draw_legend(entries: Sequence[LegendEntry], *, width: int, size: int) -> Image.Image:
    """Draw a legend.

    Args:
        entries: One for each phrase.
        width: Of the legend, in pixels.
        size: Height of the writing, in pixels.

    Returns:
        Mode RGB, as wide as asked for and as high as needed; of no height where there is nothing to tell.
    """
    if not entries:
        return Image.new("RGB", (width, 0), PAPER)
    # What was not found needs no map and comes last, in rows of words.
    found = [entry for entry in entries if entry.picture is not None]
    if found and len(found) < len(entries):
        missing = [entry for entry in entries if entry.picture is None]
        parts = [draw_legend(part, width=width, size=size) for part in (found, missing)]
        both = Image.new("RGB", (width, sum(part.height for part in parts)), PAPER)
        both.paste(parts[0], (0, 0))
        both.paste(parts[1], (0, parts[0].height))
        return both
    maps = [entry.picture for entry in found if entry.picture is not None] if len(entries) <= _MOST_MAPS else []
    cell = max([picture.width for picture in maps] + [9 * size]) + size
    columns = max(1, min(width // cell, len(entries)))
    cell = width // columns if columns > 1 else min(cell, width)
    cell = min(cell, 16 * size)
    high = max([picture.height for picture in maps] + [0])
    step = high + round(size * 3.6)
    rows = -(-len(entries) // columns)
    legend = Image.new("RGB", (width, rows * step + size // 2), PAPER)
    draw = ImageDraw.Draw(legend)
    for index, entry in enumerate(entries):
        left, top = (index % columns) * cell, (index // columns) * step + size // 2
        if maps and entry.picture is not None:
            legend.paste(entry.picture, (left, top + high - entry.picture.height))
        _draw_words(draw, entry, (left, top + high + size // 3), cell - size, size)
    return legend


def _draw_words(draw: ImageDraw.ImageDraw, entry: LegendEntry, place: tuple[int, int], width: int, size: int) -> None:
    left, top = place
    gone = entry.probability is None
    font = font_for(size, needs_wide(entry.text))
    small = font_for(max(round(size * 0.8), 11))
    number = str(entry.style.number)
    wide = round(draw.textlength(number, font=font)) + size // 2 + 2
    high = round(size * 1.35)
    draw.rounded_rectangle(
        (left, top, left + wide, top + high),
        size // 4,
        (170, 170, 170) if gone else entry.style.colour,
        None if gone else INK,
    )
    draw.text(
        (left + wide / 2, top + high / 2), number, INK if gone else entry.style.ink, font=font_for(size), anchor="mm"
    )
    room = width - wide - size // 2
    text = fitted(draw, entry.text, font, room)
    draw.text((left + wide + size // 3, top + high / 2), text, FAINT if gone else INK, font=font, anchor="lm")
    under = top + high + round(size * 0.75)
    at = left
    if not gone:
        draw_line(draw, [(left + 1, under), (left + 3 * size, under)], entry.style, max(2, size // 6))
        at = left + round(3.5 * size)
    draw.text((at, under), entry.remark, FAINT, font=small, anchor="lm")
