"""From the row ids that a search found to hits that tell of their items."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmalign.search.searcher import FoundRows
from mmalign.store import Copies, Store
from mmalign.types import Hit
from mmalign.utils import Int64Array

if TYPE_CHECKING:
    import pyarrow as pa

# Columns that take more memory than this are read from disk for every search.
_MEMORY = 256 << 20
# To take some rows from disk costs about as much as to read so many rows in one go, and so many more for each hit.
_ROWS_A_TAKE, _ROWS_A_HIT = 2_000, 10
# Hits of so many queries are made at once.
_BLOCK = 32


class HitReader:
    """Reads what hits tell of their items, at one version of the items.

    The first searches take their rows from disk. Once that has cost as much as reading all rows would have, the
    columns come into memory, unless they are too large; hits are then made when somebody looks at them.

    Args:
        store: The items, at the version that is searched.

    Attributes:
        store: As given.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._columns = ["id", "uri", "kind", *store.sizes.values(), "captions", *store.columns]
        self._table: _Table | None = None
        self._spent = 0
        self._lock = threading.Lock()

    def read(
        self, found: FoundRows, probabilities: NDArray[np.float64] | None = None
    ) -> Callable[[int], tuple[Hit, ...]]:
        """Turn row ids into hits, with at most one read for all queries.

        Args:
            found: What was found.
            probabilities: Of the same shape as the scores, NaN where there is none.

        Returns:
            For `batch_results`: gives the hits of a query by its place, best first.
        """
        if self._table is not None:
            return _LateHits(self._table, found, probabilities).hits
        chosen = found.row_ids[found.row_ids >= 0]
        taken = self.store.take(chosen, self._columns) if chosen.size else None
        rows: list[dict[str, Any]] = [] if taken is None else taken.to_pylist()
        results = _make_all(rows, found.scores, found.row_ids, probabilities)
        if taken is not None:
            self._keep(len(rows), taken.nbytes / len(rows))
        return results.__getitem__

    def _keep(self, hits: int, row_bytes: float) -> None:
        """Bring the columns into memory where that has become worth its while."""
        with self._lock:
            self._spent += _ROWS_A_TAKE + _ROWS_A_HIT * hits
            rows = len(self.store)
            if self._table is None and self._spent >= rows and rows * row_bytes <= _MEMORY:
                self._table = _Table(*self.store.scan(self._columns))


def with_copies(
    hits: Callable[[int], tuple[Hit, ...]], found: FoundRows, store: Store, copies: Copies
) -> Callable[[int], tuple[Hit, ...]]:
    """Name in each hit the copies that it stands for.

    Args:
        hits: Gives the hits of a query by its place, as `HitReader.read`.
        found: What they were made of.
        store: The items, at the version that was searched.
        copies: The copies among the items that could be found.

    Returns:
        As `hits`.
    """

    def made(query: int) -> tuple[Hit, ...]:
        row_ids = found.row_ids[query]
        others = [copies.others(row_id) for row_id in row_ids[row_ids >= 0].tolist()]
        wanted = np.concatenate(others) if others else row_ids[:0]
        if not wanted.size:
            return hits(query)
        uris = iter(store.take(wanted, ["uri"]).column("uri").to_pylist())
        return tuple(
            replace(hit, copies=tuple(islice(uris, len(own)))) if len(own) else hit
            for hit, own in zip(hits(query), others, strict=True)
        )

    return made


class _Table:
    """Columns of all items in memory, looked up by row id."""

    def __init__(self, row_ids: Int64Array, table: pa.Table) -> None:
        self._order = np.argsort(row_ids, kind="stable")
        self._row_ids = row_ids[self._order]
        # One piece a column: to take rows from many costs several times as much.
        batches = table.combine_chunks().to_batches()
        self._batch = batches[0] if batches else None
        self._names = table.column_names

    def take(self, row_ids: Int64Array) -> list[dict[str, Any]]:
        if self._batch is None or not len(row_ids):
            return []
        positions = self._order[np.searchsorted(self._row_ids, row_ids)]
        taken = self._batch.take(_indices(positions))
        # Column by column, which takes half the time of `to_pylist` of all.
        columns = [column.to_pylist() for column in taken.columns]
        return [dict(zip(self._names, values, strict=True)) for values in zip(*columns, strict=True)]


def _indices(positions: Int64Array) -> Any:
    import pyarrow as pa

    return pa.array(positions)


class _LateHits:
    """The hits of some queries, made when they are looked at, some queries at once.

    To look at one result should not make ten thousand hits, nor every result take rows by itself.
    """

    def __init__(self, table: _Table, found: FoundRows, chances: NDArray[np.float64] | None) -> None:
        self._table = table
        self._found = found
        self._chances = chances
        self._made: dict[int, list[tuple[Hit, ...]]] = {}

    def hits(self, query: int) -> tuple[Hit, ...]:
        block, place = divmod(query, _BLOCK)
        made = self._made.get(block)
        if made is None:
            part = slice(block * _BLOCK, (block + 1) * _BLOCK)
            row_ids = self._found.row_ids[part]
            chances = None if self._chances is None else self._chances[part]
            made = _make_all(self._table.take(row_ids[row_ids >= 0]), self._found.scores[part], row_ids, chances)
            # Two threads may both do this, with equal results.
            self._made[block] = made
        return made[place]


def _make_all(
    rows: list[dict[str, Any]],
    scores: NDArray[np.float32],
    row_ids: Int64Array,
    chances: NDArray[np.float64] | None,
) -> list[tuple[Hit, ...]]:
    results = []
    start = 0
    for i, own in enumerate(row_ids):
        there = own >= 0
        stop = start + int(np.count_nonzero(there))
        results.append(_make(rows[start:stop], scores[i][there], None if chances is None else chances[i][there]))
        start = stop
    return results


def _make(
    rows: list[dict[str, Any]], scores: NDArray[np.float32], likely: NDArray[np.float64] | None
) -> tuple[Hit, ...]:
    chances = [np.nan] * len(rows) if likely is None else likely.tolist()
    hits = []
    for values, score, chance in zip(rows, scores.tolist(), chances, strict=True):
        name, uri = values.pop("id"), values.pop("uri")
        metadata = {key: value for key, value in values.items() if value is not None}
        # NaN alone differs from itself.
        probability = chance if chance == chance else None
        hits.append(Hit(id=name, uri=uri or "", score=score, metadata=metadata, probability=probability))
    return tuple(hits)
