"""Wall time of README's two commands in a fresh clone, environment and all.

python -m benchmarks.make_times
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.results import ROOT, write


def seconds(folder: Path, target: str) -> float:
    started = time.perf_counter()
    done = subprocess.run(["make", target], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(f"make {target} failed:\n{done.stdout[-4000:]}")
    return time.perf_counter() - started


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "mmalign"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        demo = seconds(clone, "demo")
        again = seconds(clone, "demo")
        test = seconds(clone, "test")
    write(
        "make_times",
        "a fresh clone; `make demo` makes the environment and installs, `make test` finds it there",
        {"make_demo_s": round(demo), "make_demo_again_s": round(again, 1), "make_test_s": round(test)},
    )


if __name__ == "__main__":
    main()
