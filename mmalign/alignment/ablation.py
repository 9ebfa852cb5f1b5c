"""Whether the region that an alignment cites is what its phrase's similarity comes from: take it away and see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError
from mmalign.types import Box


@dataclass(frozen=True, slots=True)
class Ablation:
    """What painting over a region did to a similarity.

    Attributes:
        cited: How much the similarity fell when the cited region was painted over.
        other: How much it fell, on average, when a region of the same size elsewhere was.
    """

    cited: float
    other: float

    @property
    def faithful(self) -> bool:
        """Whether the cited region mattered more."""
        return self.cited > self.other


def paint_over(picture: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """Give a copy of a picture in which a box is filled with the median colour of what is outside it.

    Args:
        picture: Shape (H, W, 3).
        box: What to fill; parts outside the picture are left out.

    Returns:
        The other picture, of the same shape.
    """
    painted = picture.copy()
    left, top, right, bottom = (max(0, round(edge)) for edge in box.corners)
    outside = np.ones(picture.shape[:2], bool)
    outside[top:bottom, left:right] = False
    around = picture[outside] if outside.any() else picture.reshape(-1, picture.shape[-1])
    painted[top:bottom, left:right] = np.median(around, axis=0).astype(np.uint8)
    return painted


def ablate_region(
    picture: NDArray[np.uint8],
    box: Box,
    similarity: Callable[[NDArray[np.uint8]], float],
    *,
    rng: np.random.Generator,
    draws: int = 5,
) -> Ablation:
    """Compare painting over a cited region with painting over regions of the same size at random.

    Args:
        picture: Shape (H, W, 3), uint8.
        box: The cited region.
        similarity: Gives the similarity of the phrase to a whole picture; called `draws` + 2 times.
        rng: Where the random regions come from. They are those, of eight tries each, that overlap the cited region
            least, since a large region leaves little room elsewhere.
        draws: How many, from 1.

    Returns:
        Both falls.

    Raises:
        InputError: `draws` below 1, or a box outside the picture.

    Source: the deletion test of Petsiuk et al., 2018 (RISE), with one region at a time.
    """
    if draws < 1:
        raise InputError(f"draws must be at least 1, got {draws}")
    height, width = picture.shape[:2]
    inside = box.clipped(width, height)
    before = similarity(picture)
    cited = before - similarity(paint_over(picture, inside))
    falls = []
    for _ in range(draws):
        corners = rng.uniform(0, 1, (8, 2)) * [width - inside.width, height - inside.height]
        elsewhere = min((Box(x, y, inside.width, inside.height) for x, y in corners), key=lambda b: _common(b, inside))
        falls.append(before - similarity(paint_over(picture, elsewhere)))
    return Ablation(cited, float(np.mean(falls)))


def _common(one: Box, two: Box) -> float:
    left, top, right, bottom = one.corners
    x, y, far, low = two.corners
    return max(0.0, min(right, far) - max(left, x)) * max(0.0, min(bottom, low) - max(top, y))
