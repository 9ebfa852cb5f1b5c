"""Which regions earned a search its hits, and hits put in order by where their regions are."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from mmalign.errors import DecodeError, InputError, QueryError
from mmalign.media import decode_image
from mmalign.parsing import chunk_sentence
from mmalign.search import Query
from mmalign.types import Hit, HitRegion, Note
from mmalign.utils import track

if TYPE_CHECKING:
    from mmalign.alignment import Aligner, Alignment

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
class Explained:
    """Hits with their regions.

    Attributes:
        hits: Best first.
        notes: Remarks that a person should see.
        stopped: Whether Ctrl-C came before all were looked at.
    """

    hits: tuple[Hit, ...]
    notes: tuple[Note, ...] = ()
    stopped: bool = False


def check_words(queries: Sequence[Query]) -> None:
    """Refuse queries that have no words to look for.

    Args:
        queries: The queries.

    Raises:
        QueryError: One adds no words.
    """
    for query in queries:
        if words_of(query) is None:
            raise QueryError(
                f"explain looks for the words of a query in its hits, and {str(query)!r} adds none; leave explain out, "
                "or add words to the query"
            )


def words_of(query: Query) -> str | None:
    """Give the words that a query adds, as sentences.

    Args:
        query: The query.

    Returns:
        Its terms of words with a weight above 0, one sentence each; None where it has none.
    """
    said = [term.value for term in query.terms if isinstance(term.value, str) and term.weight > 0]
    return ". ".join(said) or None


def places_in(query: Query) -> tuple[str, ...]:
    """Find what a query says of places that hits can be put in order by.

    Args:
        query: The query.

    Returns:
        The words that say it, such as `left of`; none for a query that says nothing of the kind.
    """
    text = words_of(query)
    if text is None or not _MAY_TELL.search(text):
        return ()
    _, relations = chunk_sentence(text)
    return tuple(dict.fromkeys(relation.text for relation in relations if relation.kind in _PLACES))


def check_rerank(rerank: int) -> None:
    """Refuse what is no number of pictures to compare.

    Args:
        rerank: How many.

    Raises:
        InputError: It is no integer, or less than 1.
    """
    if isinstance(rerank, bool) or not isinstance(rerank, int | np.integer) or rerank < 1:
        raise InputError(
            f"rerank is how many pictures are compared with what the query says of places, an integer of at least 1, "
            f"got {rerank!r}; leave explain out to look at none"
        )


def depth(k: int, queries: Sequence[Query], rerank: int = SHORTLIST) -> int:
    """How many hits a search must find for `explain_hits`.

    Args:
        k: How many are wanted.
        queries: The queries.
        rerank: As for `explain_hits`.

    Returns:
        At least `k`; 0 where none is wanted.
    """
    return max(k, rerank) if k and any(map(places_in, queries)) else k


def explain_hits(
    hits: Sequence[Hit],
    query: Query,
    aligner: Aligner,
    *,
    k: int,
    rerank: int = SHORTLIST,
    on_hit: Callable[[Hit], None] | None = None,
    progress: bool = True,
) -> Explained:
    """Look for the words of a query in its hits, and put these in order where the query says where things are.

    With such words, the first `rerank` hits are put in order by their cosine, in standard deviations of these hits,
    plus what the picture bears out of the places, in nats: how much the objective of the alignment gains or loses by
    the relations. Hits after these, where more are wanted, stay behind them and are not looked at.

    Args:
        hits: Best first: as many as there are, up to `depth`.
        query: A query that adds words.
        aligner: Of the encoder that found them.
        k: How many hits are wanted.
        rerank: How many are looked at, at most, where the query says where things are; at least 1.
        on_hit: Called with each hit once it was looked at, in the order in which they came.
        progress: Whether to show a progress bar.

    Returns:
        The first `k`; those whose picture cannot be read have no regions, and a note says how many these are. After
        Ctrl-C, those that were looked at until then are explained and in order, and the others follow as they were.
    """
    text = words_of(query)
    assert text is not None
    told = places_in(query)
    wanted = hits[:rerank] if told else hits[:k]
    looked: list[Hit] = []
    lost = 0
    notes: list[Note] = []
    stopped = False
    try:
        with track("Looking for the words", len(wanted), enabled=progress and bool(wanted)) as advance:
            for hit in wanted:
                alignment = _align(hit, text, aligner)
                if alignment is None:
                    lost += 1
                elif not notes:
                    notes = [*alignment.notes]
                looked.append(_with_regions(hit, alignment, ordered=bool(told)))
                if on_hit is not None:
                    on_hit(looked[-1])
                advance(1)
    except KeyboardInterrupt:
        stopped = True
    if lost:
        notes.append(Note(f"{lost} of {len(looked)} pictures could not be read, and have no regions"))
    if told and len(looked) > 1:
        worth = blend([hit.score for hit in looked], [hit.agreement or 0.0 for hit in looked])
        compared = len(looked)
        looked = [looked[i] for i in np.argsort(-worth, kind="stable")]
        notes.append(
            Note(
                f"the best {compared} hits are in order of how well their pictures bear out {_quoted(told)}, as "
                "well as of the score"
            )
        )
    found = (*looked, *hits[len(looked) :])[:k]
    if len(found) > len(looked):
        rest = f"only the first {len(looked)} hits were looked at; the other {len(found) - len(looked)} have no regions"
        if not looked:
            rest = "no hit was looked at, and none has regions"
        notes.append(Note(rest, remedy="" if stopped else f"rerank={k} (--rerank {k}) looks at all of them"))
    return Explained(found, tuple(notes), stopped)


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
    """Say that a query's words on places count for nothing without `explain`, where it has such.

    Args:
        query: The query.

    Returns:
        The remark, or nothing.
    """
    told = places_in(query)
    if not told:
        return ()
    return (
        Note(
            f"the query says where things are ({_quoted(told)}), which vectors hardly tell",
            remedy=f"explain=True (--explain) compares the best {SHORTLIST} pictures with that",
        ),
    )


def _quoted(words: Sequence[str]) -> str:
    return " and ".join(f"'{word}'" for word in words)


def _align(hit: Hit, text: str, aligner: Aligner) -> Alignment | None:
    try:
        picture = decode_image(hit.uri).image if hit.uri else None
    except DecodeError:
        return None
    if picture is None:
        return None
    found = aligner.align(picture, text)
    # Words of which none is known to be a noun, as in another language, are looked for as they are.
    return found if found.phrases else aligner.align(picture, text, phrases=[text])


def _with_regions(hit: Hit, alignment: Alignment | None, *, ordered: bool) -> Hit:
    if alignment is None:
        return hit
    regions = tuple(
        HitRegion(alignment.phrases[link.phrase].text, alignment.regions[link.region].box, float(link.score))
        for link in alignment.links
    )
    return replace(hit, regions=regions, agreement=agreement(alignment) if ordered else None)


def agreement(alignment: Alignment) -> float:
    """Say how much the relations of a sentence add to or take from the worth of its best alignment with a picture.

    The worth of the regions by themselves depends on how many regions a picture has; this difference does not.

    Args:
        alignment: Of the solver `graph`.

    Returns:
        In nats: above 0 where the picture bears the relations out, below 0 where it speaks against them, 0 where
        their phrases are not found.
    """
    from mmalign.matching import solve

    alone = solve(replace(alignment.problem, weight=0.0), solver="graph")
    return float(alignment.objective - alone.objective)
