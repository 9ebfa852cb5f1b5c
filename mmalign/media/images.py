"""Pictures from many files at once: read, digested and decoded ahead of their use, by worker threads, in order."""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import ClassVar

from mmalign.errors import DecodeError, InputError
from mmalign.media.decoding import MAX_PIXELS, Decoded, decode_image
from mmalign.media.embedded import parse_embedded
from mmalign.media.formats import IMAGE_SUFFIXES
from mmalign.media.loaders import Loaded
from mmalign.media.memory import Window, decoding_budget
from mmalign.media.policy import MediaPolicy
from mmalign.media.reading import read_media, sha256_hex
from mmalign.media.uris import is_url, uri_to_path
from mmalign.types import Skip

__all__ = ["IMAGE_SUFFIXES", "MAX_PIXELS", "Decoded", "Picture", "decode_image", "load_pictures"]

# How long closing waits for work under way; a thread held longer by a dead server is a daemon and ends by itself.
_CLOSE_S = 3.0


@dataclass(frozen=True, slots=True)
class Picture(Loaded):
    """What was read of a picture, as `Loaded` tells.

    Attributes:
        width: Width of the upright original in pixels; 0 where not decoded.
        height: Height of the upright original in pixels; 0 where not decoded.
    """

    kind: ClassVar[str] = "image"
    width: int = 0
    height: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Width and height."""
        return {"width": self.width, "height": self.height}


def load_pictures(
    uris: Iterable[str],
    *,
    workers: int | None = None,
    ahead: int | None = None,
    at_least: int | None = None,
    max_pixels: int = MAX_PIXELS,
    wanted: Callable[[str], bool] | None = None,
    policy: MediaPolicy | None = None,
) -> Generator[Picture | Skip, None, None]:
    """Read, digest and decode pictures in worker threads; exactly one result for each URI, in order.

    Closing the generator, or an exception such as KeyboardInterrupt in it, ends the workers.

    Args:
        uris: Paths, `file://` URIs and http(s) URLs; may be endless, consumed `ahead` at a time.
        workers: Threads; one for each processor where None.
        ahead: Most pictures under way or waiting to be taken; 4 for each worker where None. Of large pictures fewer:
            as many as fit in `decoding_budget`, and the one that is next.
        at_least: Allow reduced pictures, as in `decode_image`.
        max_pixels: Refuse larger pictures, as in `decode_image`.
        wanted: Asked with the digest, in the worker threads, whether to decode the picture; all where None.
        policy: What may be read; None for that of the environment.

    Returns:
        A generator of a `Picture`, or of a `Skip` for what cannot be read or decoded.

    Raises:
        InputError: A number is below 1.
    """
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    ahead = 4 * workers if ahead is None else ahead
    for name, value in (("workers", workers), ("ahead", ahead), ("at_least", at_least), ("max_pixels", max_pixels)):
        if value is not None and value < 1:
            raise InputError(f"{name} must be at least 1, got {value}")
    stop = threading.Event()
    window = Window(decoding_budget().limit, stop.is_set)

    def load(position: int, uri: str) -> Picture | Skip:
        kept = 0
        try:
            window.admit(position, _file_bytes(uri))
            media = read_media(uri, stop=stop.is_set, policy=policy)
            digest = sha256_hex(media.data)
            size = len(media.data) if media.file_bytes is None else media.file_bytes
            if wanted is not None and not wanted(digest):
                return Picture(uri, digest, size, media.mtime_ns)
            admit = partial(window.admit, position)
            decoded = decode_image(media.data, uri=uri, max_pixels=max_pixels, at_least=at_least, admit=admit)
            kept = 4 * decoded.image.width * decoded.image.height
        except DecodeError as error:
            return Skip(uri, error.reason)
        finally:
            window.settle(position, kept)
        return Picture(uri, digest, size, media.mtime_ns, decoded.image, decoded.width, decoded.height)

    return _in_order(load, uris, workers=workers, ahead=ahead, stop=stop, window=window)


def _file_bytes(uri: str) -> int:
    # A picture in a Parquet file is as small as any: the size of the whole file says nothing of it.
    path = None if is_url(uri) or parse_embedded(uri) is not None else uri_to_path(uri)
    try:
        return 0 if path is None else path.stat().st_size
    except (OSError, ValueError):
        # Reading it will say what is wrong with it.
        return 0


_Job = tuple[int, str, "Future[Picture | Skip]"]
_Load = Callable[[int, str], Picture | Skip]


def _in_order(
    load: _Load, uris: Iterable[str], *, workers: int, ahead: int, stop: threading.Event, window: Window
) -> Generator[Picture | Skip, None, None]:
    # Not ThreadPoolExecutor: its threads are waited for when Python exits, so that one dead server would hold Ctrl-C.
    jobs: SimpleQueue[_Job | None] = SimpleQueue()
    threads: list[threading.Thread] = []
    pending: deque[Future[Picture | Skip]] = deque()
    source = iter(uris)
    failure: Exception | None = None
    exhausted = False
    given = taken = 0
    try:
        while True:
            while not exhausted and len(pending) < ahead:
                try:
                    uri = next(source)
                except StopIteration:
                    exhausted = True
                    break
                except Exception as error:
                    # What came before it is still handed out.
                    failure, exhausted = error, True
                    break
                future: Future[Picture | Skip] = Future()
                pending.append(future)
                jobs.put((given, uri, future))
                given += 1
                del future
                if len(threads) < workers:
                    thread = threading.Thread(target=_work, args=(load, jobs, stop), name="mmalign-load", daemon=True)
                    thread.start()
                    threads.append(thread)
            if not pending:
                break
            window.expect(taken)
            taken += 1
            yield pending.popleft().result()
    finally:
        stop.set()
        window.wake()
        for _ in threads:
            jobs.put(None)
        deadline = time.monotonic() + _CLOSE_S
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
    if failure is not None:
        raise failure


def _work(load: _Load, jobs: SimpleQueue[_Job | None], stop: threading.Event) -> None:
    while (job := jobs.get()) is not None and not stop.is_set():
        position, uri, future = job
        try:
            future.set_result(load(position, uri))
        except BaseException as error:
            future.set_exception(error)
        # An idle worker would otherwise keep the last picture alive.
        del job, future
