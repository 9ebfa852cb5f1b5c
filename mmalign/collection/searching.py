"""A search from what a caller asks to results: queries encoded, rows found, hits ranked, remarks made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from numpy.typing import NDArray

from mmalign.collection.answering import Answer, Filters, answer, group_by_filter, merged, rerankers_of, results_of
from mmalign.collection.explain import Explain
from mmalign.collection.generation import Generation
from mmalign.collection.query_log import AskedQuery, QueryLog
from mmalign.collection.relations import hint
from mmalign.collection.view_refresh import CAPTIONS, IMAGE, VIEWS
from mmalign.collection.view_search import ViewHits
from mmalign.errors import InputError, SearchInterrupted, StorageError
from mmalign.index import check_k
from mmalign.media import MediaPolicy, check_policy
from mmalign.search import (
    Encoded,
    Probability,
    Query,
    QueryLike,
    Reranker,
    RerankRequest,
    ScoreRange,
    as_queries,
    encode_queries,
    fetch_sizes,
    stored_picture,
)
from mmalign.types import Hit, SearchResult, check_choice, check_flag, check_share, use_thumbnails


# Not frozen: each search makes one, and to set that many fields of a frozen one takes longer than to check them.
@dataclass(slots=True, kw_only=True)
class SearchOptions:
    """How to search; each as for `Collection.search`.

    Attributes:
        k: How many hits; None for all from `min_score` on.
        where: A filter, or one for each query.
        min_recall: Share of the true nearest that is to be found on average.
        min_probability: Least probability of a hit.
        min_score: Least score of a hit.
        offset: How many of the best hits are left out.
        explain: Whether to look for the words in the pictures of the hits.
        rerank: What puts the hits in another order.
        on_hit: Called with each hit that was looked at.
        progress: Whether to show a progress bar.
        copies: Whether items with the same bytes are hits of their own.
        view: What is searched: `image` or `captions`.
        group_by: What is one hit where several belong to it.
        allow_media: Whether a query may name pictures.
        policy: What may be read.
        wanted: Which hits are given of those that are found; made of `k`, `min_score` and `offset`.
    """

    k: int | None = 10
    where: Filters = None
    min_recall: float | None = None
    min_probability: float | None = None
    min_score: float | None = None
    offset: int = 0
    explain: bool = False
    rerank: str | Reranker | Sequence[str | Reranker] | None = None
    on_hit: Callable[[Hit], None] | None = None
    progress: bool = True
    copies: bool = False
    view: str = IMAGE
    group_by: Literal["item"] | None = None
    allow_media: bool = True
    policy: MediaPolicy | None = None
    wanted: ScoreRange = field(init=False)

    def __post_init__(self) -> None:
        check_flag("explain", self.explain)
        check_flag("copies", self.copies)
        check_flag("allow_media", self.allow_media)
        # Before what a view may have no use for: advice on that would mislead.
        check_choice("view", self.view, VIEWS)
        if self.group_by is not None:
            check_choice("group_by", self.group_by, ("item",))
        self._check_view()
        if self.k is not None:
            check_k(self.k)
            # FAISS takes no integers of NumPy's.
            self.k = int(self.k)
        self.wanted = ScoreRange.checked(self.k, self.min_score, self.offset)
        if self.min_recall is not None:
            check_share("min_recall", self.min_recall)
        check_policy(self.policy)

    def _check_view(self) -> None:
        """Refuse what belongs to another view than the one that is searched."""
        if self.view == IMAGE:
            if self.group_by is not None:
                raise InputError(f"items are one hit each; leave group_by out without view={CAPTIONS!r}")
            return
        if self.k is None:
            raise InputError(f"k=None is for pictures; say how many {self.view}, such as k=10")
        reasons = {
            "explain": (self.explain, "looks for words in pictures"),
            "rerank": (self.rerank is not None, "looks at the pictures of hits"),
            "min_probability": (self.min_probability is not None, "was measured for pictures"),
            "min_score": (self.min_score is not None, "bounds the scores of pictures"),
            "offset": (self.offset != 0, "pages through pictures"),
            "copies": (self.copies, f"is about identical files, and their {self.view} are hits of their own"),
        }
        for name, (given, reason) in reasons.items():
            if given:
                raise InputError(f"{name} {reason}; leave it out with view={self.view!r}")


def search(
    generation: Generation,
    query: QueryLike | list[Any] | NDArray[Any],
    options: SearchOptions,
    *,
    made_with: str | None,
) -> SearchResult | list[SearchResult]:
    """Find what is nearest to a query, or to each of several; as `Collection.search`.

    Args:
        generation: The collection as it is.
        query: A query, a list of them, or an array of shape (n, dim).
        options: How to search, and what.
        made_with: Fingerprint of the encoder that the caller's own vectors are of.

    Returns:
        One result, or one for each of several queries.

    Raises:
        As `Collection.search`.
    """
    if generation.description.unit_length:
        options.wanted.check_cosine()
    many, query = as_queries(query)
    asked: Any = query if many else [query]
    groups = group_by_filter(options.where, many=many, count=len(asked))
    if options.view == IMAGE:
        results = _search_items(generation, asked, groups, options, made_with=made_with, alone=not many)
    else:
        results = _search_captions(generation, asked, groups, options, made_with=made_with)
    return results if many else results[0]


_Groups = Mapping[str | None, Sequence[int]]


def _search_items(
    generation: Generation,
    queries: list[Any] | NDArray[Any],
    groups: _Groups,
    options: SearchOptions,
    *,
    made_with: str | None,
    alone: bool,
) -> list[SearchResult]:
    """The results of queries that are compared with the items themselves; `groups` has their places by filter."""
    started = time.perf_counter()
    probable = Probability(generation.calibration, options.min_probability)
    explaining = (Explain(generation.aligner),) if options.explain else ()
    rerankers, wanted = rerankers_of(options.rerank, generation.aligner), options.wanted
    looks = (probable, *rerankers, *explaining)
    asked = _encode(generation, queries, groups, options, made_with=made_with, rerankers=looks)
    searcher = generation.searcher()
    reader = generation.hit_reader(searcher.store)
    fetch, *depths = fetch_sizes((probable, *rerankers), wanted.depth, asked.queries)
    answers = []
    for one, places in groups.items():
        part = asked if len(groups) == 1 else asked.part(places)
        found = answer(
            places,
            part,
            searcher,
            reader,
            wanted=wanted,
            fetch=fetch,
            where=one,
            min_recall=options.min_recall,
            copies=options.copies,
        )
        likely = wanted.keep(probable.apply(RerankRequest(k=depths[0]), found.ranking))
        answers.append(Answer(places, part, found.found, likely))
    # In the order of the queries, whichever of them were served together.
    ranking = merged(answers)
    for reranker, depth in zip(rerankers, depths[1:], strict=True):
        request = RerankRequest(k=depth, on_hit=options.on_hit, progress=options.progress)
        ranking = reranker.apply(request, ranking)
    ranking = wanted.cut(ranking)
    for explain in explaining:
        # Nobody sees the pictures of another page.
        request = RerankRequest(k=wanted.page, on_hit=options.on_hit, progress=options.progress)
        ranking = explain.apply(request, ranking)
    if alone and not rerankers and not explaining and (remarks := hint(asked.queries[0])):
        ranking = ranking.with_notes([remarks])
    results = results_of(
        answers,
        ranking,
        seconds=time.perf_counter() - started,
        collection=str(generation.path),
        before=searcher.notes,
        after=generation.drift_notes(searcher),
    )
    if generation.query_log is not None:
        results = _kept(generation.query_log, asked, groups, options, results)
    if ranking.stopped:
        raise SearchInterrupted(results)
    return results


def _search_captions(
    generation: Generation,
    queries: list[Any] | NDArray[Any],
    groups: _Groups,
    options: SearchOptions,
    *,
    made_with: str | None,
) -> list[SearchResult]:
    """The results of queries that are compared with the captions; `groups` has their places by filter."""
    started = time.perf_counter()
    asked = _encode(generation, queries, groups, options, made_with=made_with)
    found: dict[int, ViewHits] = {}
    try:
        searcher = generation.caption_searcher()
        for where, places in groups.items():
            allowed = searcher.allowed(where)
            for place in places:
                found[place] = searcher.search(
                    asked.vectors[place],
                    options.wanted.page,
                    allowed=allowed,
                    grouped=options.group_by == "item",
                    min_recall=options.min_recall,
                    kinds=asked.kinds[place],
                )
    except StorageError:
        generation.captions.forget()
        raise
    seconds = time.perf_counter() - started
    results = [
        SearchResult(
            hits=found[place].hits,
            query=text,
            exact=found[place].exact,
            seconds=seconds,
            collection=str(generation.path),
            effort=found[place].effort,
            notes=asked.notes[place] + found[place].notes,
        )
        for place, text in enumerate(asked.texts)
    ]
    if generation.query_log is not None:
        results = _kept(generation.query_log, asked, groups, options, results)
    return results


def _kept(
    log: QueryLog, asked: Encoded, groups: _Groups, options: SearchOptions, results: list[SearchResult]
) -> list[SearchResult]:
    """Give queries to what keeps a sample of them, and the results, with a remark where that cannot be."""
    if options.k == 0:
        return results

    def describe(places: Sequence[int]) -> Iterator[AskedQuery]:
        filtered = {place for where, group in groups.items() if where is not None for place in group}
        kinds = asked.kinds
        for place in places:
            yield AskedQuery(
                vector=asked.vectors[place],
                kinds=kinds[place],
                view=options.view,
                k=options.wanted.depth,
                filtered=place in filtered,
                min_recall=options.min_recall,
                effort=results[place].effort,
                exact=results[place].exact,
            )

    note = log.add(len(results), describe)
    return results if note is None else [replace(one, notes=(*one.notes, note)) for one in results]


def _encode(
    generation: Generation,
    asked: list[Any] | NDArray[Any],
    groups: _Groups,
    options: SearchOptions,
    *,
    made_with: str | None,
    rerankers: Sequence[Reranker] = (),
) -> Encoded:
    """The vectors of some queries, once filters, rerankers and the collection's state allow for them."""

    def check(queries: list[Query]) -> None:
        # Before an encoder is loaded.
        # To ask for the newest items takes a share of a search that can be seen, and `searcher` asks, too.
        for where in groups:
            if where is not None:
                generation.latest().check_filter(where)
        for reranker in rerankers:
            reranker.check(queries)
        if any(query.holds_vectors for query in queries):
            generation.check_vectors(made_with)

    return encode_queries(
        asked,
        lambda: generation.encoder if options.view == IMAGE else generation.caption_encoder,
        dim=generation.description.dim,
        check=check,
        allow_media=options.allow_media,
        policy=options.policy,
        stored=lambda uri: stored_picture(generation.latest(), uri, policy=options.policy),
        unit_length=generation.description.unit_length,
    )


def _thumbnail(uri: str, side: int) -> bytes | None:
    # Late: only a notebook looks at pictures of hits, and not every search decodes any.
    from mmalign.media import local_jpeg

    return local_jpeg(uri, side)


# From now on there may be hits to show.
use_thumbnails(_thumbnail)
