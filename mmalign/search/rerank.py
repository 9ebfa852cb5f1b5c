"""Rerankers: what looks at the hits of a search once more, and orders, drops or explains them.

A search fetches as many hits as the first reranker of a list asks for, and each hands on as many as the next one wants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from mmalign.search.query import Query
from mmalign.search.searcher import FoundRows
from mmalign.types import Hit, Note


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankRequest:
    """What is wanted of a reranker.

    Attributes:
        k: How many hits of each query, at most.
        on_hit: Called with each hit whose picture was looked at, as soon as it was.
        progress: Whether to show a progress bar where it takes long.
    """

    k: int
    on_hit: Callable[[Hit], None] | None = None
    progress: bool = True


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Ranking:
    """The hits of some queries, as they are ranked until now.

    Attributes:
        queries: The n queries.
        hits: Gives those of a query by its place among the n, best first. They are made when somebody looks.
        notes: Remarks for each query.
        searched: How many items each of the queries was compared with.
        meaningless: Places of the queries of whose words the encoder knows none.
        found: Rows and scores that `hits` are made of, while they are in that order; else None.
        read: Makes `hits` of `found` and of probabilities of the same shape, NaN where there is none.
        looked: For each query, at how many of its first hits' pictures somebody has looked.
        stopped: Whether Ctrl-C came before all was done.
    """

    queries: Sequence[Query]
    hits: Callable[[int], tuple[Hit, ...]]
    notes: tuple[tuple[Note, ...], ...]
    searched: int = 0
    meaningless: frozenset[int] = frozenset()
    found: FoundRows | None = None
    read: Callable[[FoundRows, Any], Callable[[int], tuple[Hit, ...]]] | None = None
    looked: tuple[int, ...] = field(default=())
    stopped: bool = False

    def with_notes(self, more: Iterable[tuple[Note, ...]]) -> Ranking:
        """The same with further remarks for each query."""
        return replace(self, notes=tuple(one + other for one, other in zip(self.notes, more, strict=True)))

    def with_hits(self, hits: Sequence[tuple[Hit, ...]]) -> Ranking:
        """The same with other hits, or in another order: one tuple for each query, best first."""
        return replace(self, hits=list(hits).__getitem__, found=None, read=None)


@runtime_checkable
class Reranker(Protocol):
    """Orders, drops or explains the hits of a search."""

    def check(self, queries: Sequence[Query]) -> None:
        """Refuse queries that it cannot do anything for, before anything is searched.

        Args:
            queries: The queries.

        Raises:
            QueryError: One is of another kind.
            InputError: What it was made with makes no sense.
        """
        ...

    def fetch_k(self, k: int, queries: Sequence[Query]) -> int:
        """Say how many hits it needs.

        Args:
            k: How many are wanted of it.
            queries: The queries.

        Returns:
            At least `k`.
        """
        ...

    def apply(self, request: RerankRequest, ranking: Ranking) -> Ranking:
        """Rank the hits anew.

        Args:
            request: How many are wanted.
            ranking: The hits, best first, as many as `fetch_k` said where there are so many.

        Returns:
            At most `request.k` hits of each query, best first, with remarks.
        """
        ...


def fetch_sizes(rerankers: Sequence[Reranker], k: int, queries: Sequence[Query]) -> list[int]:
    """Say how many hits each of several rerankers is to hand on.

    Args:
        rerankers: In the order in which they are applied.
        k: How many hits are wanted in the end.
        queries: The queries.

    Returns:
        How many a search must fetch, then how many each reranker hands on; the last one is `k`.
    """
    sizes = [k]
    for one in reversed(rerankers):
        sizes.append(one.fetch_k(sizes[-1], queries))
    return sizes[::-1]
