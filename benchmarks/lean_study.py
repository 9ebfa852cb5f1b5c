"""What each part of the recipe `lean` is worth, on the first 200,000 rows of `benchmarks.vectors`.

Each variant is built anew and searched with the test sentences and the test images, one thread, in one batch; time is
that of the processor, so that other processes matter less, and the better of two passes. Told are the time at
recall@10 = 0.95 of the sentences, between the two efforts around it, how many vectors were compared at that point, and
the recall of images with the effort above it.

Variants: the plain indexes; the projection fitted to queries or to vectors alone, at several widths; more and fewer
candidates; other codes; a graph of 16 neighbours in place of lists, also built by distances and searched by inner
products, and with edges between the neighbours of 40,000 other sentences in the free places of its lowest lists (in
the spirit of RoarGraph, Chen et al. 2024, and OOD-DiskANN, Jaiswal et al. 2022).

python -m benchmarks.lean_study VECTORS [--rows ROWS]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.results import write
from mmalign.index.faiss.query_aware import fit_projection, set_projection
from mmalign.index.recall.ground_truth import Truth, exact_truth

K, TARGET = 10, 0.95
GRAPH_EFFORTS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
LISTS_EFFORTS = (4, 6, 8, 12, 16, 20, 24, 32, 48, 64, 96, 128)
IP, L2 = faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Data:
    """Vectors, queries and what is true of them."""

    base: Array
    train: Array
    queries: dict[str, Array]
    truths: dict[str, Truth]

    @classmethod
    def read(cls, folder: Path, rows: int) -> Data:
        """Read what `benchmarks.vectors` wrote."""
        base = np.load(folder / "base.npy", mmap_mode="r")[:rows].astype(np.float32)
        queries = {"text": np.load(folder / "queries-test.npy"), "image": np.load(folder / "images-test.npy")}
        truths = {
            kind: exact_truth(asked, lambda: [(np.arange(len(base)), base)], 2 * K) for kind, asked in queries.items()
        }
        return cls(base, np.load(folder / "queries-train.npy"), queries, truths)


@dataclass(frozen=True, slots=True)
class Variant:
    """A design to try.

    Attributes:
        factory: FAISS's factory string, with {width}, and {lists} for 4 times the root of the number of rows.
        width: Of the projection, or 0 for none.
        aware: Whether the projection is fitted to queries.
        k_factor: How many times k candidates are compared again.
        by_distance: Whether the graph is built by distances.
        edges: How many neighbours of each sentence are joined, 0 for none.
        construction: FAISS's efConstruction.
    """

    factory: str
    width: int = 0
    aware: bool = True
    k_factor: int = 8
    by_distance: bool = False
    edges: int = 0
    construction: int = 40


LEAN = "PCA{width},IVF{lists},PQ{width}x4fsr,Refine(SQfp16)"
GRAPH = "PCA{width},HNSW16,SQ8,Refine(SQfp16)"
VARIANTS = {
    "lean": Variant(LEAN, 64),
    "HNSW32,Flat": Variant("HNSW32,Flat"),
    "IVF,Flat": Variant("IVF{lists},Flat"),
    "lean, not told of queries": Variant(LEAN, 64, aware=False),
    "lean, 32 wide": Variant(LEAN, 32),
    "lean, 32 wide, not told of queries": Variant(LEAN, 32, aware=False),
    "lean, 48 wide": Variant(LEAN, 48),
    "lean, 96 wide": Variant(LEAN, 96),
    "lean, 4 k candidates": Variant(LEAN, 64, k_factor=4),
    "lean, 16 k candidates": Variant(LEAN, 64, k_factor=16),
    "lean, codes without their list's centre": Variant("PCA{width},IVF{lists},PQ{width}x4fs,Refine(SQfp16)", 64),
    "lean, codes of a byte": Variant("PCA{width},IVF{lists},SQ8,Refine(SQfp16)", 64),
    "graph": Variant(GRAPH, 64),
    "graph, not told of queries": Variant(GRAPH, 64, aware=False),
    "graph, built by distances": Variant(GRAPH, 64, by_distance=True),
    "graph, efConstruction 100": Variant(GRAPH, 64, construction=100),
    "graph, edges of 10 neighbours": Variant(GRAPH, 64, edges=10),
}


def core_of(index: Any) -> Any:
    """The part that searches."""
    layer = faiss.downcast_index(index)
    while isinstance(layer, faiss.IndexRefine | faiss.IndexPreTransform):
        layer = faiss.downcast_index(layer.base_index if isinstance(layer, faiss.IndexRefine) else layer.index)
    return layer


def set_metric(graph: Any, metric: int) -> None:
    """Let a graph compare by another metric."""
    graph.metric_type = graph.storage.metric_type = metric
    graph.hnsw.is_similarity = metric == IP


def build(variant: Variant, data: Data) -> Any:
    """Build a variant."""
    lists = round(4 * len(data.base) ** 0.5)
    factory = variant.factory.format(width=variant.width, lists=lists)
    index = faiss.index_factory(data.base.shape[1], factory, IP)
    chosen = np.random.default_rng(0).choice(len(data.base), min(len(data.base), 64 * lists), replace=False)
    sample = data.base[np.sort(chosen)]
    if variant.width:
        asked = data.train[:20_000] if variant.aware else None
        set_projection(faiss, index, fit_projection(sample, asked, width=variant.width))
    core = core_of(index)
    if isinstance(core, faiss.IndexHNSW):
        core.hnsw.efConstruction = variant.construction
    index.train(sample)
    if variant.by_distance:
        set_metric(core, L2)
    index.add(data.base)
    if variant.by_distance:
        set_metric(core, IP)
    if variant.edges:
        search, _ = searcher(index, variant)
        join(core, np.sort(search(data.train[-40_000:], 64, variant.edges), axis=1)[:, ::-1])
    return index


def join(graph: Any, lists: NDArray[np.int64]) -> None:
    """Join the first of each list to the others, both ways, where the lowest lists of a graph have free places."""
    rows, width = graph.ntotal, graph.hnsw.nb_neighbors(0)
    starts = faiss.vector_to_array(graph.hnsw.offsets)[:-1].astype(np.int64)
    held = faiss.rev_swig_ptr(graph.hnsw.neighbors.data(), graph.hnsw.neighbors.size())
    lowest = held[starts[:, None] + np.arange(width)]
    degree = np.count_nonzero(lowest >= 0, axis=1)
    one, other = np.repeat(lists[:, 0], lists.shape[1] - 1), lists[:, 1:].ravel()
    known = (one >= 0) & (other >= 0)
    pairs = np.concatenate([one[known] * rows + other[known], other[known] * rows + one[known]])
    pairs, count = np.unique(pairs, return_counts=True)
    there = np.repeat(np.arange(rows), degree) * rows + lowest[lowest >= 0]
    new = ~np.isin(pairs, there)
    pairs, count = pairs[new], count[new]
    # What many sentences ask for comes first.
    order = np.lexsort((-count, pairs // rows))
    source, target = pairs[order] // rows, pairs[order] % rows
    rank = np.arange(len(source)) - np.searchsorted(source, source)
    fits = rank < (width - degree)[source]
    source, target, rank = source[fits], target[fits], rank[fits]
    held[starts[source] + degree[source] + rank] = target


def searcher(index: Any, variant: Variant) -> tuple[Callable[[Array, int, int], NDArray[np.int64]], tuple[int, ...]]:
    """What searches with an effort, and the efforts to try."""
    graph = isinstance(core_of(index), faiss.IndexHNSW)

    def search(queries: Array, effort: int, k: int = K) -> NDArray[np.int64]:
        inner: Any = faiss.SearchParametersHNSW(efSearch=effort) if graph else faiss.SearchParametersIVF(nprobe=effort)
        if variant.width:
            inner = faiss.SearchParametersPreTransform(index_params=inner)
            inner = faiss.IndexRefineSearchParameters(k_factor=variant.k_factor, base_index_params=inner)
        return np.asarray(index.search(queries, k, params=inner)[1])

    return search, GRAPH_EFFORTS if graph else LISTS_EFFORTS


def measure(variant: Variant, data: Data) -> dict[str, Any]:
    """All figures of a variant."""
    started = time.process_time()
    index = build(variant, data)
    took = time.process_time() - started
    search, efforts = searcher(index, variant)
    before: tuple[float, float, float] | None = None
    row: dict[str, Any] = {"build_cpu_s": round(took, 1)}
    for effort in efforts:
        times = []
        for _ in range(2):
            for stats in (faiss.cvar.hnsw_stats, faiss.cvar.indexIVF_stats):
                stats.reset()
            started = time.process_time()
            found = search(data.queries["text"], effort)
            times.append((time.process_time() - started) / len(found) * 1e6)
        compared = (faiss.cvar.hnsw_stats.ndis + faiss.cvar.indexIVF_stats.ndis) / len(found)
        now = (float(data.truths["text"].recall(found, K).mean()), min(times), compared)
        row["highest_recall"] = round(now[0], 4)
        if now[0] >= TARGET:
            if before is not None:
                share = (TARGET - before[0]) / (now[0] - before[0])
                now = tuple(a + share * (b - a) for a, b in zip(before, now, strict=True))  # type: ignore[assignment]
            images = data.truths["image"].recall(search(data.queries["image"], effort), K).mean()
            row |= {
                "cpu_us_a_query": round(now[1], 1),
                "compared": round(now[2]),
                "recall_of_images": round(float(images), 4),
            }
            break
        before = now
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lean_study", description=__doc__)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", nargs="*", help="names of variants")
    options = parser.parse_args(arguments)
    faiss.omp_set_num_threads(1)
    data = Data.read(options.vectors, options.rows)
    rows: dict[str, Any] = {}
    for name, variant in VARIANTS.items():
        if not options.only or name in options.only:
            rows[name] = measure(variant, data)
            print(name, rows[name], flush=True)
    write(
        "lean_study",
        f"{len(data.base):,} x {data.base.shape[1]} of benchmarks.vectors, {len(data.queries['text']):,} test "
        f"sentences, recall@{K} = {TARGET}, one thread, processor time; lean is "
        f"{LEAN.format(width=64, lists='')} with {K * 8} candidates",
        rows,
    )


if __name__ == "__main__":
    main()
