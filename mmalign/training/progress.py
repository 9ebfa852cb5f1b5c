"""How far a training is, and telling of it."""

from __future__ import annotations

from collections.abc import Callable

from mmalign.utils import ShowProgress


def counter(progress: ShowProgress | None, name: str, total: int) -> Callable[[int], None]:
    """Turn numbers of further rows into calls of `progress` with the sum so far."""
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        if progress is not None:
            progress(name, done, total)

    return count
