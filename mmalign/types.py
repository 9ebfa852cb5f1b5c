"""Small frozen value types that the rooms exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast, overload


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a source, before its media is read.

    Attributes:
        uri: Where the media is: an absolute path, a `file://` URI where the path is not printable UTF-8,
            or an `http(s)://` URL.
        id: The caller's own identifier, or None to have one derived from the URI.
        captions: Sentences that describe the picture.
        metadata: Further columns, by name; values are JSON-like.
    """

    uri: str
    id: str | None = None
    captions: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Skip:
    """An item that was left out, and why.

    Attributes:
        uri: The item.
        reason: One line, with the remedy where there is one.
    """

    uri: str
    reason: str


@dataclass(frozen=True, slots=True)
class AddReport:
    """What one `Collection.add` did, in numbers of items.

    Attributes:
        added: New items.
        updated: Items whose bytes or metadata changed.
        moved: Items found again under another path; not encoded again.
        unchanged: Items left as they were.
        removed: Items whose file is gone, removed because `prune` was asked for.
        skipped: Items that could not be used, with the reason.
        encoded: Pictures that went through the encoder.
        seconds: Wall time.
    """

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: tuple[Skip, ...] = ()
    encoded: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return asdict(self) | {"skipped": [asdict(skip) for skip in self.skipped]}


@dataclass(frozen=True, slots=True)
class ReencodeReport:
    """What one `Collection.reencode` did, in numbers of items.

    Attributes:
        encoder: Spec of the encoder that the collection is made with now, or will be once it is finished.
        items: Items that the collection holds.
        encoded: Pictures that went through the encoder.
        kept: Embeddings that an earlier run had made before it was stopped.
        updated: Items whose bytes had changed since they were added.
        dropped: Items that were removed because their picture cannot be read, with the reason.
        seconds: Wall time.
    """

    encoder: str
    items: int = 0
    encoded: int = 0
    kept: int = 0
    updated: int = 0
    dropped: tuple[Skip, ...] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        return asdict(self) | {"dropped": [asdict(skip) for skip in self.dropped]}


@dataclass(frozen=True, slots=True)
class Hit:
    """One search result.

    Attributes:
        id: The item's identifier in its collection.
        uri: Where its media is.
        score: Cosine similarity to the query, -1 to 1; higher is better.
        metadata: The item's captions, size and further columns.
        probability: Calibrated probability that the item matches, 0 to 1, where the encoder has a calibration.
    """

    id: str
    uri: str
    score: float
    metadata: Mapping[str, Any] = field(default_factory=dict)
    probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the hit as JSON-ready values."""
        return {
            "id": self.id,
            "uri": self.uri,
            "score": self.score,
            "probability": self.probability,
            "metadata": dict(self.metadata),
        }


@dataclass(frozen=True, slots=True)
class SearchResult(Sequence[Hit]):
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
    notes: tuple[str, ...] = ()

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

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON-ready values."""
        return {
            "query": self.query,
            "hits": [hit.to_dict() for hit in self.hits],
            "exact": self.exact,
            "effort": self.effort,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


class _Late:
    """A field that takes a function in the place of its value, and calls it when the value is first looked at.

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
        if callable(value):
            # Two threads may both do this, and set equal values.
            value = value()
            self._slot.__set__(instance, value)
        return value

    def __set__(self, instance: Any, value: Any) -> None:
        self._slot.__set__(instance, value)


# The dataclass makes the slot; equality, repr, copies and pickles go through the name and see the value.
SearchResult.hits = _Late(SearchResult.hits)  # type: ignore[assignment, misc]


def late_hits(make: Callable[[], tuple[Hit, ...]]) -> tuple[Hit, ...]:
    """Stand for the hits of a `SearchResult` that are made when somebody first looks at them.

    Args:
        make: Gives the hits; called at most once a thread.

    Returns:
        What `SearchResult(hits=...)` takes; of no use elsewhere.
    """
    return cast("tuple[Hit, ...]", make)
