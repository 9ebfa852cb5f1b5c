"""How a search is best answered: by the index at some effort, or by comparing with every row that may be found.

Three things decide. What the index promises: recall was measured by effort, unfiltered and under filters. What a filter
leaves: to compare with a few rows costs less than to look past all the others. And how the filter lies to the query,
which nobody knows beforehand: where most neighbours of a query are not allowed, a graph or a list leads nowhere. So a
filter that lets much through is answered by looking deeper without it: whoever finds enough allowed rows at a depth
that was measured has the recall that was measured there, and whoever does not is compared with every allowed row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from mmalign.index import EXACT_ROWS, LEAST_DEPTH, Index, RecallProfile, ScansExactly, TellsLayers

Strategy: TypeAlias = Literal["index", "overfetch", "prefilter", "exact"]
"""`index`: no filter. `overfetch`: more hits than wanted, unfiltered, of which the allowed are kept. `prefilter`: the
index skips what is not allowed. `exact`: every allowed row is compared with."""

# A search looks this many times as deep as it takes to find k allowed rows where a filter is spread evenly.
_OVERFETCH = 2.0
# What things cost, in vectors compared with one after the other by FAISS's scan of float16: a step of a graph, with its
# neighbours in scattered places; a vector in a list, and one of 4-bit codes; a candidate compared again; a vector that
# is copied to be scanned, or made float32 to be multiplied. Rough figures from timings of 60,000 vectors of dim 64 to
# 384 on one busy core; `python -m benchmarks.index_contract --timing` tells whether the choices that follow are right.
_STEP, _LISTED, _CODED, _RERANKED, _COPIED, _READ = 160.0, 2.6, 0.4, 20.0, 5.0, 10.0
# A selector tests every row, and a processor guesses wrong most often where half are allowed.
_TESTED, _GUESSED = 0.5, 2.0
# One allowed row in so many, or fewer, are copied.
_COPY_ONE_IN = 8


@dataclass(frozen=True, slots=True)
class IndexCapabilities:
    """What an index can do.

    Attributes:
        rows: Positions that it holds.
        core: `hnsw`, `ivf`, `scan` or anything else.
        lists: Number of inverted lists, 0 where there are none.
        codes: Whether the lists hold short codes.
        rerank_factor: How many times k candidates are compared again; 0 where none are.
        default_effort: Effort of a search that names none; None where effort means nothing.
        exhaustive: Whether every search compares with every vector.
        filters: Whether it can skip rows.
        min_selectivity: Share of allowed rows below which exact search is better, where nothing was measured.
        scans: Whether it holds the vectors, so that an exact search need not read the collection.
    """

    rows: int
    core: str = "opaque"
    lists: int = 0
    codes: bool = False
    rerank_factor: int = 0
    default_effort: int | None = None
    exhaustive: bool = False
    filters: bool = True
    min_selectivity: float = 0.0
    scans: bool = False

    def cost(self, effort: int | None, k: int) -> float:
        """Estimate what a search by the index costs for one query.

        Args:
            effort: How hard it looks; None for the default.
            k: How many hits.

        Returns:
            The cost, in vectors compared with one after the other.
        """
        effort = effort or self.default_effort or 1
        if self.core == "scan":
            return float(self.rows) + _RERANKED * self.rerank_factor * k
        if self.lists:
            scanned = self.rows * min(1.0, effort / self.lists)
            return self.lists + scanned * (_CODED if self.codes else _LISTED) + _RERANKED * self.rerank_factor * k
        return _STEP * max(effort, k)

    def exact_cost(self, allowed: int) -> float:
        """Estimate what it costs to compare one query with all allowed rows, in the same unit."""
        if not self.scans:
            return _READ * allowed
        if allowed >= self.rows:
            return float(self.rows)
        if allowed * _COPY_ONE_IN <= self.rows:
            return _COPIED * allowed
        return self.rows * _TESTED + _GUESSED * allowed


def capabilities_of(index: Index) -> IndexCapabilities:
    """Say what an index can do.

    Args:
        index: The index.

    Returns:
        Its traits; of an index that does not tell what it is made of, only what the protocol says.
    """
    known = IndexCapabilities(
        rows=len(index.ids),
        default_effort=index.default_effort,
        exhaustive=index.exhaustive,
        filters=index.filter_support != "none",
        min_selectivity=index.min_selectivity,
        scans=isinstance(index, ScansExactly) and index.scans,
    )
    if not isinstance(index, TellsLayers):
        return known
    layers = index.layers
    rerank_factor = index.k_factor if layers.refines else 0
    codes = layers.refines or not layers.exact_scores
    return replace(known, core=layers.core, lists=layers.lists, codes=codes, rerank_factor=rerank_factor)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a search is asked for.

    Attributes:
        k: How many hits, at least 1.
        allowed: How many rows of the index a filter lets through; None without a filter.
        min_recall: The mean recall that such searches must have, 0 to 1; None for what the index was built to keep.
        kinds: The kinds that the queries may be of; None for any.
    """

    k: int
    allowed: int | None = None
    min_recall: float | None = None
    kinds: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search will be answered.

    Attributes:
        strategy: See `Strategy`.
        reason: Why, in words.
        effort: Effort for the index; None for its default, or where it is not used.
        fetch_k: How many hits to fetch from the index.
        fell_back: Whether it is exact only because the index does not promise enough.
        remedy: What to do about it, where there is something to do.
    """

    strategy: Strategy
    reason: str
    effort: int | None = None
    fetch_k: int = 0
    fell_back: bool = False
    remedy: str = ""


def plan_search(request: SearchRequest, index: IndexCapabilities, profile: RecallProfile | None) -> Plan:
    """Choose how a search is answered.

    Args:
        request: What is asked for.
        index: What the index can do.
        profile: What was measured of it; None where nothing was, and then its default effort promises nothing.

    Returns:
        The plan.
    """
    if index.exhaustive:
        return Plan(
            "index" if request.allowed is None else "prefilter",
            "the index compares with every vector",
            fetch_k=request.k,
        )
    few = _exact_if_few(request, index)
    if few is not None:
        return few
    if profile is None:
        if request.min_recall is not None:
            return _fallback("no recall was measured of the index in use", remedy="mmalign doctor measures it")
        return _by_default(request, index)
    wanted = request.min_recall if request.min_recall is not None else profile.min_recall
    if wanted is None:
        return _by_default(request, index)
    kinds = request.kinds
    if kinds == ("given",) and "given" not in profile.kinds:
        # Vectors of the caller's own may be anything: the most careful of what was measured.
        kinds = None
    best = _by_recall(request, index, profile, wanted, kinds)
    rows = index.rows if request.allowed is None else request.allowed
    if best is None:
        if kinds and not set(kinds) & set(profile.kinds):
            return _fallback(
                f"the index was not measured with {kinds[0]} queries",
                remedy="mmalign index SOURCE --recipe NAME builds it again and measures it with all kinds",
            )
        asked = f"{' or '.join(kinds)} queries" if kinds else "queries of every kind"
        among = "" if request.allowed is None else f" among {rows / index.rows:.0%} of the items"
        return _fallback(f"the index promises no recall@{request.k} of {wanted:g} for {asked}{among}")
    if index.exact_cost(rows) <= index.cost(best.effort, best.fetch_k):
        return Plan("exact", f"to compare with all {rows:,} rows costs no more than the index would")
    return best


def _fallback(why: str, *, remedy: str = "") -> Plan:
    return Plan("exact", f"compared with every item, since {why}", fell_back=True, remedy=remedy)


def _exact_if_few(request: SearchRequest, index: IndexCapabilities) -> Plan | None:
    if request.allowed is None or request.allowed > EXACT_ROWS:
        return None
    return Plan("exact", f"the filter leaves {request.allowed:,} rows, which are compared one by one")


def _by_default(request: SearchRequest, index: IndexCapabilities) -> Plan:
    """Search as hard as the index does by itself, which promises nothing."""
    effort = index.default_effort
    if request.allowed is None:
        return Plan("index", "the index's default effort", effort, request.k)
    if request.allowed < index.min_selectivity * index.rows:
        return Plan("exact", f"the filter leaves {request.allowed:,} rows, too few for this index")
    return Plan("prefilter", "the index's default effort, looking further for what is allowed", effort, request.k)


def _by_recall(
    request: SearchRequest,
    index: IndexCapabilities,
    profile: RecallProfile,
    wanted: float,
    kinds: tuple[str, ...] | None,
) -> Plan | None:
    """The cheapest search by the index that keeps the promise."""
    plans = []
    promised = f"recall@{request.k} of {wanted:g}"
    if request.allowed is None:
        effort = profile.effort_for(wanted, kinds=kinds, k=request.k)
        if effort is not None:
            why = f"{promised} was measured at this effort"
            plans.append(Plan("index", why, _known(effort, index), max(request.k, LEAST_DEPTH)))
        return plans[0] if plans else None
    share = request.allowed / index.rows
    reach = math.ceil(_OVERFETCH * request.k / share)
    if reach <= index.rows:
        # The k nearest of the allowed lie somewhere from the first k of all to the first `depth`: short codes find more
        # of many than of few, graphs more of few than of many.
        fetch_k = max(request.k, LEAST_DEPTH, reach)
        efforts = [profile.effort_for(wanted, kinds=kinds, k=k) for k in (request.k, fetch_k)]
        known = [effort for effort in efforts if effort is not None]
        if len(known) == len(efforts):
            why = f"{promised}: allowed rows among the first {fetch_k}, whose recall was measured at this effort"
            return Plan("overfetch", why, _known(max(known), index), fetch_k)
    if index.filters:
        effort = profile.effort_for(wanted, kinds=kinds, k=request.k, share=share)
        if effort is not None:
            why = f"{promised} was measured at this effort under filters"
            return Plan("prefilter", why, _known(effort, index), max(request.k, LEAST_DEPTH))
    return None


def _known(effort: int, index: IndexCapabilities) -> int | None:
    return None if index.default_effort is None else effort
