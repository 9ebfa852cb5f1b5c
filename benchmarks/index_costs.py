"""Measure what each step of building and searching an index costs on this machine, in about a minute.

    python -m benchmarks.index_costs            # writes indexes/costs.json, from which `mmalign plan` estimates
    python -m benchmarks.index_costs --check    # also builds some recipes and prints estimate and truth side by side

Processor time of one thread is taken, so that other work on the machine matters little; only reads from disk are
measured by the clock.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.results import ROOT, commit, machine
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.lifecycle.build import build_index
from mmalign.index.planning.costs import BUILD_EFFORT, SEEN, Costs, build_seconds, cache_miss_share, search_seconds
from mmalign.index.planning.recipe import load_recipe
from mmalign.index.planning.sizes import size_of
from mmalign.utils.similarity import exact_top_k

FILE = ROOT / "indexes" / "costs.json"
DIM, QUERIES, K = 256, 64, 10
# So many vectors, and the graph over them, take three times as much memory as a cache has.
LARGE = 131_072
# By kind of code, what is scanned and added to.
CODES = {
    "Flat": "Flat",
    "SQfp16": "SQfp16",
    "SQbf16": "SQbf16",
    "SQ8": "SQ8",
    "SQ6": "SQ6",
    "SQ4": "SQ4",
    "PQ": "PQ32x8np",
    "PQfs": "PQ64x4fs",
    "RaBitQ": "RaBitQ",
    "RaBitQfs": "RaBitQfs",
}
# Codes whose tables may be made anew for each list.
BLOCKS = ("PQ", "PQfs", "RaBitQ", "RaBitQfs")
_PAGE = 4096


def seconds(work: Callable[[], Any], *, least: float = 0.05) -> float:
    """Processor time of one call, the best of some, warmed up by the first."""
    work()
    spent: list[float] = []
    while sum(spent) < least or len(spent) < 3:
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def vectors(rows: int, dim: int, *, seed: int) -> np.ndarray:
    """Clustered vectors of length 1."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(200, dim)).astype(np.float32)
    found = centres[rng.integers(0, 200, rows)] + 0.8 * rng.normal(size=(rows, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def quiet(index: Any) -> None:
    """Train in a few rounds: bad codes cost as much to scan as good ones."""
    for holder in (index, getattr(index, "pq", None)):
        if hasattr(holder, "cp"):
            holder.cp.niter, holder.cp.min_points_per_centroid = 2, 1


def made(factory: str, data: np.ndarray) -> tuple[Any, float]:
    """An index, and the processor time that adding took."""
    index = faiss.index_factory(data.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    quiet(index)
    index.train(data[:2048])
    start = time.process_time()
    index.add(data)
    return index, time.process_time() - start


def probe_seconds(code: str, data: np.ndarray, queries: np.ndarray, scan: float) -> float:
    """What looking in one list more takes, less the scan of its codes."""
    lists, (few, many) = 128, (8, 72)
    index, _ = made(f"IVF{lists},{code}", data)
    spent = []
    for probes in (few, many):
        index.nprobe = probes
        spent.append(seconds(lambda: [index.search(query[None], K) for query in queries[:16]]))
    # Lists near a query are longer than others, which counts as part of looking in them.
    each = (spent[1] - spent[0]) / (16 * (many - few))
    return max(each - len(data) / lists * data.shape[1] * scan, 1e-9)


def fetch_seconds(link: float) -> float:
    """What each look at a vector adds to linking a graph once that fits no cache."""
    layout = size_of("HNSW32,SQfp16", DIM)
    _, linked = made(layout.factory, vectors(LARGE, DIM, seed=4))
    looks = LARGE * BUILD_EFFORT * SEEN * cache_miss_share(layout.searched(LARGE))
    return max(linked - link * LARGE * DIM * math.log2(LARGE), 1e-9) / looks


def read_seconds() -> float:
    """Wall-clock time of reading a page at random places of a file that is not in memory."""
    pages = 1 << 15
    with tempfile.NamedTemporaryFile(dir=ROOT) as file:
        for _ in range(pages * _PAGE >> 22):
            file.write(os.urandom(1 << 22))
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        places = np.random.default_rng(0).choice(pages, 300, replace=False)
        start = time.perf_counter()
        for place in places:
            os.pread(file.fileno(), _PAGE, int(place) * _PAGE)
        return (time.perf_counter() - start) / len(places)


def measure(rows: int) -> dict[str, Any]:
    """Seconds for each step; see `mmalign.index.planning.costs.Costs`."""
    data, queries = vectors(rows, DIM, seed=0), vectors(QUERIES, DIM, seed=1)
    one, half = queries[:1], data.astype(np.float16)
    square = data[:1024]
    scan = {"exact": seconds(lambda: exact_top_k(one, half, K)) / (rows * DIM)}
    encode = {"exact": seconds(lambda: np.concatenate([half[:rows], data], dtype=np.float16)) / (2 * rows * DIM)}
    for kind, factory in CODES.items():
        index, added = made(factory, data)
        scan[kind] = seconds(lambda index=index: index.search(one, K)) / (rows * DIM)
        encode[kind] = added / (rows * DIM)
    # Candidates are kept in order and compared again; only their number differs between the two.
    refined, _ = made("PQ64x4fs,Refine(SQfp16)", data)
    more = []
    for factor in (8, 72):
        refined.k_factor = factor
        more.append(seconds(lambda: refined.search(queries, K)))
    graph, linked = made("HNSW32,SQfp16", data)
    efforts = (32, 128)
    looked = [
        seconds(lambda effort=effort: graph.search(queries, K, params=faiss.SearchParametersHNSW(efSearch=effort)))
        for effort in efforts
    ]
    link = linked / (rows * DIM * math.log2(rows))
    small = FaissIndex("HNSW32,SQfp16", DIM)
    small.add(np.arange(10), data[:10])
    return {
        "call": seconds(lambda: small.search(one, 1, effort=1)),
        "multiply": seconds(lambda: data @ square.T) / (rows * DIM * len(square)),
        "project": seconds(lambda: square @ one[0]) / (len(square) * DIM),
        "fetch": fetch_seconds(link),
        "graph": (looked[1] - looked[0]) / (QUERIES * DIM * (efforts[1] - efforts[0])),
        "link": link,
        "refine": max(more[1] - more[0], 1e-9) / (QUERIES * K * 64 * DIM),
        "read": read_seconds(),
        "probe": {kind: probe_seconds(CODES[kind], data, queries, scan[kind]) for kind in ("Flat", "SQ8", *BLOCKS)},
        "scan": scan,
        "encode": encode,
    }


def check(costs: Costs) -> None:
    """Build some recipes and print how far the estimates are off."""
    rows, dim, queries = 30_000, 128, vectors(QUERIES, 128, seed=3)
    data = vectors(rows, dim, seed=2)

    def chunks() -> Any:
        for start in range(0, rows, 8192):
            yield np.arange(start, min(rows, start + 8192)), data[start : start + 8192]

    for name in ("flat-fp16", "sq8", "hnsw", "ivf-flat", "ivf-pq", "rabitq", "binary"):
        recipe = load_recipe(name)
        layout = size_of(recipe.resolve(rows=rows, dim=dim), dim)
        start = time.process_time()
        index, _ = build_index(recipe, chunks, rows=rows, dim=dim)
        built = time.process_time() - start
        one = seconds(lambda index=index: [index.search(query[None], K) for query in queries]) / len(queries)
        sample = min(rows, max(10_000, recipe.vectors_per_centroid * layout.centroids)) if layout.centroids else 0
        foreseen = (
            build_seconds(layout, costs, rows=rows, sample=sample),
            search_seconds(layout, costs, rows=rows, effort=index.default_effort, k_factor=recipe.k_factor or 8),
        )
        print(
            f"{name:<10} build {foreseen[0]:7.2f} s estimated, {built:7.2f} s taken ({foreseen[0] / built:.2f}); "
            f"search {1e3 * foreseen[1]:6.3f} ms estimated, {1e3 * one:6.3f} ms taken ({foreseen[1] / one:.2f})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=FILE)
    parser.add_argument("--rows", type=int, default=16_384, help="how many vectors to measure on")
    parser.add_argument("--check", action="store_true", help="compare estimates with builds and searches")
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    with threadpool_limits(1):
        figures = measure(asked.rows)
        told = {
            "what": "seconds of one thread for each step of building and searching; "
            "see mmalign/index/planning/costs.py",
            "command": f"python -m benchmarks.index_costs --rows {asked.rows}",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": machine(),
            "commit": commit(),
            "data": f"{asked.rows} vectors of dim {DIM}",
        } | {name: _rounded(value) for name, value in figures.items()}
        asked.output.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        print(json.dumps(told, indent=2))
        if asked.check:
            check(Costs.from_dict(told))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return float(f"{value:.3g}")


if __name__ == "__main__":
    main()
