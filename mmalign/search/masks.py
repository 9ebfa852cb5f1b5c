"""Masks made of row ids, kept for the arrays that come again: those that a repeated filter lets through."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.utils import Int64Array

_Mask: TypeAlias = NDArray[np.bool_]
# What is kept in all, in bytes.
_BYTES = 64 << 20


class Masks:
    """Masks over the positions of one index, or over the vectors of one store."""

    def __init__(self) -> None:
        # With the array that each was made of, whose id no other one has as long as it is kept.
        self._kept: OrderedDict[int, tuple[Int64Array, _Mask]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def of(self, row_ids: Int64Array, make: Callable[[Int64Array], _Mask]) -> _Mask:
        """Return the mask of some row ids.

        Args:
            row_ids: int64 of shape (n,); only of one that cannot be written to is the mask kept.
            make: Makes it.

        Returns:
            The mask, not to be written to.
        """
        if row_ids.flags.writeable:
            return make(row_ids)
        with self._lock:
            if id(row_ids) in self._kept:
                self._kept.move_to_end(id(row_ids))
                return self._kept[id(row_ids)][1]
        mask = make(row_ids)
        with self._lock:
            if id(row_ids) not in self._kept:
                self._kept[id(row_ids)] = row_ids, mask
                self._bytes += mask.nbytes + row_ids.nbytes
            while self._bytes > _BYTES:
                ids, old = self._kept.popitem(last=False)[1]
                self._bytes -= old.nbytes + ids.nbytes
        return mask
