"""Tables in JSON: a list of objects, one object a line, or one of the other forms that tools write."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mmalign.errors import SourceError
from mmalign.media.coco import coco_rows, is_coco
from mmalign.media.locating import is_picture_name
from mmalign.media.rows import PATH_COLUMNS, TableRow
from mmalign.media.table_text import open_table_text
from mmalign.types import Note

_WRAPPERS = ("rows", "data", "images", "items", "records", "samples", "entries", "results", "pictures", "photos")
_EXPECTED = (
    'expected a JSON list of objects, {"rows": [...]}, {"a.jpg": ["caption"]} or COCO\'s {"images", "annotations"}'
)


def json_rows(path: Path, name: str) -> Iterator[TableRow]:
    """Read a JSON file whole.

    Args:
        path: The file.
        name: What to call it in errors.

    Yields:
        Each row with its place, or the reason why it cannot be used; and notes.

    Raises:
        SourceError: It is not JSON, or no table.
        OSError: The file cannot be read.
    """
    with open_table_text(path, name) as file:
        text = file.read()
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            # One object a line under the name of a whole document, as many tools write it.
            yield from json_line_rows(path, name)
            return
        raise SourceError(f"{name}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}") from error
    except RecursionError as error:
        raise SourceError(f"{name}: nested too deeply to be a table") from error
    del text
    yield from _document_rows(document, path, name)


def json_line_rows(path: Path, name: str) -> Iterator[TableRow]:
    """Read JSON Lines: one object a line.

    Args:
        path: The file.
        name: What to call it in errors.

    Yields:
        Each row with its place, or the reason why it cannot be used.

    Raises:
        SourceError: The file is one whole JSON document, and no table.
        OSError: The file cannot be read.
    """
    with open_table_text(path, name) as file:
        lines = enumerate(file, 1)
        first = next(((number, line) for number, line in lines if line.strip()), None)
        if first is not None and _is_document(first[1]):
            whole = True
        else:
            whole = False
            for number, line in chain([] if first is None else [first], lines):
                if line.strip():
                    yield f"{name}:{number}", _parse_line(line)
    if whole:
        yield from json_rows(path, name)


def _is_document(line: str) -> bool:
    """Whether a first line begins a document that runs over lines, or is a list of objects by itself."""
    text = line.strip()
    return text in {"{", "["} or text.startswith("[{")


def _parse_line(line: str) -> Mapping[str, Any] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        hint = "; take out the comma at the end of the line" if line.rstrip().endswith("},") else ""
        return f"not valid JSON: {error}{hint}"
    return row if isinstance(row, dict) else f"expected a JSON object, got {line.strip():.60}"


def _document_rows(document: Any, path: Path, name: str) -> Iterator[TableRow]:
    if isinstance(document, dict):
        if is_coco(document):
            yield from coco_rows(document, path, name)
            return
        rows = _rows_of_object(document, name)
        if rows is None:
            keys = ", ".join(map(repr, list(document)[:5]))
            raise SourceError(
                f"{name}: expected a JSON list of objects, got {type(document).__name__}; for one a line, use .jsonl "
                f"(its keys are {keys}; {_EXPECTED} are known too)"
            )
        yield from rows
        return
    if not isinstance(document, list):
        raise SourceError(
            f"{name}: expected a JSON list of objects, got {type(document).__name__}; for one a line, use .jsonl"
        )
    yield from _listed(document, name)


def _listed(rows: Sequence[Any], name: str) -> Iterator[TableRow]:
    for number, row in enumerate(rows, 1):
        yield f"{name}#{number}", row if isinstance(row, dict) else f"expected a JSON object, got {row!r:.60}"


def _rows_of_object(document: dict[str, Any], name: str) -> Iterator[TableRow] | None:
    wrapper = next((key for key in _WRAPPERS if _is_list_of_objects(document.get(key))), None)
    if wrapper is not None:
        return _wrapped(document, wrapper, name)
    columns, data = document.get("columns"), document.get("data")
    if isinstance(columns, list) and isinstance(data, list):
        # How pandas writes orient="split".
        return _split(columns, data, name)
    if document and all(map(is_picture_name, document)):
        return _by_name(document, name)
    known = {key.lower() for key in document} & {*PATH_COLUMNS}
    values = list(document.values())
    if known and all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        return _listed([dict(zip(document, row, strict=True)) for row in zip(*values, strict=True)], name)
    if known and all(isinstance(value, dict) for value in values):
        # How pandas writes by default: values by the index, by column.
        index = list(dict.fromkeys(key for value in values for key in value))
        return _listed([{column: document[column].get(key) for column in document} for key in index], name)
    if values and all(isinstance(value, dict) and {key.lower() for key in value} & {*PATH_COLUMNS} for value in values):
        # How pandas writes orient="index": rows by a key of their own.
        return _listed([{"key": key, **row} for key, row in document.items()], name)
    return None


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value[:10])


def _wrapped(document: dict[str, Any], wrapper: str, name: str) -> Iterator[TableRow]:
    others = [key for key in document if key != wrapper]
    if others:
        yield Note(f"only {wrapper!r} is read; {', '.join(map(repr, others[:5]))} is left out", about=name)
    rows = document[wrapper]
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict) and isinstance(row.get("row"), dict):
            # The data set server of Hugging Face wraps each row once more.
            row = row["row"]
        yield f"{name}#{number}", row if isinstance(row, dict) else f"expected a JSON object, got {row!r:.60}"


def _split(columns: Sequence[Any], data: Sequence[Any], name: str) -> Iterator[TableRow]:
    for number, values in enumerate(data, 1):
        if isinstance(values, list) and len(values) == len(columns):
            yield f"{name}#{number}", dict(zip(map(str, columns), values, strict=True))
        else:
            yield f"{name}#{number}", f"expected a list of {len(columns)} values, got {values!r:.60}"


def _by_name(document: Mapping[str, Any], name: str) -> Iterator[TableRow]:
    for picture, value in document.items():
        where = f"{name}#{picture}"
        if isinstance(value, dict):
            yield where, {**value, "image": picture}
        else:
            yield where, {"image": picture, "captions": value}
