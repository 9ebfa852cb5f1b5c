"""The vectors of a database, read once into a temporary file, so that they are scanned often and fit any memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError, SourceError, StorageError
from mmalign.evaluation.index_audit.target import AuditTarget, Key, Keys
from mmalign.evaluation.index_bench_data import read_array, read_parquet
from mmalign.utils import Int64Array, as_matrix, show_bytes, storage_errors

_BATCH = 8_192


class KeyMap:
    """Which position each key has.

    Args:
        keys: The key at each position, each once.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self._sorted: Int64Array | None = None
        self._known: dict[Key, int] = {}
        if isinstance(keys, np.ndarray):
            self._order = np.argsort(keys, kind="stable")
            self._sorted = keys[self._order]
        else:
            self._known = {key: i for i, key in enumerate(keys)}

    def positions(self, keys: Keys) -> Int64Array:
        """Return the position of each key, int64; -1 for one that was not there when the vectors were read."""
        if self._sorted is None:
            return np.array([self._known.get(key, -1) for key in keys], np.int64)
        asked = np.asarray(keys, np.int64)
        if not len(self._sorted) or not len(asked):
            return np.full(len(asked), -1, np.int64)
        places = np.minimum(np.searchsorted(self._sorted, asked), len(self._sorted) - 1)
        found: Int64Array = np.where(self._sorted[places] == asked, self._order[places], -1)
        return found

    def table(self, found: Sequence[Keys] | Int64Array, k: int) -> Int64Array:
        """Return the positions of the hits of several queries, shape (q, k), -1 where there are fewer."""
        table = np.full((len(found), k), -1, np.int64)
        for row, keys in zip(table, found, strict=True):
            positions = self.positions(keys)[:k]
            row[: len(positions)] = positions
        return table


class Spool:
    """Vectors by position, on disk, and their keys.

    Args:
        path: A file of float32 of shape (rows, dim).
        keys: The key at each position.
    """

    def __init__(self, path: Path, keys: Keys) -> None:
        self._held: NDArray[np.float32] = np.load(path, mmap_mode="r")
        self.map = KeyMap(keys)

    def __len__(self) -> int:
        return len(self._held)

    def chunks(self) -> Iterator[tuple[Int64Array, NDArray[np.float32]]]:
        """Yield positions and vectors, piece by piece."""
        for start in range(0, len(self._held), _BATCH):
            part = np.asarray(self._held[start : start + _BATCH])
            yield np.arange(start, start + len(part)), part

    def at(self, positions: Int64Array) -> NDArray[np.float32]:
        """Return vectors by position, shape (m, dim)."""
        return np.asarray(self._held[positions])


def spool(
    target: AuditTarget, folder: Path, *, originals: Path | None = None, advance: Callable[[int], None] | None = None
) -> Spool:
    """Read all vectors of a database.

    Args:
        target: The database.
        folder: Where the file goes.
        originals: A file of the vectors as they were before the index compressed them, in rising order of their ids.
        advance: Called with the number of rows after each batch.

    Returns:
        The vectors.

    Raises:
        SourceError: There are none, or the file of originals does not fit.
        InputError: The database does not give its vectors back, and there are no originals.
        StorageError: The disk is too small.
    """
    if target.sealed and originals is None:
        raise InputError(
            f"{target.name} ({target.index}) does not give its vectors back; give them with --vectors FILE"
        )
    size = 4 * target.rows * target.dim
    if shutil.disk_usage(folder).free < 1.05 * size:
        raise StorageError(
            f"the {target.rows:,} vectors take {show_bytes(size)} in a temporary file, and {folder} has less; name a "
            "larger folder: TMPDIR=/large/folder"
        )
    parts: list[Keys] = []
    path = folder / "vectors.npy"
    rows = 0
    with storage_errors(folder):
        with (folder / "vectors.raw").open("wb") as file:
            for keys, vectors in target.read(_BATCH):
                matrix = as_matrix(vectors, dim=target.dim, name=f"vectors of {target.name}")
                file.write(matrix.tobytes())
                parts.append(keys)
                rows += len(matrix)
                if advance is not None:
                    advance(len(matrix))
        if not rows:
            raise SourceError(f"{target.name} holds no vectors")
        _as_npy(folder / "vectors.raw", path, rows, target.dim)
    keys = _joined(parts)
    if originals is not None:
        _replace(path, originals, keys, target.dim)
    return Spool(path, keys)


def _as_npy(raw: Path, path: Path, rows: int, dim: int) -> None:
    """Give a file of numbers the header that NumPy knows, without a second copy of what is in it."""
    held = np.memmap(raw, np.float32, "r", shape=(rows, dim))
    made = np.lib.format.open_memmap(path, "w+", np.float32, (rows, dim))
    for start in range(0, rows, _BATCH):
        made[start : start + _BATCH] = held[start : start + _BATCH]
    made.flush()
    del held, made
    raw.unlink()


def _joined(parts: Sequence[Keys]) -> Keys:
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([np.asarray(part, np.int64) for part in parts])
    keys = [key for part in parts for key in part]
    if all(isinstance(key, int) and abs(key) < 1 << 62 for key in keys):
        return np.array(keys, np.int64)
    return keys


def _replace(path: Path, originals: Path, keys: Keys, dim: int) -> None:
    """Put the vectors of a file in the place of those that were read."""
    held = np.load(path, mmap_mode="r+")
    if not isinstance(keys, np.ndarray):
        raise InputError("--vectors are told apart by the order of their ids, and these ids are no numbers")
    order = np.argsort(keys, kind="stable")
    done = 0
    for part in read_vectors(Path(originals)):
        matrix = as_matrix(part, dim=dim, name=str(originals))
        if done + len(matrix) > len(held):
            done += len(matrix)
            break
        held[order[done : done + len(matrix)]] = matrix
        done += len(matrix)
    if done != len(held):
        more = "more than" if done > len(held) else f"{done:,}, not"
        raise SourceError(f"{originals} has {more} {len(held):,} vectors; it must have one for each in the index")
    held.flush()


def read_vectors(path: Path) -> Iterator[NDArray[Any]]:
    """Read a file of vectors piece by piece.

    Args:
        path: `.npy`, `.npz` or `.parquet`.

    Yields:
        Floats of shape (n, dim).

    Raises:
        SourceError: There is none, or it is no such file.
    """
    if not path.is_file() or path.suffix not in (".npy", ".npz", ".parquet"):
        raise SourceError(f"no file of vectors at {path}; its name ends in .npy, .npz or .parquet")
    yield from read_parquet(path) if path.suffix == ".parquet" else read_array(path)


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for the vectors, below `$TMPDIR`."""
    return tempfile.TemporaryDirectory(prefix="mmalign-audit-")
