"""A captioner of a few thousand weights, and inputs for it."""

from __future__ import annotations

import numpy as np
import torch

from mmalign.captioning.fusion import FusionName
from mmalign.captioning.model import Inputs, ModelConfig, MultimodalTransformer, make_inputs, make_model

CONFIG = ModelConfig(dim=6, vocabulary=40, width=16, layers=2, heads=2, longest=12, slots=2, context=4, read=3)


def toy_model(fusion: FusionName = "transformer", *, seed: int = 0) -> MultimodalTransformer:
    torch.manual_seed(seed)
    sizes = {**CONFIG.to_dict(), "fusion": fusion}
    model = make_model(ModelConfig(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger than at the beginning of a training, so that every part of the model matters.
            parameter += torch.randn_like(parameter) * 0.2
    return model.eval()


def toy_inputs(count: int = 3, *, seed: int = 0, captions: int = 4) -> Inputs:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, CONFIG.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    contexts = [
        [rng.integers(3, 12, rng.integers(1, 6)).tolist() for _ in range(rng.integers(1, captions + 1))]
        for _ in range(count)
    ]
    return make_inputs(vectors, contexts)
