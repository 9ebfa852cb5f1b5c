"""Fit what the trained head's signs are worth: which box a phrase means, and whether it is there at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from mmalign.errors import InputError
from mmalign.evaluation import PhrasePicture, is_named
from mmalign.grounding import Grounding, Scoring
from mmalign.metrics import iou_matrix
from mmalign.types import Box


@dataclass(frozen=True, slots=True, eq=False)
class BoxChoice:
    """A phrase and the boxes among which it is to be found.

    Attributes:
        found: What the head says of the picture.
        index: Of the phrase.
        asked: The boxes.
        right: Which of them are right, at least one.
        picture: The picture's number.
    """

    found: Grounding
    index: int
    asked: tuple[Box, ...]
    right: NDArray[np.bool_]
    picture: int


Locate = Callable[[int, Sequence[str]], Grounding | None]
"""Gives where phrases are in the picture of a number, or None where it cannot be decoded."""

_SHARPNESS = (0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
_STRANGERS = 4
# Weights are drawn to 0 by so much, as if by a few more phrases that say so.
_RIDGE = 1e-3


def fit_scoring(
    pictures: Sequence[PhrasePicture],
    look: Locate,
    *,
    propose: Callable[[int], Sequence[Box]] = lambda number: (),
    seed: int = 0,
) -> Scoring:
    """Fit the scores of boxes and the probability of being there, on pictures that the head was not trained on.

    Args:
        pictures: The pictures.
        look: The head, on them.
        propose: Gives the boxes that are proposed in the picture of a number, beside the head's own.
        seed: Of the draw of phrases that are not there.

    Returns:
        The scoring under which the right boxes are most probable among the true boxes of the picture, and among those
        that are proposed and that the head draws itself; and phrases of the picture against those of others.

    Raises:
        InputError: No picture can be decoded.

    Source: logistic regression; with several right boxes, the logarithm of their probability together.
    """
    rng = np.random.default_rng(seed)
    every = [phrase for picture in pictures for phrase in picture.phrases]
    boxes: list[BoxChoice] = []
    signs: list[NDArray[Any]] = []
    there: list[NDArray[Any]] = []
    for number, picture in enumerate(pictures):
        text = " ".join((*picture.captions, *picture.phrases))
        drawn = [every[int(index)] for index in rng.integers(len(every), size=_STRANGERS)]
        strange = [phrase for phrase in drawn if not is_named(phrase, text)]
        found = look(number, [*picture.phrases, *strange])
        if found is None:
            continue
        own = [region.box for regions in found.regions(most=5)[: len(picture.phrases)] for region in regions]
        given = [Box(*row) for row in np.unique(np.concatenate(picture.boxes), axis=0).tolist()]
        for asked in (given, [*propose(number), *own]):
            overlaps = iou_matrix([box.to_list() for box in asked], np.concatenate(picture.boxes)) >= 0.5
            ends = np.cumsum([len(true) for true in picture.boxes])
            for index, (true, end) in enumerate(zip(picture.boxes, ends, strict=True)):
                right = np.asarray(overlaps[:, end - len(true) : end].any(axis=1))
                if right.any():
                    boxes.append(BoxChoice(found, index, tuple(asked), right, number))
        signs.append(found.existence_signs)
        there.append(np.arange(len(picture.phrases) + len(strange)) < len(picture.phrases))
    if not signs:
        raise InputError("none of the pictures to fit the scores on can be decoded")
    existence = _fit_existence(np.concatenate(signs), np.concatenate(there))
    fits = [_fit_boxes(boxes, sharpness) for sharpness in _SHARPNESS]
    best = min(range(len(fits)), key=lambda place: fits[place][1])
    overlap, inside, density = (float(weight) for weight in fits[best][0])
    return Scoring(_SHARPNESS[best], overlap, inside, density, existence)


def _fit_boxes(boxes: Sequence[BoxChoice], sharpness: float) -> tuple[NDArray[np.float64], float]:
    """Weights of the box signs, and the mean negative log probability of the right boxes under them."""
    known: dict[tuple[int, tuple[Box, ...]], NDArray[Any]] = {}
    rows = []
    for choice in boxes:
        key = (choice.picture, choice.asked)
        if key not in known:
            sharp = replace(choice.found, scoring=replace(choice.found.scoring, sharpness=sharpness))
            known[key] = sharp.box_signs(choice.asked).astype(np.float64)
        rows.append(known[key][choice.index])
    widest = max(map(len, rows))
    signs = np.stack([np.pad(row, ((0, widest - len(row)), (0, 0))) for row in rows])
    asked_for = np.stack([np.arange(widest) < len(row) for row in rows])
    hit = np.stack([np.pad(choice.right, (0, widest - len(choice.right))) for choice in boxes])

    def loss(weights: NDArray[np.float64]) -> float:
        scores = np.where(asked_for, signs @ weights, -np.inf)
        likelihoods = logsumexp(np.where(hit, scores, -np.inf), axis=1) - logsumexp(scores, axis=1)
        return float(-likelihoods.mean() + _RIDGE * (weights**2).sum())

    # Shares of what lies inside only ever speak for a box.
    found_weights = minimize(loss, np.array([1.0, 0.1, 0.1]), method="L-BFGS-B", bounds=[(0.1, 10), (0, 5), (0, 5)])
    return found_weights.x, float(found_weights.fun)


def _fit_existence(signs: NDArray[Any], there: NDArray[Any]) -> tuple[float, float, float, float]:
    scale = signs.std(axis=0) + 1e-6
    scale[0] = 1.0
    rows, wanted = signs / scale, there.astype(np.float64)
    # Both kinds count the same: half of what is asked is taken to be there.
    weight = np.where(there, 0.5 / max(1.0, wanted.sum()), 0.5 / max(1.0, (1 - wanted).sum()))

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        odds = rows @ weights
        value = float((weight * (np.logaddexp(0, odds) - wanted * odds)).sum() + _RIDGE * (weights[1:] ** 2).sum())
        slope = rows.T @ (weight * (expit(odds) - wanted))
        slope[1:] += 2 * _RIDGE * weights[1:]
        return value, slope

    fitted = minimize(loss, np.zeros(4), jac=True, method="L-BFGS-B").x / scale
    constant, best, peak, cosine = (float(value) for value in fitted)
    return constant, best, peak, cosine
