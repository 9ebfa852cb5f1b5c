"""Files that are written whole or not at all, also where the power goes."""

from __future__ import annotations

import glob
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from mmalign.utils.processes import is_running

_TEMPORARY = ".tmp-"

Stamp: TypeAlias = tuple[int, int, int]
"""What tells a file from the one that replaces it, without reading either: inode, size and time of change in ns."""


def file_stamp(path: str) -> Stamp | None:
    """Look at a file without reading it.

    Args:
        path: The file, as a text: each search looks at some, and to make a text of a path takes longer than to look.

    Returns:
        What it is known by; None where it cannot be looked at.
    """
    try:
        state = os.stat(path)  # noqa: PTH116 - a text
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def write_atomic(path: Path, content: str | bytes | Callable[[Path], object], *, sync: bool = True) -> None:
    """Write a file so that there is the whole of it, or what was there before.

    It is written beside its place, forced to disk, and then given its name; so are the names in the folder. Several
    threads and processes may write the same file: one of them wins.

    Args:
        path: The file; its folder must exist.
        content: Text, which is written as UTF-8; bytes; or what writes a file where it is told to.
        sync: Whether to wait for the disk; without, a power cut may leave an empty file.

    Raises:
        OSError: The disk refused; nothing is left of it.
    """
    for left in path.parent.glob(f"{_TEMPORARY}*-{glob.escape(path.name)}"):
        # Of a process that was killed; such files can be large.
        if not is_running(left.name.removeprefix(_TEMPORARY).partition("-")[0]):
            left.unlink(missing_ok=True)
    # Of the same ending, as some writers add one that they miss.
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        if sync:
            sync_path(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if sync:
        sync_path(path.parent)


def sync_path(path: Path) -> None:
    """Force a file, or the names in a folder, to disk.

    Args:
        path: The file or folder.

    Raises:
        OSError: The disk refused.
    """
    if os.name == "nt":
        # Windows opens no folder, and syncs no file that is opened for reading.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that is never changed a second name, or copy it where the file system has no such names.

    Args:
        source: The file.
        target: Its other name; replaced where it exists.

    Raises:
        OSError: The disk refused.
    """
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
