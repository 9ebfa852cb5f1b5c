"""Probabilities of what a search found, and what is left of it when only the likely hits are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmalign.calibration import FILE, MARGIN_HITS, Calibration
from mmalign.encoders import Calibrated, Encoder
from mmalign.errors import CalibrationError, QueryError
from mmalign.search.query import Query, distinct
from mmalign.search.rerank import Ranking, RerankRequest
from mmalign.types import Note, check_share

# Collections up to so many times the largest gallery that a calibration was fitted on need no remark.
_FAR = 10


def check_probability(least: float | None, queries: Sequence[Query]) -> None:
    """Refuse what is no probability, and queries that have none.

    Args:
        least: A number from 0 to 1, or None.
        queries: The queries; only those in words alone were calibrated.

    Raises:
        InputError: Any other value.
        QueryError: `least` with a query that is not words alone.
    """
    if least is None:
        return
    check_share("min_probability", least)
    other = next((query for query in queries if not query.is_words), None)
    if other is not None:
        raise QueryError(
            f"min_probability needs a query in words alone, got {str(other)!r}: the probabilities were measured on "
            "sentences that describe one picture; leave it out for pictures, vectors and composed queries"
        )


def find_calibration(folder: Path, encoder: Encoder, *, fingerprint: str | None) -> Calibration | None:
    """Find what turns the scores of a collection into probabilities.

    Args:
        folder: The collection; a calibration that lies in it comes first, where it is one of this encoder.
        encoder: The collection's encoder, which may bring one as its attribute `calibration`.
        fingerprint: That encoder's.

    Returns:
        The calibration; None where there is none.

    Raises:
        CalibrationError: There is one alone that is damaged, or of another encoder.
    """
    try:
        own: Calibration | None = Calibration.read(folder / FILE) if (folder / FILE).exists() else None
        if own is not None:
            own.check(fingerprint, name=encoder.name)
            return own
    except CalibrationError:
        if not isinstance(encoder, Calibrated) or encoder.calibration is None:
            raise
    brought = encoder.calibration if isinstance(encoder, Calibrated) else None
    if brought is not None:
        brought.check(fingerprint, name=encoder.name)
    return brought


@dataclass(frozen=True, slots=True)
class Probability:
    """The reranker that gives hits of queries in words their probabilities, and drops what is unlikely.

    Attributes:
        calibration: Gives the calibration of the encoder, or None; called only where there is a query in words.
        least: Hits below this probability are dropped, 0 to 1; None keeps all.
    """

    calibration: Callable[[], Calibration | None]
    least: float | None = None

    def check(self, queries: Sequence[Query]) -> None:
        """See `check_probability`."""
        check_probability(self.least, queries)

    def fetch_k(self, k: int, queries: Sequence[Query]) -> int:
        """As many as are wanted, and as many as a hit is judged by."""
        return max(k, MARGIN_HITS) if k and any(query.is_words for query in distinct(queries)) else k

    def apply(self, request: RerankRequest, ranking: Ranking) -> Ranking:
        """Give probabilities, and keep what is likely.

        Args:
            request: How many hits are wanted.
            ranking: As it was found.

        Returns:
            The hits that are left.

        Raises:
            CalibrationError: A least probability without a calibration, or with that of another encoder.
        """
        found, read = ranking.found, ranking.read
        assert found is not None
        assert read is not None
        queries, pictures = ranking.queries, ranking.searched
        notes: list[tuple[Note, ...]] = [()] * len(queries)
        worded = {query for query in distinct(queries) if query.is_words}
        words = [position for position, query in enumerate(queries) if query in worded] if worded else []
        # None where nobody asked in words.
        probabilities = np.full(found.scores.shape, np.nan) if words else None
        fitted = None
        if words:
            try:
                fitted = self.calibration()
            except CalibrationError as error:
                # A search that asked for no probability goes on without.
                if self.least is not None:
                    raise
                for position in words:
                    notes[position] = (Note(f"no probabilities: {error}", about="calibration"),)
        if fitted is not None and probabilities is not None and pictures:
            scores = np.where(found.row_ids[words] >= 0, found.scores[words], -np.inf)
            probabilities[words] = fitted.probabilities(scores, pictures=pictures)
            probabilities[list(ranking.meaningless)] = np.nan
            if pictures > _FAR * fitted.largest:
                remark = Note(
                    f"the probabilities were measured among {fitted.smallest:,} to {fitted.largest:,} pictures, and "
                    f"reach out to the {pictures:,} searched here",
                    about="calibration",
                )
                for position in words:
                    notes[position] += (remark,)
        elif fitted is None and self.least is not None and queries:
            raise CalibrationError(
                "min_probability needs an encoder whose scores were calibrated, and this one's were not; fit a "
                "calibration with `mmalign eval calibration --manifest FILE --encoder ENCODER --out DIR` and put its "
                "calibration.json into the collection's folder, or leave min_probability out"
            )
        if self.least is not None or found.row_ids.shape[1] > request.k:
            found = replace(found, row_ids=found.row_ids.copy())
            found.row_ids[:, request.k :] = -1
        if self.least is not None and probabilities is not None:
            row_ids = found.row_ids
            # What has no probability is not known to be likely.
            unlikely = (row_ids >= 0) & ~(probabilities >= self.least)
            row_ids[unlikely] = -1
            for position in words:
                gone = unlikely[position].any() and not (row_ids[position] >= 0).any()
                if gone and position not in ranking.meaningless:
                    best = probabilities[position, 0]
                    below = f"the best hit has probability {best:.2g}, below min_probability {self.least:g}"
                    notes[position] += (Note(below),)
        merged = tuple(one + other for one, other in zip(ranking.notes, notes, strict=True)) if any(notes) else None
        return Ranking(
            queries=queries,
            hits=read(found, probabilities),
            notes=ranking.notes if merged is None else merged,
            searched=pictures,
            meaningless=ranking.meaningless,
            found=found,
            read=read,
            looked=ranking.looked,
            stopped=ranking.stopped,
        )
