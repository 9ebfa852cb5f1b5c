"""How far a training is, and telling of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mmalign.utils import ShowProgress


@dataclass(slots=True)
class Progress:
    """How far a training is; a checkpoint keeps it as JSON.

    Attributes:
        epoch: The epoch under way, from 1.
        step: Batches of it that are done.
        updates: Steps of the optimizer so far.
        sums: Sums over this epoch's batches of the loss and its parts.
        since: The batch that the sums begin with, other than 0 where a checkpoint of an earlier version kept none.
        best: The record of the best epoch.
        history: One record an epoch.
        seconds: Time spent in the epoch under way, in all runs of it.
    """

    epoch: int = 1
    step: int = 0
    updates: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    since: int = 0
    best: dict[str, Any] | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def stale(self) -> int:
        """Epochs since the best one."""
        return 0 if self.best is None else len(self.history) - int(self.best["epoch"])


def counter(progress: ShowProgress | None, name: str, total: int) -> Callable[[int], None]:
    """Turn numbers of further rows into calls of `progress` with the sum so far."""
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(name, done, total)

    return count
