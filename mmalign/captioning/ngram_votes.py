"""What the retrieved captions say of the next word: how many hold it, and how many after the last words.

The decoder adds this to its scores, weighted anew at each step, so that it need not learn to copy.

Source: interpolation of a language model with counts from retrieved text, Khandelwal et al., Generalization through
Memorization: Nearest Neighbor Language Models, 2020; copying by exact match, Gu et al., CopyNet, 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmalign.captioning.decoders.tokenizer import BEGIN, END, PADDING
from mmalign.types import field_values
from mmalign.utils import Float32Array

ORDERS = 3
"""Unigrams, bigrams, trigrams."""

# Share of the evidence below which a word counts as not seen.
_FLOOR = 0.002
# Added to the weight of the captions that hold the last words: one caption alone is weak evidence.
_DOUBT = 0.02
# Ranks within which the weight of a retrieved caption falls to 1/e.
_RANKS = 16


@dataclass(frozen=True, slots=True)
class NgramVotes:
    """The n-grams of the captions retrieved for b pictures.

    Attributes:
        words: The different tokens of each context, shape (b, m), int64; `PADDING` fills up.
        slots: Which of `words` each place of the captions holds, shape (b, j), int64.
        before: The token before each place, shape (b, j), int64.
        earlier: The token before that one, shape (b, j), int64.
        weights: What each place counts, shape (b, j), float32; 0 fills up. They sum to 1 over the places of a word that
            every caption has once.
    """

    words: torch.Tensor
    slots: torch.Tensor
    before: torch.Tensor
    earlier: torch.Tensor
    weights: torch.Tensor

    def to(self, device: torch.device) -> NgramVotes:
        """The same on another device."""
        return NgramVotes(*(tensor.to(device) for tensor in field_values(self).values()))

    def repeat(self, times: int) -> NgramVotes:
        """Each picture's evidence so many times in a row, for as many hypotheses."""
        return NgramVotes(*(tensor.repeat_interleave(times, dim=0) for tensor in field_values(self).values()))


def rank_weights(count: int) -> Float32Array:
    """What each of so many retrieved captions counts: less with its rank, 1 in all.

    Returns:
        Array of shape (count,), float32, falling.
    """
    weights = np.exp(-np.arange(count, dtype=np.float32) / _RANKS)
    result: Float32Array = weights / np.maximum(weights.sum(), np.float32(1e-9))
    return result


def gather_votes(contexts: Sequence[Sequence[Sequence[int]]]) -> NgramVotes:
    """Collect the n-grams of retrieved captions.

    Args:
        contexts: For each of b pictures its retrieved captions, best first, as token numbers without begin and end.

    Returns:
        The evidence; a picture without captions has none.
    """
    numbers, weights, vocabularies = [], [], []
    for captions in contexts:
        rows = [[PADDING, BEGIN, *tokens, END] for tokens in captions]
        # Columns: the token of a place, the one before it, the one before that.
        runs = [run for row in rows for run in zip(row[2:], row[1:], row, strict=False)]
        places = np.array(runs, np.int64).reshape(-1, 3)
        different, slots = np.unique(places[:, 0], return_inverse=True)
        vocabularies.append(different)
        numbers.append(np.stack([slots, places[:, 1], places[:, 2]]))
        weights.append(np.repeat(rank_weights(len(rows)), [len(row) - 2 for row in rows]))
    table = np.stack([_filled(row, max(row.shape[1] for row in numbers)) for row in numbers])
    most = max(len(different) for different in vocabularies)
    return NgramVotes(
        words=torch.from_numpy(np.stack([_filled(different, max(most, 1)) for different in vocabularies])),
        slots=torch.from_numpy(table[:, 0]),
        before=torch.from_numpy(table[:, 1]),
        earlier=torch.from_numpy(table[:, 2]),
        weights=torch.from_numpy(np.stack([_filled(weight, table.shape[2]) for weight in weights])),
    )


def _filled(values: NDArray[Any], size: int) -> NDArray[Any]:
    """The values with zeros, which are `PADDING`, behind them along the last axis."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, size - values.shape[-1])])


def vote_features(votes: NgramVotes, tokens: torch.Tensor, previous: torch.Tensor) -> torch.Tensor:
    """How strongly the context speaks for each of its words as the next one.

    Args:
        votes: Of b pictures.
        tokens: The last token at each of t steps, shape (b, t).
        previous: The token before it, shape (b, t).

    Returns:
        Tensor of shape (3, b, t, m): for unigrams, bigrams and trigrams the logarithm of how much more than nothing
        the word `votes.words` is seen there; 0 where it is not.
    """
    after = votes.before[:, None, :] == tokens[:, :, None]
    longer = after & (votes.earlier[:, None, :] == previous[:, :, None])
    weights = votes.weights[:, None, :].expand(after.shape)
    slots = votes.slots[:, None, :].expand(after.shape)
    features = []
    for mask in (None, after, longer):
        seen = weights if mask is None else weights * mask
        if mask is None:
            # The same at every step.
            seen = seen[:, :1]
        share = seen.new_zeros(*seen.shape[:2], votes.words.shape[1]).scatter_add_(-1, slots[:, : seen.shape[1]], seen)
        if mask is not None:
            share = share / (seen.sum(-1, keepdim=True) + _DOUBT)
        feature = torch.log1p(share / _FLOOR)
        features.append(feature.expand(*after.shape[:2], feature.shape[-1]))
    return torch.stack(features)
