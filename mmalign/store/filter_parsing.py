"""The text of a filter, parsed: what may be written, how long and how deep; no column is looked at here.

The grammar is sqlglot's with little left in it. There is no keyword beyond those of conditions, and what the user wrote
as a name is marked before sqlglot's parser sees it, so that it takes no name for a statement, a function that it parses
in a way of its own (but CAST, TRY_CAST and EXTRACT) or a clause: a column may be called `order`, `case` or `select`.
"""

from __future__ import annotations

import re

from sqlglot import Token, TokenType, exp, tokens
from sqlglot.dialects.dialect import Dialect
from sqlglot.errors import SqlglotError

from mmalign.errors import FilterError

MAX_CHARACTERS = 1_000_000
MAX_WORDS = 50_000
MAX_NESTING = 16
MAX_CONDITIONS = 1_000
MAX_LIST = 10_000
MAX_TEXT = 10_000
# Lance's planner takes time that is exponential in these: `coalesce` of itself, 16 deep, took 50 seconds on one row.
MAX_CALLS_NESTED = 6
MAX_COMPARISONS_NESTED = 4
MAX_COLUMNS_LISTED = 10
# Lance's planner takes more than linear time, and stack, for chains of these: at 1,000 the process ends by a signal.
MAX_OPERATORS = 20
MAX_PATTERNS = 10

# No name that is typed begins with it.
_MARK = "\x01"
_QUOTED = re.compile("'[^']*'")
_WORD = re.compile(r"\w+|[^\w\s]")
# What is said where something else is found.
MADE_OF = (
    "a filter is made of columns, texts in single quotes, numbers, = <> < <= > >=, IN, BETWEEN, LIKE, ILIKE, IS NULL, "
    "AND, OR, NOT, + - * / %, || and functions"
)

_TYPES = {
    "INT": TokenType.INT,
    "INTEGER": TokenType.INT,
    "BIGINT": TokenType.BIGINT,
    "DOUBLE": TokenType.DOUBLE,
    "DOUBLE PRECISION": TokenType.DOUBLE,
    "FLOAT": TokenType.DOUBLE,
    "REAL": TokenType.DOUBLE,
    "TEXT": TokenType.TEXT,
    "VARCHAR": TokenType.TEXT,
    "STRING": TokenType.TEXT,
    "DATE": TokenType.DATE,
    "TIMESTAMP": TokenType.TIMESTAMP,
}
_WORDS = {
    "AND": TokenType.AND,
    "OR": TokenType.OR,
    "NOT": TokenType.NOT,
    "IN": TokenType.IN,
    "IS": TokenType.IS,
    "NULL": TokenType.NULL,
    "TRUE": TokenType.TRUE,
    "FALSE": TokenType.FALSE,
    "LIKE": TokenType.LIKE,
    "ILIKE": TokenType.ILIKE,
    "BETWEEN": TokenType.BETWEEN,
    "ESCAPE": TokenType.ESCAPE,
    "DISTINCT": TokenType.DISTINCT,
    "FROM": TokenType.FROM,
    "AS": TokenType.ALIAS,
}
_SIGNS = {
    "||": TokenType.DPIPE,
    "<>": TokenType.NEQ,
    "!=": TokenType.NEQ,
    "<=": TokenType.LTE,
    ">=": TokenType.GTE,
    "==": TokenType.EQ,
    "::": TokenType.DCOLON,
}
_OPENING = {TokenType.L_PAREN, TokenType.L_BRACKET}
_CLOSING = {TokenType.R_PAREN, TokenType.R_BRACKET}
_OPERATORS = {TokenType.PLUS, TokenType.DASH, TokenType.STAR, TokenType.SLASH, TokenType.MOD, TokenType.DPIPE}
_COMPARISONS = {
    TokenType.EQ,
    TokenType.NEQ,
    TokenType.LT,
    TokenType.LTE,
    TokenType.GT,
    TokenType.GTE,
    TokenType.LIKE,
    TokenType.ILIKE,
    TokenType.IN,
    TokenType.IS,
    TokenType.BETWEEN,
}
_ALLOWED = (
    {*_TYPES.values(), *_WORDS.values(), *_SIGNS.values()}
    | (_OPENING | _CLOSING | _OPERATORS | _COMPARISONS)
    | {TokenType.VAR, TokenType.IDENTIFIER, TokenType.STRING, TokenType.NUMBER, TokenType.COMMA, TokenType.DOT}
)


class _Filter(Dialect):
    class Tokenizer(tokens.Tokenizer):
        QUOTES = ["'"]  # noqa: RUF012
        IDENTIFIERS = ['"', "`"]  # noqa: RUF012
        STRING_ESCAPES = ["'"]  # noqa: RUF012
        IDENTIFIER_ESCAPES = ['"', "`"]  # noqa: RUF012
        KEYWORDS = {**_SIGNS, **_WORDS, **_TYPES}  # noqa: RUF012


_DIALECT = _Filter()


def parse_condition(text: str) -> exp.Expr:
    """Parse a filter.

    Args:
        text: What the user wrote.

    Returns:
        sqlglot's tree, in which names that were not in quotes and those of functions are marked (`is_marked`,
        `unmarked`). Its nodes are still to be checked one by one; it is at most `MAX_NESTING` brackets deep, beside
        chains of AND, OR and at most `MAX_OPERATORS` operators.

    Raises:
        FilterError: Not a condition, too long or too deep; the text says why, and no more.
    """
    if len(text) > MAX_CHARACTERS:
        raise FilterError(f"it has {len(text):,} characters, and at most {MAX_CHARACTERS:,} are read")
    # Counted before it is parsed, which takes a hundred times as long.
    words = len(_WORD.findall(_QUOTED.sub("x", text)))
    if words > MAX_WORDS:
        raise FilterError(f"it has {words:,} words and signs, and at most {MAX_WORDS:,} are read")
    if not text.strip():
        raise FilterError("it is empty; leave it out for all items")
    if "\0" in text:
        raise FilterError("it holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FilterError("it holds half of a surrogate pair, which is no character") from error
    try:
        found = _DIALECT.tokenize(text)
    except SqlglotError as error:
        raise FilterError("a quotation mark is not closed") from error
    _check(found)
    try:
        [tree] = _DIALECT.parser().parse_into(exp.Condition, _marked(found), text)
    except SqlglotError as error:
        raise FilterError(_explained(error)) from error
    except RecursionError as error:
        raise FilterError("it is nested too deeply") from error
    if not isinstance(tree, exp.Expr):
        raise FilterError("it holds no condition")
    return tree


def _check(found: list[Token]) -> None:
    """Refuse what no condition holds, and what the parser or Lance would take too long or too deep a stack for."""
    if not found:
        raise FilterError("it holds no condition")
    unary = conditions = operators = patterns = 0
    # For each open bracket: comparisons since the last AND, OR or comma; items; whether a BETWEEN waits for its AND.
    levels = [[0, 1, 0]]
    for token, after in zip(found, [*found[1:], None], strict=True):
        kind = token.token_type
        if token.comments:
            raise FilterError("it holds a comment (`--` or `/*`); leave that out")
        if kind is TokenType.VAR and token.text.startswith("$"):
            raise FilterError(
                f"{token.text} is a placeholder, which nothing fills in; write the value itself, "
                f'and a column of that name in quotes: "{token.text}"'
            )
        if kind in (TokenType.PLACEHOLDER, TokenType.COLON, TokenType.PARAMETER):
            raise FilterError(f"{token.text!r} marks a placeholder, which nothing fills in; write the value itself")
        if kind is TokenType.SEMICOLON:
            raise FilterError("it holds a semicolon; a filter is one condition")
        if kind not in _ALLOWED or (_MARK in token.text and kind is not TokenType.STRING):
            raise FilterError(f"{token.text[:40]!r} (character {token.start + 1}) has no place in a filter; {MADE_OF}")
        if kind in (TokenType.STRING, TokenType.IDENTIFIER, TokenType.VAR) and len(token.text) > MAX_TEXT:
            raise FilterError(f"a text of {len(token.text):,} characters; at most {MAX_TEXT:,} are compared")
        level = levels[-1]
        if kind in _OPENING:
            levels.append([0, 1, 0])
        elif kind in _CLOSING and len(levels) > 1:
            levels.pop()
        elif kind is TokenType.COMMA:
            level[0], level[1] = 0, level[1] + 1
        elif kind is TokenType.AND and level[2]:
            level[2] = 0
        elif kind in (TokenType.AND, TokenType.OR):
            conditions += 1
            level[0] = level[2] = 0
        elif kind in _COMPARISONS:
            level[0] += 1
            level[2] = int(kind is TokenType.BETWEEN)
            if level[0] > 1:
                raise FilterError(
                    f"a second comparison ({token.text}, character {token.start + 1}) without AND or OR; "
                    "put one of the two in brackets"
                )
        operators += kind in _OPERATORS or kind is TokenType.DCOLON
        unary = unary + 1 if kind in (TokenType.NOT, TokenType.DASH, TokenType.PLUS) else 0
        patterns += kind is TokenType.VAR and token.text.lower().startswith("regexp") and _opens(after)
        if max(len(levels) - 1, unary) > MAX_NESTING:
            raise FilterError(f"it is nested more than {MAX_NESTING} deep")
        if level[1] > MAX_LIST:
            raise FilterError(f"a list of more than {MAX_LIST:,} values")
    for count, most, name in (
        (conditions + 1, MAX_CONDITIONS, "conditions, joined by AND or OR,"),
        (operators, MAX_OPERATORS, "operators (+ - * / % || ::)"),
        (patterns, MAX_PATTERNS, "regular expressions"),
    ):
        if count > most:
            raise FilterError(f"it has {count:,} {name} and at most {most:,} are taken")


def is_marked(name: str) -> bool:
    """Whether a name was written without quotes."""
    return name.startswith(_MARK)


def unmarked(name: str) -> str:
    """A name as the user wrote it."""
    return name.removeprefix(_MARK)


def _marked(found: list[Token]) -> list[Token]:
    """The same with names marked, and words that are names in their place made names."""
    marked: list[Token] = []
    for token, before, after in zip(found, [None, *found[:-1]], [*found[1:], None], strict=True):
        kind, follows = token.token_type, None if after is None else after.token_type
        text = token.text
        if kind is TokenType.VAR and text.upper() == "ARRAY" and follows is TokenType.L_BRACKET:
            continue
        cast = before is not None and before.token_type in (TokenType.ALIAS, TokenType.DCOLON)
        typed = kind in _TYPES.values() and (cast or follows is TokenType.STRING)
        own = kind is TokenType.VAR and text.upper() in ("CAST", "TRY_CAST", "EXTRACT") and follows is TokenType.L_PAREN
        if kind in (TokenType.VAR, TokenType.IDENTIFIER, *_TYPES.values()) and not typed and not own:
            if follows is TokenType.L_PAREN:
                kind, text = TokenType.VAR, _MARK + text
            elif kind is not TokenType.IDENTIFIER:
                kind, text = TokenType.IDENTIFIER, _MARK + text
        marked.append(Token(kind, text, token.line, token.col, token.start, token.end, []))
    return marked


def _opens(token: Token | None) -> bool:
    return token is not None and token.token_type is TokenType.L_PAREN


def _explained(error: SqlglotError) -> str:
    """Where the parser gave up, without its coloured excerpt."""
    first = (getattr(error, "errors", None) or [{}])[0]
    message = str(first.get("description") or "").split(". Line")[0].replace(_MARK, "")
    if "Required keyword" in message or not message:
        message = "something is missing"
    near = str(first.get("highlight") or "")[:40]
    return f"it is not a condition in SQL: {message[:120]}" + (f" near {near!r}" if near else "") + f"; {MADE_OF}"
