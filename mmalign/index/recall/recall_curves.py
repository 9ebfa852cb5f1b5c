"""What an index promises: how much recall each effort was measured to give, for each kind of query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import IndexFileError, InputError
from mmalign.types import Note
from mmalign.utils import Float32Array

EXACT_ROWS = 20_000
"""Up to so many allowed rows a filter is answered exactly; measuring a recall stops there too."""
LEAST_DEPTH = 10
"""An index is asked for so many hits at least, however few are wanted, and measured so too."""
# Of the misses that a promise allows, so many are kept in reserve, since what is asked is never quite like what was
# measured: sentences of other people about other pictures missed up to a third more.
_RESERVE = 0.2
# Scores of one query in batches of other sizes differ by less; so do those of float16.
_ROUNDING = 2e-3


@dataclass(frozen=True, slots=True)
class RecallCurve:
    """Recall by effort, for one kind of query, one share of allowed rows and one number of hits.

    Recall is the share of the true k nearest that was found; a row that ties with the k-th counts as one of them.

    Attributes:
        kind: Of the queries, as `Query.kinds` tells them apart.
        share: Share of the rows that was allowed: 1.0 for no filter.
        k: How many hits were asked for.
        efforts: What was tried, rising; (1,) where effort means nothing.
        recall: Mean recall of the verifying queries at each effort.
        lower: Lower bound of the mean at the profile's confidence, at each effort.
        queries: How many verifying queries there were; none of them has chosen anything.
    """

    kind: str
    share: float
    k: int
    efforts: tuple[int, ...]
    recall: tuple[float, ...]
    lower: tuple[float, ...]
    queries: int

    def __post_init__(self) -> None:
        if not self.efforts or not len(self.efforts) == len(self.recall) == len(self.lower):
            raise InputError(
                f"a curve needs one recall and one bound for each effort, got {len(self.efforts)} efforts, "
                f"{len(self.recall)} recalls and {len(self.lower)} bounds"
            )
        if any(a >= b for a, b in pairwise(self.efforts)):
            raise InputError(f"efforts must rise, got {list(self.efforts)}")

    def effort_for(self, min_recall: float) -> int | None:
        """Choose the least effort that keeps a promise.

        Efforts are tested from the largest down, and the first whose bound is too low ends the test: by that order
        the confidence holds for the effort chosen, however many were looked at.

        Args:
            min_recall: What the mean recall must be, 0 to 1.

        Returns:
            The effort, or None where not even the largest keeps the promise.

        Source: fixed-sequence testing; Maurer, Hothorn, Lehmacher, Multiple comparisons in drug clinical trials and
            preclinical assays: a-priori ordered hypotheses, 1995.
        """
        chosen = None
        for effort, lower in zip(reversed(self.efforts), reversed(self.lower), strict=True):
            if lower < min_recall:
                break
            chosen = effort
        return chosen


@dataclass(frozen=True, slots=True)
class QueryRange:
    """Where the measured queries of a kind lie; one that lies elsewhere is none of those that recall was measured for.

    Attributes:
        score: The lowest score of a nearest vector.
        centre: Their mean, scaled to length 1, of shape (dim,).
        nearness: The least inner product of one of them with the centre.
    """

    score: float
    centre: tuple[float, ...]
    nearness: float
    # The centre as an array: each search compares with it, and to make one takes longer than that.
    _centre: Float32Array = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_centre", np.asarray(self.centre, np.float32))

    @classmethod
    def of(cls, vectors: Float32Array, best: Float32Array) -> QueryRange:
        """Describe queries.

        Args:
            vectors: Shape (q, dim), float32, of length 1; at least one.
            best: The score of the nearest vector of each, shape (q,).

        Returns:
            The range.
        """
        centre = vectors.mean(axis=0)
        centre = np.round(centre / max(float(np.linalg.norm(centre)), 1e-12), 5)
        return cls(
            float(best.min()),
            tuple(float(value) for value in centre),
            float((vectors @ centre.astype(np.float32)).min()),
        )

    def holds(self, vectors: Float32Array, best: Float32Array, *, unit_length: bool = True) -> NDArray[np.bool_]:
        """Say which queries lie where the measured ones lay, or nearer to the rows.

        Args:
            vectors: Shape (q, dim), float32, of length 1.
            best: The score of the best hit of each, shape (q,).
            unit_length: Whether the vectors that are searched are of length 1; else of any length.

        Returns:
            bool of shape (q,).
        """
        rounding = _ROUNDING if unit_length else _ROUNDING * abs(self.score)
        near: NDArray[np.bool_] = vectors @ self._centre >= self.nearness - _ROUNDING
        return near & (best >= self.score - rounding)


@dataclass(frozen=True, slots=True)
class RecallProfile:
    """What was measured of an index when it was built.

    Attributes:
        confidence: How sure each bound is, one-sided.
        curves: What was measured.
        ranges: By kind, where the queries lay that it was measured with; empty in what an earlier mmalign wrote.
        drift: What the check of drift compares later items with; JSON-ready.
        notes: Remarks for the person who built the index.
        min_recall: What the index was built to keep; None where nothing was asked for.
        logged: By kind, how many of the queries that it was measured with were really asked; no others of that kind
            were, then.
        unit_length: Whether the vectors are of length 1; else of any length.
    """

    confidence: float
    curves: tuple[RecallCurve, ...]
    ranges: Mapping[str, QueryRange] = field(default_factory=dict)
    drift: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    min_recall: float | None = None
    logged: Mapping[str, int] = field(default_factory=dict)
    unit_length: bool = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of query that were measured, in alphabetical order."""
        return tuple(sorted({curve.kind for curve in self.curves}))

    def outside(self, vectors: Float32Array, best: Float32Array, kinds: Sequence[str] | None) -> NDArray[np.bool_]:
        """Say which queries lie outside all that recall was measured for.

        Args:
            vectors: Shape (q, dim), float32, of length 1.
            best: The score of the best hit of each with a query of that length, shape (q,).
            kinds: The kinds that they may be of; None for any.

        Returns:
            bool of shape (q,); False for all where nothing is known of the kinds.
        """
        ranges = [one for kind, one in self.ranges.items() if kinds is None or kind in kinds]
        if not ranges:
            return np.zeros(len(vectors), np.bool_)
        holding = [one.holds(vectors, best, unit_length=self.unit_length) for one in ranges]
        inside: NDArray[np.bool_] = np.any(holding, axis=0)
        return ~inside

    def effort_for(self, min_recall: float, *, kinds: Sequence[str] | None, k: int, share: float = 1.0) -> int | None:
        """Choose the least effort at which a search keeps a promise.

        What lies between two measured numbers of hits, or two measured shares, takes the effort of whichever needs
        more. Nothing is promised beyond what was measured: more hits, a smaller share, another kind. A fifth of the
        misses that the promise allows is kept in reserve for queries a little unlike those that were measured with.

        Args:
            min_recall: What the mean recall over such queries must be, 0 to 1.
            kinds: The kinds that the query may be of, of which those count that were measured; None for all that were.
            k: How many hits, at least 1.
            share: Share of the rows that a filter allows, above 0 and up to 1.

        Returns:
            The effort, or None where only exact search keeps the promise.

        Raises:
            InputError: An argument out of range.
        """
        if not 0 <= min_recall <= 1:
            raise InputError(f"min_recall must be from 0 to 1, got {min_recall}")
        if k < 1 or not 0 < share <= 1:
            raise InputError(f"expected k of at least 1 and a share above 0 and up to 1, got k={k}, share={share}")
        wanted = min_recall + _RESERVE * (1 - min_recall) if min_recall else 0.0
        efforts: list[int | None] = []
        for one in self.kinds if kinds is None else [kind for kind in self.kinds if kind in kinds]:
            curves = [curve for curve in self.curves if curve.kind == one]
            shares = _around({curve.share for curve in curves}, share)
            if min(shares, default=2.0) > share:
                return None
            for measured in shares:
                ks = _around({curve.k for curve in curves if curve.share == measured}, k)
                if max(ks, default=0) < k:
                    return None
                efforts += [c.effort_for(wanted) for c in curves if c.share == measured and c.k in ks]
        known = [effort for effort in efforts if effort is not None]
        return max(known) if known and len(known) == len(efforts) else None

    def to_dict(self) -> dict[str, Any]:
        """Return the profile as JSON-ready values."""
        return {
            "confidence": self.confidence,
            "curves": [
                {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(curve).items()}
                for curve in self.curves
            ],
            "ranges": {
                kind: {"score": one.score, "centre": list(one.centre), "nearness": one.nearness}
                for kind, one in self.ranges.items()
            },
            "drift": dict(self.drift),
            "notes": [note.to_dict() for note in self.notes],
            "min_recall": self.min_recall,
            "logged": dict(self.logged),
            **({} if self.unit_length else {"unit_length": False}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RecallProfile | None:
        """Read what `to_dict` gave.

        Args:
            values: The profile's values, as an index's manifest holds them.

        Returns:
            The profile, or None where nothing was measured, as with an index of an earlier version.

        Raises:
            IndexFileError: Damaged.
        """
        if not values:
            return None
        try:
            curves = tuple(
                RecallCurve(
                    kind=str(one["kind"]),
                    share=_fraction(one["share"]),
                    k=int(one["k"]),
                    efforts=tuple(int(effort) for effort in one["efforts"]),
                    recall=tuple(_fraction(value) for value in one["recall"]),
                    lower=tuple(_fraction(value) for value in one["lower"]),
                    queries=int(one["queries"]),
                )
                for one in values["curves"]
            )
            notes = tuple(Note.read(note) for note in values.get("notes", ()))
            asked = values.get("min_recall")
            ranges = {
                str(kind): QueryRange(float(one["score"]), tuple(map(float, one["centre"])), float(one["nearness"]))
                for kind, one in values.get("ranges", {}).items()
            }
            return cls(
                confidence=_fraction(values["confidence"]),
                curves=curves,
                ranges=ranges,
                drift=dict(values.get("drift", {})),
                notes=notes,
                min_recall=None if asked is None else _fraction(asked),
                logged={str(kind): int(count) for kind, count in values.get("logged", {}).items()},
                unit_length=bool(values.get("unit_length", True)),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IndexFileError(f"the index's recall profile is damaged ({error!r}); build the index again") from error


def _around(measured: set[float] | set[int], wanted: float) -> list[float]:
    """Return the measured values that enclose a wanted one: itself, or the nearest on each side."""
    if wanted in measured:
        return [wanted]
    below = [value for value in measured if value < wanted]
    above = [value for value in measured if value > wanted]
    return ([max(below)] if below else []) + ([min(above)] if above else [])


def _fraction(value: Any) -> float:
    number = float(value)
    if not 0 <= number <= 1:
        raise ValueError(f"expected a number from 0 to 1, got {value!r}")
    return number
