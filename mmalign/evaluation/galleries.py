"""Text queries among galleries of several sizes, with and without the picture that they describe."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmalign.calibration import MARGIN_HITS, Float64Array
from mmalign.errors import InputError
from mmalign.utils import Float32Array, Int64Array, exact_top_k

PARTS = (1, 3, 9)
"""Into how many galleries the pictures are dealt out: all in one, thirds and ninths."""
FEWEST = 90
"""Pictures that are needed, so that a ninth holds ten."""


@dataclass(frozen=True, slots=True)
class CaptionedGallery:
    """Pictures and the captions that were written about them, encoded.

    Attributes:
        captions: The captions of each of n pictures.
        texts: Embeddings of all t captions, picture by picture, shape (t, dim), of length 1.
        images: Embeddings of the pictures, shape (n, dim), of length 1.
    """

    captions: tuple[tuple[str, ...], ...]
    texts: Float32Array
    images: Float32Array

    @property
    def owner(self) -> Int64Array:
        """Position of each caption's picture, shape (t,)."""
        return np.repeat(np.arange(len(self.captions)), [len(own) for own in self.captions])


@dataclass(frozen=True, slots=True)
class Trials:
    """Queries, and the best hits of each.

    Attributes:
        scores: Cosines, best first, shape (m, 5), float64; -inf in empty places.
        right: Whether a hit is the picture that the query describes, shape (m, 5).
        pictures: Size of the gallery searched, shape (m,), int64.
        owner: Position of the picture that the query describes, shape (m,), int64.
        parts: Of how many parts the gallery is one, shape (m,), int64.
    """

    scores: Float64Array
    right: NDArray[np.bool_]
    pictures: Int64Array
    owner: Int64Array
    parts: Int64Array

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Trials:
        return Trials(
            self.scores[chosen], self.right[chosen], self.pictures[chosen], self.owner[chosen], self.parts[chosen]
        )


def run_trials(data: CaptionedGallery, *, seed: int = 0) -> tuple[Trials, Trials]:
    """Ask every caption once in a gallery of each size that holds its picture, and once more without its picture.

    Args:
        data: At least 90 pictures.
        seed: Of the order in which pictures are dealt out to the galleries.

    Returns:
        `(answerable, unanswerable)`: 3 t trials each; in the second no hit is right.

    Raises:
        InputError: Fewer than 90 pictures.
    """
    images = data.images
    if len(images) < FEWEST:
        raise InputError(
            f"probabilities are fitted on at least {FEWEST} captioned pictures, got {len(images)}; "
            "a thousand give steady ones"
        )
    order = np.random.default_rng(seed).permutation(len(images))
    found = [_ask(data.texts, images, data.owner, gallery, parts) for parts, gallery in _galleries(order)]
    return _join([one for one, _ in found]), _join([two for _, two in found])


def search_trials(
    texts: Float32Array, images: Float32Array, owner: Int64Array, gallery: Int64Array, *, parts: int = 1
) -> Trials:
    """Ask queries in one gallery.

    Args:
        texts: Embeddings of the queries, shape (t, dim), of length 1.
        images: Embeddings of all pictures, shape (n, dim), of length 1.
        owner: Position of the picture that each query describes, shape (t,); it need not be in the gallery.
        gallery: Positions of the pictures that are searched, shape (g,), at least one.
        parts: Of how many parts the gallery is one.

    Returns:
        t trials.
    """
    scores, places = exact_top_k(texts, images[gallery], MARGIN_HITS)
    return _trials(scores.astype(np.float64), gallery[places] == owner[:, None], len(gallery), owner, parts)


def _galleries(order: Int64Array) -> Iterator[tuple[int, Int64Array]]:
    for parts in PARTS:
        for gallery in np.array_split(order, parts):
            yield parts, gallery


def _ask(
    texts: Float32Array, images: Float32Array, owner: Int64Array, gallery: Int64Array, parts: int
) -> tuple[Trials, Trials]:
    chosen = np.isin(owner, gallery)
    own = owner[chosen]
    # One hit more, so that as many are left without the right one.
    scores, places = exact_top_k(texts[chosen], images[gallery], MARGIN_HITS + 1)
    right = gallery[places] == own[:, None]
    with_it = _trials(scores[:, :MARGIN_HITS].astype(np.float64), right[:, :MARGIN_HITS], len(gallery), own, parts)
    # A stable sort moves the right one behind the others, which keep their order.
    others = np.argsort(right, axis=1, kind="stable")[:, :MARGIN_HITS]
    left = np.take_along_axis(scores, others, axis=1).astype(np.float64)
    nothing = np.zeros(left.shape, np.bool_)
    return with_it, _trials(left, nothing, len(gallery) - 1, own, parts)


def _trials(scores: Float64Array, right: NDArray[np.bool_], size: int, owner: Int64Array, parts: int) -> Trials:
    width = ((0, 0), (0, MARGIN_HITS - scores.shape[1]))
    return Trials(
        scores=np.pad(scores, width, constant_values=-np.inf),
        right=np.pad(right, width),
        pictures=np.full(len(scores), size, np.int64),
        owner=owner.astype(np.int64, copy=False),
        parts=np.full(len(scores), parts, np.int64),
    )


def _join(trials: list[Trials]) -> Trials:
    return Trials(
        scores=np.concatenate([one.scores for one in trials]),
        right=np.concatenate([one.right for one in trials]),
        pictures=np.concatenate([one.pictures for one in trials]),
        owner=np.concatenate([one.owner for one in trials]),
        parts=np.concatenate([one.parts for one in trials]),
    )
