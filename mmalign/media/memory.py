"""Memory for decoding, shared by all threads of the process."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

_MOST_BYTES = 1 << 30
_LEAST_BYTES = 1 << 28
_CGROUP = Path("/sys/fs/cgroup/memory.max")


class MemoryBudget:
    """Bytes that several threads share: who needs more than is free waits, in the order of asking.

    What needs more than there is at all waits until it is alone. Nobody who holds bytes may wait for more, which is
    why no thread waits for ever: whoever is at work ends, and the first in the line comes next.

    Args:
        limit: Bytes that may be in use at once.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    @contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """Hold some bytes while the block runs; give them back however it ends.

        Args:
            amount: Bytes.

        Yields:
            Nothing, once the bytes are free.
        """
        ticket = object()
        with self._changed:
            self._line.append(ticket)
            try:
                self._changed.wait_for(lambda: self._line[0] is ticket and self._fits(amount))
                self.used += amount
            finally:
                # Also where Ctrl-C ends the wait: those behind must not wait for one who left.
                self._line.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self.used -= amount
                self._changed.notify_all()

    def _fits(self, amount: int) -> bool:
        return self.used == 0 or self.used + amount <= self.limit


class Window:
    """Bytes of what was made ahead and waits to be taken in order.

    Who is next to be taken never waits, whatever it needs, which is why no thread waits for ever: what comes next is
    made, taken, and makes room.

    Args:
        limit: Bytes that may wait at once, beside what is next.
        closed: Asked while waiting; when it says True, nobody waits any more.
    """

    def __init__(self, limit: int, closed: Callable[[], bool]) -> None:
        self._limit = limit
        self._closed = closed
        self._held: dict[int, int] = {}
        self._next = 0
        self._changed = threading.Condition()

    def admit(self, position: int, amount: int) -> None:
        """Wait until so many more bytes may be held.

        Args:
            position: Whose turn it is to be taken: 0 is first.
            amount: Bytes, beside those that it holds.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: position <= self._next or self._closed() or sum(self._held.values()) + amount <= self._limit
            )
            self._held[position] = self._held.get(position, 0) + amount

    def settle(self, position: int, amount: int) -> None:
        """Say how many bytes are held in the end.

        Args:
            position: As in `admit`.
            amount: Bytes in all; 0 where it failed.
        """
        with self._changed:
            self._held[position] = amount
            self._changed.notify_all()

    def expect(self, position: int) -> None:
        """Say what is taken next; what comes before it is held no more.

        Args:
            position: As in `admit`.
        """
        with self._changed:
            self._next = position
            for earlier in [number for number in self._held if number < position]:
                del self._held[earlier]
            self._changed.notify_all()

    def wake(self) -> None:
        """Let those who wait look whether it was closed."""
        with self._changed:
            self._changed.notify_all()


@cache
def decoding_budget() -> MemoryBudget:
    """The bytes that all decoding in this process shares: 1 GiB, or a quarter of a smaller machine's memory.

    Returns:
        The same budget at every call.
    """
    return MemoryBudget(max(_LEAST_BYTES, min(_MOST_BYTES, _machine_bytes() // 4)))


def _machine_bytes() -> int:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 4 * _MOST_BYTES
    try:
        # A container's share of the machine.
        return min(total, int(_CGROUP.read_text()))
    except (OSError, ValueError):
        return total
