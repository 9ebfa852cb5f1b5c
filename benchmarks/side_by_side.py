"""Two checkouts in turn: encoding, `Collection.search` and a search from a cold shell, and how many times as long.

python benchmarks/side_by_side.py BEFORE AFTER FLICKR8K_FOLDER [--label COMMIT]

Each checkout answers from processes of its own with its folder on PYTHONPATH; one works while the other waits, and who
goes first takes turns. A figure is the median of the ratios AFTER / BEFORE of the pairs, so that what slows the machine
down slows both. Only public ways in are called, so that old versions can be asked. All on one thread.

An editable install finds the recipes in its own checkout. So that BEFORE reads those that it came with:
`ln -s ../indexes BEFORE/mmalign/recipes`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PICTURES, TEXTS, SINGLES, BATCH, DIM = 128, 1024, 200, 1_000, 384
TURNS = 11
ROWS = (5_000, 100_000)


def works(folder: Path, collections: Path, name: str) -> Callable[[], Any]:
    """What one turn does; the preparation is done here."""
    import numpy as np
    from PIL import Image

    from mmalign import Collection, load_encoder

    kind, _, rest = name.partition(" ")
    if kind == "encode":
        encoder = load_encoder("lite")
        lines = (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
        table = [json.loads(line) for line in lines]
        random.Random(1).shuffle(table)
        if rest == "texts":
            texts = [text for row in table for text in row["captions"]][:TEXTS]
            return lambda: encoder.encode_text(texts)
        pictures = [Image.open(folder / row["image"]).convert("RGB") for row in table[:PICTURES]]
        return lambda: encoder.encode_image(pictures)
    rows = int(rest.split()[0])
    place = collections / f"{rows}.mm"
    noise = np.random.default_rng(rows)
    # Clusters in a subspace, as embeddings have them.
    centres, out = noise.standard_normal((500, 64)), noise.standard_normal((64, DIM))

    def draw(count: int) -> Any:
        inner = centres[noise.integers(0, 500, count)] + noise.standard_normal((count, 64))
        return (inner @ out).astype(np.float32)

    if not place.exists():
        made = Collection.create(place, encoder=None, dim=DIM)
        made.add_embeddings([f"{number:08d}" for number in range(rows)], draw(rows))
        if rows > 50_000:
            made.refresh_index("hnsw")
    else:
        draw(rows)
    queries = draw(BATCH)
    collection = Collection.open(place)
    if rest.endswith("batch"):
        return lambda: collection.search(queries)

    def singles() -> None:
        for query in queries[:SINGLES]:
            collection.search(query)

    return singles


def serve() -> None:
    """A worker: each line that comes in is one turn, each line that goes out its seconds."""
    _, folder, collections, name = sys.argv
    work = works(Path(folder), Path(collections), name)
    print("ready", flush=True)
    for _ in sys.stdin:
        wall, processor = time.perf_counter(), time.process_time()
        work()
        print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]), flush=True)


def surroundings(checkout: Path) -> dict[str, str]:
    given = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    # An installed package is compiled; without this a cold search would compile whatever it imports.
    given.pop("PYTHONDONTWRITEBYTECODE", None)
    return given


def in_turn(turns: dict[str, Callable[[], list[float]]]) -> dict[str, Any]:
    taken: dict[str, list[list[float]]] = {name: [] for name in turns}
    for turn in range(TURNS + 1):
        for name in sorted(turns, reverse=bool(turn % 2)):
            spent = turns[name]()
            # The first turn only warms up.
            if turn:
                taken[name].append(spent)
    pairs = list(zip(taken["before"], taken["after"], strict=True))
    figures: dict[str, Any] = {
        f"{name}_s": round(statistics.median(seconds for seconds, *_ in spent), 4) for name, spent in taken.items()
    }
    figures["ratio"] = round(statistics.median(after[0] / before[0] for before, after in pairs), 3)
    if len(pairs[0][0]) > 1:
        figures["processor_ratio"] = round(statistics.median(after[1] / before[1] for before, after in pairs), 3)
    return figures


def compare(checkouts: dict[str, Path], folder: Path, work: Path, name: str) -> dict[str, Any]:
    running = {}
    for side, checkout in checkouts.items():
        if not (work / side).exists():
            # What BEFORE has made is given to both, so that both search one index with the effort measured then.
            if (work / "before").exists():
                shutil.copytree(work / "before", work / side)
            else:
                (work / side).mkdir()
        command = [sys.executable, __file__, "--worker", str(folder), str(work / side), name]
        process = subprocess.Popen(
            command, env=surroundings(checkout), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", f"{side} did not come up"
        running[side] = process

    def turn(process: subprocess.Popen[str]) -> list[float]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        spent: list[float] = json.loads(process.stdout.readline())
        return spent

    try:
        return in_turn({side: lambda process=process: turn(process) for side, process in running.items()})  # type: ignore[misc]
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def cold(checkouts: dict[str, Path], folder: Path, work: Path) -> dict[str, Any]:
    """`mmalign search` of words in a collection of 200 pictures, from a shell."""

    def command(checkout: Path, *words: str) -> list[float]:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "mmalign.cli", *words],
            env=surroundings(checkout),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return [time.perf_counter() - started]

    pictures = work / "pictures"
    pictures.mkdir()
    for picture in sorted((folder / "images").iterdir())[:200]:
        (pictures / picture.name).symlink_to(picture.resolve())
    turns: dict[str, Callable[[], list[float]]] = {}
    for side, checkout in checkouts.items():
        place = str(work / f"{side}.mm")
        command(checkout, "index", str(pictures), "--collection", place)
        words = ("search", "two dogs playing in the snow", "--collection", place)
        turns[side] = lambda checkout=checkout, words=words: command(checkout, *words)  # type: ignore[misc]
    return in_turn(turns)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        del sys.argv[1]
        serve()
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("folder", type=Path, help="flickr8k: manifest.jsonl and images/")
    parser.add_argument("--label", default="", help="what BEFORE is, for the record")
    parser.add_argument("--only", help="one measurement alone; nothing is written")
    given = parser.parse_args()
    checkouts = {"before": given.before.resolve(), "after": given.after.resolve()}
    names = ["encode pictures", "encode texts"]
    names += [f"search {rows} {how}" for rows in ROWS for how in ("singly", "batch")]
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        for name in [*names, "cold search"]:
            if given.only in (None, name):
                found = (
                    cold(checkouts, given.folder, Path(work))
                    if name == "cold search"
                    else compare(checkouts, given.folder, Path(work), name)
                )
                print(name, found, flush=True)
                figures |= {f"{name.replace(' ', '_')}_{what}": value for what, value in found.items()}
    if given.only is None:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from benchmarks.results import write

        write("side_by_side", f"beside {given.label or given.before}, {TURNS} turns, one thread", figures)


if __name__ == "__main__":
    main()
