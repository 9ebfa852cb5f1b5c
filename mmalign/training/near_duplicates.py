"""Keeping what a model is measured on out of what it is trained on: near-duplicate pictures and equal sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmalign.utils import Float32Array, l2_normalize

_WORD = re.compile(r"\w+")
TWINS_VERSION = "stems of 4, tf-idf, 1"
"""Names what `fuzzy_likeness` computes; another text where that changes."""

# Letters of a word that count: so that "jumps", "jumping" and "jumped" are one.
_STEM = 4
# A word in more than this share of many sentences says next to nothing, and would make the products dense.
_COMMON, _MANY = 0.15, 1000
_ROWS = 4096


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
    targets = l2_normalize(held_out - mean).T
    found = [
        (l2_normalize(features[start : start + _ROWS] - mean) @ targets).max(axis=1) >= threshold
        for start in range(0, len(features), _ROWS)
    ]
    return np.concatenate(found)


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


def fuzzy_likeness(sentences: Sequence[str], held_out: Sequence[str]) -> Float32Array:
    """How much of its rarer words each sentence shares with the held-out sentence that is most like it.

    Args:
        sentences: n sentences.
        held_out: The sentences that are measured on.

    Returns:
        Shape (n,), from 0 to 1: the largest cosine of TF-IDF vectors of words, each word cut to four letters and
        counted once, so that neither order nor endings matter.

    Source: Salton and Buckley, Term-weighting approaches in automatic text retrieval, 1988.
    """
    from scipy import sparse

    if not len(sentences) or not len(held_out):
        return np.zeros(len(sentences), np.float32)
    vocabulary: dict[str, int] = {}
    rows, columns = [], []
    for row, sentence in enumerate([*sentences, *held_out]):
        stems = {word[:_STEM] for word in _WORD.findall(sentence.lower())}
        rows += [row] * len(stems)
        columns += [vocabulary.setdefault(stem, len(vocabulary)) for stem in sorted(stems)]
    count = len(sentences) + len(held_out)
    documents = np.bincount(columns, minlength=len(vocabulary))
    weight = np.log((1 + count) / documents).astype(np.float32)
    if count > _MANY:
        weight[documents > _COMMON * count] = 0
    table = sparse.csr_matrix(
        (weight[columns], (np.array(rows), np.array(columns))), shape=(count, len(vocabulary)), dtype=np.float32
    )
    table.eliminate_zeros()
    norms = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    table = sparse.diags(1 / np.maximum(norms, np.finfo(np.float32).tiny)).astype(np.float32) @ table
    targets = table[len(sentences) :].T.tocsr()
    best = np.zeros(len(sentences), np.float32)
    for start in range(0, len(sentences), _ROWS):
        likeness = (table[start : min(start + _ROWS, len(sentences))] @ targets).tocsr()
        filled = np.flatnonzero(np.diff(likeness.indptr))
        if len(filled):
            best[start + filled] = np.maximum.reduceat(likeness.data, likeness.indptr[filled])
    return best


def _words(sentence: str) -> str:
    return " ".join(_WORD.findall(sentence.lower()))
