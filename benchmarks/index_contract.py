"""Whether the recall that an index promises is kept: randomised collections, filters, changes and fresh queries.

Each case draws a collection (2,000 to 200,000 vectors, width, how clustered they are), queries of the vectors' own kind
or of another (texts lie apart from pictures), a recipe, a promise and a filter, spread evenly or along the clusters. A
third of the cases adds and deletes 5% after the build. The index is measured with 320 queries when it is built, and the
truth is that of 500 others. One line of JSON a case: the same call goes on where it was stopped.

python -m benchmarks.index_contract WORK_FOLDER [--cases 50] [--largest 200000] [--timing] [--summary]

`--timing` also times each search against exact search over the same rows; only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import write
from mmalign.collection.collection import Collection
from mmalign.search.searcher import FoundRows, Searcher
from mmalign.utils.similarity import Float32Array, l2_normalize

RECIPES = ("hnsw", "ivf-flat", "ivf-pq", "sq8", "lean")
SHARES = (1.0, 0.5, 0.1, 0.01, 0.001)
PROMISES = (0.9, 0.95, 0.98)
MEASURED, FRESH, K = 320, 500, 10
LARGE = 50_000
# Vectors times width of a collection, so that fifty of them are built in minutes.
_MOST_NUMBERS = 8_000_000
_TIMED = 30


@dataclass(frozen=True)
class Case:
    """One collection and one way to search it."""

    seed: int
    rows: int
    dim: int
    clusters: int
    spread: float
    apart: bool
    recipe: str
    promise: float
    share: float
    along_clusters: bool
    changed: bool


def draw(seed: int, *, largest: int = 200_000) -> Case:
    """Draw a case; a third of fifty has more than 50,000 rows where these may have 200,000."""
    rng = np.random.default_rng([seed, 4])
    rows = round(float(np.exp(rng.uniform(np.log(min(2000, largest)), np.log(largest)))))
    widths = [dim for dim in (16, 32, 64, 128, 256, 512) if rows * dim <= _MOST_NUMBERS] or [16]
    return Case(
        seed=seed,
        rows=rows,
        dim=int(rng.choice(widths)),
        clusters=int(rng.choice([1, 20, 200])),
        spread=float(rng.uniform(0.4, 1.2)),
        apart=bool(rng.random() < 0.5),
        # In turn, so that each comes with each share.
        recipe=RECIPES[seed % len(RECIPES)],
        promise=float(rng.choice(PROMISES)),
        share=SHARES[seed // len(RECIPES) % len(SHARES)],
        along_clusters=bool(rng.random() < 0.5),
        changed=seed % 3 == 2,
    )


class World:
    """Where a case's vectors and queries come from: clusters in a subspace, as embeddings lie, and noise."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.rng = np.random.default_rng([case.seed, 5])
        inner = max(8, case.dim // 4)
        self.axes = self.rng.normal(size=(inner, case.dim)) / np.sqrt(inner)
        self.centres = self.rng.normal(size=(case.clusters, inner))
        # Texts lie apart from pictures, and vary along other directions.
        self.gap = l2_normalize(self.rng.normal(size=(1, case.dim))) * np.sqrt(case.dim)
        self.turn = np.eye(inner) + 0.3 * self.rng.normal(size=(inner, inner)) / np.sqrt(inner)

    def vectors(self, count: int) -> tuple[Float32Array, NDArray[np.int64]]:
        """Vectors of the collection, and the cluster of each."""
        cluster = self.rng.integers(self.case.clusters, size=count)
        inner = self.centres[cluster] + self.case.spread * self.rng.normal(size=(count, self.centres.shape[1]))
        found = inner @ self.axes + 0.1 * self.rng.normal(size=(count, self.case.dim))
        return l2_normalize(found), cluster

    def queries(self, count: int) -> Float32Array:
        """Queries, independent of one another."""
        if not self.case.apart:
            return self.vectors(count)[0]
        cluster = self.rng.integers(self.case.clusters, size=count)
        inner = self.centres[cluster] + self.case.spread * self.rng.normal(size=(count, self.centres.shape[1]))
        found = inner @ self.turn @ self.axes + 0.5 * self.rng.normal(size=(count, self.case.dim)) + 0.7 * self.gap
        return l2_normalize(found)


def run(case: Case, folder: Path, *, timing: bool = False) -> dict[str, Any]:
    """Build, change and search a collection.

    Args:
        case: The case.
        folder: Where the collection is made.
        timing: Whether to time the searches too.

    Returns:
        JSON-ready figures: the case's, the true recall and how it was searched.
    """
    world = World(case)
    started = time.perf_counter()
    collection = Collection.create(folder / "case.mm", encoder=None, dim=case.dim)
    vectors, cluster = world.vectors(case.rows)
    _add(collection, vectors, cluster, case, first=0)
    collection.build_index(case.recipe, min_recall=case.promise, queries=world.queries(MEASURED), progress=False)
    built = time.perf_counter() - started
    if case.changed:
        some = max(1, case.rows // 20)
        _add(collection, *world.vectors(some), case, first=case.rows)
        collection.remove(where=f"place % 20 = {case.seed % 20}")
    searcher = collection._current().searcher()
    column = "along" if case.along_clusters else "anywhere"
    allowed = None if case.share == 1 else searcher.store.row_ids(where=f"{column} < {case.share}")
    queries = world.queries(FRESH)
    found = searcher.search(queries, K, allowed=allowed, min_recall=case.promise, kinds=("given",))
    told = asdict(case) | {
        "items": searcher.items,
        "allowed": searcher.items if allowed is None else len(allowed),
        "recall": round(true_recall(searcher, queries, found, allowed), 5),
        "exact": found.exact,
        "fell_back": bool(found.notes),
        "effort": found.effort,
        "reason": found.reason,
        "build_s": round(built, 2),
    }
    return told | (time_search(searcher, queries, allowed, case) if timing else {})


def _add(collection: Collection, vectors: Float32Array, cluster: NDArray[np.int64], case: Case, *, first: int) -> None:
    rng = np.random.default_rng([case.seed, 6, first])
    # Along the clusters: a share lets whole clusters through, and the last one in part.
    along = (np.random.default_rng([case.seed, 7]).permutation(case.clusters)[cluster] + rng.random(len(vectors))) / (
        case.clusters
    )
    collection.add_embeddings(
        [f"v{first + i}" for i in range(len(vectors))],
        vectors,
        metadata={
            "place": list(range(first, first + len(vectors))),
            "anywhere": rng.random(len(vectors)).tolist(),
            "along": along.tolist(),
        },
    )


def true_recall(
    searcher: Searcher, queries: Float32Array, found: FoundRows, allowed: NDArray[np.int64] | None
) -> float:
    """Mean share of the true nearest that were found; whatever scores as high as the last of them counts as one."""
    ids, vectors = searcher.store.embeddings()
    if allowed is not None:
        chosen = np.isin(ids, allowed)
        ids, vectors = ids[chosen], vectors[chosen]
    k = min(K, len(ids))
    if not k:
        return 1.0
    held = vectors.astype(np.float32)
    values = []
    order = np.argsort(ids)
    for start in range(0, len(queries), 50):
        scores = queries[start : start + 50] @ held.T
        least = np.partition(scores, len(ids) - k, axis=1)[:, len(ids) - k]
        for own, bound, rows in zip(scores, least, found.row_ids[start : start + 50], strict=True):
            rows = np.unique(rows[rows >= 0])
            places = order[np.searchsorted(ids, rows, sorter=order)]
            # A hit that may not be found is an error, not a miss.
            if not (ids[places] == rows).all():
                raise AssertionError("a search returned a row that its filter leaves out")
            values.append(np.count_nonzero(own[places] >= bound - 1e-6) / k)
    return float(np.mean(values))


def time_search(
    searcher: Searcher, queries: Float32Array, allowed: NDArray[np.int64] | None, case: Case
) -> dict[str, float]:
    """Time single queries as promised and exactly, in turns; medians in milliseconds."""
    taken: dict[str, list[float]] = {"promised": [], "exact": []}
    for i in range(_TIMED + 3):
        for name, least in (("promised", case.promise), ("exact", 1.0)):
            started = time.perf_counter()
            searcher.search(queries[i : i + 1], K, allowed=allowed, min_recall=least, kinds=("given",))
            if i >= 3:
                taken[name].append(1000 * (time.perf_counter() - started))
    promised, exact = (statistics.median(taken[name]) for name in ("promised", "exact"))
    return {"ms": round(promised, 4), "exact_ms": round(exact, 4), "exact_over_promised": round(exact / promised, 3)}


def summarise(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all cases."""
    kept = [case for case in cases if case["recall"] >= case["promise"]]
    missed = [case for case in cases if case["recall"] < case["promise"]]
    large = [case for case in cases if case["rows"] > LARGE]
    by_index = [case for case in cases if not case["exact"]]
    ratios = [case["exact_over_promised"] for case in large if "exact_over_promised" in case and not case["exact"]]
    figures: dict[str, Any] = {
        "cases": len(cases),
        "promise_kept": f"{len(kept)} of {len(cases)}",
        "promise_kept_share": round(len(kept) / max(1, len(cases)), 3),
        "answered_by_the_index": len(by_index),
        "of_these_kept": sum(case["recall"] >= case["promise"] for case in by_index),
        "missed": "; ".join(
            f"seed {case['seed']}: {case['recall']:.3f} of {case['promise']:g}, {case['recipe']}, {case['rows']:,} x "
            f"{case['dim']}, filter {case['share']:g}{' along clusters' if case['along_clusters'] else ''}"
            for case in missed
        )
        or "none",
        "cases_above_50000_rows": len(large),
        "of_these_fell_back_to_exact": sum(case["fell_back"] for case in large),
        "of_these_exact_since_few_rows_or_cheaper": sum(case["exact"] and not case["fell_back"] for case in large),
        "of_these_by_the_index": sum(not case["exact"] for case in large),
    }
    if large:
        figures["fallback_share_above_50000_rows"] = round(figures["of_these_fell_back_to_exact"] / len(large), 3)
    if ratios:
        figures |= {
            "exact_over_index_time_median": round(statistics.median(ratios), 2),
            "exact_over_index_time_least": min(ratios),
            "slower_than_exact": sum(ratio < 1 for ratio in ratios),
        }
    return figures


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--largest", type=int, default=200_000)
    parser.add_argument("--timing", action="store_true")
    parser.add_argument("--summary", action="store_true", help="write the figures into benchmarks/results")
    asked = parser.parse_args(words)
    asked.work.mkdir(parents=True, exist_ok=True)
    log = asked.work / "cases.jsonl"
    done = {case["seed"]: case for case in map(json.loads, log.read_text().splitlines())} if log.exists() else {}
    cases = [draw(seed, largest=asked.largest) for seed in range(asked.cases)]
    # Small ones first, so that a run that is stopped has most of them.
    for case in sorted(cases, key=lambda case: case.rows * case.dim):
        seed = case.seed
        known = done.get(seed)
        if known is not None and asdict(case).items() <= known.items() and (not asked.timing or "ms" in known):
            continue
        with tempfile.TemporaryDirectory(dir=asked.work) as folder:
            done[seed] = run(case, Path(folder), timing=asked.timing)
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(done[seed]) + "\n")
        print(json.dumps(done[seed]), flush=True)
    figures = summarise([done[seed] for seed in range(asked.cases)])
    if asked.summary:
        write("index_contract", f"{asked.cases} randomised collections, {FRESH} fresh queries each", figures)
    else:
        print(json.dumps(figures, indent=2))
    return figures


if __name__ == "__main__":
    main()
