"""A linear adapter while it is trained: on standardised features, with dropout."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from mmalign.utils import Float32Array

# Features that hardly vary would get a huge scale, and with it weights that float16 cannot hold.
_LEAST_DEVIATION = 0.02


class Projection(nn.Module):
    """The trainable twin of `mmalign.encoders.lite.adapter.Adapter` without a hidden path.

    Args:
        features: Width of the features.
        dim: Width of the embeddings.
        dropout: Share of the features dropped in training.
    """

    def __init__(self, features: int, *, dim: int, dropout: float) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.deviation: torch.Tensor
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, dim)

    def standardise(self, features: torch.Tensor) -> None:
        """Take the mean and deviation of a sample of features, shape (n, features)."""
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0).clamp_min(_LEAST_DEVIATION))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Project features of shape (n, features) to rows of length 1, shape (n, dim)."""
        return functional.normalize(self.linear(self.dropout((features - self.mean) / self.deviation)), dim=-1)

    def export(self) -> dict[str, Float32Array]:
        """The tensors that `Adapter` takes, the standardisation folded in."""
        weight = (self.linear.weight / self.deviation).detach()
        bias = self.linear.bias.detach() - weight @ self.mean
        return {"linear.weight": weight.cpu().numpy(), "linear.bias": bias.cpu().numpy()}
