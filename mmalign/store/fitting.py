"""What a source says of its items, fitted to the columns of a store; what fits nowhere costs its cell, and is told."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mmalign.errors import MetadataError
from mmalign.store.names import RESERVED
from mmalign.store.settling import Columns
from mmalign.types import CellError, Item, Note, as_id, plain_value

_MOST_NOTES = 20


@dataclass(frozen=True, slots=True)
class FittedItem:
    """One item as its source gives it, fitted to the columns of a store.

    Attributes:
        item: The item; its metadata is by column, with values as the columns hold them.
        digest: A digest of what the source says of it beside its bytes; None where it says nothing.
        own_digest: The same without what came with the call.
    """

    item: Item
    digest: str | None
    own_digest: str | None


class CellNotes:
    """Notes on cells: the first 20 of each column, and how many others there are.

    Attributes:
        notes: Those that are told.
    """

    def __init__(self) -> None:
        self.notes: list[Note] = []
        self._counts: dict[Any, int] = {}

    def add(self, column: Any, note: Note) -> None:
        """Take in a note.

        Args:
            column: The column that it is about.
            note: The note.
        """
        self._counts[column] = self._counts.get(column, 0) + 1
        if self._counts[column] <= _MOST_NOTES:
            self.notes.append(note)

    def to_notes(self) -> list[Note]:
        """All that is to be told."""
        return self.notes + [
            Note(f"{count - _MOST_NOTES:,} more cells of column {column!r} were left out", about=str(column))
            for column, count in self._counts.items()
            if count > _MOST_NOTES
        ]


def plain_item(item: Item, cell_notes: CellNotes) -> Item:
    """An item with plain values, as far as they can be kept.

    Args:
        item: As the source gives it.
        cell_notes: Takes in notes on cells that cannot be.

    Returns:
        The item.

    Raises:
        InputError: Its id cannot be one.
        MetadataError: It cannot be used at all.
    """
    about = item.place or item.uri
    metadata = {}
    for name, value in item.metadata.items():
        try:
            metadata[name] = plain_value(value)
        except CellError as error:
            text, _, remedy = f"column {name!r} {error}".partition("; ")
            cell_notes.add(name, Note(f"{text}; the cell was left out", remedy=remedy, about=about))
        except MetadataError as error:
            raise MetadataError(f"column {name!r} {error}") from error
    for caption in item.captions:
        if not isinstance(caption, str):
            raise MetadataError(f"captions must be text, got {caption!r:.80}")
        try:
            plain_value(caption)
        except MetadataError as error:
            raise MetadataError(f"a caption {error}") from error
    # Not `replace`, which takes as long as all else here.
    return Item(
        item.uri,
        None if item.id is None else as_id(item.id),
        item.captions,
        metadata,
        item.place,
        item.left_out,
        item.source,
    )


def fit_items(
    columns: Columns, items: Sequence[Item], *, by_call: Collection[str] = (), cell_notes: CellNotes
) -> list[FittedItem]:
    """Fit what a source says of some of its items to columns.

    Args:
        columns: The columns, chosen for all of the source.
        items: What `plain_item` returned.
        by_call: Names of metadata that came with the call, and not from the source.
        cell_notes: Takes in notes on cells that fit nowhere, which are left out.

    Returns:
        One for each item.
    """
    rows, left_out = columns.fit([item.metadata for item in items])
    lost: dict[int, set[Any]] = {}
    for cell in left_out:
        about = items[cell.row].place or items[cell.row].uri
        lost.setdefault(cell.row, set()).add(cell.name)
        cell_notes.add(cell.name, Note(f"{cell.text}; the cell was left out", remedy=cell.remedy, about=about))
    found = []
    for number, (item, row) in enumerate(zip(items, rows, strict=True)):
        without = lost.get(number, ())
        digest = _digest(item, without)
        own_digest = _digest(item, {*without, *by_call}) if by_call else digest
        fitted = Item(item.uri, item.id, item.captions, row, item.place, item.left_out, item.source)
        found.append(FittedItem(fitted, digest, own_digest))
    return found


def _digest(item: Item, lost: Collection[Any]) -> str | None:
    # By the names that earlier versions kept it under, so that nothing seems to have changed.
    metadata = {
        f"{name}_" if name in RESERVED else str(name): value
        for name, value in item.metadata.items()
        if value is not None and name not in lost
    }
    if not item.captions and not metadata:
        return None
    text = json.dumps([item.captions, metadata], sort_keys=True, ensure_ascii=True, default=datetime.date.isoformat)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
