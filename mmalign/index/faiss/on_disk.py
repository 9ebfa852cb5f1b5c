"""Indexes whose vectors are never in memory together: built in shards, joined on disk, mapped for searching."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import ArrayLike

from mmalign.errors import InputError
from mmalign.index.base import Index
from mmalign.index.chunks import Chunks
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.faiss.io import read_faiss
from mmalign.index.faiss.lists import empty_lists, list_layer, need_lists
from mmalign.index.faiss.shards import ShardBuilder, shard_rows
from mmalign.index.ids import IdMap
from mmalign.utils import Float32Array


def fits_disk(index: Index) -> TypeGuard[FaissIndex]:
    """Whether an index can be built and extended on disk: it has inverted lists, and nothing beside them that grows.

    Args:
        index: Any index.
    """
    return isinstance(index, FaissIndex) and list_layer(index.bare) is not None


def build_on_disk(
    index: FaissIndex,
    folder: Path,
    chunks: Chunks,
    *,
    plan: Mapping[str, Any],
    sample: Callable[[], Float32Array],
    memory: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> FaissIndex:
    """Train an index and fill its lists in shards on disk; a call that was stopped goes on after the last whole shard.

    Args:
        index: An empty index.
        folder: Where the shards are kept; see `mmalign.index.faiss.shards`.
        chunks: Called once; yields all `(ids, vectors)`, in the same order each time.
        plan: What is built, as JSON-ready values: the work of an earlier call with the same plan counts.
        sample: Gives the training vectors; called where the index is not trained yet.
        memory: Bytes that filling and joining may take; None for about a GiB.
        advance: Called with the number of vectors after each chunk.

    Returns:
        The index, mapped from its file in the folder.

    Raises:
        RecipeError: It has something beside inverted lists, or cannot be trained on the sample.
        InputError: Duplicate or negative ids, NaN or infinity.
        StorageError: The disk refused.
    """
    size = shard_rows(need_lists(index.bare, index.factory), memory=memory)
    workshop = ShardBuilder(folder, {**plan, "factory": index.factory, "dim": index.dim, "shard": size})
    trained = workshop.trained()
    if trained is None:
        if not index.is_trained:
            index.train(sample())
        trained = index.bare
        workshop.keep_trained(trained)
    path, ids = workshop.fill(trained, chunks(), rows=size, advance=advance)
    known = IdMap()
    known.extend(known.check_new(ids, len(ids)))
    return index.from_mapped(path, known)


def extend_on_disk(
    index: FaissIndex,
    folder: Path,
    chunks: Chunks,
    *,
    plan: Mapping[str, Any],
    removed: ArrayLike,
    advance: Callable[[int], None] | None = None,
) -> FaissIndex:
    """Join the lists of an index that is mapped from a file with those of more vectors, into a new file.

    Args:
        index: The index; it stays as it is.
        folder: Where the work is kept.
        chunks: Yields the `(ids, vectors)` to add, in the same order each time; ids of `removed` may come again.
        plan: What is added to what, as JSON-ready values.
        removed: Ids that are not to be found any more.
        advance: Called with the number of vectors after each chunk.

    Returns:
        The new index, mapped from its file in the folder.

    Raises:
        InputError: Duplicate or negative ids, NaN or infinity; or the index is not mapped from a file.
        StorageError: The disk refused.
    """
    if index.file is None:
        raise InputError("only an index that was loaded with mmap=True can be extended on disk")
    trained = read_faiss(index.file, mmap=True)
    size = shard_rows(need_lists(trained, index.factory), memory=None)
    empty_lists(trained)
    workshop = ShardBuilder(folder, {**plan, "factory": index.factory, "dim": index.dim, "shard": size})
    known = IdMap(np.asarray(index.ids), np.flatnonzero(~index.live))
    path, ids = workshop.fill(trained, chunks(), rows=size, before=(index.file, len(known)), advance=advance)
    known.remove(removed)
    known.extend(known.check_new(ids, len(ids)))
    return index.from_mapped(path, known)
