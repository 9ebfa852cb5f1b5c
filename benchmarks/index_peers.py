"""Queries per second of mmalign's indexes beside FAISS, autofaiss, usearch and hnswlib, at equal recall of sentences.

VECTORS is what `benchmarks.vectors` wrote. `build` makes the indexes in WORK, one after the other; those that are there
are passed over, so that it resumes. `time` loads one after the other, each in a process of its own with one thread,
chooses the least effort that reaches recall@10 >= 0.95 on the tuning queries, and searches the test sentences with it:
in one batch, and one by one. It does so twice: with the effort chosen on image queries, the usual way, and on
sentences. Each is timed in several turns, and the best turn counts. Ratios are to FAISS's
`HNSW32,Flat` and `IVF4096,Flat` of the same run.

Peers that need other versions of libraries have environments of their own, such as

python -m venv A && A/bin/pip install autofaiss==2.18.0 faiss-cpu==1.8.0 'numpy<2' 'pyarrow<22' packaging
python -m venv B && B/bin/pip install usearch hnswlib

python -m benchmarks.index_peers build VECTORS WORK [--only NAME ...] [--autofaiss A/bin/python] [--graphs B/bin/python]
python -m benchmarks.index_peers time VECTORS WORK [--only NAME ...] [...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import ROOT, write
from mmalign.index.recall.ground_truth import Truth

# -P: modules of this folder must not hide a library's.
WORKER = ("-P", "-W", "ignore", str(Path(__file__).with_name("peer_worker.py")))
K, TARGET = 10, 0.95
# Efforts grow by about a tenth, so that no index gains much by where its steps happen to lie.
EFFORTS = sorted({round(1.1**i) for i in range(90)})
TRAINING = 4096 * 64


@dataclass(frozen=True, slots=True)
class Peer:
    """An index that takes part.

    Attributes:
        name: In the results and as a file's name.
        kind: For the worker.
        options: For building.
        effort: FAISS's parameter string with {}, or empty where the library takes a number.
        least: The least effort that means something.
        most: The largest effort tried.
        python: Which environment: `own`, `autofaiss` or `graphs`.
    """

    name: str
    kind: str
    options: dict[str, Any]
    effort: str = ""
    least: int = 1
    most: int = 5000
    python: str = "own"

    def at(self, effort: int) -> int | str:
        """The effort as the worker takes it."""
        return self.effort.format(effort) if self.effort else effort


PEERS = (
    Peer("mmalign lean", "mmalign", {"recipe": "lean"}, most=4000),
    Peer("faiss HNSW32,Flat", "faiss", {"factory": "HNSW32,Flat", "training": 0}, "efSearch={}", least=K),
    Peer("faiss IVF4096,Flat", "faiss", {"factory": "IVF4096,Flat", "training": TRAINING}, "nprobe={}", most=4096),
    Peer("autofaiss", "autofaiss", {}, python="autofaiss"),
    Peer("mmalign hnsw", "mmalign", {"recipe": "hnsw"}, least=K),
    Peer("hnswlib", "hnswlib", {}, least=K, python="graphs"),
    Peer("usearch", "usearch", {}, least=K, python="graphs"),
)
BASELINES = {"HNSW": "faiss HNSW32,Flat", "IVF": "faiss IVF4096,Flat"}


def path_of(work: Path, peer: Peer) -> Path:
    """Where a peer's index is."""
    return work / (peer.name.replace(" ", "-").replace(",", "-") + ".index")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*"))


def environment(dim: int, threads: int) -> dict[str, str]:
    """Variables that hold every library to so many threads."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return os.environ | dict.fromkeys(names, str(threads)) | {"DIM": str(dim), "PYTHONPATH": str(ROOT)}


def build(vectors: Path, work: Path, peers: Sequence[Peer], pythons: dict[str, str], threads: int) -> None:
    """Build what is not there yet."""
    work.mkdir(parents=True, exist_ok=True)
    base = vectors / "base.npy"
    dim = np.load(base, mmap_mode="r").shape[1]
    for peer in peers:
        path = path_of(work, peer)
        if path.exists():
            continue
        options = peer.options | {"base": str(base), "queries": str(vectors / "queries-train.npy")}
        if peer.kind == "autofaiss":
            lean = path_of(work, PEERS[0])
            if not lean.exists():
                print("autofaiss is given the memory of mmalign lean, which has to be built first", flush=True)
                continue
            options["memory"] = size_of(lean)
        words = [*WORKER, "build", peer.kind, str(path), json.dumps(options)]
        started = time.perf_counter()
        done = subprocess.run([pythons[peer.python], *words], env=environment(dim, threads), check=False)
        took = {"build_s": round(time.perf_counter() - started, 1), "exit": done.returncode, "threads": threads}
        print(peer.name, took, flush=True)
        if not done.returncode:
            path.with_suffix(".build.json").write_text(json.dumps(took))


class Worker:
    """An index loaded in a process of its own.

    Args:
        peer: The index.
        path: Its file.
        python: The interpreter.
        dim: Width of a vector.
    """

    def __init__(self, peer: Peer, path: Path, python: str, dim: int) -> None:
        self.peer = peer
        self._folder = tempfile.TemporaryDirectory()
        words = [*WORKER, "search", peer.kind, str(path)]
        self._process = subprocess.Popen(
            [python, *words], env=environment(dim, 1), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Its input ends, and with it the process; leaving Popen's own context closes both pipes.
        with self._process:
            pass
        self._folder.cleanup()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.peer.name}: its process ended with {self._process.wait()}")
        return dict(json.loads(line))

    def search(self, queries: Path, effort: int | str, **order: Any) -> tuple[NDArray[np.int64], float]:
        """Positions found, and seconds."""
        out = Path(self._folder.name) / "found.npy"
        order |= {"queries": str(queries), "effort": effort, "k": K, "out": str(out)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        seconds = self._answer()["seconds"]
        return np.load(out), seconds


def read_truth(vectors: Path, name: str) -> Truth:
    """The true neighbours of a set of queries."""
    with np.load(vectors / f"truth-{name}.npz") as held:
        return Truth(scores=held["scores"], ids=held["ids"])


def least_effort(worker: Worker, queries: Path, truth: Truth) -> int | None:
    """The least effort that reaches the target, found by halving; None where none does."""
    efforts = [effort for effort in EFFORTS if worker.peer.least <= effort <= worker.peer.most]

    def reaches(effort: int) -> bool:
        found, _ = worker.search(queries, worker.peer.at(effort))
        return float(truth.recall(found, K).mean()) >= TARGET

    low, high = 0, len(efforts) - 1
    # What comes after a doubling is cheap to try; the far end is not.
    step = 8
    while low + step < high and not reaches(efforts[low + step]):
        low += step
        step *= 2
    high = min(high, low + step)
    if not reaches(efforts[high]):
        return None
    while low < high:
        middle = (low + high) // 2
        if reaches(efforts[middle]):
            high = middle
        else:
            low = middle + 1
    return efforts[high]


def measure(worker: Worker, vectors: Path, path: Path, turns: int) -> dict[str, Any]:
    """All figures of one index."""
    test, truth = vectors / "queries-test.npy", read_truth(vectors, "text-test")
    told: dict[str, Any] = {"MB": round(size_of(path) / 1e6)}
    built = path.with_suffix(".build.json")
    if built.exists():
        told["build_s"] = json.loads(built.read_text())["build_s"]
    said = path.with_name("autofaiss.json")
    if worker.peer.kind == "autofaiss":
        own = json.loads(said.read_text())
        told |= {
            "itself": {
                key: own[key] for key in sorted(own) if "recall" in key or key in ("index_key", "index_param", "budget")
            }
        }
        chosen: dict[str, int | str | None] = {"as_built": own.get("index_param", "")}
        template = str(own.get("index_param", ""))
        if "nprobe=" in template:
            stem, _, rest = template.partition("nprobe=")
            tail = rest.partition(",")[2]
            worker.peer = Peer(
                **{
                    **{n: getattr(worker.peer, n) for n in Peer.__slots__},
                    "effort": stem + "nprobe={}" + ("," + tail if tail else ""),
                }
            )
    else:
        chosen = {}
    for kind in ("image", "text"):
        stem = {"image": "images", "text": "queries"}[kind]
        effort = least_effort(worker, vectors / f"{stem}-tune.npy", read_truth(vectors, f"{kind}-tune"))
        chosen[f"tuned_on_{kind}"] = None if effort is None else worker.peer.at(effort)
    for name, effort in chosen.items():
        if effort is None:
            told[name] = {"effort": "none reaches it"}
            continue
        batch, single = [], []
        for _ in range(turns):
            found, seconds = worker.search(test, effort)
            batch.append(len(found) / seconds)
            alone, seconds = worker.search(test, effort, single=True, limit=300)
            single.append(len(alone) / seconds)
        told[name] = {
            "effort": effort,
            "recall": round(float(truth.recall(found, K).mean()), 4),
            "batch_per_s": round(max(batch), 1),
            "single_per_s": round(max(single), 1),
        }
    return told


def table(results: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """A row for each figure and a column for each index, with ratios to the baseline."""
    rows: dict[str, dict[str, Any]] = {}
    for name, told in results.items():
        row: dict[str, Any] = {"MB": told["MB"], "build_s": told.get("build_s", "")}
        for way, words in (("tuned_on_text", "text"), ("tuned_on_image", "image"), ("as_built", "as_built")):
            found = told.get(way)
            if found is None:
                continue
            row[f"effort_({words})"] = found["effort"]
            for figure in ("recall", "batch_per_s", "single_per_s"):
                row[f"{figure}_({words})"] = found.get(figure, "")
        mine = told.get("tuned_on_text", {})
        for short, other in BASELINES.items():
            base = results.get(other, {}).get("tuned_on_text", {})
            for figure in ("batch_per_s", "single_per_s"):
                if figure in mine and figure in base:
                    row[f"{figure.split('_')[0]}_ratio_to_{short}"] = round(mine[figure] / base[figure], 2)
        rows[name] = row | {f"says:_{key}": value for key, value in told.get("itself", {}).items()}
    figures = dict.fromkeys(figure for row in rows.values() for figure in row)
    return {figure: {name: row.get(figure, "") for name, row in rows.items()} for figure in figures}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index_peers", description=__doc__)
    parser.add_argument("step", choices=["build", "time"])
    parser.add_argument("vectors", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", nargs="*", help="names of indexes")
    parser.add_argument("--threads", type=int, default=1, help="for building")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--autofaiss", default="", help="the interpreter that has autofaiss")
    parser.add_argument("--graphs", default="", help="the interpreter that has usearch and hnswlib")
    options = parser.parse_args(arguments)
    pythons = {"own": sys.executable, "autofaiss": options.autofaiss, "graphs": options.graphs}
    names = [peer.name for peer in PEERS]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"no such index: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    peers = [peer for peer in PEERS if (not options.only or peer.name in options.only) and pythons[peer.python]]
    if options.step == "build":
        build(options.vectors, options.work, peers, pythons, options.threads)
        return
    rows, dim = np.load(options.vectors / "base.npy", mmap_mode="r").shape
    results: dict[str, dict[str, Any]] = {}
    for peer in peers:
        path = path_of(options.work, peer)
        if not path.exists():
            print(f"{peer.name} is not built", flush=True)
            continue
        with Worker(peer, path, pythons[peer.python], dim) as worker:
            results[peer.name] = measure(worker, options.vectors, path, options.turns)
        print(peer.name, json.dumps(results[peer.name]), flush=True)
    write(
        "index_peers",
        f"{rows:,} x {dim} of benchmarks.vectors, the least effort with recall@{K} >= {TARGET} on tuning queries of "
        f"the kind in brackets, figures of the test sentences, one thread, best of {options.turns} turns; ratios are "
        f"of sentences tuned on sentences, to {' and '.join(BASELINES.values())}",
        table(results),
    )


if __name__ == "__main__":
    main()
