"""From a TOML file to a frozen dataclass, with an error that names each unknown key and wrong type."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from mmalign.encoders import near_matches
from mmalign.errors import InputError, SourceError

T = TypeVar("T")

_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def read_toml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Args:
        path: The TOML file.

    Returns:
        Its tables.

    Raises:
        SourceError: It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"the configuration {path} cannot be read: {error}; expected a TOML file") from error


def override(table: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Put values on top of a table, as options of a command go before its file.

    Args:
        table: The table; left as it is.
        values: By their names, those of inner tables with dots; None leaves what is there.

    Returns:
        The table with the values.

    Raises:
        InputError: An inner table is no table.

    Example:
        >>> override({"epochs": 3, "data": {"text": ["a"]}}, {"epochs": None, "data.split": "train"})
        {'epochs': 3, 'data': {'text': ['a'], 'split': 'train'}}
    """
    result = dict(table)
    for name, value in values.items():
        if value is None:
            continue
        inner, (*outer, key) = result, name.split(".")
        for part in outer:
            there = inner.get(part, {})
            if not isinstance(there, Mapping):
                raise InputError(f"[{part}] must be a table, got {there!r}")
            inner[part] = dict(there)
            inner = inner[part]
        inner[key] = value
    return result


def check_range(name: str, value: float, *, least: float, most: float | None = None, above: bool = False) -> None:
    """Refuse a number that is out of its range.

    Args:
        name: Of the option.
        value: Its value.
        least: The smallest that it may have.
        most: The largest; None for no bound.
        above: Whether it must be more than `least`.

    Raises:
        InputError: It is out of the range, or NaN.
    """
    if not (least <= value and (most is None or value <= most)) or (above and value == least):
        bounds = f"{'more than' if above else 'at least'} {least}" + ("" if most is None else f" and at most {most}")
        raise InputError(f"{name} must be {bounds}, got {value}")


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
