"""Queries per second of mmalign's indexes beside the best others, at equal recall: one thread, in turn.

VECTORS is what `benchmarks.vectors` or `benchmarks.hard_vectors` wrote, of any number of rows. `build` makes the
indexes in WORK, one after the other; those that are there are passed over, so that it resumes.

`time` finds for each index, and for each number of candidates that it may compare again, the efforts around recall@10
of 0.90, 0.95 and 0.98 of the test queries. Then come the turns: in each, every index in its own process searches with
all these efforts, in one batch and one by one, and the order is reversed from turn to turn. A speed at a recall lies
between its two points, as `benchmarks.equal_recall` says; of the numbers of candidates the fastest counts, which is
more than mmalign allows itself: its recipes have one. Speeds are medians of the turns, and ratios are of mmalign's best
recipe to the best peer, the median of the ratios within the turns. What is done is kept in WORK, so that it goes on
where it was stopped. Time is that of the processor (`--clock wall` for that of the clock on a machine that does nothing
else); a library that takes more threads than one pays for each.

`time` writes `benchmarks/results/NAME.json`; `cases` writes the ratios of several WORK folders side by side.

Libraries beside mmalign's may lie in a folder on PYTHONPATH; a peer whose library cannot be had is told with the
reason. autofaiss needs other versions, and so an environment of its own:

pip install --no-deps --target PEERS hnswlib usearch numkong scann protobuf ngt pyvsag
python -m venv A && A/bin/pip install autofaiss==2.18.0 faiss-cpu==1.8.0 'numpy<2' 'pyarrow<22' packaging

python -m benchmarks.index_peers build VECTORS WORK [--only NAME ...] [--autofaiss A/bin/python]
python -m benchmarks.index_peers time VECTORS WORK [--only NAME ...] [--turns 5] [--queries image] [--name NAME]
python -m benchmarks.index_peers cases WORK [WORK ...]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.equal_recall import best, median, ratio, speed_at
from benchmarks.results import ROOT, write
from mmalign.index.recall.ground_truth import Truth

# -P: modules of this folder must not hide a library's.
WORKER = ("-P", "-W", "ignore", str(Path(__file__).with_name("peer_worker.py")))
K = 10
TARGETS = (0.90, 0.95, 0.98)
# Efforts grow by about a fifth, so that two neighbours are near one another.
EFFORTS = sorted({round(1.2**i) for i in range(48)})
WAYS = ("batch", "single")
# Each speed is of so many seconds of searching at least.
LEAST_S = 0.2
# A number of candidates that is slower than this share of the fastest at all recalls is not timed again.
HOPELESS = 0.8
KINDS = {"text": "queries", "image": "images"}


@dataclass(frozen=True, slots=True)
class Peer:
    """An index that takes part.

    Attributes:
        name: In the results and as a file's name.
        kind: For the worker.
        options: For building; of a factory string, {lists}, {dim}, {half} and {quarter} of the width are filled in.
        effort: FAISS's parameters with {effort} and {width}, or empty where the library takes numbers.
        least: The least effort that means something.
        most: The largest effort tried, as far as the library answers; of lists, no more than there are.
        widths: Numbers of candidates that are compared again, by 10 or in all as the library counts; 0 for its own way.
        python: Which environment: `own` or `autofaiss`.
    """

    name: str
    kind: str
    options: dict[str, Any]
    effort: str = ""
    least: int = 1
    most: int = 5000
    widths: tuple[int, ...] = (0,)
    python: str = "own"

    @property
    def lists(self) -> bool:
        """Whether the effort is a number of inverted lists; FAISS's fast scan answers nonsense beyond all of them."""
        return self.kind == "scann" or self.effort.startswith("nprobe")

    @property
    def mine(self) -> bool:
        """Whether it is mmalign's."""
        return self.kind == "mmalign"


def inverted(name: str, factory: str, widths: tuple[int, ...] = (0,)) -> Peer:
    """FAISS's inverted lists of a factory string."""
    effort = "nprobe={effort}" + (",k_factor_rf={width}" if widths != (0,) else "")
    return Peer(name, "faiss", {"factory": factory}, effort, widths=widths)


# Candidates by the 10 that are asked for; mmalign's recipes have 8.
AGAIN = (2, 4, 8, 16)
GRAPH = "efSearch={effort}"
UNTOLD = "mmalign lean, not told of queries"
PEERS = (
    Peer("mmalign lean", "mmalign", {"recipe": "lean", "told": True}, most=4000),
    Peer(UNTOLD, "mmalign", {"recipe": "lean", "told": False}, most=4000),
    Peer("mmalign hnsw", "mmalign", {"recipe": "hnsw", "told": False}, least=K),
    Peer("ScaNN, SOAR", "scann", {"soar": 1.5}, widths=(30, 60, 120)),
    Peer("vsag HGraph", "vsag", {}, least=K, most=1000),
    Peer("hnswlib M=16", "hnswlib", {"neighbours": 16, "construction": 200}, least=K),
    inverted("FAISS PCA64,IVF,PQ64x4fsr,Refine(SQfp16)", "PCA64,IVF{lists},PQ64x4fsr,Refine(SQfp16)", AGAIN),
    inverted(
        "FAISS PCA(d/4),IVF,PQ(d/4)x4fsr,Refine(SQfp16)",
        "PCA{quarter},IVF{lists},PQ{quarter}x4fsr,Refine(SQfp16)",
        AGAIN,
    ),
    # OPQ, unlike PCA, takes no mean from the queries, by which PCA changes the order of inner products.
    inverted(
        "FAISS OPQ(d/4),IVF,PQ(d/4)x4fsr,Refine(SQfp16)",
        "OPQ{quarter}_{quarter},IVF{lists},PQ{quarter}x4fsr,Refine(SQfp16)",
        AGAIN,
    ),
    inverted("FAISS IVF,PQ(d/2)x4fs,RFlat", "IVF{lists},PQ{half}x4fs,RFlat", AGAIN),
    inverted("FAISS IVF,PQ(d/4)x4fs,Refine(SQfp16)", "IVF{lists},PQ{quarter}x4fs,Refine(SQfp16)", AGAIN),
    inverted("FAISS IVF,RaBitQfs,Refine(SQfp16)", "RR{dim},IVF{lists},RaBitQfs,Refine(SQfp16)", (8, 16, 32)),
    inverted("FAISS IVF,Flat", "IVF{lists},Flat"),
    Peer("ScaNN", "scann", {}, widths=(30, 60, 120)),
    Peer("hnswlib M=32", "hnswlib", {"neighbours": 32, "construction": 200}, least=K),
    Peer("usearch M=32, f16", "usearch", {"connectivity": 32, "construction": 200}, least=K),
    Peer("FAISS HNSW32,Flat", "faiss", {"factory": "HNSW32,Flat"}, GRAPH, least=K),
    Peer("FAISS HNSW32,Flat, efConstruction 200", "faiss", {"factory": "HNSW32,Flat", "construction": 200}, GRAPH, K),
    Peer("NGT ONNG", "ngt", {}),
    Peer("autofaiss", "autofaiss", {}, python="autofaiss"),
)
BEST_MINE, BEST_PEER, RATIO, SPREAD = "mmalign's best", "best peer", "ratio to the best peer", "least and largest ratio"
TOLD = "lean, what the queries are worth"


def lists_of(rows: int) -> int:
    """How many inverted lists an index of so many rows gets, which is what mmalign's recipes take."""
    return round(4 * float(rows) ** 0.5)


def path_of(work: Path, peer: Peer) -> Path:
    """Where a peer's index is."""
    return work / ("".join(c if c.isalnum() or c in "=()" else "-" for c in peer.name) + ".index")


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return path.stat().st_size if path.is_file() else sum(file.stat().st_size for file in path.rglob("*"))


def environment(peer: Peer, dim: int, threads: int) -> dict[str, str]:
    """Variables that hold every library to so many threads, and let it be found."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    held = os.environ | dict.fromkeys(names, str(threads)) | {"DIM": str(dim)}
    others = [folder for folder in held.pop("PYTHONPATH", "").split(os.pathsep) if folder]
    # What lies on the path is for this interpreter, and not for one with other versions.
    return held | {"PYTHONPATH": os.pathsep.join(dict.fromkeys([str(ROOT), *others]))} if peer.python == "own" else held


def absent(peer: Peer, pythons: Mapping[str, str]) -> str:
    """Why a peer cannot take part, or nothing."""
    python = pythons[peer.python]
    if not python:
        return f"--{peer.python} was not given"
    done = subprocess.run(
        [python, *WORKER, "probe", peer.kind], env=environment(peer, 0, 1), capture_output=True, text=True, check=False
    )
    if done.returncode:
        return f"its process ended with {done.returncode}"
    return str(json.loads(done.stdout.splitlines()[-1]).get("missing", ""))


def build(vectors: Path, work: Path, peers: Sequence[Peer], pythons: Mapping[str, str], threads: int) -> None:
    """Build what is not there yet."""
    work.mkdir(parents=True, exist_ok=True)
    base = vectors / "base.npy"
    rows, dim = np.load(base, mmap_mode="r").shape
    count = lists_of(rows)
    for peer in peers:
        path = path_of(work, peer)
        if path.exists():
            continue
        if why := absent(peer, pythons):
            print(f"{peer.name}: {why}", flush=True)
            continue
        # As many to train on as mmalign takes.
        options = {"lists": count, "training": min(rows, 64 * count)} | peer.options
        options |= {"base": str(base), "queries": str(vectors / "queries-train.npy")}
        if "factory" in options:
            filled = {"lists": count, "dim": dim, "half": dim // 2, "quarter": dim // 4}
            options["factory"] = options["factory"].format(**filled)
        if peer.kind == "autofaiss":
            lean = path_of(work, PEERS[0])
            if not lean.exists():
                print("autofaiss is given the memory of mmalign lean, which has to be built first", flush=True)
                continue
            options["memory"] = size_of(lean)
        words = [*WORKER, "build", peer.kind, str(path), json.dumps(options)]
        done = subprocess.run([pythons[peer.python], *words], env=environment(peer, dim, threads), check=False)
        said = path.with_suffix(".build.json").read_text() if not done.returncode else f"ended with {done.returncode}"
        print(peer.name, said, flush=True)


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
            [python, *words], env=environment(peer, dim, 1), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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

    def _order(self, queries: Path, effort: int, width: int, **order: Any) -> dict[str, Any]:
        order |= {"queries": str(queries), "effort": effort, "width": width, "template": self.peer.effort, "k": K}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def find(self, queries: Path, effort: int, width: int) -> tuple[NDArray[np.int64], dict[str, Any]]:
        """Positions found in one batch, and what the worker says of it."""
        out = Path(self._folder.name) / "found.npy"
        told = self._order(queries, effort, width, out=str(out))
        return np.load(out), told

    def time(self, queries: Path, effort: int, width: int, *, single: bool) -> dict[str, Any]:
        """How long searching takes, as the worker says."""
        return self._order(queries, effort, width, single=single, least_s=LEAST_S)


def read_truth(vectors: Path, name: str) -> Truth:
    """The true neighbours of a set of queries."""
    with np.load(vectors / f"truth-{name}.npz") as held:
        return Truth(scores=held["scores"], ids=held["ids"])


def around(efforts: Sequence[int], recall_of: Callable[[int], float], targets: Sequence[float]) -> list[int]:
    """The efforts before and at which each recall is reached, found by halving.

    Args:
        efforts: Growing.
        recall_of: Called with an effort, gives its recall; asked for as few as possible.
        targets: Recalls.

    Returns:
        Some of the efforts; where a recall is not reached, the largest is among them.
    """
    known: dict[int, float] = {}

    def reaches(i: int, target: float) -> bool:
        if i not in known:
            known[i] = recall_of(efforts[i])
        return known[i] >= target

    chosen: set[int] = set()
    last = len(efforts) - 1
    for target in targets:
        # Never far beyond what is needed: some libraries answer nonsense where the effort is absurd.
        low, high = 0, min(4, last)
        while high < last and not reaches(high, target):
            low, high = high, min(high + 4, last)
        while low < high:
            middle = (low + high) // 2
            if reaches(middle, target):
                high = middle
            else:
                low = middle + 1
        chosen |= {max(0, high - 1), high}
    return [efforts[i] for i in sorted(chosen)]


def points_of(worker: Worker, queries: Path, truth: Truth, rows: int) -> dict[str, Any]:
    """The points that are timed, by [width, effort, recall], and the memory that the index took."""
    most = min(worker.peer.most, lists_of(rows)) if worker.peer.lists else worker.peer.most
    efforts = sorted({effort for effort in EFFORTS if worker.peer.least <= effort < most} | {most})
    families: dict[int, list[tuple[float, float, int]]] = {}
    memory = 0
    for width in worker.peer.widths:
        found: dict[int, tuple[float, float, int]] = {}

        def recall_of(effort: int, width: int = width, found: dict[int, Any] = found) -> float:
            nonlocal memory
            ids, told = worker.find(queries, effort, width)
            memory = max(memory, int(told["resident"]))
            recall = float(truth.recall(ids, K).mean())
            found[effort] = (recall, told["queries"] / max(told["cpu_seconds"], 1e-6), effort)
            return recall

        for effort in around(efforts, recall_of, TARGETS):
            if effort not in found:
                recall_of(effort)
            families.setdefault(width, []).append(found[effort])
    speeds = {
        width: [speed_at([(recall, speed) for recall, speed, _ in points], target) for target in TARGETS]
        for width, points in families.items()
    }
    fastest = [max((row[i] or 0 for row in speeds.values()), default=0) for i in range(len(TARGETS))]
    kept = [
        [width, effort, recall]
        for width, points in families.items()
        if any((speed or 0) > HOPELESS * most for speed, most in zip(speeds[width], fastest, strict=True))
        for recall, _, effort in points
    ]
    # Where no effort reaches even the least of the recalls there is nothing to time.
    return {"points": kept, "resident": memory}


def say(file: Path, line: dict[str, Any]) -> None:
    """Append what was done, so that a run that is stopped goes on after it."""
    with file.open("a", encoding="utf-8") as held:
        held.write(json.dumps(line) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """What was done."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def take_turns(
    vectors: Path, work: Path, peers: Sequence[Peer], pythons: Mapping[str, str], kind: str, turns: int
) -> dict[str, Any]:
    """Time every index in every turn, or read what an earlier run has timed.

    Returns:
        What `table` takes.
    """
    queries, truth = vectors / f"{KINDS[kind]}-test.npy", read_truth(vectors, f"{kind}-test")
    rows, dim = np.load(vectors / "base.npy", mmap_mode="r").shape
    file = work / f"times-{kind}.jsonl"
    # The file's time tells whether an index was built anew after it was timed.
    built = {peer.name: path_of(work, peer) for peer in peers if path_of(work, peer).exists()}
    stamps = {name: path.stat().st_mtime_ns for name, path in built.items()}
    done = [line for line in read_lines(file) if stamps.get(line["peer"]) == line["stamp"]]
    points = {line["peer"]: line for line in done if "points" in line}
    timed = {(line["turn"], line["peer"]): line for line in done if "turn" in line}
    present = [peer for peer in peers if peer.name in built]
    for turn in range(turns):
        for peer in present if turn % 2 == 0 else present[::-1]:
            name = peer.name
            if (turn, name) in timed:
                continue
            with Worker(peer, built[name], pythons[peer.python], dim) as worker:
                if name not in points:
                    points[name] = {"peer": name, "stamp": stamps[name], **points_of(worker, queries, truth, rows)}
                    say(file, points[name])
                line: dict[str, Any] = {"peer": name, "stamp": stamps[name], "turn": turn}
                chosen = points[name]["points"]
                if chosen:
                    # Pages that were not touched yet are not to be paid for by the first point.
                    worker.find(queries, chosen[-1][1], chosen[-1][0])
                for way in WAYS:
                    line[way] = [
                        worker.time(queries, effort, width, single=way == "single") for width, effort, _ in chosen
                    ]
            timed[turn, name] = line
            say(file, line)
            print(turn, name, len(chosen), "points", flush=True)
    return {
        "rows": rows,
        "dim": dim,
        "absent": {peer.name: absent(peer, pythons) or "not built" for peer in peers if peer.name not in built},
        "peers": {
            peer.name: {
                **json.loads(built[peer.name].with_suffix(".build.json").read_text()),
                "bytes": size_of(built[peer.name]),
                "resident": points[peer.name]["resident"],
                "points": points[peer.name]["points"],
                "turns": [timed[turn, peer.name] for turn in range(turns)],
            }
            for peer in present
        },
    }


def speeds_of(told: dict[str, Any], clock: str) -> dict[str, list[float | None]]:
    """Of one index, the speed in each turn, by way and recall as the columns say."""
    out: dict[str, list[float | None]] = {}
    for way in WAYS:
        for target in TARGETS:
            column = f"{way} at {target:.2f}"
            out[column] = []
            for turn in told["turns"]:
                curves: dict[int, list[tuple[float, float]]] = {}
                for (width, _, recall), took in zip(told["points"], turn[way], strict=True):
                    curves.setdefault(width, []).append((recall, took["queries"] / took[clock]))
                found = [speed_at(curve, target) for curve in curves.values()]
                out[column].append(max((speed for speed in found if speed is not None), default=None))
    return out


def table(measured: dict[str, Any], clock: str) -> dict[str, dict[str, Any]]:
    """A row for each index, the rows that compare them, and a row for each that is absent."""
    by_name = {name: speeds_of(told, clock) for name, told in measured["peers"].items()}
    columns = [f"{way} at {target:.2f}" for way in WAYS for target in TARGETS]
    rows: dict[str, dict[str, Any]] = {}
    for name, told in measured["peers"].items():
        medians = {column: median(by_name[name][column]) for column in columns}
        rows[name] = {
            "build s": told["build_cpu_s" if clock == "cpu_seconds" else "build_s"],
            "bytes": round(told["bytes"] / measured["rows"]),
            "bytes in memory": round(told["resident"] / measured["rows"]),
            **{column: "-" if speed is None else round(speed) for column, speed in medians.items()},
            "library": told.get("version", ""),
        }
    compared: dict[str, dict[str, Any]] = {name: {} for name in (BEST_MINE, BEST_PEER, RATIO, SPREAD, TOLD)}
    known = {peer.name for peer in PEERS if peer.mine}
    for column in columns:
        turns = {name: speeds[column] for name, speeds in by_name.items()}
        mine = best(turns, [name for name in turns if name in known and name != UNTOLD])
        other = best(turns, [name for name in turns if name not in known])
        compared[BEST_MINE][column] = (mine or "-").removeprefix("mmalign ")
        compared[BEST_PEER][column] = other or "-"
        if mine and other:
            middle, least, most = ratio(turns, mine, other)
            compared[RATIO][column] = round(middle, 2)
            compared[SPREAD][column] = f"{least:.2f} to {most:.2f}"
        lean = PEERS[0].name
        if lean in turns and UNTOLD in turns and None not in turns[lean] + turns[UNTOLD]:
            compared[TOLD][column] = round(ratio(turns, lean, UNTOLD)[0], 2)
    missing = {name: {"library": f"not measured: {why}"} for name, why in measured["absent"].items()}
    return rows | compared | missing


def write_cases(works: Sequence[Path]) -> None:
    """Write the ratios of several data sets, a row for each."""
    rows: dict[str, dict[str, Any]] = {}
    said = []
    for work in works:
        for file in sorted(work.glob("figures-*.json")):
            kept = json.loads(file.read_text(encoding="utf-8"))
            figures = kept["figures"]
            rows[kept["case"]] = {
                column: f"{figures[RATIO][column]} ({mine}; {figures[BEST_PEER][column]})"
                for column, mine in figures[BEST_MINE].items()
                if column in figures[RATIO]
            } | {f"{TOLD}, {column}": value for column, value in figures[TOLD].items() if column.endswith("0.95")}
            said.append(f"{kept['case']}: {kept['turns']} turns{', ' + kept['note'] if kept['note'] else ''}")
    write(
        "index_peers_cases",
        f"how many times as fast mmalign's best recipe is as the best peer, both in brackets; {'; '.join(said)}; as "
        "benchmarks.index_peers says, one thread, processor time",
        rows,
    )


def case_of(vectors: Path) -> str:
    """Which vectors, in words."""
    rows, dim = np.load(vectors / "base.npy", mmap_mode="r").shape
    made_by = vectors / "encoder.txt"
    return f"{rows:,} x {dim} ({made_by.read_text(encoding='utf-8').strip() if made_by.exists() else 'unknown'})"


def said_of(vectors: Path, kind: str, turns: int, clock: str) -> str:
    """What was measured, in words."""
    trained = len(np.load(vectors / "queries-train.npy", mmap_mode="r"))
    asked = len(np.load(vectors / f"{KINDS[kind]}-test.npy", mmap_mode="r"))
    time = "processor time" if clock == "cpu_seconds" else "time of the clock"
    return (
        f"{case_of(vectors)}, {asked:,} {kind} queries, lean fitted to {trained:,} others; queries per second "
        f"of {time} at recall@{K} of {', '.join(f'{target:.2f}' for target in TARGETS)}, the logarithm interpolated "
        f"between the two efforts around it, median of {turns} turns, one thread, in one batch and one by one; build "
        "seconds, bytes of the file and of memory a vector; ratios are of mmalign's best recipe to the best peer"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index_peers", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    for step in ("build", "time"):
        command = steps.add_parser(step)
        command.add_argument("vectors", type=Path)
        command.add_argument("work", type=Path)
        command.add_argument("--only", nargs="*", help="names of indexes")
        command.add_argument("--autofaiss", default="", help="the interpreter that has autofaiss")
        if step == "build":
            command.add_argument("--threads", type=int, default=1, help="for building")
        else:
            command.add_argument("--turns", type=int, default=5)
            command.add_argument("--queries", choices=sorted(KINDS), default="text")
            command.add_argument("--clock", choices=["processor", "wall"], default="processor")
            command.add_argument("--name", default="index_peers", help="of the result")
            command.add_argument(
                "--note", default="", help="to be told with the data, such as what else the machine did"
            )
    command = steps.add_parser("cases")
    command.add_argument("works", type=Path, nargs="+", metavar="WORK")
    options = parser.parse_args(arguments)
    if options.step == "cases":
        write_cases(options.works)
        return
    pythons = {"own": sys.executable, "autofaiss": options.autofaiss}
    names = [peer.name for peer in PEERS]
    if unknown := set(options.only or ()) - set(names):
        parser.error(f"no such index: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    peers = [peer for peer in PEERS if not options.only or peer.name in options.only]
    if options.step == "build":
        build(options.vectors, options.work, peers, pythons, options.threads)
        return
    clock = {"processor": "cpu_seconds", "wall": "seconds"}[options.clock]
    measured = take_turns(options.vectors, options.work, peers, pythons, options.queries, options.turns)
    data = said_of(options.vectors, options.queries, options.turns, clock)
    data += f"; {options.note}" if options.note else ""
    figures = table(measured, clock)
    kept = {
        "case": f"{case_of(options.vectors)}, {options.queries} queries",
        "turns": options.turns,
        "note": options.note,
        "figures": figures,
    }
    (options.work / f"figures-{options.queries}.json").write_text(json.dumps(kept, indent=1), encoding="utf-8")
    write(options.name, data, figures)


if __name__ == "__main__":
    main()
