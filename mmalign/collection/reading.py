"""Items read back from a collection: by id, in batches, as tables of Arrow and pandas, and their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import wraps
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import numpy as np

from mmalign.errors import InputError, ItemNotFoundError, MissingExtraError, StorageError
from mmalign.store import Store
from mmalign.types import StoredItem, as_list, describe
from mmalign.utils import Float32Array, Int64Array

if TYPE_CHECKING:
    import pandas
    import pyarrow as pa

_Method = TypeVar("_Method", bound=Callable[..., Any])
# A purge takes files away from under a search, as many writes do; so many in a row are more than somebody does.
_ATTEMPTS = 10
_NO_CONTEXT = nullcontext()

# Items that are made at once.
_ITEMS = 1_024
_NAMED = 5
_OWN = ("uri", "kind", "bytes", "sha256", "captions")
# Of every item, and of no use to who reads it back.
_LEFT_OUT = frozenset({"mtime_ns"})


class _HasSnapshot(Protocol):
    def snapshot(self) -> Store: ...


def reads_again(method: _Method) -> _Method:
    """Do what reads items once more where other processes replaced their files meanwhile.

    A purge does, and so do many small writes while one version is read for long. The second attempt asks writers to
    keep earlier versions meanwhile.

    Args:
        method: Of what has `snapshot`, the items as they are now.

    Returns:
        The method, which is called again as long as there are newer items.
    """

    @wraps(method)
    def reading(self: _HasSnapshot, *args: Any, **kwargs: Any) -> Any:
        seen = -1
        for attempt in range(_ATTEMPTS):
            with self.snapshot().reads_long() if attempt else _NO_CONTEXT:
                try:
                    return method(self, *args, **kwargs)
                except StorageError:
                    version = self.snapshot().version
                    if version == seen:
                        raise
                    seen = version
        return method(self, *args, **kwargs)

    return cast("_Method", reading)


def select_columns(store: Store, columns: Any) -> list[str]:
    """Return the columns to read.

    Args:
        store: The items.
        columns: Names of columns, as they are kept or as a source gave them, `embedding` among them or not; None for
            all but that.

    Returns:
        Names as they are kept, each once.

    Raises:
        InputError: No list of names, or no column is called so.
    """
    known = store.readable
    if columns is None:
        return known
    renamed = store.renamed
    chosen = []
    for name in as_list("columns", columns, "a list of names of columns"):
        if not isinstance(name, str) or name not in (*known, *renamed, "embedding"):
            raise InputError(f"no column is called {describe(name)}; columns here: {', '.join([*known, 'embedding'])}")
        chosen.append(name if name in known else renamed.get(name, name))
    if not chosen:
        raise InputError(f"columns names none; columns here: {', '.join([*known, 'embedding'])}")
    return list(dict.fromkeys(chosen))


def read_items(store: Store, names: Sequence[str]) -> list[StoredItem]:
    """Read items by their ids.

    Args:
        store: The items.
        names: n ids; one may come more than once.

    Returns:
        n items in the order of the ids.

    Raises:
        ItemNotFoundError: No item has one of the ids.
        DamagedError: One is not what was written.
    """
    _, table = store.lookup("id", names, _columns(store))
    items = {item.id: item for item in _items(table.to_pylist(), store.sizes)}
    if not items.keys() >= set(names):
        # That says which are not there, unless damage hides them.
        locate_rows(store, names)
    return [items[name] for name in names]


def iter_items(store: Store) -> Iterator[StoredItem]:
    """Read all items, some at once.

    Args:
        store: The items.

    Yields:
        The items.

    Raises:
        DamagedError: One is not what was written.
    """
    sizes = store.sizes
    for _, batch in store.iter_rows(_columns(store), rows=_ITEMS):
        yield from _items(batch.to_pylist(), sizes)


def locate_rows(store: Store, names: Sequence[str]) -> Int64Array:
    """Find items by their ids.

    Args:
        store: The items.
        names: n ids; one may come more than once.

    Returns:
        Row ids in the order of the ids, int64 of shape (n,).

    Raises:
        ItemNotFoundError: No item has one of the ids.
        DamagedError: An item is not what was written: it may be the one.
    """
    if not names:
        return np.zeros(0, np.int64)
    found, unknown = store.match(names)
    if unknown:
        # Unless it is their ids that are damaged.
        store.verify(most=None)
        shown = ", ".join(map(repr, unknown[:_NAMED])) + (", ..." if len(unknown) > _NAMED else "")
        what = f"no item has the id {shown}" if len(unknown) == 1 else f"no items have the {len(unknown):,} ids {shown}"
        raise ItemNotFoundError(f"{what}; ids are those of hits and of the column id", tuple(unknown))
    place = dict(zip(store.take(found, ["id"]).column("id").to_pylist(), found.tolist(), strict=True))
    return np.array([place[name] for name in names], np.int64)


def read_embeddings(store: Store, names: Sequence[str] | None) -> tuple[list[str], Float32Array]:
    """Read embeddings.

    Args:
        store: The items.
        names: n ids, of which one may come more than once; None for all items.

    Returns:
        `(ids, embeddings)`: n ids, and float32 of shape (n, dim).

    Raises:
        ItemNotFoundError: No item has one of the ids.
        DamagedError: One is not what was written.
    """
    if names is not None:
        rows = locate_rows(store, names)
        vectors = store.embeddings(rows)[1] if len(rows) else np.zeros((0, store.dim))
        return list(names), vectors.astype(np.float32)
    ids: list[str] = []
    found = np.zeros((len(store), store.dim), np.float32)
    for _, batch in store.iter_rows(["id", "embedding"]):
        flat = batch.column("embedding").flatten().to_numpy(zero_copy_only=False)
        found[len(ids) : len(ids) + batch.num_rows] = flat.reshape(-1, store.dim)
        ids += batch.column("id").to_pylist()
    return ids, found


def read_arrow_table(store: Store, columns: Sequence[str], *, where: str | None) -> pa.Table:
    """Read columns of all items into memory.

    Args:
        store: The items.
        columns: What `select_columns` returned.
        where: SQL over the columns; None for all items.

    Returns:
        The table.

    Raises:
        FilterError: The filter is no condition over the columns.
        DamagedError: One is not what was written.
    """
    import pyarrow as pa

    batches = (batch for _, batch in store.iter_rows(columns, where=where))
    return pa.Table.from_batches(batches, schema=store.schema_of(columns))


def read_frame(read: Callable[[], pa.Table]) -> pandas.DataFrame:
    """Read a table into a frame of pandas in which no value has changed.

    Args:
        read: Gives the table; called only where pandas is installed.

    Returns:
        The frame. Columns of integers and truth values are pandas' nullable ones, since a missing value would turn
        integers into fractions, which do not hold all of them.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError("to_pandas", package="pandas", extra="pandas") from error
    import pyarrow as pa

    nullable = {pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
    frame: pandas.DataFrame = read().to_pandas(types_mapper=nullable.get)
    return frame


def _columns(store: Store) -> list[str]:
    return [name for name in store.readable if name not in _LEFT_OUT]


def _items(rows: list[dict[str, Any]], columns: Mapping[str, str]) -> list[StoredItem]:
    made = []
    for row in rows:
        sizes = {size: value for size, column in columns.items() if (value := row.pop(column)) is not None}
        name, own = row.pop("id"), {one: row.pop(one) for one in _OWN}
        own["uri"], own["captions"] = own["uri"] or "", tuple(own["captions"] or ())
        metadata = {key: value for key, value in row.items() if value is not None}
        made.append(StoredItem(name, sizes=sizes, metadata=metadata, **own))
    return made
