"""What the grounding head learns from, drawn in batches: phrases of pictures, and of others that are not there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmalign.evaluation import PhrasePicture, is_named
from mmalign.training.grounding.config import HeadTraining
from mmalign.training.grounding.targets import coverage, drawn_boxes
from mmalign.utils import Float32Array

# Left and right change sides in a mirrored picture, and only there.
_SIDED = ("left", "right")


@dataclass(frozen=True, slots=True, eq=False)
class HeadData:
    """Pictures, the reduced features of their cells, and the embeddings of their phrases.

    Attributes:
        pictures: n pictures.
        sizes: Width and height of each in pixels, shape (n, 2).
        cells: Shape (n, h, w, inputs).
        texts: Embedding by phrase, shape (dim,) each, of length 1.
        dim: Width of the shared space; the last `dim` inputs of a cell are its projection into it.
        shared_mean: What the basis subtracted from the projections, over its scale, shape (dim,).
    """

    pictures: Sequence[PhrasePicture]
    sizes: Float32Array
    cells: NDArray[np.float16]
    texts: dict[str, Float32Array]
    dim: int
    shared_mean: Float32Array

    @property
    def digest(self) -> str:
        """SHA-256 of all but the cells, which follow from the pictures and from what reduced them."""
        named = [[one.uri, list(one.captions), list(one.phrases)] for one in self.pictures]
        found = hashlib.sha256(json.dumps([named, list(self.texts), self.dim, self.cells.shape]).encode())
        boxes = [np.asarray(box, np.float64) for one in self.pictures for box in one.boxes]
        for array in (self.sizes, self.shared_mean, *self.texts.values(), *boxes):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()


@dataclass(frozen=True, slots=True)
class HeadBatch:
    """Some pictures, and n phrases that are looked for in them.

    Attributes:
        cells: Of the pictures, shape (b, h, w, inputs).
        owner: The picture of each phrase, shape (n,).
        text: Embeddings of the phrases, shape (n, dim).
        spot: Similarity of each phrase with each cell, shape (n, h, w).
        cover: The share of each cell that the phrase covers, shape (n, h, w).
        boxes: What each cell should draw: left, top, right, bottom, shares of the picture, shape (n, h, w, 4).
        drawn: Whether it should draw anything, shape (n, h, w).
        present: Whether the phrase is there at all, shape (n,).
    """

    cells: Tensor
    owner: Tensor
    text: Tensor
    spot: Tensor
    cover: Tensor
    boxes: Tensor
    drawn: Tensor
    present: Tensor


def head_batches(data: HeadData, how: HeadTraining, rng: np.random.Generator) -> Iterator[HeadBatch]:
    """Draw the batches of an epoch.

    Args:
        data: What there is.
        how: Pictures a batch, and phrases of other pictures.
        rng: Draws.

    Yields:
        Batches with at least one phrase that is there; such as have none are left out.
    """
    order = rng.permutation(len(data.pictures))
    every = list(data.texts)
    for start in range(0, len(order), how.batch):
        chosen = np.sort(order[start : start + how.batch])
        mirrored = rng.random(len(chosen)) < 0.5
        cells = torch.from_numpy(np.nan_to_num(data.cells[chosen].astype(np.float32)))
        cells[torch.from_numpy(mirrored)] = cells[torch.from_numpy(mirrored)].flip(2)
        height, width = data.cells.shape[1:3]
        owner, texts, cover, boxes, drawn, present = [], [], [], [], [], []
        for place, index in enumerate(chosen):
            picture = data.pictures[index]
            for phrase, true in zip(picture.phrases, picture.boxes, strict=True):
                if mirrored[place] and any(word in phrase.lower().split() for word in _SIDED):
                    continue
                corners = _corners(true, data.sizes[index], mirrored=bool(mirrored[place]))
                which = drawn_boxes(corners, height, width)
                owner.append(place)
                texts.append(data.texts[phrase])
                cover.append(coverage(corners, height, width))
                boxes.append(corners[np.maximum(which, 0)])
                drawn.append(which >= 0)
                present.append(True)
            known = " ".join((*picture.captions, *picture.phrases))
            for phrase in (every[number] for number in rng.integers(len(every), size=how.strangers)):
                if is_named(phrase, known):
                    continue
                owner.append(place)
                texts.append(data.texts[phrase])
                cover.append(np.zeros((height, width), np.float32))
                boxes.append(np.tile(np.array([0, 0, 1, 1], np.float32), (height, width, 1)))
                drawn.append(np.zeros((height, width), np.bool_))
                present.append(False)
        if not any(present):
            continue
        owners, text = torch.tensor(owner), torch.from_numpy(np.stack(texts))
        yield HeadBatch(
            cells=cells,
            owner=owners,
            text=text,
            spot=spots_of_reduced(cells, data, owners, text),
            cover=torch.from_numpy(np.stack(cover)),
            boxes=torch.from_numpy(np.stack(boxes)),
            drawn=torch.from_numpy(np.stack(drawn)),
            present=torch.tensor(present),
        )


def spots_of_reduced(cells: Tensor, data: HeadData, owner: Tensor, text: Tensor) -> Tensor:
    """What `spot_maps` gives for cells before they were reduced, of every phrase in its picture: shape (n, h, w)."""
    shared = cells[..., -data.dim :]
    mean = shared.mean(dim=(1, 2), keepdim=True)
    length = (mean + torch.from_numpy(data.shared_mean)).norm(dim=-1, keepdim=True).clamp(min=1e-6)
    return torch.einsum("nhwd,nd->nhw", ((shared - mean) / length)[owner], text)


def _corners(boxes: NDArray[np.float64], size: Float32Array, *, mirrored: bool) -> Float32Array:
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1) / np.tile(size, 2)
    corners = np.clip(corners, 0, 1)
    if mirrored:
        corners[:, [0, 2]] = 1 - corners[:, [2, 0]]
    return corners.astype(np.float32)
