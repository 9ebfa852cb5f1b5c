"""What searches find of the queries that are really asked, and measuring an index with these.

The queries that stand for those that will be asked may be unlike those that are. Where some of these are kept
(`mmalign.collection.query_log`), they are compared with the exact answer, and the next index is measured with them.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.collection.eval_queries import EvalQueries
from mmalign.collection.indexing import SampleQueries
from mmalign.collection.query_log import LoggedQueries
from mmalign.collection.recall import profile_of
from mmalign.index import QuerySet, exact_truth, lower_bound
from mmalign.search import Searcher
from mmalign.store import Store
from mmalign.types import Note, gives_json
from mmalign.utils import Float32Array, l2_normalize

ENOUGH = 100
"""From so many logged queries of a kind on, an index is measured with these alone. Three quarters of them measure, and
75 prove a recall of 0.95 where hardly any of ten neighbours is missed."""
# As many as of those that stand for what is asked: more would take longer to measure with than they are worth.
_MOST = 440
# Ties at the last place are found among so many further rows without a look at the vectors.
_SPARE = 32
# Beyond so many hits nothing is measured, and a search is exact.
_DEEPEST = 100


@dataclass(frozen=True, slots=True)
class LiveCheck:
    """What searches of today find of logged queries of one kind.

    Attributes:
        kind: Of the queries; where their form leaves it open, the first that they may be of.
        k: How many hits were asked for, of the query that asked for most; 100 at most.
        min_recall: The promise: what the searches named, else what the index was built to keep; None for neither.
        recall: Mean recall.
        lower: Lower bound of the mean, at 95% confidence, one-sided.
        upper: Upper bound of the mean, likewise.
        queries: How many queries were compared.
        exact: How many of them were answered exactly.
        effort: The most that the index was asked for; None where it was not used.
        view: What was searched: `image`, or `captions`.
    """

    kind: str
    k: int
    min_recall: float | None
    recall: float
    lower: float
    upper: float
    queries: int
    exact: int
    effort: int | None
    view: str = "image"

    @property
    def ok(self) -> bool:
        """Whether the promise stands: False where it is refuted with 95% confidence."""
        return self.min_recall is None or self.upper >= self.min_recall

    def __str__(self) -> str:
        """Tell the figures in a sentence."""
        how = f"{self.exact} of them answered exactly" if self.exact else f"effort {self.effort}"
        how = "answered exactly" if self.exact == self.queries else how
        promise = "nothing promised" if self.min_recall is None else f"promised {self.min_recall:g}"
        among = "" if self.view == "image" else f" among the {self.view}"
        return (
            f"recall@{self.k} of {self.queries} {self.kind} queries that were really asked{among} is {self.recall:.3f} "
            f"({self.lower:.3f} to {self.upper:.3f}), {promise}, {how}"
        )

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return asdict(self) | {"ok": self.ok}


@dataclass(frozen=True, slots=True)
class LiveRecall:
    """What searches of today find of a sample of the queries that were really asked.

    Attributes:
        checks: The figures by kind; none where none were kept, or no index is in use that could miss anything.
        notes: A remark with its remedy for each kind for which the index does not keep its promise.
        logged: How many queries are kept.
        seen: Of how many queries they are a uniform sample.
    """

    checks: tuple[LiveCheck, ...]
    notes: tuple[Note, ...]
    logged: int
    seen: int

    @property
    def ok(self) -> bool:
        """Whether each promise stands."""
        return all(check.ok for check in self.checks)

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON-ready values."""
        return {
            "checks": [check.to_dict() for check in self.checks],
            "notes": [str(note) for note in self.notes],
            "logged": self.logged,
            "seen": self.seen,
            "ok": self.ok,
        }


def check_logged(searcher: Searcher, logged: LoggedQueries, *, view: str) -> list[LiveCheck]:
    """Search as a search of today would, and compare with the exact answer over all rows.

    A query with a filter is asked without: what the filter said is not kept.

    Args:
        searcher: The rows with the index in use.
        logged: Queries that were compared with the view.
        view: What the rows are a view of.

    Returns:
        The figures by kind and promise; none where there is no index, or one that compares with every vector.
    """
    if searcher.index is None or searcher.index.exhaustive or not searcher.items or not len(logged):
        return []
    profile = profile_of(searcher.manifest)
    built = None if profile is None else profile.min_recall
    groups: dict[tuple[str, float | None], list[int]] = {}
    for place, kinds in enumerate(logged.kinds):
        asked = float(logged.min_recall[place])
        groups.setdefault((kinds[0], None if math.isnan(asked) else asked), []).append(place)
    checks = []
    with searcher.store.reads_long():
        for (kind, named), places in sorted(groups.items(), key=lambda one: (one[0][0], one[0][1] or -1.0)):
            part = logged.part(np.array(places, np.int64))
            values, exact, efforts = _compare(searcher, part, named)
            checks.append(
                LiveCheck(
                    kind=kind,
                    k=int(_depths(part, searcher).max()),
                    min_recall=built if named is None else named,
                    recall=float(values.mean()),
                    lower=lower_bound(values),
                    upper=1 - lower_bound(1 - values),
                    queries=len(values),
                    exact=exact,
                    effort=max(efforts, default=None),
                    view=view,
                )
            )
    return checks


def _depths(logged: LoggedQueries, searcher: Searcher) -> NDArray[np.int64]:
    return np.minimum(logged.k, min(_DEEPEST, searcher.items))


def _compare(
    searcher: Searcher, logged: LoggedQueries, min_recall: float | None
) -> tuple[NDArray[np.float64], int, list[int]]:
    """The recall of each query, how many were answered exactly, and the efforts of the others."""
    store, depths = searcher.store, _depths(logged, searcher)
    # Their length, which may be any where vectors are compared by inner products, changes no neighbour.
    queries = l2_normalize(logged.vectors)
    truth = exact_truth(queries, store.iter_embeddings, int(depths.max()) + _SPARE)
    values = np.ones(len(logged))
    exact, efforts = 0, []
    for k in np.unique(depths).tolist():
        places = np.flatnonzero(depths == k)
        vectors = queries[places]
        # All have the first kind in common, and with it the others.
        found = searcher.search(vectors, k, min_recall=min_recall, kinds=logged.kinds[places[0]])
        values[places] = replace(truth, scores=truth.scores[places], ids=truth.ids[places]).recall(
            found.row_ids, k, lookup=_lookup(store, vectors), unit_length=searcher.unit_length
        )
        for how in found.how_each():
            exact += how.exact
            efforts += [] if how.exact or how.effort is None else [how.effort]
    return values, exact, efforts


def _lookup(store: Store, vectors: Float32Array) -> Callable[[int, NDArray[np.int64]], NDArray[np.floating]]:
    return lambda query, ids: store.embeddings(ids)[1].astype(np.float32) @ vectors[query]


def live_notes(checks: list[LiveCheck], logged: LoggedQueries, *, path: Path) -> list[Note]:
    """Say which promises the index does not keep, and what to do.

    Args:
        checks: What was found.
        logged: All queries that are kept.
        path: The collection.

    Returns:
        A remark for each promise that is refuted.
    """
    notes = []
    for check in checks:
        if check.ok:
            continue
        kept = sum(
            kinds[0] == check.kind and view == check.view
            for kinds, view in zip(logged.kinds, logged.views, strict=True)
        )
        remedy = (
            f"mmalign index --rebuild --collection {shlex.quote(str(path))} measures a new index with these queries"
        )
        if kept < ENOUGH:
            remedy = (
                f"once {ENOUGH} such queries are kept (now {kept}), {remedy}; until then ask for a higher min_recall"
            )
        notes.append(Note(f"the index does not keep its promise: {check}", remedy=remedy, about="recall"))
    return notes


@dataclass(frozen=True, slots=True)
class MeasuredWithLogged:
    """Gathers queries to measure an index with: of each kind those that were really asked, where they are enough.

    Attributes:
        queries: Gathers those that stand for what will be asked.
        logged: Gives those that were really asked.
        view: What the index is over.
    """

    queries: SampleQueries
    logged: Callable[[], LoggedQueries]
    view: str

    def __call__(
        self,
        store: Store,
        given: Float32Array | None = None,
        *,
        sample: int = 0,
        seed: int = 0,
        progress: bool = True,
    ) -> EvalQueries:
        """Gather them; what the caller gives of his own stays as it is."""
        held = self.queries(store, given, sample=sample, seed=seed, progress=progress)
        logged = self.logged().of(self.view)
        kinds = np.array([kinds[0] for kinds in logged.kinds], np.str_)
        asked, counts = dict(held.asked), {}
        for kind in np.unique(kinds).tolist():
            # In random order already.
            places = np.flatnonzero(kinds == kind)[:_MOST]
            if len(places) >= ENOUGH and not (kind == "given" and given is not None):
                asked[kind] = QuerySet(l2_normalize(logged.vectors[places]))
                counts[kind] = len(places)
        return replace(held, asked=asked, logged=counts)
