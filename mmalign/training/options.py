"""From a TOML table to a frozen dataclass, with an error that names each unknown key and wrong type."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from mmalign.encoders import near_matches
from mmalign.errors import InputError

T = TypeVar("T")

_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def parse_options(kind: type[T], table: Mapping[str, Any], *, where: str) -> T:
    """Make a dataclass of a table; fields may be numbers, texts, flags, tuples, tables, dataclasses, or None.

    Args:
        kind: A dataclass; its defaults stand for keys that are left out.
        table: The table, as `tomllib` gives it.
        where: Names the table in errors, such as `loss`.

    Returns:
        The dataclass.

    Raises:
        InputError: Unknown keys (with near matches), values of another type, keys that lack, or what the dataclass
            itself refuses; all unknown keys and wrong types are listed at once.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Size:
        ...     width: int = 3
        >>> parse_options(Size, {"width": 5}, where="size")
        Size(width=5)
    """
    problems: list[str] = []
    result = _dataclass(kind, table, where, problems)
    if problems:
        raise InputError("; ".join(problems))
    return typing.cast(T, result)


def _dataclass(kind: Any, table: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(table, Mapping):
        problems.append(f"[{where}] must be a table, got {table!r}")
        return None
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    before = len(problems)
    values: dict[str, Any] = {}
    for key, value in table.items():
        name = f"{where}.{key}" if where else key
        if key not in fields:
            near = near_matches(key, list(fields), most=3, cutoff=0.6)
            meant = f"did you mean {' or '.join(near)}?" if near else f"the keys are {', '.join(fields)}"
            problems.append(f"{name} is not a known key; {meant}")
        else:
            values[key] = _value(hints[key], value, name, problems)
    for name, field in fields.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in table:
            problems.append(f"{where}.{name} is missing" if where else f"{name} is missing")
    if len(problems) > before:
        return None
    try:
        return kind(**values)
    except InputError as error:
        problems.append(f"{where}.{error}" if where else str(error))
        return None


def _value(hint: Any, value: Any, name: str, problems: list[str]) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # `X | None`: TOML has no null, so that a value that is there is an X.
        return _value(next(a for a in arguments if a is not type(None)), value, name, problems)
    if origin is typing.Literal:
        if value not in arguments:
            near = near_matches(str(value), [str(a) for a in arguments], most=1)
            problems.append(
                f"{name} must be one of {', '.join(map(str, arguments))}, got {value!r}"
                + (f"; did you mean {near[0]}?" if near else "")
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            problems.append(f"{name} must be a list, got {value!r}")
            return ()
        return tuple(_value(arguments[0], entry, f"{name}[{i}]", problems) for i, entry in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return _dataclass(hint, value, name, problems)
    if hint is Any:
        return value
    if origin is not None:
        if not isinstance(value, Mapping):
            problems.append(f"{name} must be a table, got {value!r}")
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    # A flag is an int to Python, never to the reader of a configuration.
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        problems.append(f"{name} must be {_NAMES.get(hint, hint.__name__)}, got {value!r}")
    return value
