"""The pictures to measure on, encoded once, and those that cannot be decoded told apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mmalign.encoders import Encoder, stream_image
from mmalign.errors import InputError
from mmalign.media import load_pictures
from mmalign.types import Skip
from mmalign.utils import Float32Array, track


@dataclass(frozen=True, slots=True)
class EncodedPictures:
    """What became of a list of pictures.

    Attributes:
        vectors: Embeddings of those that could be decoded, shape (n, dim), float32, each row of length 1.
        kept: Positions of those in the list, in ascending order.
        skipped: The others, with the reason.
    """

    vectors: Float32Array
    kept: tuple[int, ...]
    skipped: tuple[Skip, ...]


def encode_pictures(
    encoder: Encoder, uris: Sequence[str], *, batch_size: int = 32, progress: bool = True
) -> EncodedPictures:
    """Read, decode and encode pictures.

    Args:
        encoder: The encoder.
        uris: Paths or URLs of at least one picture.
        batch_size: Pictures that go through the model at once.
        progress: Whether to show a progress bar.

    Returns:
        The embeddings, and which pictures they belong to.

    Raises:
        InputError: None of the pictures can be decoded.
    """
    kept: list[int] = []
    skipped: list[Skip] = []

    def decoded() -> Iterator[Image.Image]:
        for position, result in enumerate(load_pictures(uris)):
            if isinstance(result, Skip):
                skipped.append(result)
            elif result.image is not None:
                kept.append(position)
                yield result.image

    blocks = []
    with track("Encoding", len(uris), enabled=progress) as advance:
        for block in stream_image(encoder, decoded(), batch_size=batch_size):
            blocks.append(block)
            advance(len(block))
    if not kept:
        first = f"; the first: {skipped[0].uri}: {skipped[0].reason}" if skipped else ""
        raise InputError(f"none of the {len(uris)} pictures to measure on can be decoded{first}")
    return EncodedPictures(np.concatenate(blocks), tuple(kept), tuple(skipped))
