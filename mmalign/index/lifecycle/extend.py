"""Taking more vectors into an index that is in use, as a new version, at the cost of a copy instead of a build.

What the index learned when it was trained stays: its lists, its codes, its graph. Removed vectors stay in it as
tombstones. So an index is extended while it still fits its data, and built again when it does not; see
`mmalign.collection.maintenance`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmalign.index.backends import load_index
from mmalign.index.base import Index
from mmalign.index.chunks import Chunks
from mmalign.utils import Int64Array


def extend_index(
    folder: Path,
    chunks: Chunks,
    *,
    removed: Int64Array,
    workspace: Path,
    advance: Callable[[int], None] | None = None,
) -> Index:
    """Copy an index, mark what is gone, and add vectors.

    Args:
        folder: Where the index is saved; it stays as it is.
        chunks: Called once; yields the `(ids, vectors)` to add. Ids of `removed` may come again.
        removed: Ids that are not to be found any more, int64 of shape (m,).
        workspace: A folder for what is built on disk.
        advance: Called with the number of vectors after each chunk.

    Returns:
        The longer index. One that has inverted lists alone is joined on disk in bounded memory and lies in
        `workspace` until it is saved; any other is read into memory.

    Raises:
        InputError: Duplicate or negative ids, NaN or infinity.
        IndexFileError: The index is damaged.
        StorageError: The disk refused.
    """
    index = load_index(folder)
    if index.factory != "exact":
        from mmalign.index.faiss.on_disk import extend_on_disk, fits_disk

        if fits_disk(index):
            plan = {"extends": folder.name}
            return extend_on_disk(index, workspace, chunks, plan=plan, removed=removed, advance=advance)
    index = load_index(folder, mmap=False)
    index.remove(removed)
    for ids, vectors in chunks():
        index.add(ids, vectors)
        if advance is not None:
            advance(len(ids))
    return index
