"""From the vectors of some queries to their hits, and which queries of one search have the same filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmalign.calibration import Calibration
from mmalign.collection.explain import Explained
from mmalign.errors import FilterError, InputError
from mmalign.search import Encoded, Found, HitReader, Searcher, hits_to_fetch, judge, with_copies
from mmalign.types import Hit, Note, SearchResult, batch_results, describe

Filters = str | Sequence[str | None] | None
"""A filter for all queries, or None; or a list with one, or None, for each."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for queries that have the same filter.

    Attributes:
        places: Where the n queries stand among all of the search.
        asked: The queries.
        found: What was found.
        hits: Gives those of a query by its place among the n.
        notes: Remarks for each.
    """

    places: Sequence[int]
    asked: Encoded
    found: Found
    hits: Callable[[int], tuple[Hit, ...]]
    notes: tuple[tuple[Note, ...], ...]

    def remarked(self, more: Iterable[tuple[Note, ...]]) -> Answer:
        """The same with further remarks for each query."""
        return replace(self, notes=tuple(one + other for one, other in zip(self.notes, more, strict=True)))

    def explained(self, found: Sequence[Explained]) -> Answer:
        """The same with the hits of each query as they are once they were looked at, and what was said of that."""
        return replace(self, hits=[one.hits for one in found].__getitem__).remarked([one.notes for one in found])


def results_of(
    answers: Sequence[Answer], *, seconds: float, collection: str, before: tuple[Note, ...], after: tuple[Note, ...]
) -> list[SearchResult]:
    """Make the results of a search, in the order of its queries.

    Args:
        answers: For all of its queries, at least one.
        seconds: Wall time of the search.
        collection: Path of the collection.
        before: Remarks for all, to come before what finding the rows has to say.
        after: Remarks for all, to come after that.

    Returns:
        One result a query.
    """
    made: dict[int, SearchResult] = {}
    for one in answers:
        shared = before + one.found.notes + after
        results = batch_results(
            one.hits,
            queries=one.asked.texts,
            notes=[own + shared + said for own, said in zip(one.asked.notes, one.notes, strict=True)],
            exact=one.found.exact,
            seconds=seconds,
            collection=collection,
            effort=one.found.effort,
        )
        if len(answers) == 1:
            return results
        made |= zip(one.places, results, strict=True)
    return [made[place] for place in range(len(made))]


def answer(
    places: Sequence[int],
    asked: Encoded,
    searcher: Searcher,
    reader: HitReader,
    calibration: Callable[[], Calibration | None],
    *,
    k: int,
    where: str | None,
    min_recall: float | None,
    min_probability: float | None,
    copies: bool,
) -> Answer:
    """Find the hits of queries that have the same filter.

    Args:
        places: Where they stand among all of the search.
        asked: The queries.
        searcher: What finds rows.
        reader: What makes hits of them.
        calibration: As for `judge`.
        k: How many hits.
        where: The filter; None for none.
        min_recall: As for `Collection.search`.
        min_probability: As for `Collection.search`.
        copies: As for `Collection.search`.

    Returns:
        The hits, with remarks.
    """
    allowed = None if where is None else searcher.store.row_ids(where=where)
    alike = None if copies or not searcher.copies else searcher.copies.among(allowed)
    fetched = hits_to_fetch(k, asked.queries)
    found = (
        searcher.search_distinct(asked.vectors, fetched, alike, allowed=allowed, min_recall=min_recall, kind=asked.kind)
        if alike
        else searcher.search(asked.vectors, fetched, allowed=allowed, min_recall=min_recall, kind=asked.kind)
    )
    judged = judge(
        found,
        k,
        asked.queries,
        calibration,
        pictures=(searcher.items if allowed is None else len(allowed)) - (alike.extra if alike else 0),
        min_probability=min_probability,
        meaningless=asked.meaningless,
    )
    hits = reader.read(judged.found, judged.probabilities)
    if alike:
        hits = with_copies(hits, judged.found, searcher.store, alike)
    return Answer(places, asked, found, hits, judged.notes)


def group_by_filter(where: Any, *, many: bool, count: int) -> dict[str | None, Sequence[int]]:
    """Find which queries of a search have the same filter, so that these can be served together.

    Args:
        where: What the caller gave.
        many: Whether the caller asked a list of queries.
        count: How many queries there are.

    Returns:
        The places of the queries, rising, by their filter; one entry at least.

    Raises:
        InputError: A list of another length than that of the queries, or with a single query.
        FilterError: Neither a text nor a list of texts and Nones.
    """
    if where is None or isinstance(where, str):
        return {where: range(count)}
    if not isinstance(where, list | tuple):
        raise FilterError(
            f'a filter is a text in SQL, such as "year >= 2020", or a list of them, one for each query, got '
            f"{describe(where)}"
        )
    if not many:
        raise InputError(
            f"a list of filters needs a list of queries, one filter for each, got a single query and {len(where)} "
            "filters; give its filter as a text"
        )
    if len(where) != count:
        raise InputError(
            f"where has {len(where)} filters for {count} queries; give one for each, None for no filter, or one text "
            "for all"
        )
    groups: dict[str | None, list[int]] = {}
    for place, one in enumerate(where):
        if one is not None and not isinstance(one, str):
            raise FilterError(f"where[{place}] must be a filter as a text, or None, got {describe(one)}")
        groups.setdefault(one, []).append(place)
    return dict(groups) or {None: range(0)}
