"""The no-answer test: all pictures of a concept taken out of the gallery, and asked for all the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mmalign.calibration import Float64Array
from mmalign.errors import InputError
from mmalign.evaluation.galleries import CaptionedGallery, Trials, search_trials
from mmalign.evaluation.held_out_concepts import content_words
from mmalign.utils import Float32Array

TrialModel = Callable[[Trials], Float64Array]
"""Gives the probabilities of trials, shape (m, 5)."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a least probability lets through.

    Attributes:
        min_probability: The bound.
        false_accept: Share of the queries with no right answer that are answered all the same.
        answered: Share of the answerable queries that are answered.
        true_accept: Share of the answerable queries that are answered, and whose best hit is right.
        precision: Share of the answered answerable queries whose best hit is right; None where none is answered.
    """

    min_probability: float
    false_accept: float
    answered: float
    true_accept: float
    precision: float | None


@dataclass(frozen=True, slots=True)
class ConceptTest:
    """The no-answer test of one concept.

    Attributes:
        concept: A noun.
        removed: Pictures taken out: those with a caption that names it.
        queries: Captions asked: those of the removed pictures that name it.
        false_accept: Share of them that is answered at each bound.
    """

    concept: str
    removed: int
    queries: int
    false_accept: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BroadQueries:
    """Concepts asked as one word, with all pictures in place: queries that many pictures answer.

    Attributes:
        queries: How many.
        mean_probability: Of their best hits.
        right: Share of the best hits with a caption that names the concept.
    """

    queries: int
    mean_probability: float
    right: float


def ask_without(
    data: CaptionedGallery, concepts: Sequence[str], answerable: Trials, judge: TrialModel, *, bounds: Sequence[float]
) -> tuple[list[Acceptance], list[ConceptTest]]:
    """Take out all pictures of a concept, ask for it with their captions, and count what is answered.

    A picture that shows the concept and whose captions do not name it stays, so that some of what counts as a false
    accept is none.

    Args:
        data: Pictures and captions.
        concepts: Singular nouns.
        answerable: The captions' trials in the gallery of all pictures.
        judge: Gives probabilities.
        bounds: Least probabilities, 0 to 1.

    Returns:
        `(overall, each)`: one entry for each bound, over all concepts, and one entry for each concept.

    Raises:
        InputError: No concepts, or one that all pictures or none name.
    """
    if not concepts:
        raise InputError("the captions name no concept that the no-answer test could take out; give more pictures")
    naming = [[set(content_words(caption)) for caption in own] for own in data.captions]
    every = np.arange(len(data.captions))
    owner = data.owner
    tests, chances = [], []
    for concept in concepts:
        asked = np.array([concept in words for own in naming for words in own])
        removed = np.unique(owner[asked])
        left = np.setdiff1d(every, removed)
        if not removed.size or not left.size:
            raise InputError(f"{removed.size} of {every.size} pictures name {concept!r}; choose another concept")
        best = judge(search_trials(data.texts[asked], data.images, owner[asked], left))[:, 0]
        chances.append(best)
        shares = tuple(float(np.mean(best >= bound)) for bound in bounds)
        tests.append(ConceptTest(concept, int(removed.size), int(asked.sum()), shares))
    false = np.concatenate(chances)
    true, right = judge(answerable)[:, 0], answerable.right[:, 0]
    overall = []
    for bound in bounds:
        answered = true >= bound
        overall.append(
            Acceptance(
                min_probability=bound,
                false_accept=float(np.mean(false >= bound)),
                answered=float(np.mean(answered)),
                true_accept=float(np.mean(answered & right)),
                precision=float(np.mean(right[answered])) if answered.any() else None,
            )
        )
    return overall, tests


def ask_broadly(
    data: CaptionedGallery, concepts: Sequence[str], words: Float32Array, judge: TrialModel
) -> BroadQueries:
    """Ask for each concept by its one word, and see whether the best hit's captions name it.

    Args:
        data: Pictures and captions.
        concepts: c singular nouns.
        words: Their embeddings, shape (c, dim).
        judge: Gives probabilities.

    Returns:
        What came of it.
    """
    names = [{word for caption in own for word in content_words(caption)} for own in data.captions]
    # There is no one picture that a word describes; the judge needs none.
    trials = search_trials(words, data.images, np.zeros(len(words), np.int64), np.arange(len(data.captions)))
    best = [int(place) for place in np.argmax(words @ data.images.T, axis=1)]
    right = [concept in names[place] for concept, place in zip(concepts, best, strict=True)]
    return BroadQueries(len(concepts), float(judge(trials)[:, 0].mean()), float(np.mean(right)))
