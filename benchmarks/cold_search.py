"""A search from a cold shell, and a bare `import torch` beside it, in turn: median of five, files in the page cache.

python -m benchmarks.cold_search COLLECTION
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.results import write
from mmalign import Collection

QUERY = "two dogs playing in the snow"
RUNS = 5


def seconds(*command: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    collection = sys.argv[1]
    search = [sys.executable, "-m", "mmalign.cli", "search", QUERY, "--collection", collection]
    torch = [sys.executable, "-c", "import torch"]
    times: dict[str, list[float]] = {"search": [], "torch": []}
    for run in range(RUNS + 1):
        for name, command in (("search", search), ("torch", torch)):
            taken = seconds(*command)
            # The first pair only warms the page cache.
            if run:
                times[name].append(taken)
    medians = {name: statistics.median(values) for name, values in times.items()}
    write(
        "cold_search",
        f"a collection of {len(Collection.open(collection)):,} pictures, query {QUERY!r}",
        {
            "search_s": round(medians["search"], 2),
            "import_torch_s": round(medians["torch"], 2),
            "ratio": round(medians["search"] / medians["torch"], 2),
        },
    )


if __name__ == "__main__":
    main()
