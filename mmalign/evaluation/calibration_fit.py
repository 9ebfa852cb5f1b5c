"""Fitting a calibration on trials, and judging trials by calibrations that never saw their pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from mmalign.calibration import Calibration, Float64Array, fit_isotonic, fit_platt, grouped_folds, hit_features
from mmalign.evaluation.galleries import Trials
from mmalign.utils import Int64Array


class Method(StrEnum):
    """How log-odds become probabilities.

    Attributes:
        PLATT: By the logistic function: smooth, steady also on little data.
        ISOTONIC: By the rising function nearest to the outcomes: bends with the data, needs more of it.
    """

    PLATT = "platt"
    ISOTONIC = "isotonic"


@dataclass(frozen=True, slots=True)
class FoldedCalibrations:
    """One calibration for each fold of pictures, fitted on the other folds.

    Attributes:
        calibrations: One a fold.
        folds: Fold of each picture, shape (n,).
    """

    calibrations: tuple[Calibration, ...]
    folds: Int64Array

    def probabilities(self, trials: Trials) -> Float64Array:
        """Judge each trial by the calibration that never saw the picture that its query describes.

        Args:
            trials: m trials.

        Returns:
            Shape (m, 5), float64, 0 to 1.
        """
        result = np.zeros(trials.scores.shape)
        fold_of = self.folds[trials.owner]
        for fold, calibration in enumerate(self.calibrations):
            chosen = fold_of == fold
            if chosen.any():
                result[chosen] = calibration.probabilities(trials.scores[chosen], pictures=trials.pictures[chosen])
        return result


def fit_calibration(
    answerable: Trials,
    unanswerable: Trials,
    *,
    method: Method = Method.PLATT,
    encoder: str,
    fingerprint: str,
    fitted_on: str = "",
) -> Calibration:
    """Fit a calibration.

    How much the score and the lead count against one another is learned on both kinds of trials, half of them
    without an answer: on answerable queries alone the lead would count so much that a query with no right answer,
    whose best wrong hit leads by chance, passes almost as often as others. The level and the slope are then fitted
    on answerable queries alone, for which the probabilities are to be right.

    Args:
        answerable: Queries whose picture is in the gallery.
        unanswerable: The same without their pictures.
        method: How log-odds become probabilities.
        encoder: Name of the encoder.
        fingerprint: Its fingerprint.
        fitted_on: The data, in words.

    Returns:
        The calibration.

    Raises:
        InputError: All best hits are right, or all wrong.

    Source: Platt, 1999, and Zadrozny and Elkan, 2002; see `mmalign.calibration.fit`.
    """
    features = np.column_stack([part[:, 0] for part in hit_features(answerable.scores, pictures=answerable.pictures)])
    nothing = np.column_stack(
        [part[:, 0] for part in hit_features(unanswerable.scores, pictures=unanswerable.pictures)]
    )
    right = answerable.right[:, 0]
    both = np.concatenate([features, nothing])
    mixed, _ = fit_platt(both, np.concatenate([right, unanswerable.right[:, 0]]), rising=[True, True, False])
    along = features[:, :2] @ mixed[:2]
    (slope, size_weight), bias = fit_platt(np.column_stack([along, features[:, 2]]), right, rising=[True, False])
    fitted = Calibration(
        encoder=encoder,
        fingerprint=fingerprint,
        score_weight=float(slope * mixed[0]),
        margin_weight=float(slope * mixed[1]),
        size_weight=float(size_weight),
        bias=bias,
        smallest=int(answerable.pictures.min()),
        largest=int(answerable.pictures.max()),
        fitted_on=fitted_on,
    )
    if method is Method.PLATT:
        return fitted
    log_odds = fitted.log_odds(answerable.scores, pictures=answerable.pictures)[:, 0]
    knots = fit_isotonic(log_odds, right)
    return replace(fitted, knots=tuple(zip(*(part.tolist() for part in knots), strict=True)))


def cross_fit(
    fit: Callable[[Trials, Trials], Calibration], answerable: Trials, unanswerable: Trials, *, folds: int, seed: int = 0
) -> FoldedCalibrations:
    """Fit one calibration for each fold of pictures, without the queries that describe them.

    Args:
        fit: Fits a calibration on answerable and unanswerable trials.
        answerable: Queries whose picture is in the gallery.
        unanswerable: The same without their pictures.
        folds: How many.
        seed: Of the folds.

    Returns:
        The calibrations.

    Raises:
        InputError: More folds than pictures, or a fold without which all best hits are right, or all wrong.
    """
    pictures = int(answerable.owner.max()) + 1
    fold_of = grouped_folds(np.arange(pictures), folds, seed=seed)
    calibrations = []
    for fold in range(folds):
        fits = [trials[fold_of[trials.owner] != fold] for trials in (answerable, unanswerable)]
        calibrations.append(fit(*fits))
    return FoldedCalibrations(tuple(calibrations), fold_of)
