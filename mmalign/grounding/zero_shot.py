"""Where phrases are in a picture, without training: an encoder's own places and crops beside its texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL.Image import Image

from mmalign.encoders import Encoder, EncodesBoxes, cell_weights, compare_regions, encode_regions, has_patches
from mmalign.types import Box
from mmalign.utils import Float32Array

# Side in cells of the map that is painted from regions where an encoder has no places of its own.
_CELLS = 18
# Below this spread nothing stands out.
_FLAT = 1e-6
# Regions that are looked at one by one: each takes a pass through the model.
_FEW = 16
# How much of the mean over the phrases is taken out of their maps.
_COMMON = 0.5
# A region of more than this share of the picture counts as one of this share.
_WHOLE = 0.98


@dataclass(frozen=True, eq=False)
class PlainGrounding:
    """Where phrases are in one picture, as far as an encoder tells that was not trained for it.

    Attributes:
        encoder: The encoder.
        picture: Of mode RGB.
        text: Embeddings of the phrases, shape (p, dim), float32, of length 1.
        cells: Embeddings of the places, shape (h, w, dim), float32, of length 1, or None for an encoder without.
        existence: None: cosines that nobody has calibrated do not say whether something is there.
    """

    encoder: Encoder
    picture: Image
    text: Float32Array
    cells: Float32Array | None
    existence: None = field(default=None, init=False)

    def heat(self, boxes: Sequence[Box] = ()) -> Float32Array:
        """Give a map of where each phrase is.

        Args:
            boxes: Regions of which a map is painted where the encoder has no places of its own.

        Returns:
            Array of shape (p, h, w), float32: by how many standard deviations a place stands out from the picture.
        """
        p = len(self.text)
        if self.cells is not None:
            height, width, dim = self.cells.shape
            cosines = self.text @ self.cells.reshape(-1, dim).T
            return _standing_out(cosines).reshape(p, height, width)
        if not boxes:
            return np.zeros((p, _CELLS, _CELLS), np.float32)
        inside = _inside(boxes, *self.picture.size)
        covered = np.maximum(inside.sum(axis=0), 1e-6)
        # A small region says more of the place that it covers than a large one.
        small = inside / np.maximum(inside.mean(axis=(1, 2), keepdims=True), 1e-6) ** 0.5
        painted: Float32Array = np.einsum("pr,rhw->phw", self.score(boxes), small) / np.maximum(small.sum(axis=0), 1e-6)
        return np.where(covered > 1e-3, painted, painted.min(axis=(1, 2), keepdims=True)).astype(np.float32)

    def score(self, boxes: Sequence[Box]) -> Float32Array:
        """Score how well boxes fit the phrases.

        Args:
            boxes: r boxes in pixels, inside the picture.

        Returns:
            Array of shape (p, r), float32: by how many standard deviations a region stands out from the picture's
            regions. Of an encoder with places, what stands out is how far the mean of the phrase's map over the
            region lies above that over the picture, in units of what chance makes of so many cells: a region that
            holds all of a thing is better than a part of it. A few regions, such as are given, are looked at one by
            one where the encoder has `encode_boxes` (`compare_regions`); so are, cut out, all of an encoder without
            places.
        """
        if not boxes or not len(self.text):
            return np.zeros((len(self.text), len(boxes)), np.float32)
        if self.cells is None:
            cosines = self.text @ encode_regions(self.encoder, self.picture, boxes, ways=("crop",))["crop"].T
            return _standing_out(cosines)
        if len(boxes) <= _FEW and isinstance(self.encoder, EncodesBoxes):
            return _standing_out(compare_regions(self.encoder, self.picture, boxes, self.text))
        height, width = self.cells.shape[:2]
        maps = self.heat().reshape(len(self.text), height * width)
        # Half of what the phrases have in common: some places are alike to every text.
        maps -= maps.mean(axis=0) * _COMMON
        inside = maps @ cell_weights(boxes, self.picture.size, (height, width)).T
        share = np.array([box.area for box in boxes], np.float32) / (self.picture.width * self.picture.height)
        # A region of less than a cell has the mean of a cell, and one of the whole picture does not stand out.
        share = np.clip(share, 1 / (height * width), _WHOLE)
        return _standing_out(inside * np.sqrt(share / (1 - share)))


def ground_plainly(encoder: Encoder, image: Image, phrases: Sequence[str]) -> PlainGrounding:
    """Look for phrases in a picture with an encoder that was not trained for it.

    Args:
        encoder: Any encoder of texts and pictures.
        image: A picture of mode RGB.
        phrases: p phrases.

    Returns:
        Where they are.
    """
    text = encoder.encode_text(list(phrases)) if phrases else np.zeros((0, encoder.dim), np.float32)
    cells: Float32Array | None = encoder.encode_patches(image) if has_patches(encoder) else None
    return PlainGrounding(encoder, image, text, cells)


def _standing_out(values: Float32Array) -> Float32Array:
    """Each row less its mean, in units of its spread; zeros where all is the same, NaN where anything is."""
    centred = values - values.mean(axis=1, keepdims=True)
    spread = centred.std(axis=1, keepdims=True)
    result: Float32Array = np.divide(centred, spread, out=np.zeros_like(centred), where=~(spread <= _FLAT))
    return result


def _inside(boxes: Sequence[Box], width: int, height: int) -> Float32Array:
    """The share of each cell that each box covers, shape (r, cells, cells)."""
    corners = np.array([box.corners for box in boxes], np.float32) / np.array([width, height] * 2, np.float32) * _CELLS
    edges = np.arange(_CELLS, dtype=np.float32)
    across, down = (
        np.clip(np.minimum(corners[:, high, None], edges + 1) - np.maximum(corners[:, low, None], edges), 0, 1)
        for low, high in ((0, 2), (1, 3))
    )
    result: Float32Array = down[:, :, None] * across[:, None, :]
    return result
