"""Whether the process that left something behind is still at work."""

from __future__ import annotations

import os


def is_running(process: str) -> bool:
    """Say whether a process of this machine is running.

    Args:
        process: Its number, as it stands in a file's name; anything else is no process.

    Returns:
        True also for a process of another user.

    Example:
        >>> is_running(str(os.getpid())), is_running("no number")
        (True, False)
    """
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError, ValueError):
        return False
    except PermissionError:
        return True
    return True
