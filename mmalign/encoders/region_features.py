"""Embeddings of the regions of one picture, in the space of whole pictures and texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

import numpy as np
from PIL import Image, ImageFilter

from mmalign.encoders.base import Encoder, EncodesBoxes, EncodesPatches, ImageLike
from mmalign.encoders.dense import cell_weights
from mmalign.encoders.pictures import load_rgb
from mmalign.errors import InputError
from mmalign.types import Box
from mmalign.utils import Float32Array, l2_normalize

RegionMethod: TypeAlias = Literal["dense", "pooled", "crop", "context"]
"""How a region is embedded.

`dense` is the mean of `encode_patches` over the region, and `pooled` the projection of the mean of the encoder's own
features over it (`encode_boxes`, which the versions of `lite` have): one pass for all regions. `crop` encodes the
region cut out, and `context` the region with its blurred and dimmed surroundings: a pass for each region.
"""

# Side of what `context` shows, in sides of the region; how strongly the surroundings are blurred, as a share of the
# longer side of what is shown; and how bright they are left.
_AROUND, _BLUR, _LIGHT = 1.5, 0.03, 0.6


def encode_regions(
    encoder: Encoder,
    image: ImageLike,
    boxes: Sequence[Box],
    *,
    ways: Sequence[RegionMethod] = ("dense",),
    batch_size: int = 32,
) -> dict[str, Float32Array]:
    """Embed regions of a picture in one or several ways.

    Args:
        encoder: The encoder. Any can `crop` and `context`; `dense` needs its `encode_patches`, `pooled` its
            `encode_boxes`.
        image: A picture of any PIL mode, or a path.
        boxes: r regions in pixels of the picture; what lies outside it is cut off.
        ways: Which embeddings are made.
        batch_size: How many crops go through the model at once.

    Returns:
        For each way an array of shape (r, dim), float32, each row of length 1.

    Raises:
        DecodeError: The path cannot be decoded.
        InputError: No or an unknown way, one that the encoder has no method for, or a box outside the picture.

    Source: `dense` and `pooled` are RoI pooling with whole weights (Girshick, Fast R-CNN, 2015; He et al., Mask R-CNN,
    2017); the blurred surroundings are those of Yang et al., Fine-Grained Visual Prompting, 2023.
    """
    ways = tuple(ways)
    unknown = [way for way in ways if way not in get_args(RegionMethod)]
    if unknown or not ways:
        raise InputError(f"ways must be some of {', '.join(get_args(RegionMethod))}, got {list(ways)}")
    methods = {way: _method(encoder, way) for way in ways if way in ("dense", "pooled")}
    picture = load_rgb(image)
    boxes = [box.clipped(*picture.size) for box in boxes]
    if not boxes:
        return {way: np.zeros((0, encoder.dim), np.float32) for way in ways}
    crops: list[Image.Image] = []
    if "crop" in ways:
        crops += [cut_out(picture, box) for box in boxes]
    if "context" in ways:
        crops += [in_context(picture, box) for box in boxes]
    found: dict[str, Float32Array] = {}
    if crops:
        # All in one call, so that the last batch of one way is filled with the first of the other.
        rows = encoder.encode_image(crops, batch_size=batch_size)
        named = [way for way in ("crop", "context") if way in ways]
        found.update(zip(named, np.split(rows, len(named)), strict=True))
    if "dense" in ways:
        cells = methods["dense"](picture)
        weights = cell_weights(boxes, picture.size, cells.shape[:2])
        found["dense"] = l2_normalize(weights @ cells.reshape(weights.shape[1], -1))
    if "pooled" in ways:
        found["pooled"] = methods["pooled"](picture, boxes)
    return {way: found[way] for way in ways}


def compare_regions(
    encoder: Encoder,
    image: ImageLike,
    boxes: Sequence[Box],
    text: Float32Array,
    *,
    ways: Sequence[RegionMethod] = ("pooled", "context"),
) -> Float32Array:
    """Compare regions with phrases: cosines, less what each region has in common with all of the phrases.

    Args:
        encoder: The encoder.
        image: A picture of any PIL mode, or a path.
        boxes: r regions in pixels of the picture; what lies outside it is cut off.
        text: Embeddings of the phrases, shape (p, dim), float32, of length 1.
        ways: How regions are embedded; the cosines of several ways are added. Those here told given regions apart best
            (benchmarks/region_features.py); `context` is a pass through the model for each region.

    Returns:
        Array of shape (p, r), float32. The mean over two or more phrases is 0 for each region; of one phrase nothing
        is taken away.

    Raises:
        DecodeError: As `encode_regions`.
        InputError: As `encode_regions`.
    """
    features = encode_regions(encoder, image, boxes, ways=ways)
    cosines: Float32Array = np.sum([text @ features[way].T for way in ways], axis=0)
    return cosines - cosines.mean(axis=0) if len(text) > 1 else cosines


def cut_out(picture: Image.Image, box: Box) -> Image.Image:
    """Cut a region out of a picture, to whole pixels outwards.

    Args:
        picture: The picture.
        box: A region inside it, in pixels.

    Returns:
        The region, at least 1 x 1 pixels.
    """
    return picture.crop(_whole_pixels(picture, box))


def in_context(picture: Image.Image, box: Box) -> Image.Image:
    """Cut a region out together with its surroundings, those blurred and dimmed.

    Args:
        picture: A picture of mode RGB.
        box: A region inside it, in pixels.

    Returns:
        The region in the middle of half as much again along each side, as far as the picture reaches.
    """
    more_wide, more_high = box.width * (_AROUND - 1) / 2, box.height * (_AROUND - 1) / 2
    larger = Box(box.x - more_wide, box.y - more_high, box.width + 2 * more_wide, box.height + 2 * more_high)
    window = _whole_pixels(picture, larger.clipped(*picture.size))
    inner = _whole_pixels(picture, box)
    shown = picture.crop(window)
    blurred = shown.filter(ImageFilter.GaussianBlur(_BLUR * max(shown.size)))
    dimmed = Image.blend(Image.new("RGB", shown.size, (0, 0, 0)), blurred, _LIGHT)
    dimmed.paste(picture.crop(inner), (inner[0] - window[0], inner[1] - window[1]))
    return dimmed


def _whole_pixels(picture: Image.Image, box: Box) -> tuple[int, int, int, int]:
    left, top, right, bottom = box.corners
    left, top = min(math.floor(left), picture.width - 1), min(math.floor(top), picture.height - 1)
    right, bottom = min(math.ceil(right), picture.width), min(math.ceil(bottom), picture.height)
    return int(left), int(top), int(max(right, left + 1)), int(max(bottom, top + 1))


def _method(encoder: Encoder, way: str) -> Callable[..., Float32Array]:
    if way == "dense" and isinstance(encoder, EncodesPatches):
        return encoder.encode_patches
    if way == "pooled" and isinstance(encoder, EncodesBoxes):
        return encoder.encode_boxes
    name = {"dense": "encode_patches", "pooled": "encode_boxes"}[way]
    raise InputError(
        f"the encoder {encoder.name} has no {name}, which the way {way!r} needs; use 'crop' or 'context', which "
        "work with any encoder that reads pictures"
    )
