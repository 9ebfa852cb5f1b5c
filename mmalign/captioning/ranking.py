"""Choosing among drafts: the one that the retrieved captions agree with most, and that the decoder finds likely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mmalign.captioning.drafts import Draft
from mmalign.metrics.cider import DocumentFrequencies, WordRuns, cider_table
from mmalign.metrics.ptb import caption_tokens

VOTERS = 150
"""Most retrieved captions that vote."""
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
    said = runs.vectors([caption_tokens(draft.text) for draft in drafts])
    agreed = cider_table(said, runs.vectors(voters)) @ (weights / weights.sum())
    scored = [
        replace(draft, score=float(agreement) + _LIKELIHOOD * draft.score)
        for draft, agreement in zip(drafts, agreed, strict=True)
    ]
    return sorted(scored, key=lambda draft: -draft.score)
