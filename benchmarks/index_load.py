"""Add and delete at full speed while others search and the index is rebuilt, kill the writer, and miss nothing.

python -m benchmarks.index_load WORK [--seconds 60] [--readers 4] [--kills 20] [--base 30000]

A writer adds batches of items and removes some, a keeper brings the index up to date without pause, and readers search
for items by their own vectors. Everybody reads the writer's journal, which says what was begun and what was committed:
an item whose adding was committed before a search began, and whose removal had not begun when it ended, has to be
found; one whose removal was committed before the search began may not be. Then writer and keeper are killed (SIGKILL)
at random moments, and after each kill the collection is opened and compared with the journal.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import ROOT, write
from mmalign.collection.collection import Collection

DIM, BATCH, K = 32, 200, 5
RECIPE = "IVF64,SQfp16"
# Low enough for the index to be asked; an item's own vector lies in the first list that is looked into, or the second.
MIN_RECALL = 0.9
_CENTRES = np.random.default_rng(2).normal(size=(300, DIM))


def vectors(numbers: Iterable[int]) -> np.ndarray:
    """The vectors of items, the same in every process: each block of a batch has a seed of its own."""
    blocks: dict[int, np.ndarray] = {}
    rows = []
    for number in numbers:
        block, place = divmod(number, BATCH)
        if block not in blocks:
            local = np.random.default_rng([3, block])
            made = _CENTRES[local.integers(len(_CENTRES), size=BATCH)] + local.normal(scale=0.4, size=(BATCH, DIM))
            blocks[block] = made / np.linalg.norm(made, axis=1, keepdims=True)
        rows.append(blocks[block][place])
    return np.array(rows, np.float32)


def name(number: int) -> str:
    return f"{number:09d}"


class Journal:
    """What the writer has begun and done, in a file that outlives it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self.added: set[int] = set()
        self.removing: set[int] = set()
        self.removed: set[int] = set()
        self.pending: tuple[str, list[int]] | None = None

    def say(self, step: str, numbers: Iterable[int] = ()) -> None:
        """Write a line in one step, so that a kill leaves all of it or nothing."""
        line = json.dumps([step, [int(one) for one in numbers]]) + "\n"
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def look(self) -> None:
        """Read what has come since the last look."""
        with self._path.open("rb") as file:
            file.seek(self._read)
            text = file.read()
        end = text.rfind(b"\n") + 1
        self._read += end
        for line in text[:end].splitlines():
            step, numbers = json.loads(line)
            if step in ("add", "remove"):
                self.pending = step, numbers
                if step == "remove":
                    self.removing.update(numbers)
                continue
            assert self.pending is not None
            begun, numbers = self.pending
            self.pending = None
            if step == "undone":
                if begun == "remove":
                    self.removing.difference_update(numbers)
            elif begun == "add":
                self.added.update(numbers)
            else:
                self.removed.update(numbers)
                self.added.difference_update(numbers)


def write_items(work: Path, seed: int) -> None:
    """Add and remove until killed."""
    journal = Journal(work / "journal")
    journal.look()
    local = random.Random(seed)
    opened = Collection.open(work / "load.mm")
    while True:
        first = BATCH * local.randrange(1 << 22)
        batch = range(first, first + BATCH)
        if any(one in journal.added or one in journal.removing for one in batch):
            continue
        journal.say("add", batch)
        opened.add_embeddings([name(one) for one in batch], vectors(batch))
        journal.say("done")
        journal.look()
        gone = local.sample(sorted(journal.added), 60)
        journal.say("remove", gone)
        opened.remove([name(one) for one in gone])
        journal.say("done")
        journal.look()


def keep_index(work: Path) -> None:
    """Bring the index up to date until killed: more often than a collection would by itself."""
    from mmalign.collection import maintenance as upkeep

    upkeep._UNINDEXED_ROWS = 500
    upkeep._STALE_SHARE = 0.05
    opened = Collection.open(work / "load.mm")
    while True:
        opened.refresh_index(RECIPE, progress=False)
        time.sleep(0.1)


def read_items(work: Path, seed: int, seconds: float) -> None:
    """Search and compare with the journal; prints what was seen, or dies of what is wrong."""
    journal = Journal(work / "journal")
    local = random.Random(seed)
    opened = Collection.open(work / "load.mm")
    seen: Counter[str] = Counter()
    versions = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        journal.look()
        alive = sorted(journal.added - journal.removing)
        gone = sorted(journal.removed)
        asked = local.sample(alive, 8) + alive[-2:] + local.sample(gone, min(4, len(gone)))
        removed = set(gone)
        results = opened.search(list(vectors(asked)), k=K, min_recall=MIN_RECALL)
        journal.look()
        for number, hits in zip(asked, results, strict=True):
            found = [int(hit.id) for hit in hits]
            if number not in removed and number not in journal.removing and number not in found:
                sys.exit(f"item {number} was committed before the search and is missing; found {found}")
            wrong = removed & set(found)
            if wrong:
                sys.exit(f"items {sorted(wrong)} were removed before the search and were found")
            if len(found) != K:
                sys.exit(f"expected {K} hits, found {found}")
        seen["searches"] += 1
        seen["through_the_index"] += not results[0].exact
        seen["with_notes"] += any("without the index" in note for note in results[0].notes)
        manifest = opened.index_manifest
        versions.add(manifest.version if manifest else None)
    print(json.dumps({**seen, "versions": len(versions)}))


def check(work: Path) -> dict[str, int]:
    """Compare the collection with the journal after a kill, and settle in the journal what was under way."""
    journal = Journal(work / "journal")
    journal.look()
    opened = Collection.open(work / "load.mm")
    there = {int(one) for one in opened.snapshot().scan(["id"])[1].column("id").to_pylist()}
    step, pending = journal.pending or ("", [])
    kept = there & set(pending)
    if len(kept) not in (0, len(pending)):
        sys.exit(f"a batch was committed in part: {len(kept)} of {len(pending)} items to {step}")
    if pending:
        journal.say("done" if bool(kept) == (step == "add") else "undone")
        journal.look()
    if there != journal.added:
        sys.exit(f"{len(journal.added - there)} items are missing, {len(there - journal.added)} should not be there")
    local = random.Random(len(there))
    asked = local.sample(sorted(there), 50)
    for number, hits in zip(asked, opened.search(list(vectors(asked)), k=K, min_recall=MIN_RECALL), strict=True):
        if name(number) not in [hit.id for hit in hits]:
            sys.exit(f"item {number} is not found after a kill")
        if not {int(hit.id) for hit in hits} <= there:
            sys.exit("a removed item is found after a kill")
    return {"items": len(there)}


def start(work: Path, role: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.index_load", str(work), "--role", role, *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def stop(*processes: subprocess.Popen[str]) -> None:
    """Kill processes that should still be running, and say so where one was not."""
    ended = [one.poll() for one in processes]
    for one in processes:
        one.kill()
    for one, code in zip(processes, ended, strict=True):
        _, error = one.communicate()
        if code is not None:
            sys.exit(f"{one.args} ended by itself with code {code}: {error}")
        assert one.returncode == -signal.SIGKILL


def run(work: Path, *, seconds: float, readers: int, kills: int, base: int, seed: int = 0) -> dict[str, Any]:
    """Do all of it.

    Args:
        work: A folder to make.
        seconds: How long the readers search.
        readers: How many processes search.
        kills: How often the writer is killed afterwards.
        base: How many items are there at the beginning, rounded up to whole batches.
        seed: Of what is drawn.

    Returns:
        What was seen. The process ends where something is wrong.
    """
    work.mkdir(parents=True)
    opened = Collection.create(work / "load.mm", encoder=None, dim=DIM)
    journal = Journal(work / "journal")
    numbers = range(-(-base // BATCH) * BATCH)
    journal.say("add", numbers)
    opened.add_embeddings([name(one) for one in numbers], vectors(numbers))
    journal.say("done")
    opened.build_index(RECIPE, progress=False)
    writer, keeper = start(work, "write", "--seed", seed), start(work, "keep")
    reading = [start(work, "read", "--seed", i, "--seconds", seconds) for i in range(readers)]
    seen: Counter[str] = Counter()
    for one in reading:
        out, error = one.communicate()
        if one.returncode:
            writer.kill()
            keeper.kill()
            sys.exit(f"a reader failed: {error}")
        seen.update(json.loads(out.splitlines()[-1]))
    stop(writer, keeper)
    check(work)
    journal.look()
    told = {**seen, "added": len(journal.added | journal.removed) - len(numbers), "removed": len(journal.removed)}
    local = random.Random(seed)
    for i in range(kills):
        writer, keeper = start(work, "write", "--seed", 1000 + i), start(work, "keep")
        size = (work / "journal").stat().st_size
        while (work / "journal").stat().st_size == size and writer.poll() is None:
            time.sleep(0.02)
        time.sleep(local.uniform(0.0, 2.0))
        stop(writer, keeper)
        told |= check(work)
    return told | {"kills": kills}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--base", type=int, default=30_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--role", choices=["write", "keep", "read"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.role == "write":
        write_items(given.work, given.seed)
    elif given.role == "keep":
        keep_index(given.work)
    elif given.role == "read":
        read_items(given.work, given.seed, given.seconds)
    else:
        if given.work.exists():
            shutil.rmtree(given.work)
        told = run(
            given.work,
            seconds=given.seconds,
            readers=given.readers,
            kills=given.kills,
            base=given.base,
            seed=given.seed,
        )
        write(
            "index_load",
            f"{given.base:,} items of {DIM} dimensions to begin with, one writer, one process that refreshes the index "
            f"({RECIPE}) without pause, {given.readers} readers for {given.seconds:g} s, then {given.kills} kills",
            {
                "items_added": told["added"],
                "items_removed": told["removed"],
                "searches": told["searches"],
                "through_the_index": told.get("through_the_index", 0),
                "index_versions_seen": told["versions"],
                "committed_items_missed": 0,
                "removed_items_found": 0,
                "kills_survived": told["kills"],
            },
        )


if __name__ == "__main__":
    main()
