"""Positions in an index, the ids they stand for, and which of them are removed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import IndexFileError, InputError
from mmalign.index.base import AllowedRows
from mmalign.utils import Int64Array

_IDS = "ids.npy"
_REMOVED = "removed.npy"


class IdMap:
    """Maps positions 0..n-1 to ids and keeps a tombstone for each removed position.

    The arrays are replaced, never changed in place, so that a search in another thread sees one state or the other.
    """

    def __init__(self, ids: Int64Array | None = None, removed: Int64Array | None = None) -> None:
        self.ids: Int64Array = np.zeros(0, np.int64) if ids is None else ids
        live = np.ones(len(self.ids), np.bool_)
        if removed is not None:
            live[removed] = False
        self.live: NDArray[np.bool_] = live
        self.count = int(np.count_nonzero(live))

    def __len__(self) -> int:
        return len(self.ids)

    def check_new(self, ids: ArrayLike, rows: int) -> Int64Array:
        """Return `ids` as int64 where they can be added, or say why not.

        Args:
            ids: Integers of shape (rows,).
            rows: How many vectors come with them.

        Returns:
            Array of shape (rows,), int64.

        Raises:
            InputError: Not one integer for each vector, negative, or there already.
        """
        array = as_int_ids(ids)
        if len(array) != rows:
            raise InputError(f"expected one id for each vector, got {len(array)} ids for {rows} vectors")
        if not rows:
            return array
        if array.min() < 0:
            raise InputError(f"ids must be at least 0, got {array.min()}; -1 marks an empty place in a result")
        values, counts = np.unique(array, return_counts=True)
        if len(values) < rows:
            raise InputError(f"{rows - len(values)} ids come twice, the first is {values[counts > 1][0]}")
        # Ids mostly grow; then one comparison is enough.
        if self.count and values[0] <= self.ids.max():
            there = array[np.isin(array, self.ids[self.live])]
            if there.size:
                raise InputError(
                    f"{there.size} ids are in the index already, the first is {there[0]}; remove them before adding"
                )
        return array

    def extend(self, ids: Int64Array) -> None:
        """Append ids that `check_new` has let through."""
        self.ids, self.live = (
            np.concatenate([self.ids, ids]),
            np.concatenate([self.live, np.ones(len(ids), np.bool_)]),
        )
        self.count += len(ids)

    def remove(self, ids: ArrayLike) -> int:
        """Mark ids as removed and return how many were there."""
        gone = np.isin(self.ids, as_int_ids(ids)) & self.live
        removed = int(np.count_nonzero(gone))
        if removed:
            self.live = self.live & ~gone
            self.count -= removed
        return removed

    def allowed(self, where: AllowedRows | None) -> NDArray[np.bool_] | None:
        """Which positions a search may return.

        Args:
            where: Allowed ids of shape (m,), a mask over positions, or None for all.

        Returns:
            Mask of shape (n,), or None where every position is allowed.

        Raises:
            InputError: A mask of another length, or ids that are not integers.
        """
        everything = self.count == len(self.ids)
        if where is None:
            return None if everything else self.live
        given = np.asarray(where)
        mask: NDArray[np.bool_]
        if given.dtype == np.bool_:
            if given.shape != self.ids.shape:
                raise InputError(f"a mask must have shape {self.ids.shape}, one entry a position, got {given.shape}")
            mask = given.astype(np.bool_, copy=False)
        else:
            mask = np.isin(self.ids, as_int_ids(given))
        return mask if everything else mask & self.live

    def at(self, positions: Int64Array) -> Int64Array:
        """Return the ids at positions; -1 stays -1."""
        if not len(self.ids):
            return np.full(positions.shape, -1, np.int64)
        if positions.size and positions.min() >= 0:
            return self.ids[positions]
        return np.where(positions < 0, -1, self.ids[np.maximum(positions, 0)])

    def save(self, folder: Path) -> None:
        """Write `ids.npy` and `removed.npy`, the positions that are removed."""
        np.save(folder / _IDS, self.ids)
        np.save(folder / _REMOVED, np.flatnonzero(~self.live))

    @classmethod
    def load(cls, folder: Path, *, rows: int, mmap: bool = True) -> IdMap:
        """Read what `save` wrote.

        Args:
            folder: The folder.
            rows: How many positions there must be.
            mmap: Leave the ids on disk until they are needed.

        Returns:
            The map.

        Raises:
            IndexFileError: A file is missing or damaged, or does not fit.
        """
        ids = load_array(folder / _IDS, mmap=mmap)
        removed = load_array(folder / _REMOVED, mmap=False)
        for path, array in ((folder / _IDS, ids), (folder / _REMOVED, removed)):
            if array.dtype != np.int64 or array.ndim != 1:
                raise IndexFileError(f"{path}: expected int64 of shape (n,), got {array.dtype} of shape {array.shape}")
        if len(ids) != rows or (removed.size and not 0 <= removed.min() <= removed.max() < rows):
            raise IndexFileError(f"{folder}: {_IDS} and {_REMOVED} do not fit an index of {rows} rows; build it again")
        # As a plain view: `np.memmap` takes longer to look up ten ids than a graph takes to find them.
        return cls(ids.view(np.ndarray).astype(np.int64, copy=False), removed.astype(np.int64, copy=False))


def as_int_ids(ids: ArrayLike) -> Int64Array:
    """Return ids as int64 of shape (n,).

    Args:
        ids: Integers.

    Returns:
        Array of shape (n,), int64.

    Raises:
        InputError: Not integers, or not 1-d.
    """
    array = np.atleast_1d(np.asarray(ids))
    if array.size == 0 and array.ndim == 1:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InputError(f"ids must be integers of shape (n,), got {array.dtype} of shape {array.shape}")
    if array.dtype.kind == "u" and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"ids must be below 2**63, got {array.max()}")
    return array.astype(np.int64, copy=False)


def load_array(path: Path, *, mmap: bool) -> NDArray[np.generic]:
    """Read a `.npy` file.

    Args:
        path: The file.
        mmap: Map it instead of reading it.

    Returns:
        The array.

    Raises:
        IndexFileError: Missing, truncated or not an array.
    """
    try:
        array: NDArray[np.generic] = np.load(path, mmap_mode="r" if mmap else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise IndexFileError(f"{path} cannot be read: {error}; build the index again") from error
    return array
