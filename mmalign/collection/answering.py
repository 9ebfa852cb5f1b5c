"""From the vectors of some queries to their hits, and which queries of one search have the same filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mmalign.collection.relations import relations_of
from mmalign.errors import FilterError, InputError
from mmalign.search import Encoded, FoundRows, HitReader, Ranking, Reranker, ScoreRange, Searcher, with_copies
from mmalign.types import Hit, Note, SearchResult, batch_results, describe

if TYPE_CHECKING:
    from mmalign.alignment import Aligner

Filters = str | Sequence[str | None] | None
"""A filter for all queries, or None; or a list with one, or None, for each."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for queries that have the same filter.

    Attributes:
        places: Where the n queries stand among all of the search.
        asked: The queries.
        found: What was found, and how.
        ranking: The hits.
    """

    places: Sequence[int]
    asked: Encoded
    found: FoundRows
    ranking: Ranking


def merged(answers: Sequence[Answer]) -> Ranking:
    """Put the hits of all queries of a search into the order of the queries.

    Args:
        answers: For all of its queries, at least one.

    Returns:
        The hits of all.
    """
    if len(answers) == 1:
        return answers[0].ranking
    where = {place: (one, at) for one in answers for at, place in enumerate(one.places)}
    ordered = [where[place] for place in range(len(where))]
    return Ranking(
        queries=[one.asked.queries[at] for one, at in ordered],
        hits=lambda place: ordered[place][0].ranking.hits(ordered[place][1]),
        notes=tuple(one.ranking.notes[at] for one, at in ordered),
        searched=max(one.ranking.searched for one in answers),
        meaningless=frozenset(place for place, (one, at) in enumerate(ordered) if at in one.asked.meaningless),
    )


def results_of(
    answers: Sequence[Answer],
    ranking: Ranking,
    *,
    seconds: float,
    collection: str,
    before: tuple[Note, ...],
    after: tuple[Note, ...],
) -> list[SearchResult]:
    """Make the results of a search, in the order of its queries.

    Args:
        answers: For all of its queries, at least one.
        ranking: The hits of all queries, as they are ranked in the end.
        seconds: Wall time of the search.
        collection: Path of the collection.
        before: Remarks for all, to come before what finding the rows has to say.
        after: Remarks for all, to come after that.

    Returns:
        One result a query.
    """
    made: dict[int, SearchResult] = {}
    for one in answers:
        how_each = one.found.how_each()
        results = batch_results(
            ranking.hits if len(answers) == 1 else partial(_hits_at, ranking, one.places),
            queries=one.asked.texts,
            notes=[
                own + before + how.notes + after + ranking.notes[place]
                for own, how, place in zip(one.asked.notes, how_each, one.places, strict=True)
            ],
            exact=[how.exact for how in how_each],
            seconds=seconds,
            collection=collection,
            effort=[how.effort for how in how_each],
        )
        if len(answers) == 1:
            return results
        made |= zip(one.places, results, strict=True)
    return [made[place] for place in range(len(made))]


def _hits_at(ranking: Ranking, places: Sequence[int], at: int) -> tuple[Hit, ...]:
    return ranking.hits(places[at])


def answer(
    places: Sequence[int],
    asked: Encoded,
    searcher: Searcher,
    reader: HitReader,
    *,
    wanted: ScoreRange,
    fetch: int,
    where: str | None,
    min_recall: float | None,
    copies: bool,
) -> Answer:
    """Find the hits of queries that have the same filter.

    Args:
        places: Where they stand among all of the search.
        asked: The queries.
        searcher: What finds rows.
        reader: What makes hits of them.
        wanted: Which hits are wanted.
        fetch: How many hits at most.
        where: The filter; None for none.
        min_recall: As for `Collection.search`.
        copies: As for `Collection.search`.

    Returns:
        The hits, with remarks.
    """
    allowed = None if where is None else searcher.store.row_ids(where=where)
    alike = None if copies or not searcher.copies else searcher.copies.among(allowed)

    def look(k: int) -> FoundRows:
        if alike:
            return searcher.search_distinct(
                asked.vectors, k, alike, allowed=allowed, min_recall=min_recall, kinds=asked.kinds
            )
        return searcher.search(asked.vectors, k, allowed=allowed, min_recall=min_recall, kinds=asked.kinds)

    found = wanted.find(look, fetch)

    def read(found: FoundRows, probabilities: Any) -> Callable[[int], tuple[Hit, ...]]:
        hits = reader.read(found, probabilities)
        return with_copies(hits, found, searcher.store, alike) if alike else hits

    ranking = Ranking(
        queries=asked.queries,
        hits=lambda place: read(found, None)(place),
        notes=((),) * len(asked.queries),
        searched=(searcher.items if allowed is None else len(allowed)) - (alike.extra if alike else 0),
        meaningless=asked.meaningless,
        found=found,
        read=read,
    )
    return Answer(places, asked, found, ranking)


def rerankers_of(given: Any, aligner: Callable[[], Aligner]) -> tuple[Reranker, ...]:
    """Read what a caller gives as `rerank`.

    Args:
        given: None, a text such as `relations`, a reranker, or a list of these.
        aligner: Gives the aligner of the collection's encoder.

    Returns:
        The rerankers, in the order in which they are applied.

    Raises:
        InputError: Anything else.
    """
    many = given if isinstance(given, list | tuple) else [] if given is None else [given]
    made: list[Reranker] = []
    for one in many:
        if isinstance(one, str):
            made.append(relations_of(one, aligner))
        elif isinstance(one, Reranker) and not isinstance(one, type):
            made.append(one)
        else:
            raise InputError(
                f"rerank is 'relations', 'relations:N', an object with check, fetch_k and apply, or a list of these, "
                f"got {describe(one)}"
            )
    return tuple(made)


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
