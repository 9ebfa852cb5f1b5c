"""What the collection holds of the items that are asked for, looked up by their keys a block at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from mmalign.collection.ingest.jobs import Known
from mmalign.store import Digests, Store
from mmalign.utils import Int64Array

_COLUMNS = ("id", "uri", "sha256", "bytes", "mtime_ns", "said")
# Rows that are held in memory at once.
_BLOCK = 65_536
# Of so many times more items than are asked for, each is looked up by itself.
_FEW_OF = 256


class KnownItems:
    """The items as they were committed last, with what this run is about to change.

    Args:
        store: The items.

    Attributes:
        without: Row ids of items that are damaged: they count as not there.
    """

    def __init__(self, store: Store) -> None:
        self.without: frozenset[int] = frozenset()
        self._store = store
        self._changed: dict[int, Known] = {}

    def by_id(self, ids: Sequence[str]) -> dict[str, Known]:
        """The items that have one of some ids, by id."""
        return {one.id: one for one in self._look_up("id", ids)}

    def by_uri(self, uris: Sequence[str]) -> dict[str, Known]:
        """The items that lie at one of some places, by URI."""
        return {str(one.uri): one for one in self._look_up("uri", uris)}

    def by_row(self, row_ids: Iterable[int]) -> dict[int, Known]:
        """The items of some rows that are still there, by row id."""
        wanted = np.fromiter(row_ids, np.int64)
        if not len(wanted):
            return {}
        return {one.row_id: one for one in self._made(*self._store.take_there(wanted, _COLUMNS))}

    def by_digest(self, digests: Sequence[str], *, store: Store | None = None) -> dict[str, list[Known]]:
        """The items whose bytes have one of some digests, by digest.

        Args:
            digests: SHA-256 in hexadecimal.
            store: An earlier version; None for the one that was committed last.
        """
        found: dict[str, list[Known]] = {}
        for one in self._look_up("sha256", digests, store=store):
            found.setdefault(str(one.sha256), []).append(one)
        return found

    def all_places(self) -> Iterator[list[Known]]:
        """All items, a block at a time, without what others say of them."""
        columns = [name for name in _COLUMNS if name != "said"]
        for row_ids, batch in self._store.iter_rows(columns, rows=_BLOCK, check=False):
            table = pa.Table.from_batches([batch])
            yield list(self._made(row_ids, table.append_column("said", pa.nulls(len(row_ids), pa.string()))))

    def current(self, known: Known) -> Known:
        """An item with what this run is about to change of it."""
        return self._changed.get(known.row_id, known)

    def change(self, known: Known) -> None:
        """Remember what this run is about to change."""
        self._changed[known.row_id] = known

    def committed(self) -> None:
        """Forget what was remembered: it is in the collection now, and nobody holds on to what was looked up before."""
        self._changed = {}

    @property
    def changes(self) -> int:
        """How many items are remembered."""
        return len(self._changed)

    def _look_up(self, column: str, values: Sequence[str], *, store: Store | None = None) -> Iterator[Known]:
        if values:
            yield from self._made(*(store or self._store).lookup(column, values, _COLUMNS, check=False))

    def _made(self, row_ids: Int64Array, table: pa.Table) -> Iterator[Known]:
        columns = (column.to_pylist() for column in table.select(_COLUMNS).columns)
        for row_id, *values in zip(row_ids.tolist(), *columns, strict=True):
            if row_id not in self.without:
                yield self.current(Known(row_id, *values))


class KnownPictures:
    """Which pictures need not be decoded, as their embedding is in the collection; asked by the threads that read.

    Args:
        store: The items when the run began.
        without: Row ids of items that do not count, since they or their embeddings are damaged.
        asked: How many pictures will be asked for.
    """

    def __init__(self, store: Store, *, without: Collection[int], asked: int) -> None:
        self._store = store
        self._without = without
        few = asked * _FEW_OF < len(store)
        self._all = None if few else Digests.read(store, without=without)
        # By digest, where each is looked up by itself.
        self._asked: dict[str, bool] = {}
        self._encoded = Digests()

    def __contains__(self, digest: str) -> bool:
        """Whether an item had these bytes when the run began."""
        if self._all is not None:
            return digest in self._all
        if digest not in self._asked:
            row_ids, _ = self._store.lookup("sha256", [digest], ["id"], check=False)
            self._asked[digest] = any(row_id not in self._without for row_id in row_ids.tolist())
        return self._asked[digest]

    def lacks(self, digest: str) -> bool:
        """Whether a picture of these bytes is to be decoded."""
        return digest not in self._encoded and digest not in self

    def encoded(self, digest: str) -> None:
        """Remember that a picture was encoded in this run."""
        self._encoded.add(digest)
