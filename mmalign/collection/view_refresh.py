"""Where a view is kept, what it is made of, and bringing it in line with the items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmalign.collection.view_search import Unsaved, ViewRows
from mmalign.collection.view_table import CHUNK, Comparison, DesiredRows, ViewTable, bring_in_line, compare_rows
from mmalign.encoders import Encoder
from mmalign.errors import StorageError
from mmalign.index import lifecycle
from mmalign.store import Store
from mmalign.types import Note
from mmalign.utils import lock, storage_errors, track

FOLDER = "views"
IMAGE, CAPTIONS = VIEWS = "image", "captions"
"""The views: of the items' own embeddings, which is kept with them, and of what is said of them."""
EARLIER_CAPTIONS, EARLIER_LOCK = "captions.lance", ".captions.lock"
"""Where formats 1 and 2 keep captions, and what is held by who writes to them."""


@dataclass(frozen=True, slots=True)
class ViewPlace:
    """Where a view is kept.

    Attributes:
        table: The dataset of its rows.
        index: The folder of its index's versions; None where it has none.
        lock: Held by who writes to the table.
        earlier: Whether it is kept as formats 1 and 2 keep captions.
    """

    table: Path
    index: Path | None
    lock: Path
    earlier: bool = False

    @classmethod
    def of(cls, data: Path, name: str, *, format: int) -> ViewPlace:
        """Say where a view of some items is.

        Args:
            data: The folder that holds the items.
            name: Of the view.
            format: Of the collection.
        """
        if format < 3:
            return cls(data / EARLIER_CAPTIONS, None, data / EARLIER_LOCK, earlier=True)
        folder = data / FOLDER / name
        return cls(folder / "table.lance", folder / "index", folder / ".lock")


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """What a view is made of.

    Attributes:
        name: Its name.
        place: Where it is kept; nothing need be there.
        wanted: Gives the rows that it should hold of some version of the items.
        encoder: Gives the encoder; called only where a text must be encoded.
        dim: Width of an embedding.
    """

    name: str
    place: ViewPlace
    wanted: Callable[[Store], DesiredRows]
    encoder: Callable[[], Encoder]
    dim: int

    def open(self) -> ViewTable | None:
        """Open the table; None where there is none, or none that is one."""
        return ViewTable.open(self.place.table, earlier=self.place.earlier)

    def remake(self) -> ViewTable:
        """Make the table anew: half made by a process that was killed, damaged, or not there, it is worth nothing.

        Returns:
            An empty table.

        Raises:
            StorageError: The disk refused.
        """
        if self.place.index is not None:
            lifecycle.withdraw(self.place.index)
        return ViewTable.create(self.place.table, dim=self.dim, earlier=self.place.earlier)


def refresh_view(spec: ViewSpec, items: Store, *, progress: bool = True) -> ViewRows:
    """Bring the table of a view in line with the items; only new texts are encoded.

    Where nothing has changed nothing is written. Where the table cannot be written, what is new is encoded into
    memory.

    Args:
        spec: The view.
        items: The items; where something must be written, their newest version is followed.
        progress: Whether to show a progress bar.

    Returns:
        The rows.

    Raises:
        StorageError: The disk refused for another reason than that it may only be read.
    """
    wanted = spec.wanted(items)
    table, look = compare_stored(spec, wanted)
    if look.in_line:
        return ViewRows(items, table, look.row_ids, look.owners)
    try:
        with storage_errors(spec.place.table):
            spec.place.table.parent.mkdir(parents=True, exist_ok=True)
        with lock(spec.place.lock):
            # Another process may have done it meanwhile, and what was removed meanwhile must not come back.
            items = items.latest()
            wanted = spec.wanted(items)
            table, look = compare_stored(spec, wanted)
            if not look.in_line:
                table = table or spec.remake()
                bring_in_line(table, wanted, look, spec.encoder, name=spec.name, progress=progress)
                look = compare_rows(table, wanted)
            return ViewRows(items, table, look.row_ids, look.owners)
    except StorageError as error:
        if not _read_only(error):
            raise
    return _in_memory(spec, ViewRows(items, table, look.row_ids, look.owners), wanted, look, progress=progress)


def compare_stored(spec: ViewSpec, wanted: DesiredRows) -> tuple[ViewTable | None, Comparison]:
    """Say what is stored, and how it stands to what should be.

    Args:
        spec: The view.
        wanted: The rows that it should hold.

    Returns:
        The table, None where nothing is stored or nothing that can be read; and the comparison.

    Raises:
        StorageError: The disk lets nobody read it.
    """
    table = spec.open()
    try:
        return table, compare_rows(table, wanted)
    except StorageError as error:
        if _read_only(error):
            raise
        return None, compare_rows(None, wanted)


def _in_memory(spec: ViewSpec, rows: ViewRows, wanted: DesiredRows, look: Comparison, *, progress: bool) -> ViewRows:
    """The same rows, and those that are missing encoded into memory."""
    if not len(look.missing):
        return rows
    texts = [text for _, text in wanted.of(look.missing)]
    vectors = np.zeros((len(texts), spec.dim), np.float16)
    with track(spec.name.capitalize(), len(texts), enabled=progress) as advance:
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            vectors[start : start + len(chunk)] = spec.encoder().encode_text(chunk)
            advance(len(chunk))
    note = Note(
        f"{len(texts):,} {spec.name} are not stored yet and were encoded for this process alone, since the collection "
        "may only be read here",
        remedy=f"search {spec.name} once where it may be written",
        about=spec.name,
    )
    owners = np.concatenate([rows.owners, wanted.row_ids[wanted.item[look.missing]]])
    return replace(rows, owners=owners, unsaved=Unsaved(texts, vectors), notes=(note,))


def _read_only(error: BaseException | None) -> bool:
    """Whether what the disk refused is that somebody writes: by the chain of errors, and by Lance's texts."""
    while error is not None:
        if isinstance(error, PermissionError) or getattr(error, "errno", None) in _REFUSED:
            return True
        if any(text in str(error) for text in ("os error 13)", "os error 30)", "ermission denied", "ead-only file")):
            return True
        error = error.__cause__
    return False


# EACCES, EPERM and EROFS.
_REFUSED = (1, 13, 30)
