"""Keeping what a model is measured on out of what it is trained on: near-duplicate pictures and equal sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmalign.similarity import Float32Array, l2_normalize

_WORD = re.compile(r"\w+")


def near_duplicates(features: Float32Array, held_out: Float32Array, *, threshold: float) -> NDArray[np.bool_]:
    """Say which pictures look like a held-out one.

    Args:
        features: Features of shape (n, d).
        held_out: Features of the pictures that are measured on, shape (m, d).
        threshold: Least cosine similarity of a duplicate, after the mean of `features` is taken off both: raw
            features after a ReLU all point one way.

    Returns:
        Shape (n,), True for a near-duplicate.
    """
    if not len(features) or not len(held_out):
        return np.zeros(len(features), np.bool_)
    mean = features.mean(axis=0)
    closest = (l2_normalize(features - mean) @ l2_normalize(held_out - mean).T).max(axis=1)
    return np.asarray(closest >= threshold)


def same_words(sentences: Sequence[str], held_out: Iterable[str]) -> NDArray[np.bool_]:
    """Say which sentences have the words of a held-out one, whatever the case, spacing and punctuation.

    Args:
        sentences: n sentences.
        held_out: The sentences that are measured on.

    Returns:
        Shape (n,), True for the same words in the same order.
    """
    known = {_words(sentence) for sentence in held_out}
    return np.array([_words(sentence) in known for sentence in sentences], np.bool_)


def _words(sentence: str) -> str:
    return " ".join(_WORD.findall(sentence.lower()))
