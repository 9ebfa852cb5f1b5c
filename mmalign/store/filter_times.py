"""Dates and times in filters: texts that stand for them, and what can be compared with what."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pyarrow as pa

from mmalign.errors import FilterError
from mmalign.store.filter_values import DATE, TIME, Value, ValueKind, arrow_name, is_date

# A day, perhaps a time to the nanosecond, perhaps an offset.
_WRITTEN = re.compile(
    r"(\d{4}-\d\d-\d\d)"
    r"(?:[T ](\d\d:\d\d(?::\d\d)?)(?:(?<=:\d\d:\d\d)\.(\d{1,9}))? ?(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII,
)


def parse_time(value: Value) -> Value:
    """Read a text as a date, or a date with a time.

    Args:
        value: A constant text.

    Returns:
        A constant in nanoseconds since 1970, UTC where it names no offset.

    Raises:
        FilterError: It is no date.
    """
    found = _WRITTEN.fullmatch(str(value.literal).strip())
    try:
        if found is None:
            raise ValueError
        moment = datetime.fromisoformat(f"{found[1]}T{found[2] or '00:00'}{found[4] or ''}")
    except ValueError:
        raise FilterError(
            f"{value.shown} stands where a date is needed, and is none; write it as '2020-01-31' or "
            "'2020-01-31 15:04:05'"
        ) from None
    zoned = moment.tzinfo is not None
    since = (moment if zoned else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    literal = (since.days * 86_400 + since.seconds) * 10**9 + int((found[3] or "0").ljust(9, "0"))
    kind = DATE if found[2] is None else TIME
    return Value(kind, literal=literal, shown=value.shown, zoned=zoned, constant=True)


def check_zone(left: Value, right: Value) -> None:
    """Refuse to compare a time in a zone with one in none; a constant without an offset is taken in UTC."""
    for value, other in ((left, right), (right, left)):
        if _is_zoned(value) and not _is_zoned(other) and other.literal is None:
            raise FilterError(
                f"{other.described()} without a time zone, and {value.shown} has one: these cannot be compared"
                + ("; leave the offset out" if value.literal is not None else "")
            )


def _is_zoned(value: Value) -> bool:
    return value.zoned or (not is_date(value.kind.arrow) and value.kind.arrow.tz is not None)


def as_moment(value: Value, other: ValueKind) -> str:
    """Write a date or time in the type that it can be compared in with another."""
    if value.kind.arrow == other.arrow:
        return value.sql
    zone = None if is_date(value.kind.arrow) else value.kind.arrow.tz
    return f"arrow_cast({value.sql}, {arrow_name(pa.timestamp('us', tz=zone))})"
