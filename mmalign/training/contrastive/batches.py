"""Which pictures and captions meet in a step: drawn from the seed, the epoch and the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmalign.utils import Float32Array, l2_normalize

# Pictures among which neighbours are looked for at once: 64 MiB of similarities.
_POOL = 4096


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch.

    Attributes:
        pictures: Positions of the pictures, shape (b,), none twice.
        captions: Positions of their captions, shape (m,).
        owner: The place in `pictures` of each caption, shape (m,).
        extras: Positions of sentences without a picture, shape (e,).
    """

    pictures: NDArray[np.int64]
    captions: NDArray[np.int64]
    owner: NDArray[np.int64]
    extras: NDArray[np.int64]


class BatchPlan:
    """The batches of every epoch; those of one epoch follow from the seed and its number.

    Args:
        owner: The picture of each caption, shape (n_captions,), ascending or not.
        repeats: How often each picture comes up in an epoch, shape (n_pictures,); those without a caption never do.
        batch_size: Pictures a batch.
        captions: Captions of each picture a batch, or as many as it has.
        extras: How many sentences without a picture there are.
        extras_per_batch: How many of them a batch gets.
        seed: Of all draws.
    """

    def __init__(
        self,
        owner: NDArray[np.int64],
        repeats: NDArray[np.float64],
        *,
        batch_size: int,
        captions: int,
        extras: int = 0,
        extras_per_batch: int = 0,
        seed: int = 0,
    ) -> None:
        self._order = np.argsort(owner, kind="stable")
        self._counts = np.bincount(owner, minlength=len(repeats))
        self._starts = np.cumsum(self._counts) - self._counts
        self.pictures = np.flatnonzero(self._counts)
        self._repeats = repeats[self.pictures]
        self._batch_size, self._captions, self._seed = batch_size, captions, seed
        self._extras, self._extras_per_batch = extras, min(extras_per_batch, extras)
        # The number of steps must not depend on the draw of an epoch: the schedule is laid out over all of them.
        self.steps = max(1, math.ceil(float(self._repeats.sum()) / batch_size))

    def epoch(self, epoch: int, *, embeddings: Float32Array | None = None, group: int = 0) -> list[NDArray[np.int64]]:
        """Deal the pictures of one epoch into `steps` batches.

        Args:
            epoch: Its number.
            embeddings: Embeddings of all pictures, shape (n_pictures, dim), by which neighbours are found.
            group: Pictures that are dealt together with their nearest neighbours; up to 1 deals at random.

        Returns:
            Positions of the pictures of each batch, none twice in one.
        """
        draw = np.random.default_rng([self._seed, epoch, 0])
        whole, part = np.divmod(self._repeats, 1)
        times = whole.astype(np.int64) + (draw.random(len(part)) < part)
        order = draw.permutation(np.repeat(self.pictures, times))
        if embeddings is not None and group > 1:
            order = _grouped(order, embeddings, group, draw)
        return [_first_of_each(batch) for batch in np.array_split(order, self.steps)]

    def batch(self, pictures: NDArray[np.int64], *, draw: np.random.Generator) -> Batch:
        """Draw captions for the pictures of a batch, and sentences without a picture.

        Args:
            pictures: Positions of the pictures.
            draw: The random choices of this step.

        Returns:
            The batch.
        """
        counts = self._counts[pictures]
        # A random key for each caption; the smallest keys of each picture are its choice.
        keys = draw.random((len(pictures), int(counts.max())))
        keys[np.arange(keys.shape[1]) >= counts[:, None]] = np.inf
        chosen = np.argsort(keys, axis=1)[:, : self._captions]
        taken = np.arange(chosen.shape[1]) < counts[:, None]
        captions = self._order[(self._starts[pictures][:, None] + chosen)[taken]]
        extras = np.zeros(0, np.int64)
        if self._extras_per_batch:
            extras = draw.choice(self._extras, self._extras_per_batch, replace=False)
        return Batch(pictures, captions, np.nonzero(taken)[0], extras)


def step_draw(seed: int, epoch: int, step: int) -> np.random.Generator:
    """The random choices of one step of one epoch."""
    return np.random.default_rng([seed, epoch, 1 + step])


def _first_of_each(batch: NDArray[np.int64]) -> NDArray[np.int64]:
    """A picture that comes up twice in a batch would be its own negative."""
    _, first = np.unique(batch, return_index=True)
    return batch[np.sort(first)]


def _grouped(
    order: NDArray[np.int64], embeddings: Float32Array, group: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """Reorder so that runs of `group` pictures are near one another; the runs themselves stay shuffled."""
    groups: list[NDArray[np.int64]] = []
    for start in range(0, len(order), _POOL):
        pool = order[start : start + _POOL]
        vectors = l2_normalize(embeddings[pool])
        near = vectors @ vectors.T
        free = np.ones(len(pool), np.bool_)
        for leader in range(len(pool)):
            if not free[leader]:
                continue
            candidates = np.flatnonzero(free)
            closeness = near[leader, candidates]
            closeness[candidates == leader] = np.inf
            members = candidates[np.argsort(-closeness, kind="stable")[:group]]
            free[members] = False
            groups.append(pool[members])
    return np.concatenate([groups[i] for i in draw.permutation(len(groups))])
