"""An alignment as it shows in a notebook: the sentence with its phrases marked, and where each of them is.

The picture is not kept with an alignment; `Alignment.draw` draws into it.
"""

from __future__ import annotations

from mmalign.alignment.drawable import Drawable
from mmalign.alignment.drawing.palette import COLOURS
from mmalign.types import Html, brief, element, faint

_MOST = 60
_HEADS = ("phrase", "left", "top", "width", "height", "probability")


def alignment_html(alignment: Drawable) -> Html:
    """Write an alignment as HTML.

    Args:
        alignment: The alignment.

    Returns:
        The sentence, a table of where its phrases are in pixels of the picture, and remarks.
    """
    rows = []
    for link in alignment.links:
        box = alignment.regions[link.region].box
        numbers = [f"{side:.0f}" for side in box.to_list()]
        rows.append([brief(alignment.phrases[link.phrase].text), *numbers, f"{alignment.probability(link):.0%}"])
    rows += [[brief(alignment.phrases[place].text), "not found"] for place in alignment.unmatched_phrases]
    body = [element("tr", *[element("td", cell) for cell in row]) for row in rows[:_MOST]]
    table = element("table", element("tr", *[element("th", name) for name in _HEADS]), *body)
    more = [faint(f"and {len(rows) - _MOST:,} more")] * (len(rows) > _MOST)
    notes = [faint(brief(note, most=400)) for note in alignment.notes]
    return element("div", element("p", *_marked(alignment)), table, *more, *notes)


def _marked(alignment: Drawable) -> list[str | Html]:
    """The sentence in pieces, its phrases underlined in colours of their own; one within another is part of that."""
    parts: list[str | Html] = []
    end = 0
    placed = sorted((phrase.start, -phrase.end, place) for place, phrase in enumerate(alignment.phrases))
    for start, stop, place in placed:
        if start < end:
            continue
        colour = "rgb({},{},{})".format(*COLOURS[place % len(COLOURS)])
        style = f"border-bottom:3px {'dotted' if place in alignment.unmatched_phrases else 'solid'} {colour}"
        parts += [alignment.sentence[end:start], element("span", alignment.sentence[start:-stop], style=style)]
        end = -stop
    return [*parts, alignment.sentence[end:]]
