"""What a picture says of phrases before they are matched: regions, how phrases fit them, and maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image

from mmalign.errors import MissingExtraError
from mmalign.types import Box, Note, Region
from mmalign.utils import Float32Array

if TYPE_CHECKING:
    from mmalign.grounding import Grounding, PlainGrounding

AnyGrounding: TypeAlias = "Grounding | PlainGrounding"
"""What is known of some phrases in one picture: by the learned head, or by an encoder alone."""

# What a detector's say counts where its label is the phrase: its log-odds over those of a box that is hardly one.
_HARDLY = -3.0
# Weight of how usual a proposed box is where no head was trained, and the share of things below which all is seldom.
_PROPOSAL_WEIGHT, _SELDOM = np.float32(0.5), 1e-3
# Boxes that the head adds to the proposals for each phrase.
_OWN_BOXES = 5


@dataclass(frozen=True, eq=False)
class PhraseScores:
    """What is known of p phrases in one picture before they are matched.

    Attributes:
        regions: Where they may be; r of them.
        similarity: How well each region fits each phrase, shape (p, r), float32, in nats.
        heat: Where each phrase is, shape (p, h, w), float32; the cells divide the picture evenly, row 0 is the top.
        existence: Probability that each phrase is in the picture, shape (p,), float32, or None where nobody says.
        notes: Remarks that a person should see.
    """

    regions: tuple[Region, ...]
    similarity: Float32Array
    heat: Float32Array
    existence: Float32Array | None
    notes: tuple[Note, ...] = ()


def heat_maps(grounding: AnyGrounding, boxes: Sequence[Box]) -> Float32Array:
    """Give the maps of a picture.

    Args:
        grounding: What is known of it.
        boxes: Regions of which maps are painted where there is nothing finer.

    Returns:
        Array of shape (p, h, w), float32.
    """
    return grounding.heat(boxes) if callable(grounding.heat) else grounding.heat


def detector_bonus(regions: Sequence[Region], texts: Sequence[str]) -> Float32Array:
    """Give what detectors say of phrases: of those that hold the label of a region word by word.

    Args:
        regions: r regions; those without a label say nothing.
        texts: p phrases.

    Returns:
        Array of shape (p, r), float32, 0 or more, in nats: the log-odds of the detection.
    """
    bonus = np.zeros((len(texts), len(regions)), np.float32)
    words = [f" {' '.join(text.lower().split())} " for text in texts]
    for j, region in enumerate(regions):
        if region.label:
            label = f" {' '.join(region.label.lower().split())}"
            odds = np.clip(region.score, 1e-3, 1 - 1e-3)
            worth = max(float(np.log(odds / (1 - odds))) - _HARDLY, 0.0)
            for i, text in enumerate(words):
                bonus[i, j] = worth if f"{label} " in text or f"{label}s " in text else 0.0
    return bonus


def proposals_of(picture: Image.Image, grounding: AnyGrounding, notes: list[Note]) -> tuple[Region, ...]:
    """Propose regions: those that pixels suggest, and those that the phrases themselves point at.

    Args:
        picture: Of mode RGB.
        grounding: What is known of the phrases in it.
        notes: Gets a remark where scikit-image is not installed.

    Returns:
        The regions, no two of the same box.
    """
    from mmalign.regions import propose_regions

    pixels = np.asarray(picture)
    try:
        found = propose_regions(pixels)
    except MissingExtraError as error:
        notes.append(Note(f"regions are proposed without looking at the picture's parts: {error}", about="regions"))
        found = propose_regions(pixels, segments=False)
    return _without_copies([*found, *_own_regions(grounding)])


def proposal_bonus(regions: Sequence[Region], size: tuple[int, int]) -> Float32Array:
    """Give what is known of proposed regions before the phrases are looked at: how usual their boxes are.

    The learned head knows it already; without it the regions that stand out most are often slivers.

    Args:
        regions: r regions in pixels.
        size: Width and height of the picture in pixels.

    Returns:
        Array of shape (r,), float32, in nats, to be added to the similarity of every phrase.
    """
    from mmalign.regions import box_prior

    usual: Float32Array = np.log(box_prior([region.box for region in regions], *size) + np.float32(_SELDOM))
    return _PROPOSAL_WEIGHT * usual


def _own_regions(grounding: AnyGrounding) -> list[Region]:
    from mmalign.grounding import Grounding
    from mmalign.regions import peak_regions

    if isinstance(grounding, Grounding):
        return [region for found in grounding.regions(most=_OWN_BOXES) for region in found]
    if grounding.cells is None or not len(grounding.text):
        return []
    return list(peak_regions(grounding.heat(), *grounding.picture.size))


def _without_copies(regions: Sequence[Region]) -> tuple[Region, ...]:
    """The same regions, of equal boxes only the first."""
    return tuple({region.box: region for region in reversed(regions)}.values())[::-1]
