"""What trainings of captioners share: batches of examples, the optimizer, and the exported file."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from mmalign.encoders import Encoder
from mmalign.training.captioner.config import CaptionerConfig
from mmalign.training.captioner.data import CaptionerTrainingSet
from mmalign.training.captioner.examples import Example, Examples
from mmalign.training.checkpoint import state_digest
from mmalign.training.optimization import adamw, matrices_first
from mmalign.training.progress import Progress
from mmalign.training.task import Backward, Task


class CaptionerTask(Task[list[Example]]):
    """A network that is told of a picture, and what it is trained on.

    Args:
        model: What is trained, on its device.
        config: How.
        training_set: What there is to learn from.
        lengths: How long each sentence is; captions of like length come together.
        device: Where the model is.
        versions: Texts that have to be the same for a checkpoint to fit, beside the network's layout and the data's.

    Attributes:
        identity: What has to be the same for a checkpoint to fit.
        keep_every: Steps between two checkpoints: a kill repeats so many at most.
        ema_decay: Of the running mean of the weights; 0 for none.
        file_name: Name of the exported file.
    """

    keep_every: ClassVar[int] = 200
    ema_decay: ClassVar[float] = 0.0
    file_name: ClassVar[str]

    def __init__(
        self,
        model: nn.Module,
        config: CaptionerConfig,
        training_set: CaptionerTrainingSet,
        *,
        lengths: Sequence[int],
        device: torch.device,
        versions: Sequence[str] = (),
    ) -> None:
        self.model, self._config, self._set, self._device = model, config, training_set, device
        self.optimizer = adamw(
            matrices_first(model),
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
        )
        self.identity = state_digest(model.state_dict(), training_set.digest, *versions)
        self._examples = Examples(config, training_set, lengths=lengths)
        self.steps = self._examples.steps
        self.remedy = f"Lower learning_rate ({config.learning_rate}); then use another --out"

    @abstractmethod
    def _learn(self, batch: Sequence[Example], rng: np.random.Generator, backward: Backward) -> float:
        """Add the gradients of a batch, and return its loss; `rng` is the same each time the batch comes up."""

    @abstractmethod
    def _measure(self) -> dict[str, float]:
        """What an epoch's record holds of the pictures that are measured on."""

    @abstractmethod
    def _write(self, path: Path, weights: dict[str, torch.Tensor], encoder: Encoder, provenance: str) -> str:
        """Write the exported file, and return its SHA-256."""

    def batches(self, progress: Progress) -> Generator[list[Example], None, None]:
        """Yield the rest of the epoch's batches."""
        yield from islice(self._examples.batches(progress.epoch), progress.step, None)

    def learn(self, batch: list[Example], progress: Progress, backward: Backward) -> Mapping[str, float]:
        """Add the gradients of a batch; gives its loss."""
        seed, epoch, step = self._config.seed, progress.epoch, progress.step
        # Dropout of a step is the same whether or not the run was stopped before it.
        torch.manual_seed(seed * 1_000_003 + epoch * 100_003 + step)
        return {"loss": self._learn(batch, np.random.default_rng([seed, epoch, step, 1]), backward)}

    def validate(self, losses: Mapping[str, float]) -> dict[str, Any]:
        """The loss, and how well the pictures that are measured on are described."""
        return {"loss": losses.get("loss", 0.0), **self._measure()}

    def upgrade(self, state: dict[str, Any]) -> dict[str, Any]:
        """Bring a checkpoint from before all trainings had one loop into the form of that loop's."""
        if "progress" in state:
            return state
        epoch, step, history = state["epoch"], state["step"], json.loads(state["history"])
        progress = Progress(
            epoch=epoch,
            step=step,
            # The losses of the steps before were not kept.
            since=step,
            updates=(epoch - 1) * self.steps + step,
            best=max(history, key=self.worth, default=None),
            history=history,
        )
        cuda = self._device.type == "cuda"
        return {
            **state,
            "progress": json.dumps(asdict(progress)),
            "mean_updates": state.get("updates", 0),
            "scaler": {},
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self._device) if cuda else None,
        }

    def export(
        self, weights: dict[str, torch.Tensor], folder: Path, encoder: Encoder, progress: Progress
    ) -> tuple[Path, str]:
        """Write the best epoch's weights.

        Args:
            weights: The model's state dict.
            folder: An existing folder.
            encoder: Whose embeddings were learnt from.
            progress: Tells which epoch it was.

        Returns:
            The file, and its SHA-256.
        """
        path = folder / self.file_name
        best = progress.best or {}
        note = f"epoch {best['epoch']} is the best of {len(progress.history)}"
        return path, self._write(path, weights, encoder, note)
