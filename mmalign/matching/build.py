"""From similarities, phrases and boxes to a problem of matching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logit, logsumexp

from mmalign.errors import DimensionError, InputError
from mmalign.matching.problem import Edge, FloatArray, Problem
from mmalign.matching.spatial import mutual_iou, relation_scores, relation_weights
from mmalign.types import Box, Phrase, Relation, field_values


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """How similarities and relations are weighed against one another.

    Attributes:
        temperature: Of the softmax over regions and over phrases, above 0: what difference of similarity counts.
        relation_weight: How much a relation counts beside a similarity, from 0.
        sharing: What it costs that two different things take the same region, in nats, from 0.
        threshold: Probability that a phrase is in the picture from which it is matched, above 0 and below 1.
        absence: Without probabilities, how many nats worse than its best region a phrase may be placed for the
            sake of the others before it is left without one.
        plural: How many regions a plural phrase takes at most that does not say of how many it speaks, from 1.
        capacity: How many different things may share a region, from 1, or None for any number.
    """

    temperature: float = 0.05
    relation_weight: float = 1.0
    sharing: float = 1.0
    threshold: float = 0.5
    absence: float = 5.0
    plural: int = 3
    capacity: int | None = None

    def __post_init__(self) -> None:
        values = field_values(self)
        for name, good, what in (
            ("temperature", self.temperature > 0, "above 0"),
            ("relation_weight", self.relation_weight >= 0, "from 0"),
            ("sharing", self.sharing >= 0, "from 0"),
            ("threshold", 0 < self.threshold < 1, "between 0 and 1"),
            ("absence", self.absence >= 0, "from 0"),
            ("plural", self.plural >= 1, "from 1"),
            ("capacity", self.capacity is None or self.capacity >= 1, "from 1, or None for any number"),
        ):
            if not (good and np.isfinite(values[name] or 0)):
                raise InputError(f"{name} must be a number {what}, got {values[name]}")


# Two regions that overlap by more are the same place to one phrase; and what share of their cost other phrases pay.
_SAME_PLACE = 0.5
# The most regions that a phrase with a number takes, such as `a dozen eggs`.
_MOST_TAKEN = 8
# Log-odds that a phrase such as `a sunny day`, which names nothing in one place, is to be found in a place.
_ABSTRACT = -2.0


def build_problem(
    similarity: ArrayLike,
    phrases: Sequence[Phrase],
    relations: Sequence[Relation],
    boxes: Sequence[Box],
    *,
    existence: ArrayLike | None = None,
    matching: Matching | None = None,
) -> Problem:
    """Weigh similarities, relations and absence against one another.

    The worth of a phrase at a region is the logarithm of the softmax over the regions plus that of the softmax over
    the phrases, of which those that are mentions of one thing do not compete. A phrase is left without a region for
    the worth of its best region less the log-odds that it is in the picture at all: so without relations it is matched
    where that probability is above the threshold.

    Args:
        similarity: Of each phrase to each region, such as cosines; shape (p, r).
        phrases: The phrases.
        relations: What the sentence says of their places; those of kind `with` say nothing.
        boxes: The regions' boxes.
        existence: Calibrated probability that each phrase is in the picture, shape (p,), or at each region, shape
            (p, r), 0 to 1; without it a phrase is left out only for the sake of the others.
        matching: How these count.

    Returns:
        The problem; `edges[k].relation` says which relation an edge comes from.

    Raises:
        DimensionError: Shapes that do not fit.
        InputError: NaN or infinite similarities, probabilities outside 0 to 1, a relation that names an unknown
            phrase.

    Source: dual softmax as in Cheng et al., 2021 (CAMoE); a null match with a cost as in graph edit distance.
    """
    matching = matching or Matching()
    scores = np.asarray(similarity, np.float64)
    p, r = len(phrases), len(boxes)
    if scores.size == 0:
        scores = scores.reshape(p, r) if p * r == 0 else scores
    if scores.shape != (p, r):
        raise DimensionError(
            f"expected similarities of shape ({p}, {r}) for {p} phrases and {r} regions, got {scores.shape}"
        )
    if not np.isfinite(scores).all():
        raise InputError(
            f"{np.count_nonzero(~np.isfinite(scores))} similarities are NaN or infinite; a phrase or a region was "
            "probably encoded to a zero vector: leave it out"
        )
    groups = _groups(phrases)
    unary = _dual_softmax(scores / matching.temperature, groups) if scores.size else scores
    return Problem(
        unary=unary,
        null=_nulls(unary, phrases, groups, existence, matching),
        capacity=np.full(r, matching.capacity or max(p, 1)),
        takes=np.array([_taken(phrase, matching) for phrase in phrases], np.int64),
        groups=groups,
        sharing=matching.sharing * np.clip((mutual_iou(boxes) - _SAME_PLACE) / (1 - _SAME_PLACE), 0, 1),
        clash=mutual_iou(boxes) > _SAME_PLACE,
        edges=(*_relation_edges(phrases, relations, boxes), *_mention_edges(phrases, boxes)),
        weight=matching.relation_weight,
    )


def _dual_softmax(scores: FloatArray, groups: NDArray[np.int64]) -> FloatArray:
    """Logarithms of the softmax over regions plus that over things, where a thing has its best mention's score."""
    _, things = np.unique(groups, return_inverse=True)
    best = np.full((int(things.max()) + 1, scores.shape[1]), -np.inf)
    np.maximum.at(best, things, scores)
    over_things = np.empty_like(scores)
    for phrase, thing in enumerate(things):
        # The mentions of one thing do not compete for a region.
        rivals = best.copy()
        rivals[thing] = scores[phrase]
        over_things[phrase] = scores[phrase] - logsumexp(rivals, axis=0)
    return np.asarray(log_softmax(scores, axis=1) + over_things)


def _nulls(
    unary: FloatArray,
    phrases: Sequence[Phrase],
    groups: NDArray[np.int64],
    existence: ArrayLike | None,
    matching: Matching,
) -> FloatArray:
    p, r = unary.shape
    best = unary.max(axis=1) if r else np.zeros(p)
    if existence is None:
        margin = np.full(p, matching.absence)
    else:
        there = np.asarray(existence, np.float64)
        if there.shape not in {(p,), (p, r)}:
            raise DimensionError(f"expected probabilities of shape ({p},) or ({p}, {r}), got {there.shape}")
        if not ((there >= 0) & (there <= 1)).all():
            raise InputError("the probabilities that phrases are in the picture must be 0 to 1")
        there = there if there.ndim == 1 else there.max(axis=1, initial=0.0)
        # What one mention is sure of holds for the others: of "it" alone nobody could say.
        there = np.array([there[groups == group].max() for group in groups]).reshape(p)
        # A probability of exactly 0 or 1 would be a certainty that nothing else could outweigh.
        margin = logit(np.clip(there, 1e-4, 1 - 1e-4)) - logit(matching.threshold)
    margin = np.where([phrase.abstract for phrase in phrases], np.minimum(margin, _ABSTRACT), margin)
    return np.asarray(best - margin, np.float64).reshape(p)


def _taken(phrase: Phrase, matching: Matching) -> int:
    if phrase.count is not None:
        return int(np.clip(phrase.count, 1, _MOST_TAKEN))
    return matching.plural if phrase.plural else 1


def _groups(phrases: Sequence[Phrase]) -> NDArray[np.int64]:
    """The same number for the mentions of one thing: that of its first mention."""
    groups = np.arange(len(phrases))
    for index, phrase in enumerate(phrases):
        if phrase.antecedent is None:
            continue
        if not 0 <= phrase.antecedent < len(phrases):
            raise InputError(
                f"the phrase {phrase.text!r} stands for phrase {phrase.antecedent}, but there are {len(phrases)}, "
                "numbered from 0"
            )
        groups[groups == groups[index]] = groups[phrase.antecedent]
    return groups


def _relation_edges(phrases: Sequence[Phrase], relations: Sequence[Relation], boxes: Sequence[Box]) -> Iterator[Edge]:
    known: dict[str, FloatArray | None] = {}
    for index, relation in enumerate(relations):
        named = (relation.subject, *relation.objects)
        if any(not 0 <= phrase < len(phrases) for phrase in named):
            raise InputError(
                f"the relation {relation.kind!r} names the phrases {list(named)}, but there are {len(phrases)}, "
                "numbered from 0"
            )
        if relation.kind == "between" and len(relation.objects) == 1:
            # Between the things of one plural phrase.
            named = (*named, relation.objects[0])
        if relation.kind not in known:
            known[relation.kind] = relation_weights(relation.kind, boxes)
        weights = known[relation.kind]
        if weights is not None:
            yield Edge(phrases=named, weights=weights, kind=relation.kind, relation=index)


def _mention_edges(phrases: Sequence[Phrase], boxes: Sequence[Box]) -> Iterator[Edge]:
    same = relation_scores(mutual_iou(boxes))[None, None]
    for index, phrase in enumerate(phrases):
        if phrase.antecedent is not None and phrase.antecedent != index:
            yield Edge(phrases=(index, phrase.antecedent), weights=same, kind="same")
