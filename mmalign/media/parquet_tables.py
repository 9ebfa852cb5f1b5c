"""Parquet tables, with the pictures that are stored in them: of Hugging Face, pandas and others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmalign.errors import SourceError
from mmalign.media.arrow_values import column_values
from mmalign.media.embedded import EmbeddedPicture
from mmalign.media.rows import PATH_COLUMNS, PictureCell, TableRow
from mmalign.media.stored_pictures import PictureColumn, holds_bytes, picture_columns
from mmalign.media.table_text import refuse_other_formats
from mmalign.types import Note

_BATCH_ROWS = 1024
# Where the bytes must be read to know whether they are there, few rows fill the memory.
_BYTES_ROWS = 16
_UNNAMED_INDEX = re.compile(r"__index_level_(\d+)__")


def parquet_rows(path: Path, name: str) -> Iterator[TableRow]:
    """Read a Parquet file; a picture that is stored in it is named by a URI that leads back to its bytes.

    Args:
        path: The file.
        name: What to call it in errors.

    Yields:
        Each row with its place; and notes on what is left out or renamed.

    Raises:
        SourceError: It is not Parquet, or names no picture.
        OSError: The file cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    with path.open("rb") as stream:
        head = stream.read(512)
    if not head.startswith((b"PAR1", b"PARE")):
        refuse_other_formats(head, name)
    try:
        with parquet.ParquetFile(path) as file:
            yield from _Table(file, path, name).rows()
    except pa.ArrowException as error:
        raise SourceError(f"{name}: not a readable Parquet file: {error}") from error


@dataclass(slots=True)
class _Table:
    """One open file."""

    file: Any
    path: Path
    name: str
    picture: PictureColumn | None = None
    rename: dict[str, str] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    numbered: str = ""

    def rows(self) -> Iterator[TableRow]:
        schema = self.file.schema_arrow
        features = _features(schema.metadata)
        pictures = picture_columns(self.file, features)
        self.picture = pictures[0] if pictures else None
        kept = [column.name for column in schema if not holds_bytes(column.type)]
        left_out = [column.name for column in schema if holds_bytes(column.type) and column.name != self._picture_name]
        repeated = sorted({column for column in schema.names if schema.names.count(column) > 1})
        if repeated:
            raise SourceError(f"{self.name}: several columns are named {', '.join(repeated)}; rename all but one")
        self._name_index(schema)
        self.classes = {
            column: list(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
        if self.picture is None and left_out and not {column.lower() for column in kept} & {*PATH_COLUMNS}:
            raise SourceError(
                f"{self.name} names no picture: the columns are {', '.join(map(repr, kept)) or 'none'}; name one "
                f"of them {' or '.join(PATH_COLUMNS)} (column {left_out[0]!r} holds bytes, but no picture)"
            )
        yield from self._notes(left_out, {column.name for column in pictures})
        yield from self._groups(kept)

    @property
    def _picture_name(self) -> str | None:
        return None if self.picture is None else self.picture.name

    def _name_index(self, schema: Any) -> None:
        """Give pandas' index without a name the name that pandas itself gives it as a column."""
        unnamed = [column for column in schema.names if _UNNAMED_INDEX.fullmatch(column)]
        for column in unnamed:
            level = column.strip("_").rpartition("_")[2]
            names = ["index", "level_0"] if len(unnamed) == 1 else [f"level_{level}"]
            free = [option for option in [*names, f"{names[0]}_"] if option not in schema.names]
            if free:
                self.rename[column] = free[0]

    def _notes(self, left_out: list[str], pictures: set[str]) -> Iterator[Note]:
        for column, other in self.rename.items():
            yield Note(f"pandas' index, which has no name, is kept as {other!r}", about=f"{self.name} {column}")
        for column in left_out:
            what = f"pictures too, but only {self._picture_name!r} is read" if column in pictures else "bytes"
            yield Note(f"column {column!r} holds {what}: it is left out", about=self.name)
        for column in self.classes:
            if column in self.file.schema_arrow.names:
                yield Note(
                    f"column {column!r} numbers classes; their names are in {column + '_name'!r}", about=self.name
                )

    def _groups(self, kept: list[str]) -> Iterator[TableRow]:
        number = 0
        for group in range(self.file.metadata.num_row_groups):
            columns, rows = [*kept], _BATCH_ROWS
            always = False
            if self.picture is not None:
                stored = self._stored(group)
                always = stored is True
                if self.picture.many or stored is None:
                    columns.append(self.picture.bytes_leaf)
                    rows = _BYTES_ROWS
                if self.picture.path_leaf is not None:
                    columns.append(self.picture.path_leaf)
            if not columns:
                # Nothing but pictures: there is no column to read, only rows to count.
                for _ in range(self.file.metadata.row_group(group).num_rows):
                    yield from self._row(number, {}, None, always=always)
                    number += 1
                continue
            for batch in self.file.iter_batches(rows, row_groups=[group], columns=columns):
                yield from self._batch(batch, number, always=always)
                number += batch.num_rows

    def _stored(self, group: int) -> bool | None:
        """Whether all bytes of the pictures in a row group are there (True), none (False), or some (None)."""
        assert self.picture is not None
        metadata = self.file.metadata.row_group(group)
        for at in range(metadata.num_columns):
            column = metadata.column(at)
            if column.path_in_schema == self.picture.bytes_leaf:
                statistics = column.statistics
                if statistics is None or not statistics.has_null_count:
                    return None
                if statistics.null_count == 0:
                    return True
                return False if statistics.null_count == metadata.num_rows else None
        return None

    def _batch(self, batch: Any, number: int, *, always: bool) -> Iterator[TableRow]:
        columns = {}
        cells: list[Any] | None = None
        for column, values in zip(batch.schema.names, batch.columns, strict=True):
            if column == self._picture_name:
                cells = values.to_pylist()
                continue
            found = column_values(values)
            columns[self.rename.get(column, column)] = found
            if column in self.classes and f"{column}_name" not in batch.schema.names:
                columns[f"{column}_name"] = [self._class(column, value) for value in found]
        for at in range(batch.num_rows):
            row = {column: values[at] for column, values in columns.items()}
            yield from self._row(number + at, row, None if cells is None else cells[at], always=always)

    def _class(self, column: str, value: Any) -> str | None:
        names = self.classes[column]
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else None

    def _row(self, number: int, row: dict[str, Any], cell: Any, *, always: bool) -> Iterator[TableRow]:
        where = f"{self.name}#{number + 1}"
        if self.picture is None:
            yield where, row
            return
        column = self.picture.name
        if not self.picture.many:
            place = EmbeddedPicture(self.path, column, number)
            yield where, {**self._picture_cell(place, cell, always=always), **row}
            return
        pictures = cell if isinstance(cell, list) else []
        if not pictures:
            yield where, {**row, column: None}
            return
        identity = next((name for name in row if name.lower() == "id"), None)
        for position, picture in enumerate(pictures):
            place = EmbeddedPicture(self.path, column, number, position)
            several = {}
            if identity is not None and row[identity] is not None and len(pictures) > 1:
                several[identity] = f"{row[identity]}#{position}"
                if not self.numbered:
                    self.numbered = where
                    yield Note("rows with several pictures: each has the row's id with its number behind", about=where)
            yield where, {**self._picture_cell(place, picture, always=False), **row, **several}

    def _picture_cell(self, place: EmbeddedPicture, cell: Any, *, always: bool) -> dict[str, Any]:
        """The columns that say where a picture is: in the file, or at a path that is stored in place of its bytes."""
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (cell, None)
        column = place.column
        if always or data is not None:
            known = f"{column}_path" in self.file.schema_arrow.names
            return {column: PictureCell(place.uri)} | ({f"{column}_path": path} if path and not known else {})
        return {column: PictureCell(path) if isinstance(path, str) and path.strip() else None}


def _features(metadata: Mapping[bytes, bytes] | None) -> Mapping[str, Any]:
    """Hugging Face's description of the columns; empty where there is none."""
    with suppress(ValueError, AttributeError, KeyError, TypeError):
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return features if isinstance(features, dict) else {}
    return {}
