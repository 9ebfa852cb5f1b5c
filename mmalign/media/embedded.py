"""Pictures that are stored in a Parquet file: a URI for each, and the bytes that it leads back to.

Such a URI is the `file://` URI of the file with the column and the row behind a `#`, as in
`file:///data/train.parquet#image=12`; the second picture of a list of pictures is `#images=12.1`. No path is mistaken
for one: what is a path is not a URI, and in a `file://` URI of a path a `#` is written `%23`.
"""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, unquote_to_bytes

from mmalign.errors import DecodeError

_URI = re.compile(r"file://(?:localhost)?(/[^#]*)#([^#=]+)=(\d{1,18})(?:\.(\d{1,9}))?", re.IGNORECASE)
_BATCH_ROWS = 8
_BUFFER_BYTES = 1 << 20
# What readers that run a little ahead of one another may still ask for.
_KEPT_BYTES = 1 << 26
_KEPT_ROWS = 32
_OPEN_FILES = 4


@dataclass(frozen=True, slots=True)
class EmbeddedPicture:
    """One picture in a Parquet file.

    Attributes:
        path: The file.
        column: The top-level column that holds it.
        row: Its row in the file, from 0.
        position: Its place in the list where the column holds lists of pictures; None where it holds one each.
    """

    path: Path
    column: str
    row: int
    position: int | None = None

    @property
    def uri(self) -> str:
        """The URI that `parse_embedded` reads."""
        place = "" if self.position is None else f".{self.position}"
        return f"file://{quote(os.fsencode(self.path))}#{quote(self.column, safe='')}={self.row}{place}"


def parse_embedded(uri: str) -> EmbeddedPicture | None:
    """Read the URI of a picture in a Parquet file.

    Args:
        uri: Any URI or path.

    Returns:
        Its parts, or None for every other URI.

    Example:
        >>> parse_embedded("file:///data/a%20b.parquet#image=12")
        Embedded(path=PosixPath('/data/a b.parquet'), column='image', row=12, position=None)
    """
    if uri[:7].lower() != "file://" or "#" not in uri:
        return None
    found = _URI.fullmatch(uri)
    if found is None:
        return None
    path = Path(os.fsdecode(unquote_to_bytes(found[1])))
    return EmbeddedPicture(path, unquote(found[2]), int(found[3]), None if found[4] is None else int(found[4]))


def read_embedded(uri: str, place: EmbeddedPicture, *, max_bytes: int) -> tuple[bytes, os.stat_result]:
    """Read one picture.

    Neighbours come cheap in the order of the file; far jumps cost reading the row group up to the row.

    Args:
        uri: What to call it in errors.
        place: Where it is.
        max_bytes: Refuse anything larger.

    Returns:
        Its bytes, and the state of the file that holds it.

    Raises:
        DecodeError: It is not there, is no picture, or is too large.
        OSError: The file cannot be read.
    """
    import pyarrow as pa

    status = place.path.stat()
    try:
        with _LOCK:
            value = _column(place, status).value(place.row)
    except _NotThereError as error:
        raise DecodeError(uri, str(error)) from None
    except pa.ArrowException as error:
        raise DecodeError(uri, f"the Parquet file cannot be read: {error}") from error
    if place.position is not None:
        if not isinstance(value, list) or place.position >= len(value):
            raise DecodeError(uri, f"row {place.row} of column {place.column!r} holds no picture {place.position}")
        value = value[place.position]
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes):
        raise DecodeError(uri, f"row {place.row} of column {place.column!r} holds no bytes of a picture")
    if not data:
        raise DecodeError(uri, "empty (0 bytes)")
    if len(data) > max_bytes:
        raise DecodeError(uri, f"too large: {len(data):,} bytes, the limit is {max_bytes:,}")
    return data, status


def row_is_there(uri: str) -> bool:
    """Whether a Parquet file still has the row of a picture that is stored in it; no picture is read.

    Args:
        uri: Any URI or path.

    Returns:
        False where the file is gone or shorter now. True for every URI that names no stored picture, and where nobody
        can tell because the file is damaged.
    """
    place = parse_embedded(uri)
    if place is None:
        return True
    import pyarrow as pa

    try:
        with _LOCK:
            return place.row < _column(place, place.path.stat()).rows
    except (_NotThereError, FileNotFoundError, NotADirectoryError):
        return False
    except (pa.ArrowException, OSError):
        return True


class _NotThereError(Exception):
    """The file has no such column or row."""


class _Column:
    """A column of an open file, read forwards a few rows at a time."""

    def __init__(self, path: Path, column: str) -> None:
        from pyarrow import parquet

        # A buffer: without one, a whole row group of pictures would be read into memory at once.
        self._file = parquet.ParquetFile(path, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        names = self._file.schema_arrow.names
        if column not in names:
            self._file.close()
            raise _NotThereError(f"{path.name} has no column {column!r}")
        schema = self._file.metadata.schema
        paths = (schema.column(at).path for at in range(self._file.metadata.num_columns))
        # Of {bytes, path} only the bytes.
        self._leaves = [leaf for leaf in paths if leaf == column or leaf.startswith(column + ".")]
        self._leaves = [leaf for leaf in self._leaves if leaf.rpartition(".")[2] == "bytes"] or self._leaves
        self._column = column
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._kept_bytes = 0
        self._batches: Any = iter(())
        self._next = self._end = 0

    @property
    def rows(self) -> int:
        return int(self._file.metadata.num_rows)

    def close(self) -> None:
        self._file.close()

    def value(self, row: int) -> Any:
        if row in self._kept:
            return self._kept[row]
        if not self._next <= row < self._end:
            self._seek(row)
        while row >= self._next:
            batch = next(self._batches)
            rows = batch.num_rows
            wanted = max(0, row - _KEPT_ROWS - self._next)
            if wanted < rows:
                for at, value in enumerate(batch.column(0).slice(wanted).to_pylist(), self._next + wanted):
                    self._keep(at, value)
            self._next += rows
        return self._kept[row]

    def _seek(self, row: int) -> None:
        self._next = 0
        metadata = self._file.metadata
        for group in range(metadata.num_row_groups):
            self._end = self._next + metadata.row_group(group).num_rows
            if row < self._end:
                self._batches = self._file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=self._leaves)
                return
            self._next = self._end
        raise _NotThereError(f"the file has {metadata.num_rows:,} rows, but row {row} is asked for")

    def _keep(self, row: int, value: Any) -> None:
        self._kept[row] = value
        self._kept_bytes += _size(value)
        # The batch that was just read stays whole, however large it is.
        while len(self._kept) > _KEPT_ROWS or (self._kept_bytes > _KEPT_BYTES and len(self._kept) > _BATCH_ROWS):
            self._kept_bytes -= _size(self._kept.popitem(last=False)[1])


def _size(value: Any) -> int:
    if isinstance(value, dict):
        value = value.get("bytes")
    if isinstance(value, list):
        return sum(map(_size, value))
    return len(value) if isinstance(value, bytes) else 0


_LOCK = threading.Lock()
_OPEN: OrderedDict[tuple[Path, str], tuple[tuple[int, int, int], _Column]] = OrderedDict()


def _column(place: EmbeddedPicture, status: os.stat_result) -> _Column:
    key, version = (place.path, place.column), (status.st_ino, status.st_size, status.st_mtime_ns)
    known = _OPEN.get(key)
    if known is not None and known[0] == version:
        _OPEN.move_to_end(key)
        return known[1]
    if known is not None:
        del _OPEN[key]
        known[1].close()
    column = _Column(place.path, place.column)
    _OPEN[key] = version, column
    while len(_OPEN) > _OPEN_FILES:
        _OPEN.popitem(last=False)[1][1].close()
    return column


def _forget() -> None:
    """In a forked child, the position in an open file would be shared with the parent, and the lock may be held."""
    global _LOCK
    _LOCK = threading.Lock()
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
