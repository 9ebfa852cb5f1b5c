"""Many queries at once, each as a caller may ask it, to vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders import Encoder
from mmalign.errors import InputError, QueryError
from mmalign.media import MediaPolicy
from mmalign.search.query.composed import Query, vector_query
from mmalign.search.query.embedding import LENGTHS, Stored, embed_queries, quoted_words
from mmalign.search.query.kinds import GIVEN, QueryKind
from mmalign.search.query.parsing import VECTOR, names_picture
from mmalign.types import Note
from mmalign.utils import Float32Array, as_matrix, l2_normalize, off_device


@dataclass(frozen=True, slots=True)
class Encoded:
    """Some queries and their vectors.

    Attributes:
        queries: The n queries; what are vectors alone share one object, since they differ in their numbers only.
        texts: Each in words.
        vectors: Shape (n, dim), float32, rows of length 1 where queries are scaled.
        notes: Remarks for each.
        kinds: What an index answers each of them as.
        meaningless: The places of those of whose words the encoder knows none.
    """

    queries: list[Query]
    texts: list[str]
    vectors: Float32Array
    notes: list[tuple[Note, ...]]
    kinds: list[tuple[QueryKind, ...]]
    meaningless: frozenset[int] = frozenset()

    def part(self, places: Sequence[int]) -> Encoded:
        """Give some of the queries.

        Args:
            places: Where they stand among these, m of them.

        Returns:
            The m queries, in that order.
        """
        return Encoded(
            [self.queries[place] for place in places],
            [self.texts[place] for place in places],
            self.vectors[list(places)],
            [self.notes[place] for place in places],
            [self.kinds[place] for place in places],
            frozenset(at for at, place in enumerate(places) if place in self.meaningless),
        )


def as_queries(asked: Any) -> tuple[bool, Any]:
    """Say whether a caller asks many queries or one.

    Args:
        asked: One query, a list of queries, or an array or tensor of shape (n, dim). A list of numbers is one vector.

    Returns:
        Whether it is many, and the queries or the query; tensors as arrays.

    Raises:
        QueryError: A tensor that NumPy cannot read.
    """
    if hasattr(asked, "detach"):
        try:
            asked = np.asarray(off_device(asked))
        except (TypeError, ValueError, RuntimeError) as error:
            raise QueryError(f"a query tensor must hold numbers that NumPy can read: {error}") from error
    if isinstance(asked, list):
        numbers = bool(asked) and all(isinstance(one, Real) for one in asked)
        return not numbers, asked
    return isinstance(asked, np.ndarray) and asked.ndim == 2, asked


def distinct(queries: Iterable[Query]) -> list[Query]:
    """Give each query object once, so that a batch of vectors, which share one, is not asked the same over and over."""
    return list(dict.fromkeys(queries))


def encode_queries(
    asked: Sequence[Any] | NDArray[Any],
    encoder: Callable[[], Encoder],
    *,
    dim: int,
    check: Callable[[list[Query]], None],
    allow_media: bool = True,
    policy: MediaPolicy | None = None,
    stored: Stored = lambda uri: None,
    unit_length: bool = True,
) -> Encoded:
    """Encode queries, all words in one call; a batch of vectors is checked and scaled in one step.

    Args:
        asked: n queries, each as `Query` takes it, or an array of shape (n, dim).
        encoder: Gives the encoder; called only when there are words or pictures to encode.
        dim: Width of an embedding.
        check: Called with the queries before one of them is encoded, to refuse what is not wanted.
        allow_media: As for `Query`.
        policy: What may be read; None for that of the environment.
        stored: As for `embed_queries`.
        unit_length: As for `embed_queries`.

    Returns:
        The queries with their vectors.

    Raises:
        As `Query` and `Query.embed`.
    """
    vectors = _plain_vectors(asked, dim, unit_length=unit_length)
    if vectors is not None:
        query = vector_query(vectors[0])
        count = len(vectors)
        queries = [query] * count
        check(queries)
        # As `str(query)` and `query.kinds` say, which take a share of such a search that can be seen.
        return Encoded(queries, [VECTOR] * count, vectors, [()] * count, [GIVEN] * count)
    queries = [Query(one, allow_media=allow_media) for one in asked]
    check(queries)
    embedded = embed_queries(
        [query.terms for query in queries],
        encoder,
        dim=dim,
        policy=policy,
        stored=stored,
        unit_length=unit_length,
    )
    rows = [one.vector for one in embedded]
    named = [() if allow_media else _taken_as_words(query) for query in queries]
    return Encoded(
        queries,
        [str(query) for query in queries],
        np.stack(rows) if rows else np.zeros((0, dim), np.float32),
        [more + one.notes for more, one in zip(named, embedded, strict=True)],
        [query.kinds for query in queries],
        frozenset(place for place, one in enumerate(embedded) if one.meaningless),
    )


def _taken_as_words(query: Query) -> tuple[Note, ...]:
    """A remark on terms that look like pictures and were not looked at."""
    names = [term.value for term in query.terms if isinstance(term.value, str) and names_picture(term.value)]
    return (Note(f"taken as words, since no picture may be opened here: {quoted_words(names)}"),) if names else ()


def _plain_vectors(asked: Sequence[Any] | NDArray[Any], dim: int, *, unit_length: bool) -> Float32Array | None:
    """The vectors of queries that are arrays of shape (dim,); None where one is not, or is wrong in some way."""
    if not len(asked):
        return None
    try:
        if isinstance(asked, np.ndarray):
            stacked = asked
        elif set(map(type, asked)) == {np.ndarray} and asked[0].shape == (dim,):
            # `np.stack` does the same in four times as long, and one alone needs no copy.
            stacked = np.array(asked) if len(asked) > 1 else asked[0][None]
        else:
            return None
        if stacked.shape != (len(asked), dim):
            return None
        if not unit_length:
            stacked = as_matrix(stacked)
        if stacked.dtype == np.float32:
            # Without a copy for each step: what is not finite, zero, tiny or huge has a length out of these bounds.
            lengths = np.sqrt(np.einsum("nd,nd->n", stacked, stacked))
            # Most searches have one query, whose length is both.
            least, most = (lengths.min(), lengths.max()) if len(lengths) > 1 else (lengths[0], lengths[0])
            if least > LENGTHS[0] and most < LENGTHS[1]:
                rows: Float32Array = stacked / lengths[:, None] if unit_length else stacked
                return rows
        if not unit_length:
            return None
        matrix = l2_normalize(as_matrix(stacked))
    except (InputError, TypeError, ValueError):
        # Taken one by one, the query that is wrong says so.
        return None
    # Few rows begin with a zero, and only these can be nothing else.
    return matrix if matrix[matrix[:, 0] == 0].any(axis=1).all() else None
