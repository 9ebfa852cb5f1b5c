"""What the demonstration found, for those who show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmalign.collection import Collection
from mmalign.types import Caption, SearchResult

if TYPE_CHECKING:
    from PIL import Image

    from mmalign.alignment import Alignment

# A picture and words in one query.
COMPOSED = ("galloping-horse.png", "a rider")


@dataclass(frozen=True, eq=False)
class DemoAlignment:
    """A sentence and a picture that were aligned.

    Attributes:
        uri: Of the picture.
        picture: Mode RGB.
        alignment: What was found.
    """

    uri: str
    picture: Image.Image
    alignment: Alignment


@dataclass(frozen=True, eq=False)
class DemoCaption:
    """A picture and the caption that was written for it.

    Attributes:
        uri: Of the picture.
        caption: The caption, with its evidence.
    """

    uri: str
    caption: Caption


@dataclass(frozen=True, eq=False)
class Demonstration:
    """All that the demonstration found.

    Attributes:
        collection: The gallery's collection.
        results: One a query in words.
        composed: The result of the query of a picture and words.
        aligned: Sentences aligned with pictures.
        captioned: Pictures captioned from the captions of the others.
        seconds: Wall time of each step, by its name.
    """

    collection: Collection
    results: tuple[SearchResult, ...]
    composed: SearchResult
    aligned: tuple[DemoAlignment, ...]
    captioned: tuple[DemoCaption, ...]
    seconds: dict[str, float]

    def places(self) -> dict[str, str]:
        """The URI of each item, by its id."""
        items = self.collection.snapshot().scan(["id", "uri"])[1]
        return dict(zip(items.column("id").to_pylist(), items.column("uri").to_pylist(), strict=True))
