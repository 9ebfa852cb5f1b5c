"""Train the grounding head: phrases and their boxes over frozen features of `lite`."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mmalign.evaluation import PhrasePicture, is_named
from mmalign.grounding import GroundingNet, NetSize
from mmalign.training.grounding.targets import coverage, drawn_boxes
from mmalign.utils import Float32Array

# Left and right change sides in a mirrored picture, and only there.
_SIDED = ("left", "right")


@dataclass(frozen=True, slots=True)
class HeadTraining:
    """How the head is trained.

    Attributes:
        epochs: Passes over the pictures.
        batch: Pictures in a step, all their phrases with them.
        rate: Peak of the learning rate.
        decay: Weight decay of matrices.
        noise: Share of a cell's features that is left out at random, and of the phrase's.
        strangers: Phrases of other pictures that are looked for in each picture and should not be found.
        average: Weight of the past in the running mean of the weights, which is what is kept.
        seed: Of all random draws.
    """

    epochs: int = 10
    batch: int = 16
    rate: float = 2e-3
    decay: float = 0.05
    noise: float = 0.1
    strangers: int = 2
    average: float = 0.995
    seed: int = 0


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


@dataclass(frozen=True, slots=True)
class _Batch:
    cells: Tensor
    owner: Tensor
    text: Tensor
    spot: Tensor
    cover: Tensor
    boxes: Tensor
    drawn: Tensor
    present: Tensor


def train_head(
    data: HeadData,
    *,
    size: NetSize,
    how: HeadTraining,
    start: GroundingNet | None = None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
) -> GroundingNet:
    """Train a head.

    Args:
        data: What it learns from.
        size: How large it is.
        how: How it is trained.
        start: A network to go on from, or None for a new one.
        log: Told the mean losses of each epoch.

    Returns:
        The running mean of its weights, in evaluation mode.

    Source: the losses of Li et al., Generalized Focal Loss, 2020 (expected overlap) and Rezatofighi et al., GIoU, 2019
    (boxes); for the heat, cross entropy over cells and of each cell.
    """
    torch.manual_seed(how.seed)
    rng = np.random.default_rng(how.seed)
    net = GroundingNet(size) if start is None else copy.deepcopy(start)
    net.train().requires_grad_(True)
    kept = copy.deepcopy(net).eval().requires_grad_(False)
    matrices = [tensor for tensor in net.parameters() if tensor.ndim > 1]
    others = [tensor for tensor in net.parameters() if tensor.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": how.decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=how.rate, betas=(0.9, 0.98))
    steps_each = math.ceil(len(data.pictures) / how.batch)
    total, step = how.epochs * steps_each, 0
    for epoch in range(how.epochs):
        began, sums = time.perf_counter(), np.zeros(4)
        for batch in _batches(data, how, rng):
            for group in optimizer.param_groups:
                warm = min(1.0, (step + 1) / (0.05 * total + 1))
                group["lr"] = how.rate * warm * (0.5 + 0.5 * math.cos(math.pi * step / total))
            losses = _losses(net, batch, how.noise)
            optimizer.zero_grad(set_to_none=True)
            torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), 2.0)
            optimizer.step()
            step += 1
            share = min(how.average, (step + 1) / (step + 10))
            with torch.no_grad():
                for mean, tensor in zip(kept.parameters(), net.parameters(), strict=True):
                    mean.lerp_(tensor, 1 - share)
            sums += [loss.item() for loss in losses]
        names = ("peak", "cover", "fit", "box")
        means = {name: round(float(value) / steps_each, 4) for name, value in zip(names, sums, strict=True)}
        log({"epoch": epoch + 1, **means, "seconds": round(time.perf_counter() - began, 1)})
    return kept


def _losses(net: GroundingNet, batch: _Batch, noise: float) -> list[Tensor]:
    cells = net.picture(functional.dropout(batch.cells, noise))
    heat, fit, boxes = net(cells[batch.owner], functional.dropout(batch.text, noise), batch.spot)
    there = batch.present
    share = batch.cover.flatten(1) / batch.cover.flatten(1).sum(dim=1, keepdim=True).clamp(min=1e-6)
    peak = -(share * functional.log_softmax(heat.flatten(1), dim=1)).sum(dim=1)[there].mean()
    cover = functional.binary_cross_entropy_with_logits(heat, batch.cover)
    overlap, distance = _overlaps(boxes, batch.boxes)
    drawn = batch.drawn.float()
    wanted = overlap.detach() * drawn
    focus = (torch.sigmoid(fit.detach()) - wanted).abs().square()
    fits = functional.binary_cross_entropy_with_logits(fit, wanted, reduction="none") * focus
    fit_loss = (fits.flatten(1).sum(dim=1) / drawn.flatten(1).sum(dim=1).clamp(min=8.0)).mean()
    each = ((1 - distance) * drawn).flatten(1).sum(dim=1) / drawn.flatten(1).sum(dim=1).clamp(min=1.0)
    return [0.5 * peak, 2.0 * cover, 2.0 * fit_loss, 2.0 * each[there].mean()]


def _overlaps(boxes: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Overlap, and overlap less the empty share of the box around both, of boxes of shape (..., 4)."""
    low, high = torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:])
    both = (high - low).clamp(min=0).prod(dim=-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1) + (others[..., 2:] - others[..., :2]).prod(dim=-1)
    union = (areas - both).clamp(min=1e-6)
    low, high = torch.minimum(boxes[..., :2], others[..., :2]), torch.maximum(boxes[..., 2:], others[..., 2:])
    around = (high - low).prod(dim=-1).clamp(min=1e-6)
    overlap = both / union
    return overlap, overlap - (around - union) / around


def _batches(data: HeadData, how: HeadTraining, rng: np.random.Generator) -> Iterator[_Batch]:
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
            said = " ".join((*picture.captions, *picture.phrases))
            for phrase in (every[number] for number in rng.integers(len(every), size=how.strangers)):
                if is_named(phrase, said):
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
        yield _Batch(
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
