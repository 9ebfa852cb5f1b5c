"""Run random operations, or do those of a trace again.

python -m tests.random_operations [--steps N] [--seed N] [--kind vectors|pictures] [--trace FILE]
python -m tests.random_operations --replay FILE
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.random_operations.driver import begun, child, replay, run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.random_operations", description=__doc__)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=["vectors", "pictures"], default="vectors")
    parser.add_argument("--trace", type=Path, help="where the steps are written; default: a temporary file")
    parser.add_argument("--replay", type=Path, help="do the steps of this trace again")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.child:
        child(words.kind, Path(words.child[0]), json.loads(words.child[1]))
        return
    kind, seed = words.kind, words.seed
    if words.replay:
        kind, seed = begun(words.replay)
    trace = words.replay or words.trace
    if trace is None:
        trace = Path(tempfile.mkstemp(prefix=f"operations-{kind}-{seed}-", suffix=".jsonl")[1])
    # Ids of pictures come from their paths: a trace can be done again only in a folder of the same name.
    folder = Path(tempfile.gettempdir()) / f"operations-{kind}-{seed}"
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    try:
        told = replay(trace, folder) if words.replay else run(kind, words.steps, seed, folder, trace)
    except BaseException:
        print(f"trace: {trace}, in {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder)
    print(", ".join(f"{count} {what}" for what, count in sorted(told.items())))


if __name__ == "__main__":
    main()
