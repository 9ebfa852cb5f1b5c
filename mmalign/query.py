"""Composed queries: words and pictures, weighted, added and taken away.

A query is one or more terms joined by ` + ` or ` - ` (with a space on each side, so that `t-shirt` is one word):

    two dogs in the snow
    beach.jpg + sunset
    2:dog + beach.jpg - leash
    https://example.org/cat.jpg - "black and white"

A term is the path of a picture, the URL of a picture, or words. `2:` before it is its weight. Quotes make words of
anything, also of what would be a path or holds ` + `.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL.Image import Image

from mmalign.encoders.base import Encoder
from mmalign.errors import InputError, QueryError
from mmalign.media.images import IMAGE_SUFFIXES, decode_image
from mmalign.media.uris import is_url
from mmalign.similarity import Float32Array, as_matrix, l2_normalize

QueryLike: TypeAlias = Union["Query", str, Path, Image, ArrayLike]
"""What `Collection.search` takes: a `Query`, its text form, a picture (path or PIL), or a vector of shape (dim,)."""

_QUOTED = re.compile(r'"([^"]*)"')
_OPERATOR = re.compile(r"(?:^|\s)([+-])(?=\s|$)")
# `16:9 screen` and `10:30 train` are words: a weight is not followed by a digit.
_WEIGHT = re.compile(r"(\d+(?:\.\d+)?|\.\d+):(?=[^\d\s])")
# Lengths of vectors whose squares float32 holds.
_LENGTHS = (1e-12, 1e15)


@dataclass(frozen=True, slots=True)
class Term:
    """One part of a query.

    Attributes:
        value: Words (str), a picture (`PictureRef` or PIL), or a vector of shape (dim,).
        weight: Its share of the sum; negative takes away.
    """

    value: str | PictureRef | Image | Float32Array
    weight: float = 1.0

    def __str__(self) -> str:
        if isinstance(self.value, str):
            return self.value
        if isinstance(self.value, PictureRef):
            return self.value.uri
        return f"<picture {self.value.width}x{self.value.height}>" if isinstance(self.value, Image) else "<vector>"


@dataclass(frozen=True, slots=True)
class PictureRef:
    """A picture by path or URL, not read yet.

    Attributes:
        uri: Path or `http(s)://` URL.
    """

    uri: str


class Query:
    """Words and pictures, weighted, added and taken away.

    Args:
        query: The text form (see this module), a path, a PIL picture, a vector of shape (dim,), or terms.

    Raises:
        QueryError: Empty, or a term that cannot be what it looks like.

    Example:
        >>> query = 2 * Query("dog") + Query("snow") - Query("leash")
        >>> str(query)
        '2:dog + snow - leash'
    """

    def __init__(self, query: QueryLike | Sequence[Term]) -> None:
        self.terms: tuple[Term, ...] = _terms(query)

    @property
    def holds_vectors(self) -> bool:
        """Whether a term is a vector, which some encoder made."""
        return any(isinstance(term.value, np.ndarray) for term in self.terms)

    @property
    def kind(self) -> str:
        """What an index answers it as: `given` where a term is a vector, else `text` where one is words, or `image`."""
        if self.holds_vectors:
            return "given"
        return "text" if any(isinstance(term.value, str) for term in self.terms) else "image"

    @property
    def is_words(self) -> bool:
        """Whether it is one text and nothing else."""
        return len(self.terms) == 1 and isinstance(self.terms[0].value, str) and self.terms[0].weight > 0

    def __add__(self, other: Query) -> Query:
        return Query((*self.terms, *other.terms))

    def __sub__(self, other: Query) -> Query:
        return self + -1.0 * other

    def __mul__(self, weight: float) -> Query:
        return Query(tuple(replace(term, weight=term.weight * weight) for term in self.terms))

    __rmul__ = __mul__

    def __str__(self) -> str:
        text = ""
        for term in self.terms:
            sign = "- " if term.weight < 0 else "+ "
            weight = "" if abs(term.weight) == 1 else f"{abs(term.weight):g}:"
            text += f" {sign}{weight}{term}"
        return text.removeprefix(" + ").lstrip()

    def __repr__(self) -> str:
        return f"Query({str(self)!r})"

    def embed(self, encoder: Callable[[], Encoder], *, dim: int) -> tuple[Float32Array, tuple[str, ...]]:
        """Encode the query into one vector: the weighted sum of its terms' embeddings, scaled to length 1.

        Args:
            encoder: Gives the encoder; called only when there are words or pictures to encode.
            dim: Width of an embedding.

        Returns:
            `(vector, notes)`: float32 of shape (dim,), and remarks that a person should see.

        Raises:
            QueryError: The encoder cannot encode a kind of term, or the terms cancel out.
            DecodeError: A picture cannot be read.
            DimensionError: A vector has another width.
        """
        notes = []
        total = np.zeros(dim, np.float32)
        for term in self.terms:
            if isinstance(term.value, str):
                vector = _require(encoder(), "text").encode_text([term.value])[0]
                truncates = getattr(encoder(), "truncates", None)
                if truncates is not None and truncates(term.value):
                    notes.append(
                        f"a text of {len(term.value):,} characters is longer than {encoder().name} reads; "
                        "its end was ignored"
                    )
            elif isinstance(term.value, PictureRef | Image):
                source = term.value.uri if isinstance(term.value, PictureRef) else term.value
                vector = _require(encoder(), "image").encode_image([decode_image(source).image])[0]
            else:
                vector = l2_normalize(as_matrix(term.value, dim=dim, name="query vector"))[0]
            total += np.float32(term.weight) * vector
        norm = float(np.linalg.norm(total))
        if norm < 1e-6:
            raise QueryError(f"the terms of {str(self)!r} cancel out; change a weight")
        return total / np.float32(norm), tuple(notes)


@dataclass(frozen=True, slots=True)
class Encoded:
    """Some queries and their vectors.

    Attributes:
        queries: The n queries; what are vectors alone share one object, since they differ in their numbers only.
        texts: Each in words.
        vectors: Shape (n, dim), float32, rows of length 1.
        notes: Remarks for each.
    """

    queries: list[Query]
    texts: list[str]
    vectors: Float32Array
    notes: list[tuple[str, ...]]

    @property
    def kind(self) -> str | None:
        """What an index answers all of them as; None where they are of different kinds."""
        kinds = {query.kind for query in distinct(self.queries)}
        return kinds.pop() if len(kinds) == 1 else None


def distinct(queries: Iterable[Query]) -> list[Query]:
    """Give each query object once, so that a batch of vectors, which share one, is not asked the same over and over."""
    return list(dict.fromkeys(queries))


def encode_queries(
    asked: Sequence[Any] | NDArray[Any],
    encoder: Callable[[], Encoder],
    *,
    dim: int,
    check: Callable[[list[Query]], None],
) -> Encoded:
    """Encode queries; a batch of vectors is checked and scaled in one step.

    Args:
        asked: n queries, each as `Query` takes it, or an array of shape (n, dim).
        encoder: Gives the encoder; called only when there are words or pictures to encode.
        dim: Width of an embedding.
        check: Called with the queries before one of them is encoded, to refuse what is not wanted.

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
    queries = [Query(one) for one in asked]
    check(queries)
    embedded = [query.embed(encoder, dim=dim) for query in queries]
    rows = [vector for vector, _ in embedded]
    return Encoded(
        queries,
        [str(query) for query in queries],
        np.stack(rows) if rows else np.zeros((0, dim), np.float32),
        [notes for _, notes in embedded],
    )


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


def _terms(query: Any) -> tuple[Term, ...]:
    if isinstance(query, Query):
        return query.terms
    if isinstance(query, str):
        return _parse(query)
    if isinstance(query, Path):
        return (Term(_picture(str(query))),)
    if isinstance(query, Image):
        return (Term(query),)
    if isinstance(query, Sequence) and query and all(isinstance(term, Term) for term in query):
        return tuple(query)
    try:
        matrix = as_matrix(query, name="query")
    except InputError as error:
        raise QueryError(
            f"a query is text, a path, a PIL picture, a vector or a Query, got {type(query).__name__}: {error}"
        ) from error
    if matrix.shape[0] != 1:
        raise QueryError(f"a query vector has shape (dim,), got {np.shape(query)}; pass a list for several queries")
    return (Term(matrix[0]),)


def _parse(text: str) -> tuple[Term, ...]:
    if not text.strip():
        raise QueryError("the query is empty; describe what the picture shows, or give the path of a picture")
    if _is_file(text):
        return (Term(PictureRef(text)),)
    quoted: list[str] = []

    def hide(match: re.Match[str]) -> str:
        quoted.append(match.group(1))
        return f"\0{len(quoted) - 1}\0"

    pieces = _OPERATOR.split(_QUOTED.sub(hide, text.strip().replace("\0", " ")))
    signs = ["+", *pieces[1::2]]
    bodies = pieces[::2]
    if not bodies[0].strip() and len(bodies) > 1:
        signs, bodies = signs[1:], bodies[1:]
    terms = []
    for sign, body in zip(signs, bodies, strict=True):
        weight = 1.0
        rest = body.strip()
        if match := _WEIGHT.match(rest):
            weight, rest = float(match.group(1)), rest[match.end() :]
        words = re.sub("\0(\\d+)\0", lambda found: quoted[int(found.group(1))], rest).strip()
        if not words:
            raise QueryError(f"an empty term in {text!r}; between ' + ' and ' - ' there must be words or a picture")
        terms.append(
            Term(
                words if rest.startswith("\0") else _picture_or_words(words), weight=-weight if sign == "-" else weight
            )
        )
    if all(term.weight <= 0 for term in terms):
        raise QueryError(f"{text!r} only takes away; add what the picture should show")
    return tuple(terms)


def _picture_or_words(text: str) -> str | PictureRef:
    looks_like_file = Path(text).suffix.lower() in IMAGE_SUFFIXES and "\n" not in text
    return _picture(text) if is_url(text) or _is_file(text) or looks_like_file else text


def _picture(uri: str) -> PictureRef:
    if not is_url(uri) and not _is_file(uri):
        raise QueryError(f"no picture at {uri!r}; to search for these words, put them in double quotes")
    return PictureRef(uri)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        # Too long for a path, or a NUL: it is words.
        return False
