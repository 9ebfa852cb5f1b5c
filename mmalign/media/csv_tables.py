"""CSV and its kin: fields between commas, semicolons, tabs or bars, whose columns are numbers where all cells are."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mmalign.errors import SourceError
from mmalign.media.csv_records import Record, RowShape, read_records, split_leniently
from mmalign.media.locating import is_picture_name
from mmalign.media.rows import CAPTION_COLUMNS, PATH_COLUMNS, TableRow
from mmalign.media.table_text import open_table_text
from mmalign.types import Note

MISSING_CELLS = frozenset(
    {"n/a", "na", "#n/a", "#na", "<na>", "nan", "-nan", "null", "none", "nil", "-", "--", "?", "#value!", "#div/0!"}
)
"""What stands for no value in a column of numbers, in lower case."""

_DELIMITERS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_SAMPLE_LINES = 50
_MOST_NOTES = 20
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
# Digits alone are no float: too many of them are an identifier that a float would round.
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)")
_BOOLEANS = {"true": True, "false": False}
# Flickr30k's table, whose columns have names of their own; the number only orders the captions.
_FLICKR30K = {"image_name", "comment_number", "comment"}


def csv_rows(path: Path, name: str) -> Iterator[TableRow]:
    """Read a delimited table: once to see which columns are numbers throughout, once for the rows.

    Args:
        path: The file.
        name: What to call it in errors.

    Yields:
        Each row with its place, or the reason why it cannot be used; and notes on what was left out.

    Raises:
        SourceError: There is no header, or columns share a name.
        OSError: The file cannot be read.
    """
    layout = _layout(path, name)
    columns = _columns(path, layout)
    yield from layout.notes
    for column in columns:
        yield from column.notes(name)
    strays = 0
    for record in _records(path, layout):
        where = f"{name}:{record.line}"
        cells = record.cells
        if not any(cell.strip() for cell in cells):
            continue
        if record.problem:
            yield where, record.problem
            continue
        cells = _fit(cells, len(columns))
        if len(cells) != len(columns):
            yield where, _wrong_length(record, len(columns))
            continue
        if record.stray:
            strays += 1
            if strays <= _MOST_NOTES:
                yield Note(
                    f"line {record.stray} has a quotation mark without a partner, which was read as it stands",
                    remedy="double it inside of a quoted field, or take it out",
                    about=where,
                )
        yield (
            where,
            {
                column.name: column.convert(cell) if cell else None
                for column, cell in zip(columns, cells, strict=True)
                if column.name and column.name not in layout.silent
            },
        )
    if strays > _MOST_NOTES:
        yield Note(f"{strays - _MOST_NOTES:,} more lines have a quotation mark without a partner", about=name)


def is_csv_header(line: str) -> bool:
    """Whether a line is the header of a table of pictures and captions, and not a path.

    Args:
        line: The first line of a text.

    Returns:
        True where it names a column of pictures beside another one.
    """
    for delimiter in _DELIMITERS:
        cells = [cell.strip().lower() for cell in split_leniently(line.strip("\r\n\ufeff"), delimiter)[0]]
        if len(cells) > 1 and any(cell in PATH_COLUMNS for cell in cells) and all(map(_is_name, cells)):
            return True
    return bool(_SEPARATOR_LINE.fullmatch(line.strip("\ufeff")))


def _is_name(cell: str) -> bool:
    return not re.search(r"[./\\]", cell)


# The layout of the file --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a file is to be read: `skip` lines come before the rows, and `silent` columns say nothing of the picture."""

    delimiter: str
    header: list[str]
    skip: int
    quoted: bool
    shape: RowShape
    silent: frozenset[str]
    notes: list[Note]


def _layout(path: Path, name: str) -> _Layout:
    before, given, lines = _sample(path, name)
    if not lines:
        raise SourceError(f"{name} has no rows")
    delimiter = given or _delimiter(lines, tabs_first=".tsv" in path.name.lower())
    header, used = _header(lines, delimiter)
    _check_header(header, lines[0], name)
    silent: set[str] = set()
    if set(header) == _FLICKR30K:
        header = ["caption" if column == "comment" else column for column in header]
        silent.add("comment_number")
    shape = RowShape(len(header), _path_position(header), is_picture_name)
    layout = _Layout(delimiter, header, before + used, True, shape, frozenset(silent), [])
    if delimiter == "\t" and not _quotes_paths(lines, layout):
        return _unquoted_where_unpaired(path, layout, name)
    return layout


def _sample(path: Path, name: str) -> tuple[int, str | None, list[str]]:
    """The first lines from the header on, how many come before it, and the delimiter that they give, if any."""
    given = None
    with open_table_text(path, name) as file:
        for before, line in enumerate(file):
            found = _SEPARATOR_LINE.fullmatch(line.rstrip("\r\n"))
            if found and given is None:
                given = found[1]
            elif line.strip():
                return before, given, [line, *islice(file, _SAMPLE_LINES)]
    return 0, given, []


def _delimiter(lines: Sequence[str], *, tabs_first: bool) -> str:
    """What separates the fields: what makes a header with a column of pictures, and rows of its length."""

    def score(delimiter: str) -> tuple[bool, int, int]:
        header = split_leniently(lines[0].rstrip("\r\n"), delimiter)[0]
        alike = sum(len(_fit(record.cells, len(header))) == len(header) for record in read_records(lines, delimiter))
        return _path_position(header) is not None, alike if len(header) > 1 else 0, len(header)

    candidates = ("\t" + _DELIMITERS.replace("\t", "")) if tabs_first else _DELIMITERS
    return max(candidates, key=score)


def _header(lines: Sequence[str], delimiter: str) -> tuple[list[str], int]:
    """The names of the columns, and how many lines they take."""
    record = next(read_records(lines, delimiter))
    return [cell.strip() for cell in record.cells], record.lines


def _check_header(header: list[str], line: str, name: str) -> None:
    if any(is_picture_name(cell) for cell in header):
        raise SourceError(
            f"{name} has no header: its first line is {line.strip()!r:.80}; "
            "put the names of the columns first, such as: image,caption"
        )
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"{name}: the header is not UTF-8; save the table as UTF-8") from error
    repeated = {column for column in header if column and header.count(column) > 1}
    if repeated:
        raise SourceError(f"{name}: several columns are named {', '.join(sorted(repeated))}; rename all but one")


def _path_position(header: Sequence[str]) -> int | None:
    names = {cell.strip().lower(): at for at, cell in reversed(list(enumerate(header)))}
    return next((names[name] for name in PATH_COLUMNS if name in names), None)


def _quotes_paths(lines: Sequence[str], layout: _Layout) -> bool:
    """Whether names or paths are in quotation marks, which no name has: then the marks do mean something."""
    for at, record in enumerate(read_records(lines, layout.delimiter, quoted=False)):
        position = layout.shape.path
        cells = record.cells if at == 0 or position is None else record.cells[position : position + 1]
        if any(len(cell) > 1 and cell[0] == cell[-1] == '"' for cell in map(str.strip, cells)):
            return True
    return False


def _unquoted_where_unpaired(path: Path, layout: _Layout, name: str) -> _Layout:
    """Tab-separated text is mostly written without quotes: one mark without a partner, and none means anything."""
    for record in _records(path, layout):
        if record.stray or (record.problem and record.lines > 1):
            note = Note(
                f"read without quoting: line {record.line} has a quotation mark without a partner, "
                "so all of them are part of the text",
                about=f"{name}:{record.line}",
            )
            return replace(layout, quoted=False, notes=[note])
    return layout


def _records(path: Path, layout: _Layout) -> Iterator[Record]:
    with open_table_text(path, str(path)) as file:
        rows = islice(file, layout.skip, None)
        yield from read_records(rows, layout.delimiter, quoted=layout.quoted, shape=layout.shape, start=layout.skip + 1)


def _fit(cells: list[str], fields: int) -> list[str]:
    """The cells without empty ones behind the last column: spreadsheets write such."""
    while len(cells) > fields and not cells[-1].strip():
        cells = cells[:-1]
    return cells


def _wrong_length(record: Record, fields: int) -> str:
    reason = f"has {len(record.cells)} fields, the header has {fields}"
    if record.stray:
        return f"{reason}, and a quotation mark has no partner; double it, or take it out"
    return reason


# The types of the columns ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Column:
    """What a column holds, learnt from all its cells."""

    name: str
    unnamed: int = 0
    options: list[Callable[[str], Any]] = field(default_factory=list)
    seen: bool = False
    missing: list[tuple[int, str]] = field(default_factory=list)
    left_out: int = 0
    first_left_out: int = 0

    def learn(self, cell: str, line: int) -> None:
        if not self.name:
            self.left_out += 1
            self.first_left_out = self.first_left_out or line
        elif self.options:
            if cell.strip().lower() in MISSING_CELLS:
                # All are kept only by number: a column of markers alone is a column of text.
                self.left_out += 1
                if len(self.missing) < _MOST_NOTES:
                    self.missing.append((line, cell))
                return
            self.seen = True
            self.options = [option for option in self.options if option(cell) is not None]

    @property
    def numeric(self) -> bool:
        return self.seen and bool(self.options)

    def convert(self, cell: str) -> Any:
        if not self.numeric:
            return cell
        return self.options[0](cell)

    def notes(self, name: str) -> Iterator[Note]:
        if not self.name:
            if self.left_out:
                yield Note(
                    f"column {self.unnamed} has no name in the header and is left out",
                    remedy="give it a name to keep it",
                    about=f"{name}:{self.first_left_out}",
                )
        elif self.numeric and self.missing:
            line, cell = self.missing[0]
            more = f" (and {self.left_out - 1:,} more like it)" if self.left_out > 1 else ""
            kind = "true or false" if self.options[0] is _boolean else "numbers"
            yield Note(
                f"column {self.name!r} holds {kind}: {cell!r} at line {line}{more} is kept as no value",
                about=f"{name}:{line}",
            )


def _columns(path: Path, layout: _Layout) -> list[_Column]:
    texts = {*PATH_COLUMNS, *CAPTION_COLUMNS, "id"}
    columns = [
        _Column(column, at, [] if column.lower() in texts or not column else list(_CONVERTERS))
        for at, column in enumerate(layout.header, 1)
    ]
    learning = [column for column in columns if column.options or not column.name]
    if not learning:
        return columns
    for record in _records(path, layout):
        cells = _fit(record.cells, len(columns))
        if len(cells) != len(columns) or record.problem:
            continue
        for column, cell in zip(columns, cells, strict=True):
            if cell:
                column.learn(cell, record.line)
    return columns


def _integer(cell: str) -> int | None:
    if not _INTEGER.fullmatch(cell):
        return None
    value = int(cell)
    return value if -(1 << 63) <= value < 1 << 63 else None


def _float(cell: str) -> float | None:
    if _FLOAT.fullmatch(cell):
        value = float(cell)
        return value if math.isfinite(value) else None
    integer = _integer(cell)
    return None if integer is None else float(integer)


def _boolean(cell: str) -> bool | None:
    return _BOOLEANS.get(cell.lower())


_CONVERTERS: Sequence[Callable[[str], Any]] = (_integer, _float, _boolean)
