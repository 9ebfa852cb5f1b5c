"""The sentence of an alignment, wrapped, with its phrases in their colours."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from mmalign.alignment.drawable import Drawable
from mmalign.alignment.drawing.palette import (
    FAINT,
    HOLE,
    INK,
    PAPER,
    Colour,
    Font,
    Style,
    draw_line,
    font_for,
    needs_wide,
)

# Share of a phrase's colour in the ground that it is written on.
_TINT = 0.45


@dataclass(frozen=True, slots=True)
class Run:
    """Letters of one line that belong to one phrase, or to none.

    Attributes:
        text: The letters.
        phrase: The phrase, or -1.
        first: Whether the phrase begins here.
    """

    text: str
    phrase: int
    first: bool


def draw_sentence(alignment: Drawable, styles: Sequence[Style], *, width: int, size: int) -> Image.Image:
    """Write the sentence of an alignment.

    Args:
        alignment: The alignment.
        styles: Style of each phrase.
        width: Of the strip, in pixels.
        size: Height of the writing, in pixels.

    Returns:
        Mode RGB, as wide as asked for and as high as the sentence needs: found phrases on their colour, underlined
        with their line and numbered; phrases that were not found in grey. Of no height where the sentence is empty.
    """
    sentence = alignment.sentence.strip()
    font = font_for(size, needs_wide(sentence))
    small = font_for(max(round(size * 0.65), 9))
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    badge = [round(measure.textlength(str(style.number), font=small)) + size // 3 for style in styles]
    lines = list(wrapped_runs(alignment, width, font, measure, badge)) if sentence else []
    step = round(size * 2.05)
    strip = Image.new("RGB", (width, len(lines) * step), PAPER)
    draw = ImageDraw.Draw(strip)
    missing = set(alignment.unmatched_phrases)
    for number, line in enumerate(lines):
        left, middle = 0.0, number * step + size * 0.95
        for run in line:
            wide = measure.textlength(run.text, font=font)
            lead = badge[run.phrase] if run.first else 0
            if run.phrase >= 0:
                style, gone = styles[run.phrase], run.phrase in missing
                ground: Colour = HOLE if gone else _tint(style.colour)
                draw.rectangle((left, middle - size * 0.75, left + lead + wide, middle + size * 0.7), ground)
                if not gone:
                    under = middle + size * 0.7
                    draw_line(draw, [(left, under), (left + lead + wide, under)], style, max(2, size // 7))
                if run.first:
                    draw.rounded_rectangle(
                        (left, middle - size * 0.75, left + lead - size // 8, middle + size * 0.1),
                        size // 6,
                        FAINT if gone else style.colour,
                    )
                    draw.text(
                        (left + (lead - size // 8) / 2, middle - size * 0.32),
                        str(style.number),
                        PAPER if gone else style.ink,
                        font=small,
                        anchor="mm",
                    )
                draw.text((left + lead, middle), run.text, FAINT if gone else INK, font=font, anchor="lm")
            else:
                draw.text((left, middle), run.text, INK, font=font, anchor="lm")
            left += lead + wide
    return strip


def wrapped_runs(
    alignment: Drawable, width: float, font: Font, measure: ImageDraw.ImageDraw, badge: Sequence[int]
) -> Iterator[list[Run]]:
    """Break the sentence into lines of runs.

    Args:
        alignment: The alignment.
        width: Of a line, in pixels.
        font: What it is written in.
        measure: What letters are measured with.
        badge: Room for the number of each phrase, in pixels.

    Yields:
        The runs of each line, from left to right; together they are the sentence with its spaces made single.
    """
    line: list[Run] = []
    used = 0.0
    for word, phrases, firsts in _words(alignment):
        pieces = _pieces(word, phrases, firsts)
        need = sum(
            measure.textlength(text, font=font) + (badge[phrase] if first else 0) for text, phrase, first in pieces
        )
        space = measure.textlength(" ", font=font)
        if line and used + space + need > width:
            yield line
            line, used = [], 0.0
        if line:
            # A space inside a phrase belongs to it.
            inside = line[-1].phrase == pieces[0][1] and not pieces[0][2]
            line.append(Run(" ", line[-1].phrase if inside else -1, False))
            used += space
        line += [Run(*piece) for piece in pieces]
        used += need
    if line:
        yield line


def _words(alignment: Drawable) -> Iterator[tuple[str, list[int], set[int]]]:
    """Words, the phrase of each of their letters (-1 for none), and at which letters a phrase begins.

    A script that is written without spaces is broken between any two letters.
    """
    sentence = alignment.sentence
    owner = [-1] * len(sentence)
    begins: set[int] = set()
    # Long phrases first, so that a phrase inside another one is seen.
    placed = [
        index for index, phrase in enumerate(alignment.phrases) if 0 <= phrase.start < phrase.end <= len(sentence)
    ]
    for index in sorted(placed, key=lambda index: alignment.phrases[index].start - alignment.phrases[index].end):
        phrase = alignment.phrases[index]
        owner[phrase.start : phrase.end] = [index] * (phrase.end - phrase.start)
        begins.add(phrase.start)
    for match in re.finditer(r"[⺀-鿿가-힣぀-ヿ]|[^\s⺀-鿿가-힣぀-ヿ]{1,60}", sentence):
        start, end = match.span()
        yield match.group(), owner[start:end], {at - start for at in begins if start <= at < end}


def _pieces(word: str, phrases: Sequence[int], firsts: set[int]) -> list[tuple[str, int, bool]]:
    pieces: list[tuple[str, int, bool]] = []
    for at, (letter, phrase) in enumerate(zip(word, phrases, strict=True)):
        begins = at in firsts and phrase >= 0
        if pieces and pieces[-1][1] == phrase and not begins:
            pieces[-1] = (pieces[-1][0] + letter, phrase, pieces[-1][2])
        else:
            pieces.append((letter, phrase, begins))
    return pieces


def _tint(colour: Colour) -> Colour:
    red, green, blue = (round(255 - (255 - channel) * _TINT) for channel in colour)
    return red, green, blue
