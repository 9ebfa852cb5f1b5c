"""The reranker that puts hits in order by where their pictures have what a query says is left of, above or between."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mmalign.collection.hit_regions import find_regions, query_text
from mmalign.errors import InputError
from mmalign.parsing import chunk_sentence
from mmalign.search import Query, Ranking, RerankRequest
from mmalign.types import Hit, Note

if TYPE_CHECKING:
    from mmalign.alignment import Aligner

SHORTLIST = 20
"""How many of the best hits are compared with what a query says of places, where the caller does not say."""

# What tells pictures of the same things apart. That somebody is on, in or near something, hits show anyway.
_PLACES = frozenset({"left of", "right of", "above", "below", "between", "bigger", "smaller"})
# Ten thousand queries are looked through in milliseconds, and hardly any is taken apart.
_MAY_TELL = re.compile(
    r"\b(?:left|right|above|over|below|under|underneath|beneath|between|bottom|foot|bigger|larger|taller|greater|smaller|"
    r"shorter|littler|tinier)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Relations:
    """Puts the hits of queries that say where things are, such as `a dog left of a bicycle`, in order by that, too.

    The first hits are put in order by their cosine, in standard deviations of these hits, plus what the picture bears
    out of the places, in nats: how much the objective of the alignment gains or loses by the relations. Hits after
    these, where more are wanted, stay behind them and are not looked at. Hits of other queries stay as they are.

    Attributes:
        aligner: Gives the aligner of the encoder that found them; called when there is a hit to look at.
        shortlist: How many hits are looked at, at least 1.
    """

    aligner: Callable[[], Aligner]
    shortlist: int = SHORTLIST

    def check(self, queries: Sequence[Query]) -> None:
        """Take any query."""

    def fetch_k(self, k: int, queries: Sequence[Query]) -> int:
        """As many as are wanted, and those that are looked at."""
        return max(k, self.shortlist) if k and any(map(places_in, queries)) else k

    def apply(self, request: RerankRequest, ranking: Ranking) -> Ranking:
        """Put the hits in order; see `Reranker.apply`.

        After Ctrl-C, those that were looked at until then are in order, and the others follow as they were.
        """
        ordered: list[tuple[Hit, ...]] = []
        counts: list[int] = []
        notes: list[tuple[Note, ...]] = []
        stopped = ranking.stopped
        for place, query in enumerate(ranking.queries):
            hits, places = ranking.hits(place), places_in(query)
            if stopped or not places or not hits:
                ordered.append(hits[: request.k])
                counts.append(0)
                notes.append((Note("its hits were not looked at"),) if stopped else ())
                continue
            looked = find_regions(hits[: self.shortlist], query, self.aligner(), request, compare=True)
            stopped = looked.stopped
            worth = blend([hit.score for hit in looked.hits], looked.agreements)
            best = [looked.hits[i] for i in np.argsort(-worth, kind="stable")]
            ordered.append((*best, *hits[len(best) :])[: request.k])
            counts.append(min(len(best), request.k))
            notes.append((*looked.notes, *_remarks(len(best), len(ordered[-1]), places, stopped=stopped)))
        return replace(ranking.with_hits(ordered), looked=tuple(counts), stopped=stopped).with_notes(notes)


def relations_of(spec: str, aligner: Callable[[], Aligner]) -> Relations:
    """Read what a caller writes for the reranker.

    Args:
        spec: `relations`, or `relations:N` to look at N hits.
        aligner: As for `Relations`.

    Returns:
        The reranker.

    Raises:
        InputError: Anything else.
    """
    name, colon, number = spec.partition(":")
    if name != "relations" or (colon and not (number.isascii() and number.isdigit() and int(number) >= 1)):
        raise InputError(
            f"rerank is relations, or relations:N to compare the best N pictures with what the query says of places, "
            f"or a reranker of your own, got {spec!r}"
        )
    return Relations(aligner, int(number) if colon else SHORTLIST)


def places_in(query: Query) -> tuple[str, ...]:
    """Find what a query says of places that hits can be put in order by.

    Args:
        query: The query.

    Returns:
        The words that say it, such as `left of`; none for a query that says nothing of the kind.
    """
    text = query_text(query)
    if text is None or not _MAY_TELL.search(text):
        return ()
    _, relations = chunk_sentence(text)
    return tuple(dict.fromkeys(relation.text for relation in relations if relation.kind in _PLACES))


def blend(scores: Sequence[float], agreements: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Join cosines with what pictures bear out of places.

    Args:
        scores: n cosines.
        agreements: n numbers, in nats.

    Returns:
        Shape (n,), float64: cosines less their mean, in standard deviations, plus the agreements.
    """
    cosines = np.asarray(scores, np.float64)
    spread = cosines.std()
    standing = (cosines - cosines.mean()) / spread if spread > 1e-9 else np.zeros(len(cosines))
    return np.asarray(standing + np.asarray(agreements, np.float64))


def hint(query: Query) -> tuple[Note, ...]:
    """Say that a query's words on places count for nothing without this reranker, where it has such.

    Args:
        query: The query.

    Returns:
        The remark, or nothing.
    """
    words = places_in(query)
    if not words:
        return ()
    return (
        Note(
            f"the query says where things are ({_quoted(words)}), which vectors hardly tell",
            remedy=f"rerank='relations' (--rerank relations) compares the best {SHORTLIST} pictures with that",
        ),
    )


def _quoted(words: Sequence[str]) -> str:
    return " and ".join(f"'{word}'" for word in words)


def _remarks(looked: int, hits: int, places: Sequence[str], *, stopped: bool) -> tuple[Note, ...]:
    """Say what the order of the hits means."""
    notes: list[Note] = []
    if looked > 1:
        notes.append(
            Note(
                f"the best {looked} hits are in order of how well their pictures bear out {_quoted(places)}, as well "
                "as of the score"
            )
        )
    if hits > looked:
        remedy = "" if stopped else f"rerank='relations:{hits}' (--rerank relations:{hits}) compares all of them"
        rest = f"the other {hits - looked} follow in the order of their scores" if looked else "no hit was looked at"
        notes.append(Note(rest, remedy=remedy))
    return tuple(notes)
