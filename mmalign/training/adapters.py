"""The adapters while they are trained, and their export to the file that the encoder loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional

from mmalign.similarity import Float32Array

# Features that hardly vary would get a huge scale, and with it weights that float16 cannot hold.
_LEAST_DEVIATION = 0.02


class TrainableAdapter(nn.Module):
    """The torch twin of `mmalign.encoders.adapter.Adapter`, with dropout, on standardised features.

    Args:
        features: The training features, shape (n, inputs), for their mean and deviation.
        dim: Width of the embeddings.
        hidden: Units of the second, nonlinear path; 0 leaves it out.
        input_dropout: Share of the features dropped in training.
        hidden_dropout: Share of the hidden units dropped in training.
    """

    def __init__(
        self, features: Float32Array, *, dim: int, hidden: int, input_dropout: float, hidden_dropout: float
    ) -> None:
        super().__init__()
        inputs = features.shape[1]
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.register_buffer("mean", torch.from_numpy(features.mean(axis=0)))
        self.register_buffer("deviation", torch.from_numpy(features.std(axis=0)).clamp_min(_LEAST_DEVIATION))
        self.input_dropout = nn.Dropout(input_dropout)
        self.linear = nn.Linear(inputs, dim)
        self.hidden = nn.Linear(inputs, hidden) if hidden else None
        self.hidden_dropout = nn.Dropout(hidden_dropout)
        self.output = nn.Linear(hidden, dim, bias=False) if hidden else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Project features of shape (n, inputs) to rows of length 1, shape (n, dim)."""
        x = self.input_dropout((features - self.mean) / self.deviation)
        y = self.linear(x)
        if self.hidden is not None and self.output is not None:
            y = y + self.output(self.hidden_dropout(functional.gelu(self.hidden(x))))
        return functional.normalize(y, dim=-1)

    def export(self) -> dict[str, NDArray[np.float16]]:
        """The tensors that `Adapter` takes, float16, the standardisation folded into the first layers."""
        tensors: dict[str, torch.Tensor] = {}
        for name, layer in (("linear", self.linear), ("hidden", self.hidden)):
            if layer is not None:
                weight = layer.weight.detach() / self.deviation
                tensors[f"{name}.weight"] = weight
                tensors[f"{name}.bias"] = layer.bias.detach() - weight @ self.mean
        if self.output is not None:
            tensors["output.weight"] = self.output.weight.detach()
        return {name: tensor.cpu().numpy().astype(np.float16) for name, tensor in tensors.items()}


def save_adapters(path: Path, *, text: TrainableAdapter, image: TrainableAdapter, metadata: Mapping[str, str]) -> None:
    """Write both adapters to one safetensors file.

    Args:
        path: The file to write.
        text: The text side.
        image: The picture side.
        metadata: Licence and provenance, kept in the file's header.
    """
    tensors = {
        f"{side}.{name}": tensor
        for side, adapter in (("text", text), ("image", image))
        for name, tensor in adapter.export().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=dict(sorted(metadata.items())))
