"""The examples that a captioner learns from, in batches of captions of like length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import numpy as np

from mmalign.training.captioner.config import CaptionerConfig
from mmalign.training.captioner.data import CaptionerTrainingSet, Queries
from mmalign.utils import Int64Array

Example: TypeAlias = tuple[Queries, int, int]
"""Queries, the row of one of them, and the position of the sentence that is to be written for it."""

# Batches of like length together cost less; so many batches' captions are sorted at once.
_SORTED = 20


class Examples:
    """What an epoch learns from: every caption of every picture, and some of the sentences.

    Args:
        config: Batches, views, and how many sentences.
        training_set: What there is.
        lengths: How long each sentence is, in tokens.

    Attributes:
        steps: Batches an epoch.
    """

    def __init__(self, config: CaptionerConfig, training_set: CaptionerTrainingSet, *, lengths: Sequence[int]) -> None:
        self._config, self._set, self._lengths = config, training_set, lengths
        self._views = len(training_set.pairs.vectors) // max(1, config.views)
        self._pairs = [(row, target) for row in range(self._views) for target in training_set.pairs.targets[row]]
        texts = len(training_set.texts.targets)
        self._texts = min(config.texts_per_epoch or texts, texts)
        self.steps = max(1, -(-(len(self._pairs) + self._texts) // config.batch_size))

    def batches(self, epoch: int) -> Iterator[list[Example]]:
        """Draw the batches of an epoch, the same each time.

        Args:
            epoch: From 1.

        Yields:
            Examples; each picture by one of its noised views.
        """
        training_set, config = self._set, self._config
        rng = np.random.default_rng([config.seed, epoch])
        examples: list[Example] = []
        for row, target in self._pairs:
            view = int(rng.integers(config.views)) * self._views
            examples.append((training_set.pairs, row + view, target))
        texts = rng.permutation(len(training_set.texts.targets))[: self._texts].tolist()
        examples += [(training_set.texts, row, training_set.texts.targets[row][0]) for row in texts]
        order = rng.permutation(len(examples))
        batches = []
        for start in range(0, len(order), config.batch_size * _SORTED):
            part = sorted(order[start : start + config.batch_size * _SORTED].tolist(),
                          key=lambda row: self._lengths[examples[row][2]])  # fmt: skip
            batches += [part[i : i + config.batch_size] for i in range(0, len(part), config.batch_size)]
        for number in rng.permutation(len(batches)).tolist():
            yield [examples[row] for row in batches[number]]


def fewer(context: Int64Array, rng: np.random.Generator) -> Int64Array:
    """The retrieved captions; now and then fewer of them, so that the decoder can do with any number.

    Args:
        context: Their positions, best first, shape (k,).
        rng: Draws.

    Returns:
        The first of them, at least one, shape (k',).
    """
    if rng.random() < 0.7:
        return context
    return context[: int(rng.integers(1, len(context) + 1))]
