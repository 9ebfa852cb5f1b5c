"""Reading and writing plain FAISS files, and FAISS's error messages.

Functions take the `faiss` module as an argument, so that importing this file does not import FAISS.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from mmalign.errors import IndexFileError
from mmalign.index.faiss.library import load_faiss

_CHUNK = 1 << 22


def reason(error: BaseException) -> str:
    """FAISS's own words, without the C++ signature and the path of its source.

    Args:
        error: What FAISS raised.

    Returns:
        One line.
    """
    text = str(error).strip().rpartition("Error: ")[2]
    text = re.sub(r"^Error in .*? at \S+?:\d+:?\s*", "", text, flags=re.DOTALL)
    return " ".join(text.split()) or type(error).__name__


def write_faiss(index: Any, path: Path) -> None:
    """Write an index through Python's own file: FAISS's writer only prints when the disk is full at the end.

    Args:
        index: A FAISS index.
        path: The file.

    Raises:
        OSError: The disk refused.
    """
    faiss = load_faiss()
    refused: list[OSError] = []
    with path.open("wb") as file:

        def write(data: bytes) -> int:
            # What is raised in a callback from C++ is lost; a short count is what FAISS understands.
            try:
                return file.write(data)
            except OSError as error:
                refused.append(error)
                return 0

        writer = faiss.PyCallbackIOWriter(write, _CHUNK)
        try:
            faiss.write_index(index, writer)
        except RuntimeError as error:
            raise refused[0] if refused else OSError(reason(error)) from error
        if refused:
            raise refused[0]


def read_faiss(path: Path, *, mmap: bool) -> Any:
    """Read a FAISS file.

    Args:
        path: The file; its size has to be known to be right where it is mapped, since FAISS crashes on a cut one.
        mmap: Leave codes and graph on disk until they are needed.

    Returns:
        The index.

    Raises:
        IndexFileError: Missing, damaged, or not a FAISS file.
    """
    faiss = load_faiss()
    try:
        try:
            os.fspath(path).encode("utf-8")
        except UnicodeEncodeError:
            # FAISS takes UTF-8 names alone.
            with path.open("rb") as file:
                return faiss.read_index(faiss.PyCallbackIOReader(file.read, _CHUNK))
        return faiss.read_index(os.fspath(path), faiss.IO_FLAG_MMAP_IFC if mmap else 0)
    except (RuntimeError, MemoryError, OSError) as error:
        raise IndexFileError(f"{path} cannot be read: {reason(error)}; build the index again") from error
