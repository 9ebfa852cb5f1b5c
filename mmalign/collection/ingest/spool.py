"""A list of values that lies on disk, where it may be longer than the memory."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from mmalign.store import storage_errors

_T = TypeVar("_T")
# A short list never comes to the disk.
_IN_MEMORY = 32 << 20


class Spool(Generic[_T]):
    """Values in the order in which they came; the file has no name, so that nothing stays behind.

    Args:
        folder: Where there is room.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(folder))  # noqa: SIM115 - see `close`
        self._ends = array("q", [0])

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
        with storage_errors(self._folder):
            self._file.seek(self._ends[-1])
            self._file.write(data)
        self._ends.append(self._ends[-1] + len(data))

    def __getitem__(self, number: int) -> _T:
        with storage_errors(self._folder, reading=True):
            self._file.seek(self._ends[number])
            data = self._file.read(self._ends[number + 1] - self._ends[number])
        value: _T = pickle.loads(data)
        return value

    def __iter__(self) -> Iterator[_T]:
        return map(self.__getitem__, range(len(self)))

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
