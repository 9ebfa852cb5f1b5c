"""The network of the learned head: from the cells of a picture and a phrase to a heat map and a box at each cell.

torch is imported with this module, so nothing imports it before a head is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

_FREQUENCIES = 4
# Sides of boxes, as shares of the picture, at which a prediction starts.
_SIDE = 0.2
_LOG_LIMIT = 3.0


@dataclass(frozen=True, slots=True)
class NetSize:
    """How large the network is.

    Attributes:
        inputs: Width of a cell's features.
        text: Width of a phrase's embedding.
        width: Channels of the part that sees the picture alone.
        trunk: Blocks of that part.
        narrow: Channels of the part that sees the picture and a phrase; it runs once a phrase, so it is small.
        fused: Blocks of that part.
        hidden: Units of the phrase's layer.
    """

    inputs: int
    text: int
    width: int = 128
    trunk: int = 2
    narrow: int = 48
    fused: int = 2
    hidden: int = 256


class GroundingNet(nn.Module):
    """Attention of a phrase over the cells of a picture, and what box each cell would draw.

    The cells of a picture are projected (W_k), mixed with their neighbours, scaled and shifted by the phrase (W_q),
    and mixed again. Each cell then says how much of the phrase is there, what box it draws and how well it expects
    that box to fit.

    Args:
        size: How large it is.

    Source: one-stage detection as in Tian et al., FCOS, 2019, with boxes ranked by their expected overlap as in Li
    et al., Generalized Focal Loss, 2020; phrases by feature-wise modulation, Perez et al., FiLM, 2018; blocks of Liu
    et al., A ConvNet for the 2020s, 2022.
    """

    def __init__(self, size: NetSize) -> None:
        super().__init__()
        self.size = size
        self.cells = nn.Linear(size.inputs, size.width)
        self.place = nn.Linear(4 * _FREQUENCIES + 2, size.width, bias=False)
        self.trunk = nn.Sequential(*(GroundingBlock(size.width, 5) for _ in range(size.trunk)))
        self.text_hidden = nn.Linear(size.text, size.hidden)
        self.text_out = nn.Linear(size.hidden, 2 * size.width)
        self.spot = nn.Linear(1, size.width, bias=False)
        self.mixed = nn.LayerNorm(size.width)
        self.narrow = nn.Linear(size.width, size.narrow)
        self.fused = nn.Sequential(*(GroundingBlock(size.narrow, 7) for _ in range(size.fused)))
        self.last = nn.LayerNorm(size.narrow)
        self.out = nn.Linear(size.narrow, 6)
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.out.weight, std=0.01)
        with torch.no_grad():
            self.out.bias[1] = -2.0

    def picture(self, features: Tensor) -> Tensor:
        """Mix the cells of pictures.

        Args:
            features: Of the cells, shape (b, h, w, inputs).

        Returns:
            Tensor of shape (b, h, w, width).
        """
        _, height, width, _ = features.shape
        places = self.place(_waves(height, width).to(features))
        mixed: Tensor = self.mixed(self.trunk(self.cells(features) + places))
        return mixed

    def forward(self, cells: Tensor, text: Tensor, spot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Look for phrases.

        Args:
            cells: What `picture` returned, a row for each phrase, shape (n, h, w, width).
            text: Embeddings of the phrases, of length 1, shape (n, text).
            spot: Similarity of each phrase with each cell in the shared space, shape (n, h, w).

        Returns:
            Logits of how much of a phrase is in each cell, shape (n, h, w); logits of the expected overlap of each
            cell's box, shape (n, h, w); boxes as left, top, right and bottom, shares of the picture, (n, h, w, 4).
        """
        hidden = functional.gelu(self.text_hidden(text * text.shape[1] ** 0.5))
        scale, shift = self.text_out(hidden)[:, None, None].chunk(2, dim=-1)
        mixed = functional.gelu(cells * (1 + scale) + shift + self.spot(spot[..., None]))
        raw = self.out(self.last(self.fused(self.narrow(mixed))))
        sides = _SIDE * torch.exp(raw[..., 2:].clamp(-_LOG_LIMIT, _LOG_LIMIT))
        middle = _middles(cells.shape[1], cells.shape[2]).to(sides)
        boxes = torch.cat([middle - sides[..., :2], middle + sides[..., 2:]], dim=-1)
        return raw[..., 0], raw[..., 1], boxes


class GroundingBlock(nn.Module):
    """Mix neighbouring cells channel by channel, then the channels of each cell, and add that to what came in."""

    def __init__(self, width: int, reach: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, reach, padding=reach // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, cells: Tensor) -> Tensor:
        """Map a tensor of shape (b, h, w, width) to one of the same shape."""
        # (b, h, w, c) seen as (b, c, h, w) is channels-last already.
        near = self.near(cells.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        result: Tensor = cells + self.down(functional.gelu(self.up(self.norm(near))))
        return result


def _middles(height: int, width: int) -> Tensor:
    """Middles of the cells as shares of the picture, shape (h, w, 2), x first."""
    y, x = torch.meshgrid((torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij")
    return torch.stack([x, y], dim=-1)


def _waves(height: int, width: int) -> Tensor:
    """Where each cell is, as numbers that a linear layer can read: shape (h, w, 4 * _FREQUENCIES + 2)."""
    middle = _middles(height, width) * 2 - 1
    angles = torch.cat([middle * torch.pi * 2.0 ** (k - 1) for k in range(_FREQUENCIES)], dim=-1)
    return torch.cat([middle, angles.sin(), angles.cos()], dim=-1)
