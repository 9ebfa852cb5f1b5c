"""Regions that the caller gives: boxes, regions or masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import DimensionError, InputError
from mmalign.types import Box, Note, Region, as_list
from mmalign.utils import off_device

GivenRegion: TypeAlias = Union[Box, Region, Sequence[float], NDArray[Any]]  # noqa: UP007 - evaluated at run time
"""A box, a region, the four numbers x, y, width and height, or a mask: booleans of the picture's height and width."""

# A box may go this far over the edge without a note: half a pixel is rounding.
_ROUNDING = 0.5


def given_regions(given: Sequence[GivenRegion], width: int, height: int) -> tuple[tuple[Region, ...], tuple[Note, ...]]:
    """Check the regions that a caller gives, and cut them at the edges of the picture.

    Args:
        given: Regions in pixels of the picture, in any form of `GivenRegion`; a mask stands for the box around it.
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.

    Returns:
        The regions, in the same order, those from boxes of source `given` and score 1; and notes, one for each box
        that was cut.

    Raises:
        InputError: A box outside the picture, with a width or height of 0 or less, or with a number that is not
            finite; an empty mask; something else. The text says which of them.
        DimensionError: A mask of another size than the picture.

    Example:
        >>> regions, notes = given_regions([[10, 10, 100, 50]], 60, 60)
        >>> regions[0].box.to_list(), len(notes)
        ([10.0, 10.0, 50.0, 50.0], 1)
    """
    regions, notes = [], []
    for number, one in enumerate(as_list("regions", given, "a list of boxes, `Region`s or masks")):
        region = _as_region(one, number, width, height)
        try:
            box = region.box.clipped(width, height)
        except InputError as error:
            raise InputError(f"region {number}: {error}; are its numbers pixels of this very picture?") from error
        if max(abs(a - b) for a, b in zip(box.corners, region.box.corners, strict=True)) > _ROUNDING:
            notes.append(
                Note(
                    f"region {number}, {region.box.to_list()}, goes beyond the picture of {width} x {height} pixels; "
                    f"it was cut to {box.to_list()}",
                    about=f"region {number}",
                )
            )
        regions.append(Region(box, region.source, region.score, region.label))
    return tuple(regions), tuple(notes)


def _as_region(one: GivenRegion, number: int, width: int, height: int) -> Region:
    if isinstance(one, Region):
        return one
    if isinstance(one, Box):
        return Region(one)
    if isinstance(one, np.ndarray) and one.ndim == 2:
        return Region(_around(one, number, width, height))
    try:
        numbers = list(off_device(one))
        if isinstance(one, str | bytes) or np.ma.isMaskedArray(one) or np.iscomplexobj(numbers):
            raise TypeError("no four real numbers")
        x, y, wide, high = map(float, numbers)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"region {number} is {one!r}; expected a box, four numbers [x, y, width, height] in pixels, or a mask"
        ) from error
    try:
        return Region(Box(x, y, wide, high))
    except InputError as error:
        raise InputError(f"region {number}: {error}") from error


def _around(mask: NDArray[Any], number: int, width: int, height: int) -> Box:
    if mask.shape != (height, width):
        raise DimensionError(
            f"region {number}: a mask has the shape of its picture, here ({height}, {width}), got {mask.shape}"
        )
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise InputError(f"region {number}: the mask is empty; leave it out")
    left, top = int(columns[0]), int(rows[0])
    return Box(float(left), float(top), float(columns[-1] + 1 - left), float(rows[-1] + 1 - top))
