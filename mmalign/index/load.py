"""Loading an index of any kind by the description beside its files."""

from __future__ import annotations

from pathlib import Path

from mmalign.errors import IndexFileError
from mmalign.index.base import Index
from mmalign.index.files import read_header


def load_index(folder: Path, *, mmap: bool = True) -> Index:
    """Load an index of any kind.

    Args:
        folder: Where `Index.save` wrote it.
        mmap: Read vectors from disk when they are needed; such an index cannot be added to.

    Returns:
        The index.

    Raises:
        IndexFileError: A file is missing or damaged.
        MissingExtraError: It needs FAISS, which is not installed.
    """
    kind = read_header(folder)["kind"]
    if kind == "exact":
        from mmalign.index.exact import ExactIndex

        return ExactIndex.load(folder, mmap=mmap)
    if kind == "faiss":
        from mmalign.index.faiss.index import FaissIndex

        return FaissIndex.load(folder, mmap=mmap)
    raise IndexFileError(f"{folder} holds an index of kind {kind!r}, which this mmalign does not know; update it")
