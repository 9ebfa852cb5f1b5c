"""What is known of a picture before a word is written: the captions that lie near it, chosen with care."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import DimensionError, InputError
from mmalign.metrics import caption_tokens
from mmalign.types import check_type, describe, field_values
from mmalign.utils import Float32Array, Int64Array, as_cosines, as_matrix, exact_top_k, l2_normalize

Search = Callable[[Float32Array, int], tuple[Float32Array, Int64Array]]
"""Given queries of shape (q, dim) and a depth, returns `(scores, positions)` of shape (q, depth), best first, -1 in
empty places; the search of any index, or `TextStore.search`."""

MOST_WORDS = 60
"""Captions of more words are left out: they are no captions, and would crowd a decoder's context."""


@dataclass(frozen=True, slots=True, eq=False)
class RetrievedCaptions:
    """What was retrieved for a picture.

    Attributes:
        captions: Best first, no two with the same words.
        scores: How near each is to the picture, falling, shape (k,), float32.
        sources: Where each came from, such as an item's id; empty where not known.
        positions: Of each in the store that was searched, shape (k,), int64.
    """

    captions: tuple[str, ...] = ()
    scores: Float32Array = field(default_factory=lambda: np.zeros(0, np.float32))
    sources: tuple[str, ...] = ()
    positions: Int64Array = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.captions)

    def __getitem__(self, chosen: slice | Sequence[int]) -> RetrievedCaptions:
        """Some of the captions, as a context."""
        numbers = range(len(self))[chosen] if isinstance(chosen, slice) else list(chosen)
        rows = np.array(numbers, np.int64)
        return replace(
            self,
            captions=tuple(self.captions[i] for i in numbers),
            scores=self.scores[rows],
            sources=tuple(self.sources[i] for i in numbers),
            positions=self.positions[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class TextStore:
    """Captions and their embeddings.

    Attributes:
        captions: n captions.
        vectors: Their embeddings, shape (n, dim), float16 or float32, each row of length 1.
        sources: What each belongs to, such as a picture's id; n of them, or none at all.
        fingerprint: Of the encoder that made the embeddings; empty where not known.

    Raises:
        DimensionError: Other counts.
        InputError: Captions that are no list, or vectors that are no floats of two dimensions.
    """

    captions: Sequence[str]
    vectors: NDArray[Any]
    sources: Sequence[str] = ()
    fingerprint: str = ""

    def __post_init__(self) -> None:
        values = field_values(self)
        for name in ("captions", "sources"):
            check_type(name, values[name], (list, tuple), "a list of texts")
        check_type("vectors", self.vectors, np.ndarray, "an array")
        if self.vectors.ndim != 2 or self.vectors.dtype.kind != "f":
            raise InputError(f"vectors must be floats of shape (n, dim), got {describe(self.vectors)}")
        counts = {len(self.captions), len(self.vectors), len(self.sources) or len(self.captions)}
        if len(counts) > 1:
            raise DimensionError(
                f"expected an embedding and a source for each of {len(self.captions)} captions, got vectors of shape "
                f"{self.vectors.shape} and {len(self.sources)} sources"
            )

    def __len__(self) -> int:
        return len(self.captions)

    def take(self, rows: Int64Array) -> TextStore:
        """Some of the captions, as a store."""
        numbers = rows.tolist()
        sources = [self.sources[row] for row in numbers] if self.sources else ()
        return TextStore([self.captions[row] for row in numbers], self.vectors[rows], sources, self.fingerprint)

    def search(self, vectors: Float32Array, depth: int) -> tuple[Float32Array, Int64Array]:
        """The nearest captions by cosine; see `Search`."""
        scores, places = exact_top_k(vectors, self.vectors, depth)
        return as_cosines(scores), places


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How a context is chosen.

    Attributes:
        k: Most captions of a context.
        floor: Least score of a caption; all may come where None.
        diversity: From 0, the nearest ones, to 1, those least like one another (MMR).
        pool: Captions that are looked at for each that is taken, at least 1; equal ones and those of the picture itself
            are among them.

    Raises:
        InputError: A value outside its range.
    """

    k: int = 40
    floor: float | None = None
    diversity: float = 0.0
    pool: float = 3.0

    def __post_init__(self) -> None:
        if self.k < 1 or not 0 <= self.diversity <= 1 or self.pool < 1:
            raise InputError(
                f"expected k and pool of at least 1 and a diversity from 0 to 1, got {self.k}, {self.pool:g} and "
                f"{self.diversity:g}"
            )


def retrieve_context(
    vectors: Float32Array,
    store: TextStore,
    *,
    how: Retrieval = Retrieval(),
    exclude: Sequence[Collection[str]] | None = None,
    search: Search | None = None,
) -> list[RetrievedCaptions]:
    """Choose for each picture the captions that say most about it.

    Args:
        vectors: Embeddings of q pictures, moved to the side of the texts where that helps (`memory_projection`), shape
            (q, dim).
        store: The captions.
        how: How many and which.
        exclude: For each picture the sources whose captions must not come, such as the picture itself.
        search: Another search over the same captions, such as that of an index; exact where None.

    Returns:
        A context for each picture; it is empty where no caption is above the floor.

    Raises:
        DimensionError: The vectors have another width than the captions' embeddings.
        InputError: The store is empty, or `exclude` has another length.

    Source: maximal marginal relevance: Carbonell and Goldstein, The use of MMR, diversity-based reranking for
    reordering documents and producing summaries, 1998.
    """
    if not len(store):
        raise InputError("the datastore holds no captions; name files with captions, or a collection that has some")
    matrix = as_matrix(vectors, dim=store.vectors.shape[1])
    if exclude is not None and len(exclude) != len(matrix):
        raise InputError(f"expected sources to exclude for each of {len(matrix)} pictures, got {len(exclude)}")
    find = store.search if search is None else search
    result: list[RetrievedCaptions | None] = [None] * len(matrix)
    left = np.arange(len(matrix))
    depth = min(len(store), int(np.ceil(how.k * how.pool)))
    while len(left):
        scores, positions = find(matrix[left], depth)
        for row, score, places in zip(left.tolist(), scores, positions, strict=True):
            own = frozenset() if exclude is None else exclude[row]
            result[row] = _choose(store, score, places, how, own, whole=depth >= len(store))
        # Equal captions may have filled the pool: look deeper for those pictures.
        left = np.array([row for row in left if result[row] is None], np.int64)
        depth = min(len(store), 4 * depth)
    return [context for context in result if context is not None]


def _choose(
    store: TextStore,
    scores: Float32Array,
    positions: Int64Array,
    how: Retrieval,
    exclude: Collection[str],
    *,
    whole: bool,
) -> RetrievedCaptions | None:
    """The context from one list of hits; None where it was too short to tell."""
    seen: set[tuple[str, ...]] = set()
    rows: list[int] = []
    below = False
    # For diversity some more than are taken.
    wanted = how.k if how.diversity == 0 else int(np.ceil(how.k * (1 + how.pool) / 2))
    for rank, position in enumerate(positions.tolist()):
        if position < 0 or (how.floor is not None and scores[rank] < how.floor):
            below = True
            break
        if exclude and store.sources and store.sources[position] in exclude:
            continue
        words = caption_tokens(store.captions[position])
        if words in seen or not 0 < len(words) <= MOST_WORDS:
            continue
        seen.add(words)
        rows.append(rank)
        if len(rows) == wanted:
            break
    if len(rows) < how.k and not (below or whole):
        return None
    if how.diversity and len(rows) > 1:
        chosen = positions[rows]
        order = diverse_order(scores[rows], l2_normalize(store.vectors[chosen]), how.k, diversity=how.diversity)
        rows = sorted(rows[i] for i in order)
    places = positions[rows[: how.k]]
    return RetrievedCaptions(
        captions=tuple(store.captions[place] for place in places.tolist()),
        scores=scores[rows[: how.k]].astype(np.float32),
        sources=tuple(store.sources[place] if store.sources else "" for place in places.tolist()),
        positions=places.astype(np.int64),
    )


def diverse_order(scores: Float32Array, vectors: Float32Array, k: int, *, diversity: float) -> list[int]:
    """Take one caption after the other: near the picture, and unlike those taken before (MMR).

    Args:
        scores: Of each caption, shape (n,).
        vectors: Their embeddings, shape (n, dim), each row of length 1.
        k: How many to take.
        diversity: From 0, by score alone, to 1, by difference alone.

    Returns:
        Their positions, in the order in which they were taken, at most min(k, n).

    Source: Carbonell and Goldstein, 1998.
    """
    likeness = vectors @ vectors.T
    nearest = np.zeros(len(scores), np.float32)
    left = np.ones(len(scores), np.bool_)
    order: list[int] = []
    while len(order) < min(k, len(scores)):
        gain = np.where(left, (1 - diversity) * scores - diversity * nearest, -np.inf)
        best = int(np.argmax(gain))
        order.append(best)
        left[best] = False
        nearest = likeness[best] if len(order) == 1 else np.maximum(nearest, likeness[best])
    return order


def memory_projection(vectors: Float32Array, texts: NDArray[Any], *, temperature: float = 0.02) -> Float32Array:
    """Move embeddings of pictures to where texts are: each becomes the mean of the texts, weighed by nearness.

    Pictures and texts lie apart in a contrastive space. A mean of texts lies among texts, whatever the encoder.

    Args:
        vectors: Embeddings of q pictures, shape (q, dim), each row of length 1.
        texts: Embeddings of texts, shape (n, dim), float16 or float32, n at least 1.
        temperature: The lower, the fewer texts count.

    Returns:
        Shape (q, dim), float32, each row of length 1.

    Raises:
        DimensionError: Another width.
        InputError: No texts, or a temperature of 0 or less.

    Source: Li et al., DeCap: decoding CLIP latents for zero-shot captioning via text-only training, 2023.
    """
    if not len(texts) or temperature <= 0:
        raise InputError(f"expected texts and a temperature above 0, got {len(texts)} texts and {temperature:g}")
    matrix = as_matrix(vectors, dim=texts.shape[1])
    result = np.zeros_like(matrix)
    # Far texts weigh nothing: the nearest thousand are the sum to five digits at any useful temperature.
    scores, places = exact_top_k(matrix, texts, min(len(texts), 1024))
    weights = np.exp((scores - scores[:, :1]) / np.float32(temperature))
    weights /= weights.sum(axis=1, keepdims=True)
    for row, (weight, place) in enumerate(zip(weights, places, strict=True)):
        result[row] = weight @ texts[place].astype(np.float32)
    return l2_normalize(result)


def mean_shift(vectors: Float32Array, pictures: Float32Array, texts: Float32Array) -> Float32Array:
    """Move embeddings of pictures by the difference of the means of texts and pictures.

    Args:
        vectors: Embeddings of q pictures, shape (q, dim).
        pictures: The mean embedding of pictures, shape (dim,).
        texts: The mean embedding of texts, shape (dim,).

    Returns:
        Shape (q, dim), float32, each row of length 1.

    Source: Liang et al., Mind the gap: understanding the modality gap in multi-modal contrastive representation
    learning, 2022.
    """
    return l2_normalize(as_matrix(vectors) - pictures + texts)
