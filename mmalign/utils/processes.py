"""Whether the process that left something behind is still at work, and how much memory this one holds."""

from __future__ import annotations

import os
from pathlib import Path


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


def memory_in_use() -> tuple[int | None, int | None]:
    """Say how much memory this process holds.

    Returns:
        Bytes resident now, and the most that ever were; None where the system does not tell (only Linux does).
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None, None
    found = {name: value for name, _, value in (line.partition(":") for line in lines)}
    now, highest = (found.get(name, "").split() for name in ("VmRSS", "VmHWM"))
    return (int(now[0]) * 1024 if now else None), (int(highest[0]) * 1024 if highest else None)
