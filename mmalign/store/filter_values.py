"""What the parts of a filter are: values with a type, and conditions, both written as Lance reads them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import pyarrow as pa

from mmalign.errors import FilterError

Family = Literal["text", "whole", "number", "boolean", "time", "list", "null", "other"]
_HOLDS = {
    "text": "text",
    "whole": "whole numbers",
    "number": "numbers",
    "boolean": "true or false",
    "null": "nothing",
}
_NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
_UNIT_NAMES = {"s": "Second", "ms": "Millisecond", "us": "Microsecond", "ns": "Nanosecond"}


@dataclass(frozen=True, slots=True)
class ValueKind:
    """The type of a value.

    Attributes:
        family: What it can be compared with.
        arrow: The Arrow type that it has in Lance.
    """

    family: Family
    arrow: pa.DataType

    @property
    def holds(self) -> str:
        """What a column of this kind holds, in words."""
        if self.family == "list":
            return f"lists of {kind_of(self.arrow.value_type).holds}"
        if self.family == "time":
            zone = "" if is_date(self.arrow) or self.arrow.tz is None else f" in {self.arrow.tz}"
            return "dates" if is_date(self.arrow) else f"dates with times{zone}"
        return _HOLDS.get(self.family, str(self.arrow))


def is_date(kind: pa.DataType) -> bool:
    """Whether this is a day without a time."""
    return bool(pa.types.is_date(kind))


def kind_of(arrow: pa.DataType) -> ValueKind:
    """Return the kind of a column by its Arrow type."""
    family: Family = "other"
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        family = "text"
    elif pa.types.is_boolean(arrow):
        family = "boolean"
    elif pa.types.is_integer(arrow):
        family = "whole"
    elif pa.types.is_floating(arrow):
        family = "number"
    elif pa.types.is_date32(arrow) or pa.types.is_timestamp(arrow):
        family = "time"
    elif pa.types.is_list(arrow) or pa.types.is_large_list(arrow):
        family = "list"
    return ValueKind(family, arrow)


TEXT, WHOLE, NUMBER = kind_of(pa.string()), kind_of(pa.int64()), kind_of(pa.float64())
BOOLEAN, DATE, TIME = kind_of(pa.bool_()), kind_of(pa.date32()), kind_of(pa.timestamp("us"))
NULL = ValueKind("null", pa.null())


# Conditions ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition, which can be true, false or unknown as in SQL.

    Attributes:
        joint: How `parts` are joined; empty for a condition without parts.
        sql: As Lance reads it, of one without parts.
        opposite: The same negated. NOT itself is not written: nested, it takes Lance's parser exponential time.
        parts: Conditions.
    """

    joint: Literal["", "AND", "OR"]
    sql: str = ""
    opposite: str = ""
    parts: tuple[Condition, ...] = ()

    def negated(self) -> Condition:
        """The condition that holds where this one does not, and is unknown where this one is."""
        if self.joint == "":
            return replace(self, sql=self.opposite, opposite=self.sql)
        parts = tuple(part.negated() for part in self.parts)
        return Condition("OR" if self.joint == "AND" else "AND", parts=parts)

    def render(self) -> str:
        """As Lance reads it, brackets around the parts that need them."""
        return self._render()[1]

    def _render(self) -> tuple[int, str]:
        if self.joint == "":
            return 0, self.sql
        inner = []
        for part in self.parts:
            deep, sql = part._render()
            inner.append((deep + 1, f"({sql})") if part.joint not in ("", self.joint) else (deep, sql))
        # The deepest comes first, where it costs the recursive parser one level and not two or three.
        inner.sort(key=lambda one: -one[0])
        return inner[0][0], f" {self.joint} ".join(sql for _, sql in inner)


def leaf(sql: str, opposite: str) -> Condition:
    """A condition and what it is where it does not hold."""
    return Condition("", sql, opposite)


def join(joint: Literal["AND", "OR"], parts: Iterable[Condition]) -> Condition:
    """Conditions joined by AND or OR; at least one."""
    flat: list[Condition] = []
    for part in parts:
        flat += part.parts if part.joint == joint else [part]
    return flat[0] if len(flat) == 1 else Condition(joint, parts=tuple(flat))


def constant(value: bool | None) -> Condition:
    """A condition that is always true, false or unknown."""
    if value is None:
        return leaf("arrow_cast(NULL, 'Boolean')", "arrow_cast(NULL, 'Boolean')")
    return leaf(str(value).lower(), str(not value).lower())


# Values --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Value:
    """A column, a constant or what is computed from them.

    Attributes:
        kind: Its type.
        sql: As Lance reads it, in brackets where it has several parts; empty for numbers, texts and times that are
            written out, which are rendered when it is known what they are compared with.
        shown: As the user wrote it, nearly.
        literal: A constant: a number as a fraction, a text, a time in nanoseconds since 1970; None where it is none.
        zoned: Whether a literal time named its offset.
        condition: What a boolean value is.
        column: Name of the column, where it is nothing but that.
        constant: Whether no column is read for it.
        bound: Of whole numbers: the largest that it can be, in magnitude.
        members: Of a list that is written out: its elements.
        cut: Whether it is a quotient of whole numbers, so that its fraction is gone.
    """

    kind: ValueKind
    sql: str = ""
    shown: str = ""
    literal: Fraction | str | int | None = None
    zoned: bool = False
    condition: Condition | None = None
    column: str | None = None
    constant: bool = False
    bound: int = 2**63
    members: tuple[Value, ...] | None = None
    cut: bool = False

    def described(self) -> str:
        """What it holds, for an error."""
        shown = self.shown if len(self.shown) <= 80 else self.shown[:77] + "..."
        if self.literal is not None:
            names = {"text": "a text", "time": "a date"}
            return f"{shown} is {names.get(self.kind.family, 'a number')}"
        if self.condition is not None:
            return f"{shown} is true or false"
        return f"{shown} holds {self.kind.holds}"


def text_sql(text: str) -> str:
    """A text as a constant."""
    return "'" + text.replace("'", "''") + "'"


def whole_sql(number: int) -> str:
    """A whole number of 64 bits as a constant; in brackets where it has a sign, so that no `--` comes about."""
    if number == -(2**63):
        return f"arrow_cast('{number}', 'Int64')"
    return str(number) if number >= 0 else f"({number})"


def float_sql(number: Fraction, shown: str) -> str:
    """A number as a constant of double precision."""
    try:
        return f"({float(number)!r})" if number < 0 else repr(float(number))
    except OverflowError as error:
        raise FilterError(f"{shown} is more than any number that a column can hold") from error


def unit_of(kind: pa.DataType) -> int:
    """Nanoseconds in one unit of a date or time."""
    return 86_400 * 10**9 if is_date(kind) else _NANOSECONDS[kind.unit]


def arrow_name(kind: pa.DataType) -> str:
    """The name of a date's or time's type, as `arrow_cast` takes it."""
    if is_date(kind):
        return "'Date32'"
    zone = "None" if kind.tz is None else f'Some("{kind.tz}")'
    return f"'Timestamp({_UNIT_NAMES[kind.unit]}, {zone})'"


def time_sql(number: int, kind: ValueKind) -> str:
    """A date or time as a constant, given in units of its type."""
    return f"arrow_cast({whole_sql(number)}, {arrow_name(kind.arrow)})"


def unit_sql(number: int, kind: ValueKind) -> str:
    """A whole number, date or time as a constant."""
    return whole_sql(number) if kind.family == "whole" else time_sql(number, kind)


def written(value: Value) -> str:
    """A value as Lance reads it, where nothing else says which type a constant should have."""
    if value.condition is not None:
        return f"({value.condition.render()})"
    if value.literal is None or value.sql:
        return value.sql
    if isinstance(value.literal, str):
        return text_sql(value.literal)
    if value.kind.family == "time":
        return time_sql(int(value.literal) // unit_of(value.kind.arrow), value.kind)
    literal = Fraction(value.literal)
    if value.kind.family == "number":
        return float_sql(literal, value.shown)
    if not -(2**63) <= literal < 2**63:
        raise FilterError(f"{value.shown} is more than 64 bits hold")
    return whole_sql(int(literal))


def as_double(value: Value) -> str:
    """A number in double precision."""
    if value.literal is not None:
        return float_sql(Fraction(value.literal), value.shown)
    return value.sql if value.kind.family == "number" else f"arrow_cast({value.sql}, 'Float64')"


def as_condition(value: Value) -> Condition:
    """A boolean value as a condition.

    Raises:
        FilterError: It is not boolean.
    """
    if value.condition is not None:
        return value.condition
    if value.kind.family == "null":
        return constant(None)
    if value.kind.family != "boolean":
        raise FilterError(f"{value.described()}, where something true or false is needed, such as {_example(value)}")
    return leaf(value.sql, f"{value.sql} = false")


def _example(value: Value) -> str:
    if value.column is None:
        return "year >= 2020"
    ways = {"text": "= 'x'", "whole": "> 0", "number": "> 0", "time": ">= '2020-01-31'"}
    return f"{value.shown} {ways.get(value.kind.family, 'IS NOT NULL')}"
