"""Vectors that were computed elsewhere: checked, made rows of, and added."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmalign.errors import InputError, MetadataError
from mmalign.store import Removed, Store
from mmalign.types import AddReport, as_ids, plain_value
from mmalign.utils import Float32Array, as_matrix, l2_normalize

# Rows of one commit.
_COMMIT = 65_536
# The largest value of float16, and the largest that it rounds to zero.
_LARGEST, _VANISHING = 65_504.0, 2.0**-25


def vector_rows(
    ids: Iterable[str | int],
    vectors: ArrayLike,
    *,
    dim: int,
    metadata: Mapping[str, Sequence[Any]],
    uris: Sequence[str | None] | None,
    captions: Sequence[Any] | None = None,
    unit_length: bool = True,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], Float32Array]:
    """Check vectors and what belongs to them, and make rows of them.

    Args:
        ids: n identifiers, text or integers.
        vectors: Array-like of shape (n, dim).
        dim: The width that is expected.
        metadata: Name to n values.
        uris: n places where the media are, or None.
        captions: n lists of sentences, single sentences or Nones, or None.
        unit_length: Whether the vectors are scaled to length 1; else they are kept as they are.

    Returns:
        `(rows, metadata, vectors)`: n rows for `Store.upsert` without their metadata, the metadata of each as plain
        values, and float32 of shape (n, dim), each of length 1 where they are scaled.

    Raises:
        DimensionError: The vectors have another width.
        InputError: Counts differ, ids repeat, or vectors hold NaN, infinity or only zeros; or, where they are not
            scaled, values that float16 cannot hold.
        MetadataError: A value that cannot be kept.
    """
    names = as_ids(ids)
    # No vectors may come in any form, such as an empty list, which has no width.
    none = not names and not np.size(vectors)
    matrix = np.zeros((0, dim), np.float32) if none else as_matrix(vectors, dim=dim)
    if unit_length:
        matrix = l2_normalize(matrix)
    if not isinstance(metadata, Mapping):
        raise InputError(f"metadata must map names to lists of n values, got {type(metadata).__name__}")
    columns = {name: _values(f"metadata[{name!r}]", values) for name, values in metadata.items()}
    places = None if uris is None else _places(uris)
    counts = {"vectors": len(matrix)} | {str(name): len(values) for name, values in columns.items()}
    if places is not None:
        counts["uris"] = len(places)
    texts = None if captions is None else _values("captions", captions)
    if texts is not None:
        counts["captions"] = len(texts)
    for what, count in counts.items():
        if count != len(names):
            raise InputError(f"{len(names)} ids but {count} {what}; give one for each id")
    if len(set(names)) != len(names) or "" in names:
        raise InputError("ids must be different from one another and not empty")
    zero = np.flatnonzero(~matrix.any(axis=1))
    if zero.size:
        raise InputError(f"{zero.size} vectors are all zeros, the first is that of id {names[zero[0]]!r}")
    if not unit_length:
        _check_halves(names, matrix)
    given = [
        {column: _plain(name, column, values[i]) for column, values in columns.items()} for i, name in enumerate(names)
    ]
    rows = [
        {
            "id": name,
            "uri": None if places is None else places[i],
            "kind": "vector",
            "captions": None if texts is None else _captions(name, texts[i]),
        }
        for i, name in enumerate(names)
    ]
    return rows, given, matrix


def _check_halves(names: Sequence[str], vectors: Float32Array) -> None:
    """Refuse vectors that float16, as which embeddings are kept, cannot hold."""
    large = np.flatnonzero((np.abs(vectors) > _LARGEST).any(axis=1))
    small = np.flatnonzero((np.abs(vectors) <= _VANISHING).all(axis=1))
    for wrong, what, remedy in (
        (large, "hold values above 65,504", "divide"),
        (small, "hold nothing above 3e-8", "multiply"),
    ):
        if wrong.size:
            raise InputError(
                f"{wrong.size} of {len(vectors)} vectors {what}, and embeddings are kept as float16, which cannot hold "
                f"that; the first is that of id {names[wrong[0]]!r}. {remedy.capitalize()} all vectors of the "
                "collection by one number, which leaves the order of all hits as it is"
            )


def add_vectors(
    path: Path, store: Store, rows: Sequence[dict[str, Any]], given: Sequence[dict[str, Any]], vectors: Float32Array
) -> AddReport:
    """Add vectors to a collection; an id that is there already is replaced.

    Args:
        path: The collection.
        store: Its items, for writing.
        rows: As `vector_rows` made them.
        given: Likewise, their metadata.
        vectors: Likewise.

    Returns:
        What was done.

    Raises:
        MetadataError: A value that its column cannot hold exactly; nothing was changed.
        StorageError: The disk refused; what was committed before is kept.
    """
    started = time.monotonic()
    settled = store.settle(given, strict=lambda row: f"id {rows[row]['id']!r}")
    whole = [row | values for row, values in zip(rows, settled.rows, strict=True)]
    # Who hands in a vector means it: what was removed of the same place is removed no longer.
    Removed.read(path).forget([(row["uri"], None) for row in rows])
    added = 0
    for start in range(0, len(whole), _COMMIT):
        added += store.upsert(whole[start : start + _COMMIT], vectors[start : start + _COMMIT])
    store.compact()
    return AddReport(
        added=added,
        updated=len(rows) - added,
        seconds=time.monotonic() - started,
        renamed=settled.renamed,
    )


def caption_texts(value: Any) -> list[str] | None:
    """Return captions as an item keeps them.

    Args:
        value: A sentence, a list or tuple of sentences, or None.

    Returns:
        The sentences without space at their ends, blank ones left out; None where that leaves none.

    Raises:
        MetadataError: Anything else.
    """
    if hasattr(value, "tolist"):
        # An array of texts, as a frame of pandas holds.
        value = value.tolist()
    entries = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(entries, list | tuple) or not all(isinstance(entry, str) for entry in entries):
        raise MetadataError(f"captions must be a sentence or a list of sentences, got {value!r:.80}")
    try:
        return [text for entry in entries if (text := plain_value(entry).strip())] or None
    except MetadataError as error:
        raise MetadataError(f"a caption {error}") from error


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


def _captions(name: str, value: Any) -> list[str] | None:
    try:
        return caption_texts(value)
    except MetadataError as error:
        raise MetadataError(f"id {name!r}: {error}") from None


def _plain(name: str, column: Any, value: Any) -> Any:
    try:
        return plain_value(value)
    except MetadataError as error:
        raise type(error)(f"id {name!r}: column {column!r} {error}") from None
