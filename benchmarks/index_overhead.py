"""What `Collection.search` costs beyond the bare FAISS call on the same index: one query, and batches of 1,000.

Both take turns, with the same vectors, effort and threads; what is told is the median of the differences of each pair.
The bare call gets vectors of length 1, ready made; `Collection.search` gets the same array, or a list of its rows, and
returns results.
Hits are made when they are looked at, so the cost of looking at each of them is told beside.

python -m benchmarks.index_overhead build FOLDER [--rows 100000]
python -m benchmarks.index_overhead time FOLDER [--pairs 40] [--threads 2]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import write
from mmalign import Collection
from mmalign.utils.similarity import l2_normalize

DIM, K, BATCH, SINGLES = 384, 10, 1_000, 25
RECIPE = "hnsw"
# The vectors: clusters in a subspace, as embeddings have them; the queries are drawn in the same way.
CLUSTERS, INNER = 500, 64


def draw(rows: int, *, seed: int) -> NDArray[np.float32]:
    common, own = np.random.default_rng(0), np.random.default_rng(seed)
    centres = common.standard_normal((CLUSTERS, INNER), dtype=np.float32)
    out = common.standard_normal((INNER, DIM), dtype=np.float32)
    inner = centres[own.integers(0, CLUSTERS, rows)] + own.standard_normal((rows, INNER), dtype=np.float32)
    return l2_normalize(inner @ out)


def build(folder: Path, rows: int) -> None:
    """Make the collection, or go on where an earlier call was stopped."""
    collection = Collection.open(folder) if folder.exists() else Collection.create(folder, encoder=None, dim=DIM)
    step = 20_000
    for start in range(len(collection) // step * step, rows, step):
        chosen = range(start, min(rows, start + step))
        collection.add_embeddings(
            [f"{i:016x}" for i in chosen],
            draw(len(chosen), seed=1 + start),
            uris=[f"/pictures/{i % 1000:03d}/{i:08d}.jpg" for i in chosen],
            metadata={"year": [1990 + i % 35 for i in chosen]},
        )
    collection.refresh_index(RECIPE)
    print(f"{folder}: {len(collection):,} items, index {collection.index_manifest}")


def differences(
    first: Callable[[], Any], second: Callable[[], Any], pairs: int, repeat: int = 1
) -> tuple[list[float], list[float]]:
    """Seconds of a call of `first`, and how much longer `second` took right beside it."""
    bare, more = [], []
    for pair in range(pairs + 2):
        taken = {}
        # Who goes first takes turns too.
        for call in (first, second) if pair % 2 else (second, first):
            started = time.perf_counter()
            for _ in range(repeat):
                call()
            taken[call] = (time.perf_counter() - started) / repeat
        # The first pairs only warm up.
        if pair > 1:
            bare.append(taken[first])
            more.append(taken[second] - taken[first])
    return bare, more


def measure(folder: Path, pairs: int, threads: int) -> None:
    import faiss

    faiss.omp_set_num_threads(threads)
    collection = Collection.open(folder)
    queries = draw(BATCH, seed=999_999_999)
    asked = list(queries)
    first = [collection.search(queries, k=K) for _ in range(2)][-1]
    manifest = collection.index_manifest
    assert manifest is not None
    assert first[0].effort is not None, "the index was not used"
    index = faiss.read_index(
        str(collection._current().index / manifest.version / "index.faiss"), faiss.IO_FLAG_MMAP_IFC
    )
    parameters = faiss.SearchParametersHNSW(efSearch=first[0].effort)
    ids = np.array([hit.score for hit in first[7]])
    np.testing.assert_allclose(ids, index.search(queries[7:8], K, params=parameters)[0][0], atol=1e-5)

    calls: dict[str, tuple[Callable[[], Any], Callable[[], Any], int]] = {
        "batch of 1,000": (
            lambda: index.search(queries, K, params=parameters),
            lambda: collection.search(queries, k=K),
            1,
        ),
        "batch of 1,000, as a list": (
            lambda: index.search(queries, K, params=parameters),
            lambda: collection.search(asked, k=K),
            1,
        ),
        "batch of 1,000, every hit looked at": (
            lambda: index.search(queries, K, params=parameters),
            lambda: [one.hits for one in collection.search(queries, k=K)],
            1,
        ),
        "one query": (
            lambda: index.search(queries[:1], K, params=parameters),
            lambda: collection.search(asked[0], k=K),
            SINGLES,
        ),
        "one query, every hit looked at": (
            lambda: index.search(queries[:1], K, params=parameters),
            lambda: collection.search(asked[0], k=K).hits,
            SINGLES,
        ),
    }
    figures: dict[str, Any] = {}
    for name, (bare_call, call, repeat) in calls.items():
        bare, more = differences(bare_call, call, pairs, repeat)
        low, middle, high = np.quantile(more, [0.25, 0.5, 0.75])
        typical = statistics.median(bare)
        figures[name] = {
            "bare FAISS ms": round(1e3 * typical, 3),
            "beyond it ms": round(1e3 * middle, 3),
            "quartiles ms": f"{1e3 * low:.3f} to {1e3 * high:.3f}",
            "beyond it %": round(100 * middle / typical, 1),
        }
    write(
        "index_overhead",
        f"{len(collection):,} drawn vectors of dim {DIM}, recipe {RECIPE}, effort {first[0].effort}, k {K}, "
        f"{threads} threads, {pairs} pairs in turn, median of their differences",
        figures,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["build", "time"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    words = parser.parse_args()
    if words.step == "build":
        build(words.folder, words.rows)
    else:
        measure(words.folder, words.pairs, words.threads)


if __name__ == "__main__":
    main()
