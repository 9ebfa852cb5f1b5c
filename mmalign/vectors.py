"""Vectors that were computed elsewhere, as rows that a store takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmalign.errors import InputError
from mmalign.similarity import Float32Array, as_matrix, l2_normalize
from mmalign.store.columns import column_name, plain


def vector_rows(
    ids: Sequence[str],
    vectors: ArrayLike,
    *,
    dim: int,
    metadata: Mapping[str, Sequence[Any]],
    uris: Sequence[str] | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Float32Array]:
    """Check vectors and what belongs to them, and make rows of them.

    Args:
        ids: n identifiers.
        vectors: Array-like of shape (n, dim).
        dim: The width that is expected.
        metadata: Column name to n values.
        uris: n places where the media are, or None.

    Returns:
        `(rows, metadata, vectors)`: n rows for `Store.upsert`, the metadata in each of them alone, and float32 of
        shape (n, dim), each of length 1.

    Raises:
        DimensionError: The vectors have another width.
        InputError: Counts differ, ids repeat, or vectors hold NaN, infinity or only zeros.
        MetadataError: A name that cannot be a column.
    """
    if isinstance(ids, str) or any(value is None for value in ids):
        raise InputError("ids must be a sequence of n identifiers, none of them None; a text alone is none")
    names = [str(value) for value in ids]
    try:
        "".join(names).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"ids must be text that UTF-8 can hold: {error}") from error
    # No vectors may come in any form, such as an empty list, which has no width.
    none = not names and not np.size(vectors)
    matrix = np.zeros((0, dim), np.float32) if none else l2_normalize(as_matrix(vectors, dim=dim))
    columns = {column_name(name): list(values) for name, values in metadata.items()}
    counts = {"vectors": len(matrix)} | {name: len(values) for name, values in columns.items()}
    if uris is not None:
        counts["uris"] = len(uris)
    for what, count in counts.items():
        if count != len(names):
            raise InputError(f"{len(names)} ids but {count} {what}; give one for each id")
    if len(set(names)) != len(names) or "" in names:
        raise InputError("ids must be different from one another and not empty")
    zero = np.flatnonzero(~matrix.any(axis=1))
    if zero.size:
        raise InputError(f"{zero.size} vectors are all zeros, the first is that of id {names[zero[0]]!r}")
    given = [{column: plain(values[i]) for column, values in columns.items()} for i in range(len(names))]
    rows = [
        {"id": name, "uri": None if uris is None else uris[i], "kind": "vector", **given[i]}
        for i, name in enumerate(names)
    ]
    return rows, given, matrix
