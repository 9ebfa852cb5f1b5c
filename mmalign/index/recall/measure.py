"""Measuring what an index promises: recall by effort, on queries that have chosen nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import InputError
from mmalign.index.base import ScansExactly, TellsLayers
from mmalign.index.chunks import Chunks
from mmalign.index.recall.bounds import lower_bound
from mmalign.index.recall.ground_truth import Truth, exact_truth
from mmalign.index.recall.recall_curves import EXACT_ROWS, LEAST_DEPTH, QueryRange, RecallCurve, RecallProfile
from mmalign.utils import Float32Array, Int64Array

Mask = NDArray[np.bool_]
# Of the queries of a kind, so many choose which efforts are looked at; the others measure.
_TUNING_SHARE = 0.25
# Recall that leaves nothing to gain, the gain by two steps that is not worth a third, and recall that nobody asks for.
_SATURATED, _GAIN, _FLOOR = 0.9995, 0.001, 0.75
# Under a filter, so many queries of a kind: a filter takes longer to search past, and has an exact answer beside it.
_FILTERED = 160
# A step of a graph costs about as much as so many vectors that lie in a row: beyond rows / 128 steps an exact search
# costs less, where the index holds the vectors; else these have to be read, which costs eight times as much.
_STEP, _READ = 128, 8
# Lists have to save at least this part of an exact search: measuring the rest takes longer than all below it.
_WORTH = 2
# A filter lets different rows through for so many groups of queries.
_GROUPS = 4
# A query that found all at so many efforts in a row is left alone at larger ones, but for one in so many.
_RESTED, _ASKED_AGAIN = 2, 8
# Ties at the last place are found among so many further rows without a look at the vectors.
_SPARE = 32


@dataclass(frozen=True, slots=True)
class QuerySet:
    """Queries of one kind.

    Attributes:
        vectors: Shape (q, dim), float32, each of length 1: which neighbours a query has does not depend on its length.
        own: The id of the row that each was made from, shape (q,), which then is not looked for; None where they were
            made from no row.
    """

    vectors: Float32Array
    own: Int64Array | None = None


@dataclass(frozen=True, slots=True)
class Measuring:
    """How to measure.

    Attributes:
        ks: Numbers of hits.
        shares: Shares of allowed rows, 1.0 for no filter; None for those at which an index is searched at all.
        start: The least effort to try; None for a sixteenth of the index's default.
        confidence: Of the lower bounds, one-sided.
        seed: Of what is drawn.
        where: Rows of the index that can be found at all, a mask over its positions; None for all.
        vectors: Reads vectors by id, shape (m,) to (m, dim), so that any number of ties is counted as found.
        advance: Called with 1 after each of `steps` steps.
        efforts: What to try, rising, the same for all kinds; None for what suits the index and the kind.
        always: Efforts that are measured however low their recall is.
        unit_length: Whether the vectors are of length 1; else of any length, which their scores and the rounding of
            these grow with.
        record: Given kind, share, number of hits and effort, and the recall of each verifying query, shape (q,).
    """

    ks: tuple[int, ...] = (1, 10, 100)
    shares: tuple[float, ...] | None = None
    start: int | None = None
    confidence: float = 0.95
    seed: int = 0
    where: Mask | None = None
    vectors: Callable[[Int64Array], NDArray[np.floating]] | None = None
    advance: Callable[[int], None] | None = None
    efforts: Sequence[int] | None = None
    always: tuple[int, ...] = ()
    unit_length: bool = True
    record: Callable[[str, float, int, int, NDArray[np.float64]], None] | None = None

    def shares_for(self, rows: int) -> tuple[float, ...]:
        """Return the shares to measure for a number of rows, falling."""
        if self.shares is not None:
            return tuple(sorted(self.shares, reverse=True))
        least = max(0.01, EXACT_ROWS / max(rows, 1))
        return (1.0, *(share for share in (0.1,) if share > least), *((least,) if least < 1 else ()))

    def steps(self, rows: int, kinds: int) -> int:
        """Return how often `advance` will be called."""
        return kinds * len(self.ks) * len(self.shares_for(rows))


class Measurable(Protocol):
    """What has to be known of an index to measure it; `Index` says what each part is."""

    @property
    def ntotal(self) -> int:
        """How many vectors can be found."""
        ...

    @property
    def ids(self) -> Int64Array:
        """The id at each position."""
        ...

    @property
    def exhaustive(self) -> bool:
        """Whether the hits are certain to be the true nearest ones."""
        ...

    @property
    def default_effort(self) -> int | None:
        """The effort of a search that names none."""
        ...

    def max_effort(self, share: float = 1.0) -> int | None:
        """Return the effort beyond which nothing more is found; see `Index.max_effort`."""
        ...

    def search(
        self, vectors: ArrayLike, k: int, *, where: Mask | None = None, effort: int | None = None
    ) -> tuple[Float32Array, Int64Array]:
        """Find the nearest vectors of each query; see `Index.search`."""
        ...


@dataclass(frozen=True, slots=True)
class _Setting:
    """One kind of filter at one share: what each group of queries may find, and the truth."""

    masks: Sequence[Mask | None]
    truth: Truth


def measure_recall_profile(
    index: Measurable, chunks: Chunks, queries: Mapping[str, QuerySet | Float32Array], options: Measuring | None = None
) -> RecallProfile:
    """Measure the recall of an index against exact search, for each kind of query, number of hits and share.

    A quarter of the queries of each kind choose which efforts are worth a look; recall and its bounds come from the
    others. A filter is measured in two forms, and the worse counts: rows at random, and the rows nearest to one of
    them, which most queries lie far from.

    Args:
        index: The index.
        chunks: The vectors that it holds, as for `build_index`; rows that it does not hold are passed over.
        queries: By kind: `QuerySet`, or just vectors of shape (q, dim). Independent of one another: no two about the
            same picture.
        options: How to measure.

    Returns:
        The profile, without curves where the index compares with every vector and so needs none.

    Raises:
        InputError: Fewer than two queries of a kind.
        DimensionError: The widths differ.
    """
    options = options or Measuring()
    if index.exhaustive or not index.ntotal or not queries:
        return RecallProfile(options.confidence, (), unit_length=options.unit_length)
    rng = np.random.default_rng(options.seed)
    asked = {kind: one if isinstance(one, QuerySet) else QuerySet(one) for kind, one in queries.items()}
    for kind, one in asked.items():
        if len(one.vectors) < 2:
            raise InputError(f"recall needs at least 2 {kind} queries, better 200, got {len(one.vectors)}")
    orders = {kind: rng.permutation(len(one.vectors)) for kind, one in asked.items()}
    curves = []
    ranges: dict[str, QueryRange] = {}
    rows = _Rows(index, options.where, unit_length=options.unit_length)
    for share in options.shares_for(index.ntotal):
        settings: dict[str, list[_Setting]] = {kind: [] for kind in asked}
        for masks in rows.filters(share, chunks, rng):
            for kind, truth in _truths(rows, chunks, asked, masks, max(options.ks) + _SPARE).items():
                settings[kind].append(_Setting(masks, truth))
                if share == 1 and truth.scores.shape[1]:
                    ranges[kind] = QueryRange.of(asked[kind].vectors, truth.scores[:, 0])
        many = None if share == 1 or options.efforts else _FILTERED
        measured = {
            kind: _Kind(index, one, orders[kind][:many], settings[kind], options) for kind, one in asked.items()
        }
        for kind, own in measured.items():
            for k in options.ks:
                if k <= index.ntotal:
                    # Efforts that were given are compared across kinds.
                    looked = [own] if options.efforts is None else measured.values()
                    efforts = {effort for each in looked for effort in each.efforts(k, share)}
                    curves.append(own.curve(kind, share, k, sorted({*efforts, *options.always})))
                if options.advance is not None:
                    options.advance(1)
    return RecallProfile(options.confidence, tuple(curves), ranges, unit_length=options.unit_length)


class _Rows:
    """The rows of an index: where each id is, and filters over them."""

    def __init__(self, index: Measurable, where: Mask | None, *, unit_length: bool) -> None:
        self.ids = index.ids
        # Half the memory is enough for cosines, but not for the products of long vectors.
        self._score = np.float16 if unit_length else np.float32
        self.where = where
        self._order = np.argsort(self.ids, kind="stable")
        self._sorted = self.ids[self._order]

    def positions(self, ids: Int64Array) -> tuple[Int64Array, Mask]:
        """Return where ids are, and which of them are there at all."""
        # A row that has changed is there twice, and the later one counts.
        places = np.maximum(np.searchsorted(self._sorted, ids, side="right") - 1, 0)
        found: Mask = self._sorted[places] == ids
        positions: Int64Array = self._order[places]
        if self.where is not None:
            found &= self.where[positions]
        return positions, found

    def filters(self, share: float, chunks: Chunks, rng: np.random.Generator) -> Iterator[list[Mask | None]]:
        """Yield masks for the groups of queries: scattered ones, then clustered ones."""
        if share >= 1:
            yield [self.where]
            return
        yield [self._within(rng.random(len(self.ids)) < share) for _ in range(_GROUPS)]
        centres = rng.choice(self.ids, _GROUPS)
        held = [vectors[np.isin(ids, centres)] for ids, vectors in chunks()]
        centre = np.concatenate(held).astype(np.float32)
        nearness = np.full((len(centre), len(self.ids)), -np.inf, self._score)
        for ids, vectors in chunks():
            positions, found = self.positions(ids)
            nearness[:, positions[found]] = centre @ vectors[found].astype(np.float32).T
        cut = math.floor((1 - share) * len(self.ids))
        yield [self._within(row >= np.partition(row, cut)[cut]) for row in nearness]

    def _within(self, mask: Mask) -> Mask:
        return mask if self.where is None else mask & self.where


def _truths(
    rows: _Rows, chunks: Chunks, asked: Mapping[str, QuerySet], masks: Sequence[Mask | None], depth: int
) -> dict[str, Truth]:
    """Find the truth for the queries of all kinds in one scan."""
    sizes = {kind: len(one.vectors) for kind, one in asked.items()}
    groups = np.concatenate([np.arange(size) % len(masks) for size in sizes.values()])
    own = np.concatenate(
        [np.full(sizes[kind], -1, np.int64) if one.own is None else one.own for kind, one in asked.items()]
    )

    def allowed(ids: Int64Array) -> Mask:
        positions, found = rows.positions(ids)
        if masks[0] is None:
            return found
        chosen: Mask = np.stack([found & mask[positions] for mask in masks if mask is not None])[groups]
        return chosen

    truth = exact_truth(
        np.concatenate([one.vectors for one in asked.values()]), chunks, depth, allowed=allowed, skip=own
    )
    stops = np.cumsum(list(sizes.values()))
    return {
        kind: Truth(truth.scores[stop - sizes[kind] : stop], truth.ids[stop - sizes[kind] : stop])
        for kind, stop in zip(sizes, stops, strict=True)
    }


class _Kind:
    """Queries of one kind with their truth under one share."""

    def __init__(
        self, index: Measurable, asked: QuerySet, order: Int64Array, settings: Sequence[_Setting], options: Measuring
    ) -> None:
        self._index = index
        self._asked = asked
        self._settings = settings
        self._options = options
        # An index of mmalign's is asked for so many at least; whoever names the efforts asks for what is wanted.
        self._least_depth = 1 if options.efforts else LEAST_DEPTH
        # By setting, whether they are the tuning queries, and depth.
        self._answers: dict[tuple[int, bool, int], _Answers] = {}
        self._chosen: dict[tuple[int, float], set[int]] = {}
        tuning = max(1, round(_TUNING_SHARE * len(order)))
        self._tuning, self._verifying = np.sort(order[:tuning]), np.sort(order[tuning:])

    def efforts(self, k: int, share: float) -> set[int]:
        """Choose efforts with the tuning queries."""
        if (k, share) not in self._chosen:
            looks = (self._worth_a_look(setting, k, share) for setting in self._settings)
            self._chosen[k, share] = {effort for look in looks for effort in look}
        return self._chosen[k, share]

    def curve(self, kind: str, share: float, k: int, efforts: Sequence[int]) -> RecallCurve:
        """Measure efforts with the queries that have not chosen them."""
        recall, lower = [], []
        for effort in efforts:
            values = [self._recall(setting, k, effort, tuning=False) for setting in self._settings]
            if self._options.record is not None:
                self._options.record(kind, share, k, effort, min(values, key=np.mean))
            recall.append(min(float(one.mean()) for one in values))
            lower.append(min(lower_bound(one, confidence=self._options.confidence) for one in values))
        # Rounded down: what is written must not promise more than was measured.
        return RecallCurve(kind, share, k, tuple(efforts), _floor(recall), _floor(lower), len(self._verifying))

    def _worth_a_look(self, setting: _Setting, k: int, share: float) -> list[int]:
        tried: list[int] = []
        means: list[float] = []
        given = self._options.efforts
        depth = max(k, self._least_depth)
        for effort in given or efforts_to_try(self._index, depth, start=self._options.start, share=share):
            tried.append(effort)
            means.append(float(self._recall(setting, k, effort, tuning=True).mean()))
            # Below the default, an index that comes back short looks again by itself, so that recall need not rise.
            deep = effort > (self._index.default_effort or 1)
            flat = deep and len(means) > 3 and _FLOOR < means[-1] < means[-4] + _GAIN
            # A few queries more or less decide where recall is full: two efforts beyond are measured as well.
            if flat or (len(means) > 2 and min(means[-3:]) >= _SATURATED):
                break
        return [effort for effort, mean in zip(tried, means, strict=True) if mean >= _FLOOR] or tried[-1:]

    def _recall(self, setting: _Setting, k: int, effort: int, *, tuning: bool) -> NDArray[np.float64]:
        chosen = self._tuning if tuning else self._verifying
        depth = max(k, min(self._least_depth, self._index.ntotal))
        key = (id(setting), tuning, depth)
        if key not in self._answers:
            self._answers[key] = _Answers(self._index, self._asked, setting, chosen, depth, self._options)
        return self._answers[key].recall(effort, k)


class _Answers:
    """What an index answers to some queries under one filter, as efforts rise.

    A query all of whose neighbours were found at two efforts in a row is not asked again at larger ones, where a graph,
    or lists of the vectors themselves, find them, too: the few that need large efforts are what takes long. One in
    eight is asked nevertheless, and where one of these finds less, all are asked at that effort.
    """

    def __init__(
        self,
        index: Measurable,
        asked: QuerySet,
        setting: _Setting,
        chosen: Int64Array,
        depth: int,
        options: Measuring,
    ) -> None:
        self._index, self._asked, self._setting, self._chosen, self._depth = index, asked, setting, chosen, depth
        self._vectors, self._unit_length = options.vectors, options.unit_length
        self._truth = Truth(setting.truth.scores[chosen], setting.truth.ids[chosen])
        self._found = np.full((len(chosen), depth), -1, np.int64)
        # At how many efforts in a row, up to the last one, all was found.
        self._full = np.zeros(len(chosen), np.int64)
        self._always = np.arange(len(chosen)) % _ASKED_AGAIN == 0
        # Below the default, an index that comes back short looks again by itself, so that more effort may find less;
        # so it may, too, where candidates are taken by their codes.
        keeps = isinstance(index, TellsLayers) and not index.layers.refines and index.layers.exact_scores
        self._rising_from = (index.default_effort or 1) if keeps else math.inf
        self._last = 0
        # By effort; fewer hits are the first of more.
        self._known: dict[int, Int64Array] = {}

    def recall(self, effort: int, k: int) -> NDArray[np.float64]:
        """The recall of each query among the first k hits, shape (q,)."""
        if effort not in self._known:
            self._known[effort] = self._ask(effort)
        return self._share(self._known[effort], k)

    def _ask(self, effort: int) -> Int64Array:
        if effort <= self._last:
            return self._search(np.arange(len(self._chosen)), effort)
        self._last = effort
        rested = self._full >= _RESTED
        rows = np.flatnonzero(~rested | self._always)
        found = self._found.copy()
        found[rows] = self._search(rows, effort)
        full = self._share(found, self._depth) >= 1
        if not full[rested].all():
            self._full[:] = 0
            found = self._search(np.arange(len(self._chosen)), effort)
            full = self._share(found, self._depth) >= 1
        self._full = np.where(full & (effort >= self._rising_from), self._full + 1, 0)
        self._found = found
        return found

    def _share(self, found: Int64Array, k: int) -> NDArray[np.float64]:
        read, queries = self._vectors, self._asked.vectors
        if read is None:
            return self._truth.recall(found, k, unit_length=self._unit_length)
        return self._truth.recall(
            found,
            k,
            lookup=lambda query, ids: read(ids).astype(np.float32) @ queries[self._chosen[query]],
            unit_length=self._unit_length,
        )

    def _search(self, rows: Int64Array, effort: int) -> Int64Array:
        """Search for some of the queries, given by their places."""
        own, masks, k = self._asked.own, self._setting.masks, self._depth
        found = np.full((len(rows), k), -1, np.int64)
        for group, mask in enumerate(masks):
            members = np.flatnonzero(self._chosen[rows] % len(masks) == group)
            if not members.size:
                continue
            queries = self._chosen[rows[members]]
            extra = 0 if own is None else 1
            ids = self._index.search(self._asked.vectors[queries], k + extra, where=mask, effort=effort)[1]
            if own is not None:
                # The row that a query was made from goes to the end, and what is at the end is cut off.
                late = np.argsort(ids == own[queries, None], axis=1, kind="stable")
                ids = np.take_along_axis(ids, late, axis=1)[:, :k]
            found[members, : ids.shape[1]] = ids
        return found


def efforts_to_try(index: Measurable, k: int, *, start: int | None = None, share: float = 1.0) -> list[int]:
    """Return efforts worth trying, rising in steps of about the square root of 2.

    Args:
        index: The index.
        k: How many hits; a graph has to hold as many candidates.
        start: The least; None for a sixteenth of the index's default.
        share: Share of the rows that a filter allows.

    Returns:
        The efforts, up to what saves too little beside an exact search, the default among them; [1] where effort
        means nothing.
    """
    default = index.default_effort
    if default is None:
        return [1]
    rows, most, least = len(index.ids), index.max_effort(share), 1
    if most is None:
        most = 32 * default
    elif index.max_effort() == rows:
        # A graph.
        scans = isinstance(index, ScansExactly) and index.scans
        most, least = max(1, most * (1 if scans else _READ) // _STEP), min(k, rows)
    else:
        most = max(1, most // _WORTH)
    default = max(default, least)
    most = max(most, default)
    effort = float(max(least, min(start or max(1, default // 16), default)))
    efforts = {default, most}
    while effort < most:
        efforts.add(round(effort))
        effort *= math.sqrt(2)
    return sorted(efforts)


def _floor(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(math.floor(value * 1e6) / 1e6 for value in values)
