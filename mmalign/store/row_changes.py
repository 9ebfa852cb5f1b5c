"""Inserting, changing and deleting rows of a table, each in one commit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmalign.errors import StorageError
from mmalign.store.checksums import (
    CHECKSUM,
    CHECKSUM_FIELDS,
    EMBEDDING_CHECKSUM,
    covered,
    row_checksums,
    with_checksums,
)
from mmalign.store.column_changes import CONFLICT_RETRIES, ColumnTable
from mmalign.store.columns import to_array
from mmalign.store.lookup import is_large
from mmalign.store.opened import open_dataset
from mmalign.store.replacing import ADDRESS, replace_rows
from mmalign.store.verifying import check_rows
from mmalign.utils import Int64Array, storage_errors

# Of a large collection, one in so many items is written whole where columns of it change.
_FEW_OF = 16
# What the store makes of the other columns itself.
_MADE = frozenset({"embedding", EMBEDDING_CHECKSUM, CHECKSUM})
_RETRY = timedelta(minutes=5)


class WrittenTable(ColumnTable):
    """A table of which rows are written."""

    def check(self, values: Mapping[str, Any]) -> None:
        """Refuse values that columns of the store cannot hold exactly.

        Args:
            values: By column.

        Raises:
            MetadataError: A value does not fit.
        """
        self._table([values], list(values))

    def upsert(self, rows: Sequence[Mapping[str, Any]], embeddings: NDArray[Any]) -> int:
        """Insert items, or replace those whose id is there already, in one commit.

        Args:
            rows: One mapping an item: the columns of `base_schema` without `embedding`, and metadata columns that
                `settle` has made; what is absent becomes null.
            embeddings: Array of shape (len(rows), dim); kept as float16.

        Returns:
            How many were inserted; the others replaced what was there.

        Raises:
            MetadataError: A value does not fit its column.
            StorageError: The disk refused; nothing of this commit is kept.
        """
        flat = pa.array(np.ascontiguousarray(embeddings, dtype=np.float16).ravel())

        matrix = flat.to_numpy().reshape(len(rows), -1)

        def make() -> pa.Table:
            names = [name for name in self._dataset.schema.names if name not in _MADE]
            table = with_checksums(self._table(rows, names), matrix)
            kind = self._dataset.schema.field("embedding")
            table = table.append_column(kind, pa.FixedSizeListArray.from_arrays(flat, self.dim))
            return table.select(self._dataset.schema.names)

        self.ensure_checksums()
        return self._merge(make, insert=True)[0]

    def patch(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Change some columns of items that exist, in one commit; their embeddings stay.

        Args:
            rows: One mapping an item: `id` and the columns to change, the same in every mapping.

        Returns:
            How many items were changed; ids that do not exist are passed over.

        Raises:
            MetadataError: A value does not fit its column.
            StorageError: The disk refused; nothing of this commit is kept.
        """
        if not rows:
            return 0

        def given() -> pa.Table:
            return self._table(rows, [name for name in self._dataset.schema.names if name in rows[0]])

        self.ensure_checksums()
        if self._are_few(len(rows)):
            with self.alone():
                row_ids, changes = self._held(given())
                changed = self._replace(row_ids, lambda _: changes)
            if changed is not None:
                return changed
        return self._merge(lambda: self._patched(given()), insert=False)[1]

    def edit(
        self, row_ids: Int64Array, columns: Sequence[str], change: Callable[[dict[str, Any]], Mapping[str, Any]]
    ) -> int:
        """Change some columns of given items to what is made of what they hold, in one commit; embeddings stay.

        Args:
            row_ids: Row ids, each once, shape (n,); each must exist while the caller is `alone`.
            columns: What `change` is given of an item, `id` not among them.
            change: Gives the columns to change, the same for every item.

        Returns:
            How many items were changed.

        Raises:
            DamagedError: One is not what was written; nothing was changed.
            MetadataError: A value does not fit its column.
            StorageError: The disk refused; nothing of this commit is kept.
        """
        if not len(row_ids):
            return 0

        def changes(rows: pa.Table) -> pa.Table:
            made = [change(row) for row in rows.select(list(columns)).to_pylist()]
            return self._table(made, list(made[0]))

        with self.alone():
            if CHECKSUM not in self._dataset.schema.names:
                self.ensure_checksums()
                # That is a commit of its own, and some may have been removed before it.
                row_ids, _ = self.take_there(row_ids, [])
            changed = self._replace(row_ids, changes) if self._are_few(len(row_ids)) else None
            if changed is None:
                # Some may have been removed meanwhile.
                there, _ = self.take_there(row_ids, [])
                table = self.take(there, ["id", *columns])
                made = [{"id": row.pop("id"), **change(row)} for row in table.to_pylist()]
                changed = self.patch(made)
        return changed

    def delete(self, row_ids: Int64Array) -> int:
        """Delete items in one commit.

        Args:
            row_ids: Row ids, shape (n,).

        Returns:
            How many were deleted.

        Raises:
            StorageError: The disk refused.
        """
        deleted = 0
        with storage_errors(self._dataset.uri):
            for start in range(0, len(row_ids), 10_000):
                # By row id, not by name: Lance keeps the text of the predicate in its log.
                chosen = ", ".join(map(str, row_ids[start : start + 10_000].tolist()))
                done = self._dataset.delete(f"_rowid IN ({chosen})", conflict_retries=100, retry_timeout=_RETRY)
                deleted += int(done["num_deleted_rows"])
                self._committed()
        return deleted

    def _are_few(self, count: int) -> bool:
        """Whether to write rows whole: for changed columns Lance writes these for all rows of each fragment anew."""
        return is_large(self._dataset) and count * _FEW_OF < len(self)

    def _replace(self, row_ids: Int64Array, changes: Callable[[pa.Table], pa.Table]) -> int | None:
        """Commit few rows with other values; None, at the newest version, where others have written meanwhile."""
        if not len(row_ids):
            return 0
        names = covered(self._dataset.schema.names)
        whole = self._take(row_ids, [*names, "embedding", ADDRESS])
        rows = self._whole(self._changed(whole.select(names), changes), whole)
        with storage_errors(self._dataset.uri):
            replaced = replace_rows(self._dataset, rows, row_ids, whole.column(ADDRESS).to_numpy())
            if replaced is None:
                self._dataset, self._checked = open_dataset(self._dataset.uri), False
                return None
            self._dataset = replaced
            self._committed()
        return len(row_ids)

    def _patched(self, changes: pa.Table) -> pa.Table:
        """What is written to change columns of rows: these and the checksums, or where rows are few of many, all."""
        row_ids, changes = self._held(changes)
        names = covered(self._dataset.schema.names)
        some = self._are_few(len(row_ids))
        whole = self._take(row_ids, [*names, "embedding"] if some else names)
        rows = self._changed(whole.select(names), lambda _: changes)
        return self._whole(rows, whole) if some else changes.append_column(CHECKSUM_FIELDS[1], rows.column(CHECKSUM))

    def _held(self, changes: pa.Table) -> tuple[Int64Array, pa.Table]:
        """The changes of items that exist, and the row ids of these."""
        row_ids, ids = self.lookup("id", changes.column("id").to_pylist(), ["id"], check=False)
        places = pc.index_in(changes.column("id"), value_set=ids.column("id").combine_chunks())
        return row_ids[np.asarray(pc.drop_null(places), dtype=np.int64)], changes.filter(pc.is_valid(places))

    def _changed(self, rows: pa.Table, changes: Callable[[pa.Table], pa.Table]) -> pa.Table:
        """Rows, once they were compared with their checksums, with other values and the checksums of these."""
        if not self._checked:
            check_rows(rows)
        made = changes(rows)
        for field in made.schema:
            rows = rows.set_column(rows.schema.get_field_index(field.name), field, made.column(field.name))
        sums = pa.array(row_checksums(rows))
        return rows.set_column(rows.schema.get_field_index(CHECKSUM), CHECKSUM_FIELDS[1], sums)

    def _whole(self, rows: pa.Table, read: pa.Table) -> pa.Table:
        """Rows with the embeddings that were read; their own checksums stay with these, whatever was read of them."""
        rows = rows.append_column(self._dataset.schema.field("embedding"), read.column("embedding"))
        return rows.select(self._dataset.schema.names)

    def _table(self, rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> pa.Table:
        fields = [self._dataset.schema.field(name) for name in names]
        arrays = [to_array(field.name, [row.get(field.name) for row in rows], field.type) for field in fields]
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def _merge(self, make: Callable[[], pa.Table], *, insert: bool) -> tuple[int, int]:
        for attempt in range(CONFLICT_RETRIES):
            try:
                with self.alone(), storage_errors(self._dataset.uri):
                    table = make()
                    merge = self._dataset.merge_insert("id").when_matched_update_all().use_index("id" in self._indexed)
                    if insert:
                        merge = merge.when_not_matched_insert_all()
                    # Two writers of one collection collide often and briefly; Lance retries with the newest version.
                    done = merge.conflict_retries(100).retry_timeout(_RETRY).execute(table)
                    self._committed()
                return int(done["num_inserted_rows"]), int(done["num_updated_rows"])
            except StorageError as error:
                # A column may have been given another type in between; the values are then fitted to that.
                if attempt == CONFLICT_RETRIES - 1 or "different schema" not in str(error):
                    raise
                self._dataset = open_dataset(self._dataset.uri)
        raise AssertionError("unreachable")
