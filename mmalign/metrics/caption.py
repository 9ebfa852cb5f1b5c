"""The usual scores of captions, all at once: CIDEr-D, BLEU-1 to 4 and ROUGE-L."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError
from mmalign.metrics.bleu import ORDERS, bleu_counts, bleu_from_counts
from mmalign.metrics.cider import DocumentFrequencies, cider_d
from mmalign.metrics.ptb import caption_tokens
from mmalign.metrics.rouge import rouge_l
from mmalign.types import gives_json

FIGURES = ("cider", *(f"bleu{order}" for order in range(1, ORDERS + 1)), "rouge_l")
"""Names of the figures, in the order in which they are printed."""


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """What came of n candidates.

    Attributes:
        cider: CIDEr-D of each, shape (n,), from 0 to 10.
        rouge_l: ROUGE-L of each, shape (n,), from 0 to 1.
        bleu: What BLEU is computed from, shape (n, 10); see `bleu_counts`.
    """

    cider: NDArray[np.float64]
    rouge_l: NDArray[np.float64]
    bleu: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cider)

    def figures(self) -> dict[str, float]:
        """The corpus's figures by name, times 100."""
        values = [self.cider.mean(), *bleu_from_counts(self.bleu), self.rouge_l.mean()]
        return {name: 100 * float(value) for name, value in zip(FIGURES, values, strict=True)}

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the number of candidates and the figures, times 100, as JSON-ready values."""
        return {"n": len(self), **{name: round(value, 4) for name, value in self.figures().items()}}

    def resampled(self, draws: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """The figures of samples of the candidates.

        Args:
            draws: Positions of the candidates in each sample, shape (b, m).

        Returns:
            Figures by name, each of shape (b,), times 100.
        """
        # How often each candidate was drawn: sums of rows are then one product.
        weights = np.stack([np.bincount(draw, minlength=len(self)) for draw in draws])
        bleu = bleu_from_counts((weights @ self.bleu)[:, None, :])
        columns = [weights @ self.cider / draws.shape[1], *bleu.T, weights @ self.rouge_l / draws.shape[1]]
        return {name: 100 * column for name, column in zip(FIGURES, columns, strict=True)}


def score_captions(
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    frequencies: DocumentFrequencies | None = None,
) -> CaptionScores:
    """Score captions as the COCO evaluation does.

    Args:
        candidates: n captions, as a program wrote them.
        references: For each of them the captions that people wrote, at least one.
        frequencies: Weights of the words for CIDEr; counted from the references where None.

    Returns:
        The scores.

    Raises:
        InputError: Other counts, a candidate without a reference, or one candidate alone without `frequencies`.

    Source: Chen et al., Microsoft COCO captions: data collection and evaluation server, 2015.

    Example:
        >>> wanted = [["A dog runs.", "The dog is running."], ["A cat sleeps."]]
        >>> score_captions(["A dog runs.", "A dog sleeps."], wanted).to_dict()["bleu1"]
        83.3333
    """
    if isinstance(candidates, str) or any(isinstance(wanted, str) for wanted in references):
        raise InputError("expected a list of candidates and a list of references for each, got a text alone")
    tokens = [caption_tokens(caption) for caption in candidates]
    wanted = [[caption_tokens(caption) for caption in captions] for captions in references]
    return CaptionScores(
        cider=cider_d(tokens, wanted, frequencies=frequencies),
        rouge_l=rouge_l(tokens, wanted),
        bleu=bleu_counts(tokens, wanted),
    )
