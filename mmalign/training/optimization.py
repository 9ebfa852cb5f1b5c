"""The optimizer, its schedule, and the running mean of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


def adamw(
    parameters: Iterable[tuple[nn.Parameter, float]],
    *,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
    undecayed: Sequence[nn.Parameter] = (),
    fused: bool = True,
) -> torch.optim.AdamW:
    """Make AdamW, by which matrices decay, and vectors and single numbers do not.

    Args:
        parameters: What is trained, and what the learning rate of each is multiplied with.
        learning_rate: At the schedule's peak.
        weight_decay: Of the matrices, decoupled.
        betas: Of the running means of the gradient and of its square.
        undecayed: Further parameters, which never decay.
        fused: Whether a step is one call of a kernel; other kernels round otherwise.

    Returns:
        The optimizer; each group's `lr` is that of the schedule's peak.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for parameter, factor in parameters:
        groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    tables = [
        {"params": members, "lr": learning_rate * factor, "weight_decay": weight_decay if decays else 0.0}
        for (factor, decays), members in groups.items()
    ]
    if undecayed:
        tables.append({"params": list(undecayed), "lr": learning_rate, "weight_decay": 0.0})
    return torch.optim.AdamW(tables, lr=learning_rate, betas=betas, fused=fused)


def matrices_first(model: nn.Module) -> list[tuple[nn.Parameter, float]]:
    """All parameters of a model for `adamw`, those that decay before the others."""
    return [(parameter, 1.0) for parameter in sorted(model.parameters(), key=lambda one: one.ndim <= 1)]


def schedule_factor(step: int, *, warmup: float, total: int) -> float:
    """What the learning rate is multiplied with: a linear rise, and half a cosine from the first step to the last.

    Args:
        step: Steps taken so far.
        warmup: Steps of the rise.
        total: Steps of the whole training.

    Returns:
        From 0 to 1.

    Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, 2017, without restarts.
    """
    rise = min(1.0, (step + 1) / max(1, warmup))
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total))))


class RunningMean:
    """The exponential moving average of a model's weights and buffers.

    Args:
        model: The model.
        decay: Weight of the past once it is long; early on the mean is shorter, so that it forgets the beginning.

    Source: Polyak and Juditsky, Acceleration of Stochastic Approximation by Averaging, 1992; the early decay is that
    of TensorFlow's `ExponentialMovingAverage`.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self._decay = decay
        self.updates = 0
        self._live = dict(model.state_dict())
        self.state = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        # Frozen weights never move; averaging them would cost as much as those that do.
        trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        frozen = {name for name, _ in model.named_parameters()} - trained
        self._moving = [name for name, t in self.state.items() if t.is_floating_point() and name not in frozen]
        self._fixed = [name for name, t in self.state.items() if not t.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take the present weights in."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(
            [self.state[name] for name in self._moving], [self._live[name] for name in self._moving], 1 - decay
        )
        for name in self._fixed:
            self.state[name].copy_(self._live[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Put the mean in the place of the model's weights while the block runs."""
        kept = {name: self._live[name].detach().clone() for name in [*self._moving, *self._fixed]}
        model.load_state_dict(self.state)
        try:
            yield
        finally:
            model.load_state_dict(kept, strict=False)

    def load(self, state: dict[str, torch.Tensor], *, updates: int) -> None:
        """Go on from a stored mean."""
        for name, tensor in state.items():
            self.state[name].copy_(tensor)
        self.updates = updates
