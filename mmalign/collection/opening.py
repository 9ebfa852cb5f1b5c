"""Making an empty collection."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmalign.collection.description import FORMAT, CollectionManifest, CollectionMetric, make_folder
from mmalign.collection.generation_files import ITEMS
from mmalign.collection.item_schema import item_schema
from mmalign.encoders import Encoder
from mmalign.errors import InputError
from mmalign.store import Store

# Beyond that it is a slip, and no table of vectors can be made.
_MOST_DIM = 1_000_000


def make_collection(
    folder: Path,
    encoder: Encoder | None,
    *,
    dim: int | None,
    metric: CollectionMetric = "cosine",
    overwrite: bool = False,
) -> None:
    """Make an empty collection, whole or not at all.

    Args:
        folder: Where it will be.
        encoder: Its encoder; None for vectors from elsewhere.
        dim: Width of the vectors, where there is no encoder.
        metric: How vectors are compared.
        overwrite: Replace a collection that is there.

    Raises:
        CollectionExistsError: Something is there already.
        InputError: `dim` is no width, or not the encoder's; or `metric` is `ip` with an encoder.
        StorageError: The disk refused.
    """
    description = _describe(encoder, dim, metric)

    def fill(temporary: Path) -> None:
        Store.create(temporary / ITEMS, dim=description.dim, schema=item_schema)
        description.write(temporary)

    make_folder(folder, fill, overwrite=overwrite)


def _describe(encoder: Encoder | None, dim: int | None, metric: CollectionMetric) -> CollectionManifest:
    if encoder is not None:
        if metric != "cosine":
            raise InputError(
                f"metric {metric!r} is for vectors of your own (encoder=None) whose lengths mean something; those of "
                f"{encoder.name} are of length 1, and their inner products cosines: leave metric out"
            )
        if dim is not None and dim != encoder.dim:
            raise InputError(
                f"{encoder.name} has dim {encoder.dim}, got dim={dim}; leave dim out, but to cut "
                "those of an st: model to fewer"
            )
        return CollectionManifest(encoder.name, encoder.fingerprint, encoder.dim)
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or not 1 <= dim <= _MOST_DIM:
        raise InputError(f"a collection without an encoder needs dim >= 1, an integer, got {dim!r}")
    if metric == "ip":
        return CollectionManifest(None, None, int(dim), metric="ip", format=FORMAT)
    return CollectionManifest(None, None, int(dim))
