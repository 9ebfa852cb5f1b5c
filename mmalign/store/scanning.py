"""Going through a table: all rows or those that a filter lets through, in order and some at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import lance
import pyarrow as pa

from mmalign.errors import FilterError, StorageError
from mmalign.store.batches import Float16Array, check_count, matrix_of, one_batch, row_ids_of
from mmalign.store.checksums import CHECKSUM_BATCH, EMBEDDING, EMBEDDING_CHECKSUM, covered
from mmalign.store.filter_refusals import reason_of_filter, why_text
from mmalign.store.opened import OpenedTable
from mmalign.store.verifying import check_embeddings, check_rows
from mmalign.utils import Int64Array, storage_errors

_READ_AHEAD = 256 << 20


class ScannedTable(OpenedTable):
    """A table that can be gone through."""

    def scan(
        self, columns: Sequence[str], *, where: str | None = None, also: str | None = None, check: bool = True
    ) -> tuple[Int64Array, pa.Table]:
        """Read columns of all items, or of those that a filter lets through.

        Args:
            columns: Column names.
            where: A filter as a user writes it.
            also: A further condition in Lance's own dialect, written by mmalign itself.
            check: Whether to compare the items with their checksums first; see `verify`.

        Returns:
            `(row_ids, table)`: int64 of shape (n,), and n rows in the same order.

        Raises:
            DamagedError: One is not what was written.
            FilterError: The filter cannot be understood, or cannot be answered for some item.
            StorageError: The items cannot be read.
        """
        condition = _both(self._filter_sql(where), also)
        if check:
            self.verify()
        with self._filtering(where):
            return self._read(columns, condition)

    def iter_rows(
        self, columns: Sequence[str], *, where: str | None = None, rows: int = 8_192, check: bool = True
    ) -> Iterator[tuple[Int64Array, pa.RecordBatch]]:
        """Read columns in batches, so that they need not fit in memory.

        Args:
            columns: Column names, each once, `embedding` among them or not.
            where: A filter as a user writes it.
            rows: Of a batch, at least 1; the last may have fewer.
            check: Whether to compare each row with its checksums; without, damaged fragments are passed over.

        Yields:
            `(row_ids, batch)`: int64 of shape (n,), and n rows of the columns, in the order asked for.

        Raises:
            DamagedError: One is not what was written.
            FilterError: The filter cannot be understood, or cannot be answered for some item.
            StorageError: The items cannot be read.
        """
        condition = self._filter_sql(where)
        if where is not None and check:
            # A row that is damaged may seem to be one that the filter leaves out.
            self.verify(most=None)
        fields = self.schema_of(columns).append(pa.field("_rowid", pa.uint64()))
        extra = covered(self._dataset.schema.names) if check and not self._checked else []
        vectors = self._embedding_columns if check and EMBEDDING in columns else []
        read = list(dict.fromkeys([*columns, *extra, *vectors]))
        seen, held = 0, fields.empty_table()
        with self._filtering(where):
            scanner = self._dataset.scanner(
                columns=read,
                filter=condition,
                with_row_id=True,
                batch_size=min(rows, CHECKSUM_BATCH),
                batch_readahead=2,
                io_buffer_size=_READ_AHEAD,
                fragments=None if check else self._fragments,
            )
            for batch in scanner.to_batches():
                table = pa.Table.from_batches([batch])
                if extra:
                    check_rows(table.drop_columns(["_rowid"]))
                if vectors:
                    self._sound(table)
                seen += table.num_rows
                held = pa.concat_tables([held, table.select(fields.names).cast(fields)])
                while held.num_rows >= rows:
                    yield _split(held.slice(0, rows))
                    held = held.slice(rows)
            if where is None and check:
                check_count(seen, len(self))
        if held.num_rows:
            yield _split(held)

    def iter_embeddings(self, *, rows: int = 65_536) -> Iterator[tuple[Int64Array, Float16Array]]:
        """Read all embeddings in chunks, so that they need not fit in memory.

        Args:
            rows: Largest chunk.

        Yields:
            `(row_ids, embeddings)`: int64 of shape (n,), and float16 of shape (n, dim).
        """
        # Lance would read 2 GiB ahead of a reader that is slow because it builds an index.
        with storage_errors(self._dataset.uri, reading=True):
            batches = self._dataset.to_batches(
                columns=self._embedding_columns, with_row_id=True, batch_size=rows, io_buffer_size=_READ_AHEAD
            )
            seen = 0
            for batch in batches:
                table = pa.Table.from_batches([batch])
                seen += table.num_rows
                yield row_ids_of(table), self._sound(table)
            check_count(seen, len(self))

    def row_ids(
        self,
        *,
        where: str | None = None,
        since: int | None = None,
        fragments: Sequence[lance.LanceFragment] | None = None,
        also: str | None = None,
    ) -> Int64Array:
        """The row ids of all items, or of those that a filter lets through.

        Args:
            where: A filter as a user writes it.
            since: Only items written after this dataset version.
            fragments: Only items that lie in these fragments of the dataset.
            also: A further condition in Lance's own dialect, written by mmalign itself.

        Returns:
            Array of shape (n,), int64. That of a filter alone is not to be written to: one that comes again at the same
            version is not evaluated again.

        Raises:
            FilterError: The filter cannot be understood, or cannot be answered for some item.
            StorageError: The items cannot be read.
        """
        if isinstance(where, str) and since is None and fragments is None and also is None:
            return self._filters.get(where, lambda: self._state, lambda: self._evaluate(where))
        newer = None if since is None else f"_row_last_updated_at_version > {int(since)}"
        return self._evaluate(where, _both(newer, also), fragments, check=also is not None)

    def _evaluate(
        self,
        where: str | None,
        also: str | None = None,
        fragments: Sequence[lance.LanceFragment] | None = None,
        *,
        check: bool = True,
    ) -> Int64Array:
        condition = _both(self._filter_sql(where), also)
        if where is not None or check:
            self.verify()
        with self._filtering(where):
            scanner = self._dataset.scanner(
                columns=[], filter=condition, with_row_id=True, fragments=fragments, use_scalar_index=False
            )
            return row_ids_of(scanner.to_table())

    def check_filter(self, where: str | None) -> None:
        """Check a filter against the columns, before anything is done that takes long or changes something.

        Args:
            where: A filter as a user writes it; None for no filter.

        Raises:
            FilterError: The filter cannot be understood; the text says what the columns hold.
        """
        if not (isinstance(where, str) and self._filters.knows(where, self._state)):
            self._filter_sql(where)

    def _filter_sql(self, where: str | None) -> str | None:
        """The filter in Lance's own dialect."""
        if where is None:
            return None
        # Late: most searches have no filter, and need no parser.
        from mmalign.store.filters import TextAndNumberError, filter_refusal, to_lance

        schema = self._dataset.schema
        try:
            return to_lance(where, schema)
        except TextAndNumberError as error:
            with storage_errors(self._dataset.uri, reading=True):
                reason = why_text(self._dataset, error.column, error.number)
            raise FilterError(filter_refusal(where, reason, schema)) from error

    @contextmanager
    def _filtering(self, where: str | None) -> Iterator[None]:
        """Turn what a filter meets among the items, such as a text that is cast and no number, into a FilterError."""
        try:
            with storage_errors(self._dataset.uri, reading=True):
                yield
        except StorageError as error:
            reason = None if where is None else reason_of_filter(str(error.__cause__))
            if reason is None:
                raise
            from mmalign.store.filters import filter_refusal

            raise FilterError(filter_refusal(str(where), reason, self._dataset.schema)) from error

    def _read(self, columns: Sequence[str], condition: str | None = None) -> tuple[Int64Array, pa.Table]:
        """Read columns without comparing anything."""
        table = self._dataset.scanner(
            columns=list(columns),
            filter=condition,
            with_row_id=True,
            fragments=self._fragments,
            use_scalar_index=False,
        ).to_table()
        return row_ids_of(table), table.drop_columns(["_rowid"])

    @property
    def _embedding_columns(self) -> list[str]:
        names = self._dataset.schema.names
        return [name for name in ("embedding", EMBEDDING_CHECKSUM) if name in names]

    def _sound(self, table: pa.Table) -> Float16Array:
        """The embeddings of a table, compared with their checksums."""
        matrix = matrix_of(table.column("embedding"), self.dim)
        # Damage can make an embedding null, and then it is none of these.
        check_count(len(matrix), table.num_rows)
        check_embeddings(table, matrix)
        return matrix


def _split(table: pa.Table) -> tuple[Int64Array, pa.RecordBatch]:
    return row_ids_of(table), one_batch(table.drop_columns(["_rowid"]))


def _both(one: str | None, two: str | None) -> str | None:
    return f"({one}) AND ({two})" if one is not None and two is not None else one if two is None else two
