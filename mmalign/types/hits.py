"""What a search gives: hits, and the result that holds them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import repeat
from typing import Any, overload

from mmalign.types.geometry import Box, Part
from mmalign.types.html import Html, element
from mmalign.types.json_ready import json_ready
from mmalign.types.notebook import MOST_FIGURES, brief, faint, figure, grid
from mmalign.types.notes import Note


@dataclass(frozen=True, slots=True)
class HitRegion:
    """A part of a hit's picture that words of the query are about.

    Attributes:
        phrase: The words.
        box: Where, in pixels of the picture as it is seen, turned upright.
        score: Probability of this region among all and none, 0 to 1.
    """

    phrase: str
    box: Box
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Return the region as JSON-ready values."""
        return {"phrase": self.phrase, "box": json_ready(self.box.to_list()), "score": json_ready(self.score)}


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result.

    Attributes:
        id: The item's identifier in its collection.
        uri: Where its media is.
        score: Cosine similarity to the query, -1 to 1; higher is better.
        metadata: The item's captions, size and further columns.
        probability: Calibrated probability that the item matches, 0 to 1, where the encoder has a calibration.
        regions: Where the query's words are in the picture, with `explain`; None where nobody looked.
        agreement: How well the picture bears out what the query says of places, in nats, with `explain`: above 0
            where it does, below 0 where it speaks against it; None where nobody looked.
        copies: URIs of further items with the same bytes, oldest first, that this hit stands for.
        part: The part of the item that was found, such as some seconds of a film; None for the whole item.
    """

    id: str
    uri: str
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    probability: float | None = None
    regions: tuple[HitRegion, ...] | None = None
    agreement: float | None = None
    copies: tuple[str, ...] = ()
    part: Part | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as JSON-ready values; `regions`, `agreement`, `copies` and `part` only where there are any.

        Dates and times of the metadata become ISO 8601, and what is not finite None; see `json_ready`.
        """
        payload: dict[str, Any] = {
            "id": json_ready(self.id),
            "uri": json_ready(self.uri),
            "score": json_ready(self.score),
            "probability": json_ready(self.probability),
            "metadata": json_ready(self.metadata),
        }
        if self.regions is not None:
            payload["regions"] = [region.to_dict() for region in self.regions]
        if self.agreement is not None:
            payload["agreement"] = json_ready(self.agreement)
        if self.copies:
            payload["copies"] = json_ready(self.copies)
        if self.part is not None:
            payload["part"] = self.part.to_dict()
        return payload

    def _repr_html_(self) -> str:
        """Show the hit in a notebook, with its picture where that is a file that can be read."""
        return self._figure()

    def _figure(self, rank: str = "") -> Html:
        likely = "" if self.probability is None else f" ({self.probability:.0%} likely)"
        lines = [f"id: {self.id}"]
        if self.regions:
            lines.append("found: " + ", ".join(dict.fromkeys(region.phrase for region in self.regions)))
        if self.copies:
            lines.append(f"stands for {len(self.copies)} more of the same bytes")
        return figure(self.uri, title=f"{rank}{self.score:.3f}{likely}", metadata=self.metadata, lines=lines)


class _OfBatch:
    """Keeps what makes the hits of a result, given its place among those that were searched together."""

    __slots__ = ("_make",)


@dataclass(frozen=True, slots=True)
class SearchResult(_OfBatch, Sequence[Hit]):
    """The hits of one query, best first.

    Attributes:
        hits: The hits.
        query: The query in words.
        exact: Whether the hits are certain to be the true nearest ones.
        seconds: Wall time of the search, encoding of the query included.
        collection: Path of the collection searched.
        effort: Search-time effort that the index was asked for, or None for exact search.
        notes: Remarks that a person should see, such as a query longer than the encoder reads.
    """

    hits: tuple[Hit, ...]
    query: str
    exact: bool
    seconds: float
    collection: str
    effort: int | None = None
    notes: tuple[Note, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Hit, ...]: ...
    def __getitem__(self, index: int | slice) -> Hit | tuple[Hit, ...]:
        return self.hits[index]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def _repr_html_(self) -> str:
        """Show the result in a notebook: the query, remarks, and the first hits with their pictures."""
        doubt = "" if self.exact else ", perhaps not all of the nearest"
        lines = [f"{len(self):,} hits in {1000 * self.seconds:,.0f} ms{doubt}", *self.notes]
        figures = [hit._figure(f"{rank}. ") for rank, hit in enumerate(self.hits[:MOST_FIGURES], 1)]
        more = [faint(f"and {len(self) - MOST_FIGURES:,} more hits")] * (len(self) > MOST_FIGURES)
        return element("div", element("b", brief(self.query, most=400)), *map(faint, lines), grid(figures), *more)

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready values."""
        return {
            "query": json_ready(self.query),
            "collection": json_ready(self.collection),
            "hits": [hit.to_dict() for hit in self.hits],
            "exact": json_ready(self.exact),
            "effort": json_ready(self.effort),
            "seconds": json_ready(self.seconds),
            "notes": json_ready(self.notes),
        }


class _Late:
    """A field that may hold the place of a result in its batch until the value is first looked at.

    Ten thousand hits take longer to make than FAISS takes to find them. A batch whose hits are never looked at, or
    of which only the first ones are, does not pay for them.
    """

    def __init__(self, slot: Any) -> None:
        self._slot = slot
        self.__doc__ = slot.__doc__

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = self._slot.__get__(instance, owner)
        if type(value) is int:
            # Two threads may both do this, and set equal values; whoever comes late finds no batch, but the value.
            make = _MAKE.__get__(instance, owner)
            if make is None:
                return self._slot.__get__(instance, owner)
            value = make(value)
            self._slot.__set__(instance, value)
            # Let go: it may hold an older version of the items, which nothing else needs.
            _MAKE.__set__(instance, None)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        self._slot.__set__(instance, value)


# What sets a field where it is kept, each name once.
_SETTERS: dict[str, Callable[[SearchResult, Any], None]] = {
    one.name: vars(SearchResult)[one.name].__set__ for one in fields(SearchResult)
}
_MAKE: Any = vars(_OfBatch)["_make"]
# The dataclass makes the slot; equality, repr, copies and pickles go through the name and see the value.
SearchResult.hits = _Late(SearchResult.hits)  # type: ignore[assignment, misc]


def batch_results(
    hits: Callable[[int], tuple[Hit, ...]],
    *,
    queries: Sequence[str],
    notes: Iterable[tuple[Note, ...]],
    exact: Iterable[bool],
    seconds: float,
    collection: str,
    effort: Iterable[int | None],
) -> list[SearchResult]:
    """Make the results of many queries that were searched together.

    The constructor of a frozen dataclass takes a microsecond. For a thousand of them that is a share of the search
    that can be seen, so that they are made field by field here, in a third of the time.

    Args:
        hits: Gives those of a query by its place, when somebody first looks at them.
        queries: Each of n in words.
        notes: The remarks for each.
        exact: For each, as the others in `SearchResult`.
        seconds: Of all.
        collection: Of all.
        effort: For each.

    Returns:
        n results.
    """
    made = list(map(SearchResult.__new__, repeat(SearchResult, len(queries))))
    # Setters give None, so that `any` goes through all of them.
    any(map(_MAKE.__set__, made, repeat(hits)))
    columns: dict[str, Iterable[Any]] = {
        "hits": range(len(queries)),
        "query": queries,
        "exact": exact,
        "seconds": repeat(seconds),
        "collection": repeat(collection),
        "effort": effort,
        "notes": notes,
    }
    for name, setter in _SETTERS.items():
        any(map(setter, made, columns[name]))
    return made
