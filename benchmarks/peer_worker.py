"""One index in a process of its own, built or searched on command, whichever library it belongs to.

It runs in the environment of that library, which need not hold mmalign: it needs NumPy and the library alone.
`benchmarks.index_peers` starts it; orders come as lines of JSON on standard input, and each is answered by one line.

python peer_worker.py probe KIND                     (says the version, or why the library cannot be had)
python peer_worker.py build KIND FILE OPTIONS        (OPTIONS: JSON)
python peer_worker.py search KIND FILE
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# What is imported for a kind, and the distribution whose version is told.
LIBRARIES = {
    "mmalign": ("mmalign.index.faiss.index", "mmalign"),
    "faiss": ("faiss", "faiss-cpu"),
    "autofaiss": ("autofaiss", "autofaiss"),
    "hnswlib": ("hnswlib", "hnswlib"),
    "usearch": ("usearch.index", "usearch"),
    "scann": ("scann", "scann"),
    "ngt": ("ngtpy", "ngt"),
    "vsag": ("pyvsag", "pyvsag"),
}
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


def array(base: str) -> np.ndarray:
    """All vectors, for the libraries that want them at once."""
    return np.concatenate([part for _, part in blocks(base)])


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
        if "construction" in options:
            faiss.downcast_index(index).hnsw.efConstruction = options["construction"]
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
    """An index of usearch, vectors in half precision."""
    from usearch.index import Index

    dim = np.load(options["base"], mmap_mode="r").shape[1]
    index = Index(
        ndim=dim,
        metric="ip",
        dtype="f16",
        connectivity=options["connectivity"],
        expansion_add=options["construction"],
    )
    for positions, part in blocks(options["base"]):
        index.add(positions, part, threads=int(os.environ["OMP_NUM_THREADS"]))
    index.save(str(path.with_suffix(".writing")))
    path.with_suffix(".writing").replace(path)


def build_hnswlib(path: Path, options: dict[str, Any]) -> None:
    """An index of hnswlib; FAISS's HNSW32 has as many neighbours as its M = 32."""
    import hnswlib

    base = np.load(options["base"], mmap_mode="r")
    index = hnswlib.Index(space="ip", dim=base.shape[1])
    index.init_index(max_elements=len(base), M=options["neighbours"], ef_construction=options["construction"])
    for positions, part in blocks(options["base"]):
        index.add_items(part, positions, num_threads=int(os.environ["OMP_NUM_THREADS"]))
    index.save_index(str(path.with_suffix(".writing")))
    path.with_suffix(".writing").replace(path)


def build_scann(path: Path, options: dict[str, Any]) -> None:
    """A tree of ScaNN with anisotropic codes of half a byte for two dimensions, candidates compared again in bfloat16.

    Its makers recommend this for inner products; `soar` puts each vector into a second list.
    """
    import scann

    soar = {"soar_lambda": options["soar"], "overretrieve_factor": 2.0} if options.get("soar") else {}
    searcher = (
        scann.scann_ops_pybind.builder(array(options["base"]), 10, "dot_product")
        .set_n_training_threads(int(os.environ["OMP_NUM_THREADS"]))
        .tree(
            num_leaves=options["lists"],
            num_leaves_to_search=20,
            training_sample_size=options["training"],
            **soar,
        )
        .score_ah(2, anisotropic_quantization_threshold=0.2)
        .reorder(100, quantize=scann.ReorderType.BFLOAT16)
        .build()
    )
    writing = path.with_suffix(".writing")
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir()
    searcher.serialize(str(writing), relative_path=True)
    writing.replace(path)


def build_ngt(path: Path, options: dict[str, Any]) -> None:
    """A graph of NGT with its edges optimised (ONNG), as its pages recommend; L2 orders vectors of length 1 alike."""
    import ngtpy

    anng, writing = path.with_suffix(".anng"), path.with_suffix(".writing")
    for folder in (anng, writing):
        shutil.rmtree(folder, ignore_errors=True)
    dim = np.load(options["base"], mmap_mode="r").shape[1]
    ngtpy.create(str(anng), dim, edge_size_for_creation=100, edge_size_for_search=0, distance_type="Normalized L2")
    index = ngtpy.Index(str(anng), log_disabled=True)
    index.batch_insert(array(options["base"]), num_threads=int(os.environ["OMP_NUM_THREADS"]))
    index.save()
    index.close()
    optimizer = ngtpy.Optimizer(num_of_outgoings=10, num_of_incomings=120, log_disabled=True)
    # The other steps tune for its own measure of accuracy, which nothing here asks for, and take minutes.
    optimizer.set_processing_modes(
        search_parameter_optimization=False, prefetch_parameter_optimization=False, accuracy_table_generation=False
    )
    optimizer.execute(str(anng), str(writing))
    writing.replace(path)
    shutil.rmtree(anng)


def vsag_parameters(dim: int) -> str:
    """A graph over bytes, the best compared again in float16; vsag wants the same to load as to build."""
    inner = {
        "base_quantization_type": "sq8_uniform",
        "use_reorder": True,
        "precise_quantization_type": "fp16",
        "max_degree": 32,
        "ef_construction": 200,
        "build_thread_count": 1,
    }
    return json.dumps({"dtype": "float32", "metric_type": "ip", "dim": dim, "index_param": inner})


def build_vsag(path: Path, options: dict[str, Any]) -> None:
    """The index HGraph of vsag."""
    import pyvsag

    pyvsag.set_logger_off()
    rows, dim = np.load(options["base"], mmap_mode="r").shape
    index = pyvsag.Index("hgraph", vsag_parameters(dim))
    index.build(array(options["base"]).ravel(), np.arange(rows), rows, dim)
    index.save(str(path.with_suffix(".writing")))
    path.with_suffix(".writing").replace(path)


def build_mmalign(path: Path, options: dict[str, Any]) -> None:
    """A recipe of mmalign, by the function that a collection calls."""
    import faiss

    from mmalign.index.lifecycle.build import build_index

    faiss.omp_set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    base = np.load(options["base"], mmap_mode="r")
    queries = np.load(options["queries"]) if options["told"] else None
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
        self.empty = resident()
        if kind == "mmalign":
            import faiss

            from mmalign.index.faiss.index import FaissIndex

            faiss.omp_set_num_threads(1)
            self.empty = resident()
            self.index: Any = FaissIndex.load(path, mmap=False)
        elif kind in ("faiss", "autofaiss"):
            import faiss

            faiss.omp_set_num_threads(1)
            self.space = faiss.ParameterSpace()
            self.empty = resident()
            self.index = faiss.read_index(str(path))
        elif kind == "usearch":
            from usearch.index import Index

            self.empty = resident()
            self.index = Index.restore(str(path))
        elif kind == "scann":
            import scann

            self.empty = resident()
            self.index = scann.scann_ops_pybind.load_searcher(str(path))
        elif kind == "ngt":
            import ngtpy

            self.empty = resident()
            self.index = ngtpy.Index(str(path), read_only=True, log_disabled=True)
        elif kind == "vsag":
            import pyvsag

            pyvsag.set_logger_off()
            self.empty = resident()
            self.index = pyvsag.Index("hgraph", vsag_parameters(int(os.environ["DIM"])))
            self.index.load(str(path))
        else:
            import hnswlib

            self.empty = resident()
            self.index = hnswlib.Index(space="ip", dim=int(os.environ["DIM"]))
            self.index.load_index(str(path))
            self.index.set_num_threads(1)
        # autofaiss names the parameters that it chose; the first of them is the effort.
        told = path.with_name("autofaiss.json")
        self.chosen = str(json.loads(told.read_text())["index_param"]) if kind == "autofaiss" else ""

    def set(self, effort: int, width: int, template: str) -> None:
        """Look so hard from now on, and compare so many candidates again."""
        self.effort, self.width = effort, width
        if self.kind == "faiss":
            self.space.set_index_parameters(self.index, template.format(effort=effort, width=width))
        elif self.kind == "autofaiss":
            self.space.set_index_parameters(
                self.index, re.sub(r"(nprobe|efSearch)=\d+", rf"\1={effort}", self.chosen, count=1)
            )
        elif self.kind == "usearch":
            self.index.expansion_search = effort
        elif self.kind == "hnswlib":
            self.index.set_ef(effort)
        elif self.kind == "vsag":
            self.parameters = json.dumps({"hgraph": {"ef_search": effort}})

    def __call__(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Positions of the neighbours of each query."""
        if self.kind == "mmalign":
            return self.index.search(queries, k, effort=self.effort)[1]
        if self.kind == "usearch":
            return self.index.search(queries, k, threads=1).keys.reshape(len(queries), -1).astype(np.int64)
        if self.kind == "hnswlib":
            return self.index.knn_query(queries, k=k, num_threads=1)[0].astype(np.int64)
        if self.kind == "scann":
            return self._scann(queries, k)
        if self.kind == "ngt":
            # Efforts are whole numbers, and its epsilon is a share that may be negative.
            epsilon = (self.effort - 100) / 500
            return filled(
                [self.index.search(query, size=k, epsilon=epsilon, with_distance=False) for query in queries], k
            )
        if self.kind == "vsag":
            return filled([self.index.knn_search(query, k, self.parameters)[0] for query in queries], k)
        return self.index.search(queries, k)[1]

    def _scann(self, queries: np.ndarray, k: int) -> np.ndarray:
        if len(queries) == 1:
            return filled([self.index.search(queries[0], k, self.width, self.effort)[0]], k)
        found, _ = self.index.search_batched(
            queries, final_num_neighbors=k, pre_reorder_num_neighbors=self.width, leaves_to_search=self.effort
        )
        return found.astype(np.int64)


def filled(found: list[Any], k: int) -> np.ndarray:
    """Lists of positions as one array, -1 where there are fewer."""
    out = np.full((len(found), k), -1, np.int64)
    for i, row in enumerate(found):
        out[i, : len(row)] = row
    return out


def resident() -> int:
    """Bytes of memory that this process holds, or 0 where the system does not say."""
    told = Path("/proc/self/statm")
    return int(told.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if told.exists() else 0


def serve(kind: str, path: Path) -> None:
    """Answer orders: search one file of queries with one effort, in one batch or one by one, for some time at least."""
    # Some libraries say what they do on standard output, where the answers go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    search = Search(kind, path)
    loaded: dict[str, np.ndarray] = {}
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        queries = loaded.setdefault(order["queries"], np.load(order["queries"]))[: order.get("limit")]
        k, passes, used = order["k"], 0, 0.0
        search.set(order["effort"], order["width"], order["template"])
        search(queries[:1], k)
        started, before = time.perf_counter(), time.process_time()
        while not passes or used < order.get("least_s", 0):
            if order.get("single"):
                found = np.concatenate([search(queries[i : i + 1], k) for i in range(len(queries))])
            else:
                found = search(queries, k)
            passes, used = passes + 1, time.process_time() - before
        took = time.perf_counter() - started
        if "out" in order:
            np.save(order["out"], found)
        told = {"queries": passes * len(queries), "seconds": took, "cpu_seconds": used}
        print(json.dumps(told | {"resident": resident() - search.empty}), file=answers, flush=True)


def probe(kind: str) -> dict[str, str]:
    """The version of a library, or why it cannot be had."""
    module, distribution = LIBRARIES[kind]
    try:
        held = importlib.import_module(module)
    except ImportError as error:
        return {"missing": " ".join(str(error).split())}
    try:
        return {"version": f"{distribution} {importlib.metadata.version(distribution)}"}
    except importlib.metadata.PackageNotFoundError:
        # The same module under another name, such as faiss-gpu.
        return {"version": f"{module} {getattr(held, '__version__', '')}".strip()}


def main() -> None:
    what, kind = sys.argv[1:3]
    if what == "probe":
        print(json.dumps(probe(kind)))
    elif what == "build":
        path = Path(sys.argv[3])
        build = {
            "faiss": build_faiss,
            "autofaiss": build_autofaiss,
            "usearch": build_usearch,
            "hnswlib": build_hnswlib,
            "scann": build_scann,
            "ngt": build_ngt,
            "vsag": build_vsag,
            "mmalign": build_mmalign,
        }[kind]
        importlib.import_module(LIBRARIES[kind][0])
        started, used = time.perf_counter(), time.process_time()
        build(path, json.loads(sys.argv[4]))
        took = {"build_s": time.perf_counter() - started, "build_cpu_s": time.process_time() - used}
        path.with_suffix(".build.json").write_text(
            json.dumps({name: round(seconds, 1) for name, seconds in took.items()} | probe(kind))
        )
    else:
        serve(kind, Path(sys.argv[3]))


if __name__ == "__main__":
    main()
