"""The records of delimited text, one stray quotation mark costing no more than its own line.

The standard's reading of quotes (RFC 4180) comes first, by Python's `csv` in its strict mode. Where a line does not
follow it, a backslash before a quotation mark is taken for an escape; what is left is read as it stands there, and the
record says so. A quoted field may run over lines, unless one of those lines is plainly a row of its own.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

_MOST_LINES = 1000
_MOST_CHARS = 1 << 20
_ESCAPED_QUOTE = re.compile(r'(?<!\\)((?:\\\\)*)\\"')


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a delimited text.

    Attributes:
        line: Number of its first line, from 1.
        cells: Its fields.
        stray: Number of the line where a quotation mark without a partner was read as an ordinary character; 0 if none.
        problem: Why the row cannot be used; empty where it can.
        lines: How many lines it takes.
    """

    line: int
    cells: list[str]
    stray: int = 0
    problem: str = ""
    lines: int = 1


@dataclass(frozen=True, slots=True)
class RowShape:
    """What tells a row from a line of text that runs on.

    Attributes:
        fields: Number of fields.
        path: Position of the field that says where the picture is; None where no column does.
        is_path: Whether a text can only be a place of a picture, such as `a.jpg`.
    """

    fields: int
    path: int | None
    is_path: Callable[[str], bool]

    def fits(self, line: str, delimiter: str, like: str) -> bool | None:
        """Whether a line inside of an open quotation is a row: True, False, or None where nobody can know.

        Args:
            line: The line, without its end.
            delimiter: What separates fields.
            like: The path of the row before it.

        Returns:
            None where only the number of fields says that it is a row.
        """
        if self.path is None:
            return False
        cells, unpaired = split_leniently(line, delimiter)
        if len(cells) != self.fields or (unpaired is not None and self.path >= unpaired):
            return False
        path = cells[self.path].strip()
        if not path:
            return False
        if self.is_path(path):
            return True
        if _pattern(path) != _pattern(like.strip()):
            return False
        return True if any(map(str.isdigit, path)) else None


def read_records(
    lines: Iterable[str], delimiter: str, *, quoted: bool = True, shape: RowShape | None = None, start: int = 1
) -> Iterator[Record]:
    """Split delimited text into records; blank lines are left out.

    Args:
        lines: The lines, with their ends.
        delimiter: What separates fields: one character.
        quoted: Whether quotation marks mean anything.
        shape: What a row looks like; where None, a quotation that does not end on its line runs on.
        start: Number of the first line.

    Yields:
        A record for each row; one that cannot be used has its `problem`.
    """
    source = enumerate(lines, start)
    ahead: deque[tuple[int, str]] = deque()
    fields = None if shape is None else shape.fields
    while True:
        entry = ahead.popleft() if ahead else next(source, None)
        if entry is None:
            return
        number, line = entry
        text = line.rstrip("\r\n")
        if not text.strip():
            continue
        if not quoted or '"' not in text:
            yield _checked(number, text.split(delimiter))
            continue
        cells, opened = _one_line(text, delimiter, fields)
        if cells is not None:
            yield _checked(number, cells)
            continue
        taken: list[tuple[int, str]] = []
        record = None
        if opened:
            record = _run_on(number, line, ahead, source, taken, delimiter, shape)
        if record is None:
            ahead.extendleft(reversed(taken))
            record = replace(_checked(number, split_leniently(text, delimiter)[0]), stray=number)
        yield record


def split_leniently(text: str, delimiter: str) -> tuple[list[str], int | None]:
    r"""Split one line; quotation marks count only in pairs around a whole field.

    Args:
        text: The line, without its end.
        delimiter: What separates fields.

    Returns:
        The fields, and the position of the first one that holds an unpaired mark, or None.

    Example:
        >>> split_leniently('"a, b","c', ",")
        (['a, b', '"c'], 1)
    """
    cells: list[str] = []
    unpaired = None
    for found in _field(delimiter).finditer(text):
        paired, bare = found.group(1, 2)
        if paired is not None:
            cells.append(paired.replace('""', '"'))
            continue
        if unpaired is None and '"' in bare and bare.count('"') % 2:
            unpaired = len(cells)
        cells.append(bare)
    return cells, unpaired


@cache
def _field(delimiter: str) -> re.Pattern[str]:
    mark = re.escape(delimiter)
    return re.compile(f'(?:^|(?<={mark}))(?:"((?:[^"]|"")*+)"(?={mark}|\\Z)|([^{mark}]*))')


def _one_line(text: str, delimiter: str, fields: int | None) -> tuple[list[str] | None, bool]:
    """The fields of a line by itself, or None and whether a quotation is open at its end."""
    if delimiter != " " and f"{delimiter} " in text and re.search(re.escape(delimiter) + ' +"', text):
        cells, _ = _strict(text, delimiter, skip=True)
        if cells is not None and fields in {None, len(cells)}:
            return cells, False
    cells, opened = _strict(text, delimiter)
    if cells is not None and fields in {None, len(cells)}:
        return cells, False
    if '\\"' in text:
        unescaped, still = _strict(_unescape(text), delimiter)
        if unescaped is not None and fields in {None, len(unescaped)}:
            return unescaped, False
        opened = opened or still
    return cells, opened


def _unescape(text: str) -> str:
    return _ESCAPED_QUOTE.sub(r'\1""', text)


def _strict(text: str, delimiter: str, *, skip: bool = False) -> tuple[list[str] | None, bool]:
    """The fields by the standard, or None and whether the text ended inside of a quotation."""
    reader = csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=skip)
    try:
        cells = next(reader)
    except csv.Error as error:
        return (None, True) if "unexpected end of data" in str(error) else (None, False)
    return cells, False


def _checked(number: int, cells: list[str]) -> Record:
    limit = csv.field_size_limit()
    if max(map(len, cells), default=0) > limit:
        return Record(number, cells, problem=f"not valid CSV: a field is longer than {limit:,} characters")
    return Record(number, cells)


def _run_on(
    number: int,
    line: str,
    ahead: deque[tuple[int, str]],
    source: Iterator[tuple[int, str]],
    taken: list[tuple[int, str]],
    delimiter: str,
    shape: RowShape | None,
) -> Record | None:
    """The record of a quotation that runs over lines; None where the mark is a stray one. `taken` is what was read."""
    text = line
    doubtful = 0
    like = "" if shape is None or shape.path is None else _at(split_leniently(line, delimiter)[0], shape.path)
    while len(taken) < _MOST_LINES and len(text) < _MOST_CHARS:
        entry = ahead.popleft() if ahead else next(source, None)
        if entry is None:
            return None
        taken.append(entry)
        at, more = entry
        if shape is not None:
            fits = shape.fits(more.rstrip("\r\n"), delimiter, like)
            if fits:
                return None
            if fits is None:
                doubtful = doubtful or at
        text += more
        if '"' not in more:
            continue
        whole = text.rstrip("\r\n")
        cells, opened = _strict(whole, delimiter)
        if cells is None and '\\"' in whole:
            cells, still = _strict(_unescape(whole), delimiter)
            opened = opened or still
        if cells is not None:
            if doubtful:
                why = (
                    f"a quotation opens at line {number} and ends at line {at}, but line {doubtful} looks like a row "
                    "of its own; double a quotation mark that belongs to the text"
                )
                return Record(number, cells, problem=why, lines=len(taken) + 1)
            return replace(_checked(number, cells), lines=len(taken) + 1)
        if not opened:
            return None
    return None


def _at(cells: list[str], position: int) -> str:
    return cells[position] if position < len(cells) else ""


def _pattern(text: str) -> str:
    """The make of a name: letters as `a`, digits as `0`, runs as one."""
    return re.sub(r"\d+", "0", re.sub(r"[^\W\d_]+", "a", text))
