"""Checksums within the rows: what a damaged disk, cable or memory has changed is noticed when it is read.

A row has two. `_embedding_checksum` is that of its embedding alone, so that searches which read nothing but embeddings
can check them. `_checksum` is that of all other columns, the first checksum among them; columns that are null in a row
do not count, so that a column can be added without touching the rows. Rows that were written before there were
checksums have null, and are not checked.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

EMBEDDING = "embedding"
EMBEDDING_CHECKSUM, CHECKSUM = "_embedding_checksum", "_checksum"
CHECKSUM_FIELDS = (pa.field(EMBEDDING_CHECKSUM, pa.uint32()), pa.field(CHECKSUM, pa.uint32()))

CHECKSUM_BATCH = 32_768
"""Rows that are read at once to be compared with their checksums, or to get some."""

UInt32Array = NDArray[np.uint32]

_BLOCK_BYTES = 1 << 27
# For so few rows Arrow's functions take longer to be called than Python takes to do the same.
_FEW = 64
_SEPARATOR, _INNER = "\x1e", "\x1f"
_NULL_WITHIN = "\0"
# Embeddings that are widened to 64 bits at once, so that they stay in the processor's cache.
_EMBEDDINGS = 512
# The finaliser of MurmurHash3 (Austin Appleby, public domain): each bit of 64 changes about half of the others.
_MIXES = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))
_HALF, _HIGH = np.uint64(33), np.uint64(32)


def embedding_checksums(embeddings: NDArray[np.float16]) -> UInt32Array:
    """Checksums of embeddings: the upper half of a sum of their 32-bit words, each times a 64-bit number of its own.

    That is multilinear hashing (D. Lemire and O. Kaser, "Strongly universal string hashing is fast", The Computer
    Journal 57, 2014): of changes, whichever they are, one in four thousand million is not noticed.

    Args:
        embeddings: float16 of shape (n, dim).

    Returns:
        uint32 of shape (n,).
    """
    rows, dim = embeddings.shape
    if dim % 2:
        embeddings = np.concatenate([embeddings, np.zeros((rows, 1), np.float16)], axis=1)
    words = np.ascontiguousarray(embeddings).view(np.uint32)
    factors = _mix(np.arange(2, words.shape[1] + 2, dtype=np.uint64))
    sums = np.full(rows, _mix(np.ones(1, np.uint64))[0])
    for start in range(0, rows, _EMBEDDINGS):
        sums[start : start + _EMBEDDINGS] += words[start : start + _EMBEDDINGS].astype(np.uint64) @ factors
    return (sums >> _HIGH).astype(np.uint32)


def row_checksums(rows: pa.Table) -> UInt32Array:
    """Checksums of rows without their embeddings: CRC-32 of the values that are not null, in the order of their names.

    Args:
        rows: All columns of n rows; those called `embedding` and `_checksum` do not count.

    Returns:
        uint32 of shape (n,).
    """
    names = sorted(name for name in rows.column_names if name not in (EMBEDDING, CHECKSUM))
    rows = rows.select(names)
    if rows.num_rows <= _FEW:
        return _few_checksums(rows)
    # The texts of a block have offsets of 32 bits.
    step = max(1, rows.num_rows * _BLOCK_BYTES // max(rows.nbytes, 1))
    blocks = [_block_checksums(rows.slice(start, step)) for start in range(0, rows.num_rows, step)]
    return np.concatenate([np.zeros(0, np.uint32), *blocks])


def _block_checksums(rows: pa.Table) -> UInt32Array:
    parts = [_texts(pa.concat_arrays(column.chunks)) for column in rows.columns]
    joined = pc.binary_join_element_wise(*parts, pa.scalar(_SEPARATOR), null_handling="skip")
    _, offsets, data = joined.buffers()
    ends = np.frombuffer(offsets, np.int32)[joined.offset : joined.offset + len(joined) + 1].tolist()
    view = memoryview(data) if data is not None else memoryview(b"")
    crc32 = zlib.crc32
    return np.fromiter((crc32(view[start:end]) for start, end in pairwise(ends)), np.uint32, len(joined))


def _few_checksums(rows: pa.Table) -> UInt32Array:
    """What `_block_checksums` does, without Arrow."""
    columns = [_few_texts(column.combine_chunks()) for column in rows.columns]
    texts = (_SEPARATOR.join([text for text in row if text is not None]) for row in zip(*columns, strict=True))
    return np.fromiter((zlib.crc32(text.encode()) for text in texts), np.uint32, rows.num_rows)


def differs(stored: pa.ChunkedArray | pa.Array, computed: UInt32Array) -> NDArray[np.bool_]:
    """Which rows are not what their checksum was made of.

    Args:
        stored: Checksums as they were read; null where a row has none.
        computed: Those of the same rows as they are now; fewer where some are not to be read, and then all count.

    Returns:
        bool of shape (n,).
    """
    there = np.asarray(pc.is_valid(stored))
    if len(there) != len(computed):
        return there
    known = np.asarray(pc.fill_null(stored, 0)).astype(np.uint32)
    wrong: NDArray[np.bool_] = there & (known != computed)
    return wrong


def with_checksums(rows: pa.Table, embeddings: NDArray[np.float16] | None = None) -> pa.Table:
    """Give rows the checksums of what they hold.

    Args:
        rows: All columns but the embedding.
        embeddings: float16 of shape (n, dim); None where the rows have the checksum of theirs already.

    Returns:
        The rows with the columns `_embedding_checksum` and `_checksum`, in which others of that name are replaced.
    """
    if embeddings is not None:
        rows = _put(rows, 0, embedding_checksums(embeddings))
    return _put(rows, 1, row_checksums(rows))


def covered(names: Sequence[str]) -> list[str]:
    """The columns that must be read to check rows, or none where the dataset has no checksums.

    Args:
        names: All columns of the dataset.
    """
    return [name for name in names if name != EMBEDDING] if CHECKSUM in names else []


def _put(rows: pa.Table, which: int, values: UInt32Array) -> pa.Table:
    field, column = CHECKSUM_FIELDS[which], pa.array(values)
    place = rows.schema.get_field_index(field.name)
    return rows.append_column(field, column) if place < 0 else rows.set_column(place, field, column)


def _mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    for factor in _MIXES:
        words = (words ^ (words >> _HALF)) * factor
    return words ^ (words >> _HALF)


def _texts(column: pa.Array) -> pa.Array:
    """A column as texts that differ where its values do; null where they are."""
    column = _plain(column)
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.cast(pa.string())
    if not _is_plain_list(kind) or column.flatten().null_count:
        return pa.array(_few_texts(column), pa.string())
    joined = pc.binary_join(column if kind == pa.list_(pa.string()) else column.cast(pa.list_(pa.string())), _INNER)
    # An empty list is no list of one empty text.
    return pc.binary_join_element_wise(pc.list_value_length(column).cast(pa.string()), joined, _INNER)


def _few_texts(column: pa.Array) -> list[str | None]:
    """What `_texts` does, without Arrow."""
    column = _plain(column)
    values = readable_values(column)
    if pa.types.is_string(column.type):
        return values
    if pa.types.is_integer(column.type):
        return [None if value is None else str(value) for value in values]
    if pa.types.is_boolean(column.type):
        return [None if value is None else "true" if value else "false" for value in values]
    if _is_plain_list(column.type):
        return [None if value is None else f"{len(value)}{_INNER}{_INNER.join(map(_inner, value))}" for value in values]
    return [None if value is None else repr(value) for value in values]


def readable_values(column: pa.Array) -> list[Any]:
    """The values of a column, also where damage has made one of them no text.

    Args:
        column: n values.

    Returns:
        n plain values.
    """
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        # Only damage does that.
        return [_value(scalar) for scalar in column]


def _value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        return "\0 is no text"


def _plain(column: pa.Array) -> pa.Array:
    """Numbers and times as the integers of the same bits: no rounding, and no two zeros that are one."""
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_temporal(kind):
        return column.view({16: pa.int16(), 32: pa.int32(), 64: pa.int64()}[kind.bit_width])
    return column


def _inner(value: str | int | None) -> str:
    return _NULL_WITHIN if value is None else str(value)


def _is_plain_list(kind: pa.DataType) -> bool:
    """Whether a type is that of lists of texts or integers."""
    if not pa.types.is_list(kind):
        return False
    return bool(pa.types.is_string(kind.value_type) or pa.types.is_integer(kind.value_type))
