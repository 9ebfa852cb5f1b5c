"""An alignment as a picture: boxes and heat where the phrases are, the sentence in the same colours, and a legend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from mmalign.alignment.drawable import Drawable
from mmalign.alignment.drawing.labels import LabelPlacement, LabelRequest, Rectangle, place_labels
from mmalign.alignment.drawing.legend import LegendEntry, draw_legend
from mmalign.alignment.drawing.palette import PAPER, Style, draw_line, fitted, font_for, needs_wide, style_of
from mmalign.alignment.drawing.sentence import draw_sentence
from mmalign.types import Box
from mmalign.utils import to_rgb

FloatMap = NDArray[np.float32]

# The longer side of the picture as it is drawn: a small one is enlarged, so that there is room to write.
_LEAST_SIDE, _MOST_SIDE = 800, 2000
# The narrowest page that a sentence can be written on.
_LEAST_PAGE = 520
# A label is at most this share of the picture's width.
_LONGEST = 0.4
# How strongly heat is painted over the picture where it is highest.
_HEAT = 0.5
# Below this share of a phrase's highest heat nothing is painted.
_WARM = 0.55


@dataclass(frozen=True, eq=False)
class FigureLayout:
    """Where everything goes in the drawing of a picture.

    Attributes:
        size: Width and height of the picture as it is drawn, in pixels.
        text: Height of the writing, in pixels.
        styles: Style of each phrase; mentions of the same thing share one.
        boxes: For each phrase the boxes that it got, as drawn.
        labels: For each box, in the order of the phrases: the phrase, its place or None, and its text in each size.
    """

    size: tuple[int, int]
    text: int
    styles: tuple[Style, ...]
    boxes: tuple[tuple[Rectangle, ...], ...]
    labels: tuple[tuple[int, LabelPlacement | None, tuple[str, ...]], ...]

    @property
    def line(self) -> int:
        """Width of the boxes' lines, in pixels."""
        return max(2, round(self.text / 6))


def draw_alignment(alignment: Drawable, picture: Image.Image, *, heat: bool = True) -> Image.Image:
    """Draw an alignment.

    Args:
        alignment: What to draw.
        picture: The picture that was aligned, of any mode and of the size that it had.
        heat: Whether to shade where each phrase is.

    Returns:
        Mode RGB, wider and higher than the picture: above, the picture with numbered boxes; below it the sentence,
        whose phrases have the colour and the line of their boxes; and a legend with a small map for each phrase that
        was found, while those that were not are grey. Colours are those of Okabe and Ito, and lines and numbers
        differ as well, so that nothing hangs on colour alone. No label covers another.
    """
    picture = to_rgb(picture)
    layout = plan_drawing(alignment, picture.size)
    scaled = picture.resize(layout.size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    heated = _shade(scaled, alignment, layout) if heat else scaled
    painted = _paint_boxes(heated, layout)
    page = max(layout.size[0], _LEAST_PAGE)
    margin = layout.text
    strips = [
        draw_sentence(alignment, layout.styles, width=page, size=layout.text),
        draw_legend(_entries(alignment, scaled, layout), width=page, size=layout.text),
    ]
    whole = Image.new(
        "RGB", (page + 2 * margin, layout.size[1] + 2 * margin + sum(strip.height for strip in strips)), PAPER
    )
    whole.paste(painted, (margin + (page - layout.size[0]) // 2, margin))
    top = layout.size[1] + 2 * margin
    for strip in strips:
        whole.paste(strip, (margin, top))
        top += strip.height
    return whole


def plan_drawing(alignment: Drawable, size: tuple[int, int]) -> FigureLayout:
    """Decide where everything goes in the drawing of a picture.

    Args:
        alignment: What to draw.
        size: Width and height of the picture in pixels.

    Returns:
        The layout; no two labels overlap, and all lie in the picture.
    """
    longer = max(size)
    scale = min(max(_LEAST_SIDE, longer), _MOST_SIDE) / longer
    drawn = (max(round(size[0] * scale), 1), max(round(size[1] * scale), 1))
    text = int(np.clip(round((drawn[0] * drawn[1]) ** 0.5 / 42), 15, 34))
    styles = _styles(alignment)
    boxes = tuple(
        tuple(
            _scaled(alignment.regions[link.region].box, drawn[0] / size[0], drawn[1] / size[1])
            for link in alignment.links
            if link.phrase == phrase
        )
        for phrase in range(len(alignment.phrases))
    )
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    wanted: list[LabelRequest] = []
    owners: list[tuple[int, tuple[str, ...]]] = []
    seen: set[tuple[int, Rectangle]] = set()
    for phrase, own in enumerate(boxes):
        words = alignment.phrases[phrase].text
        font = font_for(text, needs_wide(words))
        number = str(styles[phrase].number)
        texts = (f"{number}  {fitted(measure, words, font, _LONGEST * drawn[0])}", number)
        for box in own:
            # A second mention of the same thing in the same place is not written again.
            if (styles[phrase].number, box) not in seen:
                seen.add((styles[phrase].number, box))
                high = round(text * 1.45)
                sizes = tuple((round(measure.textlength(each, font=font)) + text // 2 + 2, high) for each in texts)
                wanted.append(LabelRequest(box, sizes))
                owners.append((phrase, texts))
    places = place_labels(wanted, *drawn)
    labels = tuple((phrase, place, texts) for (phrase, texts), place in zip(owners, places, strict=True))
    return FigureLayout(drawn, text, styles, boxes, labels)


def _styles(alignment: Drawable) -> tuple[Style, ...]:
    """A style for each thing; a phrase that stands for an earlier one shares that one's."""
    found: list[Style] = []
    things = 0
    for phrase in alignment.phrases:
        if phrase.antecedent is not None and phrase.antecedent < len(found):
            found.append(found[phrase.antecedent])
        else:
            found.append(style_of(things))
            things += 1
    return tuple(found)


def _scaled(box: Box, across: float, down: float) -> Rectangle:
    left, top, right, bottom = box.corners
    return Rectangle(round(left * across), round(top * down), round(right * across), round(bottom * down))


def _shade(picture: Image.Image, alignment: Drawable, layout: FigureLayout) -> Image.Image:
    """The picture, paler, with each found phrase's colour where the phrase is."""
    found = [phrase for phrase, own in enumerate(layout.boxes) if own]
    if alignment.heat is None or not found:
        return picture
    base = np.asarray(picture, np.float32)
    maps = np.stack([_stretched(alignment.heat[phrase], layout.size) for phrase in found])
    # Where two phrases are at one place, nearly only the stronger one is seen: colours do not mix into new ones.
    weights = maps**8 + np.float32(1e-9)
    colours = np.einsum(
        "phw,pc->hwc", weights, np.array([layout.styles[phrase].colour for phrase in found], np.float32)
    )
    colours /= weights.sum(axis=0)[..., None]
    share = (_HEAT * np.clip((maps.max(axis=0) - _WARM) / (1 - _WARM), 0, 1))[..., None]
    return Image.fromarray((base * (1 - share) + colours * share).round().astype(np.uint8))


def _stretched(heat: FloatMap, size: tuple[int, int]) -> FloatMap:
    """A phrase's map over the picture, 0 to 1 with its highest place at 1; zeros where it is the same everywhere."""
    spread = float(heat.max() - heat.min())
    grey = (np.asarray(heat, np.float32) - heat.min()) / spread if spread > 0 else np.zeros_like(heat)
    small = Image.fromarray((grey * 255).round().astype(np.uint8))
    smooth = small.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(max(size) / 90))
    result: FloatMap = np.asarray(smooth, np.float32) / np.float32(255)
    return result


def _paint_boxes(picture: Image.Image, layout: FigureLayout) -> Image.Image:
    painted = picture.copy()
    draw = ImageDraw.Draw(painted)
    width, height = layout.size
    inset: dict[Rectangle, int] = {}
    for phrase, own in enumerate(layout.boxes):
        for box in own:
            # Two things in one place: one box inside the other.
            step = inset.get(box, 0)
            inset[box] = step + 1
            rim = layout.line / 2 + 1 + step * (layout.line + 4)
            left, top = max(box.left, 0) + rim, max(box.top, 0) + rim
            right, bottom = min(box.right, width) - 1 - rim, min(box.bottom, height) - 1 - rim
            if right > left and bottom > top:
                corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
                draw_line(draw, corners, layout.styles[phrase], layout.line)
    for phrase, placed, texts in layout.labels:
        if placed is None:
            continue
        style, place = layout.styles[phrase], placed.place
        if placed.far:
            box = next(own for own in layout.boxes[phrase])
            draw_line(draw, [_middle(place), _middle(box)], style, max(1, layout.line // 2))
        draw.rounded_rectangle(
            (place.left, place.top, place.right - 1, place.bottom - 1), layout.text // 4, style.colour, (25, 25, 25)
        )
        draw.text(
            (place.left + layout.text // 4 + 1, (place.top + place.bottom) / 2),
            texts[placed.size],
            style.ink,
            font=font_for(layout.text, needs_wide(texts[0])),
            anchor="lm",
        )
    return painted


def _middle(place: Rectangle) -> tuple[float, float]:
    return (place.left + place.right) / 2, (place.top + place.bottom) / 2


def _entries(alignment: Drawable, picture: Image.Image, layout: FigureLayout) -> list[LegendEntry]:
    """What the legend tells of each phrase; a further mention of a thing is told with the first."""
    entries: list[LegendEntry] = []
    for phrase, style in enumerate(layout.styles):
        own = alignment.phrases[phrase].text
        links = [link for link in alignment.links if link.phrase == phrase]
        earlier = next((k for k, entry in enumerate(entries) if entry.style.number == style.number), None)
        if earlier is not None and (not links or entries[earlier].probability is not None):
            continue
        entry = LegendEntry(
            style=style,
            text=own,
            probability=max(map(alignment.probability, links)) if links else None,
            count=len(links),
            picture=_small_map(alignment, picture, layout, phrase) if links else None,
        )
        if earlier is None:
            entries.append(entry)
        else:
            entries[earlier] = entry
    return entries


def _small_map(alignment: Drawable, picture: Image.Image, layout: FigureLayout, phrase: int) -> Image.Image:
    """The picture in pale grey, with the phrase's colour where it is, and its boxes."""
    scale = min(1.0, 12 * layout.text / max(picture.size))
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    small = picture.resize(size, Image.Resampling.BOX).convert("L").convert("RGB")
    base = np.asarray(small, np.float32) * 0.6 + 255 * 0.4
    style = layout.styles[phrase]
    if alignment.heat is not None:
        share = (0.85 * _stretched(alignment.heat[phrase], size) ** 2)[..., None]
        base = base * (1 - share) + np.array(style.colour, np.float32) * share
    small = Image.fromarray(base.round().astype(np.uint8))
    draw = ImageDraw.Draw(small)
    across, down = size[0] / layout.size[0], size[1] / layout.size[1]
    for box in layout.boxes[phrase]:
        outline = (
            min(max(round(box.left * across), 0), size[0] - 1),
            min(max(round(box.top * down), 0), size[1] - 1),
            min(max(round(box.right * across) - 1, 0), size[0] - 1),
            min(max(round(box.bottom * down) - 1, 0), size[1] - 1),
        )
        if outline[2] > outline[0] and outline[3] > outline[1]:
            draw.rectangle(outline, outline=(25, 25, 25), width=2)
    return small
