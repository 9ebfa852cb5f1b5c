"""Reading files ahead of the encoder, with account kept of what each embedding belongs to."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

from PIL.Image import Image

from mmalign.collection.ingest.jobs import IngestJob
from mmalign.media import Loaded, MediaPolicy, load_media
from mmalign.types import Skip


class ImageLoader:
    """Reads files ahead of the encoder, and keeps account of what each embedding belongs to.

    Its generator may run in a thread of the encoder's, so it only queues; the run itself takes over from the queues.

    Args:
        work: The items to read.
        wanted: Asked with the SHA-256 of the bytes whether to decode them.
        refused: Asked with an item and the SHA-256 of its bytes whether it stays out; None for none.
        policy: What may be read; None for that of the environment.
    """

    def __init__(
        self,
        work: Sequence[IngestJob],
        wanted: Callable[[str], bool],
        *,
        refused: Callable[[IngestJob, str], bool] | None = None,
        policy: MediaPolicy | None = None,
    ) -> None:
        self._work = work
        self._wanted = wanted
        self._refused = refused
        self._policy = policy
        self._lock = threading.Lock()
        self._waiting: deque[Loaded] = deque()
        self._jobs: dict[str, list[IngestJob]] = {}
        self._encoded: set[str] = set()
        self._done = 0
        self.settled: deque[tuple[IngestJob, Loaded | Skip]] = deque()

    def pictures(self) -> Generator[Image, None, None]:
        """Yield the decoded pictures that must be encoded; queue all others as settled."""
        loaded = load_media((job.item.uri for job in self._work), wanted=self._lacks, policy=self._policy)
        try:
            for job, picture in zip(self._work, loaded, strict=True):
                if isinstance(picture, Skip) or picture.image is None:
                    self.settled.append((job, picture))
                    self._done += 1
                    continue
                if self._refused is not None and self._refused(job, picture.sha256):
                    self.settled.append((job, replace(picture, image=None)))
                    self._done += 1
                    continue
                with self._lock:
                    # The same bytes twice in one run are encoded once.
                    if picture.sha256 in self._encoded:
                        self.settled.append((job, replace(picture, image=None)))
                        self._done += 1
                        continue
                    jobs = self._jobs.setdefault(picture.sha256, [])
                    jobs.append(job)
                    if len(jobs) > 1:
                        continue
                    self._waiting.append(replace(picture, image=None))
                yield picture.image
        finally:
            loaded.close()

    def _lacks(self, digest: str) -> bool:
        return digest not in self._encoded and self._wanted(digest)

    def encoded(self) -> tuple[Loaded, list[IngestJob]]:
        """The picture that the next embedding belongs to, and every item with its bytes."""
        with self._lock:
            picture = self._waiting.popleft()
            jobs = self._jobs.pop(picture.sha256)
            self._encoded.add(picture.sha256)
        self._done += len(jobs)
        return picture, jobs

    def finished(self) -> int:
        """How many items were finished since the last call."""
        done, self._done = self._done, 0
        return done
