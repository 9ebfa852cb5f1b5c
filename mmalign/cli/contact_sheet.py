"""Contact sheets: the hits of one or more queries as one picture or one HTML page."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mmalign.cli.page import document, name_of, result_section
from mmalign.errors import InputError
from mmalign.media import thumbnail
from mmalign.types import SearchResult, as_list, as_path, check_type, element

_CELL = 200
_GAP = 12
_TITLE = 40
_LABEL = 40
_COLUMNS = 5
_INK = (25, 25, 25)
_FAINT = (110, 110, 110)
_PAPER = (255, 255, 255)
_HOLE = (235, 235, 235)


def write_contact_sheet(results: Sequence[SearchResult], path: str | Path) -> Path:
    """Write the hits of some queries as one picture or page, best first, with rank, score and name.

    Args:
        results: The results, one block each.
        path: The file; its suffix decides: `.png`, `.jpg` or `.webp` for a picture, `.html` for a page that
            carries its thumbnails within.

    Returns:
        The path written.

    Raises:
        InputError: Another suffix.
    """
    target = as_path("path", path)
    results = as_list("results", results, "a list of `SearchResult`s")
    for result in results:
        check_type("results", result, SearchResult, "a list of `SearchResult`s")
    suffix = target.suffix.lower()
    if suffix not in {".png", ".jpg", ".jpeg", ".webp", ".html", ".htm"}:
        raise InputError(f"a contact sheet is a .png, .jpg, .webp or .html file, got {str(path)!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if suffix in {".html", ".htm"}:
        target.write_bytes(document("Search results", element("h1", "Search results"), *map(result_section, results)))
    else:
        _sheet(results).save(target)
    return target


def _sheet(results: Sequence[SearchResult]) -> Image.Image:
    columns = max(1, min(_COLUMNS, max((len(result) for result in results), default=1)))
    rows = [max(1, -(-len(result) // columns)) for result in results]
    width = _GAP + columns * (_CELL + _GAP)
    height = _GAP + sum(_TITLE + count * (_CELL + _LABEL + _GAP) for count in rows)
    sheet = Image.new("RGB", (width, max(height, 1)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(20), ImageFont.load_default(13)
    top = _GAP
    for result, count in zip(results, rows, strict=True):
        draw.text((_GAP, top + 6), _fit(draw, result.query, large, width - 2 * _GAP), _INK, font=large)
        top += _TITLE
        if not result.hits:
            draw.text((_GAP, top), "nothing found", _FAINT, font=small)
        for rank, hit in enumerate(result):
            left = _GAP + rank % columns * (_CELL + _GAP)
            upper = top + rank // columns * (_CELL + _LABEL + _GAP)
            picture = thumbnail(hit.uri, size=_CELL)
            if picture is None:
                draw.rectangle((left, upper, left + _CELL, upper + _CELL), _HOLE)
                draw.text((left + 8, upper + _CELL // 2), "cannot be read any more", _FAINT, font=small)
            else:
                offset = ((_CELL - picture.width) // 2, (_CELL - picture.height) // 2)
                sheet.paste(picture, (left + offset[0], upper + offset[1]))
            draw.text((left, upper + _CELL + 3), f"{rank + 1}.  {hit.score:.3f}", _INK, font=small)
            draw.text((left, upper + _CELL + 20), _fit(draw, name_of(hit), small, _CELL), _FAINT, font=small)
        top += count * (_CELL + _LABEL + _GAP)
    return sheet


def _fit(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Shorten a text until it fits, so that no label runs into the next."""
    text = " ".join(text.split())
    # A query may be a page long; nothing near that fits on one line.
    text = textwrap.shorten(text, 400, placeholder="...") if len(text) > 400 else text
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "...", font=font) > width:
        text = text[:-1]
    return text.rstrip() + "..."
