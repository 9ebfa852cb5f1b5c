"""What an index covers of the items: which positions are still true, and which items it lacks.

The index knows the items as they were at one version of the dataset. What was inserted or updated since is the tail,
to be searched exactly; what was deleted or updated since is masked. Where that version is still there, and from one
version to the next, only the fragments that differ are looked at; else all row ids are read once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmalign.index import Index, IndexManifest
from mmalign.store import Store, find_changes
from mmalign.utils import Int64Array

# To look at all row ids reads them twice. Where the fragments that changed take more reading than this times their
# number, that is less work.
_MOST_CHANGED = 2.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """What an index covers of one version of the items.

    Attributes:
        store: The items.
        since: The version of the dataset that the index was built from.
        unindexed: Row ids that the index lacks, or knows with an old vector; int64 of shape (n,).
        mask: Positions that are still true, bool of shape (positions,); None where all are.
        stale: How many positions are not true any more.
        positions: Where each row id stands in the index.
        known: Row ids of fragments that were looked at, by fragment.
    """

    store: Store
    since: int
    unindexed: Int64Array
    mask: NDArray[np.bool_] | None
    stale: int
    positions: PositionMap
    known: Mapping[int, Int64Array] = field(default_factory=dict)

    @property
    def uncovered(self) -> int:
        """How many items the index lacks, plus how many positions it holds in vain."""
        return len(self.unindexed) + self.stale

    @classmethod
    def look(cls, store: Store, index: Index, *, since: int) -> Coverage:
        """Find out what an index covers.

        Args:
            store: The items.
            index: The index.
            since: The version of the dataset that it was built from.

        Returns:
            The coverage.
        """
        positions = PositionMap(index)
        built = store.at(since)
        if built is not None and len(built) == index.ntotal:
            first = cls(built, since, np.zeros(0, np.int64), _mask(index.live), _count_stale(index.live), positions)
            followed = first._follow(store)
            if followed is not None:
                return followed
        return cls._read(store, index, since, positions)

    @classmethod
    def _read(cls, store: Store, index: Index, since: int, places: PositionMap) -> Coverage:
        """Look at all row ids."""
        unindexed = store.row_ids(since=since)
        valid = np.isin(index.ids, store.row_ids()) & index.live
        if len(unindexed):
            valid[places.of(unindexed)] = False
        return cls(store, since, unindexed, _mask(valid), _count_stale(valid), places)

    def follow(self, store: Store, index: Index) -> Coverage:
        """Find out what the same index covers of a later version.

        Args:
            store: The items at that version.
            index: The index.

        Returns:
            The coverage.
        """
        return self._follow(store) or self._read(store, index, self.since, self.positions)

    def _follow(self, store: Store) -> Coverage | None:
        """Look at what has changed, or return None where that is too much or cannot be told."""
        most = int(_MOST_CHANGED * len(self.positions))
        changes = find_changes(self.store, store, since=self.since, known=self.known, most=most)
        if changes is None:
            return None
        # A row of the tail may have moved, been deleted or written again: where it lies now counts.
        kept = self.unindexed[~np.isin(self.unindexed, changes.before)] if len(self.unindexed) else self.unindexed
        unindexed = np.concatenate([kept, changes.written])
        stale = self.positions.of(np.concatenate([changes.deleted, changes.written]))
        if not len(stale):
            return Coverage(store, self.since, unindexed, self.mask, self.stale, self.positions, changes.known)
        valid = np.ones(len(self.positions), np.bool_) if self.mask is None else self.mask.copy()
        valid[stale] = False
        return Coverage(store, self.since, unindexed, _mask(valid), _count_stale(valid), self.positions, changes.known)


class PositionMap:
    """Where row ids stand in an index, without its removed positions.

    Args:
        index: The index; it may not change any more.
    """

    def __init__(self, index: Index) -> None:
        self._positions = len(index.ids)
        live = index.live
        # Removed positions may hold the id of a row that was added again further on.
        places = None if live.all() else np.flatnonzero(live)
        ids = index.ids if places is None else index.ids[places]
        if len(ids) and not (np.diff(ids) > 0).all():
            order = np.argsort(ids, kind="stable")
            ids, places = ids[order], order if places is None else places[order]
        self._ids, self._places = ids, places

    def __len__(self) -> int:
        return self._positions

    def of(self, row_ids: Int64Array) -> Int64Array:
        """Return the positions of those row ids that the index holds.

        Args:
            row_ids: int64 of shape (n,).

        Returns:
            int64 of shape (m,), m at most n.
        """
        if not len(self._ids):
            return np.zeros(0, np.int64)
        near = np.minimum(np.searchsorted(self._ids, row_ids), len(self._ids) - 1)
        found: Int64Array = near[self._ids[near] == row_ids]
        return found if self._places is None else self._places[found]


def belongs(store: Store, manifest: IndexManifest) -> bool:
    """Whether an index was built from these items, as they were at some version before this one.

    Args:
        store: The items.
        manifest: The index's manifest; one of an earlier mmalign tells only from which version.
    """
    if manifest.dataset:
        return store.is_marked(manifest.dataset)
    return manifest.dataset_version <= store.version


def _mask(valid: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """A mask, or None where it would let everything through: the index needs none then."""
    return None if valid.all() else valid


def _count_stale(valid: NDArray[np.bool_]) -> int:
    return len(valid) - int(np.count_nonzero(valid))
