"""Making and widening the columns of a table, and being the only one who changes it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pyarrow as pa
from lance.udf import batch_udf

from mmalign.errors import StorageError
from mmalign.store.batches import matrix_of
from mmalign.store.checksums import CHECKSUM, CHECKSUM_BATCH, CHECKSUM_FIELDS, covered, row_checksums, with_checksums
from mmalign.store.columns import as_text as text_of
from mmalign.store.location import Location
from mmalign.store.settling import Columns, Settled, check_settled, choose_columns, settle
from mmalign.store.sizes import new_size_fields
from mmalign.store.taking import ReadTable
from mmalign.store.verifying import check_all
from mmalign.store.version_checksums import write_version
from mmalign.store.widening import recast
from mmalign.utils import lock, storage_errors

_WRITERS = ".writers.lock"
CONFLICT_RETRIES = 10
"""How often what other processes have forestalled is tried again."""


class ColumnTable(ReadTable):
    """A table that gets further columns."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Move on to the newest version, and be the only one who changes rows while the block runs.

        What is written of a row depends on what it holds: its checksum does, and who gave which of its columns.

        Raises:
            StorageError: The items cannot be read.
        """
        if self._is_alone:
            yield
            return
        with ExitStack() as held:
            place = Location.of(self._dataset.uri)
            # A disk without locks is left to luck, as an object store is.
            with suppress(StorageError):
                if place.is_local:
                    held.enter_context(lock(place.path / _WRITERS))
            newest = self.latest()
            if newest is not self:
                self._dataset, self._checked = newest.dataset, False
            self._is_alone = True
            try:
                yield
            finally:
                self._is_alone = False

    def ensure_columns(self, columns: Mapping[str, pa.DataType]) -> None:
        """Add columns of known types that are not there yet; existing items get null.

        Args:
            columns: Column name to type; a column that exists keeps its type.

        Raises:
            StorageError: The disk refused.
        """
        fields = [pa.field(name, kind) for name, kind in columns.items()]
        self._ensure(lambda schema: [field for field in fields if field.name not in schema.names])

    def ensure_sizes(self, sizes: Mapping[str, str]) -> dict[str, str]:
        """Add the columns that sizes lack; existing items get null.

        Args:
            sizes: The name of each, and its type by Arrow's name for it.

        Returns:
            Their columns by name.

        Raises:
            StorageError: The disk refused.
        """
        self._ensure(lambda schema: new_size_fields(sizes, schema))
        return {name: column for name, column in self.sizes.items() if name in sizes}

    def _ensure(self, lacking: Callable[[pa.Schema], list[pa.Field]]) -> None:
        for attempt in range(CONFLICT_RETRIES):
            new = lacking(self._dataset.schema)
            if not new:
                return
            try:
                with storage_errors(self._dataset.uri):
                    self._dataset.add_columns(pa.schema(new))
                self._committed()
            except StorageError:
                # Another process may have added the same columns in between: look again before giving up.
                self._dataset = self.latest().dataset
                if attempt == CONFLICT_RETRIES - 1:
                    raise

    def plan(
        self,
        rows: Sequence[Mapping[Any, Any]],
        *,
        as_text: Collection[str] = (),
        strict: Callable[[int], str] | None = None,
    ) -> Settled:
        """What `settle` would do; nothing is changed."""
        settled = settle(rows, self._dataset.schema, may_widen=self._may_widen, as_text=as_text)
        if strict is not None:
            check_settled(settled, strict)
        return settled

    def settle(
        self,
        rows: Sequence[Mapping[Any, Any]],
        *,
        as_text: Collection[str] = (),
        strict: Callable[[int], str] | None = None,
    ) -> Settled:
        """Settle which columns rows of metadata go into, and make or widen the columns that they need.

        Existing items get null in a new column. Two writers that need the same new column for values of different
        types agree: who comes second fits, widens or is refused.

        Args:
            rows: Plain values by the caller's names.
            as_text: Names of columns that are to be text.
            strict: Says which row it is, for people: then a value that does not fit is an error, raised before
                anything is changed. Where None, it is left out of the rows and told of.

        Returns:
            The rows by column, and what to tell.

        Raises:
            MetadataError: With `strict`, a value does not fit its column; or a name cannot be one.
            StorageError: The disk refused.
        """
        for last in (*[False] * (CONFLICT_RETRIES - 1), True):
            settled = self.plan(rows, as_text=as_text, strict=strict)
            if self._make_columns(settled.columns, last=last):
                break
        return settled

    def settle_columns(
        self, names: Iterable[Any], rows: Iterable[Mapping[Any, Any]], *, as_text: Collection[str] = ()
    ) -> Columns:
        """Settle which columns rows of metadata go into, as `settle`, where there are too many rows to be held.

        Args:
            names: All names that some row has, each once.
            rows: Plain values by the caller's names; may be gone through several times.
            as_text: Names of columns that are to be text.

        Returns:
            The columns, to which the rows are to be fitted.

        Raises:
            MetadataError: A name cannot be a column's, or `as_text` has one that nothing has.
            StorageError: The disk refused.
        """
        for last in (*[False] * (CONFLICT_RETRIES - 1), True):
            columns = choose_columns(names, rows, self._dataset.schema, may_widen=self._may_widen, as_text=as_text)
            if self._make_columns(columns, last=last):
                break
        return columns

    def ensure_checksums(self) -> None:
        """Give all rows checksums where they were written by a version of mmalign that had none.

        Raises:
            StorageError: The disk refused.
        """
        if CHECKSUM in self._dataset.schema.names:
            return
        with self.alone(), storage_errors(self._dataset.uri):
            if CHECKSUM in self._dataset.schema.names:
                return

            # Lance lets nobody ask the dataset while it adds columns.
            dim = self.dim

            @batch_udf(output_schema=pa.schema(CHECKSUM_FIELDS))
            def checksums(batch: pa.RecordBatch) -> pa.RecordBatch:
                table = pa.Table.from_batches([batch])
                matrix = matrix_of(table.column("embedding"), dim)
                made = with_checksums(table.drop_columns(["embedding"]), matrix)
                return made.select([field.name for field in CHECKSUM_FIELDS]).combine_chunks().to_batches()[0]

            names = self._dataset.schema.names
            if len(self._dataset.get_fragments()):
                self._dataset.add_columns(checksums, read_columns=names, batch_size=CHECKSUM_BATCH)
            else:
                self._dataset.add_columns(pa.schema(CHECKSUM_FIELDS))
            self._committed()

    def _make_columns(self, columns: Columns, *, last: bool) -> bool:
        """Make and widen columns; whether they are as they were chosen, else they are to be chosen again."""
        if not columns.new.names and not columns.recast:
            return True
        try:
            if columns.recast:
                with self.alone():
                    self._recast(columns.recast)
            with storage_errors(self._dataset.uri):
                if columns.new.names:
                    self._dataset.add_columns(columns.new)
            self._committed()
        except StorageError:
            # Another process may have changed the columns in between: look again before giving up.
            self._dataset = self.latest().dataset
            if last:
                raise
            return False
        return True

    def _recast(self, kinds: Mapping[str, pa.DataType]) -> None:
        """Give columns other types, and the rows the checksums that they have then."""
        self.ensure_checksums()
        with storage_errors(self._dataset.uri):
            # Damage must not get a checksum that fits it.
            check_all(self._dataset)
            names = covered(self._dataset.schema.names)
            casts = {name: _caster(kind) for name, kind in kinds.items()}

            def convert(rows: pa.Table) -> list[pa.Array]:
                made = [cast(rows.column(name).combine_chunks()) for name, cast in casts.items()]
                for name, array in zip(casts, made, strict=True):
                    rows = rows.set_column(rows.schema.get_field_index(name), name, array)
                return [*made, pa.array(row_checksums(rows))]

            fields = {**kinds, CHECKSUM: pa.uint32()}
            self._dataset = recast(self._dataset, fields, convert, columns=names)

    def _committed(self) -> None:
        """Keep the checksums of the version that was just written; without luck it has none."""
        with suppress(OSError, ValueError):
            write_version(self._dataset)
        self._checked = False

    def _may_widen(self, name: str, kind: pa.DataType) -> bool:
        """Whether each value of a column can be held exactly as another type."""
        if pa.types.is_string(kind):
            return True
        return all(_cast(batch.column(name), kind) is not None for _, batch in self.iter_rows([name], check=False))


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    """The column as another type, or None where that would change a value."""
    try:
        return column.cast(kind)
    except pa.ArrowInvalid:
        return None


def _caster(kind: pa.DataType) -> Callable[[pa.Array], pa.Array]:
    if pa.types.is_string(kind):
        return lambda array: pa.array([text_of(value) for value in array.to_pylist()], kind)
    # Rows that were deleted are still there, and may be whatever they like.
    return lambda array: array.cast(kind, safe=False)
