"""From the row ids that a search found to hits that tell of their items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmalign.searcher import Found
from mmalign.store.lance_store import Store
from mmalign.types import Hit

# What a hit tells of its item beside the metadata columns.
_TOLD = ("kind", "width", "height", "captions")


def read_hits(store: Store, found: Found, probabilities: NDArray[np.float64] | None = None) -> list[tuple[Hit, ...]]:
    """Turn row ids into hits, with one read for all queries.

    Args:
        store: The items, at the version that was searched.
        found: What was found.
        probabilities: Of the same shape as the scores, NaN where there is none.

    Returns:
        The hits of each query, best first.
    """
    chosen = found.row_ids[found.row_ids >= 0]
    rows = iter(store.take(chosen, ["id", "uri", *_TOLD, *store.columns]).to_pylist() if chosen.size else [])
    chances = np.full(found.scores.shape, np.nan) if probabilities is None else probabilities
    results = []
    for scores, row_ids, likely in zip(found.scores, found.row_ids, chances, strict=True):
        hits = []
        for score, chance in zip(scores[row_ids >= 0], likely[row_ids >= 0], strict=True):
            values = next(rows)
            name, uri = values.pop("id"), values.pop("uri")
            metadata = {key: value for key, value in values.items() if value is not None}
            probability = None if np.isnan(chance) else float(chance)
            hits.append(Hit(id=name, uri=uri or "", score=float(score), metadata=metadata, probability=probability))
        results.append(tuple(hits))
    return results
