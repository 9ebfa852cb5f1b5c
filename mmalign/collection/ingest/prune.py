"""Items whose file is gone from the folder of a source, or is excluded: removed on request, and counted otherwise."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from mmalign.collection.ingest.source import SourceItems
from mmalign.media import Exclusion, row_is_there, uri_to_path
from mmalign.store import Store
from mmalign.types import Note

_ROWS = 8192


def find_gone(
    store: Store,
    items: SourceItems,
    *,
    folder: str | None,
    exclusion: Exclusion | None,
    without: Collection[int],
) -> tuple[list[int], list[int]]:
    """Find what the source had, and has no longer.

    Args:
        store: The items.
        items: The source.
        folder: Where all files of the source are expected; None where nobody knows.
        exclusion: What stays out of the source.
        without: Row ids of items that do not count.

    Returns:
        `(gone, excluded)`: row ids of items of that folder whose file is gone, and of those that are excluded.
    """
    gone, excluded = [], []
    for row_ids, batch in store.iter_rows(["uri"], rows=_ROWS, check=False):
        uris = batch.column("uri").to_pylist()
        named = items.names_uris([uri or "" for uri in uris]).tolist()
        for row_id, uri, is_named in zip(row_ids.tolist(), uris, named, strict=True):
            path = None if uri is None or is_named or row_id in without else uri_to_path(uri)
            if path is None:
                continue
            there = os.path.lexists(path) and row_is_there(uri)
            if exclusion is not None and exclusion.covers(str(path)) and there:
                excluded.append(row_id)
            elif folder is not None and Path(folder) in path.parents and not there:
                gone.append(row_id)
    return gone, excluded


def prune_notes(gone: Sequence[int], excluded: Sequence[int]) -> Iterator[Note]:
    """Say how many items a prune would remove.

    Args:
        gone: What `find_gone` returned.
        excluded: The same.

    Yields:
        A note for each kind.
    """
    for rows, one, several in (
        (excluded, "is excluded now", "are excluded now"),
        (gone, "has no file any more", "have no file any more"),
    ):
        many = len(rows) > 1
        if rows:
            yield Note(
                f"{len(rows):,} item{'s' * many} of the collection {several if many else one}",
                remedy=f"add --prune to take {'them' if many else 'it'} out (in Python: prune=True)",
            )
