"""The description that lies beside an index's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmalign.errors import IndexFileError

HEADER = "index.json"
FORMAT = 1


def write_header(folder: Path, header: dict[str, Any]) -> None:
    """Write `index.json`.

    Args:
        folder: The index's folder.
        header: `kind`, `factory`, `dim`, `rows`, `files` (name to size in bytes), and what the kind needs besides.
    """
    (folder / HEADER).write_text(json.dumps({"format": FORMAT} | header, indent=1) + "\n", encoding="utf-8")


def read_header(folder: Path, kind: str | None = None) -> dict[str, Any]:
    """Read `index.json` and check that the files it names have the size it says.

    Args:
        folder: The index's folder.
        kind: The kind that is expected, if any.

    Returns:
        What `write_header` was given.

    Raises:
        IndexFileError: Missing, damaged, of a newer format or another kind, or a file of another size.
    """
    path = folder / HEADER
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
        if header["format"] > FORMAT:
            raise IndexFileError(f"{path} has format {header['format']}, this mmalign reads up to {FORMAT}; update it")
        sizes = {str(name): int(size) for name, size in header["files"].items()}
        header["kind"], header["factory"], header["dim"] + header["rows"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IndexFileError(f"{path} cannot be used: {error!r}; build the index again") from error
    for name, size in sizes.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise IndexFileError(f"{folder / name} cannot be read: {error}; build the index again") from error
        if found != size:
            raise IndexFileError(
                f"{folder / name} is damaged: expected {size} bytes, got {found}; build the index again"
            )
    if kind is not None and header["kind"] != kind:
        raise IndexFileError(f"{folder} holds an index of kind {header['kind']!r}, expected {kind!r}")
    result: dict[str, Any] = header
    return result
