"""A database in one search mode and under one filter, as what `mmalign.index` measures the recall of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.evaluation.index_audit.spaces import Space
from mmalign.evaluation.index_audit.spool import KeyMap
from mmalign.evaluation.index_audit.target import AuditTarget, SearchMode
from mmalign.utils import Float32Array, Int64Array, as_matrix

# Queries of one call: an answer to thousands would be large.
_BATCH = 256


class Searched:
    """Searches of a database that find positions; the effort is the mode's knob.

    Args:
        target: The database.
        mode: How it is searched.
        space: What queries come in.
        keys: Which position each key has.
        ids: Positions that may be found.
        where: The filter as the engine takes it; None for none.
    """

    # What compares with every vector is measured like anything else: that it finds all is to be seen.
    exhaustive = False

    def __init__(
        self, target: AuditTarget, mode: SearchMode, space: Space, keys: KeyMap, ids: Int64Array, where: Any
    ) -> None:
        self._target, self._mode, self._space, self._keys, self._where = target, mode, space, keys, where
        self.ids = ids

    @property
    def ntotal(self) -> int:
        """How many rows may be found."""
        return len(self.ids)

    @property
    def default_effort(self) -> int | None:
        """What the knob is when nobody says anything."""
        return self._mode.default

    def max_effort(self, share: float = 1.0) -> int | None:
        """Return the largest value of the knob."""
        return self._mode.values[-1]

    def search(
        self, vectors: ArrayLike, k: int, *, where: NDArray[np.bool_] | None = None, effort: int | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """Find the nearest; scores, which databases give in many ways, are not compared and all 0."""
        queries = self._space.asked(as_matrix(vectors))
        parameters = self._mode.parameters(self._mode.default if effort is None else effort)
        step = _BATCH if self._target.batches else 1
        tables = [
            self._keys.table(self._target.search(queries[i : i + step], k, parameters, self._where), k)
            for i in range(0, len(queries), step)
        ]
        ids = np.concatenate(tables) if tables else np.full((0, k), -1, np.int64)
        return np.zeros(ids.shape, np.float32), ids
