"""Index a folder, and run the same command again, each in a process of its own.

python -m benchmarks.index_folder FOLDER COLLECTION
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.results import write


def run(*words: str) -> tuple[float, dict]:
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "mmalign.cli", *words, "--json"], stdout=subprocess.PIPE, check=True)
    return time.perf_counter() - started, json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    folder, collection = sys.argv[1:3]
    if Path(collection).exists():
        sys.exit(f"{collection} exists; name a collection that is to be made")
    first, report = run("index", folder, "--collection", collection)
    second, again = run("index", folder, "--collection", collection)
    write(
        "index_folder",
        f"{report['added']:,} pictures of {Path(folder).resolve().parent.name}, default encoder",
        {
            "first_s": round(first, 1),
            "pictures_per_s": round(report["added"] / first, 1),
            "again_s": round(second, 2),
            "again_encoded": again["encoded"],
        },
    )


if __name__ == "__main__":
    main()
