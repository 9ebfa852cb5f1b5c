"""Values of Arrow columns as Python's own, a cell at a time where Python cannot hold all of them."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

# What pyarrow raises for a value that Python has no object for, such as a time in the year 0.
_BEYOND = (ValueError, OverflowError, TypeError)
_EPOCH = datetime.datetime(1970, 1, 1)


@dataclass(slots=True)
class Values:
    """The cells of one column.

    Attributes:
        cells: Python values.
        lost: Positions of cells that Python cannot hold, which are None, with the value as text.
        cut: Positions of times finer than a microsecond, which are cut to it, with the value as text.
    """

    cells: list[Any]
    lost: list[tuple[int, str]] = field(default_factory=list)
    cut: list[tuple[int, str]] = field(default_factory=list)


def column_values(column: Any) -> Values:
    """The values of one column.

    Args:
        column: An Arrow array.

    Returns:
        Its cells as Python values, and what could not be kept as it is.
    """
    if not _needs_care(column.type):
        try:
            return Values(column.to_pylist())
        except _BEYOND:
            pass
    found = Values([])
    for at, scalar in enumerate(column):
        reader = _Cell()
        try:
            found.cells.append(reader.value(scalar))
        except _BEYOND:
            found.cells.append(None)
            found.lost.append((at, _shown(scalar)))
            continue
        if reader.cut:
            found.cut.append((at, _shown(scalar)))
    return found


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


class _Cell:
    """Reads one cell; `cut` tells whether nanoseconds were cut off."""

    def __init__(self) -> None:
        self.cut = False

    def value(self, scalar: Any) -> Any:
        import pyarrow as pa

        if not scalar.is_valid:
            return None
        if isinstance(scalar, pa.ExtensionScalar):
            value = scalar.as_py()
            return str(value) if isinstance(value, UUID) else value
        if isinstance(scalar, pa.DictionaryScalar):
            return self.value(scalar.value)
        if isinstance(scalar, pa.MapScalar):
            entries = scalar.values
            return {str(self.value(entry["key"])): self.value(entry["value"]) for entry in entries}
        if isinstance(scalar, pa.StructScalar):
            return {name: self.value(scalar[at]) for at, name in enumerate(_names(scalar.type))}
        if isinstance(scalar, pa.ListScalar):
            return [self.value(entry) for entry in scalar.values]
        if isinstance(scalar, pa.MonthDayNanoIntervalScalar):
            months, days, nanoseconds = scalar.as_py()
            return {"months": months, "days": days, "nanoseconds": nanoseconds}
        if getattr(scalar.type, "unit", "") == "ns":
            return self._nanoseconds(scalar)
        return scalar.as_py()

    def _nanoseconds(self, scalar: Any) -> Any:
        import pyarrow as pa
        from pyarrow import types

        micros, rest = divmod(scalar.value, 1000)
        self.cut = self.cut or rest != 0
        span = datetime.timedelta(microseconds=micros)
        if types.is_duration(scalar.type):
            return span
        if types.is_time(scalar.type):
            return (_EPOCH + span).time()
        return pa.scalar(micros, pa.timestamp("us", tz=scalar.type.tz)).as_py()


def _shown(scalar: Any) -> str:
    import pyarrow as pa

    try:
        return str(scalar.cast(pa.string()).as_py())
    except pa.ArrowException:
        # A list or an object of such values.
        return f"a value of type {scalar.type}"


def _names(kind: Any) -> list[str]:
    return [kind.field(at).name for at in range(kind.num_fields)]
