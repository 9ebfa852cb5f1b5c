"""`Query`: words and pictures, weighted, added and taken away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, Union

import numpy as np
from numpy.typing import ArrayLike
from PIL.Image import Image

from mmalign.encoders import Encoder
from mmalign.errors import QueryError
from mmalign.media import MediaPolicy
from mmalign.search.query.embedding import embed_queries
from mmalign.search.query.kinds import QueryKind, kinds_of
from mmalign.search.query.parsing import EMPTY, PictureRef, QueryTerm, as_text, check_weight, picture_ref, terms_of
from mmalign.types import Note
from mmalign.utils import Float32Array

QueryLike: TypeAlias = Union["Query", str, Path, Image, ArrayLike]
"""What `Collection.search` takes: a `Query`, its text form, a picture (path or PIL), or a vector of shape (dim,)."""


class Query:
    """Words and pictures, weighted, added and taken away.

    Args:
        query: The text form (see this module), a path, a PIL picture, a vector of shape (dim,), or terms.
        allow_media: Whether terms of a text may be pictures by path or URL. Otherwise all of them are words, no file
            and no server is looked at, and a path or `PictureRef` is an error.

    Raises:
        QueryError: Empty, or a term that cannot be what it looks like.

    Example:
        >>> query = 2 * Query("dog") + Query("snow") - Query("leash")
        >>> str(query)
        '2:dog + snow - leash'
    """

    terms: tuple[QueryTerm, ...]

    def __init__(self, query: QueryLike | Sequence[QueryTerm], *, allow_media: bool = True) -> None:
        self.terms = query.terms if isinstance(query, Query) else terms_of(query, media=allow_media)
        if not allow_media:
            refused = next((term for term in self.terms if isinstance(term.value, PictureRef)), None)
            if refused is not None:
                raise QueryError(
                    f"no picture may be opened here, got {str(refused)!r}; ask in words, or hand in a picture"
                )

    @classmethod
    def words(cls, text: str) -> Query:
        """Make a query of words, whatever they look like: no operators, no weights, no paths, no URLs.

        Args:
            text: The words.

        Returns:
            The query; to make it looks at no file and no server.

        Raises:
            QueryError: No text, or an empty one.

        Example:
            >>> Query.words("/etc/passwd - or https://example.org").is_words
            True
        """
        if not isinstance(text, str):
            raise QueryError(f"words are a text, got {type(text).__name__}")
        if not text.strip():
            raise QueryError(EMPTY)
        return cls((QueryTerm(text),))

    @classmethod
    def picture(cls, picture: str | Path | Image) -> Query:
        """Make a query of a picture, whatever its name looks like.

        Args:
            picture: A path, a `file://` URI, an http(s) URL, or a PIL picture.

        Returns:
            The query; a file or a URL is read when it is searched with.

        Raises:
            QueryError: No picture, or no file at the path.
        """
        if isinstance(picture, Image):
            return cls((QueryTerm(picture),))
        if not isinstance(picture, str | Path):
            raise QueryError(f"a picture is a path, a URL or a PIL picture, got {type(picture).__name__}")
        return cls((QueryTerm(picture_ref(str(picture))),))

    @property
    def holds_vectors(self) -> bool:
        """Whether a term is a vector, which some encoder made."""
        return any(isinstance(term.value, np.ndarray) for term in self.terms)

    @property
    def kinds(self) -> tuple[QueryKind, ...]:
        """What an index answers it as: its kind, or several where its form does not tell them apart."""
        return kinds_of(self.terms)

    @property
    def is_words(self) -> bool:
        """Whether it is one text and nothing else."""
        return len(self.terms) == 1 and isinstance(self.terms[0].value, str) and self.terms[0].weight > 0

    def __add__(self, other: Query) -> Query:
        if not isinstance(other, Query):
            raise QueryError(f"a Query is added to a Query, got {type(other).__name__}; make one with Query(...)")
        return Query((*self.terms, *other.terms))

    def __sub__(self, other: Query) -> Query:
        if not isinstance(other, Query):
            raise QueryError(f"a Query is taken from a Query, got {type(other).__name__}; make one with Query(...)")
        return self + -1.0 * other

    def __mul__(self, weight: float) -> Query:
        check_weight(weight)
        return Query(tuple(replace(term, weight=term.weight * weight) for term in self.terms))

    __rmul__ = __mul__

    def __str__(self) -> str:
        return as_text(self.terms)

    def __repr__(self) -> str:
        return f"Query({str(self)!r})"

    def embed(
        self, encoder: Callable[[], Encoder], *, dim: int, policy: MediaPolicy | None = None
    ) -> tuple[Float32Array, tuple[Note, ...]]:
        """Encode the query into one vector: the weighted sum of its terms' embeddings, scaled to length 1.

        Args:
            encoder: Gives the encoder; called only when there are words or pictures to encode.
            dim: Width of an embedding.
            policy: What may be read; None for that of the environment.

        Returns:
            `(vector, notes)`: float32 of shape (dim,), and remarks that a person should see.

        Raises:
            QueryError: The encoder cannot encode a kind of term, or the terms cancel out.
            DecodeError: A picture cannot be read.
            DimensionError: A vector has another width.
        """
        found = embed_queries([self.terms], encoder, dim=dim, policy=policy)[0]
        return found.vector, found.notes


def vector_query(vector: Float32Array) -> Query:
    """Make a query of a vector that is known to be right, without looking at it again.

    Args:
        vector: Shape (dim,), float32, finite.

    Returns:
        The query.
    """
    made = Query.__new__(Query)
    made.terms = (QueryTerm(vector),)
    return made
