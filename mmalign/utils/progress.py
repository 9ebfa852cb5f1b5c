"""Progress of long work, on standard error: a bar where a person watches, a line now and then where nobody does.

A line in a log says that the work goes on, how far it is and how long it will take. The first comes after some
seconds, so that short work prints none.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from mmalign.utils.quantities import show_seconds

FIRST_SECONDS = 10.0
"""Work that ends earlier prints no line."""
EVERY_SECONDS = 30.0
"""How long after a line the next one comes."""

ShowProgress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is; 0 where that is not known."""


@contextmanager
def track(description: str, total: int | None, *, enabled: bool = True) -> Iterator[Callable[[int], None]]:
    """Show progress while the block runs.

    Args:
        description: What is being done.
        total: How many steps there are; None where it is not known.
        enabled: False shows nothing.

    Yields:
        A function that says that so many more steps are done.
    """
    if not enabled:
        yield lambda steps: None
        return
    if not sys.stderr.isatty():
        done = 0

        def count(steps: int) -> None:
            nonlocal done
            done += steps
            show(description, done, total or 0)

        with progress_lines() as show:
            show(description, 0, total or 0)
            yield count
        return
    # Late: a search that shows no bar should not pay for it.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.progress import Task as RichTask

    class RateColumn(TextColumn):
        def render(self, task: RichTask):  # type: ignore[no-untyped-def]
            speed = task.finished_speed or task.speed
            return super().render(task).append(f"{speed:.1f}/s" if speed else "")

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(""),
        TimeRemainingColumn(),
    ]
    # What is printed meanwhile goes above the bar, but where it was sent to a file it goes there.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=sys.stdout.isatty()) as progress:
        task = progress.add_task(description, total=total)
        yield lambda steps: progress.advance(task, steps)


@contextmanager
def track_several(*, enabled: bool = True) -> Iterator[ShowProgress | None]:
    """Show the progress of several things, one after another or nested, while the block runs.

    Args:
        enabled: False shows nothing.

    Yields:
        A function that is told how far something is, by its name; None where nothing is shown.
    """
    if not enabled:
        yield None
        return
    if not sys.stderr.isatty():
        with progress_lines() as show:
            yield show
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bars:
        known: dict[str, TaskID] = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in known:
                known[name] = bars.add_task(name, total=total)
            bars.update(known[name], completed=done, visible=done < total)

        yield show


@contextmanager
def progress_lines() -> Iterator[ShowProgress]:
    """Print how far the work is, a line now and then, while the block runs.

    Lines come from a thread of their own: they say that the work goes on also while a single step takes minutes.

    Yields:
        A function that is told what is being done at this moment.
    """
    now: list[tuple[str, int, int, float]] = []
    began: dict[str, float] = {}
    over = threading.Event()

    def show(name: str, done: int, total: int) -> None:
        now[:] = [(name, done, total, began.setdefault(name, time.monotonic()))]

    def tell() -> None:
        wait = FIRST_SECONDS
        while not over.wait(wait):
            wait = EVERY_SECONDS
            if now:
                # Standard error may be closed under us, and nobody is there to be told.
                with suppress(OSError, ValueError):
                    print(_line(*now[0]), file=sys.stderr, flush=True)

    teller = threading.Thread(target=tell, name="mmalign-progress", daemon=True)
    teller.start()
    try:
        yield show
    finally:
        over.set()
        teller.join()


def _line(name: str, done: int, total: int, began: float) -> str:
    """`Reading: 120 of 600 (20%), 4.1 a second, about 2 min left`."""
    seconds = time.monotonic() - began
    text = f"{name}: {done:,}"
    if total:
        text = f"{name}: {done:,} of {total:,} ({min(done / total, 1.0):.0%})"
    if not done or seconds <= 0:
        return f"{text}, after {show_seconds(seconds)}"
    rate = done / seconds
    text += f", {rate:.1f} a second" if rate >= 1 else f", {show_seconds(1 / rate)} each"
    return text + (f", about {show_seconds((total - done) / rate)} left" if total > done else "")
