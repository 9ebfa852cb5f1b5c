"""Named arrays that are computed once and kept in files, which a killed run goes on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from mmalign.errors import InputError, StorageError
from mmalign.utils import write_atomic

Arrays: TypeAlias = dict[str, NDArray[Any]]
"""Named arrays whose first axis is the picture or the text, in memory."""
Columns: TypeAlias = Mapping[str, NDArray[Any]]
"""Named arrays with one row a picture or text, perhaps memory-mapped."""


def cached_arrays(
    folder: Path,
    name: str,
    keys: Sequence[str],
    compute: Callable[[int], Iterable[Arrays]],
    *,
    version: str,
    flush_rows: int = 512,
    progress: Callable[[int], None] | None = None,
) -> Columns:
    """Return arrays with a row for each key, computing only the rows that an earlier, perhaps killed, run did not.

    Args:
        folder: Where the files are kept; made if need be.
        name: What the rows are, such as `image-plain`.
        keys: What decides each row, such as a path or a sentence; n of them, at least one.
        compute: Given the first row that is missing, yields the rows from there on in blocks of any height, in order.
        version: What else decides the rows, such as the model's digest; other keys or another version start anew.
        flush_rows: Rows written between two marks of progress.
        progress: Called with the number of further rows done.

    Returns:
        Arrays of shape (n, ...), mapped read-only from the files in the dtype in which they were computed.

    Raises:
        StorageError: The disk refused; what was written is kept.
        InputError: Blocks of other names, shapes or dtypes than the first.
    """
    digest = hashlib.sha256(json.dumps([version, list(keys)]).encode()).hexdigest()[:16]
    stem = folder / f"{name}-{digest}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        state = _read_mark(stem)
        done = int(state["rows"])
        files: dict[str, Any] = {}
        if done:
            files = {part: np.load(_file(stem, part), mmap_mode="r+") for part in state["parts"]}
        marked = done
        for block in compute(done) if done < len(keys) else ():
            if not files:
                files = {
                    part: open_memmap(_file(stem, part), "w+", dtype=array.dtype, shape=(len(keys), *array.shape[1:]))
                    for part, array in block.items()
                }
            rows = _write(files, block, done, where=f"{name} of {folder}")
            done += rows
            if progress is not None:
                progress(rows)
            if done - marked >= flush_rows or done == len(keys):
                for array in files.values():
                    array.flush()
                _write_mark(stem, done, list(files))
                marked = done
        if done < len(keys):
            raise InputError(f"{name} of {folder}: expected {len(keys)} rows, the model gave {done}")
    except OSError as error:
        raise StorageError(
            f"the cache {stem} cannot be written: {error}; free space or name another --cache"
        ) from error
    return {part: np.load(_file(stem, part), mmap_mode="r") for part in files}


class Table:
    """Columns of several files, one below the other.

    Args:
        parts: At least one set of columns, all of the same names, trailing shapes and dtypes.
    """

    def __init__(self, *parts: Columns) -> None:
        self._parts = parts
        heights = [len(next(iter(part.values()))) for part in parts]
        self._starts = np.cumsum([0, *heights])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: NDArray[np.int64]) -> Arrays:
        """Copy some rows of each column.

        Args:
            rows: Positions, shape (b,), from 0 to the table's length - 1.

        Returns:
            Arrays of shape (b, ...), in memory.
        """
        if len(self._parts) == 1:
            return {name: np.asarray(array[rows]) for name, array in self._parts[0].items()}
        result = {name: np.empty((len(rows), *array.shape[1:]), array.dtype) for name, array in self._parts[0].items()}
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owner):
            places = np.flatnonzero(owner == number)
            for name, array in self._parts[number].items():
                result[name][places] = array[rows[places] - self._starts[number]]
        return result


def row_blocks(count: int, size: int) -> Iterator[NDArray[np.int64]]:
    """Cut the positions 0 to `count` - 1 into runs of at most `size`."""
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def _write(files: Mapping[str, Any], block: Arrays, start: int, *, where: str) -> int:
    rows = {len(array) for array in block.values()}
    fits = files.keys() == block.keys() and len(rows) == 1
    for part, array in block.items():
        fits = fits and array.shape[1:] == files[part].shape[1:] and array.dtype == files[part].dtype
    if not fits or start + max(rows) > len(next(iter(files.values()))):
        expected = {part: (array.shape, str(array.dtype)) for part, array in files.items()}
        came = {part: (array.shape, str(array.dtype)) for part, array in block.items()}
        raise InputError(f"{where}: expected rows of {expected}, got {came}; delete the cache if the model has changed")
    for part, array in block.items():
        files[part][start : start + len(array)] = array
    return rows.pop()


def _file(stem: Path, part: str) -> Path:
    return stem.with_name(f"{stem.name}.{part}.npy")


def _read_mark(stem: Path) -> dict[str, Any]:
    nothing = {"rows": 0, "parts": []}
    try:
        state: dict[str, Any] = json.loads(stem.with_name(stem.name + ".rows").read_text())
    except (FileNotFoundError, ValueError):
        return nothing
    return state if all(_file(stem, part).is_file() for part in state["parts"]) else nothing


def _write_mark(stem: Path, rows: int, parts: Sequence[str]) -> None:
    # The mark follows the rows, and replaces the last mark whole: a kill in between repeats some rows at most.
    write_atomic(stem.with_name(stem.name + ".rows"), json.dumps({"rows": rows, "parts": list(parts)}), sync=False)
