"""How long a database takes to answer: one query at a time, and in batches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmalign.evaluation.index_audit.spaces import Space
from mmalign.evaluation.index_audit.spool import Spool
from mmalign.evaluation.index_audit.target import AuditTarget
from mmalign.utils import Float32Array, exact_top_k

# Of each setting: single queries until there are so many or so much time has gone by; of slow ones some in any case.
_SINGLES, _SECONDS, _LEAST, _MOST_SECONDS = 200, 1.0, 20, 10.0
# A batch is of so many queries, of fewer where single ones take long.
_BATCH, _LEAST_BATCH, _BATCHES = 100, 10, 3
# Exact search is timed where the vectors are no larger, in bytes.
_IN_MEMORY = 1 << 30


@dataclass(frozen=True, slots=True)
class Speed:
    """How long searches took.

    Attributes:
        median_ms: Of a single query, in milliseconds.
        p95_ms: What 95 of 100 single queries took at most.
        batch_per_s: Queries a second in batches of up to 100, of fewer where they take long; None where the engine
            takes no batches.
    """

    median_ms: float
    p95_ms: float
    batch_per_s: float | None


def time_searches(
    target: AuditTarget, queries: Float32Array, k: int, parameters: Mapping[str, Any], where: Any
) -> Speed:
    """Time searches.

    Args:
        target: The database.
        queries: What to ask, shape (q, dim), in turn.
        k: How many hits.
        parameters: What a `SearchMode` gave.
        where: A filter as the engine takes it.

    Returns:
        The times; the first search of each kind warms up and does not count.
    """
    singles: list[float] = []
    target.search(queries[:1], k, parameters, where)
    while sum(singles) < (_MOST_SECONDS if len(singles) < _LEAST else _SECONDS) and len(singles) < _SINGLES:
        one = queries[len(singles) % len(queries)][None]
        singles.append(_seconds(lambda one=one: target.search(one, k, parameters, where)))  # type: ignore[misc]
    told = 1e3 * np.quantile(singles, [0.5, 0.95])
    rate = None
    if target.batches:
        batch = queries[: min(_BATCH, max(_LEAST_BATCH, int(_SECONDS / max(statistics.median(singles), 1e-9))))]
        times: list[float] = []
        while not times or (len(times) < _BATCHES and sum(times) < _SECONDS):
            times.append(_seconds(lambda: target.search(batch, k, parameters, where)))
        rate = round(len(batch) / statistics.median(times), 1)
    return Speed(round(float(told[0]), 3), round(float(told[1]), 3), rate)


def time_exact(vectors: Spool, space: Space, queries: Float32Array, k: int) -> float | None:
    """Time an exact search of single queries in NumPy, with the vectors in memory.

    Args:
        vectors: The vectors.
        space: Their space.
        queries: What to ask, shape (q, dim).
        k: How many hits.

    Returns:
        The median in milliseconds; None where the vectors are too many to be put into memory for this.
    """
    asked = space.queries(queries)
    if 4 * len(vectors) * asked.shape[1] > _IN_MEMORY:
        return None
    held = np.concatenate([space.vectors(part) for _, part in vectors.chunks()])
    times = [_seconds(lambda one=one: exact_top_k(one[None], held, k)) for one in asked[:11]]  # type: ignore[misc]
    return round(1e3 * statistics.median(times[1:] or times), 3)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
