"""From queries to vectors, with remarks on what an encoder cannot read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from PIL.Image import Image

from mmalign.encoders import Encoder, KnowsWords, TruncatesTexts, encode_query
from mmalign.errors import QueryError
from mmalign.media import Media, MediaPolicy, decode_image, to_uri
from mmalign.search.query.parsing import PictureRef, QueryTerm, as_text
from mmalign.types import Note
from mmalign.utils import Float32Array, as_matrix, l2_normalize

_OTHER_ENCODER = "put it in plain English words, or use an encoder that was trained on such texts (`mmalign models`)"
_MOST_WORDS = 5
# Terms of length 1 that leave less than this cancel out, and others that leave less than this part of their lengths.
_CANCELLED = 1e-6
LENGTHS = (1e-12, 1e15)
"""Lengths of vectors whose squares float32 holds."""

Stored: TypeAlias = Callable[[str], "Float32Array | Media | None"]
"""Gives the embedding of a picture that is in the collection, by its URI; or its bytes, where it had to read them to
find that it is not; or None."""


@dataclass(frozen=True, slots=True)
class EmbeddedQuery:
    """A query's vector.

    Attributes:
        vector: Shape (dim,), float32, of length 1 where queries are scaled.
        notes: Remarks that a person should see.
        meaningless: Whether its words are none that the encoder knows, so that it says nothing about what they mean.
    """

    vector: Float32Array
    notes: tuple[Note, ...]
    meaningless: bool = False


@dataclass(frozen=True, slots=True)
class _Words:
    """What the encoder makes of a text."""

    vector: Float32Array
    notes: tuple[Note, ...]
    known: bool


def embed_queries(
    queries: Sequence[Sequence[QueryTerm]],
    encoder: Callable[[], Encoder],
    *,
    dim: int,
    policy: MediaPolicy | None = None,
    stored: Stored = lambda uri: None,
    unit_length: bool = True,
) -> list[EmbeddedQuery]:
    """Encode queries, with one call of the encoder for the words of all of them, each text once.

    A text that goes through the encoder with others may differ in the last bits from the same text alone: an encoder
    adds up in another order where a batch has another shape.

    Args:
        queries: The terms of each of n queries.
        encoder: Gives the encoder; called only when there are words or pictures to encode.
        dim: Width of an embedding.
        policy: What may be read; None for that of the environment.
        stored: Asked for each picture by path or URL before it is encoded.
        unit_length: Whether vectors, and the sums of terms, are scaled to length 1.

    Returns:
        n vectors, with remarks.

    Raises:
        As `Query.embed`.
    """
    texts = list(dict.fromkeys(term.value for query in queries for term in query if isinstance(term.value, str)))
    # Before all the words: a picture that cannot be read, and a vector of nothing, is told of at once.
    others = [
        {
            place: _vector(term, encoder, dim, policy, stored, unit_length=unit_length)
            for place, term in enumerate(query)
            if not isinstance(term.value, str)
        }
        for query in queries
    ]
    words: dict[str, _Words] = {}
    wordless = {
        place: _add_up(query, others[place], words, dim, unit_length=unit_length)
        for place, query in enumerate(queries)
        if len(others[place]) == len(query)
    }
    if texts:
        vectors = encode_query(_require(encoder(), "text"), texts)
        words = {text: _Words(row, *_remark(text, encoder())) for text, row in zip(texts, vectors, strict=True)}
    return [
        wordless.get(place) or _add_up(query, others[place], words, dim, unit_length=unit_length)
        for place, query in enumerate(queries)
    ]


def _vector(
    term: QueryTerm,
    encoder: Callable[[], Encoder],
    dim: int,
    policy: MediaPolicy | None,
    stored: Stored,
    *,
    unit_length: bool,
) -> Float32Array:
    """The embedding of a term that is no words, shape (dim,)."""
    if isinstance(term.value, PictureRef):
        return _look(term.value.uri, encoder, policy, stored)
    if isinstance(term.value, Image):
        picture: Float32Array = _require(encoder(), "image").encode_image([decode_image(term.value).image])[0]
        return picture
    given = as_matrix(term.value, dim=dim, name="query vector")[0]
    return l2_normalize(given) if unit_length else given


def _add_up(
    query: Sequence[QueryTerm],
    others: Mapping[int, Float32Array],
    words: Mapping[str, _Words],
    dim: int,
    *,
    unit_length: bool,
) -> EmbeddedQuery:
    """The weighted sum of a query's terms: words by their text, what else there is by its place."""
    vectors = [words[term.value].vector if isinstance(term.value, str) else others[i] for i, term in enumerate(query)]
    read = [words[term.value] for term in query if isinstance(term.value, str)]
    notes = tuple(note for one in read for note in one.notes)
    meaningless = bool(read) and not any(one.known for one in read)
    if not unit_length:
        return EmbeddedQuery(_sum_as_it_is(query, vectors), notes, meaningless=meaningless)
    total = np.zeros(dim, np.float32)
    for term, vector in zip(query, vectors, strict=True):
        total += np.float32(term.weight) * vector
    norm = float(np.linalg.norm(total))
    if not norm >= _CANCELLED:
        raise _cancel_out(query)
    return EmbeddedQuery(total / np.float32(norm), notes, meaningless=meaningless)


def _sum_as_it_is(query: Sequence[QueryTerm], vectors: Sequence[Float32Array]) -> Float32Array:
    """The weighted sum of a query's terms, of whatever length it is."""
    weighted = [term.weight * vector.astype(np.float64) for term, vector in zip(query, vectors, strict=True)]
    total = np.sum(weighted, axis=0)
    norm = float(np.linalg.norm(total))
    if not norm or norm < _CANCELLED * sum(float(np.linalg.norm(one)) for one in weighted):
        raise _cancel_out(query)
    if not LENGTHS[0] < norm < LENGTHS[1]:
        raise QueryError(
            f"a query vector may have a length from {LENGTHS[0]:g} to {LENGTHS[1]:g}, got {norm:g}; scale it, which "
            "leaves the order of the hits as it is"
        )
    return np.asarray(total, np.float32)


def _cancel_out(query: Sequence[QueryTerm]) -> QueryError:
    return QueryError(f"the terms of {as_text(query)!r} cancel out; change a weight")


def _remark(text: str, encoder: Encoder) -> tuple[tuple[Note, ...], bool]:
    """What the encoder does not read of a text, and whether it knows any of its words."""
    notes: list[Note] = []
    if isinstance(encoder, TruncatesTexts) and encoder.truncates(text):
        cut = f"a text of {len(text):,} characters is longer than {encoder.name} reads; its end was ignored"
        notes.append(Note(cut, about="encoder"))
    if not isinstance(encoder, KnowsWords):
        return tuple(notes), True
    found = encoder.knows(text)
    if found.nothing:
        what = f"no word of {quoted_words([text])}" if found.words else f"no word in {quoted_words([text])}"
        notes.append(
            Note(f"{encoder.name} knows {what}, so the hits mean nothing", remedy=_OTHER_ENCODER, about="encoder")
        )
    elif found.unknown:
        notes.append(
            Note(f"{encoder.name} does not know {quoted_words(found.unknown)}", remedy=_OTHER_ENCODER, about="encoder")
        )
    return tuple(notes), not found.nothing


def quoted_words(words: Sequence[str]) -> str:
    """Some words as they can be printed on one line.

    Args:
        words: Words or texts.
    """
    quoted = [repr(word if len(word) <= 40 else word[:39] + "\u2026") for word in words[:_MOST_WORDS]]
    more = len(words) - len(quoted)
    return ", ".join(quoted) + (f" and {more} more" if more > 0 else "")


def _look(uri: str, encoder: Callable[[], Encoder], policy: MediaPolicy | None, stored: Stored) -> Float32Array:
    """The embedding of a picture by path or URL: that which is there, or a new one."""
    found = stored(uri)
    if isinstance(found, np.ndarray):
        return found
    name = to_uri(uri)
    picture = decode_image(uri, policy=policy) if found is None else decode_image(found.data, uri=name)
    vector: Float32Array = _require(encoder(), "image").encode_image([picture.image])[0]
    return vector


def _require(encoder: Encoder, modality: str) -> Encoder:
    if modality not in encoder.modalities:
        raise QueryError(f"the encoder {encoder.name} cannot encode a query of kind {modality!r}")
    return encoder
