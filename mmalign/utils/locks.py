"""Locks between processes, on files: held while a block runs, and let go by the system where a process is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmalign.errors import StorageError


@contextmanager
def lock(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[bool]:
    """Hold a lock while the block runs.

    Args:
        path: The file that stands for what is locked; made where it does not exist.
        shared: Whether others may hold it too that ask for a shared one.
        wait: Whether to wait where another process or thread holds it.

    Yields:
        Whether the lock is held; always True where `wait` is.

    Raises:
        StorageError: The file cannot be written, or the file system has no locks and the lock is not a shared one.
    """
    try:
        import fcntl
    except ImportError:
        # Windows has no such lock.
        yield True
        return
    try:
        file = path.open("a")
    except OSError as error:
        raise StorageError(f"cannot write to {path}: {error.strerror or error}; check the disk") from error
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            held = False
        except OSError as error:
            # Some network file systems cannot lock: sharers go on without, the one who must be alone cannot.
            if not shared:
                raise StorageError(
                    f"cannot lock {path}: {error.strerror or error}; use a disk of this machine"
                ) from error
            held = True
        # Closing the file, or the end of the process, lets go.
        yield held
