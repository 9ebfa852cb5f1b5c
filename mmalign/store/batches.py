"""What Lance gives, as arrays of NumPy and batches of Arrow."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmalign.store.verifying import damaged
from mmalign.utils import Int64Array

Float16Array = NDArray[np.float16]


def row_ids_of(table: pa.Table) -> Int64Array:
    """The row ids of rows that were read with them, int64 of shape (n,)."""
    ids: Int64Array = table.column("_rowid").to_numpy().astype(np.int64)
    return ids


def matrix_of(column: pa.ChunkedArray, dim: int) -> Float16Array:
    """Embeddings as float16 of shape (n, dim), without those that are null."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = chunks[0] if len(chunks) == 1 else np.concatenate([np.zeros(0, np.float16), *chunks])
    return flat.reshape(-1, dim)


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table of at least one row as one batch."""
    (batch,) = table.combine_chunks().to_batches()
    return batch


def check_count(found: int, expected: int) -> None:
    """Refuse that there are more or fewer rows than there should be."""
    if found != expected:
        raise damaged(abs(expected - found), [], what="row")
