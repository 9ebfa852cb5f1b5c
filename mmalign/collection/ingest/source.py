"""The items of a source, read once to its end: several rows for one picture joined, and kept on disk."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.collection.ingest.spool import Spool
from mmalign.errors import InputError, MetadataError
from mmalign.store import CellNotes, plain_item
from mmalign.types import Item, Note, Skip, Unread
from mmalign.utils import Int64Array, track

_Key = tuple[str | None, str]
_Record = tuple[str, str | None, tuple[str, ...], dict[str, Any], str, str | None]


class SourceItems:
    """The items of a source, each id and URI once, in the order of the source.

    In memory it keeps three numbers for each row.

    Args:
        folder: Where there is room for as much as the source says.

    Attributes:
        skipped: What cannot be used.
        unread: Files that look like media and are not read, by ending.
        names: Names of metadata, in the order in which they came.
        filled: Those of them that some item has a value for.
        remarks: Takes in notes on cells of the items.
        claims: By id, the URIs that claim it, where there are several.
    """

    def __init__(self, folder: Path) -> None:
        self.skipped: list[Skip] = []
        self.unread: Counter[str] = Counter()
        self.names: dict[Any, None] = {}
        self.filled: set[Any] = set()
        self.cell_notes = CellNotes()
        self.claims: dict[str, list[str]] = {}
        self._notes: list[Note] = []
        self._left_out = CellNotes()
        self._overridden: dict[Any, Note] = {}
        self._spool: Spool[_Record] = Spool(folder)
        # By row; `hash` is 64 bits, and what it confuses is told apart by the values themselves.
        self._keys, self._ids, self._uris = array("q"), array("q"), array("q")
        self._seen: Int64Array = np.zeros(0, np.int64)
        # Rows in the order of their keys, and the places in it of the first row of each key.
        self._order: Int64Array | None = None
        self._first: Int64Array = np.zeros(0, np.int64)
        self._count = 0

    def read(self, source: Iterable[Item | Skip | Note | Unread], *, progress: bool) -> None:
        """Read the source.

        Args:
            source: The items, and what the source itself had to leave out.
            progress: Whether to show a progress bar.
        """
        with track("Scanning", None, enabled=progress) as advance:
            for entry in source:
                if isinstance(entry, Note):
                    self._notes.append(entry)
                    continue
                if isinstance(entry, Unread):
                    self.unread[entry.ending] += entry.count
                    continue
                advance(1)
                if isinstance(entry, Skip):
                    self.skipped.append(entry)
                else:
                    self._take(entry)
        self._sort()

    def _take(self, given: Item) -> None:
        for note in given.left_out:
            self._left_out.add(note.text.partition(" holds ")[0], note)
        # Also of one that cannot be used: its picture is there.
        self._uris.append(hash(given.uri))
        try:
            item = plain_item(given, self.cell_notes)
        except (MetadataError, InputError) as error:
            self.skipped.append(Skip(given.place or given.uri, str(error)))
            return
        metadata = dict(item.metadata)
        for name, value in metadata.items():
            self.names[name] = None
            if value is not None:
                self.filled.add(name)
        self._keys.append(hash((item.id, item.uri)))
        self._ids.append(0 if item.id is None else hash(item.id) or 1)
        self._spool.append((item.uri, item.id, item.captions, metadata, item.place, item.source))

    def _sort(self) -> None:
        self._seen = np.unique(np.frombuffer(self._uris, np.int64)) if self._uris else self._seen
        keys = np.frombuffer(self._keys, np.int64) if self._keys else self._seen[:0]
        order = np.argsort(keys, kind="stable")
        first = np.flatnonzero(np.concatenate([[True], np.diff(keys[order]) != 0])) if len(keys) else order
        self._count = len(first)
        if len(first) < len(keys):
            self._order, self._first = order, first
        self._find_claims(np.sort(order[first]))

    def _find_claims(self, rows: Int64Array) -> None:
        """Find ids that more than one picture claims."""
        ids = np.frombuffer(self._ids, np.int64)[rows] if len(rows) else rows
        values, counts = np.unique(ids[ids != 0], return_counts=True)
        if (counts > 1).any():
            claimed: dict[str, dict[str, None]] = {}
            for row in rows[np.isin(ids, values[counts > 1])].tolist():
                uri, name, *_ = self._spool[row]
                claimed.setdefault(str(name), {})[uri] = None
            self.claims = {name: list(uris) for name, uris in claimed.items() if len(uris) > 1}

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Item]:
        if self._order is None:
            yield from map(_item, self._spool)
            return
        order, ends = self._order, np.append(self._first[1:], len(self._order))
        # By the row that comes first, as the source names them.
        for group in np.argsort(order[self._first], kind="stable").tolist():
            rows = order[self._first[group] : ends[group]].tolist()
            joined: dict[_Key, Item] = {}
            for item in (_item(self._spool[row]) for row in rows):
                key = item.id, item.uri
                joined[key] = item if key not in joined else self._join(joined[key], item)
            yield from joined.values()

    def _join(self, first: Item, second: Item) -> Item:
        """Make one item of two rows for the same picture: with the captions of both, and the later of other values."""
        metadata = dict(first.metadata)
        for name, value in second.metadata.items():
            before = metadata.get(name)
            if value is None and before is not None:
                continue
            if before is not None and before != value and name not in self._overridden:
                self._overridden[name] = Note(
                    f"column {name!r} says {before!r:.40} and then {value!r:.40} of one picture; the last row counts",
                    remedy="say the same in all rows of a picture",
                    about=second.place or second.uri,
                )
            metadata[name] = value
        captions = tuple(dict.fromkeys(first.captions + second.captions))
        return replace(first, captions=captions, metadata=metadata)

    def names_uri(self, uri: str) -> bool:
        """Whether the source has an item at this place; one in a million million times also where it has none.

        Args:
            uri: Any URI.
        """
        key = hash(uri)
        place = int(np.searchsorted(self._seen, key))
        return place < len(self._seen) and bool(self._seen[place] == key)

    def names_uris(self, uris: Sequence[str]) -> NDArray[np.bool_]:
        """What `names_uri` says of many.

        Args:
            uris: n URIs.

        Returns:
            bool of shape (n,).
        """
        keys = np.fromiter(map(hash, uris), np.int64, len(uris))
        if not len(self._seen):
            return np.zeros(len(keys), np.bool_)
        # Not `isin`, which sorts all that the source names once more for each few that are asked for.
        places = np.minimum(np.searchsorted(self._seen, keys), len(self._seen) - 1)
        found: NDArray[np.bool_] = self._seen[places] == keys
        return found

    def notes(self) -> list[Note]:
        """What is to be told of the source, once all was gone through."""
        return [*self._notes, *self._left_out.to_notes(), *self._overridden.values(), *self.cell_notes.to_notes()]

    def close(self) -> None:
        """Give the room on disk free."""
        self._spool.close()


def _item(record: _Record) -> Item:
    uri, name, captions, metadata, place, source = record
    return Item(uri, name, captions, metadata, place, (), source)
