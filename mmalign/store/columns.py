"""Metadata values as typed columns: which Arrow type a value takes, and how it is fitted to a column.

A column takes the type of its first value. A later value that this type cannot hold exactly widens the column where
that is lossless for all that is there (integers to floats, dates to times, lists of integers to lists of floats); else
it is a misfit. Into text a column is turned only on request; a column that is text holds any value, a list or mapping
as JSON.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from mmalign.errors import MetadataError

TEXT = pa.string()
DAY, TIME, MOMENT = pa.date32(), pa.timestamp("us"), pa.timestamp("us", tz="UTC")
INTEGER, NUMBER, BOOLEAN = pa.int64(), pa.float64(), pa.bool_()
TEXTS, INTEGERS, NUMBERS = pa.list_(TEXT), pa.list_(INTEGER), pa.list_(NUMBER)
_LISTS = {TEXT: TEXTS, INTEGER: INTEGERS, NUMBER: NUMBERS}
WIDER = {INTEGER: NUMBER, DAY: TIME, INTEGERS: NUMBERS}
"""The type that a column is widened to, where that is lossless for what it holds."""

MISSING = frozenset({"", "n/a", "na", "#n/a", "<na>", "nan", "null", "none", "nil", "-", "--", "?"})
"""Texts, in lower case, that do not make a column text: they stand for no value where other rows have numbers."""

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_BOOLEANS = {"true": True, "false": False}


class MisfitError(ValueError):
    """A value that a column's type cannot hold exactly."""


def type_of(value: Any) -> pa.DataType | None:
    """Return the column type that a plain value asks for.

    Args:
        value: What `plain_value` returns.

    Returns:
        An Arrow type; None for None and for an empty list, which fit everywhere. Lists that are not all texts or all
        numbers, mappings, and integers beyond 64 bits are text.
    """
    if value is None or value == []:
        return None
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int):
        return INTEGER if _is_64_bit(value) else TEXT
    if isinstance(value, float):
        return NUMBER
    if isinstance(value, datetime.datetime):
        return MOMENT if value.tzinfo else TIME
    if isinstance(value, datetime.date):
        return DAY
    if isinstance(value, list):
        return _type_of_list(value)
    return TEXT


def _type_of_list(values: Sequence[Any]) -> pa.DataType | None:
    found: pa.DataType | None = None
    for value in values:
        if value is None:
            continue
        kind = type_of(value)
        if kind is None or kind not in _LISTS or isinstance(value, list | Mapping):
            return TEXT
        if kind == TEXT and not isinstance(value, str):
            return TEXT
        if found in (None, kind):
            found = kind
        elif {found, kind} == {INTEGER, NUMBER}:
            found = NUMBER
        else:
            return TEXT
    if found == NUMBER and not all(value is None or _as_float(value) is not None for value in values):
        return TEXT
    return TEXTS if found is None else _LISTS[found]


class Inferring:
    """The type of a new column, told from its values one by one; none of them is kept.

    Attributes:
        found: The type so far: that of the first value, widened where later ones need it and it can be.
    """

    def __init__(self) -> None:
        self.found: pa.DataType | None = None
        self._missing = False
        # Whether all values so far would fit the wider type, and whether an empty list is among them.
        self._fit_wider = True
        self._empty = False

    def see(self, value: Any) -> None:
        """Take in the next value.

        Args:
            value: A plain value; None fits everywhere, and a misfit changes nothing.
        """
        if isinstance(value, str) and value.strip().lower() in MISSING and self.found is None:
            self._missing = self._missing or value != ""
            return
        kind = type_of(value)
        if kind is not None and kind != self.found:
            if self.found is None or (WIDER.get(self.found) == kind and self._all_fit(kind)):
                self.found = kind
            elif not fits(value, self.found):
                return
        wider = None if self.found is None else WIDER.get(self.found)
        if value == []:
            self._empty = True
        elif wider is not None and self._fit_wider:
            self._fit_wider = fits(value, wider)

    def _all_fit(self, wider: pa.DataType) -> bool:
        return self._fit_wider and (not self._empty or fits([], wider))

    @property
    def kind(self) -> pa.DataType | None:
        """The column's type; None where every value is None or an empty list."""
        return TEXT if self.found is None and self._missing else self.found


def infer_type(values: Iterable[Any]) -> pa.DataType | None:
    """Return the type of a new column: that of its first value, widened where later ones need it and it can be.

    Args:
        values: Plain values; None fits everywhere.

    Returns:
        An Arrow type, or None where every value is None or an empty list. Misfits do not change it.
    """
    inferring = Inferring()
    for value in values:
        inferring.see(value)
    return inferring.kind


def fits(value: Any, kind: pa.DataType) -> bool:
    """Whether a column holds a value exactly.

    Args:
        value: A plain value.
        kind: The column's type.
    """
    try:
        fit(value, kind)
    except MisfitError:
        return False
    return True


def fit(value: Any, kind: pa.DataType) -> Any:
    """Return a value as a column of some type holds it, exactly.

    A text that spells a value of the type is read as that value: a CSV file has no other way to give one.

    Args:
        value: A plain value.
        kind: The column's type.

    Returns:
        The value for `pyarrow.array`.

    Raises:
        MisfitError: It cannot be held exactly.
    """
    if value is None:
        return None
    convert = _FITTING.get(kind)
    if convert is None:
        return _by_arrow(value, kind)
    fitted = convert(value)
    if fitted is None:
        raise MisfitError
    return fitted


def _is_64_bit(value: int) -> bool:
    return -(2**63) <= value < 2**63


def _as_int(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if (isinstance(value, float) and value.is_integer()) or (isinstance(value, str) and _INTEGER.fullmatch(value)):
        value = int(value)
    return value if isinstance(value, int) and _is_64_bit(value) else None


def _as_float(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return value
    if isinstance(value, int):
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if int(number) == value else None
    if isinstance(value, str) and _FLOAT.fullmatch(value):
        number = float(value)
        if abs(number) == float("inf") or Decimal(repr(number)) != Decimal(value):
            return None
        return number
    return None


def _as_bool(value: Any) -> bool | None:
    if isinstance(value, str):
        return _BOOLEANS.get(value.lower())
    return value if isinstance(value, bool) else None


def _as_day(value: Any) -> datetime.date | None:
    if isinstance(value, str):
        return _parsed(datetime.date.fromisoformat, value) if len(value) == 10 else None
    return value if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime) else None


def _as_time(value: Any) -> datetime.datetime | None:
    if isinstance(value, str):
        value = _parsed(datetime.datetime.fromisoformat, value) if len(value) >= 10 else None
    elif isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime(value.year, value.month, value.day)
    return value if isinstance(value, datetime.datetime) and value.tzinfo is None else None


def _as_moment(value: Any) -> datetime.datetime | None:
    if isinstance(value, str):
        value = _parsed(datetime.datetime.fromisoformat, value)
    if not isinstance(value, datetime.datetime) or value.tzinfo is None:
        return None
    try:
        return value.astimezone(datetime.UTC)
    except OverflowError:
        return None


def _parsed(parse: Callable[[str], Any], value: str) -> Any:
    # Digits beyond the microsecond would be cut off.
    if re.search(r"[.,][0-9]{7}", value):
        return None
    try:
        return parse(value)
    except ValueError:
        return None


def _as_texts(value: Any) -> list[str | None] | None:
    if isinstance(value, str):
        return [value]
    return _as_list(value, lambda entry: entry if isinstance(entry, str) else None)


def _as_list(value: Any, convert: Callable[[Any], Any]) -> list[Any] | None:
    if not isinstance(value, list):
        return None
    fitted = [None if entry is None else convert(entry) for entry in value]
    lost = any(new is None and old is not None for new, old in zip(fitted, value, strict=True))
    return None if lost else fitted


def _number_or_none(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda entry: None if isinstance(entry, str) else convert(entry)


def as_text(value: Any) -> str | None:
    """Return a plain value as a column of text holds it: times as ISO 8601, lists and mappings as JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime.date):
        return value.isoformat()
    return json.dumps(value, ensure_ascii=False, default=datetime.date.isoformat)


_FITTING: Mapping[pa.DataType, Callable[[Any], Any]] = {
    TEXT: as_text,
    INTEGER: _as_int,
    NUMBER: _as_float,
    BOOLEAN: _as_bool,
    DAY: _as_day,
    TIME: _as_time,
    MOMENT: _as_moment,
    TEXTS: _as_texts,
    INTEGERS: lambda value: _as_list(value, _number_or_none(_as_int)),
    NUMBERS: lambda value: _as_list(value, _number_or_none(_as_float)),
}


def _by_arrow(value: Any, kind: pa.DataType) -> Any:
    """Types that a column here has only where another program made it, and what every item has."""
    try:
        kept = pa.scalar(value, kind).as_py()
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, TypeError, ValueError):
        raise MisfitError from None
    if kept != value:
        raise MisfitError
    return value


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
    fitted = []
    for value in values:
        try:
            fitted.append(fit(value, kind))
        except MisfitError:
            raise MetadataError("; ".join(misfit(name, kind, value))) from None
    return pa.array(fitted, kind)


def misfit(name: str, kind: pa.DataType, value: Any) -> tuple[str, str]:
    """Say that a value does not fit its column, and what to do.

    Args:
        name: The column.
        kind: Its type.
        value: A plain value.

    Returns:
        What is wrong, and the remedy.
    """
    remedy = f"give the value that type, or the metadata another name, or make the column text: make_text({name!r})"
    return f"column {name!r} holds {kind}, got {shorten(value)}", remedy


def shorten(value: Any) -> str:
    """A value for an error's text, on one short line."""
    shown = str(value) if isinstance(value, datetime.date) else repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
