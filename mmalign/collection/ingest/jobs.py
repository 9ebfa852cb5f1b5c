"""What goes from one step of an ingest to the next: plain values that can be pickled."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmalign.store import Claim
from mmalign.types import Item
from mmalign.utils import Float32Array


@dataclass(frozen=True, slots=True)
class Known:
    """What the collection holds of an item.

    Attributes:
        row_id: Its row.
        id: Its id.
        uri: Where its media is; None for vectors from elsewhere.
        sha256: Of its bytes; None for vectors from elsewhere.
        size: Bytes of the file; None where there is none.
        mtime_ns: When the file was last changed; None where there is none.
        claims_json: Who gave what of it; see `mmalign.store.claims`.
    """

    row_id: int
    id: str
    uri: str | None
    sha256: str | None
    size: int | None
    mtime_ns: int | None
    claims_json: str | None


@dataclass(frozen=True, slots=True)
class IngestJob:
    """One item whose bytes must be read.

    Attributes:
        item: What the source says of it.
        known: The item that is there; None where it is new.
        size: Bytes of the file; None for a URL.
        mtime_ns: When the file was last changed; None for a URL.
        digest: Digest of what the source says of it, or None.
        own_digest: The same without what came with the call.
        taken: Whether the id that its URI gives belongs to an item that once had this URI.
    """

    item: Item
    known: Known | None = None
    size: int | None = None
    mtime_ns: int | None = None
    digest: str | None = None
    own_digest: str | None = None
    taken: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class NewRow:
    """One item that is to be written whole.

    Attributes:
        row_id: The row that is there; None where it is new.
        parts: What each of those who speak says of it.
        values: What its file says, by column.
        vector: Its embedding, float32 of shape (dim,).
    """

    row_id: int | None
    claims: Sequence[Claim]
    values: Mapping[str, Any]
    vector: Float32Array


def derive_id(uri: str, *, salt: str = "") -> str:
    """The id of an item that its source gives none: 16 hex digits from its URI at first sight.

    Args:
        uri: The item's URI.
        salt: Set where the id is taken by an item that once had this URI and has moved.

    Returns:
        16 lower-case hex digits.
    """
    return hashlib.blake2b(f"{uri}\n{salt}".encode(), digest_size=8).hexdigest()
