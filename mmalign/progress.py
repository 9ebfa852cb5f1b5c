"""A progress bar on long work: rate and time left, on standard error, where a person watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def track(description: str, total: int | None, *, enabled: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a progress bar while the block runs.

    Args:
        description: What is being done.
        total: How many steps there are; None where it is not known.
        enabled: False shows nothing; neither is anything shown where standard error is not a terminal.

    Yields:
        A function that says that so many more steps are done.
    """
    if not enabled or not sys.stderr.isatty():
        yield lambda steps: None
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
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total)
        yield lambda steps: progress.advance(task, steps)
