"""The loop that trainings of captioners share: epochs of examples, checkpoints, and the best epoch's weights."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from mmalign.encoders import Encoder
from mmalign.errors import InputError, StorageError
from mmalign.training.captioner.config import CaptionerConfig
from mmalign.training.captioner.data import CaptionerMaterial
from mmalign.training.captioner.examples import Example, Examples
from mmalign.training.checkpoint import Checkpoints, state_digest
from mmalign.training.optimization import schedule_factor
from mmalign.training.run_folder import EXPORT_FOLDER, Log, Place

_CLIP = 1.0


class CaptionerLoop(ABC):
    """A network, where it is in its training, and what it is trained on; see `run_folder.Loop`.

    Args:
        network: What is trained, on its device.
        config: How.
        material: What there is to learn from.
        lengths: How long each sentence is; captions of like length come together.
        folder: The run's folder.
        versions: Texts that have to be the same for a checkpoint to fit, beside the network's layout and the data's.

    Attributes:
        parameters: How many numbers are learnt.
        best: The record of the best epoch; None before the first.
        epoch: The epoch under way, from 1.
        step: Batches of it that are done.
        steps: Batches an epoch.
        keep_every: Steps between two checkpoints: a kill repeats so many at most.
    """

    keep_every: ClassVar[int] = 200
    file_name: ClassVar[str]
    """Name of the exported file."""

    def __init__(
        self,
        network: nn.Module,
        config: CaptionerConfig,
        material: CaptionerMaterial,
        *,
        lengths: Sequence[int],
        folder: Path,
        versions: Sequence[str] = (),
    ) -> None:
        self._network, self._config, self._material, self._folder = network, config, material, folder
        self.parameters = sum(p.numel() for p in network.parameters())
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for parameter in network.parameters():
            groups[parameter.ndim > 1].append(parameter)
        self._optimizer = torch.optim.AdamW(
            [{"params": groups[True], "weight_decay": config.weight_decay},
             {"params": groups[False], "weight_decay": 0.0}],
            lr=config.learning_rate, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        self._checkpoints = Checkpoints(folder, identity=state_digest(network.state_dict(), material.digest, *versions))
        self._examples = Examples(config, material, lengths=lengths)
        self.steps = self._examples.steps
        self.epoch, self.step = 1, 0
        self.best: dict[str, Any] | None = None
        self._history: list[dict[str, Any]] = []

    @abstractmethod
    def _backward(self, batch: Sequence[Example], rng: np.random.Generator) -> float:
        """Add the gradients of a batch, and return its loss; `rng` is the same each time the batch comes up."""

    @abstractmethod
    def _measure(self) -> dict[str, float]:
        """What an epoch's record holds of the pictures that are measured on."""

    @abstractmethod
    def _worth(self, record: Mapping[str, Any]) -> float:
        """What the epochs are compared by, higher is better."""

    @abstractmethod
    def _write(self, path: Path, state: dict[str, torch.Tensor], encoder: Encoder) -> str:
        """Write the exported file, and return its SHA-256."""

    def _stepped(self) -> None:  # noqa: B027 - nothing, for most
        """What is to be done after each step."""

    def _chosen(self) -> Mapping[str, torch.Tensor]:
        """The weights that are exported where the epoch is the best."""
        return self._network.state_dict()

    def _more_state(self) -> dict[str, Any]:
        """What a checkpoint holds beside network, optimizer and place."""
        return {}

    def _take_up(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - nothing, for most
        """Take that from a checkpoint."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of the finished epochs."""
        return self._history

    @property
    def place(self) -> Place:
        """How far the training is."""
        return Place(self.epoch, self._config.epochs, self.step, self.steps)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one."""
        state = self._checkpoints.load()
        if state is None:
            return False
        self._network.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._take_up(state)
        self.epoch, self.step = state["epoch"], state["step"]
        self._history = json.loads(state["history"])
        self.best = max(self._history, key=self._worth, default=None)
        return True

    def run(self, *, log: Log, stop: Callable[[], bool], tick: Callable[[], None]) -> bool:
        """Train to the end; False where it was stopped."""
        while self.epoch <= self._config.epochs:
            begun, losses = time.monotonic(), []
            self._network.train()
            for number, batch in enumerate(self._examples.batches(self.epoch)):
                if number < self.step:
                    continue
                if stop():
                    self._save()
                    return False
                # Dropout of a step is the same whether or not the run was stopped before it.
                torch.manual_seed(self._config.seed * 1_000_003 + self.epoch * 100_003 + number)
                losses.append(self._learn(batch))
                self.step = number + 1
                tick()
                if self.step % self.keep_every == 0 and self.step < self.steps:
                    self._save()
            record = {"event": "epoch", "epoch": self.epoch, "loss": float(np.mean(losses or [0.0])), **self._measure()}
            record["seconds"] = round(time.monotonic() - begun, 1)
            better = self.best is None or self._worth(record) > self._worth(self.best)
            self._history.append(record)
            if better:
                self.best = record
            self.epoch, self.step = self.epoch + 1, 0
            self._save(best=self._chosen() if better else None)
            log(record)
        return True

    def export(self, encoder: Encoder) -> tuple[Path, str]:
        """Write the best epoch's weights.

        Args:
            encoder: Whose embeddings were learnt from.

        Returns:
            The file, and its SHA-256.

        Raises:
            InputError: No epoch is finished.
            StorageError: The disk refused.
        """
        state = self._checkpoints.load("best")
        if state is None or self.best is None:
            raise InputError(f"{self._folder} holds no finished epoch; delete its checkpoint.json to begin anew")
        path = self._folder / EXPORT_FOLDER / self.file_name
        try:
            path.parent.mkdir(exist_ok=True)
            return path, self._write(path, state, encoder)
        except OSError as error:
            raise StorageError(f"{path} cannot be written: {error}; free space") from error

    def _learn(self, batch: Sequence[Example]) -> float:
        config, done = self._config, (self.epoch - 1) * self.steps + self.step
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule_factor(
                done, warmup=config.warmup, total=self.steps * config.epochs
            )
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._backward(batch, np.random.default_rng([config.seed, self.epoch, self.step, 1]))
        if not np.isfinite(loss):
            raise InputError(f"the loss of epoch {self.epoch}, batch {self.step} is not finite; lower learning_rate")
        nn.utils.clip_grad_norm_(self._network.parameters(), _CLIP)
        self._optimizer.step()
        self._stepped()
        return loss

    def _save(self, *, best: Mapping[str, torch.Tensor] | None = None) -> None:
        self._checkpoints.save(
            {
                "model": self._network.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                **self._more_state(),
                "epoch": self.epoch,
                "step": self.step,
                "history": json.dumps(self._history),
            },
            best=best,
        )
