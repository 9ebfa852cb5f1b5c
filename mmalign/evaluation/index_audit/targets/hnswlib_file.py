"""An hnswlib file, as `save_index` writes it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError, SourceError
from mmalign.evaluation.index_audit.target import (
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

# What a file begins with: six sizes and numbers of eight bytes, of which the fifth and sixth frame a vector.
_HEADER = struct.Struct("<6Q")
# What hnswlib searches with after a file was loaded, since it keeps no ef.
_DEFAULT_EF = 10
_MOST_EF = 4_096


class HnswlibTarget(AuditTarget):
    """An hnswlib file; its width is read from it, its space is not in it.

    Args:
        source: The file.
        place: Its metric is the space: cosine, ip or l2.

    Raises:
        InputError: No metric is given.
        SourceError: It is no hnswlib file, or damaged.
        MissingExtraError: hnswlib is not installed.
    """

    engine = "hnswlib"

    def __init__(self, source: str, place: Place) -> None:
        super().__init__()
        hnswlib = load_package("hnswlib", engine="an hnswlib file", extra="hnswlib")
        if place.metric is None:
            raise InputError(f"{source}: an hnswlib file does not say its space; say it: --metric cosine, l2 or ip")
        self.version = installed("hnswlib")
        self.metric = check_metric(place.metric)
        self.dim = _width(Path(source))
        self.name = source
        self._index = hnswlib.Index(space=self.metric, dim=self.dim)
        with engine_errors(f"{source} cannot be read", RuntimeError, OSError):
            self._index.load_index(source)
        self.rows = int(self._index.get_current_count())
        self.index = f"HNSW, M={self._index.M}, ef_construction={self._index.ef_construction}"
        self.notes.append(
            Note(
                f"the file does not say its space: it was taken for {self.metric}; and keeps no ef: after loading, "
                f"hnswlib searches with {_DEFAULT_EF}",
                about="metric",
            )
        )
        self._labels: Int64Array = np.asarray(self._index.get_ids_list(), np.int64)

    def read(self, batch: int) -> Iterator[tuple[Keys, NDArray[Any]]]:
        """Read the items; those that were marked as deleted are left out; see `AuditTarget.read`."""
        for start in range(0, len(self._labels), batch):
            labels = self._labels[start : start + batch]
            try:
                vectors = self._items(labels)
            except RuntimeError:
                labels = np.array([one for one in labels if self._is_there(one)], np.int64)
                vectors = self._items(labels) if len(labels) else np.zeros((0, self.dim), np.float32)
            yield labels, vectors

    def _items(self, labels: Int64Array) -> NDArray[Any]:
        return np.asarray(self._index.get_items(labels, return_type="numpy"))

    def _is_there(self, label: int) -> bool:
        try:
            self._index.get_items([label])
        except RuntimeError:
            return False
        return True

    def search(
        self, queries: Float32Array, k: int, parameters: Mapping[str, Any], where: Any = None
    ) -> Sequence[Keys] | Int64Array:
        """Search; with a filter one query at a time, for it is a function of Python; see `AuditTarget.search`."""
        self._index.set_ef(parameters.get("ef", _DEFAULT_EF))
        if where is None:
            try:
                return np.asarray(self._index.knn_query(queries, k)[0], np.int64)
            except RuntimeError:
                # It refuses to give fewer than k.
                return [self._most(one, k, None) for one in queries]
        return [self._most(one, k, where.__contains__) for one in queries]

    def _most(self, query: Float32Array, k: int, where: Any) -> Int64Array:
        """As many hits as hnswlib gives, up to k."""
        options = {} if where is None else {"filter": where, "num_threads": 1}
        while k:
            try:
                return np.asarray(self._index.knn_query(query, k, **options)[0][0], np.int64)
            except RuntimeError:
                k -= 1
        return np.zeros(0, np.int64)

    def modes(self, k: int, *, filtered: bool) -> Sequence[SearchMode]:
        """`ef`; see `AuditTarget.modes`."""
        default = max(_DEFAULT_EF, k)
        values = with_default(ladder(k, min(_MOST_EF, max(self.rows, k))), default)
        return [SearchMode("ef", values, default)]

    def random_filter(self, share: float, keys: Keys, rng: np.random.Generator) -> RowFilter:
        """Let labels drawn at random through, by a function of Python; see `AuditTarget.random_filter`."""
        chosen = draw_keys(share, keys, rng)
        return RowFilter(f"{share:.2%} at random", frozenset(chosen), np.array(chosen, np.int64))


def _width(path: Path) -> int:
    """How many numbers a vector has: what lies between the beginning of a vector and its label."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEADER.size)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    if len(head) < _HEADER.size:
        raise SourceError(f"{path} is no hnswlib file: it has {len(head)} bytes")
    _, _, _, size, label, data = _HEADER.unpack(head)
    width = (label - data) // 4
    if not (0 < data < label < size < 1 << 24) or (label - data) % 4 or size - label != 8:
        raise SourceError(f"{path} is no hnswlib file, or one of vectors that are not float32")
    return int(width)
