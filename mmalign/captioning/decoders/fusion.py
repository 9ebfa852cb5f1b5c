"""Four ways to join what is known of a picture: its embedding and the captions retrieved for it.

All of them take and give the same shapes, cost about the same number of parameters, and work where one modality, or
both, are missing: a learnt slot that stands for nothing is always there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from mmalign.errors import InputError

FusionName = Literal["concat", "gated", "attention", "transformer"]

# Parameters of a layer of a transformer, in squares of the width.
_SQUARES = 12


class Fusion(nn.Module, ABC):
    """Joins slots of two modalities.

    Args:
        width: Width of a slot.
        spent: Parameters that the way itself uses, in squares of the width; the rest goes into its last layer.
    """

    def __init__(self, width: int, *, spent: int) -> None:
        super().__init__()
        hidden = (_SQUARES - spent) * width // 2
        self.nothing = nn.Parameter(torch.zeros(1, 1, width))
        self.modality = nn.Parameter(torch.randn(2, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.last = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.out = nn.LayerNorm(width)

    def forward(
        self, image: torch.Tensor, image_mask: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Join.

        Args:
            image: Shape (b, m, width).
            image_mask: Which slots are there, shape (b, m), bool; all False where the picture is missing.
            text: Shape (b, k, width).
            text_mask: Shape (b, k), bool.

        Returns:
            `(memory, mask)` of shapes (b, 1 + m + k, width) and (b, 1 + m + k); the first slot is always there.
        """
        image = (image + self.modality[0]) * image_mask[..., None]
        text = (text + self.modality[1]) * text_mask[..., None]
        image, text = self.join(image, image_mask, text, text_mask)
        nothing = self.nothing.expand(len(image), -1, -1)
        memory = torch.cat([nothing, image, text], dim=1)
        mask = torch.cat([image_mask.new_ones(len(image), 1), image_mask, text_mask], dim=1)
        memory = memory + self.last(self.norm(memory))
        return self.out(memory), mask

    @abstractmethod
    def join(
        self, image: torch.Tensor, image_mask: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Let the modalities see each other; shapes as in `forward`, absent slots are zero."""


class ConcatFusion(Fusion):
    """Slots side by side: the decoder alone decides which ones to look at."""

    def __init__(self, width: int) -> None:
        super().__init__(width, spent=0)

    def join(
        self, image: torch.Tensor, image_mask: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Fusion.join`."""
        return image, text


class GatedFusion(Fusion):
    """Each slot takes in the mean of the other modality, through a gate that both decide.

    Source: Arevalo et al., Gated Multimodal Units for Information Fusion, 2017.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, spent=6)
        self.gates = nn.ModuleList([nn.Linear(2 * width, width) for _ in range(2)])
        self.values = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])

    def join(
        self, image: torch.Tensor, image_mask: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Fusion.join`."""
        pooled = [slots.sum(1, keepdim=True) / mask.sum(1).clamp(min=1)[:, None, None]
                  for slots, mask in ((image, image_mask), (text, text_mask))]  # fmt: skip
        joined = []
        for own, other, gate, value in zip((image, text), reversed(pooled), self.gates, self.values, strict=True):
            other = other.expand_as(own)
            share = torch.sigmoid(gate(torch.cat([own, other], dim=-1)))
            joined.append(share * own + (1 - share) * torch.tanh(value(other)))
        return joined[0], joined[1]


class AttentionFusion(Fusion):
    """Each modality's slots look at the other's: cross-attention in both directions, with the same weights."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, spent=4)
        self.look = CrossAttention(width, heads)

    def join(
        self, image: torch.Tensor, image_mask: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Fusion.join`."""
        return image + self.look(image, text, text_mask), text + self.look(text, image, image_mask)


class TransformerFusion(Fusion):
    """All slots in one sequence through a layer of a transformer.

    Source: Vaswani et al., Attention Is All You Need, 2017, the norm before each part.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, spent=4)
        self.look = CrossAttention(width, heads)

    def join(
        self, image: torch.Tensor, image_mask: torch.Tensor, text: torch.Tensor, text_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `Fusion.join`."""
        slots, mask = torch.cat([image, text], dim=1), torch.cat([image_mask, text_mask], dim=1)
        slots = slots + self.look(slots, slots, mask)
        return slots[:, : image.shape[1]], slots[:, image.shape[1] :]


class CrossAttention(nn.Module):
    """Attention over slots; where none of them is there, it gives zeros."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.other_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, own: torch.Tensor, other: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Look from `own` (b, n, width) at `other` (b, s, width), where `mask` (b, s) is True."""
        shape = (len(own), -1, self.heads, own.shape[-1] // self.heads)
        key, value = self.key_value(self.other_norm(other)).chunk(2, dim=-1)
        query, key, value = (x.reshape(shape).transpose(1, 2) for x in (self.query(self.norm(own)), key, value))
        # A row without any slot would be a softmax of nothing: it looks everywhere, and is then put to zero.
        there = mask.any(dim=1)
        allowed = mask | ~there[:, None]
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed[:, None, None])
        result: torch.Tensor = self.out(seen.transpose(1, 2).reshape(own.shape)) * there[:, None, None]
        return result


def make_fusion(name: FusionName, *, width: int, heads: int) -> Fusion:
    """Make a fusion by its name.

    Args:
        name: `concat`, `gated`, `attention` or `transformer`.
        width: Width of a slot.
        heads: Attention heads; `width` is a multiple of it.

    Returns:
        The fusion.

    Raises:
        InputError: Another name.
    """
    match name:
        case "concat":
            return ConcatFusion(width)
        case "gated":
            return GatedFusion(width)
        case "attention":
            return AttentionFusion(width, heads)
        case "transformer":
            return TransformerFusion(width, heads)
    raise InputError(f"expected a fusion of {', '.join(get_args(FusionName))}, got {name!r}")
