"""What a training brings to the loop: its batches, the loss of one, what is measured, what a checkpoint holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import nn

from mmalign.training.progress import Progress

Backward: TypeAlias = Callable[[torch.Tensor], None]
"""Adds the gradients of a loss."""
BatchT = TypeVar("BatchT")


class Task(ABC, Generic[BatchT]):
    """What is particular to a training: its batches, the loss of one, and what is measured after an epoch.

    Attributes:
        model: What is trained, on its device; of the best epoch, its state is kept.
        optimizer: Steps its weights; each group's `lr` is that of the schedule's peak.
        steps: Batches an epoch; fewer may come.
        remedy: What to do where the loss is not finite.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    steps: int
    remedy: str

    @abstractmethod
    def batches(self, progress: Progress) -> Generator[BatchT, None, None]:
        """Yield the batches of an epoch from `progress.step` on; where there are checkpoints, the same each time."""

    @abstractmethod
    def learn(self, batch: BatchT, progress: Progress, backward: Backward) -> Mapping[str, float]:
        """Add the gradients of a batch.

        Args:
            batch: From `batches`.
            progress: How far the training is; `step` counts the batches before this one.
            backward: To be called with the loss, or with each of its terms; adds their gradients.

        Returns:
            The `loss` and its parts, whose means over an epoch `validate` is told.
        """

    @abstractmethod
    def validate(self, losses: Mapping[str, float]) -> dict[str, Any]:
        """Measure the model at the end of an epoch; it is in evaluation mode, its weights their running mean.

        Args:
            losses: Means over the epoch of what `learn` returned; nothing where there was no step.

        Returns:
            What the epoch's record holds, JSON-ready.
        """

    @abstractmethod
    def worth(self, record: Mapping[str, Any]) -> float:
        """What epochs are compared by, by their records; higher is better, and of equals the first."""

    def parameters(self) -> list[nn.Parameter]:
        """What is trained, in the order in which the gradient's length is summed up."""
        return list(self.model.parameters())

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint holds beside model, optimizer, progress and random states."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take that from a checkpoint."""
