"""Preparing items in worker threads, so that a model never waits for its next batch."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from mmalign.errors import InputError

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")

# Beyond this, threads wait for one another on the interpreter's lock more than they decode.
_MOST_WORKERS = 16


def default_workers() -> int:
    """How many threads prepare items by default: the processor cores this process may use, 16 at most.

    Returns:
        At least 1.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


def prefetch_batches(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    *,
    batch_size: int,
    workers: int,
    ahead: int = 2,
) -> Iterator[list[Prepared]]:
    """Apply `prepare` in worker threads and yield the results in order, batch by batch.

    While the caller works on a batch, up to `ahead` further batches are being prepared. `items` is read in the
    caller's thread and no further than that. An exception of `prepare`, or of `items`, is raised in its place:
    the results before it are yielded first, as a short batch where need be, so the number of results received is
    the position of the item that failed. Closing the generator stops and joins the workers.

    Args:
        items: What to prepare; consumed lazily.
        prepare: Called once an item, from several threads at once.
        batch_size: Results a batch, at least 1; the last batch may be shorter.
        workers: Threads, at least 1.
        ahead: Batches prepared beyond the one handed out, at least 1.

    Yields:
        Lists of results, none of them empty.

    Raises:
        InputError: A number below 1.

    Example:
        >>> list(prefetch_batches(range(5), lambda x: x * x, batch_size=2, workers=2))
        [[0, 1], [4, 9], [16]]
    """
    for name, value in (("batch_size", batch_size), ("workers", workers), ("ahead", ahead)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    return _batches(iter(items), prepare, batch_size, workers, batch_size * (ahead + 1))


def _batches(
    items: Iterator[Item], prepare: Callable[[Item], Prepared], batch_size: int, workers: int, window: int
) -> Iterator[list[Prepared]]:
    pending: deque[Future[Prepared]] = deque()
    source_error: Exception | None = None
    exhausted = False
    pool = ThreadPoolExecutor(workers, thread_name_prefix="mmalign-prefetch")
    try:
        while True:
            while not exhausted and len(pending) < window:
                try:
                    item = next(items)
                except StopIteration:
                    exhausted = True
                except Exception as error:  # raised below, once what came before it is out
                    exhausted, source_error = True, error
                else:
                    pending.append(pool.submit(prepare, item))
            batch: list[Prepared] = []
            failure: Exception | None = None
            while pending and len(batch) < batch_size:
                try:
                    batch.append(pending.popleft().result())
                except Exception as error:
                    failure = error
                    break
            if failure is None and not pending:
                failure = source_error
            if batch:
                yield batch
            if failure is not None:
                raise failure
            if exhausted and not pending:
                return
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
