"""Which of the hits that were found are given: those from a score on, and a page of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mmalign.errors import InputError
from mmalign.search.rerank import Ranking
from mmalign.search.searcher import FoundRows
from mmalign.types import Hit, Note, check_integer, check_number

MOST_IN_RANGE = 10_000
"""More hits than this a search without `k` does not give at once."""
# How deep a search with a least score looks first, and how much deeper it goes on where all of that was above it. An
# index's recall is measured for as many hits as the first; for more, all items are compared with.
_FIRST, _DEEPER = 100, 4


@dataclass(frozen=True, slots=True)
class ScoreRange:
    """Which hits are given of those that were found.

    Attributes:
        k: How many at most; None for all from `min_score` on.
        min_score: The least score; None for any.
        offset: How many of the best are left out.
    """

    k: int | None
    min_score: float | None = None
    offset: int = 0

    @classmethod
    def checked(cls, k: int | None, min_score: Any, offset: Any) -> ScoreRange:
        """Make one of what a caller gave.

        Args:
            k: An integer of at least 0, or None.
            min_score: As for `Collection.search`.
            offset: As for `Collection.search`.

        Raises:
            InputError: `min_score` is no finite number, `offset` no integer of at least 0, or `k` is None without
                a `min_score`.
        """
        if min_score is not None:
            check_number("min_score", min_score)
        elif k is None:
            raise InputError("k=None gives all hits from min_score on; give a min_score, or say how many hits as k")
        check_integer("offset", offset, least=0)
        return cls(k, None if min_score is None else float(min_score), int(offset))

    def check_cosine(self) -> None:
        """Refuse a least score that no cosine can have.

        Raises:
            InputError: It is not from -1 to 1.
        """
        if self.min_score is not None and not -1 <= self.min_score <= 1:
            raise InputError(f"min_score is a cosine from -1 to 1, got {self.min_score:g}")

    @property
    def depth(self) -> int:
        """How many hits there must be at most to choose from; without `k` one more, which tells whether there are."""
        return self.offset + (MOST_IN_RANGE + 1 if self.k is None else self.k)

    @property
    def page(self) -> int:
        """How many hits are given at most."""
        return MOST_IN_RANGE if self.k is None else self.k

    def find(self, look: Callable[[int], FoundRows], fetch: int) -> FoundRows:
        """Search no deeper than it takes to come below the least score.

        Args:
            look: Finds so many hits.
            fetch: How many at most.

        Returns:
            What was found: as by `look(fetch)`, perhaps without hits below the least score.
        """
        if self.min_score is None:
            return look(fetch)
        depth = min(fetch, _FIRST)
        while True:
            found = look(depth)
            last = found.scores[:, -1:].astype(float)
            if depth == fetch or found.scores.shape[1] < depth or not (last >= self.min_score).any():
                return found
            depth = min(fetch, _DEEPER * depth)

    def keep(self, ranking: Ranking) -> Ranking:
        """Leave out hits below the least score.

        Args:
            ranking: As it was found, best score first.

        Returns:
            What is left, with notes: where that is nothing, what the best hit has; where there are more than are given;
            and where an index may have missed some that the page has room for.
        """
        least, found, hits = self.min_score, ranking.found, ranking.hits
        if least is None or found is None:
            return ranking
        remarks: list[tuple[Note, ...]] = []
        most = self.offset + self.page
        for place, how in enumerate(found.how_each()):
            there = found.scores[place][found.row_ids[place] >= 0].astype(float)
            left = int((there >= least).sum())
            remark: tuple[Note, ...] = ()
            if not left and len(there) and place not in ranking.meaningless:
                remark = (Note(f"the best hit has score {there[0]:.3g}, below min_score {least:g}"),)
            elif self.k is None and left > most:
                text = f"more than {most:,} hits have a score of {least:g} or more"
                remark = (Note(text, remedy=f"offset={most} gives those that follow"),)
            if not how.exact and left < most:
                remark += (_perhaps_more(least),)
            remarks.append(remark)
        kept = replace(ranking, hits=lambda place: _above(hits(place), least), found=None, read=None)
        return kept.with_notes(remarks) if any(remarks) else kept

    def cut(self, ranking: Ranking) -> Ranking:
        """Leave out the hits before `offset`, and those beyond the page.

        Args:
            ranking: In its last order.
        """
        if not self.offset and self.k is not None:
            return ranking
        hits, page = ranking.hits, slice(self.offset, self.offset + self.page)
        looked = tuple(max(0, count - self.offset) for count in ranking.looked)
        return replace(ranking, hits=lambda place: hits(place)[page], looked=looked, found=None, read=None)


def _perhaps_more(least: float) -> Note:
    text = f"the index may have missed hits with a score of {least:g} or more"
    return Note(text, remedy="min_recall=1 compares with every item", about="index")


def _above(hits: tuple[Hit, ...], least: float) -> tuple[Hit, ...]:
    return tuple(hit for hit in hits if hit.score >= least)
