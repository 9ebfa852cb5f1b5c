"""Metadata values as plain Python: what every way into a collection turns a caller's value into, or refuses.

Plain are None, bool, int, float (not NaN), str that UTF-8 can hold, date, datetime, and lists and mappings of them.
What cannot be one of them without losing something is refused; nothing is kept as its `repr`. NumPy, pandas, torch and
pyarrow are told by what their values can do: this module imports none of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from os import PathLike, fspath
from typing import Any
from uuid import UUID

from mmalign.errors import MetadataError

_EPOCH = datetime(1970, 1, 1)
# Units of times in nanoseconds; months and years have no one length.
_NANOSECONDS = {
    "W": 604_800 * 10**9, "D": 86_400 * 10**9, "h": 3_600 * 10**9, "m": 60 * 10**9,
    "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1,
}  # fmt: skip
_PARTS = {"ps": 10**3, "fs": 10**6, "as": 10**9}
_NOT_A_TIME = -(2**63)
_DEPTH = 100
_WAY_OUT = "metadata is text, numbers, true or false, dates and times, and lists or mappings of these"


class CellError(MetadataError):
    """A value of a kind that is kept cannot be kept exactly: too fine, too large, or outside of the calendar."""


class Unkept:
    """Stands for a cell that a reader of tables found and cannot give as a Python value.

    Args:
        shown: The value, for people.
        reason: Why it cannot be kept, and what to do.
    """

    __slots__ = ("reason", "shown")

    def __init__(self, shown: str, reason: str) -> None:
        self.shown = shown
        self.reason = reason

    def __repr__(self) -> str:
        return self.shown


def plain_value(value: Any) -> Any:
    """Return a value as plain Python, exactly.

    NaN, NaT and pandas' NA are None. Decimals are floats, durations are seconds, times of day and paths are text,
    sets are sorted lists, members of an enum are their values; zoned times are in UTC.

    Args:
        value: Any value of a caller's.

    Returns:
        The plain value.

    Raises:
        MetadataError: A kind that is not kept, such as bytes. The text has no subject, so that `column 'a'` can be put
            before it.
        CellError: A kind that is kept, but not this value without loss.
    """
    return _plain(value, _DEPTH)


def _plain(value: Any, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value)
    if value is None or kind is bool or kind is int:
        return value
    if kind is float:
        return None if value != value else value
    if depth == 0:
        raise MetadataError(f"is nested more than {_DEPTH} deep; give it as text")
    if isinstance(value, Unkept):
        raise CellError(f"holds {value.shown}, {value.reason}")
    if kind.__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, Enum):
        return _plain(value.value, depth - 1)
    if isinstance(value, str):
        return _text(str.__str__(value))
    if _dtype_kind(value) in ("M", "m"):
        return _numpy_time(value, depth)
    match value:
        case datetime():
            return _datetime(value)
        case date():
            return date(value.year, value.month, value.day)
        case time():
            return value.isoformat()
        case timedelta():
            return _seconds((value // timedelta(microseconds=1)) * 1000 + getattr(value, "nanoseconds", 0) % 1000)
        case Decimal():
            return _decimal(value)
        case int():
            return int(value)
        case float() if kind.__name__ != "longdouble":
            return None if value != value else float(value)
        case Fraction():
            return _exact_float(value)
        case UUID():
            return str(value)
        case PathLike():
            path = fspath(value)
            return _text(path) if isinstance(path, str) else _refuse(value)
        case bytes() | bytearray() | memoryview() | complex():
            return _refuse(value)
        case Mapping():
            return _mapping(value, depth)
        case Set():
            members = [_plain(member, depth - 1) for member in value]
            return sorted(members, key=lambda member: (type(member).__name__, _order(member)))
        case Sequence():
            return [_plain(entry, depth - 1) for entry in value]
    return _foreign(value, depth)


def _order(member: Any) -> Any:
    return member if isinstance(member, str | int | float | date) else repr(member)


def _foreign(value: Any, depth: int) -> Any:
    """Scalars and arrays of NumPy, torch, pandas, pyarrow and their like."""
    if _dtype_kind(value) in ("S", "V", "c"):
        return _refuse(value)
    if type(value).__name__ == "longdouble":
        return None if value != value else _exact_float(Fraction(*value.as_integer_ratio()))
    for way in ("tolist", "to_list", "to_pylist", "as_py"):
        convert = getattr(value, way, None)
        if callable(convert) and not isinstance(value, type):
            try:
                listed = convert()
            except (TypeError, ValueError, RuntimeError, OverflowError, NotImplementedError) as error:
                raise CellError(f"holds {_shown(value)}, which cannot be read as Python values: {error}") from error
            if type(listed) is type(value):
                break
            return _plain(listed, depth - 1)
    return _refuse(value)


def _refuse(value: Any) -> Any:
    raise MetadataError(f"holds {type(value).__name__}, {_shown(value)}; {_WAY_OUT}")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:
        text = f"a {type(value).__name__}"
    # On one line, and such that it can be printed.
    text = " ".join(text.split()).encode("ascii", "backslashreplace").decode() if not text.isprintable() else text
    return text if len(text) <= 80 else f"{text[:77]}..."


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            half = value[error.start]
            # Bytes that were not UTF-8 are carried as these by `surrogateescape`.
            if "\udc80" <= half <= "\udcff":
                raise MetadataError("is not UTF-8; save the table as UTF-8") from error
            raise MetadataError(
                f"holds half of a character, {half!a} in {value!a:.60}; write the whole character, or leave it out"
            ) from error
    return value


def _dtype_kind(value: Any) -> str | None:
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    return kind if isinstance(kind, str) else None


def _numpy_time(value: Any, depth: int) -> Any:
    """`datetime64` and `timedelta64`, alone or in an array, whatever their unit."""
    if getattr(value, "ndim", 0):
        return [_plain(entry, depth - 1) for entry in (value if hasattr(value, "__iter__") else value.tolist())]
    name = getattr(value.dtype, "str", "")
    unit = name.partition("[")[2].rstrip("]")
    times = unit.lstrip("0123456789")
    step = int(unit[: len(unit) - len(times)] or 1)
    count = int(value.astype("int64"))
    if count == _NOT_A_TIME:
        return None
    if value.dtype.kind == "m":
        if times not in _NANOSECONDS and times not in _PARTS:
            raise CellError(
                f"holds {_shown(value)}, which is no number of seconds; give a number, or a duration in weeks or less"
            )
        return duration(count * step, times)
    if times in ("Y", "M"):
        months = count * step * (12 if times == "Y" else 1)
        return _day(1970 + months // 12, months % 12 + 1, shown=str(value))
    found = moment(count * step, times)
    if isinstance(found, Unkept):
        return _plain(found, depth)
    return found.date() if times in ("W", "D") else found


def _day(year: int, month: int, *, shown: str) -> date:
    try:
        return date(year, month, 1)
    except ValueError as error:
        raise CellError(f"holds {shown}, {_OUTSIDE}") from error


_OUTSIDE = "and times are kept for the years 1 to 9999; give it as text"
_TOO_FINE = "and times are kept to the microsecond; round it, or give it as text"


def moment(count: int, unit: str, *, utc: bool = False) -> datetime | Unkept:
    """Return the time so many units after the first moment of 1970.

    Args:
        count: How many units; negative for earlier times.
        unit: `W`, `D`, `h`, `m`, `s`, `ms`, `us`, `ns`, `ps`, `fs` or `as`.
        utc: Whether it is a moment in UTC, or a time of no zone.

    Returns:
        The time; an `Unkept` for one that is finer than a microsecond, or outside of the years 1 to 9999.
    """
    nanoseconds = Fraction(count * _NANOSECONDS[unit]) if unit in _NANOSECONDS else Fraction(count, _PARTS[unit])
    microseconds, rest = divmod(nanoseconds, 1000)
    try:
        found = _EPOCH + timedelta(microseconds=int(microseconds))
    except OverflowError:
        years = 1970 + int(microseconds // (31_556_952 * 10**6))
        return Unkept(f"a time about the year {years}", _OUTSIDE)
    if rest:
        digits = f"{int(microseconds) % 10**6:06d}" + f"{int(rest * 10**9):012d}".rstrip("0")
        return Unkept(f"{found.isoformat(timespec='seconds')}.{digits}{'Z' * utc}", _TOO_FINE)
    return found.replace(tzinfo=UTC) if utc else found


def time_of_day(nanoseconds: int) -> str:
    """Return a time of day as ISO 8601 text, with as many digits as it has.

    Args:
        nanoseconds: Since midnight.
    """
    seconds, rest = divmod(nanoseconds, 10**9)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    if not rest:
        return text
    return f"{text}.{rest:09d}" if rest % 1000 else f"{text}.{rest // 1000:06d}"


def duration(count: int, unit: str) -> float:
    """Return a duration in seconds.

    Args:
        count: How many units.
        unit: As for `moment`.

    Raises:
        CellError: A number of 64 bits does not hold it.
    """
    return _seconds(Fraction(count * _NANOSECONDS[unit]) if unit in _NANOSECONDS else Fraction(count, _PARTS[unit]))


def _seconds(nanoseconds: Fraction | int) -> float:
    exact = Fraction(nanoseconds) / 10**9
    seconds = float(exact)
    # The decimal digits that a number shows are the duration's, if not its last binary one.
    if Fraction(Decimal(repr(seconds))) != exact and Fraction(seconds) != exact:
        raise CellError(
            f"holds a duration of {nanoseconds} ns, which a number of seconds does not hold exactly; "
            "give it as a whole number of another unit, or as text"
        )
    return seconds


def _datetime(value: datetime) -> datetime:
    nanosecond = getattr(value, "nanosecond", 0)
    if nanosecond:
        raise CellError(f"holds {value.isoformat()}, {_TOO_FINE}")
    # Of the class itself: others, such as pandas' Timestamp, are no plain Python.
    same = datetime(
        value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.tzinfo,
        fold=value.fold,
    )  # fmt: skip
    if same.utcoffset() is None:
        return same.replace(tzinfo=None, fold=0)
    try:
        return same.astimezone(UTC)
    except OverflowError as error:
        raise CellError(f"holds {value.isoformat()}, {_OUTSIDE}") from error


def _decimal(value: Decimal) -> float | None:
    if value.is_nan():
        return None
    number = float(value)
    if value.is_infinite():
        return number
    if math.isinf(number) or Decimal(repr(number)) != value:
        raise CellError(
            f"holds the decimal {value!s:.60}, which a number of 64 bits does not hold exactly; round it, or give text"
        )
    return number


def _exact_float(value: Fraction) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isinf(number) or Fraction(number) != value:
        raise CellError(
            f"holds {_shown(value)}, which a number of 64 bits does not hold exactly; round it, or give text"
        )
    return number


def _mapping(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, entry in value.items():
        if isinstance(key, bool) or not isinstance(key, str | int):
            raise MetadataError(f"holds a mapping with the key {_shown(key)}; keys are text or integers")
        name = _text(str(key))
        if name in found:
            raise MetadataError(f"holds a mapping with the key {name!r} twice, as text and as an integer")
        inner = _plain(entry, depth - 1)
        # JSON, which mappings are kept as, knows no infinity.
        found[name] = _finite(inner)
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, float) and math.isinf(value):
        return None
    return [_finite(entry) for entry in value] if isinstance(value, list) else value
