"""Inverted lists of several FAISS files joined into one file, so that their codes are never in memory together.

FAISS can merge lists on disk too, into a second file whose name it stores in the index (`OnDiskInvertedLists`): a
collection that is moved then no longer finds it. Here the joined index is one plain file, byte for byte what FAISS
writes for lists that were filled in memory, and FAISS maps its lists when it is read. Functions take the `faiss` module
as an argument, so that importing this file does not import FAISS.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmalign.errors import IndexFileError, RecipeError
from mmalign.index.faiss.io import read_faiss, write_faiss
from mmalign.index.faiss.library import load_faiss
from mmalign.utils import Int64Array

_ID_BYTES = 8


def list_layer(index: Any) -> Any:
    """Return the layer with the inverted lists where nothing beside them grows with the vectors.

    Args:
        index: A FAISS index.

    Returns:
        A `faiss.IndexIVF` with plain lists, at most behind a transform; None for any other index, such as a graph, a
        refinement, or the packed lists of the fast scan.
    """
    faiss = load_faiss()
    layer = faiss.downcast_index(index)
    while isinstance(layer, faiss.IndexPreTransform):
        layer = faiss.downcast_index(layer.index)
    if not isinstance(layer, faiss.IndexIVF) or isinstance(layer, (faiss.IndexIVFPQR, faiss.IndexIVFFastScan)):
        return None
    plain = isinstance(faiss.downcast_InvertedLists(layer.invlists), faiss.ArrayInvertedLists)
    return layer if plain else None


def need_lists(index: Any, factory: str) -> Any:
    """Return what `list_layer` does, or say why the index cannot be built on disk.

    Args:
        index: A FAISS index.
        factory: Its factory string, for the error's text.

    Returns:
        The layer.

    Raises:
        RecipeError: It has no plain inverted lists, or something beside them that has to be in memory.
    """
    layer = list_layer(index)
    if layer is None:
        raise RecipeError(
            f"index {factory!r} cannot be built on disk: that takes inverted lists alone, such as IVF1024,SQfp16 or "
            "IVF1024,PQ64, without a graph, a refinement or fast scan; without storage = 'disk' it is built in memory"
        )
    return layer


def bytes_per_row(layer: Any) -> int:
    """How many bytes a vector takes in the lists: its code and its position.

    Args:
        layer: What `list_layer` gave.
    """
    return int(layer.code_size) + _ID_BYTES


def empty_lists(index: Any) -> None:
    """Take all vectors out of an index that was read, so that what it was trained on can be used again.

    Args:
        index: A FAISS index for which `list_layer` gives a layer.
    """
    faiss = load_faiss()
    layer = list_layer(index)
    lists = faiss.ArrayInvertedLists(layer.nlist, layer.code_size)
    layer.replace_invlists(lists, True)
    lists.this.disown()
    layer.ntotal = 0
    index.ntotal = 0


def join_files(head: Any, parts: Sequence[Path], path: Path) -> int:
    """Write an index whose lists hold those of all parts, in their order.

    Args:
        head: The trained index without vectors; its count of vectors is changed.
        parts: FAISS files of indexes trained alike, each with the positions of its vectors as their ids.
        path: The file to write.

    Returns:
        How many vectors it holds.

    Raises:
        IndexFileError: A part is damaged or trained otherwise, or FAISS writes another format than the one known here.
        OSError: The disk refused.
    """
    faiss = load_faiss()
    layer = list_layer(head)
    # The indexes own the lists that they map.
    opened = [read_faiss(part, mmap=True) for part in parts]
    layers = [list_layer(one) for one in opened]
    for part, one in zip(parts, layers, strict=True):
        if layer is None or one is None or (one.nlist, one.code_size) != (layer.nlist, layer.code_size):
            raise IndexFileError(f"{part} does not belong to the index that it is joined with; build the index again")
    lists = [one.invlists for one in layers]
    sizes = np.array([[one.list_size(i) for i in range(layer.nlist)] for one in lists], np.int64)
    sizes = sizes.reshape(len(lists), layer.nlist)
    total = int(sizes.sum())
    writer = faiss.VectorIOWriter()
    faiss.write_InvertedLists(layer.invlists, writer)
    empty = faiss.vector_to_array(writer.data).tobytes()
    layer.ntotal = total
    head.ntotal = total
    write_faiss(head, path)
    with path.open("r+b") as file:
        file.seek(-len(empty), 2)
        if file.read() != empty:
            raise IndexFileError(f"FAISS {faiss.__version__} writes inverted lists in another way than was expected")
        file.seek(-len(empty), 2)
        file.truncate()
        file.write(_section(layer, sizes.sum(axis=0)))
        for i in range(layer.nlist):
            filled = [(one, int(size)) for one, size in zip(lists, sizes[:, i], strict=True) if size]
            for one, size in filled:
                file.write(_memory(one.get_codes(i), size * layer.code_size))
            for one, size in filled:
                file.write(_memory(one.get_ids(i), size * _ID_BYTES))
    return total


def _section(layer: Any, sizes: Int64Array) -> bytes:
    """The head of the section of lists: FAISS names the sizes of all, or of those that are not empty."""
    start = b"ilar" + struct.pack("<QQ", layer.nlist, layer.code_size)
    there = np.flatnonzero(sizes)
    if len(there) > layer.nlist // 2:
        return start + b"full" + struct.pack("<Q", len(sizes)) + sizes.astype("<u8").tobytes()
    pairs = np.stack([there, sizes[there]], axis=1)
    return start + b"sprs" + struct.pack("<Q", pairs.size) + pairs.astype("<u8").tobytes()


def _memory(pointer: Any, size: int) -> memoryview:
    """Look at memory that FAISS holds, without copying it."""
    return memoryview((ctypes.c_uint8 * size).from_address(int(pointer)))
