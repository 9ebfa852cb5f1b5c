"""The training loop: steps, epochs, the best epoch, checkpoints."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from mmalign.encoders import autocast
from mmalign.errors import InputError
from mmalign.training.cache import Arrays, Table
from mmalign.training.checkpoint import Checkpoints
from mmalign.training.contrastive.batches import Batch, BatchPlan, step_draw
from mmalign.training.contrastive.config import TrainingConfig
from mmalign.training.contrastive.model import TrainableEncoder
from mmalign.training.contrastive.objective import Objective
from mmalign.training.contrastive.teachers import Teachers
from mmalign.training.contrastive.validate import dev_figures, to_tensors
from mmalign.training.optimization import RunningMean, make_optimizer, schedule_factor
from mmalign.training.run_folder import Place
from mmalign.utils import Float32Array, Int64Array


class Pictures(Protocol):
    """Where a batch's pictures come from."""

    def batch(self, rows: NDArray[np.int64], *, epoch: int, draw: np.random.Generator) -> Arrays:
        """Return the frozen arrays of some pictures."""
        ...


@dataclass(slots=True)
class Material:
    """What the loop runs on.

    Attributes:
        pictures: The training pictures.
        texts: Frozen arrays of the training captions.
        plan: Which of them meet.
        dev_images: Frozen arrays of the dev pictures.
        dev_texts: Frozen arrays of the dev captions.
        dev_owner: The picture of each dev caption.
        extras: Frozen arrays of the sentences without a picture, if there are any.
        teachers: What is distilled, if anything is.
    """

    pictures: Pictures
    texts: Table
    plan: BatchPlan
    dev_images: Table
    dev_texts: Table
    dev_owner: Int64Array
    extras: Table | None = None
    teachers: Teachers | None = None


@dataclass(slots=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: The epoch under way, from 1.
        step: Batches of it that are done.
        updates: Steps of the optimizer so far.
        sums: Sums over this epoch's batches of the loss and its parts.
        best: The record of the best epoch.
        history: One record an epoch.
        seconds: Time spent in finished epochs and, after a checkpoint within one, in that.
    """

    epoch: int = 1
    step: int = 0
    updates: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def stale(self) -> int:
        """Epochs since the best one."""
        return 0 if self.best is None else len(self.history) - int(self.best["epoch"])


class Trainer:
    """Trains a model on its frozen arrays; on a processor, the same for the same seed and number of threads.

    Args:
        model: The model, on its device.
        config: How.
        material: On what.
        checkpoints: Where to keep the state.
        device: Where to compute.
    """

    def __init__(
        self,
        model: TrainableEncoder,
        config: TrainingConfig,
        material: Material,
        *,
        checkpoints: Checkpoints,
        device: torch.device,
    ) -> None:
        self.model, self._config, self._material = model, config, material
        self._checkpoints, self._device = checkpoints, device
        self.objective = Objective(config.loss, initial=model.initial_scale()).to(device)
        settings = config.optimization
        self._optimizer = make_optimizer(model, self.objective, settings)
        self._peaks = [group["lr"] for group in self._optimizer.param_groups]
        self._mean = RunningMean(model, decay=settings.ema_decay) if settings.ema_decay else None
        self._dtype = training_dtype(device, settings.precision)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._dtype is torch.float16)
        self._neighbours: Float32Array | None = None
        self._seen: Float32Array | None = None
        self.progress = Progress()

    @property
    def steps(self) -> int:
        """Batches an epoch."""
        return self._material.plan.steps

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of the finished epochs."""
        return self.progress.history

    @property
    def place(self) -> Place:
        """How far the training is."""
        return Place(self.progress.epoch, self._config.optimization.epochs, self.progress.step, self.steps)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or none of the last ones was better."""
        settings, progress = self._config.optimization, self.progress
        patient = not settings.patience or progress.stale() < settings.patience
        return progress.epoch > settings.epochs or not patient

    def resume(self) -> bool:
        """Take up the last checkpoint.

        Returns:
            Whether there was one.

        Raises:
            InputError: It is damaged, or does not fit the model or the data.
        """
        state = self._checkpoints.load()
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.objective.load_state_dict(state["objective"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._mean is not None:
            self._mean.load(state["mean"], updates=state["mean_updates"])
        self._neighbours, self._seen = (
            None if state[name] is None else state[name].numpy() for name in ("neighbours", "seen")
        )
        torch.set_rng_state(state["rng"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"], self._device)
        self.progress = Progress(**json.loads(state["progress"]))
        return True

    def run(
        self, *, log: Callable[[Mapping[str, Any]], None], stop: Callable[[], bool], tick: Callable[[], None]
    ) -> bool:
        """Train until finished or told to stop.

        Args:
            log: Called with each epoch's record.
            stop: Asked after every step; True writes a checkpoint and ends.
            tick: Called after every batch.

        Returns:
            Whether the training is finished.

        Raises:
            InputError: The loss is not finite; the last checkpoint is kept.
            StorageError: The disk refused a checkpoint; the last one is kept.
        """
        if not self._config.optimization.epochs and not self.progress.history:
            # Nothing is to be learnt: what the training would begin with is measured, and is the best there is.
            self.progress.epoch = 0
            log(self._end_epoch())
        while not self.finished:
            if not self._epoch(stop, tick):
                self._save()
                return False
            record = self._end_epoch()
            log(record)
        return True

    def _epoch(self, stop: Callable[[], bool], tick: Callable[[], None]) -> bool:
        progress, settings = self.progress, self._config.optimization
        plan = self._material.plan
        deal = plan.epoch(progress.epoch, embeddings=self._neighbours, group=self._config.loss.neighbours)
        self.model.train()
        began = saved = time.monotonic()
        batches = self._batches(deal)
        try:
            for batch, inputs in batches:
                last = progress.step + 1 == len(deal)
                self._step(batch, inputs, update=last or (progress.step + 1) % settings.accumulate == 0)
                progress.step += 1
                tick()
                # Between two updates the gradients are part of the state, and are not kept.
                whole = last or progress.step % settings.accumulate == 0
                now = time.monotonic()
                if whole and not last and now - saved > 60 * settings.checkpoint_minutes:
                    progress.seconds, began = progress.seconds + now - began, now
                    self._save()
                    saved = time.monotonic()
                if whole and stop():
                    return last
            return True
        finally:
            progress.seconds += time.monotonic() - began
            batches.close()

    def _batches(self, deal: list[NDArray[np.int64]]) -> Generator[tuple[Batch, dict[str, Arrays]], None, None]:
        """The rest of the epoch's batches, the next one being read while a step runs."""
        epoch, seed = self.progress.epoch, self._config.optimization.seed

        def read(step: int) -> tuple[Batch, dict[str, Arrays]]:
            draw = step_draw(seed, epoch, step)
            batch = self._material.plan.batch(deal[step], draw=draw)
            texts = self._material.texts.take(batch.captions)
            if len(batch.extras) and self._material.extras is not None:
                more = self._material.extras.take(batch.extras)
                texts = {name: np.concatenate([array, more[name]]) for name, array in texts.items()}
            return batch, {
                "images": self._material.pictures.batch(batch.pictures, epoch=epoch, draw=draw),
                "texts": texts,
            }

        pool = ThreadPoolExecutor(1, thread_name_prefix="mmalign-batches")
        try:
            waiting = [
                pool.submit(read, step) for step in range(self.progress.step, min(self.progress.step + 2, len(deal)))
            ]
            following = self.progress.step + len(waiting)
            while waiting:
                batch = waiting.pop(0).result()
                if following < len(deal):
                    waiting.append(pool.submit(read, following))
                    following += 1
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _step(self, batch: Batch, inputs: dict[str, Arrays], *, update: bool) -> None:
        settings, progress = self._config.optimization, self.progress
        with autocast(self._device, self._dtype):
            images = self.model.embed_images(to_tensors(inputs["images"], self._device)).float()
            texts = self.model.embed_texts(to_tensors(inputs["texts"], self._device)).float()
            auxiliary = self.model.auxiliary_loss()
        owner = torch.from_numpy(batch.owner).to(self._device)
        teachers = self._material.teachers
        taught = None if teachers is None else teachers.similarities(batch).to(self._device)
        loss, parts = self.objective(
            images, texts, owner, taught=taught, auxiliary=None if auxiliary is None else auxiliary.float()
        )
        value = loss.item()
        if not np.isfinite(value):
            raise InputError(
                f"the loss is {value} in epoch {progress.epoch}, step {progress.step + 1}; the last checkpoint is "
                f"kept. Lower optimization.learning_rate ({settings.learning_rate}), set optimization.grad_clip, or "
                "look for NaN in the features; then use another --out"
            )
        self._scaler.scale(loss / settings.accumulate).backward()
        for name, part in {"loss": loss, **parts}.items():
            progress.sums[name] = progress.sums.get(name, 0.0) + part.item()
        self._remember(batch, images)
        if update:
            self._update()

    def _update(self) -> None:
        settings, progress = self._config.optimization, self.progress
        total = settings.epochs * -(-self._material.plan.steps // settings.accumulate)
        factor = schedule_factor(progress.updates, warmup=settings.warmup, total=total)
        for group, peak in zip(self._optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        if settings.grad_clip:
            self._scaler.unscale_(self._optimizer)
            parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, settings.grad_clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        progress.updates += 1
        if self._mean is not None:
            self._mean.update()

    def _remember(self, batch: Batch, images: torch.Tensor) -> None:
        """Keep the pictures' embeddings of this epoch, by which the next one deals neighbours together."""
        if self._config.loss.neighbours < 2:
            return
        if self._seen is None:
            height = int(self._material.plan.pictures.max()) + 1
            self._seen = np.zeros((height, images.shape[1]), np.float32)
        self._seen[batch.pictures] = images.detach().cpu().numpy()

    def _end_epoch(self) -> dict[str, Any]:
        progress, steps = self.progress, self._material.plan.steps
        began = time.monotonic()
        record: dict[str, Any] = {
            "event": "epoch",
            "epoch": progress.epoch,
            **{name: total / steps for name, total in progress.sums.items()},
            "scale": self.objective.scale.item(),
            "learning_rate": max(group["lr"] for group in self._optimizer.param_groups),
        }
        if self.objective.bias is not None:
            record["bias"] = self.objective.bias.item()
        material, best = self._material, None
        with self._mean.applied(self.model) if self._mean is not None else nullcontext():
            record |= dev_figures(
                self.model, material.dev_images, material.dev_texts, material.dev_owner, device=self._device
            )
            if progress.best is None or record["sum"] > progress.best["sum"]:
                best = {name: tensor.cpu().clone() for name, tensor in self.model.state_dict().items()}
        record["seconds"] = round(progress.seconds + time.monotonic() - began, 1)
        progress.history.append(record)
        if best is not None:
            progress.best = record
        progress.epoch, progress.step, progress.sums, progress.seconds = progress.epoch + 1, 0, {}, 0.0
        self._neighbours, self._seen = self._seen, None
        self._save(best)
        return record

    def _save(self, best: Mapping[str, torch.Tensor] | None = None) -> None:
        progress = self.progress
        state = {
            "epoch": progress.epoch,
            "step": progress.step,
            "progress": json.dumps({name: getattr(progress, name) for name in Progress.__dataclass_fields__}),
            "model": self.model.state_dict(),
            "objective": self.objective.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "mean": self._mean.state if self._mean is not None else None,
            "mean_updates": self._mean.updates if self._mean is not None else 0,
            "neighbours": None if self._neighbours is None else torch.from_numpy(self._neighbours),
            "seen": None if self._seen is None else torch.from_numpy(self._seen),
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
        }
        self._checkpoints.save(state, best=best)


def training_dtype(device: torch.device, precision: str) -> torch.dtype | None:
    """The dtype of the mixed arithmetic of a training, or None for fp32.

    Args:
        device: Where to compute.
        precision: `auto`, `fp32`, `bf16` or `fp16`.

    Returns:
        The dtype; `auto` gives bf16 on CUDA devices that have it, fp16 on others, None elsewhere.

    Raises:
        InputError: fp16 without CUDA: there its gradients could not be scaled.
    """
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == "fp16" and device.type != "cuda":
        raise InputError(f"optimization.precision fp16 needs a CUDA device, this is {device}; use bf16 or fp32")
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
