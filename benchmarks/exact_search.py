"""One exact query of an index, and of a collection without one, against FAISS, SimSIMD and NumKong on the same vectors.

All take turns, on one thread. SimSIMD and NumKong take part where they are installed (`pip install simsimd numkong`);
what they compare is put in order by NumPy, since they give products alone. All hold float16; SimSIMD also adds up in it
where the processor can, which is faster and tells scores to two digits fewer. What is told is the tenth percentile of
the times, which a busy machine changes least, and the ratio to whichever peer was fastest.

python -m benchmarks.exact_search [--rows 1000 10000 50000] [--dims 384 512] [--seconds 3]
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import write
from mmalign import Collection
from mmalign.index import build_index

K = 10
TURN_S = 2e-3


def optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def best(scores: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    order = np.argpartition(-scores, K)[:K]
    order = order[np.argsort(-scores[order])]
    return scores[order], order


def peers(vectors: NDArray[np.float32], query: NDArray[np.float32]) -> dict[str, Callable[[], Any]]:
    """Calls that find the nearest, by what they are made with; each returns positions."""
    import faiss

    halves, half = vectors.astype(np.float16), query.astype(np.float16)
    flat = faiss.IndexScalarQuantizer(vectors.shape[1], faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    flat.add(vectors)
    made: dict[str, Callable[[], Any]] = {"FAISS SQfp16": lambda: flat.search(query, K)[1][0]}
    if simsimd := optional("simsimd"):
        made["SimSIMD"] = lambda: best(np.asarray(simsimd.cdist(half, halves, metric="inner"), np.float32)[0] * -1)[1]
        # Some versions give 1 - product, others the product.
        if made["SimSIMD"]()[0] != flat.search(query, 1)[1][0, 0]:
            made["SimSIMD"] = lambda: best(np.asarray(simsimd.cdist(half, halves, metric="inner"), np.float32)[0])[1]
    if numkong := optional("numkong"):
        made["NumKong"] = lambda: best(np.asarray(numkong.cdist(half, halves, metric="dot"), np.float32)[0])[1]
    return made


def take_turns(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """Seconds of one call of each, some calls in a row a turn: a program that searches does little else between."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    started = time.perf_counter()
    for call in calls.values():
        call()
    in_a_row = max(1, min(50, int(TURN_S * len(calls) / (time.perf_counter() - started))))
    end = time.perf_counter() + seconds
    turn = 0
    while turn < 30 or time.perf_counter() < end:
        for name, call in calls.items():
            call()
            started = time.perf_counter()
            for _ in range(in_a_row):
                call()
            taken[name].append((time.perf_counter() - started) / in_a_row)
        turn += 1
    return {name: float(np.quantile(times[5:], 0.1)) for name, times in taken.items()}


def measure(rows: int, dim: int, seconds: float, folder: Path) -> dict[str, Any]:
    rng = np.random.default_rng(rows + dim)
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    query = vectors[:1] + 0.05 * rng.standard_normal((1, dim), dtype=np.float32)
    query /= np.linalg.norm(query)
    index, _ = build_index("flat", lambda: iter([(np.arange(rows), vectors)]), rows=rows, dim=dim)
    collection = Collection.create(folder, encoder=None, dim=dim)
    for start in range(0, rows, 20_000):
        stop = min(rows, start + 20_000)
        collection.add_embeddings([f"{i:08x}" for i in range(start, stop)], vectors[start:stop])
    others = peers(vectors, query)
    calls = others | {
        "index": lambda: index.search(query, K)[1][0],
        "collection": lambda: collection.search(query[0], k=K),
        "collection, hits looked at": lambda: collection.search(query[0], k=K).hits,
    }
    truth = np.argsort(-(vectors.astype(np.float16).astype(np.float64) @ query[0].astype(np.float64)))[:K]
    assert index.search(query, K)[1][0].tolist() == truth.tolist()
    found = collection.search(query[0], k=K)
    assert [hit.id for hit in found] == [f"{i:08x}" for i in truth.tolist()]
    assert found.exact
    # Until what hits tell is in memory too.
    for _ in range(rows // 1000 + 20):
        _ = collection.search(query[0], k=K).hits
    taken = take_turns(calls, seconds)
    fastest = min(others, key=lambda name: taken[name])
    told: dict[str, Any] = {f"{name} us": round(1e6 * one, 1) for name, one in taken.items()}
    told["fastest peer"] = fastest
    for name in ("index", "collection"):
        told[f"{name} / fastest peer"] = round(taken[name] / taken[fastest], 2)
        told[f"{name} / FAISS SQfp16"] = round(taken[name] / taken["FAISS SQfp16"], 2)
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 512])
    parser.add_argument("--seconds", type=float, default=3.0)
    words = parser.parse_args()
    import faiss

    faiss.omp_set_num_threads(1)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for dim in words.dims:
            for rows in words.rows:
                name = f"{rows:,} of dim {dim}"
                figures[name] = measure(rows, dim, words.seconds, Path(folder) / f"{rows}-{dim}.mm")
    versions = [
        f"{name} {module.__version__}" for name in ("faiss", "simsimd", "numkong") if (module := optional(name))
    ]
    write("exact_search", f"drawn vectors, k {K}, one query, one thread; {', '.join(versions)}", figures)


if __name__ == "__main__":
    main()
