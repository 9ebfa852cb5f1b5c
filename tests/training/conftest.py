"""What the tests of trainings share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mmalign.training.contrastive import models, teachers
from mmalign.training.contrastive import train as run
from mmalign.training.contrastive.config import EncoderModelConfig
from mmalign.training.contrastive.model import TrainableEncoder
from tests.training.toy import ToyModel


def build(config: EncoderModelConfig, *, device: torch.device, seed: int) -> TrainableEncoder:
    """`build_model` that also knows the toy."""
    if config.kind == "toy":
        return ToyModel(config.options, device=device, seed=seed)
    return models.build_model(config, device=device, seed=seed)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainableEncoder]:
    """Make `kind = "toy"` a kind of model."""
    monkeypatch.setattr(run, "build_model", build)
    monkeypatch.setattr(teachers, "build_model", build)
    return build
