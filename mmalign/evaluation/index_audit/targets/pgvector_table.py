"""A table of Postgres with a column of pgvector's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
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
from mmalign.evaluation.index_audit.targets.opening import Place, engine_errors, load_package
from mmalign.types import Note
from mmalign.utils import Float32Array, Int64Array

_OPERATORS: dict[Metric, str] = {"cosine": "<=>", "ip": "<#>", "l2": "<->"}
# pgvector refuses more.
_MOST_EF = 1_000
_COLUMNS = """
SELECT attname, format_type(atttypid, NULL), atttypmod FROM pg_attribute
WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped
"""
_INDEXES = """
SELECT i.relname, am.amname, opc.opcname, coalesce(i.reloptions, '{}'), x.indpred IS NOT NULL
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am am ON am.oid = i.relam
JOIN pg_opclass opc ON opc.oid = x.indclass[0] JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
WHERE x.indrelid = %s::regclass AND a.attname = %s AND am.amname IN ('hnsw', 'ivfflat') AND x.indisvalid
ORDER BY i.relname
"""
_KEY = """
SELECT a.attname FROM pg_index x JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
WHERE x.indrelid = %s::regclass AND x.indisprimary AND x.indnatts = 1
"""
_TABLES = """
SELECT DISTINCT a.attrelid::regclass::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_class c ON c.oid = a.attrelid
WHERE t.typname IN ('vector', 'halfvec') AND c.relkind IN ('r', 'p', 'm') AND NOT a.attisdropped
"""


class PgvectorTarget(AuditTarget):
    """A table of Postgres; the connection is read-only.

    Args:
        source: What psycopg connects to, such as `postgresql://user@host/name`; a password may be in `PGPASSWORD`.
        place: The table and the column, where there are several of vectors; the metric, where no index says one.

    Raises:
        SourceError: No connection, no such table, or no column of vectors.
        InputError: Several tables or columns, or a metric other than cosine, inner product or L2.
        MissingExtraError: psycopg or pgvector is not installed.
    """

    engine = "pgvector"
    batches = False

    def __init__(self, source: str, place: Place) -> None:
        super().__init__()
        self._psycopg = load_package("psycopg", engine="pgvector", extra="pgvector", distribution="psycopg[binary]")
        vectors = load_package("pgvector.psycopg", engine="pgvector", extra="pgvector", distribution="pgvector")
        self._refused = (self._psycopg.Error,)
        safe = re.sub(r"(://[^:/@]*):[^@/]*@", r"\1:***@", source)
        with engine_errors(f"no connection to {safe}", *self._refused):
            self._link = self._psycopg.connect(
                source, autocommit=True, options="-c default_transaction_read_only=on", connect_timeout=10
            )
        with engine_errors(f"{safe} has no pgvector", *self._refused, remedy="CREATE EXTENSION vector"):
            try:
                vectors.register_vector(self._link)
            except self._psycopg.ProgrammingError:
                self._link.close()
                raise
        found = self._link.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        self.version = f"{found[0]}, Postgres {self._link.info.server_version // 10_000}"
        self._recent = tuple(map(int, found[0].split(".")[:2])) >= (0, 8)
        table = place.table or self._only([row[0] for row in self._link.execute(_TABLES)], "table", safe)
        with engine_errors(f"{safe} has no table {table!r}", *self._refused):
            columns = list(self._link.execute(_COLUMNS, [table]))
        widths = {name: size for name, kind, size in columns if kind in ("vector", "halfvec")}
        column = place.column or self._only(list(widths), "column", f"{safe} table {table}")
        if column not in widths:
            raise SourceError(f"{table} has no column of vectors {column!r}; it has {', '.join(widths) or 'none'}")
        self._cast = next(kind for name, kind, _ in columns if name == column)
        quoted = self._psycopg.sql.Identifier
        self._table = self._psycopg.sql.Identifier(*table.replace('"', "").split(".")).as_string(self._link)
        self._column = quoted(column).as_string(self._link)
        key = self._link.execute(_KEY, [table]).fetchone()
        self._key = "ctid" if key is None else quoted(key[0]).as_string(self._link)
        self.name = f"{self._link.info.dbname} table {table}, column {column}"
        self._method, self._lists = "", 0
        self.index, metric = self._describe(table, column, place.metric)
        self.metric: Metric = metric
        self.rows = int(self._one(f"SELECT count({self._column}) FROM {self._table}"))
        first = self._one(
            f"SELECT vector_dims({self._column}) FROM {self._table} WHERE {self._column} IS NOT NULL LIMIT 1"
        )
        if first is None:
            raise SourceError(f"{self.name} holds no vectors")
        self.dim = int(first)
        # What the session searches with; pgvector knows its settings once it was used.
        self._stored: dict[str, str] = {name: self._one(f"SHOW {name}") for name in self._settings()}
        self._now = dict(self._stored)

    @staticmethod
    def _only(names: Sequence[str], what: str, where: str) -> str:
        if not names:
            raise SourceError(f"{where} has no {what} of pgvector's vectors")
        if len(names) > 1:
            raise InputError(f"{where} has several {what}s of vectors; name one with --{what}: {', '.join(names)}")
        return names[0]

    def _one(self, statement: str) -> Any:
        with engine_errors(statement, *self._refused):
            row = self._link.execute(statement).fetchone()
        return None if row is None else row[0]

    def _describe(self, table: str, column: str, metric: str | None) -> tuple[str, Metric]:
        wanted = None if metric is None else check_metric(metric)
        others = []
        for name, method, operators, options, partial in self._link.execute(_INDEXES, [table, column]):
            by = re.fullmatch(r"(?:vector|halfvec)_(cosine|ip|l2)_ops", operators)
            if by is None or (wanted is not None and by[1] != wanted):
                others.append(f"{name} ({operators})")
                continue
            self._method = method
            self._lists = next((int(one.partition("=")[2]) for one in options if one.startswith("lists=")), 100)
            if partial:
                self.notes.append(Note(f"the index {name} holds only some of the rows (it has a WHERE)", about="index"))
            details = f" ({', '.join(options)})" if options else ""
            return f"{method} {name}{details}", check_metric(by[1])
        aside = f"; others: {', '.join(others)}" if others else ""
        by_what = wanted or "cosine"
        self.notes.append(
            Note(f"no index by {by_what} on {column}: Postgres compares with every vector{aside}", about="index")
        )
        return "no index", by_what

    def _settings(self) -> tuple[str, ...]:
        names = {"hnsw": ("hnsw.ef_search",), "ivfflat": ("ivfflat.probes",)}.get(self._method, ())
        return (*names, *((f"{self._method}.iterative_scan",) if names and self._recent else ()))

    def read(self, batch: int) -> Iterator[tuple[Keys, NDArray[Any]]]:
        """Read the column through a cursor of the server's; see `AuditTarget.read`."""
        columns = f"{self._key}, {self._column}::vector"
        with (
            engine_errors(f"{self.name} cannot be read", *self._refused),
            self._link.transaction(),
            self._link.cursor("mmalign_audit", binary=True) as cursor,
        ):
            cursor.execute(f"SELECT {columns} FROM {self._table} WHERE {self._column} IS NOT NULL")
            while rows := cursor.fetchmany(batch):
                yield [row[0] for row in rows], np.stack([_numbers(row[1]) for row in rows])

    def search(
        self, queries: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None
    ) -> Sequence[Keys] | Int64Array:
        """Search, one query at a time; see `AuditTarget.search`."""
        wanted = {**self._stored, **{name: str(value) for name, value in parameters.items()}}
        with engine_errors(f"{self.name} cannot be searched", *self._refused):
            for name, value in wanted.items():
                if self._now.get(name) != value:
                    self._link.execute("SELECT set_config(%s, %s, false)", [name, value])
                    self._now[name] = value
            statement = self._statement(where)
            return [[row[0] for row in self._link.execute(statement, [query, k], binary=True)] for query in queries]

    def _statement(self, where: str | None) -> str:
        kept = "" if where is None else f" WHERE {where.replace('%', '%%')}"
        order = f"{self._column} {_OPERATORS[self.metric]} %s::{self._cast}"
        return f"SELECT {self._key} FROM {self._table}{kept} ORDER BY {order} LIMIT %s"

    def modes(self, k: int, *, filtered: bool) -> Sequence[SearchMode]:
        """`hnsw.ef_search` or `ivfflat.probes`, with a filter also with iterative scans; see `AuditTarget.modes`."""
        if not self._method:
            return [SearchMode()]
        knob = self._settings()[0]
        most = ladder(min(k, 16), _MOST_EF) if self._method == "hnsw" else ladder(1, self._lists)
        default = int(self._stored[knob])
        modes = [SearchMode(knob, with_default(most, default), default)]
        scan = f"{self._method}.iterative_scan"
        if filtered and self._recent and self._stored[scan] == "off":
            modes.append(SearchMode(knob, with_default(most, default), default, {scan: "relaxed_order"}))
        return modes

    def filter(self, text: str) -> RowFilter:
        """Understand what stands behind WHERE; see `AuditTarget.filter`."""
        statement = f"SELECT {self._key} FROM {self._table} WHERE ({text}) AND {self._column} IS NOT NULL"
        with engine_errors(f"Postgres does not understand the filter {text!r}", *self._refused, refuse=FilterError):
            rows = self._link.execute(statement.replace("%", "%%"), [], binary=True).fetchall()
        return RowFilter(text, f"({text})", [row[0] for row in rows])

    def random_filter(self, share: float, keys: Keys, rng: np.random.Generator) -> RowFilter:
        """Let through what a hash of the key lets through; see `AuditTarget.random_filter`."""
        hashed = f"hashtextextended({self._key}::text, {int(rng.integers(1 << 20))})"
        found = self.filter(f"({hashed} & 8191) < {max(1, round(share * 8192))}")
        return replace(found, text=f"{share:.2%} at random: {found.text}")

    def explain(self, query: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None) -> str:
        """Postgres' own plan: how rows are found; see `AuditTarget.explain`."""
        with engine_errors(f"{self.name} cannot be searched", *self._refused):
            for name, value in self._stored.items():
                self._link.execute("SELECT set_config(%s, %s, false)", [name, value])
                self._now[name] = value
            lines = [row[0] for row in self._link.execute(f"EXPLAIN {self._statement(where)}", [query, k])]
        steps = [line.strip().removeprefix("->").partition("  (cost")[0].strip() for line in lines if "(cost" in line]
        return " <- ".join(steps)

    def close(self) -> None:
        """Close the connection."""
        self._link.close()


def _numbers(vector: Any) -> NDArray[np.float32]:
    """A vector as NumPy has it, as which version of pgvector's package ever it comes."""
    return np.asarray(vector.to_numpy() if hasattr(vector, "to_numpy") else vector, np.float32)
