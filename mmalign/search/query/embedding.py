"""From queries to vectors, with remarks on what an encoder cannot read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from mmalign.encoders.base import Encoder, KnowsWords
from mmalign.errors import InputError, QueryError
from mmalign.media.images import decode_image
from mmalign.media.policy import MediaPolicy
from mmalign.media.reading import Media
from mmalign.media.uris import to_uri
from mmalign.search.query.composed import Query
from mmalign.search.query.parsing import PictureRef, Term, looks_like_picture
from mmalign.types import Note
from mmalign.utils.similarity import Float32Array, as_matrix, l2_normalize, off_device

_OTHER_ENCODER = "put it in plain English words, or use an encoder that was trained on such texts (`mmalign models`)"
_MOST_WORDS = 5
# Lengths of vectors whose squares float32 holds.
_LENGTHS = (1e-12, 1e15)

Stored: TypeAlias = Callable[[str], "Float32Array | Media | None"]
"""Gives the embedding of a picture that is in the collection, by its URI; or its bytes, where it had to read them to
find that it is not; or None."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """A query's vector.

    Attributes:
        vector: Shape (dim,), float32, of length 1.
        notes: Remarks that a person should see.
        meaningless: Whether its words are none that the encoder knows, so that it says nothing about what they mean.
    """

    vector: Float32Array
    notes: tuple[Note, ...]
    meaningless: bool = False


def embed_query(
    query: Query,
    encoder: Callable[[], Encoder],
    *,
    dim: int,
    policy: MediaPolicy | None = None,
    stored: Stored = lambda uri: None,
) -> Embedded:
    """Encode a query into one vector, with what is known of a picture that is in the collection.

    Args:
        query: The query.
        encoder: Gives the encoder; called only when there are words or pictures to encode.
        dim: Width of an embedding.
        policy: What may be read; None for that of the environment.
        stored: Asked for each picture by path or URL before it is encoded.

    Returns:
        Its vector, with remarks.

    Raises:
        As `Query.embed`.
    """
    notes: list[Note] = []
    total = np.zeros(dim, np.float32)
    words = known = 0
    for term in query.terms:
        if isinstance(term.value, str):
            vector = _require(encoder(), "text").encode_text([term.value])[0]
            words += 1
            known += _remark(term.value, encoder(), notes)
        elif isinstance(term.value, PictureRef):
            vector = _look(term.value.uri, encoder, policy, stored)
        elif isinstance(term.value, Image):
            vector = _require(encoder(), "image").encode_image([decode_image(term.value).image])[0]
        else:
            vector = l2_normalize(as_matrix(term.value, dim=dim, name="query vector"))[0]
        total += np.float32(term.weight) * vector
    norm = float(np.linalg.norm(total))
    if not norm >= 1e-6:
        raise QueryError(f"the terms of {str(query)!r} cancel out; change a weight")
    return Embedded(total / np.float32(norm), tuple(notes), meaningless=words > 0 and known == 0)


def _remark(text: str, encoder: Encoder, notes: list[Note]) -> bool:
    """Note what the encoder does not read of a text, and say whether it knows any of its words."""
    truncates = getattr(encoder, "truncates", None)
    if truncates is not None and truncates(text):
        cut = f"a text of {len(text):,} characters is longer than {encoder.name} reads; its end was ignored"
        notes.append(Note(cut, about="encoder"))
    if not isinstance(encoder, KnowsWords):
        return True
    found = encoder.knows(text)
    if found.nothing:
        what = f"no word of {_shown([text])}" if found.words else f"no word in {_shown([text])}"
        notes.append(
            Note(f"{encoder.name} knows {what}, so the hits mean nothing", remedy=_OTHER_ENCODER, about="encoder")
        )
    elif found.unknown:
        notes.append(
            Note(f"{encoder.name} does not know {_shown(found.unknown)}", remedy=_OTHER_ENCODER, about="encoder")
        )
    return not found.nothing


def _shown(words: Sequence[str]) -> str:
    """Some words as they can be printed on one line."""
    told = [repr(word if len(word) <= 40 else word[:39] + "\u2026") for word in words[:_MOST_WORDS]]
    more = len(words) - len(told)
    return ", ".join(told) + (f" and {more} more" if more > 0 else "")


def _look(uri: str, encoder: Callable[[], Encoder], policy: MediaPolicy | None, stored: Stored) -> Float32Array:
    """The embedding of a picture by path or URL: that which is there, or a new one."""
    found = stored(uri)
    if isinstance(found, np.ndarray):
        return found
    name = to_uri(uri)
    picture = decode_image(uri, policy=policy) if found is None else decode_image(found.data, uri=name)
    vector: Float32Array = _require(encoder(), "image").encode_image([picture.image])[0]
    return vector


@dataclass(frozen=True, slots=True)
class Encoded:
    """Some queries and their vectors.

    Attributes:
        queries: The n queries; what are vectors alone share one object, since they differ in their numbers only.
        texts: Each in words.
        vectors: Shape (n, dim), float32, rows of length 1.
        notes: Remarks for each.
        meaningless: The places of those of whose words the encoder knows none.
    """

    queries: list[Query]
    texts: list[str]
    vectors: Float32Array
    notes: list[tuple[Note, ...]]
    meaningless: frozenset[int] = frozenset()

    @property
    def kind(self) -> str | None:
        """What an index answers all of them as; None where they are of different kinds."""
        kinds = {query.kind for query in distinct(self.queries)}
        return kinds.pop() if len(kinds) == 1 else None


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
) -> Encoded:
    """Encode queries; a batch of vectors is checked and scaled in one step.

    Args:
        asked: n queries, each as `Query` takes it, or an array of shape (n, dim).
        encoder: Gives the encoder; called only when there are words or pictures to encode.
        dim: Width of an embedding.
        check: Called with the queries before one of them is encoded, to refuse what is not wanted.
        allow_media: As for `Query`.
        policy: What may be read; None for that of the environment.
        stored: As for `embed_query`.

    Returns:
        The queries with their vectors.

    Raises:
        As `Query` and `Query.embed`.
    """
    vectors = _plain_vectors(asked, dim)
    if vectors is not None:
        query = Query((Term(vectors[0]),))
        count = len(vectors)
        queries = [query] * count
        check(queries)
        return Encoded(queries, [str(query)] * count, vectors, [()] * count)
    queries = [Query(one, allow_media=allow_media) for one in asked]
    check(queries)
    embedded = [embed_query(query, encoder, dim=dim, policy=policy, stored=stored) for query in queries]
    rows = [one.vector for one in embedded]
    named = [() if allow_media else _taken_as_words(query) for query in queries]
    return Encoded(
        queries,
        [str(query) for query in queries],
        np.stack(rows) if rows else np.zeros((0, dim), np.float32),
        [more + one.notes for more, one in zip(named, embedded, strict=True)],
        frozenset(place for place, one in enumerate(embedded) if one.meaningless),
    )


def _taken_as_words(query: Query) -> tuple[Note, ...]:
    """A remark on terms that look like pictures and were not looked at."""
    names = [term.value for term in query.terms if isinstance(term.value, str) and looks_like_picture(term.value)]
    return (Note(f"taken as words, since no picture may be opened here: {_shown(names)}"),) if names else ()


def _plain_vectors(asked: Sequence[Any] | NDArray[Any], dim: int) -> Float32Array | None:
    """The unit vectors of queries that are arrays of shape (dim,); None where one is not, or is wrong in some way."""
    if not len(asked):
        return None
    try:
        if isinstance(asked, np.ndarray):
            stacked = asked
        elif set(map(type, asked)) == {np.ndarray} and asked[0].shape == (dim,):
            # `np.stack` does the same in four times as long.
            stacked = np.array(asked)
        else:
            return None
        if stacked.shape != (len(asked), dim):
            return None
        if stacked.dtype == np.float32:
            # Without a copy for each step: what is not finite, zero, tiny or huge has a length out of these bounds.
            lengths = np.sqrt(np.einsum("nd,nd->n", stacked, stacked))
            if lengths.min() > _LENGTHS[0] and lengths.max() < _LENGTHS[1]:
                unit: Float32Array = stacked / lengths[:, None]
                return unit
        matrix = l2_normalize(as_matrix(stacked))
    except (InputError, TypeError, ValueError):
        # Taken one by one, the query that is wrong says so.
        return None
    # Few rows begin with a zero, and only these can be nothing else.
    return matrix if matrix[matrix[:, 0] == 0].any(axis=1).all() else None


def _require(encoder: Encoder, modality: str) -> Encoder:
    if modality not in encoder.modalities:
        raise QueryError(f"the encoder {encoder.name} cannot encode a query of kind {modality!r}")
    return encoder
