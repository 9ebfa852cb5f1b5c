"""Comparisons in filters: a constant is fitted to the type that it is compared with, and what cannot be is told.

Lance turns a number, date or text into the type of the column that it is compared with, and refuses or misreads what
does not fit; therefore a comparison is written here with a constant that the column's type holds exactly.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pyarrow as pa

from mmalign.errors import FilterError
from mmalign.store.filter_times import as_moment, check_zone, parse_time
from mmalign.store.filter_values import (
    Condition,
    Value,
    as_condition,
    as_double,
    constant,
    float_sql,
    is_date,
    leaf,
    text_sql,
    unit_of,
    unit_sql,
)

_OPPOSITE = {"=": "<>", "<>": "=", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_MIRROR = {"=": "=", "<>": "<>", "<": ">", ">": "<", "<=": ">=", ">=": "<="}


class TextAndNumberError(FilterError):
    """A column of text is compared with a number.

    Args:
        column: Its name.
        number: As the user wrote it.
    """

    def __init__(self, column: str, number: str) -> None:
        super().__init__(f"{column} is text, and {number} is a number")
        self.column = column
        self.number = number


def compare_values(operator: str, left: Value, right: Value) -> Condition:
    """Compare two values.

    Args:
        operator: `=`, `<>`, `<`, `<=`, `>` or `>=`.
        left: A value.
        right: A value.

    Returns:
        The condition; unknown where one of them is null.

    Raises:
        FilterError: Values of these kinds cannot be compared.
    """
    families = {left.kind.family, right.kind.family}
    if "null" in families:
        return constant(None)
    if left.literal is not None and right.literal is None:
        left, right, operator = right, left, _MIRROR[operator]
    if families == {"time", "text"} and isinstance(right.literal, str):
        right = parse_time(right)
    _check_kinds(operator, left, right)
    if left.literal is not None and right.literal is not None:
        return _compare_literals(operator, left, right)
    family = left.kind.family
    if family == "boolean":
        return _compare_booleans(operator, left, right)
    if right.literal is None:
        return _compare_values(operator, left, right)
    if family == "text":
        return _leaf(left.sql, operator, text_sql(str(right.literal)))
    if family == "number":
        return _compare_double(operator, left.sql, Fraction(right.literal), right.shown)
    literal = Fraction(right.literal)
    if family == "time":
        check_zone(left, right)
        return _compare_whole(operator, left, literal / unit_of(left.kind.arrow))
    if left.cut and literal.denominator != 1:
        raise FilterError(
            f"{left.shown} divides whole numbers, whose quotient is a whole number as in SQL, and {right.shown} is "
            f"none; write CAST(... AS DOUBLE) around one of them"
        )
    return _compare_whole(operator, left, literal)


def _check_kinds(operator: str, left: Value, right: Value) -> None:
    one, two = left.kind.family, right.kind.family
    numbers = {"whole", "number"}
    for value in (left, right):
        if value.kind.family == "list":
            raise FilterError(
                f"{value.described()}, and a list is not compared as a whole; write array_has({value.shown}, 'x'), or "
                f"array_to_string({value.shown}, ' ') LIKE '%x%'"
            )
        if value.kind.family == "other":
            raise FilterError(f"{value.described()}, which can only be compared with IS NULL")
    if one == two == "boolean" and operator not in ("=", "<>"):
        raise FilterError(f"{left.described()}, which have no order; compare them with = or <>")
    if left.constant and right.constant and not (_is_plain(left) and _is_plain(right)):
        raise no_column(left)
    if one == two or {one, two} <= numbers:
        return
    for value, other in ((left, right), (right, left)):
        if value.column is not None and value.kind.family == "text" and other.kind.family in numbers:
            raise TextAndNumberError(value.column, other.shown)
    remedy = ""
    if "boolean" in (one, two):
        value = left if one == "boolean" else right
        if value.condition is None:
            remedy = f"; write {value.shown} = true, or {value.shown} alone"
    elif "time" in (one, two) and {one, two} & numbers:
        value = left if one == "time" else right
        remedy = f"; write a date in quotes, '2020-01-31', or date_part('year', {value.shown}) = 2020"
    elif one in numbers and isinstance(right.literal, str) and _is_number(right.literal):
        remedy = f"; write it without quotes: {right.literal.strip()}"
    raise FilterError(f"{left.described()} and {right.described()}: these cannot be compared{remedy}")


def no_column(value: Value) -> FilterError:
    """What is said of a comparison that reads no column, which is true of every item or of none."""
    name = value.literal if isinstance(value.literal, str) else "brand"
    return FilterError(
        f"{value.shown[:80]} is compared, and no column is: what is in single quotes is a text; a column is written "
        f'without quotes or in double ones, such as "{name[:40]}"'
    )


def _is_plain(value: Value) -> bool:
    """Whether a constant is a number, date or truth value that is written out, which `1 = 1` may compare."""
    return value.condition is not None or (value.literal is not None and value.kind.family != "text")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _leaf(left: str, operator: str, right: str) -> Condition:
    return leaf(f"{left} {operator} {right}", f"{left} {_OPPOSITE[operator]} {right}")


def _always(sql: str) -> Condition:
    """True, but unknown where the value is null."""
    return _leaf(sql, "=", sql)


def _compare_literals(operator: str, left: Value, right: Value) -> Condition:
    if left.kind.family == "time":
        check_zone(left, right)
    one, two = Fraction(left.literal or 0), Fraction(right.literal or 0)
    results = {
        "=": one == two,
        "<>": one != two,
        "<": one < two,
        "<=": one <= two,
        ">": one > two,
        ">=": one >= two,
    }
    return constant(results[operator])


def _compare_booleans(operator: str, left: Value, right: Value) -> Condition:
    one, two = as_condition(left), as_condition(right)
    for given, other in ((two, one), (one, two)):
        if given.sql in ("true", "false"):
            return other if (given.sql == "true") == (operator == "=") else other.negated()
    return _leaf(f"({one.render()})", operator, f"({two.render()})")


def _compare_values(operator: str, left: Value, right: Value) -> Condition:
    family = left.kind.family
    if family == "time":
        check_zone(left, right)
        one, two = as_moment(left, right.kind), as_moment(right, left.kind)
        return _leaf(one, operator, two)
    if "number" in (family, right.kind.family):
        # Added to 0, -0.0 becomes 0.0: Arrow tells them apart.
        return _leaf(f"({as_double(left)} + 0.0)", operator, f"({as_double(right)} + 0.0)")
    return _leaf(left.sql, operator, right.sql)


def _compare_double(operator: str, sql: str, literal: Fraction, shown: str) -> Condition:
    right = float_sql(literal, shown)
    if float(literal) != 0:
        return _leaf(sql, operator, right)
    # Arrow orders -0.0 before 0.0, and SQL takes them for one.
    if operator in ("=", "<>"):
        equal = leaf(f"{sql} IN (0.0, -0.0)", f"{sql} NOT IN (0.0, -0.0)")
        return equal if operator == "=" else equal.negated()
    return _leaf(sql, operator, "-0.0" if operator in ("<", ">=") else "0.0")


def _compare_whole(operator: str, left: Value, literal: Fraction) -> Condition:
    """Compare whole numbers, or the units of a time, with a number that need be neither whole nor in their range."""
    whole = literal.denominator == 1
    low, high = _range(left.kind.arrow)
    if operator in ("=", "<>"):
        if whole and low <= literal <= high:
            return _leaf(left.sql, operator, unit_sql(int(literal), left.kind))
        return _always(left.sql) if operator == "<>" else _always(left.sql).negated()
    if operator == "<":
        operator, least = "<=", math.ceil(literal) - 1
    elif operator == ">":
        operator, least = ">=", math.floor(literal) + 1
    else:
        least = math.floor(literal) if operator == "<=" else math.ceil(literal)
    if low <= least <= high:
        return _leaf(left.sql, operator, unit_sql(least, left.kind))
    holds = (least > high) == (operator == "<=")
    return _always(left.sql) if holds else _always(left.sql).negated()


def equal_constant(left: Value, literal: Value) -> list[str] | None:
    """The constants that a member of an IN list stands for, in a column's type; None where it must be compared alone.

    Returns:
        None; or no constant where the column cannot hold it, as 4.5 among whole numbers; else one, or two for zero.
    """
    family = left.kind.family
    if family == "time" and isinstance(literal.literal, str):
        literal = parse_time(literal)
    if literal.literal is None or family in ("boolean", "list", "other", "null") or left.constant:
        return None
    _check_kinds("=", left, literal)
    if family == "text":
        return [text_sql(str(literal.literal))]
    number = Fraction(literal.literal)
    if family == "number":
        return ["0.0", "-0.0"] if float(number) == 0 else [float_sql(number, literal.shown)]
    if family == "time":
        check_zone(left, literal)
        number /= unit_of(left.kind.arrow)
    low, high = _range(left.kind.arrow)
    return [unit_sql(int(number), left.kind)] if number.denominator == 1 and low <= number <= high else []


def _range(kind: pa.DataType) -> tuple[int, int]:
    if pa.types.is_unsigned_integer(kind):
        return 0, min(2**kind.bit_width, 2**63) - 1
    bits = 32 if is_date(kind) else kind.bit_width
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
