"""Filters: what a user wrote as `where`, checked against the columns and written anew as Lance reads it.

The user's text never reaches Lance. It is parsed (`filter_parsing`), each node of the tree is checked against the
columns and their types, and a condition in Lance's dialect is written from what was understood; all else is a
FilterError.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from functools import lru_cache
from typing import Any

import pyarrow as pa
from sqlglot import exp

from mmalign.errors import FilterError
from mmalign.store.filter_arithmetic import calculate, negate
from mmalign.store.filter_comparing import TextAndNumberError, compare_values, equal_constant, no_column
from mmalign.store.filter_functions import call, cast, part_of
from mmalign.store.filter_parsing import (
    MADE_OF,
    MAX_CALLS_NESTED,
    MAX_COLUMNS_LISTED,
    MAX_COMPARISONS_NESTED,
    is_marked,
    parse_condition,
    unmarked,
)
from mmalign.store.filter_values import (
    BOOLEAN,
    DATE,
    NULL,
    NUMBER,
    TEXT,
    TIME,
    WHOLE,
    Condition,
    Value,
    ValueKind,
    as_condition,
    constant,
    join,
    kind_of,
    leaf,
    text_sql,
    written,
)
from mmalign.store.names import renamed_columns

__all__ = ["TextAndNumberError", "filter_columns", "to_lance"]

_CACHED_CHARACTERS = 10_000
_CURLY = "\u2018\u2019\u201c\u201d\u00b4"
# What the store keeps for itself.
_INTERNAL = frozenset({"embedding", "said"})
_COMPARISONS: dict[type[exp.Expr], str] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_PREDICATES = (exp.Between, exp.In, exp.Is, exp.NullSafeEQ, exp.NullSafeNEQ, exp.Like, exp.ILike)
_NESTED: tuple[tuple[tuple[type[exp.Expr], ...], int, str], ...] = (
    ((exp.Anonymous, exp.Cast, exp.TryCast, exp.Extract), MAX_CALLS_NESTED, "functions"),
    ((*_COMPARISONS, *_PREDICATES), MAX_COMPARISONS_NESTED, "comparisons"),
)
_OPERATORS: dict[type[exp.Expr], str] = {exp.Add: "+", exp.Sub: "-", exp.Mul: "*", exp.Div: "/", exp.Mod: "%"}
_TYPES = {"TEXT": TEXT, "INT": WHOLE, "BIGINT": WHOLE, "DOUBLE": NUMBER, "DATE": DATE, "TIMESTAMP": TIME}


def filter_columns(schema: pa.Schema) -> list[str]:
    """The columns that a filter can name, in the order of the schema."""
    return [name for name in schema.names if name not in _INTERNAL and not name.startswith("_")]


def to_lance(where: object, schema: pa.Schema) -> str:
    """Check a filter and write it for Lance.

    Args:
        where: What the user wrote; see `docs/filters.md`.
        schema: The dataset's columns. The name that a renamed column had at first is in its field's metadata.

    Returns:
        A condition in Lance's dialect, over columns of the schema that are not internal.

    Raises:
        TextAndNumberError: A column of text is compared with a number; what the column holds is not known here.
        FilterError: Any other fault; the text says what was expected, and which columns there are.
    """
    if not isinstance(where, str):
        raise FilterError(f'a filter is a text in SQL, such as "year >= 2020", got {type(where).__name__}')
    text = str(where)
    return _cached(text, schema) if len(text) <= _CACHED_CHARACTERS else _write(text, schema)


def filter_refusal(where: str, reason: str, schema: pa.Schema) -> str:
    """The text of a FilterError."""
    shown = where if len(where) <= 200 else where[:197] + "..."
    return f"cannot filter by {shown!r}: {reason}\ncolumns here: {', '.join(filter_columns(schema))}"


def _write(text: str, schema: pa.Schema) -> str:
    try:
        return as_condition(_Reader(schema).read(parse_condition(text))).render()
    except TextAndNumberError:
        raise
    except RecursionError as error:
        raise FilterError(filter_refusal(text, "it is nested too deeply", schema)) from error
    except FilterError as error:
        raise FilterError(filter_refusal(text, str(error), schema)) from error


_cached = lru_cache(maxsize=256)(_write)


class _Reader:
    """Reads the nodes of a parsed filter, given the columns."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._names: list[str] = filter_columns(schema)
        # How many of the nodes around the one being read are of a sort.
        self._depth: dict[str, int] = {}
        self._originals = renamed_columns(schema)
        self._read: Mapping[type[exp.Expr], Callable[[Any], Value]] = {
            exp.And: self._chain,
            exp.Or: self._chain,
            exp.Not: lambda node: _of(self._condition(node.this).negated(), node),
            exp.Paren: lambda node: self.read(node.this),
            exp.Column: self._column,
            exp.Literal: _literal,
            exp.Boolean: _boolean,
            exp.Null: lambda node: Value(NULL, sql="NULL", shown="NULL", constant=True),
            exp.Neg: lambda node: negate(self.read(node.this)),
            exp.DPipe: self._concatenation,
            exp.Between: self._between,
            exp.In: self._in,
            exp.Is: self._is,
            exp.NullSafeEQ: lambda node: self._distinct(node, distinct=False),
            exp.NullSafeNEQ: lambda node: self._distinct(node, distinct=True),
            exp.Like: lambda node: self._like(node, ""),
            exp.ILike: lambda node: self._like(node, ""),
            exp.Escape: self._escape,
            exp.Anonymous: self._call,
            exp.Extract: self._extract,
            exp.Cast: self._cast,
            exp.TryCast: self._cast,
            exp.Array: self._array,
            **dict.fromkeys(_COMPARISONS, self._comparison),
            **dict.fromkeys(_OPERATORS, self._operator),
        }

    def read(self, node: exp.Expr) -> Value:
        """What a node stands for."""
        reader = self._read.get(type(node))
        if reader is None:
            raise FilterError(f"{_shown(node)} has no place in a filter; {MADE_OF}")
        _check_parts(node)
        for kinds, most, name in _NESTED:
            if isinstance(node, kinds):
                self._depth[name] = self._depth.get(name, 0) + 1
                if self._depth[name] > most:
                    raise FilterError(f"it has {name} nested more than {most} deep")
        value = reader(node)
        for kinds, _, name in _NESTED:
            self._depth[name] = self._depth.get(name, 0) - isinstance(node, kinds)
        return value

    def _condition(self, node: exp.Expr) -> Condition:
        return as_condition(self.read(node))

    # Names ---------------------------------------------------------------------------------------------------------

    def _column(self, node: exp.Column) -> Value:
        parts = node.parts
        if not all(isinstance(part, exp.Identifier) for part in parts):
            raise FilterError(f"{_shown(node)} has no place in a filter; {MADE_OF}")
        quoted = not all(is_marked(part.name) for part in parts)
        name = self._resolve(".".join(unmarked(part.name) for part in parts), quoted=quoted)
        if "`" in name or "." in name:
            raise FilterError(f"the column {name!r} cannot be named in a filter; give the metadata another name")
        kind = kind_of(self._schema.field(name).type)
        bound = 2 ** (kind.arrow.bit_width - 1) if kind.family == "whole" else 2**63
        shown = name if name.isidentifier() else f'"{name}"'
        return Value(kind, sql=f"`{name}`", shown=shown, column=name, bound=bound)

    def _resolve(self, name: str, *, quoted: bool) -> str:
        if name in self._names:
            return name
        if name in self._originals:
            return self._originals[name]
        for fold in (_composed, lambda text: _composed(text).casefold()):
            alike = [known for known in (*self._names, *self._originals) if fold(known) == fold(name)]
            alike = sorted({str(self._originals.get(known, known)) for known in alike})
            if len(alike) == 1 and (fold is _composed or not quoted):
                return alike[0]
        near = alike or difflib.get_close_matches(name, [*self._names, *self._originals], n=3, cutoff=0.6)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        if not near and quoted:
            hint = f"; a text is written in single quotes: {text_sql(name[:40])}"
        if not near and set(name) & set(_CURLY):
            hint = "; quotation marks are straight ones: 'x' for a text"
        raise FilterError(f"there is no column {name[:100]!r}{hint}")

    # Conditions ----------------------------------------------------------------------------------------------------

    def _chain(self, node: exp.Connector) -> Value:
        kind = type(node)
        parts: list[exp.Expr] = []
        rest: exp.Expr = node
        # The parser leans chains to the left, as long as they are.
        while type(rest) is kind:
            parts.append(rest.expression)
            rest = rest.this
        parts.append(rest)
        found = [self.read(part) for part in reversed(parts)]
        whole = join("AND" if kind is exp.And else "OR", map(as_condition, found))
        return Value(BOOLEAN, condition=whole, shown="(...)", constant=all(part.constant for part in found))

    def _comparison(self, node: exp.Binary) -> Value:
        left, right = self.read(node.this), self.read(node.expression)
        return _of(compare_values(_COMPARISONS[type(node)], left, right), node, left, right)

    def _between(self, node: exp.Between) -> Value:
        value, low, high = (self.read(node.args[part]) for part in ("this", "low", "high"))
        return _of(
            join("AND", [compare_values(">=", value, low), compare_values("<=", value, high)]), node, value, low, high
        )

    def _distinct(self, node: exp.Binary, *, distinct: bool) -> Value:
        left, right = self.read(node.this), self.read(node.expression)
        same = compare_values("=", left, right).render()
        both = join("AND", [_is_null(left), _is_null(right)])
        alike = join("OR", [leaf(f"({same}) IS TRUE", f"({same}) IS NOT TRUE"), both])
        return _of(alike.negated() if distinct else alike, node, left, right)

    def _in(self, node: exp.In) -> Value:
        value = self.read(node.this)
        if not node.expressions:
            raise FilterError("IN takes a list in brackets, such as IN ('a', 'b')")
        members = [self.read(member) for member in node.expressions]
        if all(one.constant for one in (value, *members)) and value.kind.family == "text":
            raise no_column(value)
        constants: dict[str, None] = {}
        parts: list[Condition] = []
        unfit = False
        for member in members:
            found = equal_constant(value, member)
            if found is None:
                parts.append(compare_values("=", value, member))
            else:
                constants.update(dict.fromkeys(found))
                unfit = unfit or not found
        if len(parts) > MAX_COLUMNS_LISTED:
            raise FilterError(
                f"a list with {len(parts):,} members that are no numbers, texts or dates, and at most "
                f"{MAX_COLUMNS_LISTED:,} of these are taken"
            )
        if constants:
            listed = ", ".join(constants)
            parts.append(leaf(f"{value.sql} IN ({listed})", f"{value.sql} NOT IN ({listed})"))
        elif unfit:
            parts.append(leaf(f"{value.sql} <> {value.sql}", f"{value.sql} = {value.sql}"))
        return _of(join("OR", parts), node, value, *members)

    def _is(self, node: exp.Is) -> Value:
        value, wanted = self.read(node.this), node.expression
        if isinstance(wanted, exp.Null):
            if value.constant and value.kind.family == "text":
                raise no_column(value)
            return _of(_is_null(value), node, value)
        if isinstance(wanted, exp.Column) and unmarked(wanted.name).upper() == "UNKNOWN" and len(wanted.parts) == 1:
            as_condition(value)
            return _of(_is_null(value), node, value)
        if not isinstance(wanted, exp.Boolean):
            raise FilterError("IS takes NULL, TRUE, FALSE, UNKNOWN or DISTINCT FROM; compare with =")
        word, sql = str(bool(wanted.this)).upper(), as_condition(value).render()
        return _of(leaf(f"({sql}) IS {word}", f"({sql}) IS NOT {word}"), node, value)

    def _escape(self, node: exp.Escape) -> Value:
        inner, sign = node.this, node.expression
        if not isinstance(inner, exp.Like | exp.ILike) or not isinstance(sign, exp.Literal) or len(sign.name) != 1:
            raise FilterError("ESCAPE takes one character in single quotes, behind LIKE or ILIKE")
        _check_parts(inner)
        return self._like(inner, sign.name)

    def _like(self, node: exp.Binary, escape: str) -> Value:
        value, pattern = self.read(node.this), self.read(node.expression)
        word = "LIKE" if isinstance(node, exp.Like) else "ILIKE"
        if "null" in (value.kind.family, pattern.kind.family):
            return _of(constant(None), node)
        if value.kind.family != "text":
            remedy = f"; write array_to_string({value.shown}, ' ') LIKE ..." if value.kind.family == "list" else ""
            raise FilterError(f"{value.described()}, and {word} compares texts{remedy}")
        if not isinstance(pattern.literal, str):
            raise FilterError(f"{word} takes a pattern in single quotes, got {pattern.shown[:80]}")
        if value.constant:
            raise no_column(value)
        right = text_sql(_like_pattern(pattern.literal, escape))
        found = leaf(f"{value.sql} {word} {right}", f"{value.sql} NOT {word} {right}")
        return _of(found.negated() if node.args.get("negate") else found, node, value)

    # Values --------------------------------------------------------------------------------------------------------

    def _operator(self, node: exp.Binary) -> Value:
        operator = _OPERATORS[type(node)]
        left, right = self.read(node.this), self.read(node.expression)
        return calculate(operator, left, right, f"({left.shown} {operator} {right.shown})")

    def _concatenation(self, node: exp.DPipe) -> Value:
        left, right = self.read(node.this), self.read(node.expression)
        for value in (left, right):
            if value.kind.family not in ("text", "null"):
                raise FilterError(f"{value.described()}, and || joins texts; write CAST({value.shown} AS TEXT)")
        one, two = ("arrow_cast(NULL, 'Utf8')" if one.kind.family == "null" else written(one) for one in (left, right))
        shown = f"({left.shown} || {right.shown})"
        return Value(TEXT, sql=f"({one} || {two})", shown=shown, constant=left.constant and right.constant)

    def _call(self, node: exp.Anonymous) -> Value:
        return call(unmarked(node.name), [self.read(argument) for argument in node.expressions])

    def _extract(self, node: exp.Extract) -> Value:
        if not isinstance(node.this, exp.Var | exp.Literal | exp.Column):
            raise FilterError(f"{_shown(node.this)} is no part of a date; write EXTRACT(year FROM ...)")
        return part_of(unmarked(node.this.name), self.read(node.expression))

    def _cast(self, node: exp.Cast) -> Value:
        kind = _TYPES.get(node.to.this.name) if isinstance(node.to.this, exp.DType) else None
        if kind is None or node.to.expressions or node.to.args.get("nested"):
            raise FilterError(f"{_shown(node)}: a value is cast to TEXT, BIGINT, DOUBLE, DATE or TIMESTAMP")
        return cast(self.read(node.this), kind, lenient=isinstance(node, exp.TryCast))

    def _array(self, node: exp.Array) -> Value:
        members = tuple(self.read(member) for member in node.expressions)
        if any(member.literal is None and member.condition is None for member in members):
            raise FilterError("a list that is written out holds texts, numbers, TRUE and FALSE only")
        shown = f"[{', '.join(member.shown for member in members[:10])}]"
        return Value(ValueKind("other", pa.null()), shown=shown, members=members, constant=True)


# What each node may carry, beside None, False and empty lists: all else would change its meaning.
_PARTS: dict[type[exp.Expr], set[str]] = {
    exp.Column: {"this", "table", "db", "catalog"},
    exp.Literal: {"this", "is_string"},
    exp.Boolean: {"this"},
    exp.Null: set(),
    exp.Between: {"this", "low", "high"},
    exp.In: {"this", "expressions"},
    exp.Like: {"this", "expression", "negate"},
    exp.ILike: {"this", "expression", "negate"},
    exp.DPipe: {"this", "expression", "safe"},
    exp.Div: {"this", "expression", "typed", "safe"},
    exp.Anonymous: {"this", "expressions"},
    exp.Cast: {"this", "to"},
    exp.TryCast: {"this", "to", "safe"},
    exp.Array: {"expressions"},
}


def _check_parts(node: exp.Expr) -> None:
    known = _PARTS.get(type(node), {"this", "expression"})
    odd = [part for part, value in node.args.items() if value not in (None, False, []) and part not in known]
    if odd:
        raise FilterError(f"{_shown(node)} has no place in a filter; {MADE_OF}")


def _shown(node: exp.Expr) -> str:
    """A node as it may have been written; short, for errors."""
    if isinstance(node, exp.Literal):
        return text_sql(node.name) if node.is_string else node.name
    if isinstance(node, exp.Column | exp.Identifier | exp.Var | exp.Boolean | exp.Anonymous):
        return unmarked(str(node.name or node.this))[:80]
    return type(node).__name__.upper()


def _of(condition: Condition, node: exp.Expr, *values: Value) -> Value:
    constant = bool(values) and all(value.constant for value in values)
    return Value(BOOLEAN, condition=condition, shown="(...)", constant=constant)


def _literal(node: exp.Literal) -> Value:
    if node.is_string:
        return Value(TEXT, literal=node.name, shown=text_sql(node.name), constant=True)
    text = node.name
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise FilterError(f"{text[:40]} is not a number") from error
    if not number.is_finite() or len(text) > 400 or (number != 0 and abs(number.adjusted()) > 400):
        raise FilterError(f"{text[:40]} is more than any number that a column can hold")
    whole = text.isdigit()
    value = Fraction(number) if number != 0 else Fraction(0)
    return Value(WHOLE if whole else NUMBER, literal=value, shown=text, constant=True, bound=abs(int(value)))


def _boolean(node: exp.Boolean) -> Value:
    return Value(BOOLEAN, condition=constant(bool(node.this)), shown=str(node.this).upper(), constant=True)


def _composed(name: str) -> str:
    """The same name, however its accents are put together."""
    return unicodedata.normalize("NFC", name)


def _is_null(value: Value) -> Condition:
    if value.kind.family == "null":
        return constant(True)
    if value.literal is not None:
        return constant(False)
    return leaf(f"{written(value)} IS NULL", f"{written(value)} IS NOT NULL")


def _like_pattern(pattern: str, escape: str) -> str:
    """A pattern in which a backslash escapes, as Arrow reads it, for one with another sign or none."""
    if escape in ("", "\\"):
        return pattern
    found = ""
    signs = iter(pattern)
    for sign in signs:
        if sign == escape:
            sign = next(signs, "")
            if sign not in ("%", "_", escape):
                raise FilterError(f"in {pattern[:80]!r} the sign {escape!r} escapes nothing; it goes before % or _")
            found += f"\\{sign}" if sign in "%_\\" else sign
        else:
            found += "\\\\" if sign == "\\" else sign
    return found
