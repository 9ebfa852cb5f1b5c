"""Arithmetic in filters: exact over constants, and an error where 64 bits do not hold the result, as in PostgreSQL."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from mmalign.errors import FilterError
from mmalign.store.filter_values import NULL, NUMBER, WHOLE, Value, as_double, float_sql, whole_sql

_LIMIT = 2**63
_WIDE = "'Decimal128(38, 0)'"


def calculate(operator: str, left: Value, right: Value, shown: str) -> Value:
    """Combine two numbers.

    Args:
        operator: `+`, `-`, `*`, `/` or `%`.
        left: A number.
        right: A number.
        shown: What the user wrote, nearly.

    Returns:
        A whole number of two whole ones, which `/` cuts as SQL does; null where the divisor is 0.

    Raises:
        FilterError: One of them is no number, or a constant is beyond 64 bits.
    """
    for value in (left, right):
        if value.kind.family not in ("whole", "number", "null"):
            raise FilterError(f"{value.described()}, and {operator} takes numbers{_remedy(operator, value)}")
    if "null" in (left.kind.family, right.kind.family):
        return Value(NULL, sql="NULL", shown=shown, constant=True)
    kind = WHOLE if left.kind.family == right.kind.family == "whole" else NUMBER
    constant = left.constant and right.constant
    cut = operator == "/" and kind is WHOLE
    if left.literal is not None and right.literal is not None:
        found = _fold(operator, Fraction(left.literal), Fraction(right.literal), whole=kind is WHOLE)
        if found is None:
            return Value(NULL, sql="NULL", shown=shown, constant=True)
        if kind is WHOLE and not -_LIMIT <= found < _LIMIT:
            raise FilterError(f"{shown} is more than 64 bits hold")
        return Value(kind, literal=found, shown=shown, constant=True, bound=abs(int(found)), cut=cut)
    if kind is WHOLE:
        sql, bound = _whole(operator, left, right)
    else:
        sql, bound = _double(operator, left, right), _LIMIT
    return Value(kind, sql=sql, shown=shown, constant=constant, bound=bound, cut=cut)


def negate(value: Value) -> Value:
    """The value with the other sign."""
    shown = f"-{value.shown}"
    if value.literal is not None and value.kind.family in ("whole", "number"):
        return replace(value, literal=-Fraction(value.literal), shown=shown)
    if value.kind.family == "number":
        return Value(NUMBER, sql=f"(- {value.sql})", shown=shown)
    return calculate("-", Value(WHOLE, literal=Fraction(0), shown="0", constant=True, bound=0), value, shown)


def _remedy(operator: str, value: Value) -> str:
    if value.kind.family == "text":
        return f"; texts are joined by ||, and read as numbers by CAST({value.shown} AS DOUBLE)"
    if value.kind.family == "time":
        return f"; write date_part('year', {value.shown}), say"
    return ""


def _fold(operator: str, left: Fraction, right: Fraction, *, whole: bool) -> Fraction | None:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        return None
    # Towards zero, as SQL divides; the remainder has the sign of what is divided.
    quotient = Fraction(int(left / right))
    if operator == "%":
        return left - quotient * right
    return quotient if whole else left / right


def _operand(value: Value) -> str:
    if value.literal is not None:
        return whole_sql(int(value.literal))
    return value.sql if value.kind == WHOLE else f"arrow_cast({value.sql}, 'Int64')"


def _whole(operator: str, left: Value, right: Value) -> tuple[str, int]:
    for value in (left, right):
        if value.literal is not None and not -_LIMIT <= value.literal < _LIMIT:  # type: ignore[operator]
            raise FilterError(f"{value.shown} is more than 64 bits hold")
    one, two = _operand(left), _operand(right)
    if operator in "/%":
        divisor = two if right.literal else f"nullif({two}, 0)"
        return f"({one} {operator} {divisor})", left.bound
    bound = left.bound * right.bound if operator == "*" else left.bound + right.bound
    if bound < _LIMIT:
        return f"({one} {operator} {two})", bound
    # Arrow would wrap around silently: 50,000 * 50,000 is negative in 32 bits.
    wide = f"arrow_cast({one}, {_WIDE}) {operator} arrow_cast({two}, {_WIDE})"
    return f"arrow_cast({wide}, 'Int64')", _LIMIT


def _double(operator: str, left: Value, right: Value) -> str:
    one, two = as_double(left), as_double(right)
    if operator in "/%":
        # Added to 0, -0.0 becomes 0.0; a quotient by 0 is null, as of whole numbers.
        zero = right.literal is None or float_sql(Fraction(right.literal), right.shown) in ("0.0", "(-0.0)")
        two = f"nullif({two} + 0.0, 0.0)" if zero else two
    return f"({one} {operator} {two})"
