"""Choosing among drafts: by how the retrieved captions agree, how likely they are, and how they fit the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmalign.captioning.decoders.base import Draft
from mmalign.errors import InputError
from mmalign.metrics import DocumentFrequencies, WordRuns, caption_tokens, cider_table

VOTERS = 150
"""Most retrieved captions that vote."""
JUDGED = 8
"""Most drafts that are looked for in the picture where they are ranked by how they fit it, too."""
FIT = 0.5
"""What their fit counts there, beside their score, each in standard deviations among those drafts."""
# Ranks within which the weight of a vote falls to 1/e.
_RANKS = 60
# What a nat of log-likelihood a token counts beside agreement, which is CIDEr-D from 0 to 10.
_LIKELIHOOD = 0.2


def rank_drafts(
    drafts: Sequence[Draft], context: Sequence[str], frequencies: DocumentFrequencies | None
) -> list[Draft]:
    """Rank drafts by their mean CIDEr-D against the retrieved captions, plus a fifth of their log-likelihood a token.

    Args:
        drafts: What a decoder wrote; equal texts once. `score` is the log-likelihood a token.
        context: Retrieved captions, best first; the first 150 vote, nearer ones more.
        frequencies: Weights of the words; None leaves the drafts ranked by their own score.

    Returns:
        The drafts, best first, `score` replaced by what they were ranked by.

    Source: minimum Bayes risk, Kumar and Byrne, Minimum Bayes-risk decoding for statistical machine translation, 2004;
    the retrieved captions stand for what people may say, as in Devlin et al., Exploring nearest neighbor approaches
    for image captioning, 2015.
    """
    voters = [words for caption in context[:VOTERS] if (words := caption_tokens(caption))]
    if not voters or frequencies is None or not drafts:
        return sorted(drafts, key=lambda draft: -draft.score)
    weights = np.exp(-np.arange(len(voters)) / _RANKS)
    runs = WordRuns(frequencies)
    vectors = runs.vectors([caption_tokens(draft.text) for draft in drafts])
    agreed = cider_table(vectors, runs.vectors(voters)) @ (weights / weights.sum())
    scored = [
        replace(draft, score=float(agreement) + _LIKELIHOOD * draft.score)
        for draft, agreement in zip(drafts, agreed, strict=True)
    ]
    return sorted(scored, key=lambda draft: -draft.score)


def rank_by_fit(drafts: Sequence[Draft], fits: Sequence[float], *, share: float = FIT) -> list[Draft]:
    """Rank drafts by their score and by how well they fit the picture, each brought to the same scale.

    Args:
        drafts: n drafts with scores of any scale.
        fits: How well each fits, of any scale, higher is better; n of them.
        share: What the fit counts, from 0 (nothing) to 1 (the score counts nothing).

    Returns:
        The drafts, best first; `score` is `(1 - share)` times the score plus `share` times the fit, both less their
        mean and divided by their standard deviation over the drafts. What is equal for all counts nothing.

    Raises:
        InputError: Other counts, or a share outside its range.
    """
    if len(drafts) != len(fits) or not 0 <= share <= 1:
        raise InputError(
            f"expected a fit for each of {len(drafts)} drafts and a share from 0 to 1, got {len(fits)} and {share:g}"
        )
    mixed = (1 - share) * _standardised([draft.score for draft in drafts]) + share * _standardised(fits)
    order = np.argsort(-mixed, kind="stable").tolist()
    return [replace(drafts[row], score=float(mixed[row])) for row in order]


def _standardised(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.asarray(values, np.float64)
    spread = array.std() if len(array) else 0.0
    # Rounding alone is no difference.
    if not spread > 1e-9 * max(1.0, float(np.abs(array).max(initial=0.0))):
        return np.zeros(len(array))
    result: NDArray[np.float64] = (array - array.mean()) / spread
    return result
