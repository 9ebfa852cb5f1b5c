"""What a source says of its items, fitted to the columns of a store; what fits nowhere costs its cell, and is told."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmalign.errors import InputError, MetadataError
from mmalign.store.lance_store import Store
from mmalign.store.names import RESERVED
from mmalign.types import CellError, Item, Note, Skip, as_id, plain_value

_MOST_NOTES = 20


@dataclass(frozen=True, slots=True)
class Given:
    """What a source says of its items.

    Attributes:
        items: The items; their metadata is by column, with values as the columns hold them.
        said: A digest of what the source says of each beside its bytes; None where it says nothing.
        own: The same without what came with the call.
        columns: Columns that some item has a value for.
        renamed: Names that are kept as another one.
        skipped: Items that cannot be used.
        notes: Cells that were left out.
    """

    items: list[Item]
    said: list[str | None]
    own: list[str | None]
    columns: list[str]
    renamed: Mapping[str, str]
    skipped: list[Skip]
    notes: list[Note]


def fit_items(
    store: Store, items: Sequence[Item], *, as_text: Collection[str] = (), by_call: Collection[str] = ()
) -> Given:
    """Fit what a source says of its items to columns; those that the store lacks are made.

    Args:
        store: The items' store.
        items: The items as the source gives them.
        as_text: Names of columns that are to be text.
        by_call: Names of metadata that came with the call, and not from the source.

    Returns:
        The items that can be used, and what to tell of the rest.

    Raises:
        MetadataError: A column of `as_text` is in neither the source nor the store.
        StorageError: The disk refused.
    """
    plain: list[Item] = []
    skipped: list[Skip] = []
    notes: list[tuple[Any, Note]] = []
    for item in items:
        try:
            plain.append(_plain(item, notes))
        except (MetadataError, InputError) as error:
            skipped.append(Skip(item.place or item.uri, str(error)))
    settled = store.settle([item.metadata for item in plain], as_text=as_text)
    lost: dict[int, set[Any]] = {}
    for cell in settled.left_out:
        about = plain[cell.row].place or plain[cell.row].uri
        lost.setdefault(cell.row, set()).add(cell.name)
        notes.append((cell.name, Note(f"{cell.text}; the cell was left out", remedy=cell.remedy, about=about)))
    return Given(
        items=[replace(item, metadata=row) for item, row in zip(plain, settled.rows, strict=True)],
        said=(said := [_digest(item, lost.get(number, ())) for number, item in enumerate(plain)]),
        own=[_digest(item, {*lost.get(number, ()), *by_call}) for number, item in enumerate(plain)]
        if by_call
        else said,
        columns=sorted({name for row in settled.rows for name, value in row.items() if value is not None}),
        renamed=settled.renamed,
        skipped=skipped,
        notes=limit_notes(notes),
    )


def limit_notes(notes: Sequence[tuple[Any, Note]]) -> list[Note]:
    """Keep the first 20 remarks on each column, and count the others.

    Args:
        notes: Each with its column.

    Returns:
        The remarks that are told.
    """
    counts: dict[Any, int] = {}
    told = []
    for column, note in notes:
        counts[column] = counts.get(column, 0) + 1
        if counts[column] <= _MOST_NOTES:
            told.append(note)
    more = {column: count - _MOST_NOTES for column, count in counts.items() if count > _MOST_NOTES}
    return told + [
        Note(f"{count:,} more cells of column {column!r} were left out", about=str(column))
        for column, count in more.items()
    ]


def _plain(item: Item, notes: list[tuple[Any, Note]]) -> Item:
    about = item.place or item.uri
    metadata = {}
    for name, value in item.metadata.items():
        try:
            metadata[name] = plain_value(value)
        except CellError as error:
            text, _, remedy = f"column {name!r} {error}".partition("; ")
            notes.append((name, Note(f"{text}; the cell was left out", remedy=remedy, about=about)))
        except MetadataError as error:
            raise MetadataError(f"column {name!r} {error}") from error
    for caption in item.captions:
        if not isinstance(caption, str):
            raise MetadataError(f"captions must be text, got {caption!r:.80}")
        try:
            plain_value(caption)
        except MetadataError as error:
            raise MetadataError(f"a caption {error}") from error
    return replace(item, id=None if item.id is None else as_id(item.id), metadata=metadata)


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
