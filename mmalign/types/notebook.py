"""How items and hits show in a notebook: their pictures as small ones within the page, and what is said of them.

Nothing here reads a picture, and no browser is made to fetch one. Who can read files says how with `use_thumbnails`;
until then, as where values are looked at without a collection, a line stands for each picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmalign.types.html import Html, element, jpeg_uri

MOST_FIGURES = 24
"""Hits of a result that are shown; the others are counted."""

# Longest side of a picture, in pixels.
_SIDE = 200
_LONG, _SHORT = 400, 80
_MOST_VALUES, _MOST_CAPTIONS = 8, 3
# In the elements themselves: a page that shows many values has one style for all.
_FAINT = "display:block;margin:0;opacity:.7;font-size:90%"
_GRID = "display:grid;grid-template-columns:repeat(auto-fill,minmax(180px,1fr));gap:12px"
_FIGURE = "margin:0;max-width:260px;overflow-wrap:anywhere"
_IMAGE = "display:block;width:100%;height:180px;object-fit:contain"

_read: Callable[[str, int], bytes | None] = lambda uri, side: None  # noqa: E731 - until somebody can read files


def use_thumbnails(read: Callable[[str, int], bytes | None]) -> None:
    """Say how pictures are read for a notebook.

    Args:
        read: Gives the bytes of a JPEG for a URI and its longest side in pixels, or None where there is no picture to
            show. It fetches nothing and raises nothing.
    """
    global _read
    _read = read


def brief(value: Any, *, most: int = _SHORT) -> str:
    """A value as a text that is not long."""
    text = str(value)
    return text if len(text) <= most else text[: most - 1] + "\u2026"


def figure(uri: str, *, title: str, metadata: Mapping[str, Any], lines: Iterable[str] = ()) -> Html:
    """A picture with what is said of it.

    Args:
        uri: Where the picture is; empty where there is none.
        title: What stands first, such as the score.
        metadata: Captions and other values by name, of which the first few are shown and the others counted.
        lines: What stands before these.
    """
    captions = metadata.get("captions") or ()
    captions = (captions,) if isinstance(captions, str) else tuple(map(str, captions))
    values = [(name, value) for name, value in metadata.items() if name != "captions" and value is not None]
    rows = [*lines, *captions[:_MOST_CAPTIONS]]
    rows += [f"{name}: {brief(value)}" for name, value in values[:_MOST_VALUES]]
    more = max(0, len(captions) - _MOST_CAPTIONS) + max(0, len(values) - _MOST_VALUES)
    rows += [f"and {more} more"] * bool(more)
    jpeg = _read(uri, _SIDE) if uri else None
    shown = (
        faint("no picture to show")
        if jpeg is None
        else element("img", src=jpeg_uri(jpeg), alt=brief(captions[0] if captions else "", most=_LONG), style=_IMAGE)
    )
    name = element("span", " " + brief(uri.rsplit("/", 1)[-1]), title=brief(uri, most=_LONG))
    shown_lines = [faint(brief(line, most=_LONG)) for line in rows]
    return element(
        "figure", shown, element("figcaption", element("b", brief(title)), name, *shown_lines), style=_FIGURE
    )


def grid(figures: Iterable[Html]) -> Html:
    """Figures side by side, as many as there is room for."""
    return element("div", *figures, style=_GRID)


def faint(text: str) -> Html:
    """A line that is not in the foreground."""
    return element("span", text, style=_FAINT)
