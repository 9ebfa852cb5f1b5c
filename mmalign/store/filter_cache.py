"""What filters let through, kept by their text and the version of the items: a repeated one is not evaluated again.

A filter depends on nothing but its text, the rows and their columns: it holds no time of day and nothing random.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from mmalign.utils import Int64Array

# So many filters are kept, those that were not asked for the longest go first; and so many row ids in all, 64 MiB.
_FILTERS = 256
_ROW_IDS = 1 << 23


class FilterCache:
    """Row ids by the text of a filter, of one version at a time."""

    def __init__(self) -> None:
        self._version: object = None
        self._kept: OrderedDict[str, Int64Array] = OrderedDict()
        self._rows = 0
        self._lock = threading.Lock()

    def knows(self, where: str, version: object) -> bool:
        """Whether a filter was answered for this version, and so is one that can be."""
        with self._lock:
            return self._version == version and where in self._kept

    def get(self, where: str, version: Callable[[], object], evaluate: Callable[[], Int64Array]) -> Int64Array:
        """Return what a filter lets through.

        Args:
            where: The filter as a user wrote it.
            version: Gives that of the rows; what is kept of another one is dropped.
            evaluate: Finds the row ids; called where they are not known. They are not kept where the version is
                another one afterwards, as where a writer goes on meanwhile.

        Returns:
            int64 of shape (n,), not to be written to: others have the same array.
        """
        before = version()
        with self._lock:
            if self._version == before and where in self._kept:
                self._kept.move_to_end(where)
                return self._kept[where]
        found = evaluate()
        found.setflags(write=False)
        if version() == before:
            self._keep(where, before, found)
        return found

    def _keep(self, where: str, version: object, found: Int64Array) -> None:
        with self._lock:
            if self._version != version:
                self._version, self._rows = version, 0
                self._kept.clear()
            if where not in self._kept and len(found) <= _ROW_IDS:
                self._kept[where] = found
                self._rows += len(found)
            while len(self._kept) > _FILTERS or self._rows > _ROW_IDS:
                self._rows -= len(self._kept.popitem(last=False)[1])
