"""Which items have the same bytes: found once for each version of the items, and folded into one hit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmalign.store.digests import digest_keys
from mmalign.store.lance_store import Store
from mmalign.utils import Float32Array, Int64Array, storage_errors

_ROWS = 262_144


@dataclass(frozen=True, slots=True)
class Copies:
    """The items whose bytes another item has too.

    Attributes:
        row_ids: Their row ids in rising order, int64 of shape (n,).
        groups: Which of them are copies of one another: a number from 0 for each, int64 of shape (n,).
        first: The oldest item of each group, int64 of shape (groups,).
        items: How many items there are in all.
    """

    row_ids: Int64Array
    groups: Int64Array
    first: Int64Array
    items: int

    @classmethod
    def read(cls, store: Store) -> Copies:
        """Find the copies among all items; those without a digest, as of vectors from elsewhere, have none.

        Args:
            store: The items.

        Returns:
            The copies.
        """
        ids, keys = [np.zeros(0, np.int64)], [np.zeros(0, np.uint64)]
        store.verify()
        with storage_errors(store.dataset.uri, reading=True):
            scanner = store.dataset.scanner(
                columns=["sha256"], filter="sha256 IS NOT NULL", with_row_id=True, batch_size=_ROWS
            )
            for batch in scanner.to_batches():
                ids.append(batch.column("_rowid").to_numpy(zero_copy_only=False).astype(np.int64))
                keys.append(digest_keys(batch.column("sha256")))
        row_ids, hashes = np.concatenate(ids), np.concatenate(keys)
        order = np.argsort(hashes)
        same = hashes[order[1:]] == hashes[order[:-1]]
        alike = np.zeros(len(order), np.bool_)
        alike[1:] |= same
        alike[:-1] |= same
        chosen = np.sort(row_ids[order[alike]])
        if not len(chosen):
            return cls(chosen, chosen, chosen, len(store))
        return cls._group(chosen, store.take(chosen, ["sha256"]).column("sha256"), items=len(store))

    @classmethod
    def _group(cls, row_ids: Int64Array, digests: pa.ChunkedArray, *, items: int) -> Copies:
        encoded = digests.combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0)
        groups = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        shared = np.bincount(groups)[groups] > 1
        first, groups = _number(row_ids[shared], groups[shared])
        return cls(row_ids[shared], groups, first, items)

    def __bool__(self) -> bool:
        return bool(len(self.row_ids))

    @property
    def extra(self) -> int:
        """How many items are copies of an older one."""
        return len(self.row_ids) - len(self.first)

    def among(self, allowed: Int64Array | None) -> Copies:
        """The copies among some of the items.

        Args:
            allowed: Their row ids, each once; None for all.

        Returns:
            The copies of which more than one is among these.
        """
        if allowed is None:
            return self
        there = np.isin(self.row_ids, allowed)
        row_ids, groups = self.row_ids[there], self.groups[there]
        shared = np.bincount(groups, minlength=1)[groups] > 1
        first, groups = _number(row_ids[shared], groups[shared])
        return Copies(row_ids[shared], groups, first, len(allowed))

    def others(self, row_id: int) -> Int64Array:
        """The copies of an item, without the item itself, oldest first.

        Args:
            row_id: The item.

        Returns:
            Row ids, int64 of shape (m,).
        """
        place = int(np.searchsorted(self.row_ids, row_id))
        if place == len(self.row_ids) or self.row_ids[place] != row_id:
            return self.row_ids[:0]
        members: Int64Array = self.row_ids[self.groups == self.groups[place]]
        rest: Int64Array = members[members != row_id]
        return rest

    def fold(self, scores: Float32Array, row_ids: Int64Array) -> tuple[Float32Array, Int64Array]:
        """Let the oldest of the copies stand for all.

        Args:
            scores: Shape (q, k), float32, best first.
            row_ids: Shape (q, k), int64; -1 marks an empty place.

        Returns:
            `(scores, row_ids)` of the same shapes: each group of copies once, where its best was; the places that
            become free are empty ones at the end.
        """
        if not self or not row_ids.size:
            return scores, row_ids
        places = np.minimum(np.searchsorted(self.row_ids, row_ids), len(self.row_ids) - 1)
        copied = self.row_ids[places] == row_ids
        stands = np.where(copied, self.first[self.groups[places]], row_ids)
        order = np.argsort(stands, axis=1, kind="stable")
        ranked = np.take_along_axis(stands, order, axis=1)
        again = np.zeros(ranked.shape, np.bool_)
        again[:, 1:] = ranked[:, 1:] == ranked[:, :-1]
        repeated = np.zeros(ranked.shape, np.bool_)
        np.put_along_axis(repeated, order, again, axis=1)
        empty = repeated | (row_ids < 0)
        kept = np.argsort(empty, axis=1, kind="stable")
        stands = np.where(empty, -1, stands)
        folded = np.where(empty, np.float32(-np.inf), scores)
        return np.take_along_axis(folded, kept, axis=1), np.take_along_axis(stands, kept, axis=1)


def _number(row_ids: Int64Array, groups: Int64Array) -> tuple[Int64Array, Int64Array]:
    """The oldest of each group, and the groups numbered from 0."""
    if not len(row_ids):
        return row_ids, groups
    _, numbered = np.unique(groups, return_inverse=True)
    first = np.full(int(numbered.max()) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, numbered, row_ids)
    return first, numbered.astype(np.int64)
