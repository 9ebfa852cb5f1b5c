"""What the disk refuses, and what Lance and Arrow fail at, as errors that say what to do."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mmalign.errors import MMAlignError, StorageError

# How Lance's own errors can be told from those of Python.
_LANCE_SAYS = re.compile(
    r"Lance|lance|Task was aborted|panicked|Invalid user input|External error|Arrow error|Not found:"
)


def first_line(error: BaseException) -> str:
    """The part of an error that a user can act on: no source path of Lance's, no list of internal columns.

    Args:
        error: What Lance or the system raised.

    Returns:
        One line.
    """
    if isinstance(error, OSError) and error.strerror:
        # One of Python: the number and the path say no more.
        return error.strerror
    text = str(error).split("\n")[0].split(", /home/")[0].split(" Valid fields are")[0]
    for prefix in ("LanceError(IO): ", "Invalid user input: ", "Schema error: "):
        text = text.removeprefix(prefix)
    return text


@contextmanager
def storage_errors(path: str | os.PathLike[str], *, reading: bool = False) -> Iterator[None]:
    """Turn what the disk refuses, and what Lance or Arrow fails at, into a StorageError that says what to do.

    Args:
        path: The dataset, or the folder of an index.
        reading: Whether it is being read; else it is being written, and the text says that nothing is lost.
    """
    try:
        yield
    except MMAlignError:
        raise
    except Exception as error:
        if not _from_lance(error):
            raise
        raise _refusal(path, error, reading=reading) from error
    except BaseException as error:
        # A panic in Rust is no Exception, so that nothing catches it; Ctrl-C and its like are none either.
        if type(error).__name__ != "PanicException":
            raise
        raise _refusal(path, error, reading=reading) from error


def _from_lance(error: Exception) -> bool:
    """Whether an error is one that Lance, Arrow or the disk raises, and not a fault of mmalign's own code."""
    # Who has not imported it gets none of its errors.
    arrow = sys.modules.get("pyarrow")
    if isinstance(error, OSError) or (arrow is not None and isinstance(error, arrow.ArrowException)):
        return True
    # Lance gives ValueError and RuntimeError for its own errors, the latter for a panic in one of its threads.
    return isinstance(error, ValueError | RuntimeError) and bool(_LANCE_SAYS.search(str(error)))


def _refusal(path: str | os.PathLike[str], error: BaseException, *, reading: bool = False) -> StorageError:
    if reading:
        return StorageError(
            f"cannot read {path}: {first_line(error)}. The items may be damaged or being replaced; run the same "
            "again, and see `mmalign doctor`"
        )
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    full = full or "os error 28" in str(error) or "No space" in str(error)
    remedy = "free some space" if full else "check the folder's permissions, and that it is not read-only,"
    return StorageError(
        f"cannot write to {path}: {first_line(error)}. "
        f"Everything committed before is kept; {remedy} and run the same again"
    )
