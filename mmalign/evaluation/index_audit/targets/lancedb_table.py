"""A table of LanceDB: a folder, an object store, or `db://`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmalign.errors import FilterError, InputError, SourceError
from mmalign.evaluation.index_audit.target import (
    AuditTarget,
    Keys,
    Metric,
    RowFilter,
    SearchMode,
    check_metric,
    ladder,
    with_default,
)
from mmalign.evaluation.index_audit.targets.opening import Place, engine_errors, installed, load_package
from mmalign.types import Note
from mmalign.utils import Float32Array, Int64Array

# What LanceDB raises: its own errors come as these of Python.
_REFUSED = (ValueError, RuntimeError, OSError)
# What it does when nobody says anything, as its documentation has it.
_DEFAULT_NPROBES, _DEFAULT_EF = 20, 1.5
_MOST_NPROBES, _MOST_EF = 1_024, 2_048
_REFINE = (5, 20)
_NAMES = {"ip": "dot"}


class LanceTarget(AuditTarget):
    """A table of LanceDB; rows are known by their row ids, so that any table can be read.

    Args:
        source: The folder of the database, or that of the table (`NAME.lance`).
        place: The table, where the database has several; the column, where the table has several of vectors; the
            metric, where there is no index that says one.

    Raises:
        SourceError: No such database or table, or no column of vectors.
        InputError: Several tables or columns, or a metric other than cosine, dot or l2.
        MissingExtraError: LanceDB is not installed.
    """

    engine = "lancedb"

    def __init__(self, source: str, place: Place) -> None:
        super().__init__()
        lancedb = load_package("lancedb", engine="a LanceDB table", extra="lancedb")
        self.version = installed("lancedb")
        path, table = Path(source), place.table
        if path.suffix == ".lance" and table is None:
            source, table = str(path.parent), path.stem
        with engine_errors(f"{source} cannot be opened", *_REFUSED):
            database = lancedb.connect(source)
            names = list(database.list_tables().tables)
        if table is None and len(names) != 1:
            raise InputError(f"{source} has {len(names)} tables; name one with --table: {', '.join(names)}")
        table = table or names[0]
        with engine_errors(f"{source}: table {table!r} cannot be opened", *_REFUSED, remedy=f"it has {names}"):
            self._table = database.open_table(table)
        self._column, self.dim = _vector_column(self._table.schema, place.column, f"{source} table {table!r}")
        self.name = f"{source} table {table}, column {self._column}"
        self.rows = int(self._table.count_rows(f"{self._column} IS NOT NULL"))
        self._kind = ""
        self._partitions: int | None = None
        self.index, metric = self._describe(place.metric)
        self.metric: Metric = check_metric(metric)

    def _describe(self, metric: str | None) -> tuple[str, str]:
        for one in self._table.list_indices():
            if one.columns != [self._column]:
                continue
            stats = self._table.index_stats(one.name)
            if stats is None or not getattr(stats, "distance_type", None):
                continue
            self._kind = stats.index_type
            if stats.num_unindexed_rows:
                self.notes.append(
                    Note(
                        f"{stats.num_unindexed_rows:,} rows are not in the index and are compared one by one",
                        remedy="table.optimize() takes them in",
                        about="index",
                    )
                )
            if metric is not None and check_metric(metric) != check_metric(stats.distance_type):
                raise InputError(f"the index {one.name!r} goes by {stats.distance_type}, not by {metric}")
            self._partitions = self._count_partitions(one.name)
            many = "" if self._partitions is None else f" of {self._partitions:,} partitions"
            return f"{stats.index_type} {one.name!r}{many}", stats.distance_type
        self.notes.append(Note("there is no index on this column: LanceDB compares with every vector", about="index"))
        return "no index", metric or "l2"

    def _count_partitions(self, name: str) -> int | None:
        """How many partitions the index has; None where only the server of a remote table knows."""
        try:
            told = self._table.to_lance().stats.index_stats(name)["indices"]
            return max(int(one["num_partitions"]) for one in told)
        except (AttributeError, NotImplementedError, KeyError, ValueError, ImportError):
            return None

    def read(self, batch: int) -> Iterator[tuple[Keys, NDArray[Any]]]:
        """Read the column; see `AuditTarget.read`."""
        with engine_errors(f"{self.name} cannot be read", *_REFUSED):
            query = self._table.search().where(f"{self._column} IS NOT NULL").with_row_id(True)
            for part in query.select([self._column]).to_batches(batch):
                column = part.column(self._column)
                flat = column.flatten().cast(pa.float32()).to_numpy(zero_copy_only=False)
                yield _row_ids(part.column("_rowid")), flat.reshape(len(column), -1)

    def search(
        self, queries: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None
    ) -> Sequence[Keys] | Int64Array:
        """Search; see `AuditTarget.search`."""
        many = len(queries) > 1
        query = self._table.search(list(queries) if many else queries[0], vector_column_name=self._column)
        query = (
            query.distance_type(_NAMES.get(self.metric, self.metric))
            .with_row_id(True)
            .select(["_rowid", "_distance"])
            .limit(k)
        )
        if where is not None:
            query = query.where(where, prefilter=True)
        for name, value in parameters.items():
            query = getattr(query, name)(value)
        with engine_errors(f"{self.name} cannot be searched", *_REFUSED):
            found = query.to_arrow()
        ids = _row_ids(found.column("_rowid"))
        if not many:
            return [ids]
        which = found.column("query_index").to_numpy()
        return [ids[which == i] for i in range(len(queries))]

    def modes(self, k: int, *, filtered: bool) -> Sequence[SearchMode]:
        """`nprobes` or `ef`; compressed, also with refinement; see `AuditTarget.modes`."""
        if not self._kind:
            return [SearchMode()]
        plain = self._kind.upper().endswith("FLAT")
        if "HNSW" in self._kind.upper():
            # A graph has to hold as many candidates as are asked for, and one more is asked for here.
            least = k + 1
            default = math.ceil(_DEFAULT_EF * least)
            modes = [SearchMode("ef", with_default(ladder(least, _MOST_EF), default), default)]
            most = ladder(_REFINE[0] * least, 2 * _MOST_EF)
            return modes if plain else [*modes, SearchMode("ef", most, 0, {"refine_factor": _REFINE[0]})]
        partitions = self._partitions or _MOST_NPROBES
        usual = min(_DEFAULT_NPROBES, partitions)
        values = with_default(ladder(1, partitions), usual)
        modes = [SearchMode("nprobes", values, usual)]
        if not plain:
            # At the default, nprobes are left away, and the refinement is not.
            modes += [SearchMode("nprobes", values, usual, {"refine_factor": factor}) for factor in _REFINE]
        return modes

    def filter(self, text: str) -> RowFilter:
        """Understand SQL as LanceDB takes it; see `AuditTarget.filter`."""
        with engine_errors(f"LanceDB does not understand the filter {text!r}", *_REFUSED, refuse=FilterError):
            found = self._table.search().where(f"({text}) AND {self._column} IS NOT NULL").with_row_id(True)
            return RowFilter(text, text, _row_ids(found.select(["_rowid"]).to_arrow().column("_rowid")))

    def random_filter(self, share: float, keys: Keys, rng: np.random.Generator) -> RowFilter:
        """Let through every so many of the row ids, which count as rows were added; see `AuditTarget.random_filter`."""
        every = max(2, round(1 / share))
        found = self.filter(f"_rowid % {every} = {int(rng.integers(every))}")
        return replace(found, text=f"{share:.2%} at random: {found.text}")

    def explain(self, query: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None) -> str:
        """LanceDB's own plan, its innermost steps; see `AuditTarget.explain`."""
        asked = self._table.search(query, vector_column_name=self._column).limit(k)
        asked = asked.distance_type(_NAMES.get(self.metric, self.metric))
        plan = (asked if where is None else asked.where(where, prefilter=True)).explain_plan()
        steps = [line.strip() for line in plan.splitlines() if "ANN" in line or "KNN" in line]
        return "; ".join(step.partition(": uuid=")[0] for step in steps)


def _vector_column(schema: pa.Schema, name: str | None, where: str) -> tuple[str, int]:
    """The column of vectors and their width."""
    fit = {
        field.name: field.type.list_size
        for field in schema
        if pa.types.is_fixed_size_list(field.type) and pa.types.is_floating(field.type.value_type)
    }
    if name is None and len(fit) != 1:
        if not fit:
            raise SourceError(f"{where} has no column of vectors; its columns are {', '.join(schema.names)}")
        raise InputError(f"{where} has several columns of vectors; name one with --column: {', '.join(fit)}")
    name = name or next(iter(fit))
    if name not in fit:
        raise SourceError(f"{where} has no column of vectors {name!r}; it has {', '.join(fit) or 'none'}")
    return name, fit[name]


def _row_ids(column: pa.Array | pa.ChunkedArray) -> Int64Array:
    # Unsigned, and of one chunk or several.
    found: Int64Array = np.asarray(column.to_numpy()).astype(np.int64)
    return found
