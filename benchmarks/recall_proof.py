"""Whether the recall that an index promises is kept: real and made-up collections, fresh queries of every kind.

Each collection has an index, built and measured by the library. It is then asked with queries from sources that the
measuring never saw: of each kind at three promises; under a filter that lets half of the items through, the half where
the query lies, or the other one; and all once more after a topic was removed and as many items of the same family were
added. A case is one collection, state, filter, kind and promise. Each is compared with the exact answer by NumPy.

python -m benchmarks.recall_proof DATA WORK [--rows 60000] [--queries 200] [--family NAME ...] [--summary]

DATA is the folder of shared data, WORK where embeddings and finished cases are kept: the same call goes on where it was
stopped. Needs wordfreq, which this benchmark and `query_kinds` alone ask for: pip install wordfreq
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recall_proof_sources import FAMILIES, Array, Family, unit
from benchmarks.results import write
from mmalign.collection import Collection
from mmalign.index import lower_bound
from mmalign.search import Query

PROMISES = (0.9, 0.95, 0.98)
# Of the families, in the order of their names in FAMILIES; the last design is one of more lists and no codes.
RECIPES = {
    "lite2": ("hnsw", "lean", "ivf-flat", "ivf-pq"),
    "lite1": ("hnsw", "lean", "ivf-flat"),
    "minilm": ("hnsw", "lean", "ivf-flat"),
    "efficientnet": ("hnsw", "lean", "ivf-flat", "ivf-pq"),
    "inner30": ("hnsw", "lean", "ivf-flat"),
    "inner100": ("hnsw", "lean", "ivf-flat"),
}
K, CAPTIONED, HALVES, SEED = 10, 600, 4, 77
# What is removed and what is added, as a share of the rows.
CHANGED = 0.1


class Asked:
    """The queries of a family: what is given to the library, and their vectors."""

    def __init__(self, family: Family) -> None:
        self.given: dict[str, Any] = {}
        self.vectors: dict[str, Array] = {}
        for kind, some in family.asked.items():
            if isinstance(some, np.ndarray):
                self.given[kind] = self.vectors[kind] = some
            else:
                encoder = family.encoder
                assert encoder is not None
                dim = family.rows.shape[1]
                self.given[kind] = some
                self.vectors[kind] = np.stack([Query(text).embed(lambda e=encoder: e, dim=dim)[0] for text in some])


def sides(rows: Array, planes: Array, middles: NDArray[np.float32]) -> NDArray[np.bool_]:
    """On which side of each plane rows lie, shape (n, planes)."""
    return np.asarray(rows @ planes.T > middles)


class Case:
    """A collection of a family with an index of a recipe."""

    def __init__(self, family: Family, recipe: str, folder: Path, captions: list[str]) -> None:
        self.family, self.recipe = family, recipe
        rng = np.random.default_rng(SEED)
        # The last tenth comes later.
        self.rows = int(len(family.rows) / (1 + CHANGED))
        self.planes = unit(family.rows[rng.integers(self.rows, size=HALVES)] - family.rows.mean(axis=0))
        self.middles = np.median(family.rows[: self.rows] @ self.planes.T, axis=0)
        self.topic = family.rows[int(rng.integers(self.rows))]
        made = family.encoder
        self.collection = Collection.create(
            folder / "case.mm", encoder=made, dim=None if made else family.rows.shape[1]
        )
        some = [[text] for text in captions[:CAPTIONED]] if made and "image" in made.modalities else []
        self.add(0, self.rows, captions=some)
        started = time.perf_counter()
        self.collection.build_index(recipe, queries=family.measured, progress=False)
        self.seconds = time.perf_counter() - started

    def add(self, start: int, stop: int, captions: list[list[str]]) -> None:
        """Add rows of the family, the first of them with captions."""
        rows = self.family.rows[start:stop]
        own = sides(rows, self.planes, self.middles)
        filled = {"captions": [*captions, *[None] * (len(rows) - len(captions))]} if captions else {}
        self.collection.add_embeddings(
            [f"v{i}" for i in range(start, stop)],
            rows,
            metadata={
                **{f"side{at}": own[:, at].tolist() for at in range(HALVES)},
                "near": (rows @ self.topic).astype(float).tolist(),
            },
            **filled,
        )

    def change(self) -> None:
        """Remove the tenth that is nearest to an item, and add as many that were not there."""
        cut = float(np.quantile(self.family.rows[: self.rows] @ self.topic, 1 - CHANGED))
        self.collection.remove(where=f"near > {cut:.6f}")
        self.add(self.rows, len(self.family.rows), [])

    def ask(self, state: str, asked: Asked) -> Iterator[dict[str, Any]]:
        """Figures of each case."""
        ids, vectors = self.collection.embeddings()
        places = {name: at for at, name in enumerate(ids)}
        vectors = unit(vectors)
        # Of the rows as they were given: what is kept as float16 may lie on the other side.
        own = sides(self.family.rows, self.planes, self.middles)[[int(name[1:]) for name in ids]]
        for kind, given in asked.given.items():
            queries = asked.vectors[kind]
            scores = queries @ vectors.T
            plane = np.arange(len(queries)) % HALVES
            inside = sides(queries, self.planes, np.median(queries @ self.planes.T, axis=0))[
                np.arange(len(plane)), plane
            ]
            for lies in ("no filter", "with the query", "against the query"):
                where: list[str] | None = None
                allowed = scores
                if lies != "no filter":
                    side = inside == (lies == "with the query")
                    where = [f"side{at} = {str(bool(one)).lower()}" for at, one in zip(plane, side, strict=True)]
                    allowed = np.where(side[:, None] == own[:, plane].T, scores, -np.inf)
                least = np.partition(allowed, -K, axis=1)[:, -K]
                for promise in PROMISES if where is None else PROMISES[1:2]:
                    found = self.collection.search(list(given), k=K, min_recall=promise, where=where, progress=False)
                    shares = []
                    for row, bound, result in zip(allowed, least, found, strict=True):
                        hits = row[[places[hit.id] for hit in result.hits]]
                        # A hit that a filter leaves out is an error, not a miss.
                        assert np.isfinite(hits).all()
                        shares.append(np.count_nonzero(hits >= bound - 2e-6) / K)
                    values = np.array(shares)
                    upper = 1 - lower_bound(1 - values)
                    yield {
                        "state": state,
                        "filter": lies,
                        "kind": kind,
                        "promise": promise,
                        "recall": round(float(values.mean()), 4),
                        "interval": [round(lower_bound(values), 4), round(upper, 4)],
                        "exact": round(float(np.mean([one.exact for one in found])), 3),
                        "worst tenth": round(float(np.sort(values)[: max(1, len(values) // 10)].mean()), 3),
                        "kept": bool(values.mean() >= promise),
                        "refuted": bool(upper < promise),
                    }


def run(name: str, data: Path, work: Path, *, rows: int, queries: int) -> None:
    """All collections of a family; each finished one is a file."""
    waiting = [recipe for recipe in RECIPES[name] if not (work / f"{name}-{recipe}.json").exists()]
    if not waiting:
        return
    family = FAMILIES[name](data, work, int(rows * (1 + CHANGED)), queries)
    asked = Asked(family)
    captions = (data / "text" / "flickr8k.txt").read_text(encoding="utf-8").splitlines()
    captions = [captions[i] for i in np.random.default_rng(SEED).permutation(len(captions))]
    for recipe in waiting:
        with tempfile.TemporaryDirectory(dir=work) as folder:
            case = Case(family, recipe, Path(folder), captions)
            print(f"{name} {recipe}: built in {case.seconds:.0f} s", flush=True)
            cases = list(case.ask("as built", asked))
            case.change()
            cases += case.ask("changed", asked)
        told = {"family": family.name, "recipe": recipe, "rows": case.rows, "dim": family.rows.shape[1]}
        told |= {"build_s": round(case.seconds, 1)}
        partial = work / f"{name}-{recipe}.partial"
        partial.write_text(json.dumps([told | one for one in cases]), encoding="utf-8")
        partial.rename(work / f"{name}-{recipe}.json")
        by_index = [one for one in cases if one["exact"] < 0.5]
        missed = [one for one in cases if not one["kept"]]
        print(name, recipe, told, len(cases), "cases", len(by_index), "by the index", len(missed), "missed", flush=True)
        for one in missed:
            print("  ", one, flush=True)


def share(cases: list[dict[str, Any]]) -> str:
    """How many were kept, of how many, with the 95% interval of that share."""
    kept = np.array([one["kept"] for one in cases], float)
    if not len(kept):
        return "none"
    return (
        f"{int(kept.sum())} of {len(kept)} ({kept.mean():.3f}, "
        f"{lower_bound(kept, confidence=0.975):.3f} to {1 - lower_bound(1 - kept, confidence=0.975):.3f})"
    )


def summarise(cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all cases."""
    by_index = [one for one in cases if one["exact"] < 0.5]
    missed = [one for one in cases if not one["kept"]]
    figures: dict[str, Any] = {
        "collections": len({(one["family"], one["recipe"]) for one in cases}),
        "cases": len(cases),
        "kept": share(cases),
        "answered by the index": len(by_index),
        "kept, by the index": share(by_index),
        "refuted: the whole interval is below the promise": sum(one["refuted"] for one in cases),
    }
    for what in ("family", "recipe", "kind", "filter", "state", "promise"):
        for value in dict.fromkeys(one[what] for one in by_index):
            figures[f"kept, by the index, {what} {value}"] = share([one for one in by_index if one[what] == value])
    worst = Counter(f"{one['family']}, {one['recipe']}" for one in missed)
    figures["missed by collection"] = "; ".join(f"{name}: {count}" for name, count in worst.most_common()) or "none"
    figures["missed"] = "; ".join(
        f"{one['family']}, {one['recipe']}, {one['state']}, {one['filter']}, {one['kind']}: "
        f"{one['recall']:.3f} of {one['promise']:g}"
        for one in missed
    )
    figures["mean over the worst tenth of the queries, at 0.95"] = round(
        float(np.mean([one["worst tenth"] for one in by_index if one["promise"] == PROMISES[1]] or [1.0])), 3
    )
    return figures


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--family", action="append", choices=list(FAMILIES))
    parser.add_argument("--summary", action="store_true", help="write the figures into benchmarks/results")
    asked = parser.parse_args(words)
    asked.work.mkdir(parents=True, exist_ok=True)
    for name in asked.family or FAMILIES:
        run(name, asked.data, asked.work, rows=asked.rows, queries=asked.queries)
    cases = [
        one for path in sorted(asked.work.glob("*-*.json")) for one in json.loads(path.read_text(encoding="utf-8"))
    ]
    figures = summarise(cases)
    if asked.summary:
        data = f"{asked.rows:,} rows a collection, {asked.queries} fresh queries a case, recall@{K}"
        write("recall_proof", data, figures)
    else:
        print(json.dumps(figures, indent=2))
    return figures


if __name__ == "__main__":
    main()
