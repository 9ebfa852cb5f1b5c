"""Contact sheets: the hits of one or more queries as one picture or one HTML page."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mmalign.errors import DecodeError, InputError
from mmalign.media import decode_image
from mmalign.types import Hit, SearchResult, as_list, as_path, check_type

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
        target.write_text(_page(results), encoding="utf-8")
    else:
        _sheet(results).save(target)
    return target


def thumbnail(hit: Hit, *, size: int = _CELL) -> Image.Image | None:
    """The hit's picture, scaled to fit a square.

    Args:
        hit: The hit.
        size: Longest side in pixels.

    Returns:
        An RGB picture, or None where it cannot be read any more.
    """
    try:
        picture = decode_image(hit.uri, at_least=size).image
    except DecodeError:
        return None
    picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def _name(hit: Hit) -> str:
    return hit.uri.rsplit("/", 1)[-1] or hit.id


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
            picture = thumbnail(hit)
            if picture is None:
                draw.rectangle((left, upper, left + _CELL, upper + _CELL), _HOLE)
                draw.text((left + 8, upper + _CELL // 2), "cannot be read any more", _FAINT, font=small)
            else:
                offset = ((_CELL - picture.width) // 2, (_CELL - picture.height) // 2)
                sheet.paste(picture, (left + offset[0], upper + offset[1]))
            draw.text((left, upper + _CELL + 3), f"{rank + 1}.  {hit.score:.3f}", _INK, font=small)
            draw.text((left, upper + _CELL + 20), _fit(draw, _name(hit), small, _CELL), _FAINT, font=small)
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


def _page(results: Sequence[SearchResult]) -> str:
    blocks = []
    for result in results:
        figures = []
        for rank, hit in enumerate(result, 1):
            caption = (hit.metadata.get("captions") or [""])[0]
            picture = thumbnail(hit, size=2 * _CELL)
            image = f'<img alt="{html.escape(caption)}" src="{_data_uri(picture)}">' if picture else "<p>unreadable</p>"
            figures.append(
                f"<figure>{image}<figcaption><b>{rank}.</b> {hit.score:.3f} "
                f'<span title="{html.escape(hit.uri)}">{html.escape(_name(hit))}</span>'
                f"<br>{html.escape(caption)}</figcaption></figure>"
            )
        body = "".join(figures) or "<p>nothing found</p>"
        blocks.append(f"<h2>{html.escape(textwrap.shorten(result.query, 400))}</h2><section>{body}</section>")
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Search results</title><style>'
        "body{font:15px/1.4 system-ui,sans-serif;margin:2em;color:#191919}"
        "section{display:grid;grid-template-columns:repeat(auto-fill,minmax(200px,1fr));gap:1em}"
        "figure{margin:0}img{width:100%;height:200px;object-fit:contain;background:#f4f4f4}"
        "figcaption{font-size:13px;color:#555;overflow-wrap:anywhere}b{color:#191919}</style>"
        + "".join(blocks)
        + "</html>\n"
    )


def _data_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
