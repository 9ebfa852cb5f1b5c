"""Making an empty collection."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmalign.collection.description import CollectionManifest, make_folder
from mmalign.collection.generation_files import ITEMS
from mmalign.collection.item_schema import item_schema
from mmalign.encoders import Encoder
from mmalign.errors import InputError
from mmalign.store import Store

# Beyond that it is a slip, and no table of vectors can be made.
_MOST_DIM = 1_000_000


def make_collection(folder: Path, encoder: Encoder | None, *, dim: int | None, overwrite: bool = False) -> None:
    """Make an empty collection, whole or not at all.

    Args:
        folder: Where it will be.
        encoder: Its encoder; None for vectors from elsewhere.
        dim: Width of the vectors, where there is no encoder.
        overwrite: Replace a collection that is there.

    Raises:
        CollectionExistsError: Something is there already.
        InputError: `dim` is no width, or not the encoder's.
        StorageError: The disk refused.
    """
    description = _describe(encoder, dim)

    def fill(temporary: Path) -> None:
        Store.create(temporary / ITEMS, dim=description.dim, schema=item_schema)
        description.write(temporary)

    make_folder(folder, fill, overwrite=overwrite)


def _describe(encoder: Encoder | None, dim: int | None) -> CollectionManifest:
    if encoder is not None:
        if dim is not None and dim != encoder.dim:
            raise InputError(f"{encoder.name} has dim {encoder.dim}, got dim={dim}; leave dim out")
        return CollectionManifest(encoder.name, encoder.fingerprint, encoder.dim)
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or not 1 <= dim <= _MOST_DIM:
        raise InputError(f"a collection without an encoder needs dim >= 1, an integer, got {dim!r}")
    return CollectionManifest(None, None, int(dim))
