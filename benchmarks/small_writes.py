"""Single adds, then single removes: whether the last take longer than the first, and what they leave on disk.

python -m benchmarks.small_writes [COUNT]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.results import write
from mmalign import Collection

DIM = 384
EDGE = 100


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def compare(times: list[float]) -> dict[str, float]:
    first, last = statistics.median(times[:EDGE]), statistics.median(times[-EDGE:])
    return {"first_ms": round(1000 * first, 1), "last_ms": round(1000 * last, 1), "ratio": round(last / first, 2)}


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2_000
    vectors = np.random.default_rng(0).normal(size=(count, DIM)).astype(np.float32)
    names = [f"item-{number:06d}" for number in range(count)]
    titles = [f"the title of item {number}" for number in range(count)]
    # What is kept of each: its embedding in 16 bits, and its texts.
    data = 2 * vectors.size + sum(map(len, names + titles))
    with tempfile.TemporaryDirectory() as folder:
        collection = Collection.create(Path(folder) / "small.mm", encoder=None, dim=DIM)

        def add(number: int) -> None:
            collection.add_embeddings([names[number]], vectors[[number]], metadata={"title": [titles[number]]})

        adds, most = [], 0.0
        for number in range(count):
            adds.append(seconds(lambda number=number: add(number)))
            if number >= count // 2 and number % 7 == 0:
                # Also between two cleanings, as soon as there is some data.
                most = max(most, size(collection.path) / (data * (number + 1) / count))
        added = size(collection.path)
        fragments = len(collection.snapshot().dataset.get_fragments())
        removes = [seconds(lambda name=name: collection.remove([name])) for name in names]
        removed = size(collection.path)
    figures: dict[str, float] = {f"add_{name}": value for name, value in compare(adds).items()}
    figures |= {f"remove_{name}": value for name, value in compare(removes).items()}
    figures |= {
        "data_bytes": data,
        "fragments_after_adds": fragments,
        "disk_after_adds": added,
        "disk_to_data": round(added / data, 2),
        "most_disk_to_data": round(most, 2),
        "disk_after_removes": removed,
        "disk_after_removes_to_data": round(removed / data, 2),
    }
    done = f"{count:,} single adds of {DIM} dimensions and a text, then {count:,} single removes"
    write("small_writes", done, figures)


if __name__ == "__main__":
    main()
