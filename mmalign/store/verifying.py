"""Comparing rows with their checksums: those that were read, or all, each file of the dataset once a process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmalign.errors import DamagedError
from mmalign.store.checksums import (
    CHECKSUM,
    EMBEDDING,
    EMBEDDING_CHECKSUM,
    covered,
    differs,
    readable_values,
    row_checksums,
)
from mmalign.store.checksums import embedding_checksums as checksums_of_embeddings
from mmalign.store.location import Location

_ROWS = 32_768
_READ_AHEAD = 2
_NAMED = 5
_REMEDY = (
    "run `mmalign index` with their source, which encodes them anew, or remove them; "
    "`mmalign doctor --deep` lists all that is damaged"
)
# Data files whose rows were right when they were read: Lance never changes a file, nor uses its name again.
# The value is whether their embeddings were, too.
_verified: dict[tuple[object, ...], bool] = {}


@dataclass(frozen=True, slots=True)
class Damage:
    """A row that is not what was written.

    Attributes:
        row_id: The row's id.
        values: What its columns hold now, as far as it can be read.
        embedding: Whether its embedding is damaged.
        columns: Whether one of its other columns is.
        unreadable: Columns that cannot be read at all, of this item and of all others in its fragment; while it is
            there, nothing that reads these columns of all items works.
        fragment: The fragment of the dataset that it lies in, where columns cannot be read.
    """

    row_id: int
    values: dict[str, Any]
    embedding: bool
    columns: bool
    unreadable: tuple[str, ...] = ()
    fragment: int = -1

    def describe(self) -> str:
        """Say in a sentence which item it is, and what of it is damaged."""
        what = " and ".join(["its embedding"] * self.embedding + ["its columns"] * self.columns)
        if self.unreadable:
            what = f"{', '.join(self.unreadable)} cannot be read"
        return f"item {self.values.get('id')!r} ({self.values.get('uri') or 'no place'}): {what}"


def check_rows(rows: pa.Table) -> None:
    """Compare rows that were read with their checksums.

    Args:
        rows: All columns that `covered` names.

    Raises:
        DamagedError: One differs.
    """
    if CHECKSUM in rows.column_names:
        _refuse(rows, differs(rows.column(CHECKSUM), row_checksums(rows)))


def check_embeddings(rows: pa.Table, embeddings: NDArray[np.float16]) -> None:
    """Compare embeddings that were read with their checksums.

    Args:
        rows: Their rows, with the column `_embedding_checksum`.
        embeddings: float16 of shape (n, dim).

    Raises:
        DamagedError: One differs.
    """
    if EMBEDDING_CHECKSUM in rows.column_names:
        wrong = differs(rows.column(EMBEDDING_CHECKSUM), checksums_of_embeddings(embeddings))
        if wrong.any():
            raise damaged(int(wrong.sum()), [], what="embedding")


def check_all(dataset: lance.LanceDataset) -> None:
    """Compare all rows without their embeddings with their checksums, where that was not done before.

    Args:
        dataset: The dataset.

    Raises:
        DamagedError: One differs.
    """
    names = covered(dataset.schema.names)
    for fragment in dataset.get_fragments() if names else ():
        key = _state(dataset, fragment)
        if key in _verified:
            continue
        seen = 0
        for batch in fragment.to_batches(columns=names, batch_size=_ROWS, batch_readahead=_READ_AHEAD):
            check_rows(pa.Table.from_batches([batch]))
            seen += batch.num_rows
        if seen != fragment.count_rows():
            raise damaged(abs(fragment.count_rows() - seen), [], what="row")
        _verified[key] = False


def _state(dataset: lance.LanceDataset, fragment: lance.LanceFragment) -> tuple[object, ...]:
    files = _files(dataset, fragment)
    # In an object store the name has to do: size and time would cost a request a file.
    if not Location.of(dataset.uri).is_local:
        return tuple(file.uri for file in files)
    return tuple((file.uri, (known := file.path.stat()).st_size, known.st_mtime_ns) for file in files)


def _files(dataset: lance.LanceDataset, fragment: lance.LanceFragment) -> list[Location]:
    folder = Location.of(dataset.uri) / "data"
    return [folder / file.path for file in fragment.metadata.files]


def find_damage(dataset: lance.LanceDataset, *, again: bool = False) -> Iterator[Damage]:
    """Find all rows that are damaged, in their columns or embedding.

    Args:
        dataset: The dataset.
        again: Whether to read, too, what this process has found to be right before.

    Yields:
        The damaged rows.
    """
    names = covered(dataset.schema.names)
    for fragment in dataset.get_fragments() if names else ():
        key = _state(dataset, fragment)
        if _verified.get(key) and not again:
            continue
        try:
            found = list(_damage_in(fragment, names))
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        # Also a panic of Lance's, which is no Exception.
        except BaseException:
            found = _unreadable_in(dataset, fragment, names)
            if not found:
                raise
        yield from found
        if not found:
            _verified[key] = True


def _damage_in(fragment: lance.LanceFragment, names: list[str]) -> Iterator[Damage]:
    # Lance would read so many batches ahead that the memory of a small machine is full.
    batches = fragment.to_batches(
        columns=[*names, EMBEDDING], batch_size=_ROWS, batch_readahead=_READ_AHEAD, with_row_id=True
    )
    for batch in batches:
        yield from _damage_of(pa.Table.from_batches([batch]))


def _unreadable_in(dataset: lance.LanceDataset, fragment: lance.LanceFragment, names: list[str]) -> list[Damage]:
    """The rows of a file of which columns cannot be read; none where it is the disk that refuses to give the file."""
    for file in _files(dataset, fragment):
        try:
            file.read_bytes()
        except OSError:
            return []
    columns, unreadable = {}, []
    for name in [*names, EMBEDDING]:
        try:
            columns[name] = fragment.to_table(columns=[name]).column(0)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException:
            unreadable.append(name)
    if not unreadable:
        # It was by chance; tried again, it works.
        return list(_damage_in(fragment, names))
    row_ids = dataset.scanner(columns=[], with_row_id=True, fragments=[fragment]).to_table().column("_rowid")
    known = {name: readable_values(column.combine_chunks()) for name, column in columns.items() if name != EMBEDDING}
    return [
        Damage(
            int(row_id),
            {name: values[place] for name, values in known.items()},
            EMBEDDING in unreadable,
            columns=True,
            unreadable=tuple(unreadable),
            fragment=fragment.fragment_id,
        )
        for place, row_id in enumerate(row_ids.to_pylist())
    ]


def _damage_of(rows: pa.Table) -> Iterator[Damage]:
    row_ids, vectors = rows.column("_rowid").to_numpy(), rows.column(EMBEDDING)
    rows = rows.drop_columns(["_rowid", EMBEDDING])
    columns = differs(rows.column(CHECKSUM), row_checksums(rows))
    matrix = vectors.combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, vectors.type.list_size)
    embedding = differs(rows.column(EMBEDDING_CHECKSUM), checksums_of_embeddings(matrix))
    for place in np.flatnonzero(columns | embedding).tolist():
        values = readable(rows.slice(place, 1))
        yield Damage(int(row_ids[place]), values, bool(embedding[place]), bool(columns[place]))


def damaged(count: int, names: list[str], *, what: str = "item") -> DamagedError:
    """Make the error that says which items are damaged and what to do.

    Args:
        count: How many.
        names: Ids of some, as they can be read.
        what: What of them is.
    """
    shown = f" ({', '.join(map(repr, names[:_NAMED]))}{', ...' if count > _NAMED else ''})" if names else ""
    verb = "is" if count == 1 else "are"
    return DamagedError(
        f"{count:,} {what}{'s' * (count != 1)}{shown} of the collection {verb} damaged: what was read is not what "
        f"was written; {_REMEDY}",
        tuple(names),
    )


def readable(row: pa.Table) -> dict[str, Any]:
    """The values of one row, without those that cannot be read.

    Args:
        row: One row.
    """
    values = {}
    for name, column in zip(row.column_names, row.columns, strict=True):
        try:
            values[name] = column.to_pylist()[0]
        except (UnicodeDecodeError, ValueError, OverflowError, pa.ArrowException):
            continue
    return values


def _refuse(rows: pa.Table, wrong: NDArray[np.bool_]) -> None:
    if not wrong.any():
        return
    places = np.flatnonzero(wrong)
    ids = rows.select(["id"]) if "id" in rows.column_names else None
    names = [] if ids is None else [readable(ids.slice(place, 1)).get("id") for place in places[:_NAMED].tolist()]
    raise damaged(len(places), [str(name) for name in names if name is not None])
