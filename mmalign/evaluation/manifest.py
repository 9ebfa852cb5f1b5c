"""Manifests: one JSON object a line for each picture, the way in which all data to measure on comes."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.errors import InputError, SourceError
from mmalign.media import is_url
from mmalign.types import as_path, check_text


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One line of a manifest.

    Attributes:
        uri: Absolute path or URL of the picture.
        split: The part of the data to which it belongs, empty where the line names none.
        fields: All that the line says.
        where: File and line number, for errors.
    """

    uri: str
    split: str
    fields: Mapping[str, Any]
    where: str


def read_manifest_rows(manifest: str | os.PathLike[str], *, split: str | None = None) -> list[ManifestRow]:
    """Read the pictures of a manifest.

    Args:
        manifest: A `manifest.jsonl`: one JSON object a line with `image`, a path relative to the manifest or a URL,
            and perhaps `split` and other fields. Blank lines are passed over.
        split: Only the lines with this `split`; all of them where None.

    Returns:
        The rows in the manifest's order, none where the manifest has none.

    Raises:
        SourceError: The manifest cannot be read, or a line is not as described.
        InputError: There is no such split.
    """
    path = as_path("manifest", manifest)
    if split is not None:
        check_text("split", split)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"the manifest {path} cannot be read: {error}; expected a manifest.jsonl") from error
    folder = path.resolve().parent
    rows = [_parse(line, f"{path}:{number}", folder) for number, line in enumerate(lines, 1) if line.strip()]
    splits = Counter(row.split for row in rows)
    if split is not None and split not in splits:
        there = (
            ", ".join(f"{name or '(none)'} ({count})" for name, count in sorted(splits.items())) or "no lines at all"
        )
        raise InputError(f"{path} has no split {split!r}; it has {there}")
    return [row for row in rows if split in (None, row.split)]


def in_split(split: str | None) -> str:
    """The words of an error's text that say which part of a manifest was looked at."""
    return "" if split is None else f" of split {split!r}"


def _parse(line: str, where: str, folder: Path) -> ManifestRow:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise SourceError(f"{where}: not JSON ({error}); expected one object a line") from error
    image = fields.get("image") if isinstance(fields, dict) else None
    if not isinstance(image, str) or not image:
        raise SourceError(f'{where}: expected an object with "image": a path or URL, got {line.strip()[:80]!r}')
    uri = image if is_url(image) else str(folder / image)
    return ManifestRow(uri=uri, split=str(fields.get("split") or ""), fields=fields, where=where)
