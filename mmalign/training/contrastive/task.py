"""A contrastive training as the loop sees it: batches of pictures and captions, their loss, the dev figures."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mmalign.encoders import autocast
from mmalign.errors import InputError
from mmalign.training.cache import Arrays, Table
from mmalign.training.contrastive.batches import Batch, BatchPlan, step_draw
from mmalign.training.contrastive.config import TrainingConfig
from mmalign.training.contrastive.model import TrainableEncoder
from mmalign.training.contrastive.objective import Objective
from mmalign.training.contrastive.teachers import Teachers
from mmalign.training.contrastive.validate import dev_figures, to_tensors
from mmalign.training.optimization import adamw
from mmalign.training.progress import Progress
from mmalign.training.task import Backward, Task
from mmalign.utils import Float32Array, Int64Array


class Pictures(Protocol):
    """Where a batch's pictures come from."""

    def batch(self, rows: NDArray[np.int64], *, epoch: int, draw: np.random.Generator) -> Arrays:
        """Return the frozen arrays of some pictures."""
        ...


@dataclass(slots=True)
class TrainingSet:
    """What a training learns from and is measured on.

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


StepInputs = tuple[Batch, dict[str, Arrays]]
"""A batch, and the frozen arrays of its `images` and `texts`."""


class ContrastiveTask(Task[StepInputs]):
    """Trains a model on its frozen arrays.

    Args:
        model: The model, on its device.
        config: How.
        training_set: On what.
        device: Where to compute.

    Raises:
        InputError: The model has nothing to train.
    """

    model: TrainableEncoder

    def __init__(
        self, model: TrainableEncoder, config: TrainingConfig, training_set: TrainingSet, *, device: torch.device
    ) -> None:
        self.model, self._config, self._set, self._device = model, config, training_set, device
        self.steps = training_set.plan.steps
        self.objective = Objective(config.loss, initial=model.initial_scale()).to(device)
        settings = config.optimization
        first, second = settings.betas
        self.optimizer = adamw(
            _trained(model),
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=(first, second),
            undecayed=list(self.objective.parameters()),
        )
        self.remedy = (
            f"Lower optimization.learning_rate ({settings.learning_rate}), set optimization.grad_clip, or look for NaN "
            "in the features; then use another --out"
        )
        self._dtype = training_dtype(device, settings.precision)
        self._neighbours: Float32Array | None = None
        self._seen: Float32Array | None = None

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, group by group."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def batches(self, progress: Progress) -> Generator[StepInputs, None, None]:
        """Yield the rest of the epoch's batches, the next one being read while a step runs."""
        epoch, seed, plan = progress.epoch, self._config.optimization.seed, self._set.plan
        deal = plan.epoch(epoch, embeddings=self._neighbours, group=self._config.loss.neighbours)

        def read(step: int) -> StepInputs:
            draw = step_draw(seed, epoch, step)
            batch = plan.batch(deal[step], draw=draw)
            texts = self._set.texts.take(batch.captions)
            if len(batch.extras) and self._set.extras is not None:
                more = self._set.extras.take(batch.extras)
                texts = {name: np.concatenate([array, more[name]]) for name, array in texts.items()}
            return batch, {"images": self._set.pictures.batch(batch.pictures, epoch=epoch, draw=draw), "texts": texts}

        pool = ThreadPoolExecutor(1, thread_name_prefix="mmalign-batches")
        try:
            following = min(progress.step + 2, len(deal))
            waiting = [pool.submit(read, step) for step in range(progress.step, following)]
            while waiting:
                batch = waiting.pop(0).result()
                if following < len(deal):
                    waiting.append(pool.submit(read, following))
                    following += 1
                yield batch
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def learn(self, batch: StepInputs, progress: Progress, backward: Backward) -> Mapping[str, float]:
        """Add the gradients of a batch; gives its loss and the loss's parts."""
        drawn, inputs = batch
        with autocast(self._device, self._dtype):
            images = self.model.embed_images(to_tensors(inputs["images"], self._device)).float()
            texts = self.model.embed_texts(to_tensors(inputs["texts"], self._device)).float()
            auxiliary = self.model.auxiliary_loss()
        owner = torch.from_numpy(drawn.owner).to(self._device)
        teachers = self._set.teachers
        taught = None if teachers is None else teachers.similarities(drawn).to(self._device)
        loss, parts = self.objective(
            images, texts, owner, taught=taught, auxiliary=None if auxiliary is None else auxiliary.float()
        )
        backward(loss)
        self._remember(drawn, images)
        return {name: part.item() for name, part in {"loss": loss, **parts}.items()}

    def validate(self, losses: Mapping[str, float]) -> dict[str, Any]:
        """Losses, the learned scale and bias, the learning rate, and any-hit at 1, 5 and 10 on the dev pictures."""
        found: dict[str, Any] = {
            **losses,
            "scale": self.objective.scale.item(),
            "learning_rate": max(group["lr"] for group in self.optimizer.param_groups),
        }
        if self.objective.bias is not None:
            found["bias"] = self.objective.bias.item()
        self._neighbours, self._seen = self._seen, None
        return found | dev_figures(
            self.model, self._set.dev_images, self._set.dev_texts, self._set.dev_owner, device=self._device
        )

    def worth(self, record: Mapping[str, Any]) -> float:
        """The sum of the dev figures."""
        return float(record["sum"])

    def state_dict(self) -> dict[str, Any]:
        """The learned temperature, and the embeddings by which neighbours are dealt together."""
        return {
            "objective": self.objective.state_dict(),
            "neighbours": None if self._neighbours is None else torch.from_numpy(self._neighbours),
            "seen": None if self._seen is None else torch.from_numpy(self._seen),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them up."""
        self.objective.load_state_dict(state["objective"])
        self._neighbours, self._seen = (
            None if state[name] is None else state[name].numpy() for name in ("neighbours", "seen")
        )

    def _remember(self, batch: Batch, images: torch.Tensor) -> None:
        """Keep the pictures' embeddings of this epoch, by which the next one deals neighbours together."""
        if self._config.loss.neighbours < 2:
            return
        if self._seen is None:
            height = int(self._set.plan.pictures.max()) + 1
            self._seen = np.zeros((height, images.shape[1]), np.float32)
        self._seen[batch.pictures] = images.detach().cpu().numpy()


def _trained(model: TrainableEncoder) -> list[tuple[nn.Parameter, float]]:
    """What is trained, and its share of the learning rate; what has none of it is frozen."""
    found = []
    for name, parameter in model.named_parameters():
        factor = model.learning_rate_factor(name)
        if factor == 0:
            parameter.requires_grad_(False)
        if parameter.requires_grad:
            found.append((parameter, factor))
    if not found:
        raise InputError("the model has no parameter to train; unlock a part of it in [model]")
    return found


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
