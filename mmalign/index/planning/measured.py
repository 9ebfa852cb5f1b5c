"""Measured figures of index designs: `[[measured]]` tables, written by the command that measured them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmalign.errors import RecipeError, StorageError
from mmalign.utils import write_atomic

_MARK = "[[measured]]"


def put_measured(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table of figures at the end of a TOML file, in the place of an older one of the same data.

    All that stands before the first `[[measured]]` stays as it is, comments included.

    Args:
        path: A recipe, or a file of figures alone, which is made where it does not exist.
        table: Name to text, number, or list of numbers; `data` says what was measured on.

    Raises:
        RecipeError: The file is not TOML, or something else follows the figures.
        StorageError: The disk refused; the file is as it was.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        tables = tomllib.loads(text).get("measured", [])
        lines = text.splitlines(keepends=True)
        first = next((i for i, line in enumerate(lines) if line.strip() == _MARK), len(lines))
        head, tail = "".join(lines[:first]).rstrip("\n"), "".join(lines[first:])
        if list(tomllib.loads(tail)) not in ([], ["measured"]):
            raise RecipeError(f"{path}: {_MARK} tables must be the last in the file; move the others before them")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path} is not TOML: {error}") from error
    kept = [one for one in tables if one.get("data") != table["data"]]
    parts = [head] if head else []
    parts += [
        _MARK + "\n" + "".join(f"{key} = {_value(value)}\n" for key, value in one.items()).rstrip("\n")
        for one in (*kept, table)
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "\n\n".join(parts) + "\n")
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def read_measured(path: Path) -> list[dict[str, Any]]:
    """Read the tables of a file.

    Args:
        path: The file.

    Returns:
        Its `[[measured]]` tables; none where the file is missing or damaged.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("measured", [])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    # What JSON writes of texts and finite numbers is TOML too.
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
