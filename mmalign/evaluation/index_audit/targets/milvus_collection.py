"""A collection of Milvus: a server, or a file of milvus-lite."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import FilterError, InputError, SourceError
from mmalign.evaluation.index_audit.target import (
    MOST_NAMED,
    AuditTarget,
    Keys,
    Metric,
    RowFilter,
    SearchMode,
    check_metric,
    draw_keys,
    ladder,
    with_default,
)
from mmalign.evaluation.index_audit.targets.opening import Place, engine_errors, load_package
from mmalign.types import Note
from mmalign.utils import Float32Array, Int64Array

# What Milvus and milvus-lite search with when nobody says anything.
_DEFAULT_EF, _DEFAULT_NPROBE, _DEFAULT_NPROBE_LITE, _DEFAULT_LIST = 64, 8, 10, 16
_MOST_EF, _MOST_NPROBE = 4_096, 1_024


class MilvusTarget(AuditTarget):
    """A collection of Milvus; a token may be in `MILVUS_TOKEN`.

    Args:
        source: The address of the server, or the path of a milvus-lite file.
        place: The collection and its field of vectors, where there are several.

    Raises:
        SourceError: No server, no such collection, or one that is not loaded.
        InputError: Several collections or fields, or a metric other than COSINE, IP or L2.
        MissingExtraError: pymilvus, or for a file milvus-lite, is not installed.
    """

    engine = "milvus"

    def __init__(self, source: str, place: Place) -> None:
        super().__init__()
        pymilvus = load_package("pymilvus", engine="Milvus", extra="milvus")
        self._local = "://" not in source
        if self._local:
            load_package("milvus_lite", engine="a milvus-lite file", extra="milvus-lite", distribution="milvus-lite")
            source = str(Path(source).resolve())
        self._refused = (pymilvus.MilvusException,)
        self._kinds = pymilvus.DataType
        with self._calls(f"{source} cannot be opened"):
            self._client = pymilvus.MilvusClient(source, token=os.environ.get("MILVUS_TOKEN", ""))
            names = self._client.list_collections()
            self.version = str(self._client.get_server_version()).removeprefix("milvus_lite-")
        if place.table is None and len(names) != 1:
            raise InputError(f"{source} has {len(names)} collections; name one with --table: {', '.join(names)}")
        self._table = place.table or names[0]
        if self._table not in names:
            raise SourceError(f"{source} has no collection {self._table!r}; it has {', '.join(names) or 'none'}")
        fields = self._client.describe_collection(self._table)["fields"]
        key = next(one for one in fields if one.get("is_primary"))
        self._key, self._numbered = key["name"], key["type"] == self._kinds.INT64
        self._column, self.dim = self._vector_field(fields, place.column, source)
        self.name = f"{source} collection {self._table}, field {self._column}"
        self.index, self.metric = self._describe()
        if self._local:
            with self._calls(f"{self.name} cannot be loaded"):
                self._client.load_collection(self._table)
        elif "Loaded" not in str(self._client.get_load_state(self._table)["state"]):
            raise SourceError(f"{self.name} is not loaded; load it: client.load_collection({self._table!r})")
        self.rows = int(self._client.get_collection_stats(self._table)["row_count"])
        if self._local:
            self.version = f"{self.version} (milvus-lite)"

    @contextmanager
    def _calls(self, what: str, *, refuse: type[InputError] = SourceError) -> Iterator[None]:
        """Call Milvus; what it refuses is told once, and not in pymilvus' log as well."""
        logger = logging.getLogger("pymilvus")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        try:
            with engine_errors(what, *self._refused, refuse=refuse):
                yield
        finally:
            logger.setLevel(level)

    def _vector_field(self, fields: Sequence[Mapping[str, Any]], name: str | None, source: str) -> tuple[str, int]:
        fit = {one["name"]: int(one["params"]["dim"]) for one in fields if one["type"] == self._kinds.FLOAT_VECTOR}
        if name is None and len(fit) > 1:
            raise InputError(f"{source} has several fields of vectors; name one with --column: {', '.join(fit)}")
        name = name or next(iter(fit), "")
        if name not in fit:
            raise SourceError(f"{source}: {self._table} has no field of float vectors {name!r}; it has {list(fit)}")
        return name, fit[name]

    def _describe(self) -> tuple[str, Metric]:
        for name in self._client.list_indexes(self._table):
            told = self._client.describe_index(self._table, name)
            if told.get("field_name", self._column) != self._column:
                continue
            self._kind = str(told["index_type"])
            self._told = _parameters(told)
            waiting = int(told.get("pending_index_rows") or 0)
            if waiting:
                self.notes.append(
                    Note(f"{waiting:,} rows wait for the index and are compared one by one", about="index")
                )
            details = ", ".join(f"{name}={value}" for name, value in self._told.items())
            return self._kind + (f" ({details})" if details else ""), check_metric(str(told["metric_type"]))
        raise SourceError(f"{self.name} has no index; Milvus cannot search without one")

    def read(self, batch: int) -> Iterator[tuple[Keys, NDArray[Any]]]:
        """Read by Milvus's iterator; see `AuditTarget.read`."""
        with self._calls(f"{self.name} cannot be read"):
            rows = self._client.query_iterator(
                self._table, batch_size=min(batch, 2_000), output_fields=[self._key, self._column]
            )
            while some := rows.next():
                yield [one[self._key] for one in some], np.array([one[self._column] for one in some], np.float32)
            rows.close()

    def search(
        self, queries: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None
    ) -> Sequence[Keys] | Int64Array:
        """Search; see `AuditTarget.search`."""
        with self._calls(f"{self.name} cannot be searched"):
            found = self._client.search(
                self._table,
                queries.tolist(),
                filter=where or "",
                limit=k,
                anns_field=self._column,
                search_params={"params": dict(parameters)},
            )
        return [[hit[self._key] if self._key in hit else hit["id"] for hit in hits] for hits in found]

    def modes(self, k: int, *, filtered: bool) -> Sequence[SearchMode]:
        """`ef`, `nprobe` or `search_list`, as the index has it; see `AuditTarget.modes`."""
        kind = self._kind.upper()
        if "HNSW" in kind:
            # A graph has to hold as many candidates as are asked for, and one more is asked for here.
            return [SearchMode("ef", with_default(ladder(k + 1, _MOST_EF), max(_DEFAULT_EF, k + 1)), _DEFAULT_EF)]
        if "IVF" in kind or kind == "SCANN":
            most = int(self._told.get("nlist", _MOST_NPROBE))
            default = min(_DEFAULT_NPROBE_LITE if self._local else _DEFAULT_NPROBE, most)
            return [SearchMode("nprobe", with_default(ladder(1, most), default), default)]
        if kind == "DISKANN":
            return [SearchMode("search_list", with_default(ladder(k + 1, _MOST_EF), _DEFAULT_LIST), _DEFAULT_LIST)]
        return [SearchMode()]

    def filter(self, text: str) -> RowFilter:
        """Understand a boolean expression of Milvus's; see `AuditTarget.filter`."""
        with self._calls(f"Milvus does not understand the filter {text!r}", refuse=FilterError):
            keys = []
            rows = self._client.query_iterator(self._table, batch_size=2_000, filter=text, output_fields=[self._key])
            while some := rows.next():
                keys += [one[self._key] for one in some]
            rows.close()
        return RowFilter(text, text, keys)

    def random_filter(self, share: float, keys: Keys, rng: np.random.Generator) -> RowFilter:
        """Every so many of the numbered keys, else keys named one by one; see `AuditTarget.random_filter`."""
        if self._numbered:
            every = max(2, round(1 / share))
            try:
                found = self.filter(f"{self._key} % {every} == {int(rng.integers(every))}")
            except FilterError:
                # milvus-lite cannot calculate.
                pass
            else:
                if 0.5 * share < len(found.keys) / len(keys) < 2 * share:
                    return replace(found, text=f"{share:.2%} at random: {found.text}")
        chosen = draw_keys(share, keys, rng, most=MOST_NAMED)
        # JSON writes numbers and texts as Milvus reads them.
        return RowFilter(f"{share:.2%} at random: {self._key} in [...]", f"{self._key} in {json.dumps(chosen)}", chosen)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _parameters(told: Mapping[str, Any]) -> dict[str, Any]:
    """How the index was built, as far as it says so."""
    names = ("M", "efConstruction", "nlist", "m", "nbits")
    return {name: told[name] for name in names if name in told}
