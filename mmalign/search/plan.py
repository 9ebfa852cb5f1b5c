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

from mmalign.index import EXACT_ROWS, Index, RecallProfile, ScansExactly, TellsLayers

Way: TypeAlias = Literal["index", "deeper", "selector", "exact"]
"""`index`: no filter. `deeper`: more hits than wanted, unfiltered, of which the allowed are kept. `selector`: the index
skips what is not allowed. `exact`: every allowed row is compared with."""

# A search looks this many times as deep as it takes to find k allowed rows where a filter is spread evenly.
_SLACK = 2.0
# What things cost, in vectors compared with one after the other by FAISS's scan of float16: a step of a graph, with its
# neighbours in scattered places; a vector in a list, and one of 4-bit codes; a candidate compared again; a vector that
# is copied to be scanned, or made float32 to be multiplied. Rough figures from timings of 60,000 vectors of dim 64 to
# 384 on one busy core; `python -m benchmarks.index_contract --timing` tells whether the choices that follow are right.
_STEP, _LISTED, _CODED, _AGAIN, _COPIED, _READ = 160.0, 2.6, 0.4, 20.0, 5.0, 10.0
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
        again: How many times k candidates are compared again; 0 where none are.
        default_effort: Effort of a search that names none; None where effort means nothing.
        exhaustive: Whether every search compares with every vector.
        filters: Whether it can skip rows.
        min_share: Share of allowed rows below which exact search is better, where nothing was measured.
        scans: Whether it holds the vectors, so that an exact search need not read the collection.
    """

    rows: int
    core: str = "opaque"
    lists: int = 0
    codes: bool = False
    again: int = 0
    default_effort: int | None = None
    exhaustive: bool = False
    filters: bool = True
    min_share: float = 0.0
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
            return float(self.rows) + _AGAIN * self.again * k
        if self.lists:
            scanned = self.rows * min(1.0, effort / self.lists)
            return self.lists + scanned * (_CODED if self.codes else _LISTED) + _AGAIN * self.again * k
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


def traits_of(index: Index) -> IndexCapabilities:
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
        min_share=index.min_share,
        scans=isinstance(index, ScansExactly) and index.scans,
    )
    if not isinstance(index, TellsLayers):
        return known
    layers = index.layers
    again = index.k_factor if layers.refines else 0
    codes = layers.refines or not layers.true_scores
    return replace(known, core=layers.core, lists=layers.lists, codes=codes, again=again)


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a search is asked for.

    Attributes:
        k: How many hits, at least 1.
        allowed: How many rows of the index a filter lets through; None without a filter.
        min_recall: The mean recall that such searches must have, 0 to 1; None for what the index was built to keep.
        kind: `text`, `image` or `given`; None for any.
    """

    k: int
    allowed: int | None = None
    min_recall: float | None = None
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How a search will be answered.

    Attributes:
        way: See `Way`.
        reason: Why, in words.
        effort: Effort for the index; None for its default, or where it is not used.
        depth: How many hits to fetch from the index.
        fell_back: Whether it is exact only because the index does not promise enough.
        remedy: What to do about it, where there is something to do.
    """

    way: Way
    reason: str
    effort: int | None = None
    depth: int = 0
    fell_back: bool = False
    remedy: str = ""


def plan_search(wish: SearchRequest, index: IndexCapabilities, contract: RecallProfile | None) -> Plan:
    """Choose how a search is answered.

    Args:
        wish: What is asked for.
        index: What the index can do.
        contract: What was measured of it; None where nothing was, and then its default effort promises nothing.

    Returns:
        The plan.
    """
    if index.exhaustive:
        return Plan(
            "index" if wish.allowed is None else "selector", "the index compares with every vector", depth=wish.k
        )
    few = _exact_if_few(wish, index)
    if few is not None:
        return few
    if contract is None:
        if wish.min_recall is not None:
            return _fallback("no recall was measured of the index in use", remedy="mmalign doctor measures it")
        return _by_default(wish, index)
    wanted = wish.min_recall if wish.min_recall is not None else contract.min_recall
    if wanted is None:
        return _by_default(wish, index)
    kind = wish.kind
    if kind == "given" and kind not in contract.kinds:
        # Vectors of the caller's own may be anything: the most careful of what was measured.
        kind = None
    best = _by_promise(wish, index, contract, wanted, kind)
    rows = index.rows if wish.allowed is None else wish.allowed
    if best is None:
        asked = f"{kind} queries" if kind else "queries of every kind"
        among = "" if wish.allowed is None else f" among {rows / index.rows:.0%} of the items"
        return _fallback(f"the index promises no recall@{wish.k} of {wanted:g} for {asked}{among}")
    if index.exact_cost(rows) <= index.cost(best.effort, best.depth):
        return Plan("exact", f"to compare with all {rows:,} rows costs no more than the index would")
    return best


def _fallback(why: str, *, remedy: str = "") -> Plan:
    return Plan("exact", f"compared with every item, since {why}", fell_back=True, remedy=remedy)


def _exact_if_few(wish: SearchRequest, index: IndexCapabilities) -> Plan | None:
    if wish.allowed is None or wish.allowed > EXACT_ROWS:
        return None
    return Plan("exact", f"the filter leaves {wish.allowed:,} rows, which are compared one by one")


def _by_default(wish: SearchRequest, index: IndexCapabilities) -> Plan:
    """Search as hard as the index does by itself, which promises nothing."""
    effort = index.default_effort
    if wish.allowed is None:
        return Plan("index", "the index's default effort", effort, wish.k)
    if wish.allowed < index.min_share * index.rows:
        return Plan("exact", f"the filter leaves {wish.allowed:,} rows, too few for this index")
    return Plan("selector", "the index's default effort, looking further for what is allowed", effort, wish.k)


def _by_promise(
    wish: SearchRequest, index: IndexCapabilities, contract: RecallProfile, wanted: float, kind: str | None
) -> Plan | None:
    """The cheapest search by the index that keeps the promise."""
    plans = []
    said = f"recall@{wish.k} of {wanted:g}"
    if wish.allowed is None:
        effort = contract.effort_for(wanted, kind=kind, k=wish.k)
        if effort is not None:
            plans.append(Plan("index", f"{said} was measured at this effort", _known(effort, index), wish.k))
        return plans[0] if plans else None
    share = wish.allowed / index.rows
    reach = math.ceil(_SLACK * wish.k / share)
    # The least depth that was measured and reaches far enough.
    depth = min((curve.k for curve in contract.curves if curve.share == 1 and curve.k >= reach), default=None)
    if depth is not None:
        # The k nearest of the allowed lie somewhere from the first k of all to the first `depth`: short codes find more
        # of many than of few, graphs more of few than of many.
        efforts = [contract.effort_for(wanted, kind=kind, k=k) for k in (wish.k, depth)]
        known = [effort for effort in efforts if effort is not None]
        if len(known) == len(efforts):
            why = f"{said}: allowed rows among the first {depth}, whose recall was measured at this effort"
            return Plan("deeper", why, _known(max(known), index), depth)
    if index.filters:
        effort = contract.effort_for(wanted, kind=kind, k=wish.k, share=share)
        if effort is not None:
            why = f"{said} was measured at this effort under filters"
            return Plan("selector", why, _known(effort, index), wish.k)
    return None


def _known(effort: int, index: IndexCapabilities) -> int | None:
    return None if index.default_effort is None else effort
