"""A list of values that lies on disk, where it may be longer than the memory."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from mmalign.utils import storage_errors

_T = TypeVar("_T")
# A short list never comes to the disk.
_IN_MEMORY = 32 << 20
# Bytes that are read and written at once.
_AT_ONCE = 1 << 20


class Spool(Generic[_T]):
    """Values in the order in which they came; the file has no name, so that nothing stays behind.

    Args:
        folder: Where there is room.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - see `close`
        self._ends = array("q", [0])
        # What waits to be written, and how much is.
        self._waiting = bytearray()
        self._written = 0

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, value: _T) -> None:
        """Put a value at the end.

        Args:
            value: Anything that can be pickled.

        Raises:
            StorageError: The disk refused.
        """
        data = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
        self._waiting += data
        self._ends.append(self._ends[-1] + len(data))
        if len(self._waiting) >= _AT_ONCE:
            self._write()

    def _write(self) -> None:
        with storage_errors(self._folder):
            self._file.seek(self._written)
            self._file.write(self._waiting)
        self._written += len(self._waiting)
        self._waiting.clear()

    def _read(self, start: int, stop: int) -> bytes:
        """The values from one number to another, as they were pickled."""
        if self._waiting:
            self._write()
        with storage_errors(self._folder, reading=True):
            self._file.seek(self._ends[start])
            return self._file.read(self._ends[stop] - self._ends[start])

    def __getitem__(self, number: int) -> _T:
        value: _T = pickle.loads(self._read(number, number + 1))
        return value

    def __iter__(self) -> Iterator[_T]:
        start = 0
        while start < len(self):
            # As many as come to about so many bytes, and one at least.
            stop = max(start + 1, bisect_right(self._ends, self._ends[start] + _AT_ONCE) - 1)
            data, before = memoryview(self._read(start, stop)), self._ends[start]
            for number in range(start, stop):
                yield pickle.loads(data[self._ends[number] - before : self._ends[number + 1] - before])
            start = stop

    def close(self) -> None:
        """Give the room free."""
        self._file.close()


def blocks(values: Iterator[_T], size: int) -> Iterator[list[_T]]:
    """Values in lists of some length.

    Args:
        values: The values.
        size: The length of all lists but the last.

    Yields:
        The lists.
    """
    while block := list(islice(values, size)):
        yield block
