"""The reranker that shows which regions earned a search its hits; their order stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmalign.collection.hit_regions import find_regions, query_text
from mmalign.errors import QueryError
from mmalign.search import Query, Ranking, RerankRequest
from mmalign.types import Hit, Note

if TYPE_CHECKING:
    from mmalign.alignment import Aligner


@dataclass(frozen=True, slots=True)
class Explain:
    """Looks for the words of a query in its hits, and gives each hit its `regions`.

    Attributes:
        aligner: Gives the aligner of the encoder that found them; called when there is a hit to look at.
    """

    aligner: Callable[[], Aligner]

    def check(self, queries: Sequence[Query]) -> None:
        """Refuse queries that have no words to look for.

        Raises:
            QueryError: One adds no words.
        """
        for query in queries:
            if query_text(query) is None:
                raise QueryError(
                    f"explain looks for the words of a query in its hits, and {str(query)!r} adds none; leave explain "
                    "out, or add words to the query"
                )

    def fetch_k(self, k: int, queries: Sequence[Query]) -> int:
        """As many as are wanted."""
        return k

    def apply(self, request: RerankRequest, ranking: Ranking) -> Ranking:
        """Look at the first hits of each query, but for those that were looked at before; see `Reranker.apply`.

        After Ctrl-C the rest of the hits follow as they were, without regions.
        """
        explained: list[tuple[Hit, ...]] = []
        notes: list[tuple[Note, ...]] = []
        stopped = ranking.stopped
        for place, query in enumerate(ranking.queries):
            hits = ranking.hits(place)[: request.k]
            before = ranking.looked[place] if ranking.looked else 0
            if stopped or before >= len(hits):
                explained.append(hits)
                notes.append((Note("its hits were not looked at"),) if stopped and not before else ())
                continue
            looked = find_regions(hits[before:], query, self.aligner(), request)
            done, stopped = before + len(looked.hits), looked.stopped
            explained.append((*hits[:before], *looked.hits, *hits[done:]))
            notes.append((*looked.notes, *_not_looked_at(done, len(hits))))
        return replace(ranking.with_hits(explained), stopped=stopped).with_notes(notes)


def _not_looked_at(looked: int, hits: int) -> tuple[Note, ...]:
    """Say that some hits have no regions."""
    if looked == hits:
        return ()
    if not looked:
        return (Note("no hit was looked at, and none has regions"),)
    return (Note(f"only the first {looked} hits were looked at; the other {hits - looked} have no regions"),)
