"""A sample of the queries that are really asked: kept on request, to measure with what people want to know.

    photos.mm/collection.json    whether queries are kept, and how many
    photos.mm/queries.log        the sample; in generation-N/ once the collection was encoded anew

Of a query its vector is kept and how it was searched, never its words. Each search draws a random number for each of
its queries, and the sample is the queries with the least numbers of all that were ever asked: it is uniform over these,
however many processes searched, and two samples are joined by keeping the least numbers of both. Once the sample is
full, nearly all queries draw a number that is too large, and cost no more than the drawing.

Each process gathers what it drew and writes some at a time. The file is replaced in one step, and damage to it or the
end of a process costs queries of the sample, never a search.
"""

from __future__ import annotations

import atexit
import json
import os
import random
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.collection.description import CollectionManifest, QueryLogging, amend
from mmalign.errors import MMAlignError, StorageError
from mmalign.types import Note
from mmalign.utils import (
    Float32Array,
    Int64Array,
    holds_checksum,
    l2_normalize,
    lock,
    storage_errors,
    with_checksum,
    write_atomic,
)

QUERIES = "queries.log"
"""The sample, beside the items whose vectors its own belong to."""
MOST = 2000
"""Queries that are kept where nobody says how many: each kind that makes a twentieth of them can be measured."""
_LOCK = ".queries.lock"
_FORMAT = 1
# What was gathered is written at the first search of a process, and from then on after so many queries or seconds.
_GATHERED, _SECONDS = 512, 30.0
# How long the end of a process waits for others that write.
_PATIENCE = 2.0
# Deeper than that no search looks, whatever it asks for.
_DEEPEST = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class LoggedQueries:
    """Queries that were really asked: a uniform sample of them, in random order.

    Attributes:
        vectors: Shape (n, dim), float32, rows of length 1.
        kinds: The kinds that each may be of; see `Query.kinds`.
        views: What each was compared with: `image` or `captions`.
        k: How deep each was searched, `offset` counted in; shape (n,).
        filtered: Whether there was a filter, bool of shape (n,).
        min_recall: The recall that was named, shape (n,); NaN for that of the index.
        effort: Effort that the index was asked for, shape (n,); -1 where it was not used.
        exact: Whether the hits were certain to be the true nearest, bool of shape (n,).
        times: When, in seconds since 1970, shape (n,).
        seen: Of how many queries they are the sample.
    """

    vectors: Float32Array
    kinds: tuple[tuple[str, ...], ...]
    views: tuple[str, ...]
    k: Int64Array
    filtered: NDArray[np.bool_]
    min_recall: NDArray[np.float64]
    effort: Int64Array
    exact: NDArray[np.bool_]
    times: Int64Array
    seen: int

    def __len__(self) -> int:
        return len(self.vectors)

    def part(self, places: Int64Array) -> LoggedQueries:
        """Give some of the queries.

        Args:
            places: Where they stand among these, shape (m,).
        """
        return LoggedQueries(
            self.vectors[places],
            tuple(self.kinds[place] for place in places.tolist()),
            tuple(self.views[place] for place in places.tolist()),
            self.k[places],
            self.filtered[places],
            self.min_recall[places],
            self.effort[places],
            self.exact[places],
            self.times[places],
            self.seen,
        )

    def of(self, view: str) -> LoggedQueries:
        """Give the queries that were compared with a view.

        Args:
            view: Its name.
        """
        return self.part(np.flatnonzero([one == view for one in self.views]))


@dataclass(frozen=True, slots=True, eq=False)
class AskedQuery:
    """A query as it was searched; each as in `LoggedQueries`.

    Attributes:
        vector: Shape (dim,), float32, of length 1.
        kinds: The kinds that it may be of.
        view: What it was compared with.
        k: How deep it was searched.
        filtered: Whether there was a filter.
        min_recall: The recall that was named; None for that of the index.
        effort: Effort that the index was asked for; None where it was not used.
        exact: Whether the hits were certain to be the true nearest.
    """

    vector: Float32Array
    kinds: tuple[str, ...]
    view: str
    k: int
    filtered: bool
    min_recall: float | None
    effort: int | None
    exact: bool

    def record(self) -> tuple[Any, ...]:
        """Return what is kept of it, as `_record_type` has it behind the number, and when that is."""
        return (
            self.view,
            "|".join(self.kinds),
            min(self.k, _DEEPEST),
            self.filtered,
            np.nan if self.min_recall is None else self.min_recall,
            -1 if self.effort is None else self.effort,
            self.exact,
            int(time.time()),
            self.vector.astype(np.float16),
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """What the file holds.

    Attributes:
        records: A row a query, of the type that `_record_type` gives.
        bound: Below this number, no query was left out.
        seen: How many queries were asked.
    """

    records: NDArray[Any]
    bound: float = 1.0
    seen: int = 0

    def joined(self, records: NDArray[Any], seen: int, most: int) -> _Sample:
        """Take in what was gathered since; at most so many queries are left."""
        # Beyond the bound others were left out already: these would be too many.
        every = np.concatenate([self.records, records[records["key"] < self.bound]])
        bound = self.bound
        if len(every) >= most:
            every = every[np.argsort(every["key"], kind="stable")[:most]]
            bound = min(bound, float(every["key"][-1])) if most else 0.0
        return _Sample(every, bound, self.seen + seen)


class QueryLog:
    """Gathers the queries of one process for the sample of a collection.

    Args:
        path: The collection.
        description: What `collection.json` says.
    """

    def __init__(self, path: Path, description: CollectionManifest) -> None:
        assert description.query_log is not None
        self._path, self._description = path, description
        self._mark = description.query_log.mark
        self._most = description.query_log.most
        self._type = _record_type(description.dim)
        self._told = False
        self.begin()

    def begin(self) -> None:
        """Begin with nothing gathered, as a process that was forked must: what its parent gathered is written there."""
        self._lock = threading.Lock()
        self._random = random.Random()
        self._gathered: list[tuple[Any, ...]] = []
        self._seen = 0
        self._bound = 1.0
        # The first search writes, and so finds out whether it can.
        self._due = 0.0
        self._waits = False

    def add(self, queries: int, describe: Callable[[Sequence[int]], Iterable[AskedQuery]]) -> Note | None:
        """Take the queries of a search for the sample, or some of them, or none, as chance will have it.

        Args:
            queries: How many there are.
            describe: Gives those at some places; called only where some are taken.

        Returns:
            A remark where the sample cannot be written, once in a process; None else.
        """
        now = time.monotonic()
        with self._lock:
            self._seen += queries
            drawn = self._drawn(queries)
            if drawn:
                asked = describe([place for place, _ in drawn])
                self._gathered += [(key, *one.record()) for (_, key), one in zip(drawn, asked, strict=True)]
            if now < self._due and (self._waits or len(self._gathered) < _GATHERED):
                return None
            refusal = self._write(now)
            return None if refusal is None else self._remark(refusal)

    def flush(self, *, patience: float = 0.0) -> None:
        """Write what was gathered; where that cannot be, it stays gathered.

        Args:
            patience: How many seconds to wait for other processes that write.
        """
        deadline = time.monotonic() + patience
        while True:
            with self._lock:
                if self._seen:
                    self._write(time.monotonic())
                done = not self._seen
            if done or time.monotonic() >= deadline:
                return
            time.sleep(0.02)

    def with_gathered(self, sample: _Sample) -> _Sample:
        """Give what a file holds with what this process has gathered and not written.

        Args:
            sample: What the file holds.
        """
        with self._lock:
            return sample.joined(np.array(self._gathered, self._type), self._seen, self._most)

    def _drawn(self, queries: int) -> list[tuple[int, float]]:
        """The places of the queries that may be of the sample, with their numbers."""
        if queries == 1:
            key = self._random.random()
            return [(0, key)] if key < self._bound else []
        keys = np.random.default_rng(self._random.getrandbits(64)).random(queries)
        places = np.flatnonzero(keys < self._bound)
        if len(places) > self._most:
            places = places[np.argpartition(keys[places], self._most)[: self._most]]
        return list(zip(places.tolist(), keys[places].tolist(), strict=True))

    def _write(self, now: float) -> Exception | None:
        """Join what was gathered with the file, unless another process does so now; give what the disk refused."""
        self._due, self._waits = now + _SECONDS, True
        try:
            with lock(self._path / _LOCK, wait=False) as alone:
                if alone:
                    self._join()
                    self._waits = False
        except (MMAlignError, OSError) as error:
            # Who may only read the collection goes on with a sample of the process's own, no larger than the other.
            self._trim(self._most)
            return error
        self._trim(max(self._most, _GATHERED))
        return None

    def _join(self) -> None:
        known = CollectionManifest.read(self._path)
        asked = known.query_log
        current = asked is not None and asked.mark == self._mark and known.generation == self._description.generation
        if asked is None or not current or not asked.most:
            # Deleted, stopped, or encoded anew meanwhile: what was asked before is nobody's any more.
            self._gathered, self._seen, self._bound = [], 0, 0.0
            return
        place = self._description.data(self._path) / QUERIES
        sample = _read(place, self._description, self._mark) or _Sample(np.zeros(0, self._type))
        sample = sample.joined(np.array(self._gathered, self._type), self._seen, asked.most)
        # Without waiting for the disk: a search is not to, and a power cut may cost the sample.
        write_atomic(place, _encoded(sample, self._description, self._mark), sync=False)
        self._gathered, self._seen = [], 0
        self._bound, self._most = sample.bound, asked.most

    def _trim(self, most: int) -> None:
        """Let go of what would be left out anyway."""
        if len(self._gathered) >= max(most, 1):
            self._gathered = sorted(self._gathered, key=lambda one: float(one[0]))[:most]
            self._bound = min(self._bound, self._gathered[-1][0])

    def _remark(self, error: Exception) -> Note | None:
        if self._told:
            return None
        self._told = True
        return Note(
            f"queries of this search and later ones are not kept: {error}",
            remedy="let this process write to the collection's folder, or stop keeping them: mmalign log-queries --off",
            about="query log",
        )


# Those of this process, by place and mark: who opens a collection again goes on with the one that is there.
_logs: dict[tuple[str, str], QueryLog] = {}
_opening = threading.Lock()


def open_log(path: Path, description: CollectionManifest) -> QueryLog | None:
    """Open what gathers queries.

    Args:
        path: The collection.
        description: What `collection.json` says.

    Returns:
        It; None where no queries are kept.
    """
    asked = description.query_log
    if asked is None or not asked.most:
        return None
    key = (str(description.data(path).absolute()), asked.mark)
    with _opening:
        if not _logs:
            atexit.register(_flush_all)
        found = _logs.get(key)
        if found is None:
            found = _logs[key] = QueryLog(path.absolute(), description)
        return found


def _flush_all() -> None:
    for log in list(_logs.values()):
        log.flush(patience=_PATIENCE)


def _begin_all() -> None:
    global _opening
    _opening = threading.Lock()
    for log in list(_logs.values()):
        log.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all)


def read_log(path: Path, description: CollectionManifest) -> LoggedQueries:
    """Read the sample, with what this process has gathered.

    Args:
        path: The collection.
        description: What `collection.json` says.

    Returns:
        The queries; none where none were kept, or the file is damaged.
    """
    kept = description.query_log
    sample = None
    if kept is not None:
        place, log = description.data(path) / QUERIES, open_log(path, description)
        if log is not None:
            log.flush()
        sample = _read(place, description, kept.mark)
        if log is not None:
            sample = log.with_gathered(sample or _Sample(np.zeros(0, _record_type(description.dim))))
    if sample is None:
        sample = _Sample(np.zeros(0, _record_type(description.dim)))
    records = sample.records[np.argsort(sample.records["key"], kind="stable")]
    return LoggedQueries(
        vectors=l2_normalize(records["vector"].astype(np.float32)),
        kinds=tuple(tuple(kinds.decode().split("|")) for kinds in records["kinds"].tolist()),
        views=tuple(view.decode() for view in records["view"].tolist()),
        k=records["k"].astype(np.int64),
        filtered=records["filtered"],
        min_recall=records["min_recall"],
        effort=records["effort"],
        exact=records["exact"],
        times=records["time"],
        seen=sample.seen,
    )


def set_logging(path: Path, most: int) -> None:
    """Begin to keep queries, or stop to.

    Args:
        path: The collection.
        most: How many at most; 0 to stop. What was kept stays, unless it is more than that.

    Raises:
        StorageError: The disk refused.
    """

    def change(known: CollectionManifest) -> CollectionManifest:
        before = known.query_log
        if before is None and not most:
            return known
        return replace(known, query_log=QueryLogging(most, _new_mark() if before is None else before.mark))

    _flush_all()
    amend(path, change)


def forget_queries(path: Path) -> int:
    """Delete all queries that were kept; where more are to be kept, a new sample begins.

    Args:
        path: The collection.

    Returns:
        How many there were.

    Raises:
        StorageError: The disk refused.
    """
    known = CollectionManifest.read(path)
    kept = len(read_log(path, known))

    def change(known: CollectionManifest) -> CollectionManifest:
        before = known.query_log
        return replace(known, query_log=QueryLogging(before.most, _new_mark()) if before and before.most else None)

    # First: what other processes have gathered is not written any more.
    amend(path, change)
    # And what somebody who was killed while he wrote has left.
    places = [place for folder in (".", "generation-*") for place in path.glob(f"{folder}/*{QUERIES}")]
    if any(place.exists() for place in places):
        with lock(path / _LOCK), storage_errors(path):
            for place in places:
                place.unlink(missing_ok=True)
    return kept


def _new_mark() -> str:
    return secrets.token_hex(8)


def _record_type(dim: int) -> np.dtype[Any]:
    return np.dtype(
        [
            ("key", "<f8"),
            ("view", "S16"),
            ("kinds", "S48"),
            ("k", "<i4"),
            ("filtered", "?"),
            ("min_recall", "<f8"),
            ("effort", "<i8"),
            ("exact", "?"),
            ("time", "<i8"),
            ("vector", "<f2", (dim,)),
        ]
    )


def _encoded(sample: _Sample, description: CollectionManifest, mark: str) -> bytes:
    """A line of JSON, then the records as they are in memory."""
    body = sample.records.tobytes()
    head = {
        "format": _FORMAT,
        "mark": mark,
        "fingerprint": description.fingerprint,
        "dim": description.dim,
        "bound": sample.bound,
        "seen": sample.seen,
        "crc32": zlib.crc32(body),
    }
    return json.dumps(with_checksum(head)).encode() + b"\n" + body


def _read(place: Path, description: CollectionManifest, mark: str) -> _Sample | None:
    """Read the file; None where there is none, or it is damaged, of another encoder, or was to be deleted."""
    try:
        content = place.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {place}: {error.strerror or error}") from error
    line, _, body = content.partition(b"\n")
    try:
        head = json.loads(line)
        if not isinstance(head, dict) or not holds_checksum(head) or head["crc32"] != zlib.crc32(body):
            return None
        if [head[name] for name in ("format", "mark", "fingerprint", "dim")] != [
            _FORMAT,
            mark,
            description.fingerprint,
            description.dim,
        ]:
            return None
        records = np.frombuffer(body, _record_type(description.dim))
        return _Sample(records, float(head["bound"]), int(head["seen"]))
    except (ValueError, KeyError, TypeError):
        return None
