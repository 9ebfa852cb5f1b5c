"""Values of Arrow columns as Python's own; a cell that Python cannot hold says so, and costs no other."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from mmalign.types import CellError, Unkept, duration, moment, time_of_day

# What pyarrow raises for a value that Python has no object for, such as a time in the year 0.
_BEYOND = (ValueError, OverflowError, TypeError)
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def column_values(column: Any) -> list[Any]:
    """The values of one column.

    Args:
        column: An Arrow array.

    Returns:
        Its cells as Python values; an `Unkept` for one that Python cannot hold exactly.
    """
    if not _needs_care(column.type):
        try:
            return list(column.to_pylist())
        except _BEYOND:
            # One of its cells: a date beyond the year 9999, say.
            pass
    return [_value(scalar) for scalar in column]


def _needs_care(kind: Any) -> bool:
    """Whether a type holds nanoseconds, mappings or extensions, somewhere inside."""
    import pyarrow as pa
    from pyarrow import types

    if types.is_temporal(kind) and getattr(kind, "unit", "") == "ns":
        return True
    if types.is_map(kind) or types.is_interval(kind) or isinstance(kind, pa.BaseExtensionType):
        return True
    if types.is_dictionary(kind):
        return _needs_care(kind.value_type)
    return any(_needs_care(kind.field(at).type) for at in range(kind.num_fields))


def _value(scalar: Any) -> Any:
    import pyarrow as pa
    from pyarrow import types

    if not scalar.is_valid:
        return None
    if isinstance(scalar, pa.ExtensionScalar):
        value = scalar.as_py()
        return str(value) if isinstance(value, UUID) else value
    if isinstance(scalar, pa.DictionaryScalar):
        return _value(scalar.value)
    if isinstance(scalar, pa.MapScalar):
        return {str(_value(entry["key"])): _value(entry["value"]) for entry in scalar.values}
    if isinstance(scalar, pa.StructScalar):
        return {scalar.type.field(at).name: _value(scalar[at]) for at in range(scalar.type.num_fields)}
    if isinstance(scalar, pa.ListScalar):
        return [_value(entry) for entry in scalar.values]
    if isinstance(scalar, pa.MonthDayNanoIntervalScalar):
        months, days, nanoseconds = scalar.as_py()
        return {"months": months, "days": days, "nanoseconds": nanoseconds}
    if types.is_timestamp(scalar.type):
        return moment(scalar.value, scalar.type.unit, utc=scalar.type.tz is not None)
    if types.is_date(scalar.type):
        day = moment(scalar.value, "D" if types.is_date32(scalar.type) else "ms")
        return day if isinstance(day, Unkept) else day.date()
    if types.is_time(scalar.type):
        return time_of_day(scalar.value * 10**9 // _PER_SECOND[scalar.type.unit])
    if types.is_duration(scalar.type):
        return _duration(scalar)
    try:
        return scalar.as_py()
    except _BEYOND:
        return Unkept(_shown(scalar), "which Python's own values do not hold; give it as text")


def _duration(scalar: Any) -> Any:
    try:
        return duration(scalar.value, scalar.type.unit)
    except CellError:
        shown = f"a duration of {scalar.value} {scalar.type.unit}"
        return Unkept(
            shown, "which a number of seconds does not hold exactly; give it as a whole number of another unit"
        )


def _shown(scalar: Any) -> str:
    import pyarrow as pa

    try:
        return str(scalar.cast(pa.string()).as_py())
    except pa.ArrowException:
        return f"a value of type {scalar.type}"
