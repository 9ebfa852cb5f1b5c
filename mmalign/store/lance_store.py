"""Items and embeddings in one Lance dataset: atomic commits, versions, deletes, upserts and SQL filters."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lance.udf import batch_udf
from numpy.typing import NDArray

from mmalign.errors import CollectionFormatError, DamagedError, FilterError, StorageError
from mmalign.store.checksums import (
    CHECKSUM,
    CHECKSUM_FIELDS,
    EMBEDDING,
    EMBEDDING_CHECKSUM,
    covered,
    row_checksums,
    with_checksums,
)
from mmalign.store.columns import as_text as text_of
from mmalign.store.columns import to_array
from mmalign.store.compaction import MOST_FRAGMENTS, clean_versions, purge_versions, reads_long, worn_fragments
from mmalign.store.filter_refusals import reason_of_filter, why_text
from mmalign.store.lookup import find_rows, is_large, read_rows
from mmalign.store.names import renamed_columns
from mmalign.store.replacing import ADDRESS, replace_rows
from mmalign.store.scalar_indexes import indexed_columns, keep_up, remake
from mmalign.store.settling import Columns, Settled, check_settled, choose_columns, settle
from mmalign.store.sizes import new_size_fields, size_columns
from mmalign.store.verifying import Damage, check_all, check_embeddings, check_rows, damaged, find_damage
from mmalign.store.version_checksums import check_version, write_version
from mmalign.store.widening import recast
from mmalign.utils import Int64Array, first_line, lock, storage_errors

Float16Array = NDArray[np.float16]

# Concurrent upserts of one id leave duplicates unless Lance knows which column is the key.
PRIMARY_KEY = {"lance-schema:unenforced-primary-key": "true"}
# In a collection of more items, those that a search finds are checked, and not all before its filter is asked.
_MOST_CHECKED = 262_144
# Of a large collection, one in so many items is written whole where columns of it change.
_FEW_OF = 16
_WRITERS = ".writers.lock"
_CHECKSUM_ROWS = 32_768
# What the store makes of the other columns itself.
_MADE = frozenset({"embedding", EMBEDDING_CHECKSUM, CHECKSUM})
# What it keeps for itself, beside its checksums.
_KEPT = frozenset({"embedding", "said"})
_CONFLICT_RETRIES = 10
_READ_AHEAD = 256 << 20
# What Lance keeps of indexes, and of what it knows of files; by itself it would take gigabytes.
_CACHED = 256 << 20
_RETRY = timedelta(minutes=5)
# Entries of the dataset's configuration that name the indexes built from it; the newest are kept.
_MARK, _MARKS_KEPT = "mmalign:index:", 8


def base_schema(dim: int, *, sizes: Mapping[str, str] = MappingProxyType({})) -> pa.Schema:
    """The columns that every item has.

    Args:
        dim: Width of an embedding.
        sizes: The names of sizes for which there are columns from the beginning, and their types; see
            `mmalign.store.sizes`.

    Returns:
        An Arrow schema. `said` tells who gave which captions and metadata; for the checksums see
        `mmalign.store.checksums`.
    """
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False, metadata=PRIMARY_KEY),
            pa.field("uri", pa.string()),
            pa.field("sha256", pa.string()),
            pa.field("kind", pa.string()),
            *new_size_fields(sizes, pa.schema([])),
            pa.field("bytes", pa.int64()),
            pa.field("mtime_ns", pa.int64()),
            pa.field("said", pa.string()),
            pa.field("captions", pa.list_(pa.string())),
            pa.field("embedding", pa.list_(pa.float16(), dim)),
            *CHECKSUM_FIELDS,
        ]
    )


class Store:
    """One row an item, addressed by `id` (the caller's key) and by row id (stable for the row's life).

    Args:
        dataset: The open Lance dataset.

    A store sees the version it was opened at or last wrote; `latest` opens the newest one.
    """

    def __init__(self, dataset: lance.LanceDataset) -> None:
        self._dataset = dataset
        self._opened = int(dataset.version)
        # Whether each row was compared with its checksum, or has been found to be right before.
        self._checked = False
        self._is_alone = False
        self._passed_over: frozenset[int] = frozenset()

    @classmethod
    def create(
        cls, path: Path, *, dim: int, schema: Callable[[int], pa.Schema] = base_schema, overwrite: bool = False
    ) -> Store:
        """Create an empty store.

        Args:
            path: The dataset's folder.
            dim: Width of an embedding.
            schema: Gives its columns for that width: those of items, or `view_schema`.
            overwrite: Replace what is there; otherwise nothing may be.

        Returns:
            The store.

        Raises:
            StorageError: The disk refused.
        """
        with storage_errors(path):
            dataset = lance.write_dataset(
                schema(dim).empty_table(),
                str(path),
                mode="overwrite" if overwrite else "create",
                enable_stable_row_ids=True,
            )
        return cls.written(dataset)

    @classmethod
    def written(cls, dataset: lance.LanceDataset) -> Store:
        """The store of a dataset that was just written."""
        store = cls(dataset)
        store._committed()
        return store

    @classmethod
    def open(cls, path: Path, *, schema: Callable[[int], pa.Schema] = base_schema) -> Store:
        """Open a store at its newest version.

        Args:
            path: The dataset's folder.
            schema: As for `create`; the columns that must be there.

        Returns:
            The store.

        Raises:
            CollectionFormatError: There is no readable dataset.
        """
        try:
            with storage_errors(path, reading=True):
                dataset = _opened(path)
                names = _checked_names(dataset)
        except StorageError as error:
            reason = first_line(error.__cause__ or error)
            raise CollectionFormatError(f"{path} is not a readable item store: {reason}") from error
        # Earlier versions wrote no checksums.
        wanted = [name for name in schema(1).names if name not in (EMBEDDING_CHECKSUM, CHECKSUM)]
        missing = [name for name in wanted if name not in names]
        if missing:
            raise CollectionFormatError(f"{path} lacks the columns {', '.join(missing)}; was it written by mmalign?")
        return cls(dataset)

    def at(self, version: int) -> Store | None:
        """Return the store at an earlier version, or None where that was cleaned away or cannot be relied on any more.

        Args:
            version: Of the dataset.
        """
        try:
            with storage_errors(self._dataset.uri, reading=True):
                dataset = _opened(self._dataset.uri, version)
                # Which rows it had is compared with which there are now: damage would show items as old or as gone.
                check_version(dataset)
        except (StorageError, DamagedError):
            return None
        earlier = Store(dataset)
        earlier.pass_over(self._passed_over)
        return earlier

    def latest(self) -> Store:
        """Return this store at its newest committed version: itself where nothing has changed since.

        Raises:
            StorageError: The items cannot be read.
        """
        with storage_errors(self._dataset.uri, reading=True):
            if self._dataset.latest_version == self._dataset.version:
                return self
            dataset = _opened(self._dataset.uri)
            _checked_names(dataset)
        return Store(dataset)

    @property
    def dataset(self) -> lance.LanceDataset:
        """The dataset itself, at the version that reads see; for the modules of this room."""
        return self._dataset

    @property
    def version(self) -> int:
        """The dataset version that reads see."""
        return int(self._dataset.version)

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return int(self._dataset.schema.field("embedding").type.list_size)

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The metadata columns beyond those that every item has, by name."""
        base = {*base_schema(1).names, *self.sizes.values()}
        return {field.name: field.type for field in self._dataset.schema if field.name not in base}

    @property
    def sizes(self) -> dict[str, str]:
        """The columns that say how large items are, by the names of the sizes; see `mmalign.store.sizes`."""
        return size_columns(self._dataset.schema)

    @property
    def renamed(self) -> dict[str, str]:
        """The columns that are kept under another name than was given: the given name to the column."""
        return renamed_columns(self._dataset.schema)

    def __len__(self) -> int:
        with storage_errors(self._dataset.uri, reading=True):
            return int(self._dataset.count_rows())

    # Writing -------------------------------------------------------------------------------------------------------

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
        for attempt in range(_CONFLICT_RETRIES):
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
                if attempt == _CONFLICT_RETRIES - 1:
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
        for last in (*[False] * (_CONFLICT_RETRIES - 1), True):
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
        for last in (*[False] * (_CONFLICT_RETRIES - 1), True):
            columns = choose_columns(names, rows, self._dataset.schema, may_widen=self._may_widen, as_text=as_text)
            if self._make_columns(columns, last=last):
                break
        return columns

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
                matrix = _matrix(table.column("embedding"), dim)
                made = with_checksums(table.drop_columns(["embedding"]), matrix)
                return made.select([field.name for field in CHECKSUM_FIELDS]).combine_chunks().to_batches()[0]

            names = self._dataset.schema.names
            if len(self._dataset.get_fragments()):
                self._dataset.add_columns(checksums, read_columns=names, batch_size=_CHECKSUM_ROWS)
            else:
                self._dataset.add_columns(pa.schema(CHECKSUM_FIELDS))
            self._committed()

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
            # A disk without locks is left to luck.
            with suppress(StorageError):
                held.enter_context(lock(Path(self._dataset.uri) / _WRITERS))
            newest = self.latest()
            if newest is not self:
                self._dataset, self._checked = newest.dataset, False
            self._is_alone = True
            try:
                yield
            finally:
                self._is_alone = False

    def _committed(self) -> None:
        """Keep the checksums of the version that was just written; without luck it has none."""
        with suppress(OSError, ValueError):
            write_version(self._dataset)
        self._checked = False

    def _may_widen(self, name: str, kind: pa.DataType) -> bool:
        """Whether each value of a column can be held exactly as another type."""
        if pa.types.is_string(kind):
            return True
        return all(_cast(table.column(name), kind) is not None for _, table in self.scan_chunks([name]))

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
                self._dataset, self._checked = _opened(self._dataset.uri), False
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
        for attempt in range(_CONFLICT_RETRIES):
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
                if attempt == _CONFLICT_RETRIES - 1 or "different schema" not in str(error):
                    raise
                self._dataset = _opened(self._dataset.uri)
        raise AssertionError("unreachable")

    def mark(self) -> str:
        """Commit that an index is built from the items, so that later versions of them are known by it.

        Returns:
            A random name, which `is_marked` of these items and of what becomes of them knows.

        Raises:
            StorageError: The disk refused.
        """
        name = secrets.token_hex(8)
        with storage_errors(self._dataset.uri):
            # A handle of its own: these items stay at the version that the index is built from.
            dataset = _opened(self._dataset.uri)
            known = {key: value for key, value in dataset.config().items() if key.startswith(_MARK)}
            oldest = sorted(known, key=lambda key: int(known[key]))[: max(0, len(known) + 1 - _MARKS_KEPT)]
            dataset.update_config({_MARK + name: str(dataset.version)} | dict.fromkeys(oldest))
            Store.written(dataset)
        return name

    def is_marked(self, name: str) -> bool:
        """Whether these items are what `mark` gave this name to, or have become of them.

        Args:
            name: What `mark` returned.
        """
        return f"{_MARK}{name}" in self._dataset.config()

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

    def compact(self, *, force: bool = False) -> None:
        """Merge the small fragments that many commits leave, and drop earlier versions; see `compaction`.

        Most calls do nothing: it is done once in 16 versions.

        Args:
            force: Do it now, and merge all fragments that can be.

        Raises:
            StorageError: The disk refused.
        """
        self.keep_indexes()
        with storage_errors(self._dataset.uri):
            if not force and self._opened // MOST_FRAGMENTS == self.version // MOST_FRAGMENTS:
                return
            # Without luck between two writers it is left to the next time: nothing depends on it.
            if self._rewrite(None if force else worn_fragments):
                clean_versions(self._dataset)
            self._opened = self.version

    def keep_indexes(self) -> None:
        """Make the scalar indexes by which items are looked up, where they are worthwhile, or bring them up to date.

        Raises:
            StorageError: The disk refused.
        """
        with storage_errors(self._dataset.uri):
            try:
                if keep_up(self._dataset):
                    self._committed()
            except (OSError, ValueError):
                # Without luck between two writers, or with a column that cannot be read, it is left to the next time:
                # nothing depends on it.
                self._dataset = _opened(self._dataset.uri)

    def _rewrite(self, choose: Callable[[lance.LanceDataset], Collection[int]] | None = None, **options: Any) -> bool:
        """Merge fragments; what another process writes to them meanwhile comes first, and then it is tried again.

        Args:
            choose: Gives the ids of the fragments to merge; None for all that Lance finds worth it.
            options: For Lance's `compact_files`.

        Returns:
            Whether it was done; False where others wrote each time.
        """
        for _ in range(_CONFLICT_RETRIES):
            left: list[int] = []
            if choose is not None:
                chosen = set(choose(self._dataset)) - self._passed_over
                if not chosen:
                    return True
                names = [fragment.fragment_id for fragment in self._dataset.get_fragments()]
                left = [name for name in names if name not in chosen]
            try:
                self._dataset.optimize.compact_files(excluded_fragment_ids=left, **options)
            except OSError as error:
                if "commit conflict" not in str(error):
                    raise
                self._dataset = _opened(self._dataset.uri)
            else:
                self._committed()
                return True
        return False

    @contextmanager
    def reads_long(self) -> Iterator[None]:
        """Keep this version from being cleaned away by other writers while the block runs."""
        with reads_long(self._dataset):
            yield

    def purge(self) -> None:
        """Rewrite the data without deleted rows and drop every older version, so that no byte of them is left.

        Nobody else may write meanwhile.

        Raises:
            StorageError: The disk refused.
        """
        with storage_errors(self._dataset.uri):
            if not self._rewrite(materialize_deletions=True, materialize_deletions_threshold=0.0):
                raise StorageError(
                    f"{self._dataset.uri} cannot be purged while other processes write to it; stop them and run the "
                    "same again"
                )
            # They hold the keys of rows that are gone, too.
            remake(self._dataset)
            self._committed()
            purge_versions(self._dataset)

    # Reading -------------------------------------------------------------------------------------------------------

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

    @property
    def readable(self) -> list[str]:
        """The columns that callers may read, in the order of the dataset: those of every item, then metadata.

        The embedding is not among them, though `iter_rows` reads it.
        """
        return [name for name in self._dataset.schema.names if name not in _KEPT and not name.startswith("_")]

    def schema_of(self, columns: Sequence[str]) -> pa.Schema:
        """Names and types of columns, as `iter_rows` gives them."""
        return pa.schema([(name, self._dataset.schema.field(name).type) for name in columns])

    def iter_rows(
        self, columns: Sequence[str], *, where: str | None = None, rows: int = 8_192
    ) -> Iterator[pa.RecordBatch]:
        """Read columns in batches, so that they need not fit in memory, each row compared with its checksums.

        Args:
            columns: Column names, each once, `embedding` among them or not.
            where: A filter as a user writes it.
            rows: Of a batch, at least 1; the last may have fewer.

        Yields:
            Batches of the columns, in the order asked for.

        Raises:
            DamagedError: One is not what was written.
            FilterError: The filter cannot be understood, or cannot be answered for some item.
            StorageError: The items cannot be read.
        """
        condition = self._filter_sql(where)
        if where is not None:
            # A row that is damaged may seem to be one that the filter leaves out.
            self.verify(most=None)
        fields = self.schema_of(columns)
        extra = [] if self._checked else covered(self._dataset.schema.names)
        vectors = self._embedding_columns if EMBEDDING in columns else []
        read = list(dict.fromkeys([*columns, *extra, *vectors]))
        seen, held = 0, fields.empty_table()
        with self._filtering(where):
            for batch in self._dataset.to_batches(
                columns=read, filter=condition, batch_size=min(rows, _CHECKSUM_ROWS), io_buffer_size=_READ_AHEAD
            ):
                table = pa.Table.from_batches([batch])
                if extra:
                    check_rows(table)
                if vectors:
                    self._sound(table)
                seen += table.num_rows
                held = pa.concat_tables([held, table.select(fields.names).cast(fields)])
                while held.num_rows >= rows:
                    yield _one_batch(held.slice(0, rows))
                    held = held.slice(rows)
            if where is None:
                _check_count(seen, len(self))
        if held.num_rows:
            yield _one_batch(held)

    def pass_over(self, fragments: Collection[int]) -> None:
        """Leave fragments out of what is read from now on, since their columns cannot be read.

        Args:
            fragments: Their ids.
        """
        self._passed_over = frozenset(fragments)

    @property
    def _fragments(self) -> list[lance.LanceFragment] | None:
        """Where to read; None for everywhere."""
        if not self._passed_over:
            return None
        return [one for one in self._dataset.get_fragments() if one.fragment_id not in self._passed_over]

    def _read(self, columns: Sequence[str], condition: str | None = None) -> tuple[Int64Array, pa.Table]:
        """Read columns without comparing anything."""
        table = self._dataset.scanner(
            columns=list(columns),
            filter=condition,
            with_row_id=True,
            fragments=self._fragments,
            use_scalar_index=False,
        ).to_table()
        return _row_ids(table), table.drop_columns(["_rowid"])

    def verify(self, *, most: int | None = _MOST_CHECKED) -> None:
        """Compare all rows with their checksums, embeddings excepted, where that was not done before.

        Args:
            most: Do nothing where there are more rows; None to do it always.

        Raises:
            DamagedError: One is not what was written.
            StorageError: The items cannot be read.
        """
        if self._checked or (most is not None and len(self) > most):
            return
        with storage_errors(self._dataset.uri, reading=True):
            check_all(self._dataset)
        self._checked = True

    def find_damage(self, *, again: bool = False) -> Iterator[Damage]:
        """Compare all rows and embeddings with their checksums.

        Args:
            again: Whether to read, too, what this process has found to be right before.

        Yields:
            The rows that are not what was written.

        Raises:
            StorageError: The items cannot be read.
        """
        with storage_errors(self._dataset.uri, reading=True):
            yield from find_damage(self._dataset, again=again)

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
            Array of shape (n,), int64.

        Raises:
            FilterError: The filter cannot be understood, or cannot be answered for some item.
            StorageError: The items cannot be read.
        """
        newer = None if since is None else f"_row_last_updated_at_version > {int(since)}"
        condition = _both(_both(self._filter_sql(where), newer), also)
        if where is not None or also is not None:
            self.verify()
        with self._filtering(where):
            scanner = self._dataset.scanner(
                columns=[], filter=condition, with_row_id=True, fragments=fragments, use_scalar_index=False
            )
            return _row_ids(scanner.to_table())

    def check_filter(self, where: str | None) -> None:
        """Check a filter against the columns, before anything is done that takes long or changes something.

        Args:
            where: A filter as a user writes it; None for no filter.

        Raises:
            FilterError: The filter cannot be understood; the text says what the columns hold.
        """
        self._filter_sql(where)

    def _filter_sql(self, where: str | None) -> str | None:
        """The filter in Lance's own dialect."""
        if where is None:
            return None
        # Late: most searches have no filter, and need no parser.
        from mmalign.store.filters import TextAndNumberError, refusal, to_lance

        schema = self._dataset.schema
        try:
            return to_lance(where, schema)
        except TextAndNumberError as error:
            with storage_errors(self._dataset.uri, reading=True):
                reason = why_text(self._dataset, error.column, error.number)
            raise FilterError(refusal(where, reason, schema)) from error

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
        order = np.argsort(found := _row_ids(table), kind="stable")
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

    def scan_chunks(self, columns: Sequence[str], *, rows: int = 65_536) -> Iterator[tuple[Int64Array, pa.Table]]:
        """Read columns of all items in chunks, so that they need not fit in memory; nothing is compared.

        Args:
            columns: Column names, without that of the embedding.
            rows: Largest chunk.

        Yields:
            `(row_ids, table)`: int64 of shape (n,), and n rows in the same order.

        Raises:
            StorageError: The items cannot be read.
        """
        with storage_errors(self._dataset.uri, reading=True):
            scanner = self._dataset.scanner(
                columns=list(columns),
                with_row_id=True,
                batch_size=rows,
                batch_readahead=2,
                io_buffer_size=_READ_AHEAD,
                fragments=self._fragments,
            )
            for batch in scanner.to_batches():
                table = pa.Table.from_batches([batch])
                yield _row_ids(table), table.drop_columns(["_rowid"])

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
        return _row_ids(table), table.drop_columns(["_rowid"])

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
        order = np.argsort(_row_ids(table), kind="stable")
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
            _check_count(len(ids), len(self))
        return ids, self._sound(table)

    @property
    def _embedding_columns(self) -> list[str]:
        names = self._dataset.schema.names
        return [name for name in ("embedding", EMBEDDING_CHECKSUM) if name in names]

    def _sound(self, table: pa.Table) -> Float16Array:
        """The embeddings of a table, compared with their checksums."""
        matrix = _matrix(table.column("embedding"), self.dim)
        # Damage can make an embedding null, and then it is none of these.
        _check_count(len(matrix), table.num_rows)
        check_embeddings(table, matrix)
        return matrix

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
                yield _row_ids(table), self._sound(table)
            _check_count(seen, len(self))

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
            from mmalign.store.filters import refusal

            raise FilterError(refusal(str(where), reason, self._dataset.schema)) from error


def _opened(path: str | os.PathLike[str], version: int | None = None) -> lance.LanceDataset:
    return lance.dataset(
        os.fspath(path), version=version, index_cache_size_bytes=_CACHED, metadata_cache_size_bytes=_CACHED
    )


def _checked_names(dataset: lance.LanceDataset) -> list[str]:
    """The columns of a dataset that was just opened, once its manifest was compared with its checksum."""
    # Before anything else is asked: a damaged manifest makes Lance panic, also one that has no checksum.
    check_version(dataset)
    return list(dataset.schema.names)


def _matrix(column: pa.ChunkedArray, dim: int) -> Float16Array:
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = chunks[0] if len(chunks) == 1 else np.concatenate([np.zeros(0, np.float16), *chunks])
    return flat.reshape(-1, dim)


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    (batch,) = table.combine_chunks().to_batches()
    return batch


def _check_count(found: int, expected: int) -> None:
    if found != expected:
        raise damaged(abs(expected - found), [], what="row")


def _both(one: str | None, two: str | None) -> str | None:
    return f"({one}) AND ({two})" if one is not None and two is not None else one if two is None else two


def _cast(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray | None:
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


def _row_ids(table: pa.Table) -> Int64Array:
    ids: Int64Array = table.column("_rowid").to_numpy().astype(np.int64)
    return ids
