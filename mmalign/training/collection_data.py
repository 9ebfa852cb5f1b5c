"""What a collection brings to a training: the embeddings of its pictures, and their captions."""

from __future__ import annotations

import re
from collections.abc import Collection as Names
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmalign.collection import Generation
from mmalign.encoders import Encoder, load_encoder
from mmalign.errors import EncoderMismatchError
from mmalign.utils import Float32Array, l2_normalize

_WORD = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class CollectedPictures:
    """The pictures of a collection.

    Attributes:
        captions: Of each of n pictures, none of them blank; none for one that has none.
        vectors: Their embeddings, shape (n, dim), float32, rows of length 1.
        left_out: How many others were left out because they were excluded.
    """

    captions: tuple[tuple[str, ...], ...]
    vectors: Float32Array
    left_out: int


def read_collection(path: Path, encoder: Encoder, *, exclude: Names[str] = ()) -> CollectedPictures:
    """Read the embeddings and captions of a collection; nothing is decoded, embedded or written.

    Args:
        path: The collection's folder.
        encoder: The encoder whose embeddings are wanted.
        exclude: Addresses (`uri`) of pictures that must not come, such as those that are measured on.

    Returns:
        Its pictures, in the order in which they are stored.

    Raises:
        CollectionNotFoundError: There is no collection.
        EncoderMismatchError: It was embedded by another encoder.
    """
    generation = Generation.open(path, encoder, load=load_encoder)
    made = generation.description
    if made.fingerprint != encoder.fingerprint:
        remedy = f"pass --encoder {made.encoder}" if made.encoder else "name a collection that the encoder made"
        raise EncoderMismatchError(
            f"{path} was embedded by {made.encoder or 'vectors from elsewhere'} ({(made.fingerprint or 'none')[:8]}), "
            f"this training is for {encoder.name} ({encoder.fingerprint[:8]}); {remedy}"
        )
    store = generation.latest()
    row_ids, table = store.scan(["uri", "captions"])
    uris, listed = (column.to_pylist() for column in table.columns)
    kept = [row for row, uri in enumerate(uris) if uri not in exclude]
    vectors = np.zeros((0, made.dim), np.float32)
    if kept:
        _, found = store.embeddings(row_ids[kept])
        vectors = l2_normalize(found)
    captions = tuple(tuple(text for text in listed[row] or () if _WORD.search(text)) for row in kept)
    return CollectedPictures(captions, vectors, len(uris) - len(kept))
