"""What a step minimises: the contrastive loss with its learned temperature, and what is mixed into it."""

from __future__ import annotations

import math

import torch
from torch import nn

from mmalign.training.contrastive.config import LossConfig
from mmalign.training.contrastive.losses import (
    caption_contrastive_loss,
    distillation_loss,
    hardest_negative_loss,
    sigmoid_loss,
)

_TEMPERATURES = {"clip": 0.07, "siglip": 0.1}
_SIGMOID_BIAS = -10.0


class Objective(nn.Module):
    """The loss of a batch.

    Args:
        config: Which losses, and how they are weighted.
        initial: The inverse temperature and bias that the model was trained with, if it was; the configuration's
            temperature goes before.

    Attributes:
        log_scale: Logarithm of the inverse temperature.
        bias: Added to every scaled cosine by the sigmoid loss; None for the others.
    """

    def __init__(self, config: LossConfig, *, initial: tuple[float, float] | None = None) -> None:
        super().__init__()
        self._config = config
        scale, bias = initial or (1 / _TEMPERATURES[config.kind], _SIGMOID_BIAS)
        if config.temperature is not None:
            scale = 1 / config.temperature
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = nn.Parameter(torch.tensor(bias)) if config.kind == "siglip" else None

    @property
    def scale(self) -> torch.Tensor:
        """The inverse temperature, within its bound."""
        return self.log_scale.exp().clamp(max=self._config.largest_scale)

    def forward(
        self,
        images: torch.Tensor,
        texts: torch.Tensor,
        owner: torch.Tensor,
        *,
        taught: torch.Tensor | None = None,
        auxiliary: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Compute the loss.

        Args:
            images: Shape (b, dim), float32, rows of length 1.
            texts: Shape (m + e, dim), float32, rows of length 1: captions, then sentences without a picture.
            owner: The picture of each caption, shape (m,).
            taught: The teachers' cosine over temperature of every text and picture, shape (m + e, b).
            auxiliary: The model's own further loss.

        Returns:
            The loss and its parts by name, scalars.
        """
        config, captions = self._config, texts[: len(owner)]
        parts: dict[str, torch.Tensor] = {}
        total = images.new_zeros(())
        if config.contrastive_weight:
            if self.bias is not None:
                parts["contrastive"] = sigmoid_loss(images, captions, owner, self.scale, self.bias)
            else:
                parts["contrastive"] = caption_contrastive_loss(
                    images, captions, owner, self.scale, label_smoothing=config.label_smoothing
                )
            total = total + config.contrastive_weight * parts["contrastive"]
        if config.hard_negative_weight:
            parts["hard_negative"] = hardest_negative_loss(images, captions, owner, margin=config.hard_negative_margin)
            total = total + config.hard_negative_weight * parts["hard_negative"]
        if taught is not None and config.distillation_weight:
            student = texts @ images.T / config.distillation_temperature
            parts["distillation"] = distillation_loss(student, taught)
            total = total + config.distillation_weight * parts["distillation"]
        if auxiliary is not None:
            parts["auxiliary"] = auxiliary
            total = total + auxiliary
        return total, parts
