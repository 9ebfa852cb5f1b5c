"""Tables of pictures: JSON Lines, JSON, CSV, TSV and Parquet, and what data sets come as, read row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from mmalign.errors import SourceError
from mmalign.media.csv_tables import csv_rows
from mmalign.media.json_tables import json_line_rows, json_rows
from mmalign.media.locating import Locator
from mmalign.media.parquet_tables import parquet_rows
from mmalign.media.rows import TableRow, items_from_rows
from mmalign.media.table_text import COMPRESSED_SUFFIXES
from mmalign.media.token_tables import token_rows
from mmalign.media.uris import path_to_uri
from mmalign.types import Item, Note, Skip

_READERS: Mapping[str, Callable[[Path, str], Iterator[TableRow]]] = {
    ".jsonl": json_line_rows,
    ".ndjson": json_line_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}

TABLE_SUFFIXES = frozenset(_READERS)
"""Lower-case endings of the file names that are taken for tables."""

_MORE_READERS = {".pqt": parquet_rows, ".parq": parquet_rows, ".token": token_rows}


def table_suffix(name: str) -> str:
    """The ending by which a table is read, without that of its compression.

    Args:
        name: A file name.

    Returns:
        A lower-case ending such as `.csv`, also for `a.CSV.gz`; empty where the name is not a table's.

    Example:
        >>> table_suffix("captions.CSV.gz"), table_suffix("notes.txt")
        ('.csv', '')
    """
    path = Path(name)
    suffix = path.suffix.lower()
    if suffix in COMPRESSED_SUFFIXES:
        inner = Path(path.stem).suffix.lower()
        return inner if inner in {*_READERS, ".token"} and _READERS.get(inner) is not parquet_rows else ""
    return suffix if suffix in _READERS or suffix in _MORE_READERS else ""


def read_table(path: Path, *, suffix: str | None = None) -> Iterator[Item | Skip | Note]:
    """Read a table by its suffix; relative paths in it start from its folder.

    A picture that is not there as it is named is looked for as `Locator` says.

    Args:
        path: Absolute path of the table.
        suffix: Ending to read it by, where its own does not tell; one that `table_suffix` returns.

    Yields:
        An `Item` for each row, whether or not its picture is there; a `Skip` for a row that cannot be used; a `Note`
        on what was left out or found elsewhere.

    Raises:
        SourceError: The file cannot be read or parsed, or none of its rows can be used.
    """
    suffix = table_suffix(path.name) if suffix is None else suffix
    rows = _READERS.get(suffix) or _MORE_READERS[suffix]
    name = path_to_uri(path)
    try:
        if path.stat().st_size == 0:
            raise SourceError(f"{name} is empty (0 bytes)")
        base = str(path.parent)
        yield from items_from_rows(rows(path, name), name=name, base=base, locator=Locator(base, folders=True))
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{name} cannot be read: {reason}") from error
    except UnicodeError as error:
        raise SourceError(f"{name} is not the text that its first bytes promise ({error}); save it as UTF-8") from error
