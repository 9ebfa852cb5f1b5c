"""Preparing items in worker threads, so that a model never waits for its next batch."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from mmalign.errors import InputError
from mmalign.media import Window, decoding_budget

InputT = TypeVar("InputT")
PreparedT = TypeVar("PreparedT")

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
    items: Iterable[InputT],
    prepare: Callable[[InputT], PreparedT],
    *,
    batch_size: int,
    workers: int,
    ahead: int = 2,
) -> Iterator[list[PreparedT]]:
    """Apply `prepare` in worker threads and yield the results in order, batch by batch.

    While the caller works on a batch, up to `ahead` further batches are being prepared. `items` is read in the
    caller's thread and no further than that. An exception of `prepare`, or of `items`, is raised in its place:
    the results before it are yielded first, as a short batch where need be, so the number of results received is
    the position of the item that failed. Closing the generator stops and joins the workers.

    Of large pictures fewer are taken and prepared ahead: as many as fit in `decoding_budget`, one more for each
    worker, and the one that is next. A batch of results that are larger pictures than that is short.

    Args:
        items: What to prepare; consumed lazily.
        prepare: Called once an item, from several threads at once.
        batch_size: Results a batch, at least 1; the last batch may be shorter.
        workers: Threads, at least 1.
        ahead: Batches prepared beyond the one handed out, at least 1.

    Yields:
        Lists of results, none of them empty; a list of many large pictures may be short.

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
    items: Iterator[InputT], prepare: Callable[[InputT], PreparedT], batch_size: int, workers: int, window: int
) -> Iterator[list[PreparedT]]:
    # What waits, and how many bytes of pictures its item is.
    pending: deque[tuple[Future[PreparedT], int]] = deque()
    source_error: Exception | None = None
    failure: Exception | None = None
    exhausted = False
    given = taken = 0
    most = decoding_budget().limit
    closed = threading.Event()
    room = Window(most, closed.is_set)
    batch: list[PreparedT] = []

    def run(position: int, item: InputT) -> PreparedT:
        room.admit(position, 0)
        prepared = prepare(item)
        room.settle(position, _picture_bytes(prepared))
        return prepared

    pool = ThreadPoolExecutor(workers, thread_name_prefix="mmalign-prefetch")
    try:
        while True:
            while not exhausted and len(pending) + len(batch) < window and (not pending or _waiting(pending) <= most):
                try:
                    item = next(items)
                except StopIteration:
                    exhausted = True
                except Exception as error:  # raised below, once what came before it is out
                    exhausted, source_error = True, error
                else:
                    pending.append((pool.submit(run, given, item), _picture_bytes(item)))
                    given += 1
                    del item
            if pending:
                room.expect(taken)
                taken += 1
                try:
                    batch.append(pending.popleft()[0].result())
                except Exception as error:
                    failure = error
            else:
                failure = source_error
            over = failure is not None or (exhausted and not pending)
            if batch and (over or len(batch) == batch_size or sum(map(_picture_bytes, batch)) > most):
                yield batch
                batch = []
            if failure is not None:
                raise failure
            if over and source_error is None:
                return
    finally:
        closed.set()
        room.wake()
        pool.shutdown(wait=True, cancel_futures=True)


def _waiting(pending: Iterable[tuple[Future[PreparedT], int]]) -> int:
    """Bytes of the pictures whose turn to be prepared has not come."""
    return sum(size for future, size in pending if not future.done())


def _picture_bytes(value: object) -> int:
    return 4 * value.width * value.height if isinstance(value, Image.Image) else 0
