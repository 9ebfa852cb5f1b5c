"""ROUGE-L: the longest run of words, gaps allowed, that a caption shares with its references."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmalign.metrics.bleu import check_pairs
from mmalign.metrics.ptb import Tokens

_BETA = 1.2


def longest_common(first: Tokens, second: Tokens) -> int:
    """Length of the longest sequence of words that both have in this order, with gaps allowed.

    Args:
        first: Words.
        second: Words.

    Returns:
        From 0 to the shorter length.

    Source: Hyyrö, Bit-parallel LCS-length computation revisited, 2004: one integer holds a column of the table.

    Example:
        >>> longest_common(("a", "b", "c", "d"), ("b", "x", "d"))
        2
    """
    places: dict[str, int] = {}
    for position, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << position
    every = (1 << len(first)) - 1
    column = every
    for word in second:
        match = column & places.get(word, 0)
        column = ((column + match) | (column - match)) & every
    return len(first) - column.bit_count()


def rouge_l(candidates: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NDArray[np.float64]:
    """ROUGE-L of each candidate: best precision and best recall over its references, recall weighing 1.2 times.

    Args:
        candidates: n captions as words.
        references: For each of them the captions that people wrote, at least one.

    Returns:
        Shape (n,), from 0 to 1.

    Raises:
        InputError: Other counts, or a candidate without a reference.

    Source: Lin, ROUGE: a package for automatic evaluation of summaries, 2004; beta as in pycocoevalcap.

    Example:
        >>> rouge_l([("a", "dog", "runs")], [[("a", "dog", "runs")]]).tolist()
        [1.0]
    """
    check_pairs(candidates, references)
    scores = np.zeros(len(candidates))
    for row, (candidate, wanted) in enumerate(zip(candidates, references, strict=True)):
        common = [longest_common(reference, candidate) for reference in wanted]
        # A caption without words counts as one blank word, as in pycocoevalcap.
        precision = max(common) / max(1, len(candidate))
        recall = max(shared / max(1, len(reference)) for shared, reference in zip(common, wanted, strict=True))
        if precision and recall:
            scores[row] = (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)
    return scores
