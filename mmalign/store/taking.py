"""Reading single rows of a table, by row id or by what a column of keys holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import numpy as np
import pyarrow as pa

from mmalign.store.batches import Float16Array, check_count, row_ids_of
from mmalign.store.checksums import covered
from mmalign.store.lookup import find_rows, read_rows
from mmalign.store.scalar_indexes import indexed_columns
from mmalign.store.scanning import ScannedTable
from mmalign.store.verifying import check_rows, damaged
from mmalign.utils import Int64Array, storage_errors


class ReadTable(ScannedTable):
    """A table of which single rows can be read."""

    def lookup(
        self, column: str, values: Sequence[str], columns: Sequence[str], *, check: bool = True
    ) -> tuple[Int64Array, pa.Table]:
        """Read columns of the items of which a text column holds one of some values, in the order of their row ids.

        In a large collection that costs no more than in a small one: its columns of keys have scalar indexes.

        Args:
            column: `id`, `uri` or `sha256`.
            values: Any texts; they are compared, never parsed.
            columns: The columns to read, without that of the embedding.
            check: Whether to compare the items that are found with their checksums.

        Returns:
            `(row_ids, table)`: int64 of shape (n,), and n rows in the same order.

        Raises:
            DamagedError: One is not what was written.
            StorageError: The items cannot be read.
        """
        all_columns = covered(self._dataset.schema.names) if check and not self._checked else []
        with storage_errors(self._dataset.uri, reading=True):
            table = find_rows(
                self._dataset,
                column,
                values,
                all_columns or columns,
                indexed=column in self._indexed,
                fragments=self._fragments,
            )
        if all_columns:
            check_rows(table.drop_columns(["_rowid"]))
        order = np.argsort(found := row_ids_of(table), kind="stable")
        return found[order], table.select(list(columns)).take(pa.array(order))

    @property
    def _indexed(self) -> frozenset[str]:
        """Columns whose scalar index can be relied on; none where fragments are passed over, which it knows."""
        # Lance reads which there are when it is asked, and others may have cleaned away this version by then.
        with suppress(OSError, ValueError):
            return frozenset() if self._passed_over else indexed_columns(self._dataset)
        return frozenset()

    def find(self, column: str, value: str, columns: Sequence[str]) -> tuple[Int64Array, pa.Table]:
        """Read columns of the items of which a text column holds exactly one value.

        Args:
            column: `id`, `uri` or `sha256`.
            value: Any text; it is compared, never parsed.
            columns: The columns to read.

        Returns:
            `(row_ids, table)`: int64 of shape (n,), and n rows in the same order.

        Raises:
            DamagedError: One is not what was written; or there is none, and another item is damaged.
            StorageError: The items cannot be read.
        """
        row_ids, table = self.lookup(column, [value], columns)
        if not len(row_ids):
            # It may be there, and damaged.
            self.verify()
        return row_ids, table

    def match(
        self, names: Sequence[str], *, uris: Callable[[str], Iterable[str]] | None = None
    ) -> tuple[Int64Array, list[str]]:
        """Find the items that names mean.

        Args:
            names: Ids. A name that is an item's id means that item alone.
            uris: Gives the URIs that a name which is no id may mean; None where it can only be an id.

        Returns:
            `(row_ids, unknown)`: the row ids of the items in rising order, int64 of shape (n,), and the names that no
            item has.
        """
        # Unchecked: what is damaged can be named, and so removed.
        row_ids, table = self.lookup("id", names, ["id"], check=False)
        known = set(table.column("id").to_pylist())
        unknown = [name for name in dict.fromkeys(names) if name not in known]
        if uris is not None and unknown:
            places = {name: list(uris(name)) for name in unknown}
            wanted = [uri for found in places.values() for uri in found]
            others, table = self.lookup("uri", wanted, ["uri"], check=False)
            held = set(table.column("uri").to_pylist())
            unknown = [name for name, found in places.items() if held.isdisjoint(found)]
            row_ids = np.union1d(row_ids, others)
        return row_ids, unknown

    def take_there(self, row_ids: Int64Array, columns: Sequence[str]) -> tuple[Int64Array, pa.Table]:
        """Read columns of those of some items that are still there; nothing is compared.

        Args:
            row_ids: Row ids, shape (n,).
            columns: Column names, without that of the embedding.

        Returns:
            `(row_ids, table)`: int64 of shape (m,), m at most n, and m rows in the same order.

        Raises:
            StorageError: The items cannot be read.
        """
        with storage_errors(self._dataset.uri, reading=True):
            table = read_rows(self._dataset, np.unique(row_ids), columns)
        return row_ids_of(table), table.drop_columns(["_rowid"])

    def take(self, row_ids: Int64Array, columns: Sequence[str], *, check: bool = True) -> pa.Table:
        """Read columns of given items.

        Args:
            row_ids: Row ids, shape (n,); each must exist.
            columns: Column names, without that of the embedding.
            check: Whether to compare the items with their checksums.

        Returns:
            n rows in the order asked for.

        Raises:
            DamagedError: One is not what was written.
            StorageError: The items cannot be read.
        """
        # A checksum is of all columns.
        all_columns = covered(self._dataset.schema.names) if check and not self._checked else []
        table = self._take(row_ids, all_columns or columns)
        if all_columns:
            check_rows(table)
        return table.select(list(columns))

    def _take(self, row_ids: Int64Array, columns: Sequence[str]) -> pa.Table:
        wanted = np.asarray(row_ids, dtype=np.int64)
        unique, inverse = np.unique(wanted, return_inverse=True)
        with storage_errors(self._dataset.uri, reading=True):
            table = read_rows(self._dataset, unique, columns)
            if table.num_rows != len(unique):
                raise damaged(len(unique) - table.num_rows, [], what="row")
        # The order that comes back is not the order asked for.
        order = np.argsort(row_ids_of(table), kind="stable")
        return table.take(pa.array(order[inverse])).drop_columns(["_rowid"])

    def embeddings(self, row_ids: Int64Array | None = None) -> tuple[Int64Array, Float16Array]:
        """Read embeddings of all items, or of given ones.

        Args:
            row_ids: Row ids, shape (n,); None for all items.

        Returns:
            `(row_ids, embeddings)`: int64 of shape (n,), and float16 of shape (n, dim).
        """
        if row_ids is not None:
            return row_ids, self._sound(self._take(row_ids, self._embedding_columns))
        with storage_errors(self._dataset.uri, reading=True):
            ids, table = self._read(self._embedding_columns)
            check_count(len(ids), len(self))
        return ids, self._sound(table)
