"""The loop that all trainings share, on a task of one weight that can be computed by hand."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.errors import InputError
from mmalign.training.checkpoint import Checkpoints
from mmalign.training.loop import LoopOptions, TrainingLoop
from mmalign.training.progress import Progress
from mmalign.training.task import Backward, Task

CPU = torch.device("cpu")


class Line(Task[float]):
    """Learns `weight` by plain gradient descent on (weight - target)^2 / 2, one target a batch."""

    remedy = "lower the rate"

    def __init__(self, targets: list[float], *, steps: int | None = None, rate: float = 0.5) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate)
        self.targets, self.steps = targets, steps or len(targets)
        self.seen: list[float] = []

    @property
    def weight(self) -> float:
        return float(self.model.weight.detach())

    def batches(self, progress: Progress) -> Generator[float, None, None]:
        yield from self.targets[progress.step :]

    def learn(self, batch: float, progress: Progress, backward: Backward) -> Mapping[str, float]:
        assert self.model.training
        loss = (self.model.weight[0, 0] - batch) ** 2 / 2
        backward(loss)
        self.seen.append(batch)
        return {"loss": loss.item(), "target": batch}

    def validate(self, losses: Mapping[str, float]) -> dict[str, Any]:
        assert not self.model.training
        return {**losses, "weight": self.weight}

    def worth(self, record: Mapping[str, Any]) -> float:
        return -abs(float(record["weight"]) - 3)


def train(
    task: Line, options: LoopOptions, folder: Path | None = None, *, stop_after: int | None = None
) -> tuple[TrainingLoop[float], list[Mapping[str, Any]], bool]:
    checkpoints = None if folder is None else Checkpoints(folder, identity="line")
    loop = TrainingLoop(task, options, device=CPU, checkpoints=checkpoints)
    loop.resume()
    records: list[Mapping[str, Any]] = []
    finished = loop.run(log=records.append, stop=lambda: len(task.seen) == stop_after, tick=lambda: None)
    return loop, records, finished


def without_time(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "seconds"}


def by_hand(targets: list[float], epochs: int, *, accumulate: int = 1, warmup: int = 0, rate: float = 0.5) -> float:
    weight, updates = 0.0, 0
    total = epochs * math.ceil(len(targets) / accumulate)
    for _ in range(epochs):
        for start in range(0, len(targets), accumulate):
            gradient = sum(weight - target for target in targets[start : start + accumulate]) / accumulate
            rise = min(1.0, (updates + 1) / max(1, warmup))
            weight -= rate * rise * (1 + math.cos(math.pi * updates / total)) / 2 * gradient
            updates += 1
    return weight


@pytest.mark.parametrize(("accumulate", "warmup"), [(1, 0), (2, 3), (5, 0)])
def test_steps_are_those_of_plain_gradient_descent(accumulate: int, warmup: int) -> None:
    task = Line([1.0, 2.0, 4.0, 8.0, 0.5])
    loop, records, finished = train(task, LoopOptions(epochs=3, accumulate=accumulate, warmup=warmup))
    assert finished
    assert loop.progress.updates == 3 * math.ceil(5 / accumulate)
    assert task.weight == pytest.approx(by_hand(task.targets, 3, accumulate=accumulate, warmup=warmup), rel=1e-5)
    assert [record["target"] for record in records] == [3.1] * 3
    assert [record["epoch"] for record in records] == [1, 2, 3]


def test_without_checkpoints_the_best_weights_are_kept_in_memory() -> None:
    # The weight goes to 3, and past it.
    task = Line([6.0], rate=0.9)
    loop, records, _ = train(task, LoopOptions(epochs=6))
    best = max(records, key=task.worth)
    assert best["epoch"] < 6
    assert float(loop.best_weights()["weight"]) == best["weight"] != task.weight
    assert loop.progress.best == best


def test_an_epoch_may_have_fewer_batches_than_were_foretold() -> None:
    task = Line([2.0, 4.0], steps=4)
    _, records, finished = train(task, LoopOptions(epochs=2))
    assert finished
    assert records[0]["target"] == 6 / 4
    assert len(task.seen) == 4


@pytest.mark.parametrize(
    ("options", "states"),
    [
        ({}, ["2-0", "3-0"]),
        ({"checkpoint_steps": 2}, ["1-2", "1-4", "2-0", "2-2", "2-4", "3-0"]),
        ({"checkpoint_minutes": 0}, ["1-1", "1-2", "1-3", "1-4", "2-0", "2-1", "2-2", "2-3", "2-4", "3-0"]),
        ({"checkpoint_minutes": 0, "accumulate": 3}, ["1-3", "2-0", "2-3", "3-0"]),
    ],
)
def test_when_checkpoints_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], states: list[str]
) -> None:
    written: list[str] = []
    save = Checkpoints.save

    def remember(self: Checkpoints, state: Mapping[str, Any], **more: Any) -> None:
        written.append(f"{state['epoch']}-{state['step']}")
        save(self, state, **more)

    monkeypatch.setattr(Checkpoints, "save", remember)
    # A clock that moves with every look.
    times = iter(range(10_000))
    monkeypatch.setattr("mmalign.training.loop.time.monotonic", lambda: float(next(times)))
    train(Line([1.0, 2.0, 3.0, 4.0, 5.0]), LoopOptions(epochs=2, **options), tmp_path)
    assert written == states


@pytest.mark.parametrize(("stop_after", "place"), [(0, (1, 0)), (2, (1, 2)), (5, (2, 0)), (9, (2, 4))])
def test_a_stopped_run_goes_on_between_two_updates(tmp_path: Path, stop_after: int, place: tuple[int, int]) -> None:
    options = LoopOptions(epochs=3, accumulate=2, ema_decay=0.5)
    targets = [1.0, 2.0, 4.0, 8.0, 0.5]
    whole, told, _ = train(Line(targets), options)
    cut, rest = Line(targets), Line(targets)
    loop, before, finished = train(cut, options, tmp_path, stop_after=stop_after)
    assert not finished
    assert (loop.progress.epoch, loop.progress.step) == place
    again, after, finished = train(rest, options, tmp_path)
    assert finished
    assert cut.seen + rest.seen == targets * 3
    assert [without_time(record) for record in [*before, *after]] == [without_time(record) for record in told]
    assert again.best_weights()["weight"] == whole.best_weights()["weight"]


def test_it_does_not_stop_in_the_middle_of_an_update(tmp_path: Path) -> None:
    # Asked before the fourth batch alone, which belongs to one update with the third.
    _, _, finished = train(Line([1.0] * 6), LoopOptions(epochs=1, accumulate=2), tmp_path, stop_after=3)
    assert finished


def test_a_loss_that_is_not_finite_ends_it() -> None:
    task = Line([1.0, math.nan])
    with pytest.raises(InputError, match=r"^the loss is nan in epoch 1, step 2; lower the rate$"):
        train(task, LoopOptions(epochs=1))


def test_no_finished_epoch_has_no_best_weights(tmp_path: Path) -> None:
    loop, _, finished = train(Line([1.0]), LoopOptions(epochs=1), tmp_path, stop_after=0)
    assert not finished
    with pytest.raises(InputError, match=r"holds no finished epoch; delete .*checkpoint\.json to begin anew"):
        loop.best_weights()
