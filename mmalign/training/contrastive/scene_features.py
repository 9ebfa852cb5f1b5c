"""Features that tell whether two pictures show one scene, whichever model is being trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmalign.encoders import (
    EFFICIENTNET_WEIGHTS,
    MAP_CHANNELS,
    PREPROCESSING,
    EfficientNetLite2,
    compute_alone,
    default_workers,
    load_rgb,
    locate,
    prefetch_batches,
    preprocess,
)
from mmalign.training.cache import Arrays, cached_arrays
from mmalign.training.manifest import CaptionedFile
from mmalign.training.progress import counter
from mmalign.training.usable_pictures import picture_key
from mmalign.utils import Float32Array, ShowProgress

_BATCH = 32


def scene_features(
    pictures: Sequence[CaptionedFile], *, cache: Path, role: str, progress: ShowProgress | None = None
) -> Float32Array:
    """Mean channels of the last feature map of the frozen EfficientNet-Lite2, for `near_duplicates`.

    The earlier stages are left out: their colours and textures make any two lawns or ski slopes alike.

    Args:
        pictures: n pictures that can be decoded.
        cache: Where the features are kept.
        role: Names the pictures in the files and the progress.
        progress: Told of every block.

    Returns:
        Array of shape (n, 1280), float32.

    Raises:
        MissingExtraError: The weights are not installed.
        DecodeError: A picture cannot be decoded.
    """
    locate(EFFICIENTNET_WEIGHTS, feature="data.near_duplicates (0 turns it off)", extra="lite1")

    def compute(start: int) -> Iterator[Arrays]:
        import torch

        model = EfficientNetLite2(torch.device("cpu"))

        def run(picture: CaptionedFile) -> Float32Array:
            compute_alone()
            with torch.inference_mode():
                features = model.features(model.to_input([preprocess(load_rgb(picture.path))]))
            row: Float32Array = features[0, :MAP_CHANNELS].numpy()
            return row

        for rows in prefetch_batches(pictures[start:], run, batch_size=_BATCH, workers=default_workers()):
            yield {"scene": np.stack(rows)}

    found = cached_arrays(
        cache / "scenes",
        role,
        [picture_key(picture) for picture in pictures],
        compute,
        version=f"{EFFICIENTNET_WEIGHTS.sha256}/{PREPROCESSING}/{MAP_CHANNELS}",
        progress=counter(progress, f"{role} scenes", len(pictures)),
    )
    return np.asarray(found["scene"])
