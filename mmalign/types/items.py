"""Entries of a source, and what was done with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mmalign.types.fields import field_values
from mmalign.types.json_ready import json_ready_dict
from mmalign.types.notebook import figure
from mmalign.types.notes import Note


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a source, before its media is read.

    Attributes:
        uri: Where the media is: an absolute path, a `file://` URI where the path is not printable UTF-8,
            or an `http(s)://` URL.
        id: The caller's own identifier, or None to have one derived from the URI.
        captions: Sentences that describe the picture.
        metadata: Further columns, by name; values are what `plain_value` gives.
        place: Where the source says so, such as `shop.csv:4`; empty where it has no places. Says nothing of the item.
        left_out: Remarks on cells of its row that cannot be kept. Say nothing of the item.
        source: Who says this: the URI of a table, `txt` for the text file beside the picture, `rows` for values from
            Python; what a source gave and gives no longer is taken away. None for a picture of which nothing is said.
    """

    uri: str
    id: str | None = None
    captions: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    place: str = field(default="", compare=False, repr=False)
    left_out: tuple[Note, ...] = field(default=(), compare=False, repr=False)
    source: str | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class StoredItem:
    """One item as a collection keeps it.

    Attributes:
        id: Its identifier in the collection.
        uri: Where its media is; empty where nobody said, as for a vector.
        kind: `image`, `vector` for what `add_embeddings` gave, or what a loader of one's own reads.
        sizes: How large it is, by name: of a picture `width` and `height` as it is seen, in pixels, at least 1; of
            another kind what its loader says; of a vector nothing.
        bytes: Size of the file, at least 1; None where there is none.
        sha256: Of the file's bytes, as 64 hex digits; None where there is none.
        captions: Sentences that describe the picture.
        metadata: Further columns by name, those without a value left out.
    """

    id: str
    uri: str = ""
    kind: str | None = None
    sizes: Mapping[str, int | float] = field(default_factory=dict)
    bytes: int | None = None
    sha256: str | None = None
    captions: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int | None:
        """Of the picture as it is seen, in pixels; None where there is no picture."""
        found = self.sizes.get("width")
        return None if found is None else int(found)

    @property
    def height(self) -> int | None:
        """As `width`."""
        found = self.sizes.get("height")
        return None if found is None else int(found)

    def to_dict(self) -> dict[str, Any]:
        """Return the item as JSON-ready values: its sizes by their names, `width` and `height` for every item."""
        sizes = {"width": None, "height": None, **self.sizes}
        own = {"id": self.id, "uri": self.uri, "kind": self.kind, **sizes, "bytes": self.bytes, "sha256": self.sha256}
        return json_ready_dict({**own, "captions": self.captions, "metadata": self.metadata})

    def _repr_html_(self) -> str:
        """Show the item in a notebook, with its picture where that is a file that can be read."""
        size = [f"{self.width} x {self.height} pixels"] * bool(self.width)
        values = {"captions": self.captions, **self.metadata}
        return figure(self.uri, title=self.id, metadata=values, lines=size)


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
class Unread:
    """Files of one kind that look like media and are not read.

    Attributes:
        ending: What their names end in, lower-case, such as `.mp4`; empty for names without an ending.
        count: How many there are, at least 1.
    """

    ending: str
    count: int = 1


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
        kept_out: Items of the source that stay out because they were removed earlier.
        unread: Files that look like media and are not read, by the ending of their names, such as `.mp4`.
        renamed: Columns that are kept under another name than the source's, the source's name to the column.
        notes: What else a person should know, such as a cell that was left out; `about` names its place.
    """

    added: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: tuple[Skip, ...] = ()
    encoded: int = 0
    seconds: float = 0.0
    kept_out: int = 0
    unread: Mapping[str, int] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready values."""
        payload = field_values(self)
        return json_ready_dict(payload | {"skipped": [asdict(skip) for skip in self.skipped]})


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
        values = field_values(self)
        return json_ready_dict(values | {"dropped": [asdict(skip) for skip in self.dropped]})
