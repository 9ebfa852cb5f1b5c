"""Corpus BLEU: how many of the candidates' word runs are in the references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError
from mmalign.metrics.ptb import Tokens

ORDERS = 4
"""Runs of one to four words count."""

# As in pycocoevalcap: a corpus without a single run has a score of nearly zero and not an error.
_TINY, _SMALL = 1e-15, 1e-9


def word_runs(tokens: Tokens, orders: int = ORDERS) -> Counter[Tokens]:
    """Count the runs of one to `orders` words of a caption."""
    return Counter(chain.from_iterable(zip(*(tokens[i:] for i in range(n))) for n in range(1, orders + 1)))  # noqa: B905


def bleu_counts(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.int64]:
    """Count what BLEU is computed from, caption by caption; sums of rows give the score of any part of a corpus.

    Args:
        candidates: n captions as words.
        references: For each of them the captions that people wrote, at least one.

    Returns:
        Shape (n, 10), int64: runs of 1 to 4 words of the candidate, those of them that are in a reference, each as
        often as in the reference that has it most often, the candidate's length, and the length of the reference
        closest to it in length, the shorter one where two are.

    Raises:
        InputError: Other counts, or a candidate without a reference.
    """
    check_pairs(candidates, references)
    rows = np.zeros((len(candidates), 2 * ORDERS + 2), np.int64)
    for row, candidate, wanted in zip(rows, candidates, references, strict=True):
        most: dict[Tokens, int] = {}
        for reference in wanted:
            for run, count in word_runs(reference).items():
                if count > most.get(run, 0):
                    most[run] = count
        for run, count in word_runs(candidate).items():
            row[len(run) - 1] += count
            row[ORDERS + len(run) - 1] += min(count, most.get(run, 0))
        length = len(candidate)
        row[-2:] = length, min((abs(len(reference) - length), len(reference)) for reference in wanted)[1]
    return rows


def bleu_from_counts(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """BLEU-1 to BLEU-4 of a corpus, unsmoothed.

    Args:
        counts: Rows of `bleu_counts`, shape (n, 10), or sums of them, shape (..., n, 10).

    Returns:
        Shape (4,), or (..., 4): from 0 to 1.

    Source: Papineni et al., BLEU: a method for automatic evaluation of machine translation, 2002.
    """
    total = counts.sum(axis=-2).astype(np.float64)
    precision = (total[..., ORDERS : 2 * ORDERS] + _TINY) / (total[..., :ORDERS] + _SMALL)
    scores = np.cumprod(precision, axis=-1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (total[..., -2] + _TINY) / (total[..., -1] + _SMALL)
    with np.errstate(over="ignore"):
        brevity = np.where(ratio < 1, np.exp(1 - 1 / ratio), 1.0)
    result: NDArray[np.float64] = scores * brevity[..., None]
    return result


def corpus_bleu(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    """BLEU-1 to BLEU-4 of a corpus: closest reference length, unsmoothed.

    Args:
        candidates: n captions as words.
        references: For each of them the captions that people wrote, at least one.

    Returns:
        Shape (4,), from 0 to 1.

    Raises:
        InputError: Other counts, or a candidate without a reference.

    Example:
        >>> corpus_bleu([("a", "dog", "runs", "fast")], [[("a", "dog", "runs", "slowly")]]).round(2).tolist()
        [0.75, 0.71, 0.63, 0.0]
    """
    return bleu_from_counts(bleu_counts(candidates, references))


def check_pairs(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> None:
    """Refuse candidates that do not each have references.

    Args:
        candidates: n captions as words.
        references: Their references.

    Raises:
        InputError: Other counts, none at all, or a candidate without a reference.
    """
    if len(candidates) != len(references) or not candidates:
        raise InputError(
            f"expected references for each candidate, got {len(candidates)} candidates and references for "
            f"{len(references)}; give one candidate for each picture"
        )
    bare = [row for row, wanted in enumerate(references) if not wanted]
    if bare:
        raise InputError(
            f"{len(bare)} of {len(references)} candidates have no reference, the first is number {bare[0]}; leave such "
            "pictures out"
        )
