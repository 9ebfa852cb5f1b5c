"""Dense features of open_clip's vision transformers: self-self attention in the last block, a finer grid of patches.

What a vision transformer of CLIP says of one patch is mostly about the whole picture: in its last block patches attend
to what the class token needs. Three methods that need no training let each patch attend to those that are like it.

Sources: Lan et al., ClearCLIP: Decomposing CLIP Representations for Dense Vision-Language Inference, 2024; Wang et al.,
SCLIP: Rethinking Self-Attention for Dense Vision-Language Inference, 2023; Hajimiri et al., Pay Attention to Your
Neighbours: Training-Free Open-Vocabulary Semantic Segmentation (NACLIP), 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from mmalign.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL import Image

DenseMethod: TypeAlias = Literal["clearclip", "sclip", "naclip"]
"""`clearclip`: queries with queries, neither residual nor feed-forward layer; `sclip`: the sum of queries with queries
and keys with keys, in an otherwise unchanged block; `naclip`: keys with keys, and a preference for near patches,
neither residual nor feed-forward layer."""

NEIGHBOURHOOD = 5.0
"""Deviation of NACLIP's preference for near patches, in patches of the model."""

_MOST_CELLS = 10_000


@dataclass(frozen=True, slots=True)
class Grid:
    """How a picture is laid out in cells.

    Attributes:
        rows: Cells from top to bottom.
        columns: Cells from left to right.
        stride: Side of a cell in pixels of the scaled picture.
    """

    rows: int
    columns: int
    stride: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the scaled picture, in pixels."""
        return self.columns * self.stride, self.rows * self.stride


def plan_grid(width: int, height: int, *, patch: int, side: int, stride: int | None) -> Grid:
    """Lay a grid of cells over a picture, its aspect ratio kept as nearly as whole cells allow.

    Args:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        patch: Side of the model's patches.
        side: Shorter side of the scaled picture, in pixels.
        stride: Distance of neighbouring patches; None for half a patch.

    Returns:
        The grid. A picture more than four times as long as wide is squeezed to that.

    Raises:
        InputError: A stride below 1 or above the patch, a side below the patch, or more than 10,000 cells.
    """
    stride = max(patch // 2, 1) if stride is None else stride
    if not 1 <= stride <= patch:
        raise InputError(f"stride must be from 1 to {patch}, the side of the model's patches, got {stride}")
    if side < patch:
        raise InputError(f"side must be at least {patch}, the side of the model's patches, got {side}")
    ratio = min(max(width / height, 0.25), 4.0)
    columns = max(round(side * max(ratio, 1.0) / stride), 1)
    rows = max(round(side * max(1.0 / ratio, 1.0) / stride), 1)
    if rows * columns > _MOST_CELLS:
        raise InputError(
            f"side {side} and stride {stride} give {rows} x {columns} cells, more than {_MOST_CELLS:,}; "
            "take a smaller side or a larger stride"
        )
    return Grid(rows, columns, stride)


def why_not(visual: Any) -> str | None:
    """Say why a model has no dense features of this kind.

    Args:
        visual: The `visual` tower of an open_clip model.

    Returns:
        The reason, or None where it has them.
    """
    if type(visual).__name__ != "VisionTransformer":
        return (
            f"its picture tower is a {type(visual).__name__}, and only open_clip's own VisionTransformer is taken apart"
        )
    if visual.patch_size[0] != visual.patch_size[1]:
        return "its patches are not square"
    if visual.attn_pool is not None:
        return "it pools with attention, so that a single patch has no embedding of its own"
    if visual.proj is None:
        return "it has no projection into the common space"
    if getattr(visual.transformer.resblocks[-1].attn, "logit_scale", None) is not None:
        return "its attention is by scaled cosine"
    return None


def to_pixels(image: Image.Image, grid: Grid, *, patch: int, mean: Any, std: Any) -> torch.Tensor:
    """Scale and normalise a picture for a grid, with a rim, so that the patches' centres are the cells' centres.

    Args:
        image: A picture of mode RGB.
        grid: Its grid.
        patch: Side of the model's patches.
        mean: Of each channel, subtracted; 3 numbers.
        std: Of each channel, divided by; 3 numbers.

    Returns:
        Tensor of shape (1, 3, h, w), float32, whose patches at the grid's stride are exactly its cells.
    """
    import numpy as np
    import torch
    from PIL import Image as Pil

    scaled = image.resize(grid.size, Pil.Resampling.BICUBIC, reducing_gap=3.0)
    pixels = torch.from_numpy(np.asarray(scaled, np.float32) / 255.0).permute(2, 0, 1)
    colours = [torch.tensor(list(values), dtype=torch.float32).reshape(3, 1, 1) for values in (mean, std)]
    pixels = (pixels - colours[0]) / colours[1]
    rim = patch - grid.stride
    before, after = rim // 2, rim - rim // 2
    return torch.nn.functional.pad(pixels[None], (before, after, before, after), mode="replicate")


def dense_features(
    visual: Any, pixels: torch.Tensor, grid: Grid, *, method: DenseMethod, neighbourhood: float = NEIGHBOURHOOD
) -> torch.Tensor:
    """The embedding of each cell, not yet of length 1.

    Args:
        visual: An open_clip `VisionTransformer` for which `why_not` gives None.
        pixels: What `to_pixels` gave, on the model's device.
        grid: The grid.
        method: What the last block does.
        neighbourhood: For `naclip`: deviation of the preference for near cells, in patches of the model.

    Returns:
        Tensor of shape (rows, columns, dim), in the space of the whole picture's embedding.

    Raises:
        InputError: An unknown method, or a neighbourhood that is not above 0.
    """
    if method not in get_args(DenseMethod):
        raise InputError(f"method must be one of {', '.join(get_args(DenseMethod))}, got {method!r}")
    if not neighbourhood > 0:
        raise InputError(f"neighbourhood must be above 0, got {neighbourhood}")
    tokens = _embed(visual, pixels, grid)
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    last = visual.transformer.resblocks[-1]
    bias = None
    if method == "naclip":
        bias = _nearness(grid, neighbourhood * visual.patch_size[0] / grid.stride).to(tokens)
    attended = _self_attention(last, tokens, method, bias)
    if method == "sclip":
        tokens = tokens + attended
        tokens = tokens + last.ls_2(last.mlp(last.ln_2(tokens)))
    else:
        tokens = attended
    cells: torch.Tensor = visual.ln_post(tokens[0, 1:]) @ visual.proj
    return cells.reshape(grid.rows, grid.columns, -1)


def _embed(visual: Any, pixels: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Patches at the grid's stride, the class token before them, positions added: shape (1, 1 + cells, width)."""
    import torch

    conv = visual.conv1
    patches = torch.nn.functional.conv2d(pixels.to(conv.weight.dtype), conv.weight, conv.bias, stride=grid.stride)
    patches = patches.flatten(2).transpose(1, 2)
    tokens = torch.cat([visual.class_embedding.reshape(1, 1, -1).to(patches), patches], dim=1)
    tokens = tokens + _positions(visual, grid).to(tokens)
    normed: torch.Tensor = visual.ln_pre(tokens)
    return normed


def _positions(visual: Any, grid: Grid) -> torch.Tensor:
    """The model's positions, stretched over the grid: shape (1 + cells, width)."""
    import torch

    learned = visual.positional_embedding
    if (grid.rows, grid.columns) == tuple(visual.grid_size):
        same: torch.Tensor = learned
        return same
    own = learned[1:].reshape(1, *visual.grid_size, -1).permute(0, 3, 1, 2).float()
    # A grid coarser than the model's would skip positions without antialias.
    coarser = grid.rows < visual.grid_size[0] or grid.columns < visual.grid_size[1]
    stretched = torch.nn.functional.interpolate(
        own, size=(grid.rows, grid.columns), mode="bicubic", align_corners=False, antialias=coarser
    )
    return torch.cat([learned[:1].float(), stretched[0].flatten(1).T])


def _nearness(grid: Grid, deviation: float) -> torch.Tensor:
    """What NACLIP adds to the logits: a Gaussian of the distance in cells, 0 for the class token."""
    import torch

    down = torch.arange(grid.rows).repeat_interleave(grid.columns)
    right = torch.arange(grid.columns).repeat(grid.rows)
    squared = (down[:, None] - down) ** 2 + (right[:, None] - right) ** 2
    bias = torch.zeros(1 + len(down), 1 + len(down))
    bias[1:, 1:] = torch.exp(-squared / (2 * deviation**2))
    return bias


def _self_attention(block: Any, tokens: torch.Tensor, method: DenseMethod, bias: torch.Tensor | None) -> torch.Tensor:
    """The attention branch of a block, with each token's weights decided by those that are like it."""
    import torch

    attention = block.attn
    heads = int(attention.num_heads)
    count, width = tokens.shape[1:]
    projected = torch.nn.functional.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = projected[0].reshape(count, 3, heads, width // heads).permute(1, 2, 0, 3)
    # Identities, but for the custom blocks of open_clip.
    query, key = _part(attention, "ln_q", query), _part(attention, "ln_k", key)
    alike = {"clearclip": (query,), "sclip": (query, key), "naclip": (key,)}[method]
    mixed = torch.zeros_like(value)
    for side in alike:
        # One head's weights at a time would need less memory; all heads are faster and fit.
        logits = side @ side.transpose(1, 2) * (width // heads) ** -0.5
        mixed = mixed + (logits if bias is None else logits + bias).softmax(dim=-1) @ value
    scale = getattr(attention, "head_scale", None)
    if scale is not None:
        mixed = mixed * scale
    output = attention.out_proj(_part(attention, "ln_inner", mixed.transpose(0, 1).reshape(1, count, width)))
    attended: torch.Tensor = block.ls_1(_part(block, "ln_attn", output))
    return attended


def _part(owner: Any, name: str, values: torch.Tensor) -> torch.Tensor:
    layer = getattr(owner, name, None)
    changed: torch.Tensor = values if layer is None else layer(values)
    return changed
