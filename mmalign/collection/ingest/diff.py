"""What has changed in a source since it was read last: told without reading a file."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmalign.collection.ingest.jobs import IngestJob, Known, derive_id
from mmalign.collection.ingest.known import KnownItems
from mmalign.media import row_is_there, uri_to_path
from mmalign.store import FittedItem
from mmalign.types import Item, Skip


@dataclass(frozen=True, slots=True)
class SameBytes:
    """An item whose file is as it was.

    Attributes:
        known: The item.
        given: What the source says of it.
    """

    known: Known
    given: FittedItem


@dataclass(frozen=True, slots=True)
class KeptOut:
    """An item that stays out, as it was removed earlier.

    Attributes:
        item: What the source says of it.
    """

    item: Item


def diff(
    block: Sequence[FittedItem],
    known: KnownItems,
    *,
    claims: Mapping[str, Sequence[str]],
    stays_out: Callable[[str, int | None, int | None], bool],
    encode_again: Collection[int],
) -> Iterator[SameBytes | IngestJob | KeptOut | Skip]:
    """Compare a block of a source with the collection.

    Args:
        block: What the source says of some of its items.
        known: The collection.
        claims: By id, the URIs of the source that claim it, where there are several.
        stays_out: Says of a new item's URI, size and time whether it was removed.
        encode_again: Row ids of items whose embedding is damaged.

    Yields:
        For each item what becomes of it, in order.
    """
    by_id = known.by_id([given.item.id for given in block if given.item.id is not None])
    by_uri = known.by_uri([given.item.uri for given in block if given.item.id is None])
    derived = {
        given.item.uri: derive_id(given.item.uri)
        for given in block
        if given.item.id is None and given.item.uri not in by_uri
    }
    taken = known.by_id(list(derived.values()))
    for given in block:
        item = given.item
        there = by_uri.get(item.uri) if item.id is None else by_id.get(item.id)
        other = None if item.id is None else _owner(item, there, claims.get(item.id, ()))
        if other not in (None, item.uri):
            yield Skip(item.place or item.uri, taken_by(item, str(other)))
            continue
        size = mtime_ns = None
        path = uri_to_path(item.uri)
        if path is not None:
            try:
                status = path.stat()
            except OSError as error:
                yield Skip(item.uri, _why(error))
                continue
            if stat.S_ISDIR(status.st_mode):
                yield Skip(item.uri, "is a folder, not a picture")
                continue
            size, mtime_ns = status.st_size, status.st_mtime_ns
        if there is None and stays_out(item.uri, size, mtime_ns):
            yield KeptOut(item)
        elif (
            there is not None
            and there.row_id not in encode_again
            and there.uri == item.uri
            and (path is None or (there.size == size and there.mtime_ns == mtime_ns))
        ):
            yield SameBytes(there, given)
        else:
            occupied = derived.get(item.uri) in taken
            yield IngestJob(item, there, size, mtime_ns, given.digest, given.own_digest, taken=occupied)


def _owner(item: Item, there: Known | None, claims: Sequence[str]) -> str:
    """The URI that an id belongs to."""
    if there is not None and there.uri == item.uri:
        return item.uri
    # The picture that has the id already keeps it, whichever the source names first.
    owner = item.uri
    if claims:
        owner = str(there.uri) if there is not None and there.uri in claims else claims[0]
    if owner == item.uri and there is not None and is_there(there.uri):
        return str(there.uri)
    return owner


def taken_by(item: Item, other: str) -> str:
    """Say that an id names another picture.

    Args:
        item: What the source says.
        other: The URI of the picture that has its id.
    """
    place = f"{item.uri} was left out: " if item.place else ""
    return f"{place}id {item.id!r} names {other} already; give each picture an id of its own, or remove that item first"


def is_there(uri: str | None) -> bool:
    """Whether a picture is still where an item has it. What is on the web is looked at only when it is read.

    Args:
        uri: The item's URI; None for vectors from elsewhere.
    """
    path = None if uri is None else uri_to_path(uri)
    return path is not None and os.path.lexists(path) and row_is_there(str(uri))


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "file not found"
    if isinstance(error, PermissionError):
        return "permission denied; make the file readable and run the same again"
    return error.strerror or str(error)
