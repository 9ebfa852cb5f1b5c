"""The loop of every training: steps, epochs, the best epoch, checkpoints; what is particular to one is a `Task`."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, final

import torch
from torch import nn

from mmalign.errors import InputError
from mmalign.training.checkpoint import Checkpoints
from mmalign.training.optimization import RunningMean, schedule_factor
from mmalign.training.progress import Progress
from mmalign.training.task import BatchT, Task

Log: TypeAlias = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """How the loop runs.

    Attributes:
        epochs: Passes over the data; 0 measures what the training would begin with, and learns nothing.
        accumulate: Batches whose gradients are averaged into one step.
        warmup: Steps until the peak of the learning rate; from the first to the last it falls as half a cosine.
        grad_clip: Longest gradient; 0 for no bound.
        ema_decay: Of the running mean of the weights, which is what is measured and kept; 0 for none.
        patience: Epochs without a better one after which the training stops; 0 never stops.
        loss_scaling: Whether the loss is scaled, as gradients in half precision need.
        checkpoint_steps: Within an epoch, a checkpoint is written after every so many batches; 0 for none.
        checkpoint_minutes: Or so long after the last one.
    """

    epochs: int
    accumulate: int = 1
    warmup: float = 0
    grad_clip: float = 0.0
    ema_decay: float = 0.0
    patience: int = 0
    loss_scaling: bool = False
    checkpoint_steps: int = 0
    checkpoint_minutes: float = math.inf


@final
class TrainingLoop(Generic[BatchT]):
    """Trains; on a processor, the same for the same seed and number of threads, however often it was stopped.

    Args:
        task: What is trained.
        options: How.
        device: Where the model is.
        checkpoints: Where to keep the state; None keeps the best weights in memory, and nothing to go on from.

    Attributes:
        options: As given.
        steps: Batches an epoch.
        progress: How far it is.
    """

    def __init__(
        self,
        task: Task[BatchT],
        options: LoopOptions,
        *,
        device: torch.device,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._task, self.options, self._device, self._checkpoints = task, options, device, checkpoints
        self._peaks = [group["lr"] for group in task.optimizer.param_groups]
        self._mean = RunningMean(task.model, decay=options.ema_decay) if options.ema_decay else None
        self._scaler = torch.amp.GradScaler(device.type, enabled=options.loss_scaling)
        self._best: dict[str, torch.Tensor] = {}
        self.steps = task.steps
        self.progress = Progress()

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or none of the last ones was better."""
        patient = not self.options.patience or self.progress.stale() < self.options.patience
        return self.progress.epoch > self.options.epochs or not patient

    def resume(self) -> bool:
        """Take up the last checkpoint.

        Returns:
            Whether there was one.

        Raises:
            InputError: It is damaged, or does not fit the model or the data.
        """
        state = None if self._checkpoints is None else self._checkpoints.load()
        if state is None:
            return False
        self._task.model.load_state_dict(state["model"])
        self._task.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._mean is not None:
            self._mean.load(state["mean"], updates=state["mean_updates"])
        self._task.load_state_dict(state)
        torch.set_rng_state(state["rng"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"], self._device)
        self.progress = Progress(**json.loads(state["progress"]))
        return True

    def run(self, *, log: Log, stop: Callable[[], bool], tick: Callable[[], None]) -> bool:
        """Train until finished or told to stop.

        Args:
            log: Called with each epoch's record.
            stop: Asked before every step; True writes a checkpoint and ends.
            tick: Called after every batch.

        Returns:
            Whether the training is finished.

        Raises:
            InputError: The loss is not finite; the last checkpoint is kept.
            StorageError: The disk refused a checkpoint; the last one is kept.
        """
        if not self.options.epochs and not self.progress.history:
            # Nothing is to be learnt: what the training would begin with is measured, and is the best there is.
            self.progress.epoch = 0
            log(self._end_epoch())
        while not self.finished:
            if not self._run_epoch(stop, tick):
                self._save()
                return False
            log(self._end_epoch())
        return True

    def best_weights(self) -> dict[str, torch.Tensor]:
        """The model's state after the best epoch, on the processor.

        Raises:
            InputError: No epoch is finished, or its file is damaged.
        """
        return self._best if self._checkpoints is None else self._checkpoints.load_best()

    def _run_epoch(self, stop: Callable[[], bool], tick: Callable[[], None]) -> bool:
        progress, options = self.progress, self.options
        self._task.model.train()
        began = saved = time.monotonic()
        try:
            with closing(self._task.batches(progress)) as batches:
                for batch in batches:
                    # Between two updates the gradients are part of the state, and are not kept.
                    if progress.step % options.accumulate == 0 and stop():
                        return False
                    self._learn(batch)
                    progress.step += 1
                    if progress.step % options.accumulate == 0:
                        self._update()
                    tick()
                    now = time.monotonic()
                    if self._is_due(now - saved):
                        progress.seconds, began = progress.seconds + now - began, now
                        self._save()
                        saved = time.monotonic()
            if progress.step % options.accumulate:
                self._update()
            return True
        finally:
            progress.seconds += time.monotonic() - began

    def _is_due(self, seconds: float) -> bool:
        """Whether a checkpoint is to be written within the epoch, so many seconds after the last one."""
        step, options = self.progress.step, self.options
        if step % options.accumulate or step >= self.steps:
            return False
        counted = options.checkpoint_steps and step % options.checkpoint_steps == 0
        return bool(counted) or seconds > 60 * options.checkpoint_minutes

    def _learn(self, batch: BatchT) -> None:
        progress = self.progress

        def backward(loss: torch.Tensor) -> None:
            self._scaler.scale(loss / self.options.accumulate).backward()  # type: ignore[no-untyped-call]

        parts = self._task.learn(batch, progress, backward)
        if not math.isfinite(parts["loss"]):
            kept = "" if self._checkpoints is None else " the last checkpoint is kept."
            raise InputError(
                f"the loss is {parts['loss']} in epoch {progress.epoch}, step {progress.step + 1};{kept} "
                f"{self._task.remedy}"
            )
        for name, part in parts.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + part

    def _update(self) -> None:
        options, optimizer = self.options, self._task.optimizer
        total = options.epochs * -(-self.steps // options.accumulate)
        factor = schedule_factor(self.progress.updates, warmup=options.warmup, total=total)
        for group, peak in zip(optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        if options.grad_clip:
            self._scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self._task.parameters(), options.grad_clip)
        self._scaler.step(optimizer)
        self._scaler.update()
        optimizer.zero_grad(set_to_none=True)
        self.progress.updates += 1
        if self._mean is not None:
            self._mean.update()

    def _end_epoch(self) -> dict[str, Any]:
        progress, task = self.progress, self._task
        began, best = time.monotonic(), None
        task.model.eval()
        with self._mean.applied(task.model) if self._mean is not None else nullcontext():
            losses = {name: total / (self.steps - progress.since) for name, total in progress.sums.items()}
            record = {"event": "epoch", "epoch": progress.epoch, **task.validate(losses)}
            if progress.best is None or task.worth(record) > task.worth(progress.best):
                best = {name: tensor.cpu().clone() for name, tensor in task.model.state_dict().items()}
        record["seconds"] = round(progress.seconds + time.monotonic() - began, 1)
        progress.history.append(record)
        if best is not None:
            progress.best = record
        progress.epoch, progress.step = progress.epoch + 1, 0
        progress.sums, progress.since, progress.seconds = {}, 0, 0.0
        self._save(best)
        return record

    def _save(self, best: dict[str, torch.Tensor] | None = None) -> None:
        if self._checkpoints is None:
            self._best = best or self._best
            return
        cuda = self._device.type == "cuda"
        state = {
            "epoch": self.progress.epoch,
            "step": self.progress.step,
            "progress": json.dumps(dataclasses.asdict(self.progress)),
            "model": self._task.model.state_dict(),
            "optimizer": self._task.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "mean": self._mean.state if self._mean is not None else None,
            "mean_updates": self._mean.updates if self._mean is not None else 0,
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self._device) if cuda else None,
            **self._task.state_dict(),
        }
        self._checkpoints.save(state, best=best)
