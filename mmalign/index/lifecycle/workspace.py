"""Folders in which an index is built beside the versions, kept when the process dies, and taken over by the next build.

    root/<design>-<dataset version>-<random>.work/    .lock is held by the process that is at work

A folder whose process is gone is kept until an index has been put in use after it was last written to: a build of the
same design goes on in it, whatever was added to the items meanwhile, as long as the version of the items that it was
begun with is still there.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmalign.utils import lock, storage_errors

SUFFIX = ".work"
_LOCK = ".lock"
_BUILD = "build"


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder to build in.

    Attributes:
        folder: Where the build keeps its files; it may not exist yet.
        version: The version of the items to build from.
        resumed: Whether an earlier process began it.
    """

    folder: Path
    version: int
    resumed: bool


@contextmanager
def workspace(
    root: Path,
    design: str,
    *,
    version: int,
    usable: Callable[[int], bool],
    guard: Callable[[], AbstractContextManager[None]],
) -> Iterator[Workspace]:
    """Make a folder to build in, or take over that of a process that died; it is removed after a build that succeeded.

    Args:
        root: The folder of the versions, made where it does not exist.
        design: What is built, in words that are the same only for the same index over the same items.
        version: The version of the items, for a new folder.
        usable: Whether some earlier version of the items can still be read.
        guard: Holds the lock of `root` while a folder is chosen, so that none is removed meanwhile.

    Yields:
        The workspace.

    Raises:
        StorageError: The disk refused.
    """
    digest = hashlib.sha256(design.encode("utf-8")).hexdigest()[:16]
    with ExitStack() as held:
        with storage_errors(root):
            root.mkdir(parents=True, exist_ok=True)
        with guard():
            found = _take_over(root, digest, usable, held)
            if found is None:
                folder = root / f"{digest}-{version:012d}-{secrets.token_hex(4)}{SUFFIX}"
                with storage_errors(root):
                    folder.mkdir()
                held.enter_context(lock(folder / _LOCK))
                found = Workspace(folder / _BUILD, version, resumed=False)
        yield found
        shutil.rmtree(found.folder.parent, ignore_errors=True)


def _take_over(root: Path, digest: str, usable: Callable[[int], bool], held: ExitStack) -> Workspace | None:
    for folder in sorted(root.glob(f"{digest}-*{SUFFIX}"), reverse=True):
        begun = folder.name.split("-")[1]
        if not begun.isdecimal() or not usable(int(begun)):
            continue
        attempt = ExitStack()
        if attempt.enter_context(lock(folder / _LOCK, wait=False)):
            held.enter_context(attempt)
            return Workspace(folder / _BUILD, int(begun), resumed=True)
        attempt.close()
    return None


def is_stale(folder: Path, *, published: float | None) -> bool:
    """Whether a folder can be removed: nobody is at work in it, and an index was put in use since.

    Args:
        folder: One whose name ends in `SUFFIX`.
        published: When the index in use was made, in seconds since the epoch; None where there is none.

    Returns:
        True also for a folder that cannot be looked at.
    """
    with lock(folder / _LOCK, wait=False) as free:
        if not free:
            return False
        written = max(path.stat().st_mtime for path in (folder, folder / _BUILD) if path.exists())
        return published is not None and written < published


def clear(root: Path) -> bool:
    """Remove all folders in which nobody is at work, whatever they hold; while the lock of `root` is held.

    Args:
        root: The folder of the versions.

    Returns:
        Whether none is left.
    """
    left = False
    for folder in root.glob(f"*{SUFFIX}"):
        with lock(folder / _LOCK, wait=False) as free:
            if free:
                shutil.rmtree(folder, ignore_errors=True)
            left |= not free
    return not left
