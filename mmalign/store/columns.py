"""Metadata values as typed columns: which Arrow type a value takes, and how it is fitted to a column."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mmalign.errors import MetadataError

# What the store keeps of every item itself; metadata under one of these names is kept with an underscore added.
RESERVED = frozenset(
    {"id", "uri", "sha256", "kind", "width", "height", "bytes", "mtime_ns", "said", "captions", "embedding"}
)

_LIST_TYPES = {
    pa.string(): pa.list_(pa.string()),
    pa.int64(): pa.list_(pa.int64()),
    pa.float64(): pa.list_(pa.float64()),
}


def plain(value: Any) -> Any:
    """Return `value` as plain Python: NumPy scalars and arrays converted, NaN as None.

    Args:
        value: Any JSON-like value, NumPy scalar or array.

    Returns:
        The value that is kept.
    """
    if isinstance(value, np.generic):
        value = value.item()
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, float) and value != value:
        return None
    return value


def column_name(name: str) -> str:
    """Return the column that metadata called `name` is kept in.

    Args:
        name: The caller's name.

    Returns:
        The same name, or with an underscore added where it is taken by what the store keeps itself.

    Raises:
        MetadataError: Not usable as a column name.
    """
    if not isinstance(name, str) or not name or name.startswith("_") or "." in name or not name.isprintable():
        raise MetadataError(
            f"metadata name {name!r} cannot be a column: use printable text without '.' that does not start with '_'"
        )
    return f"{name}_" if name in RESERVED else name


def infer_type(values: Iterable[Any]) -> pa.DataType | None:
    """Return the narrowest column type that holds every value.

    Args:
        values: Plain values; None fits everywhere.

    Returns:
        An Arrow type, or None where every value is None or an empty list.
    """
    found: pa.DataType | None = None
    for value in values:
        kind = _type_of(value)
        if kind is None or kind == found:
            continue
        if found is None:
            found = kind
        elif {found, kind} == {pa.int64(), pa.float64()}:
            found = pa.float64()
        else:
            return pa.string()
    return found


def _type_of(value: Any) -> pa.DataType | None:
    if value is None or value == []:
        return None
    if isinstance(value, bool):
        return pa.bool_()
    if isinstance(value, int):
        return pa.int64() if -(2**63) <= value < 2**63 else pa.string()
    if isinstance(value, float):
        return pa.float64()
    if isinstance(value, datetime.datetime):
        return pa.timestamp("us", tz="UTC" if value.tzinfo else None)
    if isinstance(value, datetime.date):
        return pa.date32()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return _LIST_TYPES.get(infer_type(value), pa.string())
    return pa.string()


def to_array(name: str, values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Fit values to a column.

    Args:
        name: The column, for the error's text.
        values: Plain values.
        kind: The column's type.

    Returns:
        An Arrow array of that type.

    Raises:
        MetadataError: A value does not fit.
    """
    if pa.types.is_string(kind):
        return pa.array([_to_text(value) for value in values], kind)
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        values = [[value] if isinstance(value, str) else value for value in values]
    try:
        return pa.array(values, kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError) as error:
        for value in values:
            try:
                pa.array([value], kind)
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, TypeError):
                raise MetadataError(
                    f"column {name!r} holds {kind}, got {value!r}; "
                    "give the value that type, or the metadata another name"
                ) from error
        raise


def _to_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime.date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False, default=str)


def infer_columns(rows: Iterable[Mapping[str, Any]]) -> dict[str, pa.DataType]:
    """Return the columns that metadata rows need.

    Args:
        rows: Metadata by column name, plain values.

    Returns:
        Column name to Arrow type; names whose values are all None are left out.
    """
    values: dict[str, list[Any]] = {}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    types = {name: infer_type(column) for name, column in values.items()}
    return {name: kind for name, kind in types.items() if kind is not None}
