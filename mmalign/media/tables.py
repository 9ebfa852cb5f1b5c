"""Tables of pictures: JSON Lines, JSON, CSV, TSV and Parquet, read row by row."""

from __future__ import annotations

import codecs
import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Any

from mmalign.errors import SourceError
from mmalign.media.rows import CAPTION_COLUMNS, PATH_COLUMNS, items_from_rows
from mmalign.media.uris import path_to_uri
from mmalign.types import Item, Skip

_Row = Mapping[str, Any] | str
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
# Digits alone are no float: too many of them are an identifier that a float would round.
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+([eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)")
_BOOLEANS = {"true": True, "false": False}
_BATCH_ROWS = 1024


def read_table(path: Path) -> Iterator[Item | Skip]:
    """Read a table by its suffix; relative paths in it start from its folder.

    Args:
        path: Absolute path ending in one of `TABLE_SUFFIXES`.

    Yields:
        An `Item` for each row, whether or not its picture is there; a `Skip` for a row that cannot be used.

    Raises:
        SourceError: The file cannot be read or parsed, or none of its rows can be used.
    """
    rows = _READERS[path.suffix.lower()]
    name = path_to_uri(path)
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{name} is empty (0 bytes)")
        yield from items_from_rows(rows(path, name), name=name, base=str(path.parent))
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror or error}") from error


def _open_text(path: Path, name: str) -> IO[str]:
    with path.open("rb") as file:
        if file.read(2) in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
            raise SourceError(f"{name} is UTF-16; save it as UTF-8")
    # Bytes that are not UTF-8 pass through: in a path they are right, and elsewhere the row is reported.
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _json_lines(path: Path, name: str) -> Iterator[tuple[str, _Row]]:
    with _open_text(path, name) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{name}:{number}", _parse_line(line)


def _parse_line(line: str) -> _Row:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not valid JSON: {error}"
    return row if isinstance(row, dict) else f"expected a JSON object, got {line.strip():.60}"


def _json(path: Path, name: str) -> Iterator[tuple[str, _Row]]:
    with _open_text(path, name) as file:
        try:
            rows = json.load(file)
        except json.JSONDecodeError as error:
            raise SourceError(f"{name}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from error
        except RecursionError as error:
            raise SourceError(f"{name}: nested too deeply to be a table") from error
    if not isinstance(rows, list):
        raise SourceError(
            f"{name}: expected a JSON list of objects, got {type(rows).__name__}; for one a line, use .jsonl"
        )
    for number, row in enumerate(rows, 1):
        yield f"{name}#{number}", row if isinstance(row, dict) else f"expected a JSON object, got {row!r:.60}"


def _csv(path: Path, name: str) -> Iterator[tuple[str, _Row]]:
    """Read twice: once to see which columns are numbers throughout, once for the rows."""
    header, kinds = _csv_kinds(path, name)
    for where, cells in islice(_csv_cells(path, name), 1, None):
        if len(cells) != len(header):
            yield where, f"has {len(cells)} fields, the header has {len(header)}"
            continue
        yield (
            where,
            {
                column: convert(cell) if cell else None
                for column, cell, convert in zip(header, cells, kinds, strict=True)
                if column
            },
        )


def _csv_cells(path: Path, name: str) -> Iterator[tuple[str, list[str]]]:
    """The non-empty lines of the table, each with its place; the first one is the header."""
    with _open_text(path, name) as file:
        delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        first = file.readline()
        if delimiter == "," and "," not in first and ";" in first:
            # What spreadsheets write where the comma is the decimal sign.
            delimiter = ";"
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
        try:
            for cells in reader:
                if cells:
                    yield f"{name}:{reader.line_num}", cells
        except csv.Error as error:
            raise SourceError(f"{name}:{reader.line_num}: not valid CSV: {error}") from error


def _csv_kinds(path: Path, name: str) -> tuple[list[str], list[Callable[[str], Any]]]:
    rows = _csv_cells(path, name)
    header = [cell.strip() for cell in next(rows, ("", [""]))[1]]
    repeated = {column for column in header if column and header.count(column) > 1}
    if repeated:
        raise SourceError(f"{name}: several columns are named {', '.join(sorted(repeated))}; rename all but one")
    texts = {*PATH_COLUMNS, *CAPTION_COLUMNS, "id"}
    options = [[] if column.lower() in texts else list(_CONVERTERS) for column in header]
    seen = [False] * len(header)
    for _, cells in rows:
        if len(cells) != len(header):
            continue
        for at, cell in enumerate(cells):
            if cell and options[at]:
                seen[at] = True
                options[at] = [option for option in options[at] if option(cell) is not None]
    return header, [found[0] if found and some else str for found, some in zip(options, seen, strict=True)]


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


def _parquet(path: Path, name: str) -> Iterator[tuple[str, _Row]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            # Pictures stored in the table itself are no metadata, and would fill the memory.
            columns = [field.name for field in file.schema_arrow if not _holds_bytes(field.type)]
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}#{number}", row
    except pa.ArrowException as error:
        raise SourceError(f"{name}: not a readable Parquet file: {error}") from error


def _holds_bytes(kind: Any) -> bool:
    from pyarrow import types

    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return True
    return any(_holds_bytes(kind.field(at).type) for at in range(kind.num_fields))


_READERS: Mapping[str, Callable[[Path, str], Iterator[tuple[str, _Row]]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}

TABLE_SUFFIXES = frozenset(_READERS)
"""Lower-case endings of the file names that are taken for tables."""
