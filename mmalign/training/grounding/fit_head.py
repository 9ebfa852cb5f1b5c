"""Train the grounding head: phrases and their boxes over frozen features of `lite`."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mmalign.grounding import GroundingNet, NetSize
from mmalign.training.checkpoint import Checkpoints, state_digest
from mmalign.training.grounding.batches import HeadBatch, HeadData, head_batches
from mmalign.training.grounding.config import HeadTraining
from mmalign.training.loop import LoopOptions, TrainingLoop
from mmalign.training.optimization import adamw, matrices_first
from mmalign.training.progress import Progress
from mmalign.training.run_dir import go_on, seeded
from mmalign.training.task import Backward, Task

_NAMES = ("peak", "cover", "fit", "box")
# Longest gradient.
_CLIP = 2.0
# Share of all steps in which the learning rate rises.
_RISE = 0.05
# A kill repeats so much at most.
_CHECKPOINT_MINUTES = 10.0


class HeadTask(Task[HeadBatch]):
    """A head on the processor, whose draws follow one another from the first epoch to the last.

    Args:
        net: The head.
        data: What it learns from.
        how: How it is trained.
    """

    model: GroundingNet

    def __init__(self, net: GroundingNet, data: HeadData, how: HeadTraining) -> None:
        self.model, self._data, self._how = net, data, how
        self._rng = np.random.default_rng(how.seed)
        # Where the draws of the epoch under way begin: what is done of it is drawn again when it is gone on with.
        self._begins = self._rng.bit_generator.state
        self.steps = math.ceil(len(data.pictures) / how.batch)
        # Of the kernels, the one that the head of the package was made with.
        self.optimizer = adamw(
            matrices_first(net), learning_rate=how.rate, weight_decay=how.decay, betas=(0.9, 0.98), fused=False
        )
        self.remedy = f"lower the learning rate ({how.rate})"

    def batches(self, progress: Progress) -> Generator[HeadBatch, None, None]:
        """Draw the rest of the epoch's batches."""
        self._rng.bit_generator.state = self._begins
        yield from islice(head_batches(self._data, self._how, self._rng), progress.step, None)
        self._begins = self._rng.bit_generator.state

    def state_dict(self) -> dict[str, Any]:
        """Where the draws of the epoch begin; the numbers are too long for a tensor."""
        return {"draws": json.dumps(self._begins)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Draw from there."""
        self._begins = json.loads(state["draws"])

    @property
    def identity(self) -> str:
        """What has to be the same for a checkpoint to fit."""
        return state_digest(self.model.state_dict(), self._data.digest)

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


@dataclass(frozen=True, slots=True, eq=False)
class TrainedHead:
    """What came of a training.

    Attributes:
        net: The running mean of its weights, in evaluation mode.
        losses: Mean losses of the last epoch.
    """

    net: GroundingNet
    losses: dict[str, Any]


def train_head(
    data: HeadData,
    *,
    size: NetSize,
    how: HeadTraining,
    start: GroundingNet | None = None,
    folder: Path | None = None,
    log: Callable[[dict[str, Any]], None] = lambda record: None,
) -> TrainedHead:
    """Train a head, or go on with the training of one.

    Args:
        data: What it learns from.
        size: How large it is.
        how: How it is trained.
        start: A network to go on from, or None for a new one.
        folder: An existing folder for checkpoints and a log, which a run that was stopped goes on from; None for
            none: Ctrl-C then loses what was learnt.
        log: Told the mean losses of each epoch, also of those that an earlier run had come to without telling them.

    Returns:
        The head, and what it came to.

    Raises:
        InputError: The loss is not finite; or the checkpoint is damaged, or belongs to other data.
        StorageError: The disk refused a checkpoint; the last one is kept.
        TrainingInterrupted: Ctrl-C; the state is saved.

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
            checkpoint_minutes=_CHECKPOINT_MINUTES,
        )

        def tell(record: Mapping[str, Any]) -> None:
            if record["event"] == "epoch":
                log(_told(record))

        checkpoints = None if folder is None else Checkpoints(folder, identity=task.identity)
        loop = TrainingLoop(task, options, device=processor, checkpoints=checkpoints)
        if folder is None:
            loop.run(log=tell, stop=lambda: False, tick=lambda: None)
        else:
            first = {"config": asdict(how), "data": {"pictures": len(data.pictures)}}
            go_on(loop, folder, first=first, log=tell)
    net.load_state_dict(loop.best_weights())
    return TrainedHead(net.eval().requires_grad_(False), _told(loop.progress.history[-1]))


def _told(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "event"}


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
