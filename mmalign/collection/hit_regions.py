"""Looking for the words of a query in the pictures of its hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mmalign.errors import DecodeError
from mmalign.media import decode_image
from mmalign.search import Query, RerankRequest
from mmalign.types import Hit, HitRegion, Note
from mmalign.utils import track

if TYPE_CHECKING:
    from mmalign.alignment import Aligner, Alignment


@dataclass(frozen=True, slots=True)
class RegionHits:
    """Hits at whose pictures somebody has looked.

    Attributes:
        hits: In the order in which they came, with the regions that the words have in them. Those whose picture cannot
            be read have none.
        agreements: For each, how much the picture bears out what the query says of places, in nats; see `agreement`.
        notes: Remarks that a person should see.
        stopped: Whether Ctrl-C came before all were looked at; `hits` are those before it.
    """

    hits: tuple[Hit, ...]
    agreements: tuple[float, ...] = ()
    notes: tuple[Note, ...] = ()
    stopped: bool = False


def query_text(query: Query) -> str | None:
    """Give the words that a query adds, as sentences.

    Args:
        query: The query.

    Returns:
        Its terms of words with a weight above 0, one sentence each; None where it has none.
    """
    texts = [term.value for term in query.terms if isinstance(term.value, str) and term.weight > 0]
    return ". ".join(texts) or None


def find_regions(
    hits: Sequence[Hit], query: Query, aligner: Aligner, request: RerankRequest, *, compare: bool = False
) -> RegionHits:
    """Look for the words of a query in the pictures of some hits.

    Args:
        hits: The hits.
        query: A query that adds words.
        aligner: Of the encoder that found them.
        request: Who is told of each hit, and whether there is a progress bar.
        compare: Whether the agreements are wanted, too.

    Returns:
        The hits with their regions; after Ctrl-C, those that were looked at until then.
    """
    text = query_text(query)
    assert text is not None
    looked: list[Hit] = []
    agreements: list[float] = []
    lost = 0
    notes: list[Note] = []
    stopped = False
    try:
        with track("Looking for the words", len(hits), enabled=request.progress and bool(hits)) as advance:
            for hit in hits:
                alignment = _align(hit, text, aligner)
                if alignment is None:
                    lost += 1
                elif not notes:
                    notes = [*alignment.notes]
                found = None if alignment is None or not compare else agreement(alignment)
                agreements.append(found or 0.0)
                looked.append(_with_regions(hit, alignment, found))
                if request.on_hit is not None:
                    request.on_hit(looked[-1])
                advance(1)
    except KeyboardInterrupt:
        stopped = True
    if lost:
        notes.append(Note(f"{lost} of {len(looked)} pictures could not be read, and have no regions"))
    return RegionHits(tuple(looked), tuple(agreements[: len(looked)]), tuple(notes), stopped)


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


def _with_regions(hit: Hit, alignment: Alignment | None, agreement: float | None) -> Hit:
    if alignment is None:
        return hit
    regions = tuple(
        HitRegion(alignment.phrases[link.phrase].text, alignment.regions[link.region].box, float(link.score))
        for link in alignment.links
    )
    return replace(hit, regions=regions, agreement=agreement)


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
