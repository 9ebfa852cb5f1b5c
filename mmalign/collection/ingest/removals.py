"""What was removed from the collection earlier, and so stays out; and files that are gone from their place."""

from __future__ import annotations

from functools import cached_property
from itertools import chain

from mmalign.collection.ingest.diff import is_there
from mmalign.collection.ingest.jobs import IngestJob, Known
from mmalign.collection.ingest.known import KnownItems, KnownPictures
from mmalign.collection.ingest.source import SourceItems
from mmalign.media import uri_to_path
from mmalign.store import Removed


class Removals:
    """Says what stays out.

    Args:
        removed: What was removed; None for nothing.
        restore: Whether that comes back.
        items: The source.
        known: What the collection holds.

    Attributes:
        restores: Whether what was removed comes back.
    """

    def __init__(self, removed: Removed | None, *, restore: bool, items: SourceItems, known: KnownItems) -> None:
        self.restores = restore and removed is not None
        self._removed = None if restore else removed
        self._items = items
        self._known = known

    def was_removed_at(self, uri: str, size: int | None, mtime_ns: int | None) -> bool:
        """Whether what lies at the place of a new item was removed, and is no other item that has moved there."""
        removed = self._removed is not None and self._removed.has_uri(uri)
        return removed and (size, mtime_ns) not in self._wandering

    def has_place(self, job: IngestJob) -> bool:
        """Whether what lay in the place of a new item was removed."""
        return job.known is None and self._removed is not None and self._removed.has_uri(job.item.uri)

    def stay_out(self, job: IngestJob, digest: str, pictures: KnownPictures) -> bool:
        """Whether a picture stays out because it, or what lay in its place, was removed; another item may have it."""
        if job.known is not None or self._removed is None or digest in pictures:
            return False
        return self._removed.has_picture(digest) or self._removed.has_uri(job.item.uri)

    def is_gone(self, known: Known) -> bool:
        """Whether the file of an item is gone, and the source does not name it."""
        if known.uri is None or self._items.names_uri(known.uri) or uri_to_path(known.uri) is None:
            return False
        return not is_there(known.uri)

    @cached_property
    def _wandering(self) -> frozenset[tuple[int | None, int | None]]:
        """Size and time of known files that are gone: one that lies where a removed one lay may be one of them."""
        places = chain.from_iterable(self._known.all_places())
        return frozenset((known.size, known.mtime_ns) for known in places if self.is_gone(known))
