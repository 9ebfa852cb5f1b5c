"""Train the grounding head: phrases and their boxes over frozen features of `lite`."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.grounding import GroundingNet, NetSize
from mmalign.training.grounding.batches import HeadBatch, HeadData, head_batches
from mmalign.training.grounding.config import HeadTraining
from mmalign.training.loop import LoopOptions, TrainingLoop
from mmalign.training.optimization import adamw, matrices_first
from mmalign.training.progress import Progress
from mmalign.training.run_dir import seeded
from mmalign.training.task import Backward, Task

_NAMES = ("peak", "cover", "fit", "box")
# Longest gradient.
_CLIP = 2.0
# Share of all steps in which the learning rate rises.
_RISE = 0.05


class HeadTask(Task[HeadBatch]):
    """A head on the processor, whose draws follow one another: a training runs from its first epoch to its last.

    Args:
        net: The head.
        data: What it learns from.
        how: How it is trained.
    """

    model: GroundingNet

    def __init__(self, net: GroundingNet, data: HeadData, how: HeadTraining) -> None:
        self.model, self._data, self._how = net, data, how
        self._rng = np.random.default_rng(how.seed)
        self.steps = math.ceil(len(data.pictures) / how.batch)
        # Of the kernels, the one that the head of the package was made with.
        self.optimizer = adamw(
            matrices_first(net), learning_rate=how.rate, weight_decay=how.decay, betas=(0.9, 0.98), fused=False
        )
        self.remedy = f"lower the learning rate ({how.rate})"

    def batches(self, progress: Progress) -> Generator[HeadBatch, None, None]:
        """Draw the batches of an epoch."""
        yield from head_batches(self._data, self._how, self._rng)

    def learn(self, batch: HeadBatch, progress: Progress, backward: Backward) -> Mapping[str, float]:
        """Add the gradients of a batch; gives the loss and its four parts."""
        parts = _losses(self.model, batch, self._how.noise)
        loss = torch.stack(parts).sum()
        backward(loss)
        return {"loss": loss.item(), **{name: part.item() for name, part in zip(_NAMES, parts, strict=True)}}

    def validate(self, losses: Mapping[str, float]) -> dict[str, Any]:
        """The parts of the loss; nothing is measured."""
        return {name: round(losses.get(name, 0.0), 4) for name in _NAMES}

    def worth(self, record: Mapping[str, Any]) -> float:
        """The last epoch is the best."""
        return float(record["epoch"])


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

    Raises:
        InputError: The loss is not finite.

    Source: the losses of Li et al., Generalized Focal Loss, 2020 (expected overlap) and Rezatofighi et al., GIoU, 2019
    (boxes); for the heat, cross entropy over cells and of each cell.
    """
    processor = torch.device("cpu")
    with seeded(how.seed, processor):
        net = GroundingNet(size) if start is None else copy.deepcopy(start)
        net.requires_grad_(True)
        task = HeadTask(net, data, how)
        options = LoopOptions(
            epochs=how.epochs,
            warmup=_RISE * (how.epochs * task.steps) + 1,
            grad_clip=_CLIP,
            ema_decay=how.average,
        )
        loop = TrainingLoop(task, options, device=processor)
        loop.run(
            log=lambda record: log({name: value for name, value in record.items() if name != "event"}),
            stop=lambda: False,
            tick=lambda: None,
        )
    net.load_state_dict(loop.best_weights())
    return net.eval().requires_grad_(False)


def _losses(net: GroundingNet, batch: HeadBatch, noise: float) -> list[Tensor]:
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
