"""Vectors that were computed elsewhere, as rows that a store takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmalign.errors import InputError, MetadataError
from mmalign.types import as_ids, plain_value
from mmalign.utils import Float32Array, as_matrix, l2_normalize


def vector_rows(
    ids: Iterable[str | int],
    vectors: ArrayLike,
    *,
    dim: int,
    metadata: Mapping[str, Sequence[Any]],
    uris: Sequence[str | None] | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Float32Array]:
    """Check vectors and what belongs to them, and make rows of them.

    Args:
        ids: n identifiers, text or integers.
        vectors: Array-like of shape (n, dim).
        dim: The width that is expected.
        metadata: Name to n values.
        uris: n places where the media are, or None.

    Returns:
        `(rows, metadata, vectors)`: n rows for `Store.upsert` without their metadata, the metadata of each as plain
        values, and float32 of shape (n, dim), each of length 1.

    Raises:
        DimensionError: The vectors have another width.
        InputError: Counts differ, ids repeat, or vectors hold NaN, infinity or only zeros.
        MetadataError: A value that cannot be kept.
    """
    names = as_ids(ids)
    # No vectors may come in any form, such as an empty list, which has no width.
    none = not names and not np.size(vectors)
    matrix = np.zeros((0, dim), np.float32) if none else l2_normalize(as_matrix(vectors, dim=dim))
    if not isinstance(metadata, Mapping):
        raise InputError(f"metadata must map names to lists of n values, got {type(metadata).__name__}")
    columns = {name: _values(f"metadata[{name!r}]", values) for name, values in metadata.items()}
    places = None if uris is None else _places(uris)
    counts = {"vectors": len(matrix)} | {str(name): len(values) for name, values in columns.items()}
    if places is not None:
        counts["uris"] = len(places)
    for what, count in counts.items():
        if count != len(names):
            raise InputError(f"{len(names)} ids but {count} {what}; give one for each id")
    if len(set(names)) != len(names) or "" in names:
        raise InputError("ids must be different from one another and not empty")
    zero = np.flatnonzero(~matrix.any(axis=1))
    if zero.size:
        raise InputError(f"{zero.size} vectors are all zeros, the first is that of id {names[zero[0]]!r}")
    given = [
        {column: _plain(name, column, values[i]) for column, values in columns.items()} for i, name in enumerate(names)
    ]
    rows = [
        {"id": name, "uri": None if places is None else places[i], "kind": "vector"} for i, name in enumerate(names)
    ]
    return rows, given, matrix


def plain_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return one value for each name as plain Python.

    Args:
        metadata: Name to value.

    Returns:
        The same names, with plain values.

    Raises:
        InputError: No mapping.
        MetadataError: A value that cannot be kept.
    """
    if not isinstance(metadata, Mapping):
        raise InputError(f"metadata must map names to values, got {type(metadata).__name__} {metadata!r:.60}")
    found = {}
    for name, value in metadata.items():
        try:
            found[name] = plain_value(value)
        except MetadataError as error:
            raise type(error)(f"column {name!r} {error}") from None
    return found


def _values(what: str, values: Any) -> list[Any]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InputError(
            f"{what} must be a list of n values, one for each id, got {type(values).__name__} {values!r:.60}"
        )
    try:
        return list(values)
    except TypeError as error:
        raise InputError(f"{what} must be a list of n values, one for each id, got {values!r:.60}") from error


def _places(uris: Any) -> list[str | None]:
    found: list[str | None] = []
    for at, uri in enumerate(_values("uris", uris)):
        text = fspath(uri) if isinstance(uri, PathLike) else uri
        if text is not None and not isinstance(text, str):
            raise InputError(f"uris[{at}] must be text or None, got {type(uri).__name__} {uri!r:.60}")
        try:
            found.append(None if text is None else plain_value(text))
        except MetadataError as error:
            raise InputError(f"uris[{at}] {error}") from error
    return found


def _plain(name: str, column: Any, value: Any) -> Any:
    try:
        return plain_value(value)
    except MetadataError as error:
        raise type(error)(f"id {name!r}: column {column!r} {error}") from None
