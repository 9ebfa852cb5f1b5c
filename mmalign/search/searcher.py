"""One version of the items and one version of the index, searched together so that every committed item is seen.

The index covers the items as they were at some version. What was written since is searched exactly beside it, and what
was deleted or replaced since is masked in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import IndexFileError, MissingExtraError
from mmalign.index import (
    Index,
    IndexManifest,
    RecallProfile,
    ScansExactly,
    SearchesOnDevice,
    SearchesPositions,
    lifecycle,
)
from mmalign.search.coverage import Coverage, belongs
from mmalign.search.flat_scan import ExactRows
from mmalign.search.masks import Masks
from mmalign.search.plan import Plan, SearchRequest, capabilities_of, plan_search
from mmalign.store import Copies, Store
from mmalign.types import Note, check_share
from mmalign.utils import Float32Array, Int64Array, as_cosines, merge_top_k

_FOREIGN = Note(
    "searched exactly, without the index: it was built from other items than these, as happens where a part of a "
    "collection was restored from an older copy",
    remedy="mmalign index SOURCE builds it again",
    about="index",
)
# Plans that are kept: a query takes microseconds less to answer where another one like it came before.
_PLANS = 1024
# Where copies crowd the first hits, the next search looks this many times as deep.
_FETCH_GROWTH = 4
_OUTSIDE = "compared with every item, since it is unlike all queries that the index was measured with"
_NOBODY: Int64Array = np.zeros(0, np.int64)
_Hits = tuple[Float32Array, Int64Array]
_Mask = NDArray[np.bool_]
Kinds = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class How:
    """How a query was answered.

    Attributes:
        exact: Whether its hits are certain to be the true nearest.
        effort: Effort that the index was asked for; None where it was not used.
        reason: Why so, in words.
        notes: Remarks that a person should see: that the index could not keep what was asked for.
    """

    exact: bool
    effort: int | None
    reason: str = ""
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundRows:
    """What a search found.

    Attributes:
        scores: Shape (q, k'), float32, best first.
        row_ids: Shape (q, k'), int64; -1 marks an empty place.
        how: How each of the q queries was answered, or all of them where it is one.
    """

    scores: Float32Array
    row_ids: Int64Array
    how: tuple[How, ...]

    @property
    def exact(self) -> bool:
        """Whether the hits of all are certain to be the true nearest."""
        return all(one.exact for one in self.how)

    @property
    def effort(self) -> int | None:
        """The largest effort that the index was asked for; None where it was not used."""
        return max((one.effort for one in self.how if one.effort is not None), default=None)

    @property
    def reason(self) -> str:
        """Why they were answered so, in words."""
        return "; ".join(dict.fromkeys(one.reason for one in self.how))

    @property
    def notes(self) -> tuple[Note, ...]:
        """Remarks on any of them, each once."""
        return tuple(dict.fromkeys(note for one in self.how for note in one.notes))

    def how_each(self) -> tuple[How, ...]:
        """How each query was answered, q of them."""
        return self.how if len(self.how) == len(self.scores) else self.how * len(self.scores)


class Searcher:
    """Searches one version of the items with one version of the index.

    Args:
        store: The items.
        index: The index, or None.
        manifest: The index's manifest, or None.
        version: Name of the index version in use, also where it could not be loaded.
        notes: Remarks for the person who searches.
        known: What the same index covers of an earlier version, so that only what has changed is looked at.
        unit_length: Whether the vectors are of length 1, so that scores are cosines; else they are inner products of
            vectors of any length.

    Attributes:
        items: How many items there are.
        unit_length: As given.
        foreign: Whether there is an index that was left out because it was built from other items.
    """

    foreign = False

    def __init__(
        self,
        store: Store,
        index: Index | None,
        manifest: IndexManifest | None,
        *,
        version: str | None = None,
        notes: tuple[Note, ...] = (),
        known: Coverage | None = None,
        unit_length: bool = True,
    ) -> None:
        self.store = store
        self.unit_length = unit_length
        self.index = index
        # To ask each time takes longer than some searches.
        self._moved = index if isinstance(index, SearchesOnDevice) else None
        self._whole = index if isinstance(index, SearchesPositions) else None
        self.manifest = manifest
        self.version = version
        self.notes = notes
        self.items = len(store)
        self._coverage: Coverage | None = None
        # What is not to be found in the index, or None where that holds exactly what it should.
        self._mask: _Mask | None = None
        if index is None or manifest is None:
            self._unindexed = store.row_ids()
        else:
            since = manifest.dataset_version
            covered = Coverage.look(store, index, since=since) if known is None else known.follow(store, index)
            self._coverage, self._unindexed, self._mask = covered, covered.unindexed, covered.mask
        self._rows = ExactRows(store, self._unindexed)
        self._masks = Masks()
        # By the fields of the request: its own hash and comparison make the same tuples in Python.
        self._plans: dict[tuple[int, int | None, float | None, Kinds | None], Plan] = {}

    @classmethod
    def open(cls, store: Store, root: Path, *, previous: Searcher | None = None, unit_length: bool = True) -> Searcher:
        """Combine a version of the items with the index in use.

        Args:
            store: The items.
            root: The collection's index folder.
            previous: A searcher whose index is kept where it is still the one in use.
            unit_length: As for the class.

        Returns:
            The searcher; without an index where there is none or it cannot be used, which `notes` then says.
        """
        folder = lifecycle.current(root)
        version = None if folder is None else folder.name
        made = partial(cls, store, version=version, unit_length=unit_length)
        if previous is not None and previous.version == version and (previous.foreign or previous.fits(store)):
            known = previous._coverage
            return made(previous.index, previous.manifest, notes=previous.notes, known=known)
        try:
            loaded = lifecycle.load_current(root)
        except (IndexFileError, MissingExtraError) as error:
            note = Note(f"searched exactly, without the index: {error}", about="index")
            return made(None, None, notes=(note,))
        if loaded is None:
            return made(None, None)
        searcher = made(*loaded) if belongs(store, loaded[1]) else None
        if searcher is None:
            searcher = made(None, None, notes=(_FOREIGN,))
            searcher.foreign = True
        return searcher

    def fits(self, store: Store) -> bool:
        """Whether the index, where there is one, was built from these items as they were.

        Args:
            store: The items.
        """
        return self.manifest is None or belongs(store, self.manifest)

    @property
    def uncovered(self) -> int:
        """How many items the index does not cover, plus how many it holds in vain."""
        return len(self._unindexed) if self._coverage is None else self._coverage.uncovered

    @property
    def unindexed(self) -> Int64Array:
        """Row ids of the items that the index does not cover, shape (m,); all where there is no index."""
        return self._unindexed

    @property
    def mask(self) -> NDArray[np.bool_] | None:
        """Which positions of the index hold items as they are now, or None for all of them."""
        return self._mask

    @cached_property
    def recall_profile(self) -> RecallProfile | None:
        """What recall was measured of the index; None where none was, or what is written of it cannot be read."""
        try:
            return None if self.manifest is None else RecallProfile.from_dict(self.manifest.contract)
        except IndexFileError:
            return None

    def search(
        self,
        queries: Float32Array,
        k: int,
        *,
        allowed: Int64Array | None = None,
        min_recall: float | None = None,
        kinds: Kinds | Sequence[Kinds] | None = None,
    ) -> FoundRows:
        """Find the items nearest to each query.

        Args:
            queries: Shape (q, dim), float32, rows of length 1 where the vectors are.
            k: How many hits, at least 0.
            allowed: Row ids that may be found, each once; None for all.
            min_recall: The mean recall that such searches must have, 0 to 1; None for what the index was built to
                keep. What the index does not promise is answered exactly.
            kinds: The kinds that all queries, or each of them, may be of; see `Query.kinds`. None for any.

        Returns:
            What was found. A query unlike all that the index was measured with is answered exactly, and a note says
            so.

        Raises:
            InputError: `min_recall` is not from 0 to 1.
        """
        if min_recall is not None:
            check_share("min_recall", min_recall)
        index = self.index
        if index is None or k == 0:
            found = self._rows.search_unindexed(queries, k, allowed=allowed)
            return FoundRows(self._told(found[0]), found[1], (How(True, None, "compared with every item"),))
        # The index's positions that may be found.
        mask = self._mask if allowed is None else self._allowed(allowed)
        parts = []
        for one, places in _groups(kinds, len(queries)):
            # How many these are, where a filter says it.
            rows = None if allowed is None or mask is None else int(np.count_nonzero(mask))
            wish = SearchRequest(k, rows, min_recall, one)
            some = queries if places is None else queries[places]
            parts.append((places, self._search_alike(index, wish, some, mask, allowed)))
        return parts[0][1] if len(parts) == 1 else _together(parts, len(queries))

    def _search_alike(
        self, index: Index, wish: SearchRequest, queries: Float32Array, mask: _Mask | None, allowed: Int64Array | None
    ) -> FoundRows:
        """Search for queries of the same kinds."""
        k, plan = wish.k, self._plan(wish, index)
        notes: tuple[Note, ...] = ()
        if plan.fell_back:
            notes = (Note(plan.reason, remedy=plan.remedy, about="index"),)
        if plan.strategy == "exact":
            scores, row_ids = self._exact(queries, k, mask, allowed)
            return FoundRows(self._told(scores), row_ids, (How(True, None, plan.reason, notes),))
        refusals: list[str] = []
        scores, row_ids = self._by_index(wish, plan, queries, mask, allowed, refusals)
        if refusals:
            notes += tuple(Note(f"searched on the processor: {why}", about="index") for why in dict.fromkeys(refusals))
        outside = self._outside(wish, index, queries, scores)
        if len(self._unindexed):
            scores, row_ids = merge_top_k(
                (scores, row_ids), self._rows.search_unindexed(queries, k, allowed=allowed), k
            )
        how: tuple[How, ...] = (How(index.exhaustive, plan.effort or index.default_effort, plan.reason, notes),)
        if len(outside):
            exact = self._exact(queries[outside], k, mask, allowed)
            width = max(scores.shape[1], exact[0].shape[1])
            scores, row_ids = _widen(scores, row_ids, width)
            scores[outside], row_ids[outside] = _widen(*exact, width)
            unlike = How(True, None, _OUTSIDE, (Note(_OUTSIDE, about="index"),))
            strange = set(outside.tolist())
            how = tuple(unlike if place in strange else how[0] for place in range(len(queries)))
        return FoundRows(self._told(scores), row_ids, how)

    def _told(self, scores: Float32Array) -> Float32Array:
        """Scores as they are told: cosines without what rounding adds to them, inner products as they are."""
        return as_cosines(scores) if self.unit_length else scores

    def _outside(self, wish: SearchRequest, index: Index, queries: Float32Array, scores: Float32Array) -> Int64Array:
        """The places of the queries that lie outside all that recall was measured for, where one is promised."""
        contract = self.recall_profile
        if contract is None or index.exhaustive or not contract.ranges or not scores.shape[1]:
            return _NOBODY
        if wish.min_recall == 0 or (wish.min_recall is None and contract.min_recall is None):
            return _NOBODY
        kinds = wish.kinds if wish.kinds and set(wish.kinds) & set(contract.ranges) else None
        # What a filter lets through may all be far away.
        best = scores[:, 0] if wish.allowed is None else np.full(len(scores), np.inf, np.float32)
        if not self.unit_length:
            # It was measured with queries of length 1, and a query's neighbours do not depend on its length.
            lengths = np.linalg.norm(queries, axis=1)
            queries, best = queries / lengths[:, None], best / lengths
        return np.flatnonzero(contract.outside(queries, best, kinds))

    @cached_property
    def copies(self) -> Copies:
        """The items whose bytes another item has too; looked for once for each version of the items."""
        return Copies.read(self.store)

    def search_distinct(
        self,
        queries: Float32Array,
        k: int,
        copies: Copies,
        *,
        allowed: Int64Array | None = None,
        min_recall: float | None = None,
        kinds: Kinds | Sequence[Kinds] | None = None,
    ) -> FoundRows:
        """Find the items nearest to each query, of several with the same bytes the oldest.

        Args:
            queries: As for `search`.
            k: How many hits, copies not counted.
            copies: The copies among the items that may be found.
            allowed: As for `search`.
            min_recall: As for `search`.
            kinds: As for `search`.

        Returns:
            What was found: at most k different items a query, fewer where there are fewer.

        Raises:
            InputError: `min_recall` is not from 0 to 1.
        """
        wanted = min(k, copies.items - copies.extra)
        fetch = wanted + min(copies.extra, wanted)
        while True:
            found = self.search(queries, fetch, allowed=allowed, min_recall=min_recall, kinds=kinds)
            scores, row_ids = copies.fold(found.scores, found.row_ids)
            # Whoever finds fewer than were asked for has no more to find.
            short = ((row_ids >= 0).sum(axis=1) < wanted) & (found.row_ids >= 0).all(axis=1)
            if fetch >= wanted + copies.extra or not short.any():
                return replace(found, scores=scores[:, :k], row_ids=row_ids[:, :k])
            fetch = min(_FETCH_GROWTH * fetch, wanted + copies.extra)

    def _plan(self, request: SearchRequest, index: Index) -> Plan:
        asked = request.k, request.allowed, request.min_recall, request.kinds
        plan = self._plans.get(asked)
        if plan is None:
            if len(self._plans) >= _PLANS:
                self._plans.clear()
            plan = self._plans[asked] = plan_search(request, capabilities_of(index), self.recall_profile)
        return plan

    def _allowed(self, allowed: Int64Array) -> _Mask:
        """Which positions of the index a filter lets through."""
        return self._masks.of(allowed, self._mask_of)

    def _mask_of(self, allowed: Int64Array) -> _Mask:
        mask = np.zeros(0 if self.index is None else len(self.index.ids), np.bool_)
        if self._coverage is not None:
            mask[self._coverage.positions.of(allowed)] = True
        return mask if self._mask is None else mask & self._mask

    def _exact(self, queries: Float32Array, k: int, mask: _Mask | None, allowed: Int64Array | None) -> _Hits:
        """Compare with every item that may be found: in vectors that the index holds, else in those of the store."""
        if not isinstance(self.index, ScansExactly) or not self.index.scans:
            return self._rows.search(queries, k, self.store.row_ids() if allowed is None else allowed)
        found: _Hits = self.index.scan(queries, k, where=mask)
        if not len(self._unindexed):
            return found
        return merge_top_k(found, self._rows.search_unindexed(queries, k, allowed=allowed), k)

    def _by_index(
        self,
        wish: SearchRequest,
        plan: Plan,
        queries: Float32Array,
        mask: _Mask | None,
        allowed: Int64Array | None,
        refusals: list[str],
    ) -> _Hits:
        index, k = self.index, wish.k
        assert index is not None
        if plan.strategy == "overfetch" and mask is not None:
            return self._overfetch(plan, queries, k, mask, allowed, refusals)
        if mask is None or allowed is not None or index.exhaustive or self._as_it_stands is None:
            return self._with_mask(plan, queries, k, mask, refusals)
        # Removed rows are a filter only for the queries that they are near to, and for these they may be all there is.
        scores, positions = self._as_it_stands.search_positions(queries, plan.fetch_k, effort=plan.effort)
        scores, positions = scores[:, :k], positions[:, :k]
        near = np.flatnonzero(~(mask[positions] & (positions >= 0)).all(axis=1))
        row_ids = np.where(positions >= 0, index.ids[positions], -1)
        # Found below, and removed rows cannot be read.
        row_ids[near] = -1
        if not index.exact_scores:
            scores, row_ids = self._rescore(queries, scores, row_ids)
        if len(near):
            again = self._plan(replace(wish, allowed=int(np.count_nonzero(mask))), index)
            some = queries[near]
            if again.strategy == "overfetch":
                found = self._overfetch(again, some, k, mask, None, refusals)
            elif again.strategy == "exact":
                found = self._exact(some, k, mask, None)
            else:
                found = self._with_mask(again, some, k, mask, refusals)
            width = max(scores.shape[1], found[0].shape[1])
            scores, row_ids = _widen(scores, row_ids, width)
            scores[near], row_ids[near] = _widen(*found, width)
        return scores, row_ids

    def _with_mask(self, plan: Plan, queries: Float32Array, k: int, mask: _Mask | None, refusals: list[str]) -> _Hits:
        index = self.index
        assert index is not None
        scores, row_ids = self._ask(queries, max(k, plan.fetch_k), mask, plan.effort, refusals)
        if not index.exact_scores:
            scores, row_ids = self._rescore(queries, scores, row_ids)
        return scores[:, :k], row_ids[:, :k]

    def _ask(self, queries: Float32Array, k: int, mask: _Mask | None, effort: int | None, refusals: list[str]) -> _Hits:
        """Search the index; why it was not on the device that was asked for goes into `refusals`."""
        index = self.index
        assert index is not None
        if self._moved is None or self._moved.device == "cpu":
            return index.search(queries, k, where=mask, effort=effort)
        scores, row_ids, refusal = self._moved.search_on_device(queries, k, where=mask, effort=effort)
        if refusal:
            refusals.append(refusal)
        return scores, row_ids

    @property
    def _as_it_stands(self) -> SearchesPositions | None:
        """The index, where it can be searched with its removed rows; a device skips these by itself."""
        moved = self._moved is not None and self._moved.device != "cpu"
        return None if moved else self._whole

    def _overfetch(
        self,
        plan: Plan,
        queries: Float32Array,
        k: int,
        mask: _Mask,
        allowed: Int64Array | None,
        refusals: list[str],
    ) -> _Hits:
        """Search without the filter and keep what is allowed; what comes back short is compared with all that is."""
        index = self.index
        assert index is not None
        whole = self._as_it_stands
        if whole is not None:
            scores, positions = whole.search_positions(queries, plan.fetch_k, effort=plan.effort)
            kept = (positions >= 0) & mask[positions]
            row_ids = np.where(kept, index.ids[positions], -1)
        else:
            scores, row_ids = self._ask(queries, plan.fetch_k, self._mask, plan.effort, refusals)
            kept = (row_ids >= 0) & (True if allowed is None else np.isin(row_ids, allowed))
        order = np.argsort(~kept, axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(kept, order, axis=1)
        scores = np.where(kept, np.take_along_axis(scores, order, axis=1), np.float32(-np.inf))
        row_ids = np.where(kept, np.take_along_axis(row_ids, order, axis=1), -1)
        if not index.exact_scores:
            scores, row_ids = self._rescore(queries, scores, row_ids)
        short = np.flatnonzero(~kept.all(axis=1)) if kept.shape[1] == k else np.arange(len(queries))
        if short.size:
            exact = self._exact(queries[short], k, mask, allowed)
            width = max(scores.shape[1], exact[0].shape[1])
            scores, row_ids = _widen(scores, row_ids, width)
            scores[short], row_ids[short] = _widen(*exact, width)
        return scores, row_ids

    def _rescore(self, queries: Float32Array, scores: Float32Array, row_ids: Int64Array) -> _Hits:
        """Replace the scores of an index that does not tell true ones by those of the vectors themselves."""
        scores = scores.copy()
        hits = row_ids >= 0
        if hits.any():
            rows, places = np.unique(row_ids[hits], return_inverse=True)
            vectors = self.store.embeddings(rows)[1].astype(np.float32)
            owner = np.nonzero(hits)[0]
            scores[hits] = np.einsum("nd,nd->n", vectors[places], queries[owner])
        return merge_top_k((scores, row_ids), (scores[:, :0], row_ids[:, :0]), scores.shape[1])


def _groups(kinds: Kinds | Sequence[Kinds] | None, queries: int) -> list[tuple[Kinds | None, Int64Array | None]]:
    """The places of the queries that are of the same kinds; None for all of them."""
    if not kinds or isinstance(kinds[0], str):
        return [(tuple(map(str, kinds)) if kinds else None, None)]
    if kinds.count(kinds[0]) == len(kinds):
        return [(tuple(kinds[0]), None)]
    found: dict[Kinds, list[int]] = {}
    for place, one in enumerate(kinds):
        found.setdefault(tuple(one), []).append(place)
    return [(one, np.array(places, np.int64)) for one, places in found.items()]


def _together(parts: Sequence[tuple[Int64Array | None, FoundRows]], queries: int) -> FoundRows:
    """What was found for groups of the queries, in the order of the queries."""
    width = max(found.scores.shape[1] for _, found in parts)
    scores, row_ids = np.full((queries, width), -np.inf, np.float32), np.full((queries, width), -1, np.int64)
    how: list[How | None] = [None] * queries
    for places, found in parts:
        scores[places], row_ids[places] = _widen(found.scores, found.row_ids, width)
        for place, one in zip([] if places is None else places.tolist(), found.how_each(), strict=True):
            how[place] = one
    return FoundRows(scores, row_ids, tuple(one for one in how if one is not None))


def _widen(scores: Float32Array, row_ids: Int64Array, width: int) -> _Hits:
    """Fill up with empty places."""
    missing = ((0, 0), (0, width - scores.shape[1]))
    return np.pad(scores, missing, constant_values=-np.inf), np.pad(row_ids, missing, constant_values=-1)
