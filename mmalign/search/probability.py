"""Probabilities of what a search found, and what is left of it when only the likely hits are wanted."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mmalign.calibration import FILE, RIVALS, Calibration, Float64Array
from mmalign.encoders import Calibrated, Encoder
from mmalign.errors import CalibrationError, QueryError
from mmalign.search.query import Query, distinct
from mmalign.search.searcher import Found
from mmalign.types import Note, check_share

# Collections up to so many times the largest gallery that a calibration was fitted on need no remark.
_FAR = 10


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found, with probabilities.

    Attributes:
        found: At most k hits a query; those below the least probability are emptied.
        probabilities: Shape (q, k'), float64, NaN where there is none.
        notes: Remarks for each of the q queries.
    """

    found: Found
    probabilities: Float64Array
    notes: tuple[tuple[Note, ...], ...]


def check_probability(least: float | None, queries: list[Query]) -> None:
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


def hits_to_fetch(k: int, queries: list[Query]) -> int:
    """How many hits a search must fetch, so that the first ones can be judged by their rivals.

    Args:
        k: How many are wanted.
        queries: The queries.

    Returns:
        At least `k`.
    """
    return max(k, RIVALS) if k and any(query.is_words for query in distinct(queries)) else k


def judge(
    found: Found,
    k: int,
    queries: list[Query],
    calibration: Callable[[], Calibration | None],
    *,
    pictures: int,
    min_probability: float | None,
    meaningless: Set[int] = frozenset(),
) -> Judged:
    """Give the hits of queries in words their probabilities, and drop what is unlikely.

    Args:
        found: Hits, best first.
        k: How many of them are wanted.
        queries: The q queries, all in words alone where `min_probability` is given.
        calibration: Gives the calibration of the encoder, or None; called only where there is a query in words.
        pictures: How many pictures were searched.
        min_probability: Hits below it are dropped; None keeps all.
        meaningless: Places of queries of whose words the encoder knows none. They get no probability, and with
            `min_probability` no hits.

    Returns:
        The hits that are left.

    Raises:
        CalibrationError: `min_probability` without a calibration, or with that of another encoder.
    """
    probabilities = np.full(found.scores.shape, np.nan)
    notes: list[tuple[Note, ...]] = [()] * len(queries)
    worded = {query for query in distinct(queries) if query.is_words}
    words = [position for position, query in enumerate(queries) if query in worded] if worded else []
    fitted = None
    if words:
        try:
            fitted = calibration()
        except CalibrationError as error:
            # A search that asked for no probability goes on without.
            if min_probability is not None:
                raise
            for position in words:
                notes[position] = (Note(f"no probabilities: {error}", about="calibration"),)
    if fitted is not None and pictures:
        scores = np.where(found.row_ids[words] >= 0, found.scores[words], -np.inf)
        probabilities[words] = fitted.probabilities(scores, pictures=pictures)
        probabilities[list(meaningless)] = np.nan
        if pictures > _FAR * fitted.largest:
            remark = Note(
                f"the probabilities were measured among {fitted.smallest:,} to {fitted.largest:,} pictures, and "
                f"reach out to the {pictures:,} searched here",
                about="calibration",
            )
            for position in words:
                notes[position] += (remark,)
    elif fitted is None and min_probability is not None and queries:
        raise CalibrationError(
            "min_probability needs an encoder whose scores were calibrated, and this one's were not; fit a "
            "calibration with `mmalign eval calibration --manifest FILE --encoder ENCODER --out DIR` and put its "
            "calibration.json into the collection's folder, or leave min_probability out"
        )
    row_ids = found.row_ids.copy()
    row_ids[:, k:] = -1
    if min_probability is not None:
        # What has no probability is not known to be likely.
        unlikely = (row_ids >= 0) & ~(probabilities >= min_probability)
        row_ids[unlikely] = -1
        for position in words:
            if position not in meaningless and unlikely[position].any() and not (row_ids[position] >= 0).any():
                best = probabilities[position, 0]
                below = f"the best hit has probability {best:.2g}, below min_probability {min_probability:g}"
                notes[position] += (Note(below),)
    return Judged(replace(found, row_ids=row_ids), probabilities, tuple(notes))
