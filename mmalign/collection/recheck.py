"""Measuring again what a collection's searches find, with other queries than its index was measured with."""

from __future__ import annotations

import secrets
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from mmalign.collection.eval_queries import EvalQueries
from mmalign.collection.indexing import SampleQueries
from mmalign.collection.recall import profile_of
from mmalign.index import QuerySet, exact_truth, lower_bound
from mmalign.search import Searcher
from mmalign.types import gives_json

# Ties at the last place are found among so many further items without a look at the vectors.
_SPARE = 32


@dataclass(frozen=True, slots=True)
class RecallCheck:
    """What searches with queries of one kind find.

    Attributes:
        kind: Of the queries; see `Query.kinds`.
        k: How many hits were asked for.
        min_recall: The promise; None where there is none.
        recall: Mean recall of the fresh queries.
        lower: Lower bound of the mean, at 95% confidence, one-sided.
        upper: Upper bound of the mean, likewise.
        queries: How many queries there were.
        effort: What the index was asked for; None where it was not used.
        exact: Whether the searches were exact, so that recall is 1 by design.
        view: What was searched: `image`, or `captions`.
    """

    kind: str
    k: int
    min_recall: float | None
    recall: float
    lower: float
    upper: float
    queries: int
    effort: int | None
    exact: bool
    view: str = "image"

    @property
    def ok(self) -> bool:
        """Whether the promise stands: False where it is refuted with 95% confidence."""
        return self.min_recall is None or self.upper >= self.min_recall

    def __str__(self) -> str:
        """Tell the figures in a sentence."""
        how = (
            "answered exactly" if self.exact else f"effort {self.effort}" if self.effort is not None else "by the index"
        )
        promise = "nothing promised" if self.min_recall is None else f"promised {self.min_recall:g}"
        among = "" if self.view == "image" else f" among the {self.view}"
        return (
            f"recall@{self.k} of {self.queries} fresh {self.kind} queries{among} is {self.recall:.3f} "
            f"({self.lower:.3f} to {self.upper:.3f}), {promise}, {how}"
        )

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return asdict(self) | {"ok": self.ok}


def recheck_index(
    searcher: Searcher,
    queries: SampleQueries,
    *,
    min_recall: float | None,
    k: int,
    seed: int | None,
    view: str = "image",
    progress: bool = True,
) -> list[RecallCheck]:
    """Measure what searches of a table find, as `Collection.check_recall`.

    Args:
        searcher: The table with the index in use.
        queries: Gathers queries that stand for those that will be asked of it.
        min_recall: The promise to test; None for what the index was built to keep.
        k: How many hits, at least 1.
        seed: Of the queries that are drawn; None for others each time.
        view: What the table is a view of.
        progress: Whether to show a progress bar.

    Returns:
        The figures of each kind; none where there is no index, or one that compares with every vector.
    """
    if searcher.index is None or searcher.index.exhaustive:
        return []
    profile = profile_of(searcher.manifest)
    if min_recall is None and profile is not None:
        min_recall = profile.min_recall
    drawn = secrets.randbits(32) if seed is None else seed
    with searcher.store.reads_long():
        asked = queries(searcher.store, seed=drawn, progress=progress)
        return [replace(one, view=view) for one in recheck(searcher, asked, min_recall=min_recall, k=k)]


def recheck(searcher: Searcher, queries: EvalQueries, *, min_recall: float | None, k: int = 10) -> list[RecallCheck]:
    """Search as anyone would, and compare with exact search over all items.

    Args:
        searcher: The items with the index in use, and whatever was added or removed since.
        queries: Fresh queries by kind.
        min_recall: What searches are to keep; None for the index's default effort.
        k: How many hits, at least 1.

    Returns:
        The figures of each kind; none for an empty collection.
    """
    k = min(k, searcher.items - 1)
    return [_check(searcher, kind, asked, min_recall, k) for kind, asked in queries.asked.items()] if k > 0 else []


def _check(searcher: Searcher, kind: str, asked: QuerySet, min_recall: float | None, k: int) -> RecallCheck:
    store, own = searcher.store, asked.own
    truth = exact_truth(asked.vectors, store.iter_embeddings, k + _SPARE, skip=own)
    found = searcher.search(asked.vectors, k if own is None else k + 1, min_recall=min_recall, kinds=(kind,))
    row_ids = found.row_ids
    if own is not None:
        late = np.argsort(row_ids == own[:, None], axis=1, kind="stable")
        row_ids = np.take_along_axis(row_ids, late, axis=1)[:, :k]
    values = truth.recall(
        row_ids,
        k,
        lookup=lambda query, ids: store.embeddings(ids)[1].astype(np.float32) @ asked.vectors[query],
        unit_length=searcher.unit_length,
    )
    return RecallCheck(
        kind=kind,
        k=k,
        min_recall=min_recall,
        recall=float(values.mean()),
        lower=lower_bound(values),
        upper=1 - lower_bound(1 - values),
        queries=len(values),
        effort=found.effort,
        exact=found.exact,
    )
