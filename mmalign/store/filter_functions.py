"""The functions that a filter may call: what each takes and gives, and how Lance spells it.

What is not here is refused: a function whose result can be much longer than what it is given, such as `repeat`, ran for
a minute on one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from mmalign.errors import FilterError
from mmalign.store.filter_comparing import no_column
from mmalign.store.filter_times import check_zone, parse_time
from mmalign.store.filter_values import (
    BOOLEAN,
    DATE,
    NUMBER,
    TEXT,
    TIME,
    WHOLE,
    Value,
    ValueKind,
    arrow_name,
    as_double,
    constant,
    is_date,
    kind_of,
    leaf,
    text_sql,
    time_sql,
    unit_of,
    whole_sql,
    written,
)

_MAX_SEPARATOR = 100
_MAX_PATTERN = 1_000
_MAX_MEMBERS = 1_000
_DATE_PARTS = ("year", "quarter", "month", "week", "day", "dow", "doy")
_TIME_PARTS = ("hour", "minute", "second")

Function = Callable[[str, Sequence[Value]], Value]


def call(name: str, arguments: Sequence[Value]) -> Value:
    """Call a function.

    Args:
        name: As the user wrote it; case does not count.
        arguments: Its arguments.

    Returns:
        The result.

    Raises:
        FilterError: No such function, or the arguments do not fit it; the text says which functions there are.
    """
    function = _FUNCTIONS.get(name.lower())
    if function is None:
        raise FilterError(
            f"there is no function {name[:40]}() in filters; there are {', '.join(FUNCTIONS)}, CAST, TRY_CAST and "
            "EXTRACT"
        )
    found = function(name.lower(), arguments)
    if found.kind.family == "boolean" and found.constant and found.condition is None:
        raise no_column(arguments[0])
    return found


def part_of(part: str, value: Value) -> Value:
    """A part of a date or time, such as its year, as a whole number."""
    name = part.lower()
    if value.kind.family == "text" and value.literal is not None:
        value = parse_time(value)
    shown = f"date_part('{name}', {value.shown})"
    if value.kind.family == "null":
        return Value(WHOLE, sql="arrow_cast(NULL, 'Int64')", shown=shown, constant=True)
    if value.kind.family != "time":
        raise FilterError(f"{value.described()}, and date_part takes a date{_cast_remedy(value)}")
    known = _DATE_PARTS if is_date(value.kind.arrow) else _DATE_PARTS + _TIME_PARTS
    if name not in known:
        raise FilterError(f"{part[:40]!r} is no part of {value.kind.holds}; there are {', '.join(known)}")
    sql = f"arrow_cast(date_part('{name}', {written(value)}), 'Int64')"
    return Value(WHOLE, sql=sql, shown=shown, constant=value.constant, bound=2**31)


def cast(value: Value, kind: ValueKind, *, lenient: bool) -> Value:
    """Turn a value into another type.

    Args:
        value: The value.
        kind: Text, whole numbers, numbers, dates, or dates with times.
        lenient: Whether what cannot be turned becomes null; else the search fails with an error.

    Raises:
        FilterError: Nothing of the one type is ever one of the other.
    """
    names = {TEXT: "TEXT", WHOLE: "BIGINT", NUMBER: "DOUBLE", DATE: "DATE", TIME: "TIMESTAMP"}
    shown = f"CAST({value.shown} AS {names[kind]})"
    family = value.kind.family
    possible = {
        "text": ("text", "whole", "number", "boolean", "time"),
        "whole": ("text", "whole", "number", "boolean"),
        "number": ("text", "whole", "number", "boolean"),
        "time": ("text", "time"),
    }[kind.family]
    if family != "null" and family not in possible:
        raise FilterError(f"{value.described()}, which cannot be cast to {names[kind]}")
    if family == "text" and kind.family == "time" and value.literal is not None:
        moment = parse_time(value)
        # Else a constant with a time would be read as a date by cutting it.
        literal = int(moment.literal or 0)
        return Value(kind, literal=literal - literal % _per(kind), shown=value.shown, constant=True, zoned=moment.zoned)
    if kind.family == "number" and value.literal is not None and family in ("whole", "number"):
        return Value(NUMBER, literal=value.literal, shown=value.shown, constant=True)
    if kind.family == "time" and family == "time" and not is_date(kind.arrow) and not is_date(value.kind.arrow):
        return value
    target = {"text": "'Utf8'", "whole": "'Int64'", "number": "'Float64'"}.get(kind.family) or arrow_name(kind.arrow)
    function = "arrow_try_cast" if lenient else "arrow_cast"
    return Value(kind, sql=f"{function}({written(value)}, {target})", shown=shown, constant=value.constant)


def _per(kind: ValueKind) -> int:
    return 86_400 * 10**9 if is_date(kind.arrow) else 1


def _cast_remedy(value: Value) -> str:
    return f"; write CAST({value.shown} AS DATE)" if value.kind.family == "text" else ""


# Arguments ------------------------------------------------------------------------------------------------------------


def _count(name: str, arguments: Sequence[Value], least: int, most: int | None = None) -> None:
    most = least if most is None else most
    if not least <= len(arguments) <= most:
        wanted = str(least) if least == most else f"{least} to {most}" if most < 99 else f"at least {least}"
        raise FilterError(f"{name}() takes {wanted} argument{'' if wanted == '1' else 's'}, got {len(arguments)}")


def _text(name: str, value: Value) -> str:
    if value.kind.family not in ("text", "null"):
        remedy = f"; write array_to_string({value.shown}, ' ')" if value.kind.family == "list" else ""
        raise FilterError(f"{value.described()}, and {name}() takes a text{remedy}")
    return "arrow_cast(NULL, 'Utf8')" if value.kind.family == "null" else written(value)


def _literal_text(name: str, value: Value, most: int) -> str:
    if not isinstance(value.literal, str) or value.kind.family != "text":
        raise FilterError(f"{name}() takes here a text in single quotes, got {value.shown[:80]}")
    if len(value.literal) > most:
        raise FilterError(f"{name}() takes here a text of at most {most:,} characters, got {len(value.literal):,}")
    return value.literal


def _number(name: str, value: Value) -> str:
    if value.kind.family not in ("whole", "number"):
        raise FilterError(f"{value.described()}, and {name}() takes a number")
    return written(value)


def _list(name: str, value: Value) -> ValueKind:
    if value.kind.family != "list":
        raise FilterError(f"{value.described()}, and {name}() takes a list first")
    return kind_of(value.kind.arrow.value_type)


def _shown(name: str, arguments: Sequence[Value]) -> str:
    return f"{name}({', '.join(argument.shown for argument in arguments)})"


def _constant(arguments: Sequence[Value]) -> bool:
    return all(argument.constant for argument in arguments)


def _whole(sql: str, name: str, arguments: Sequence[Value]) -> Value:
    wide = f"arrow_cast({sql}, 'Int64')"
    return Value(WHOLE, sql=wide, shown=_shown(name, arguments), constant=_constant(arguments), bound=2**32)


# Functions ------------------------------------------------------------------------------------------------------------


def _text_to_text(lance: str) -> Function:
    def apply(name: str, arguments: Sequence[Value]) -> Value:
        _count(name, arguments, 1)
        sql = f"{lance}({_text(name, arguments[0])})"
        return Value(TEXT, sql=sql, shown=_shown(name, arguments), constant=_constant(arguments))

    return apply


def _text_to_whole(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 1)
    return _whole(f"character_length({_text(name, arguments[0])})", name, arguments)


def _text_test(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 2)
    sql = f"{name}({', '.join(_text(name, argument) for argument in arguments)})"
    return Value(BOOLEAN, sql=sql, shown=_shown(name, arguments), constant=_constant(arguments))


def _strpos(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 2)
    return _whole(f"strpos({', '.join(_text(name, argument) for argument in arguments)})", name, arguments)


def _end_of_text(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 2)
    count = arguments[1].literal
    if not isinstance(count, Fraction) or count.denominator != 1 or not 0 <= count < 2**31:
        raise FilterError(f"{name}() takes a whole number from 0 as its second argument, got {arguments[1].shown}")
    sql = f"{name}({_text(name, arguments[0])}, {int(count)})"
    return Value(TEXT, sql=sql, shown=_shown(name, arguments), constant=_constant(arguments))


def _concat(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 1, 99)
    sql = f"concat({', '.join(_text(name, argument) for argument in arguments)})"
    return Value(TEXT, sql=sql, shown=_shown(name, arguments), constant=_constant(arguments))


def _regexp_like(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 2, 3)
    pattern = _literal_text(name, arguments[1], _MAX_PATTERN)
    flags = _literal_text(name, arguments[2], 4) if len(arguments) == 3 else ""
    if set(flags) - set("imsx"):
        raise FilterError(f"{name}() takes the flags i, m, s and x, got {arguments[2].shown}")
    given = [_text(name, arguments[0]), text_sql(pattern)] + ([text_sql(flags)] if flags else [])
    sql = f"regexp_like({', '.join(given)})"
    return Value(BOOLEAN, sql=sql, shown=_shown(name, arguments), constant=arguments[0].constant)


def _number_to_number(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 1, 2 if name == "round" else 1)
    value = arguments[0]
    _number(name, value)
    shown = _shown(name, arguments)
    if name == "abs" and value.kind.family == "whole":
        sql = f"abs(arrow_cast({written(value)}, 'Int64'))"
        return Value(WHOLE, sql=sql, shown=shown, constant=value.constant, bound=value.bound)
    given = [as_double(value)]
    if len(arguments) == 2:
        places = arguments[1].literal
        if not isinstance(places, Fraction) or places.denominator != 1 or abs(places) > 300:
            raise FilterError(f"{name}() takes a whole number of places, got {arguments[1].shown}")
        given.append(whole_sql(int(places)))
    return Value(NUMBER, sql=f"{name}({', '.join(given)})", shown=shown, constant=value.constant)


def _array_to_string(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 2)
    _list(name, arguments[0])
    separator = _literal_text(name, arguments[1], _MAX_SEPARATOR)
    sql = f"array_to_string({arguments[0].sql}, {text_sql(separator)})"
    return Value(TEXT, sql=sql, shown=_shown(name, arguments), constant=_constant(arguments))


def _array_length(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 1)
    _list(name, arguments[0])
    return _whole(f"array_length({arguments[0].sql})", name, arguments)


def _array_has(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 2)
    values, value = arguments
    element, shown = _list(name, values), _shown(name, arguments)
    if value.kind.family == "null":
        return Value(BOOLEAN, condition=constant(None), shown=shown, constant=True)
    found = _element(values, element, value)
    if found is None:
        return _never(values, shown)
    return Value(BOOLEAN, sql=f"array_has({values.sql}, {found})", shown=shown)


def _array_has_several(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 2)
    values, several = arguments
    element, shown = _list(name, values), _shown(name, arguments)
    if several.members is None:
        if several.kind != values.kind:
            raise FilterError(f"{name}() takes a second list such as ['a', 'b'], got {several.shown[:80]}")
        return Value(BOOLEAN, sql=f"{name}({values.sql}, {several.sql})", shown=shown)
    if not 0 < len(several.members) <= _MAX_MEMBERS:
        raise FilterError(f"{name}() takes a list of 1 to {_MAX_MEMBERS:,} values, got {len(several.members):,}")
    found = [_element(values, element, member) for member in several.members]
    kept = [sql for sql in found if sql is not None]
    if not kept or (len(kept) < len(found) and name == "array_has_all"):
        return _never(values, shown)
    return Value(BOOLEAN, sql=f"{name}({values.sql}, [{', '.join(kept)}])", shown=shown)


def _element(values: Value, element: ValueKind, value: Value) -> str | None:
    """A value as it can be an element of a list; None where no list of that kind holds it, as 4.5 of whole numbers."""
    one, two = element.family, value.kind.family
    if one == two == "text" or one == two == "boolean":
        return written(value)
    if one == "number" and two in ("whole", "number"):
        return as_double(value)
    if one == "whole" and two == "number" and value.literal is not None and Fraction(value.literal).denominator == 1:
        return whole_sql(int(value.literal)) if -(2**63) <= int(value.literal) < 2**63 else None
    if one == "whole" and two == "number" and value.literal is not None:
        return None
    if one == two == "whole":
        literal = value.literal
        return None if literal is not None and not -(2**63) <= int(literal) < 2**63 else written(value)
    raise FilterError(f"{values.described()}, and {value.described()}: a list of these cannot hold it")


def _never(values: Value, shown: str) -> Value:
    """False, and unknown where there is no list."""
    size = f"array_length({values.sql})"
    return Value(BOOLEAN, condition=leaf(f"{size} < 0", f"{size} >= 0"), shown=shown)


def _coalesce(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 1, 99)
    kind, given = _alike(name, arguments)
    bound = max(argument.bound for argument in arguments)
    shown = _shown(name, arguments)
    return Value(kind, sql=f"coalesce({', '.join(given)})", shown=shown, constant=_constant(arguments), bound=bound)


def _nullif(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 2)
    kind, given = _alike(name, arguments)
    shown, bound = _shown(name, arguments), arguments[0].bound
    return Value(kind, sql=f"nullif({', '.join(given)})", shown=shown, constant=_constant(arguments), bound=bound)


def _alike(name: str, arguments: Sequence[Value]) -> tuple[ValueKind, list[str]]:
    """The type that all arguments have, and the arguments in it."""
    given = [argument for argument in arguments if argument.kind.family != "null"]
    if not given:
        raise FilterError(f"{name}() takes at least one value that is not NULL")
    families = {argument.kind.family for argument in given}
    if "time" in families and families <= {"time", "text"}:
        given = [parse_time(one) if isinstance(one.literal, str) else one for one in given]
        families = {one.kind.family for one in given}
    if families == {"whole", "number"}:
        return NUMBER, [_null(one, "'Float64'") or as_double(one) for one in arguments]
    if len(families) > 1 or families & {"list", "other"}:
        raise FilterError(f"{name}() takes values of one type; " + ", ".join(one.described() for one in given))
    family = families.pop()
    if family == "time":
        return _alike_times(name, arguments, given)
    if family == "whole":
        return WHOLE, [_null(one, "'Int64'") or _wide(one) for one in arguments]
    kind = {"text": TEXT, "number": NUMBER, "boolean": BOOLEAN}[family]
    target = {"text": "'Utf8'", "number": "'Float64'", "boolean": "'Boolean'"}[family]
    return kind, [_null(one, target) or written(one) for one in arguments]


def _alike_times(name: str, arguments: Sequence[Value], given: Sequence[Value]) -> tuple[ValueKind, list[str]]:
    kinds = {one.kind for one in given if one.literal is None} or {one.kind for one in given}
    if len(kinds) > 1:
        raise FilterError(f"{name}() takes values of one type; " + ", ".join(one.described() for one in given))
    kind = kinds.pop()
    found = []
    for one in arguments:
        moment = parse_time(one) if isinstance(one.literal, str) else one
        if moment.literal is None:
            found.append(_null(moment, arrow_name(kind.arrow)) or moment.sql)
            continue
        check_zone(Value(kind, sql="x", shown=given[0].shown), moment)
        number, rest = divmod(int(moment.literal), unit_of(kind.arrow))
        if rest:
            raise FilterError(f"{moment.shown} is finer than {kind.holds}; {name}() takes values of one type")
        found.append(time_sql(number, kind))
    return kind, found


def _null(value: Value, target: str) -> str:
    return f"arrow_cast(NULL, {target})" if value.kind.family == "null" else ""


def _wide(value: Value) -> str:
    return written(value) if value.literal is not None or value.kind == WHOLE else f"arrow_cast({value.sql}, 'Int64')"


def _date_part(name: str, arguments: Sequence[Value]) -> Value:
    _count(name, arguments, 2)
    return part_of(_literal_text(name, arguments[0], 20), arguments[1])


_FUNCTIONS: dict[str, Function] = {
    "lower": _text_to_text("lower"),
    "upper": _text_to_text("upper"),
    "trim": _text_to_text("btrim"),
    "btrim": _text_to_text("btrim"),
    "ltrim": _text_to_text("ltrim"),
    "rtrim": _text_to_text("rtrim"),
    "left": _end_of_text,
    "right": _end_of_text,
    "concat": _concat,
    "length": _text_to_whole,
    "char_length": _text_to_whole,
    "character_length": _text_to_whole,
    "strpos": _strpos,
    "contains": _text_test,
    "starts_with": _text_test,
    "ends_with": _text_test,
    "regexp_like": _regexp_like,
    "abs": _number_to_number,
    "round": _number_to_number,
    "sqrt": _number_to_number,
    "date_part": _date_part,
    "coalesce": _coalesce,
    "nullif": _nullif,
    "array_has": _array_has,
    "array_contains": _array_has,
    "list_contains": _array_has,
    "list_has": _array_has,
    "array_has_any": _array_has_several,
    "array_has_all": _array_has_several,
    "array_length": _array_length,
    "cardinality": _array_length,
    "array_to_string": _array_to_string,
}
# Every name that `call` knows, for messages and pages.
FUNCTIONS = tuple(_FUNCTIONS)
