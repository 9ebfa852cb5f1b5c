"""Measuring a model in training on the dev pictures."""

from __future__ import annotations

import numpy as np
import torch

from mmalign.metrics import any_hit_at_k, retrieval_ranks
from mmalign.training.cache import Arrays, Table, row_blocks
from mmalign.training.contrastive.model import TrainableEncoder
from mmalign.utils import Float32Array, Int64Array

CUTOFFS = (1, 5, 10)
_ROWS = 256


def to_tensors(arrays: Arrays, device: torch.device) -> dict[str, torch.Tensor]:
    """Copy arrays to a device; half precision becomes float32 there, so that less has to travel."""
    tensors = {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}
    return {name: tensor.float() if tensor.dtype is torch.float16 else tensor for name, tensor in tensors.items()}


def embed_table(model: TrainableEncoder, table: Table, *, side: str, device: torch.device) -> Float32Array:
    """Embed all rows of a table of frozen arrays.

    Args:
        model: The model; its mode is given back as it was.
        table: n rows.
        side: `image` or `text`.
        device: Where the model is.

    Returns:
        Array of shape (n, dim), float32, rows of length 1.
    """
    embed = model.embed_images if side == "image" else model.embed_texts
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            found = [
                embed(to_tensors(table.take(rows), device)).float().cpu().numpy()
                for rows in row_blocks(len(table), _ROWS)
            ]
    finally:
        model.train(training)
    return np.concatenate(found) if found else np.zeros((0, model.dim), np.float32)


def dev_figures(
    model: TrainableEncoder, images: Table, texts: Table, owner: Int64Array, *, device: torch.device
) -> dict[str, float]:
    """Measure any-hit at 1, 5 and 10 in both directions.

    Args:
        model: The model.
        images: The plain views' frozen arrays.
        texts: The captions' frozen arrays.
        owner: The picture of each caption.
        device: Where the model is.

    Returns:
        Percent by name, such as `t2i@1`, and their `sum`, by which the best epoch is chosen.
    """
    text_ranks, image_ranks = retrieval_ranks(
        embed_table(model, texts, side="text", device=device),
        embed_table(model, images, side="image", device=device),
        owner,
    )
    exact = {
        f"{name}@{k}": 100 * any_hit_at_k(ranks, k)
        for name, ranks in (("t2i", text_ranks), ("i2t", image_ranks[image_ranks > 0]))
        for k in CUTOFFS
    }
    return {name: round(value, 2) for name, value in exact.items()} | {"sum": round(sum(exact.values()), 4)}
