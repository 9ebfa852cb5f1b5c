"""The kind of a query: what it is made of, and how its words look.

Queries of different kinds lie differently to the items, and an index has to look harder for some than for others: a
sentence is near to few pictures, a single word to many, a difference of two to none as near. So recall is measured by
kind, and a query is answered as hard as its own kind takes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from mmalign.search.query.parsing import QueryTerm

QueryKind: TypeAlias = Literal[
    "sentence",
    "short",
    "keywords",
    "phrase",
    "word",
    "rare",
    "foreign",
    "sum",
    "difference",
    "image",
    "crop",
    "given",
]
"""`sentence`: seven words or more that make one. `short`: four to six that do. `keywords`: four or more that make none.
`phrase`: two or three. `word`: one that captions hold. `rare`: one that hardly any caption holds. `foreign`: of other
languages than English, or of none. `sum`: terms that are added up. `difference`: one taken away from others. `image`: a
picture. `crop`: a part of one. `given`: a vector of the caller's own."""

GIVEN: tuple[QueryKind, ...] = ("given",)
"""The kinds of a query with a vector of the caller's own."""

# A text with one of these is an English sentence.
_ENGLISH = {
    *("a", "an", "and", "are", "at", "behind", "by", "for", "from", "his", "her", "in", "into", "is", "of", "on"),
    *("over", "that", "the", "their", "under", "with"),
}
# Captions are hardly shorter.
_LONG = 7
_LATIN = re.compile(r"[\x00-\u024f\u1e00-\u1eff\u2000-\u206f\u20a0-\u20cf\u2100-\u214f]*")


def kinds_of(terms: tuple[QueryTerm, ...]) -> tuple[QueryKind, ...]:
    """Say which kinds a query may be of.

    Args:
        terms: Its terms, at least one.

    Returns:
        Its kind; several where its form does not tell them apart.
    """
    values = [term.value for term in terms]
    if any(isinstance(value, np.ndarray) for value in values):
        return GIVEN
    if len(values) > 1:
        return ("sum",) if all(term.weight >= 0 for term in terms) else ("difference",)
    return _text_kinds(values[0]) if isinstance(values[0], str) else ("image", "crop")


def _text_kinds(text: str) -> tuple[QueryKind, ...]:
    if not _LATIN.fullmatch(text):
        return ("foreign",)
    words = re.findall(r"[^\W_]+", text.lower())
    if len(words) <= 1:
        return "word", "rare", "foreign"
    if len(words) <= 3:
        return "phrase", "foreign"
    if _ENGLISH.isdisjoint(words):
        return "keywords", "foreign"
    return ("sentence",) if len(words) >= _LONG else ("short",)
