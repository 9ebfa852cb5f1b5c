"""Values as JSON knows them: what every `to_dict` returns, and all that `--json` prints."""

from __future__ import annotations

import base64
import datetime
import enum
import math
import os
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import wraps
from typing import Any, TypeVar

from mmalign.errors import InputError

_Of = TypeVar("_Of")


def json_ready(value: Any) -> Any:
    """Return a value as what `json.dumps(..., allow_nan=False)` takes, nested as it was.

    - Text, booleans, integers and None stay; a `Note` stays the text that it is.
    - NaN and the infinities, which JSON has no word for, become None.
    - Dates, times and datetimes become ISO 8601; a timedelta becomes its seconds.
    - A Decimal becomes its digits as text, so that none is lost; bytes become base64.
    - Paths become text, sets, tuples and arrays lists, enumerations their value, NumPy scalars Python's.
    - What has a `to_dict` becomes that; anything else its text.

    Args:
        value: Any value.

    Returns:
        The same as dicts with text keys, lists, text, numbers, booleans and None.

    Raises:
        InputError: It is nested without end.

    Example:
        >>> json_ready({"day": datetime.date(2020, 1, 2), "share": float("nan"), 3: (1, b"ab")})
        {'day': '2020-01-02', 'share': None, '3': [1, 'YWI=']}
    """
    try:
        return _ready(value)
    except RecursionError as error:
        raise InputError("a value that holds itself, or is nested without end, cannot be JSON") from error


def _ready(value: Any) -> Any:
    # By exact type first: nearly all values are one of these, and a result may hold ten thousand.
    kind = type(value)
    if value is None or kind is str or kind is int or kind is bool:
        return value
    if isinstance(value, enum.Enum):
        return _ready(value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {_key(key): _ready(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_ready(each) for each in value]
    return _other(value)


def json_ready_dict(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return named values as `json_ready` does.

    Args:
        values: Any values by name.

    Returns:
        The same names, with JSON's own values.
    """
    return {name: json_ready(value) for name, value in values.items()}


def gives_json(method: Callable[[_Of], Mapping[str, Any]]) -> Callable[[_Of], dict[str, Any]]:
    """Make what a method such as `to_dict` returns JSON-ready.

    Args:
        method: Takes nothing but its object, and returns values by name.

    Returns:
        The method, giving the same names with JSON's own values.
    """

    @wraps(method)
    def ready(self: _Of) -> dict[str, Any]:
        return json_ready_dict(method(self))

    return ready


def _key(key: Any) -> str:
    ready = _ready(key)
    return ready if isinstance(ready, str) else str(ready)


def _other(value: Any) -> Any:
    # A datetime is a date, too.
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else None
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if callable(getattr(value, "to_dict", None)) and not isinstance(value, type):
        return _ready(value.to_dict())
    kind = getattr(value, "dtype", None)
    if kind is not None and callable(getattr(value, "tolist", None)):
        # NumPy counts the nanoseconds of a time where Python has no type for it; its text says them.
        if str(kind).startswith(("datetime64", "timedelta64")):
            value = value.astype(str)
        found = value.tolist()
        return str(value) if found is value else _ready(found)
    if isinstance(value, Iterable):
        return [_ready(each) for each in value]
    return str(value)
