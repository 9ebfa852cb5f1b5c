"""What the learned head reads of a picture: its cells, and how near each comes to a phrase."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mmalign.encoders import FEATURES, has_bfloat16, preprocess
from mmalign.utils import Float32Array

if TYPE_CHECKING:
    from PIL.Image import Image

    from mmalign.encoders import TwoTowerEncoder

SIDE = 576
"""Side in pixels of what the head sees of a picture: 18 x 18 cells."""


def grounding_cells(encoder: TwoTowerEncoder, image: Image, *, bfloat16: bool = False) -> Float32Array:
    """Run the picture model and give what its maps hold, cell by cell.

    Args:
        encoder: A `lite` encoder.
        image: A picture of mode RGB.
        bfloat16: Whether to compute with fewer digits, at about half the work, on a device with instructions for that;
            for training.

    Returns:
        Array of shape (18, 18, 2120 + dim), float32: the features of `EfficientNetLite2.cell_features`, and their
        projection into the shared space, not normalised.
    """
    import torch

    model = encoder.picture_model()
    batch = model.to_input([preprocess(image, size=SIDE)])
    fewer = bfloat16 and has_bfloat16(model.device)
    with torch.inference_mode(), torch.autocast(model.device.type, torch.bfloat16, enabled=fewer):
        features = model.cell_features(batch)[0].float().cpu().numpy()
    height, width, _ = features.shape
    shared = encoder.image_adapter.project(features.reshape(-1, FEATURES)).reshape(height, width, -1)
    return np.concatenate([features, shared], axis=2)


def spot_maps(text: Float32Array, shared: Float32Array) -> Float32Array:
    """How each cell departs from the picture's mean towards each phrase, in the shared space.

    Args:
        text: Embeddings of p phrases, of length 1, shape (p, dim).
        shared: Projections of the cells, shape (h, w, dim).

    Returns:
        Array of shape (p, h, w), float32, in units of the mean's length.
    """
    mean = shared.mean(axis=(0, 1))
    departures = (shared - mean) / max(float(np.linalg.norm(mean)), 1e-6)
    result: Float32Array = np.einsum("pd,hwd->phw", text, departures, optimize=True).astype(np.float32)
    return result
