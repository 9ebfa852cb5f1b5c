"""What turns search scores into probabilities: a small value that is kept beside an encoder's weights."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmalign.calibration.fit import sigmoid
from mmalign.calibration.metrics import Float64Array
from mmalign.errors import CalibrationError, InputError
from mmalign.utils import CHECKSUM_KEY, holds_checksum, with_checksum, write_atomic

FILE = "calibration.json"
"""Name of the file that `mmalign eval calibration` writes and that a collection may hold."""
MARGIN_HITS = 5
"""Hits that a search fetches at least, to see by how much the first leads, copies of one picture left out."""

_FORMAT = 1
_EVENT = "the picture at the top of the hits is the one that the text was written about"
# The margin was once called the lead, and is so in files.
_MARGIN_KEY = "lead_weight"
# Copies of one picture have one score, but for the last digits that BLAS leaves to chance.
_SAME = 1e-6


@dataclass(frozen=True, slots=True)
class Calibration:
    """From the scores of a text query's hits, and the number of pictures searched, to probabilities.

    The log-odds are `score_weight * score + margin_weight * margin + size_weight * log(pictures) + bias`. A hit's
    margin is by how much it beats the best other picture: below 0 for all but the first. It tells a clear answer from
    one of many, the score tells whether there is an answer at all, and the size takes account of chance: among more
    pictures, more wrong ones score high.

    Attributes:
        encoder: Name of the encoder that it was fitted for.
        fingerprint: That encoder's fingerprint; no other encoder's scores mean the same.
        score_weight: At least 0.
        margin_weight: At least 0.
        size_weight: Per natural logarithm of the number of pictures.
        bias: Log-odds.
        knots: `(log-odds, probability)` pairs, both rising, which replace the logistic function; none for that.
        smallest: Pictures of the smallest gallery that it was fitted on, at least 1. A smaller collection counts as
            one of this size: among three pictures the best one is easily the best, and no more likely right.
        largest: Pictures of the largest gallery that it was fitted on.
        fitted_on: The data, in words.

    Raises:
        InputError: A value outside its range.

    Source: logistic (Platt, 1999) or isotonic calibration; `mmalign.evaluation.calibration` fits it.
    """

    encoder: str
    fingerprint: str
    score_weight: float
    margin_weight: float
    size_weight: float
    bias: float
    smallest: int
    largest: int
    knots: tuple[tuple[float, float], ...] = ()
    fitted_on: str = ""

    def __post_init__(self) -> None:
        numbers = (self.score_weight, self.margin_weight, self.size_weight, self.bias, *sum(self.knots, ()))
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise InputError(f"a calibration holds finite numbers, got {numbers}")
        if self.score_weight < 0 or self.margin_weight < 0:
            raise InputError(
                f"a better hit must not be less probable, got score_weight={self.score_weight}, "
                f"margin_weight={self.margin_weight}"
            )
        if not self.fingerprint or not isinstance(self.fingerprint, str):
            raise InputError("a calibration names the fingerprint of its encoder, got none")
        if not 1 <= self.smallest <= self.largest:
            raise InputError(f"expected 1 <= smallest <= largest, got {self.smallest} and {self.largest}")
        places, values = [x for x, _ in self.knots], [p for _, p in self.knots]
        if any(a >= b for a, b in pairwise(places)) or sorted(values) != values:
            raise InputError(f"the knots of a calibration rise, got {self.knots}")
        if values and not 0 <= values[0] <= values[-1] <= 1:
            raise InputError(f"the knots of a calibration are probabilities, got {values[0]}..{values[-1]}")

    def log_odds(self, scores: ArrayLike, *, pictures: ArrayLike) -> Float64Array:
        """The weighted evidence for each hit.

        Args:
            scores: Cosines of the hits of q queries, best first, shape (q, k); -inf in empty places. The margin is
                seen only where there are two hits.
            pictures: How many pictures were searched, at least 1: one number, or one for each query.

        Returns:
            Shape (q, k), float64; -inf in empty places.
        """
        score, margin, size = hit_features(scores, pictures=np.maximum(pictures, self.smallest))
        # An empty place has no margin; -inf * 0 would be NaN.
        total = np.where(np.isfinite(score), score, 0) * self.score_weight + margin * self.margin_weight
        result: Float64Array = np.where(np.isfinite(score), total + size * self.size_weight + self.bias, -np.inf)
        return result

    def probabilities(self, scores: ArrayLike, *, pictures: ArrayLike) -> Float64Array:
        """The probability of each hit, falling along a row.

        Args:
            scores: As for `log_odds`.
            pictures: As for `log_odds`.

        Returns:
            Shape (q, k), float64, 0 to 1; 0 in empty places.
        """
        log_odds = self.log_odds(scores, pictures=pictures)
        if not self.knots:
            return sigmoid(log_odds)
        places, values = zip(*self.knots, strict=True)
        return np.where(np.isfinite(log_odds), np.interp(log_odds, places, values), 0.0)

    def check(self, fingerprint: str | None, *, name: str | None) -> None:
        """Refuse to judge the scores of another encoder.

        Args:
            fingerprint: That of the encoder whose scores are to be judged.
            name: Its name, for the error's text.

        Raises:
            CalibrationError: It is another one.
        """
        if fingerprint != self.fingerprint:
            raise CalibrationError(
                f"the calibration was fitted for {self.encoder} (fingerprint {self.fingerprint[:12]}), got scores of "
                f"{name} (fingerprint {str(fingerprint)[:12]}); fit one with: mmalign eval calibration"
            )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON, in one step.

        Args:
            path: The file.

        Raises:
            OSError: The disk refused.
        """
        payload: dict[str, Any] = {"format": _FORMAT, "event": _EVENT} | asdict(self)
        payload[_MARGIN_KEY] = payload.pop("margin_weight")
        write_atomic(Path(path), json.dumps(with_checksum(payload), indent=2) + "\n")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read what `write` wrote.

        Args:
            path: The file.

        Returns:
            The calibration.

        Raises:
            CalibrationError: The file cannot be read, or is none or of a newer mmalign.
        """
        where = Path(path)
        try:
            payload = json.loads(where.read_text(encoding="utf-8"))
            if not holds_checksum(payload):
                raise ValueError("it is damaged: its checksum is another one")
            payload.pop(CHECKSUM_KEY, None)
            version = payload.pop("format")
            payload.pop("event", None)
            if version != _FORMAT:
                raise CalibrationError(f"{where}: expected format {_FORMAT}, got {version}; update mmalign")
            payload["margin_weight"] = payload.pop(_MARGIN_KEY)
            unknown = set(payload) - {field.name for field in fields(cls)}
            if unknown:
                raise InputError(f"unknown entries {', '.join(sorted(unknown))}")
            payload["knots"] = tuple((float(x), float(p)) for x, p in payload.get("knots", ()))
            return cls(**payload)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise CalibrationError(
                f"{where} is no calibration ({error}); write one with: mmalign eval calibration"
            ) from error


def hit_features(scores: ArrayLike, *, pictures: ArrayLike) -> tuple[Float64Array, Float64Array, Float64Array]:
    """What a calibration weighs.

    Args:
        scores: Cosines of the hits of q queries, best first, shape (q, k); -inf in empty places.
        pictures: How many pictures were searched, at least 1: one number, or one for each query.

    Returns:
        `(score, margin, size)`, each of shape (q, k), float64: the scores, how much each hit beats the best other
        picture, and the natural logarithm of the number of pictures. Copies of the first picture are no rivals of
        it; the margin is 0 where there is no rival, and in empty places.

    Raises:
        InputError: Another shape, or no pictures.

    Example:
        >>> evidence([[0.75, 0.5, 0.25]], pictures=100)[1].tolist()
        [[0.25, -0.25, -0.5]]
    """
    score = np.asarray(scores, np.float64)
    if score.ndim != 2:
        raise InputError(f"expected scores of shape (q, k), got {score.shape}")
    counts = np.asarray(pictures, np.float64)
    if not (counts >= 1).all():
        raise InputError(f"pictures must be at least 1, got {counts.min():g}")
    size = np.broadcast_to(np.log(counts.reshape(-1, 1)), score.shape)
    if score.shape[1] == 0:
        return score, np.zeros_like(score), size
    there = np.isfinite(score)
    best = np.where(there[:, :1], score[:, :1], 0.0)
    first = there & (score >= best - _SAME)
    rival = np.max(np.where(there & ~first, score, -np.inf), axis=1, keepdims=True)
    rival = np.where(np.isfinite(rival), rival, best)
    margin = np.where(first, best - rival, np.where(there, score, best) - best)
    return score, margin, size
