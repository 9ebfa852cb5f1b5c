"""A collection of Qdrant: a server, or a folder of its client's local mode."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import FilterError, InputError, SourceError
from mmalign.evaluation.index_audit.target import (
    MOST_NAMED,
    AuditTarget,
    Keys,
    RowFilter,
    SearchMode,
    check_metric,
    draw_keys,
    ladder,
    with_default,
)
from mmalign.evaluation.index_audit.targets.opening import Place, engine_errors, installed, load_package
from mmalign.types import Note
from mmalign.utils import Float32Array, Int64Array

_MOST_EF = 4_096
_OVERSAMPLING = 3.0


class QdrantTarget(AuditTarget):
    """A collection of Qdrant; an API key may be in `QDRANT_API_KEY`.

    Args:
        source: The URL of the server, or the folder of the client's local mode.
        place: The collection and the named vector, where there are several.

    Raises:
        SourceError: No server, no such collection, or a folder that another client holds.
        InputError: Several collections or named vectors, or a metric other than Cosine, Dot or Euclid.
        MissingExtraError: qdrant-client is not installed.
    """

    engine = "qdrant"

    def __init__(self, source: str, place: Place) -> None:
        super().__init__()
        client = load_package("qdrant_client", engine="Qdrant", extra="qdrant", distribution="qdrant-client")
        http = load_package("qdrant_client.http.exceptions", engine="Qdrant", extra="qdrant")
        self._models = client.models
        self._local = "://" not in source
        # Its local mode raises errors of Python's.
        self._refused = (http.ApiException, ValueError, RuntimeError, OSError)
        key = os.environ.get("QDRANT_API_KEY")
        with engine_errors(f"{source} cannot be opened", *self._refused):
            if self._local:
                self._client = client.QdrantClient(path=str(Path(source)))
                self.version = f"{installed('qdrant-client')} (local mode of the client)"
            else:
                self._client = client.QdrantClient(url=source, api_key=key, timeout=60)
                self.version = str(self._client.info().version)
            names = [one.name for one in self._client.get_collections().collections]
        try:
            self._open(source, place, names)
        except BaseException:
            self.close()
            raise

    def _open(self, source: str, place: Place, names: Sequence[str]) -> None:
        if place.table is None and len(names) != 1:
            raise InputError(f"{source} has {len(names)} collections; name one with --table: {', '.join(names)}")
        self._table = place.table or names[0]
        if self._table not in names:
            raise SourceError(f"{source} has no collection {self._table!r}; it has {', '.join(names) or 'none'}")
        told = self._client.get_collection(self._table)
        vectors = told.config.params.vectors
        self._using: str | None = None
        if isinstance(vectors, Mapping):
            if place.column is None and len(vectors) != 1:
                raise InputError(f"{source} has several named vectors; name one with --column: {', '.join(vectors)}")
            self._using = place.column or next(iter(vectors))
            if self._using not in vectors:
                raise SourceError(f"{source} has no named vector {self._using!r}; it has {', '.join(vectors)}")
            vectors = vectors[self._using]
        self.dim, self.metric = int(vectors.size), check_metric(str(vectors.distance.value))
        self.rows = int(self._client.count(self._table).count)
        self.name = f"{source} collection {self._table}" + (f", vector {self._using}" if self._using else "")
        graph = told.config.hnsw_config
        self._default_ef = int(graph.ef_construct)
        self._quantized = (vectors.quantization_config or told.config.quantization_config) is not None
        if self._local:
            self.index = "no index"
            self.notes.append(
                Note(
                    "the local mode of Qdrant's client has no index: it compares with every vector, whatever hnsw_ef "
                    "says, so that only a server's recall can be low",
                    about="index",
                )
            )
            return
        self.index = f"HNSW, m={graph.m}, ef_construct={graph.ef_construct}"
        self.index += ", quantized" if self._quantized else ""
        indexed = int(told.indexed_vectors_count or 0)
        if indexed < self.rows:
            self.notes.append(
                Note(
                    f"{indexed:,} of {self.rows:,} vectors are in the index (status {told.status.value}); the others "
                    "are compared one by one",
                    about="index",
                )
            )

    def read(self, batch: int) -> Iterator[tuple[Keys, NDArray[Any]]]:
        """Scroll through all points; see `AuditTarget.read`."""
        offset = None
        while True:
            with engine_errors(f"{self.name} cannot be read", *self._refused):
                points, offset = self._client.scroll(
                    self._table,
                    limit=min(batch, 2_000),
                    offset=offset,
                    with_payload=False,
                    with_vectors=[self._using] if self._using else True,
                )
            pairs = [(one.id, one.vector[self._using] if self._using else one.vector) for one in points if one.vector]
            if pairs:
                yield [key for key, _ in pairs], np.array([vector for _, vector in pairs], np.float32)
            if offset is None:
                return

    def search(
        self, queries: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None
    ) -> Sequence[Keys] | Int64Array:
        """Search; see `AuditTarget.search`."""
        models = self._models
        told = dict(parameters)
        if "rescore" in told:
            told["quantization"] = models.QuantizationSearchParams(
                rescore=told.pop("rescore"), oversampling=told.pop("oversampling")
            )
        how = models.SearchParams(**told)
        with engine_errors(f"{self.name} cannot be searched", *self._refused):
            if len(queries) == 1:
                found = [
                    self._client.query_points(
                        self._table,
                        query=queries[0].tolist(),
                        using=self._using,
                        limit=k,
                        query_filter=where,
                        search_params=how,
                        with_payload=False,
                    )
                ]
            else:
                asked = [
                    models.QueryRequest(
                        query=one.tolist(), using=self._using, limit=k, filter=where, params=how, with_payload=False
                    )
                    for one in queries
                ]
                found = self._client.query_batch_points(self._table, requests=asked)
        return [[point.id for point in one.points] for one in found]

    def modes(self, k: int, *, filtered: bool) -> Sequence[SearchMode]:
        """`hnsw_ef`; quantized, also with rescoring; see `AuditTarget.modes`."""
        if self._local:
            return [SearchMode()]
        values = with_default(ladder(min(k, 16), _MOST_EF), self._default_ef)
        modes = [SearchMode("hnsw_ef", values, self._default_ef)]
        if self._quantized:
            rescored = {"rescore": True, "oversampling": _OVERSAMPLING}
            modes.append(SearchMode("hnsw_ef", values, self._default_ef, rescored))
        return modes

    def filter(self, text: str) -> RowFilter:
        """Understand a filter of Qdrant's as JSON; see `AuditTarget.filter`."""
        with engine_errors(
            f"Qdrant does not understand the filter {text!r}",
            *self._refused,
            refuse=FilterError,
            remedy='a filter is JSON such as {"must": [{"key": "price", "range": {"lt": 10}}]}',
        ):
            where = self._models.Filter.model_validate_json(text)
            keys: list[Any] = []
            offset = None
            while True:
                points, offset = self._client.scroll(
                    self._table,
                    scroll_filter=where,
                    limit=2_000,
                    offset=offset,
                    with_payload=False,
                    with_vectors=False,
                )
                keys += [one.id for one in points]
                if offset is None:
                    return RowFilter(text, where, keys)

    def random_filter(self, share: float, keys: Keys, rng: np.random.Generator) -> RowFilter:
        """Points named one by one; see `AuditTarget.random_filter`."""
        chosen = draw_keys(share, keys, rng, most=MOST_NAMED)
        where = self._models.Filter(must=[self._models.HasIdCondition(has_id=chosen)])
        return RowFilter(f"{share:.2%} at random: has_id [...]", where, chosen)

    def close(self) -> None:
        """Close the connection, and let go of the folder."""
        self._client.close()
