"""One row of a table as an item: which column is the picture, which the captions, and what is metadata."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmalign.errors import InputError, MetadataError, SourceError
from mmalign.media.locating import Locator
from mmalign.media.uris import to_uri
from mmalign.types import CellError, Item, Note, Skip, as_id, plain_value

PATH_COLUMNS = (
    *("image", "path", "file", "uri", "url", "image_path", "filename", "file_name", "filepath"),
    *("image_name", "image_file", "file_path", "img_path", "image_url", "img"),
)
"""Names of the column that says where the picture is, in order of preference; case does not matter."""

CAPTION_COLUMNS = ("captions", "caption", "text", "sentences")
"""Names of the column of captions, in order of preference; case does not matter."""

# Where the text is in a caption that is an object, as in {"raw": "A dog runs .", "sentid": 7}.
_CAPTION_KEYS = ("raw", "caption", "text", "sentence", "value")

_PATIENCE = 1000


class PictureCell(str):
    """The cell of a row that says where its picture is, whatever its column is called."""

    __slots__ = ()


TableRow = tuple[str, Mapping[str, Any] | str] | Note
"""A row with its place, or the reason why it cannot be used; or a remark on the table."""


def item_from_row(row: Mapping[str, Any], *, base: str, place: str = "", locator: Locator | None = None) -> Item:
    """Turn a row into an item.

    Args:
        row: Values by column name.
        base: Folder that relative paths start from.
        place: Where the row is, such as `shop.csv:4`.
        locator: Finds the files that paths mean, from that folder; where None, paths are taken as they are.

    Returns:
        The item; columns that are not its picture, captions or id are its metadata.

    Raises:
        SourceError: No column holds a path, or a value cannot be used; the text says which.

    Example:
        >>> item_from_row({"Image": "a.jpg", "caption": "a dog", "year": 2020}, base="/photos")
        Item(uri='/photos/a.jpg', id=None, captions=('a dog',), metadata={'year': 2020})
    """
    names = {str(name).lower(): name for name in reversed(list(row))}
    path = next((name for name, value in row.items() if isinstance(value, PictureCell)), None)
    if path is None:
        path = next((names[name] for name in PATH_COLUMNS if name in names and _is_path(row[names[name]])), None)
    if path is None:
        raise SourceError(_no_path(row, names))
    try:
        uri = to_uri(row[path], base=base) if locator is None else locator.uri(row[path])
    except InputError as error:
        raise SourceError(str(error)) from error
    caption = next((names[name] for name in CAPTION_COLUMNS if name in names), None)
    identity = names.get("id")
    taken = {path, caption, identity}
    metadata, left_out = _metadata({name: value for name, value in row.items() if name not in taken}, place or uri)
    return Item(
        uri,
        id=None if identity is None else _id(row[identity]),
        captions=() if caption is None else _captions(caption, row[caption]),
        metadata=metadata,
        place=place,
        left_out=left_out,
    )


def items_from_rows(
    rows: Iterable[TableRow], *, name: str, base: str, locator: Locator | None = None
) -> Iterator[Item | Skip | Note]:
    """Turn the rows of a table into items.

    Args:
        rows: `(where, row)` pairs, where a row that could not be read is the reason instead; and notes.
        name: What to call the table in errors.
        base: Folder that relative paths start from.
        locator: Finds the files that paths mean, from that folder; where None, paths are taken as they are.

    Yields:
        An `Item` for each row; a `Skip` for a row that cannot be used; a `Note` on what was left out or found.

    Raises:
        SourceError: No row, or none of the first 1,000, can be used.
    """
    unusable: list[Skip] = []
    waiting: list[Skip | Note] = []
    usable = False
    for entry in rows:
        remarks: list[Note] = []
        result: Item | Skip | Note
        if isinstance(entry, Note):
            result = entry
        else:
            where, row = entry
            try:
                if isinstance(row, str):
                    raise SourceError(row)
                result = item_from_row(row, base=base, place=where, locator=locator)
            except SourceError as error:
                result = Skip(where, str(error))
            if locator is not None:
                remarks = [Note(text, about=where) for text in locator.notes()]
        if usable:
            yield from remarks
            yield result
            continue
        if isinstance(result, Item):
            usable = True
            yield from waiting
            yield from remarks
            yield result
            continue
        waiting += [*remarks, result]
        if isinstance(result, Skip):
            unusable.append(result)
            if len(unusable) == _PATIENCE:
                break
    if usable:
        return
    if not unusable:
        raise SourceError(f"{name} has no rows")
    raise SourceError(f"{name} names no picture; the first problem is at {unusable[0].uri}: {unusable[0].reason}")


def _is_path(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else isinstance(value, os.PathLike)


def _no_path(row: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    present = [names[name] for name in PATH_COLUMNS if name in names]
    if present:
        value = row[present[0]]
        what = "is empty" if value is None or value == "" else f"holds {type(value).__name__}, expected a path or URL"
        return f"column {present[0]!r} {what}"
    columns = ", ".join(map(repr, row)) or "none"
    return (
        f"no column says where the picture is: the columns are {columns}; name one of them {' or '.join(PATH_COLUMNS)}"
    )


def _id(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and not value):
        return None
    try:
        return as_id(value)
    except InputError as error:
        raise SourceError(str(error)) from error


def _captions(name: Any, value: Any) -> tuple[str, ...]:
    if isinstance(value, Mapping):
        # How Hugging Face writes a list of objects: {"raw": ["A dog .", "Two dogs ."], "sentid": [1, 2]}.
        value = _caption_text(value)
    values = [] if value is None else [value] if isinstance(value, str) else value
    if isinstance(values, list | tuple):
        values = [_caption_text(entry) for entry in values]
    if not isinstance(values, list | tuple) or not all(isinstance(entry, str) for entry in values):
        raise SourceError(f"column {name!r} must hold text or a list of texts, got {value!r:.80}")
    return tuple(text for entry in values if (text := _plain(name, entry).strip()))


def _metadata(row: Mapping[Any, Any], about: str) -> tuple[dict[str, Any], tuple[Note, ...]]:
    """The plain values of a row, and remarks on those that cannot be kept exactly."""
    found: dict[str, Any] = {}
    left_out: list[Note] = []
    for name, value in row.items():
        try:
            found[str(name)] = plain_value(value)
        except CellError as error:
            text, _, remedy = f"column {name!r} {error}".partition("; ")
            left_out.append(Note(f"{text}; the cell was left out", remedy=remedy, about=about))
        except MetadataError as error:
            raise SourceError(f"column {name!r} {error}") from error
    return found, tuple(left_out)


def _caption_text(entry: Any) -> Any:
    if isinstance(entry, Mapping):
        return next((entry[key] for key in _CAPTION_KEYS if isinstance(entry.get(key), str | list)), entry)
    return entry


def _plain(name: Any, value: Any) -> Any:
    try:
        return plain_value(value)
    except MetadataError as error:
        raise SourceError(f"column {name!r} {error}") from error
