"""From the kind of a model to the model."""

from __future__ import annotations

from importlib import import_module

import torch

from mmalign.encoders import near_matches
from mmalign.errors import InputError
from mmalign.training.contrastive.config import EncoderModelConfig
from mmalign.training.contrastive.model import TrainableEncoder

_CLASSES = {
    "lite": ("mmalign.training.contrastive.lite_model", "LiteModel"),
    "open_clip": ("mmalign.training.contrastive.open_clip_model", "OpenClipModel"),
    "adapter": ("mmalign.training.contrastive.adapter_model", "AdapterModel"),
}
MODEL_KINDS = tuple(_CLASSES)
"""What `kind` of `[model]` may be."""


def build_model(config: EncoderModelConfig, *, device: torch.device, seed: int) -> TrainableEncoder:
    """Make a model with the weights that it has before the training.

    Args:
        config: Its kind and options.
        device: Where it is to be.
        seed: Of weights that begin at random.

    Returns:
        The model.

    Raises:
        InputError: No such kind, or options that the kind does not know.
        ModelUnavailableError: Weights to begin with that are not here.
    """
    if config.kind not in _CLASSES:
        near = near_matches(config.kind, MODEL_KINDS, most=1)
        meant = f"did you mean {near[0]}?" if near else f"the kinds are {', '.join(MODEL_KINDS)}"
        raise InputError(f"model.kind {config.kind!r} is not known; {meant}")
    module, name = _CLASSES[config.kind]
    # Late and by name: each model needs other libraries.
    model: TrainableEncoder = getattr(import_module(module), name)(config.options, device=device, seed=seed)
    return model
