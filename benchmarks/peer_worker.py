"""One index in a process of its own, built or searched on command, whichever library it belongs to.

It runs in the environment of that library, which need not hold mmalign: it needs NumPy and the library alone.
`benchmarks.index_peers` starts it; orders come as lines of JSON on standard input, and each is answered by one line.

python peer_worker.py build KIND FILE OPTIONS        (OPTIONS: JSON)
python peer_worker.py search KIND FILE
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 50_000
CHECKPOINT = 250_000


def blocks(base: str, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions and float32 vectors from a row on."""
    held = np.load(base, mmap_mode="r")
    for i in range(start, len(held), BLOCK):
        part = np.asarray(held[i : i + BLOCK], np.float32)
        yield np.arange(i, i + len(part)), part


def sample(base: str, size: int) -> np.ndarray:
    """Random vectors to train on."""
    held = np.load(base, mmap_mode="r")
    chosen = np.sort(np.random.default_rng(0).choice(len(held), min(size, len(held)), replace=False))
    return np.asarray(held[chosen], np.float32)


def build_faiss(path: Path, options: dict[str, Any]) -> None:
    """A FAISS index of a factory string; what is added is kept every 250,000 rows, so that it resumes."""
    import faiss

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    partial = path.with_suffix(".partial")
    if partial.exists():
        index = faiss.read_index(str(partial))
    else:
        base = np.load(options["base"], mmap_mode="r")
        index = faiss.index_factory(base.shape[1], options["factory"], faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(sample(options["base"], options["training"]))
    for _, part in blocks(options["base"], index.ntotal):
        index.add(part)
        if index.ntotal % CHECKPOINT == 0:
            written = path.with_suffix(".writing")
            faiss.write_index(index, str(written))
            written.replace(partial)
    faiss.write_index(index, str(path.with_suffix(".writing")))
    path.with_suffix(".writing").replace(path)
    partial.unlink(missing_ok=True)


def build_autofaiss(path: Path, options: dict[str, Any]) -> None:
    """What autofaiss chooses for a memory budget, and what it says of it."""
    from autofaiss import build_index, score_index

    folder = path.with_suffix(".embeddings")
    folder.mkdir(exist_ok=True)
    for positions, part in blocks(options["base"]):
        np.save(folder / f"{positions[0]:09d}.npy", part)
    budget = f"{options['memory'] / 1e6:.0f}MB"
    index, told = build_index(
        embeddings=str(folder),
        index_path=str(path.with_suffix(".writing")),
        index_infos_path=str(path.with_suffix(".infos")),
        metric_type="ip",
        max_index_memory_usage=budget,
        current_memory_available="8GB",
        nb_cores=int(os.environ["OMP_NUM_THREADS"]),
    )
    # Its recall, as it measures it: of vectors of the index itself.
    told |= score_index(index, str(folder), save_on_disk=False, current_memory_available="8GB") or {}
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    (path.parent / "autofaiss.json").write_text(json.dumps({"budget": budget, **told}, default=str, indent=1))
    path.with_suffix(".writing").replace(path)


def build_usearch(path: Path, options: dict[str, Any]) -> None:
    """An index of usearch with its own defaults for connectivity and expansion, vectors in half precision."""
    from usearch.index import Index

    base = np.load(options["base"], mmap_mode="r")
    index = Index(ndim=base.shape[1], metric="ip", dtype="f16")
    for positions, part in blocks(options["base"]):
        index.add(positions, part, threads=int(os.environ["OMP_NUM_THREADS"]))
    index.save(str(path.with_suffix(".writing")))
    path.with_suffix(".writing").replace(path)


def build_hnswlib(path: Path, options: dict[str, Any]) -> None:
    """An index of hnswlib with its defaults, M = 16 (half the neighbours of HNSW32) and ef_construction = 200."""
    import hnswlib

    base = np.load(options["base"], mmap_mode="r")
    index = hnswlib.Index(space="ip", dim=base.shape[1])
    index.init_index(max_elements=len(base), M=16, ef_construction=200)
    for positions, part in blocks(options["base"]):
        index.add_items(part, positions, num_threads=int(os.environ["OMP_NUM_THREADS"]))
    index.save_index(str(path.with_suffix(".writing")))
    path.with_suffix(".writing").replace(path)


def build_mmalign(path: Path, options: dict[str, Any]) -> None:
    """A recipe of mmalign, by the function that a collection calls."""
    import faiss

    from mmalign.index.lifecycle.build import build_index

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    base = np.load(options["base"], mmap_mode="r")
    queries = np.load(options["queries"])
    index, used = build_index(
        options["recipe"], lambda: blocks(options["base"]), rows=len(base), dim=base.shape[1], queries=queries
    )
    if used != options["recipe"]:
        raise SystemExit(f"asked for {options['recipe']}, got {used}")
    writing = path.with_suffix(".writing")
    index.save(writing)
    writing.replace(path)


class Search:
    """An index that is searched with an effort."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        if kind == "mmalign":
            import faiss

            from mmalign.index.faiss.index import FaissIndex

            faiss.omp_set_num_threads(1)
            self.index: Any = FaissIndex.load(path, mmap=False)
        elif kind in ("faiss", "autofaiss"):
            import faiss

            faiss.omp_set_num_threads(1)
            self.space = faiss.ParameterSpace()
            self.index = faiss.read_index(str(path))
        elif kind == "usearch":
            from usearch.index import Index

            self.index = Index.restore(str(path))
        else:
            import hnswlib

            self.index = hnswlib.Index(space="ip", dim=int(os.environ["DIM"]))
            self.index.load_index(str(path))
            self.index.set_num_threads(1)

    def set(self, effort: Any) -> None:
        """Look so hard from now on: a number, or FAISS's own parameter string."""
        self.effort = effort
        if isinstance(effort, str):
            self.space.set_index_parameters(self.index, effort)
        elif self.kind == "usearch":
            self.index.expansion_search = effort
        elif self.kind == "hnswlib":
            self.index.set_ef(effort)

    def __call__(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Positions of the neighbours of each query."""
        if self.kind == "mmalign":
            return self.index.search(queries, k, effort=self.effort)[1]
        if self.kind == "usearch":
            return self.index.search(queries, k, threads=1).keys.reshape(len(queries), -1).astype(np.int64)
        if self.kind == "hnswlib":
            return self.index.knn_query(queries, k=k, num_threads=1)[0].astype(np.int64)
        return self.index.search(queries, k)[1]


def serve(search: Search) -> None:
    """Answer orders: search one file of queries with one effort, in one batch or one by one."""
    loaded: dict[str, np.ndarray] = {}
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        queries = loaded.setdefault(order["queries"], np.load(order["queries"]))[: order.get("limit")]
        search.set(order["effort"])
        search(queries[:1], order["k"])
        started, used = time.perf_counter(), time.process_time()
        if order.get("single"):
            found = np.concatenate([search(queries[i : i + 1], order["k"]) for i in range(len(queries))])
        else:
            found = search(queries, order["k"])
        took, used = time.perf_counter() - started, time.process_time() - used
        np.save(order["out"], found)
        print(json.dumps({"seconds": took, "cpu_seconds": used}), flush=True)


def main() -> None:
    what, kind, file = sys.argv[1:4]
    if what == "build":
        build = {
            "faiss": build_faiss,
            "autofaiss": build_autofaiss,
            "usearch": build_usearch,
            "hnswlib": build_hnswlib,
            "mmalign": build_mmalign,
        }[kind]
        build(Path(file), json.loads(sys.argv[4]))
    else:
        serve(Search(kind, Path(file)))


if __name__ == "__main__":
    main()
