"""The terms of a query, and how a text is taken apart into them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image

from mmalign.errors import InputError, QueryError
from mmalign.media import IMAGE_SUFFIXES, is_url, on_disk, uri_to_path
from mmalign.utils import Float32Array, as_matrix

EMPTY = "the query is empty; describe what the picture shows, or give the path of a picture"
"""What an empty query is told."""

_QUOTED = re.compile(r'"([^"]*)"')
_OPERATOR = re.compile(r"(?:^|\s)([+-])(?=\s|$)")
# `16:9 screen` and `10:30 train` are words: a weight is not followed by a digit.
_WEIGHT = re.compile(r"(\d+(?:\.\d+)?|\.\d+):(?=[^\d\s])")

VECTOR = "<vector>"
"""How a vector is told in words."""


@dataclass(frozen=True, slots=True)
class QueryTerm:
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
        return f"<picture {self.value.width}x{self.value.height}>" if isinstance(self.value, Image) else VECTOR


@dataclass(frozen=True, slots=True)
class PictureRef:
    """A picture by path or URL, not read yet.

    Attributes:
        uri: Path, `file://` URI or `http(s)://` URL.
    """

    uri: str


def terms_of(query: Any, *, media: bool) -> tuple[QueryTerm, ...]:
    """Take apart what a caller asks with.

    Args:
        query: The text form, a path, a PIL picture, a vector of shape (dim,), a `PictureRef`, or terms.
        media: Whether terms of a text may be pictures by path or URL.

    Returns:
        The terms, at least one.

    Raises:
        QueryError: As `Query`.
    """
    if isinstance(query, str):
        return _parse(query, media=media)
    if isinstance(query, PictureRef):
        return (QueryTerm(query),)
    if isinstance(query, os.PathLike):
        return (QueryTerm(picture_ref(os.fsdecode(query)) if media else PictureRef(os.fsdecode(query))),)
    if isinstance(query, Image):
        return (QueryTerm(query),)
    if isinstance(query, Sequence) and not isinstance(query, bytes) and query and isinstance(query[0], QueryTerm):
        return tuple(_checked(term) for term in query)
    try:
        if query is None or isinstance(query, bytes | bytearray | memoryview | Mapping | set | frozenset):
            raise InputError("no text and no numbers")
        matrix = as_matrix(query, name="query")
    except InputError as error:
        raise QueryError(
            f"a query is text, a path, a PIL picture, a vector or a Query, got {type(query).__name__}: {error}"
        ) from error
    if matrix.shape[0] != 1:
        raise QueryError(f"a query vector has shape (dim,), got {np.shape(matrix)}; pass a list for several queries")
    return (QueryTerm(matrix[0]),)


def as_text(terms: Sequence[QueryTerm]) -> str:
    """Write terms as a person would ask them.

    Args:
        terms: The terms.

    Returns:
        The text form of the query that they make.
    """
    text = ""
    for term in terms:
        sign = "- " if term.weight < 0 else "+ "
        weight = "" if abs(term.weight) == 1 else f"{abs(term.weight):g}:"
        text += f" {sign}{weight}{term}"
    return text.removeprefix(" + ").lstrip()


def check_weight(weight: Any) -> None:
    """Refuse what is no weight of a term.

    Args:
        weight: A finite number.

    Raises:
        QueryError: Any other value.
    """
    number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool | np.complexfloating)
    if not number or not abs(weight) <= 3.4e38:
        raise QueryError(f"the weight of a term is a finite number, got {weight!r}")


def _checked(term: Any) -> QueryTerm:
    """A term that a caller made, whose weight and value are what they should be."""
    if not isinstance(term, QueryTerm):
        raise QueryError(f"the terms of a query are all `Term`s, got {type(term).__name__}")
    check_weight(term.weight)
    if isinstance(term.value, str | PictureRef | Image):
        return term
    try:
        matrix = as_matrix(term.value, name="a term's vector")
    except InputError as error:
        raise QueryError(f"a term is words, a picture or a vector, got {type(term.value).__name__}: {error}") from error
    if len(matrix) != 1:
        raise QueryError(f"a term's vector has shape (dim,), got {matrix.shape}")
    return replace(term, value=matrix[0])


def _parse(text: str, *, media: bool) -> tuple[QueryTerm, ...]:
    if not text.strip():
        raise QueryError(EMPTY)
    if media and _is_file(text):
        return (QueryTerm(PictureRef(text)),)
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
        value = words if rest.startswith("\0") or not media else _picture_or_words(words)
        terms.append(QueryTerm(value, weight=-weight if sign == "-" else weight))
    if all(term.weight <= 0 for term in terms):
        raise QueryError(f"{text!r} only takes away; add what the picture should show")
    return tuple(terms)


def _picture_or_words(text: str) -> str | PictureRef:
    return picture_ref(text) if names_picture(text) or _is_file(text) else text


def names_picture(text: str) -> bool:
    """Say whether a text names a picture by its form alone.

    Args:
        text: The text.

    Returns:
        True for URLs and for names that end as pictures do, whether or not there is such a file.
    """
    if is_url(text) or text[:7].lower() == "file://":
        return True
    return "\n" not in text and Path(text).suffix.lower() in IMAGE_SUFFIXES


def picture_ref(uri: str) -> PictureRef:
    """Take a text for a picture's path or URL.

    Args:
        uri: The text.

    Returns:
        The picture, not read yet.

    Raises:
        QueryError: No file is there.
    """
    if not is_url(uri) and not _is_file(uri):
        raise QueryError(f"no picture at {uri!r}; to search for these words, put them in double quotes")
    return PictureRef(uri)


def _is_file(text: str) -> bool:
    try:
        path = uri_to_path(text)
        if path is None or path.is_file():
            return path is not None
        return not str(path).isascii() and on_disk(os.path.abspath(path)) is not None  # noqa: PTH100 - no symlinks
    except (OSError, ValueError):
        # Too long for a path, or a NUL: it is words.
        return False
