"""Detectors: what proposes regions of a picture where one has a model for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from mmalign.encoders import ImageLike
from mmalign.errors import InputError
from mmalign.types import Box, Region

if TYPE_CHECKING:
    import torch

MAX_DETECTIONS = 100
"""Regions of a picture, by default."""


class Detector(Protocol):
    """Proposes regions of a picture, each with a label and a score.

    Attributes:
        name: The spec that loads it again.
        open_vocabulary: Whether it looks for the phrases that it is given; else it knows a fixed list of classes.
    """

    @property
    def name(self) -> str:
        """Spec that loads it again."""
        ...

    @property
    def open_vocabulary(self) -> bool:
        """Whether it looks for given phrases."""
        ...

    def detect(
        self,
        image: ImageLike,
        phrases: Sequence[str] = (),
        *,
        threshold: float | None = None,
        most: int = MAX_DETECTIONS,
    ) -> tuple[Region, ...]:
        """Propose regions.

        Args:
            image: A picture of any PIL mode, or a path.
            phrases: What to look for; ignored by a detector with classes of its own.
            threshold: Least score, 0 to 1; None for the model's usual one.
            most: How many regions at most.

        Returns:
            Regions of source `detector` in pixels of the picture, the surest first. The label is the class, or the
            phrase word for word.

        Raises:
            DecodeError: The path cannot be decoded.
            InputError: No phrases for a detector that needs them, a threshold outside 0 to 1, or `most` below 1.
        """
        ...


def check_request(threshold: float | None, most: int, *, usual: float) -> float:
    """Return the least score to keep.

    Args:
        threshold: What the caller asked for, or None.
        most: How many regions the caller asked for.
        usual: The threshold of a caller who asked for none.

    Returns:
        The threshold.

    Raises:
        InputError: A threshold outside 0 to 1, or `most` below 1.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise InputError(f"threshold must lie between 0 and 1, got {threshold}")
    if most < 1:
        raise InputError(f"most must be at least 1, got {most}")
    return usual if threshold is None else threshold


def as_regions(
    corners: torch.Tensor,
    scores: torch.Tensor,
    labels: Sequence[str],
    size: tuple[int, int],
    *,
    least: float,
    most: int,
) -> tuple[Region, ...]:
    """Make regions of what a model found.

    Args:
        corners: Tensor of shape (n, 4): left, top, right and bottom in pixels.
        scores: Tensor of shape (n,), 0 to 1.
        labels: n names.
        size: Width and height of the picture in pixels; boxes are cut at its edges, and those without an area left
            out.
        least: Least score.
        most: How many at most.

    Returns:
        The regions, the surest first.
    """
    width, height = size
    regions = []
    for (left, top, right, bottom), score, label in zip(corners.tolist(), scores.tolist(), labels, strict=True):
        left, top, right, bottom = max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)
        # Comparisons with NaN are false: a box or score that is not a number is left out as well.
        if score >= least and right > left and bottom > top:
            regions.append(Region(Box(left, top, right - left, bottom - top), "detector", min(score, 1.0), label))
    return tuple(sorted(regions, key=lambda region: -region.score)[:most])
