"""A build in shards: each is filled in memory and written; a build that was killed goes on after the last whole one.

    plan.json          what is built; another plan begins from nothing
    trained.faiss      the trained index without vectors
    shard-00000.faiss  the lists of so many vectors, and shard-00000.npy, their ids
    index.faiss        all of them, once they are complete

Each file is written under another name, forced to disk and then renamed, so that what has its name is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import IndexFileError
from mmalign.index.faiss.io import read_faiss, write_faiss
from mmalign.index.faiss.library import load_faiss
from mmalign.index.faiss.lists import bytes_per_row, join_files
from mmalign.index.ids import load_array
from mmalign.utils import Int64Array, as_matrix, storage_errors, write_atomic

PLAN = "plan.json"
_TRAINED = "trained.faiss"
_JOINED = "index.faiss"
# Without a budget a shard takes about this much memory.
_SHARD_BYTES = 1 << 28
# Lists grow by doubling: at worst they hold twice what is in them, and the old half is there while it is copied.
_GROWTH = 3
_LEAST_ROWS = 16_384
_MOST_ROWS = 1 << 24


def shard_rows(layer: Any, *, memory: int | None) -> int:
    """How many vectors fit a shard.

    Args:
        layer: The inverted lists, from `need_lists`.
        memory: Bytes that the build may take; None for a quarter of a GiB a shard.

    Returns:
        At least 16,384.
    """
    most = _SHARD_BYTES if memory is None else memory // 4
    return max(_LEAST_ROWS, min(_MOST_ROWS, most // (_GROWTH * bytes_per_row(layer))))


class ShardBuilder:
    """The folder of a build in shards.

    Args:
        folder: The folder, made where it does not exist.
        plan: What is built, as JSON-ready values. Where the folder holds another plan, it is emptied.

    Raises:
        StorageError: The disk refused.
    """

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        self.folder = folder
        content = json.dumps(dict(plan), sort_keys=True)
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if _read(folder / PLAN) != content:
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                write_atomic(folder / PLAN, content)

    def trained(self) -> Any | None:
        """Return the trained index of an earlier run, or None."""
        path = self.folder / _TRAINED
        try:
            return read_faiss(path, mmap=False) if path.exists() else None
        except IndexFileError:
            return None

    def keep_trained(self, index: Any) -> None:
        """Write the trained index, which holds no vectors yet.

        Raises:
            StorageError: The disk refused.
        """
        with storage_errors(self.folder):
            write_atomic(self.folder / _TRAINED, lambda path: write_faiss(index, path))

    def fill(
        self,
        index: Any,
        chunks: Iterable[tuple[Int64Array, NDArray[Any]]],
        *,
        rows: int,
        before: tuple[Path, int] | None = None,
        advance: Callable[[int], None] | None = None,
    ) -> tuple[Path, Int64Array]:
        """Fill the lists shard by shard and join them; shards that are there already are not built again.

        Args:
            index: The trained index without vectors.
            chunks: All vectors, in the same order each time: `(ids, vectors)`.
            rows: How many vectors go into a shard.
            before: An index file whose lists come first, and how many vectors it holds.
            advance: Called with the number of vectors after each chunk.

        Returns:
            The file with the joined index, in which vectors have the positions 0, 1, 2..., and the ids of `chunks` in
            that order.

        Raises:
            InputError: NaN or infinity among the vectors.
            StorageError: The disk refused.
        """
        first, positions = ([], 0) if before is None else ([before[0]], before[1])
        parts: list[Path] = []
        known: list[Int64Array] = []
        joined = self.folder / _JOINED
        if joined.exists():
            # Killed after all was done, before anyone took it over.
            return joined, _join([self._known(path) for path in sorted(self.folder.glob("shard-*.npy"))])
        with storage_errors(self.folder):
            for number, pieces in enumerate(split(chunks, rows)):
                path = self.folder / f"shard-{number:05}.faiss"
                start = positions + number * rows
                # Ids are written last: a shard that has them is complete.
                if path.exists() and path.with_suffix(".npy").exists():
                    ids = self._skip(pieces, advance)
                    if not np.array_equal(ids, self._known(path.with_suffix(".npy"))):
                        raise IndexFileError(f"{path} holds other items than are there now; remove {self.folder}")
                else:
                    ids = self._fill(index, pieces, path, start, advance)
                parts.append(path)
                known.append(ids)
            write_atomic(joined, lambda path: join_files(self._empty(index), [*first, *parts], path))
            for path in parts:
                path.unlink()
        return joined, _join(known)

    def _known(self, path: Path) -> Int64Array:
        return load_array(path, mmap=False).astype(np.int64, copy=False)

    def _skip(
        self, pieces: Iterable[tuple[Int64Array, NDArray[Any]]], advance: Callable[[int], None] | None
    ) -> Int64Array:
        known = []
        for ids, _ in pieces:
            known.append(ids)
            if advance is not None:
                advance(len(ids))
        return _join(known)

    def _fill(
        self,
        index: Any,
        pieces: Iterable[tuple[Int64Array, NDArray[Any]]],
        path: Path,
        start: int,
        advance: Callable[[int], None] | None,
    ) -> Int64Array:
        shard = self._empty(index)
        known = []
        for ids, vectors in pieces:
            matrix = as_matrix(vectors, dim=shard.d)
            shard.add_with_ids(matrix, np.arange(start, start + len(ids), dtype=np.int64))
            start += len(ids)
            known.append(ids)
            if advance is not None:
                advance(len(ids))
        ids = _join(known)
        write_atomic(path, lambda part: write_faiss(shard, part))
        write_atomic(path.with_suffix(".npy"), lambda part: _save_ids(part, ids))
        return ids

    def _empty(self, index: Any) -> Any:
        """A copy, to which vectors can be added."""
        return load_faiss().clone_index(index)


def split(
    chunks: Iterable[tuple[Int64Array, NDArray[Any]]], rows: int
) -> Iterator[Iterator[tuple[Int64Array, NDArray[Any]]]]:
    """Group chunks into shards of exactly `rows` vectors, the last one perhaps of fewer; chunks are cut where need be.

    Args:
        chunks: `(ids, vectors)`.
        rows: Vectors a shard, at least 1.

    Yields:
        The pieces of each shard, at least one; all have to be taken before the next shard is asked for.
    """
    waiting = iter(chunks)
    rest: tuple[Int64Array, NDArray[Any]] | None = None

    def take() -> tuple[Int64Array, NDArray[Any]] | None:
        nonlocal rest
        found, rest = rest, None
        while found is None or not len(found[0]):
            found = next(waiting, None)
            if found is None:
                return None
        return found

    def pieces(first: tuple[Int64Array, NDArray[Any]]) -> Iterator[tuple[Int64Array, NDArray[Any]]]:
        nonlocal rest
        room, piece = rows, first
        while True:
            ids, vectors = piece
            if len(ids) > room:
                rest = ids[room:], vectors[room:]
            yield ids[:room], vectors[:room]
            room -= min(room, len(ids))
            following = take() if room else None
            if following is None:
                return
            piece = following

    while (first := take()) is not None:
        yield pieces(first)


def _join(ids: list[Int64Array]) -> Int64Array:
    return np.concatenate([np.zeros(0, np.int64), *ids])


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _save_ids(path: Path, ids: Int64Array) -> None:
    with path.open("wb") as file:
        np.save(file, ids)
