"""Build and search an index over more vectors than the memory that is allowed holds, and say what both took.

Three steps, each of which can be stopped and called again; the later ones go on from the files of the earlier:

python -m benchmarks.index_memory make WORK [--rows 5000000] [--dim 384]
python -m benchmarks.index_memory build WORK [--recipe NAME] [--memory-gb 4]
python -m benchmarks.index_memory search WORK [--memory-gb 4]

Memory is what belongs to the process alone (RssAnon of /proc/PID/status, sampled 50 times a second, children
included): pages of mapped files are the system's to take back. Each step runs in a process of its own, which is
watched from outside. Where a build was stopped and called again, the peak is that of all its runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write

# Vectors gather around so many centres, each one its centre plus noise of this length.
CLUSTERS, NOISE = 20_000, 0.7
CHUNK = 50_000
QUERIES, K = 200, 10
# Like the recipe ivf-disk, with fewer lists and a smaller sample: those cost most of the time that a build takes.
RECIPE = """
name = "ivf-disk-4096"
summary = "4,096 lists of float16 vectors that stay on disk."
factory = "IVF4096,SQfp16"
storage = "disk"

[training]
vectors_per_centroid = 39

[search]
effort = "nprobe"
choices = [8, 16, 32, 64, 128, 256]
"""


def centres(dim: int) -> np.ndarray:
    made = np.random.default_rng(1).normal(size=(CLUSTERS, dim)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def chunk(number: int, rows: int, middle: np.ndarray) -> np.ndarray:
    """A chunk of the data, the same each time: rows of length 1, float32."""
    rng = np.random.default_rng([7, number])
    dim = middle.shape[1]
    made = middle[rng.integers(len(middle), size=rows)]
    made = made + rng.normal(scale=NOISE / np.sqrt(dim), size=made.shape).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def anonymous(process: int) -> int:
    """Bytes of anonymous resident memory of a process; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def family(process: int) -> list[int]:
    """A process and all that it started."""
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return [process]
    return [process, *(one for child in children for one in family(int(child)))]


def watch(words: list[str], *, kept: Path | None = None) -> tuple[dict[str, Any], dict[str, float]]:
    """Run a step in a process of its own; returns what it printed last, and what it took.

    Args:
        words: The step and its arguments.
        kept: File of what a step that can be gone on with has taken so far, kept up to date while it runs, so that
            runs that were stopped count too. It is removed at the end.

    Returns:
        The last line, and `peak` in bytes, `seconds` and `runs`.
    """
    started = written = time.perf_counter()
    earlier = json.loads(kept.read_text()) if kept is not None and kept.exists() else {"runs": 0, "seconds": 0.0}
    taken = {"peak": 0, **earlier, "runs": earlier["runs"] + 1}
    with subprocess.Popen([sys.executable, "-m", "benchmarks.index_memory", *words], stdout=subprocess.PIPE) as process:
        ended = threading.Event()

        def sample() -> None:
            nonlocal written
            while not ended.is_set():
                taken["peak"] = max(taken["peak"], sum(map(anonymous, family(process.pid))))
                now = time.perf_counter()
                taken["seconds"] = earlier["seconds"] + now - started
                if kept is not None and now > written + 2:
                    written = now
                    kept.write_text(json.dumps(taken))
                ended.wait(0.02)

        sampler = threading.Thread(target=sample)
        sampler.start()
        out, _ = process.communicate()
        ended.set()
        sampler.join()
    if process.returncode:
        sys.exit(f"the step ended with code {process.returncode}")
    if kept is not None:
        kept.unlink(missing_ok=True)
    return json.loads(out.splitlines()[-1]), taken


def collection(work: Path) -> Path:
    return work / "vectors.mm"


def make(work: Path, rows: int, dim: int) -> None:
    from mmalign.collection.collection import Collection

    path = collection(work)
    opened = Collection.open(path) if path.exists() else Collection.create(path, encoder=None, dim=dim)
    middle = centres(dim)
    done = len(opened)
    for start in range(done - done % CHUNK, rows, CHUNK):
        count = min(CHUNK, rows - start)
        vectors = chunk(start // CHUNK, count, middle)
        report = opened.add_embeddings([f"{i:08d}" for i in range(start, start + count)], vectors)
        print(f"{start + count:,} of {rows:,} rows, {report.seconds:.1f} s", flush=True)
    opened.snapshot().compact(force=True)
    print(json.dumps({"rows": len(opened), "dim": dim}))


def build(work: Path, recipe: str, memory: int) -> None:
    from mmalign.collection.collection import Collection

    if not recipe:
        (work / "recipe.toml").write_text(RECIPE)
        recipe = str(work / "recipe.toml")
    opened = Collection.open(collection(work))
    started = time.perf_counter()
    manifest = opened.build_index(recipe, memory=memory, progress=sys.stderr.isatty())
    assert manifest is not None
    told = {"rows": manifest.rows, "dim": manifest.dim, "factory": manifest.factory, "recipe": manifest.recipe}
    told |= {"seconds": time.perf_counter() - started, "bytes": manifest.bytes, "taken": dict(manifest.taken)}
    (work / "built.json").write_text(json.dumps(told))
    print(json.dumps(told))


def truth(work: Path) -> tuple[np.ndarray, np.ndarray]:
    """Queries near the data and the ids of their true neighbours, from one pass over the chunks; kept on disk."""
    from mmalign.collection.collection import Collection

    path = work / "truth.npz"
    opened = Collection.open(collection(work))
    if path.exists():
        kept = np.load(path)
        if int(kept["rows"]) == len(opened):
            return kept["queries"], kept["ids"]
    queries = chunk(1_000_003, QUERIES, centres(opened.dim))
    best = np.full((QUERIES, 0), 0.0, np.float32), np.zeros((QUERIES, 0), np.int64)
    for row_ids, vectors in opened.snapshot().iter_embeddings():
        scores = queries @ vectors.astype(np.float32).T
        all_scores = np.concatenate([best[0], scores], axis=1)
        all_ids = np.concatenate([best[1], np.broadcast_to(row_ids, scores.shape)], axis=1)
        order = np.argsort(-all_scores, axis=1)[:, :K]
        best = np.take_along_axis(all_scores, order, axis=1), np.take_along_axis(all_ids, order, axis=1)
    table = opened.snapshot().take(best[1].ravel(), ["id"]).column("id").to_pylist()
    ids = np.array(table).reshape(best[1].shape)
    np.savez(path, queries=queries, ids=ids, rows=len(opened))
    return queries, ids


def search(work: Path) -> None:
    """Search as a fresh process does: one query at a time, then all at once."""
    kept = np.load(work / "truth.npz")
    queries, expected = kept["queries"], kept["ids"]
    from mmalign.collection.collection import Collection

    opened = Collection.open(collection(work))
    started = time.perf_counter()
    first = opened.search(queries[0], k=K)
    cold = time.perf_counter() - started
    times, right = [], 0
    for query, true in zip(queries, expected, strict=True):
        started = time.perf_counter()
        hits = opened.search(query, k=K)
        times.append(time.perf_counter() - started)
        right += len({hit.id for hit in hits} & set(true.tolist()))
    opened.search(list(queries), k=K)
    told = {
        "first_s": cold,
        "median_ms": 1000 * float(np.median(times)),
        "recall_at_10": right / expected.size,
        "exact": first.exact,
        "effort": first.effort,
    }
    print(json.dumps(told))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["make", "build", "search", "build-here", "search-here", "truth-here"])
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--recipe", default="", help="a recipe; left out, one like ivf-disk with 4,096 lists")
    parser.add_argument("--memory-gb", type=float, default=4.0)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    budget = int(given.memory_gb * 1e9)
    if given.step == "make":
        make(given.work, given.rows, given.dim)
    elif given.step == "build-here":
        build(given.work, given.recipe, budget)
    elif given.step == "truth-here":
        truth(given.work)
        print("{}")
    elif given.step == "search-here":
        search(given.work)
    elif given.step == "build":
        words = ["build-here", str(given.work), "--recipe", given.recipe, "--memory-gb", str(given.memory_gb)]
        kept = given.work / "build-so-far.json"
        if not any((collection(given.work) / "index").glob("*.work")):
            # Nothing was begun that this run goes on with.
            kept.unlink(missing_ok=True)
        told, taken = watch(words, kept=kept)
        (given.work / "build.json").write_text(json.dumps(told | {"all": taken}))
        runs, peak = f"{taken['seconds']:.0f} s and {taken['runs']} runs", f"{taken['peak'] / 1e9:.2f} GB"
        print(f"built {told['factory']} in {runs}, peak of all {peak} of anonymous memory")
    else:
        watch(["truth-here", str(given.work)])
        told, taken = watch(["search-here", str(given.work)])
        built = json.loads((given.work / "build.json").read_text())
        write(
            "index_memory",
            f"{built['rows']:,} generated vectors of {built['dim']} dimensions around {CLUSTERS:,} centres, "
            f"float16 ({2 * built['rows'] * built['dim'] / 1e9:.2f} GB), budget {given.memory_gb:g} GB",
            {
                "recipe": f"{built['recipe']}: {built['factory']}",
                "build_peak_anonymous_gb": round(built["all"]["peak"] / 1e9, 2),
                "build_and_measure_recall_s": round(built["all"]["seconds"]),
                "runs_until_built": built["all"]["runs"],
                "search_peak_anonymous_gb": round(taken["peak"] / 1e9, 2),
                "index_bytes_per_vector": round(built["bytes"] / built["rows"], 1),
                "recall_at_10": round(told["recall_at_10"], 4),
                "first_search_s": round(told["first_s"], 2),
                "search_median_ms": round(told["median_ms"], 2),
                "searched_exactly": told["exact"],
                "within_budget": max(built["all"]["peak"], taken["peak"]) < budget,
            },
        )


if __name__ == "__main__":
    main()
