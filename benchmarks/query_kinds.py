"""Whether the promised recall is kept for every kind of query, through `Collection.search`.

The vectors are those of `benchmarks.vectors`, grown from real embeddings of pictures by `lite`, of which 600 have
captions. The queries come from sources that the index was not measured with: sentences of COCO, their words, frequent
words of English and of other languages (the package wordfreq), letters that mean nothing, sums and differences of
these, and pictures that were grown but not indexed. Each is compared with the exact answer.

python -m benchmarks.query_kinds DATA VECTORS WORK [--rows 100000] [--recipe hnsw --recipe lean] [--timing]

DATA is the folder of shared data, VECTORS what `benchmarks.vectors` made, WORK where collections are kept. wordfreq is
asked for by this benchmark alone: pip install wordfreq
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import write
from mmalign.collection import Collection
from mmalign.index import lower_bound
from mmalign.search import Query
from mmalign.types import SearchResult
from mmalign.utils import Float32Array, l2_normalize

PROMISES = (0.9, 0.95, 0.98)
LANGUAGES = ("de", "fr", "es", "it", "pt", "nl", "sv", "fi", "pl", "cs", "hu", "tr", "ru", "el", "ar", "he", "hi", "ko")
K, CAPTIONED, SEED, TIMED = 10, 600, 18, 40
LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def texts(data: Path, count: int, rng: np.random.Generator) -> dict[str, list[str]]:
    """Fresh queries in words, by what they are."""
    from wordfreq import top_n_list

    def some(many: Sequence[str]) -> list[str]:
        return [many[i] for i in rng.permutation(len(many))[:count]]

    lines = list(dict.fromkeys((data / "text" / "coco_val2017.txt").read_text(encoding="utf-8").splitlines()))
    sentences = some(lines)
    words = sorted({word for line in lines for word in re.findall(r"[a-z]{3,}", line.lower())})
    english = [word for word in top_n_list("en", 20_000)[200:] if word.isalpha() and len(word) > 2]
    foreign = [word for one in LANGUAGES for word in some(top_n_list(one, 4_000)[50:])[: count // 12]]
    nonsense = ["".join(rng.choice(LETTERS, int(rng.integers(3, 12)))) for _ in range(count // 3)]
    nouns, others = some(words), some(english)
    return {
        "sentences": sentences,
        "words of captions": nouns,
        "other words": others,
        "two words": [f"{a} {b}" for a, b in zip(some(words), some(words), strict=True)],
        "keywords": [" ".join(rng.choice(english, int(rng.integers(4, 7)))) for _ in range(count)],
        "other languages, nonsense": some([*foreign, *nonsense]),
        "a + b": [f"{a} + {b}" for a, b in zip(some(nouns + sentences), some(others + nouns), strict=True)],
        "a - b": [f"{a} - {b}" for a, b in zip(some(nouns + sentences), some(others + nouns), strict=True) if a != b],
    }


def make(vectors: Path, work: Path, data: Path, *, rows: int, recipe: str) -> tuple[Collection, dict[str, Any]]:
    """The collection, with an index of the recipe; kept for another run."""
    path = work / f"{recipe}-{rows}.mm"
    if not path.exists():
        base = np.load(vectors / "base.npy", mmap_mode="r")[:rows].astype(np.float32)
        lines = (data / "text" / "flickr8k.txt").read_text(encoding="utf-8").splitlines()
        chosen = np.random.default_rng(SEED).permutation(len(lines))[:CAPTIONED]
        captions = [[lines[i]] for i in chosen] + [None] * (rows - CAPTIONED)
        made = Collection.create(path, encoder="lite")
        made.add_embeddings([f"v{i}" for i in range(rows)], base, captions=captions)
    collection = Collection.open(path)
    figures = {}
    if collection.index_manifest is None:
        started = time.perf_counter()
        collection.build_index(recipe)
        figures["built and measured, s"] = round(time.perf_counter() - started, 1)
    return collection, figures


def recalls(
    ids: Sequence[str], vectors: Float32Array, queries: Float32Array, found: Sequence[SearchResult]
) -> NDArray[np.float64]:
    """The share of the true nearest that each query found; what scores as high as the last of them counts as one."""
    names = {name: place for place, name in enumerate(ids)}
    shares = []
    for start in range(0, len(queries), 100):
        scores = queries[start : start + 100] @ vectors.T
        least = np.partition(scores, -K, axis=1)[:, -K]
        for own, bound, result in zip(scores, least, found[start : start + 100], strict=True):
            places = [names[hit.id] for hit in result.hits]
            shares.append(np.count_nonzero(own[places] >= bound - 2e-6) / K)
    return np.array(shares)


def ask(collection: Collection, asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Figures of each kind of query at each promise."""
    ids, vectors = collection.embeddings()
    vectors = l2_normalize(vectors)
    figures: dict[str, dict[str, Any]] = {}
    for kind, queries in asked.items():
        rows = queries if isinstance(queries, np.ndarray) else embed(collection, queries)
        for promise in PROMISES:
            found = collection.search(
                list(queries) if isinstance(queries, np.ndarray) else queries, k=K, min_recall=promise
            )
            values = recalls(ids, vectors, rows, found)
            efforts = [one.effort for one in found if one.effort is not None]
            figures[f"{kind}, {promise:g}"] = {
                "recall": round(float(values.mean()), 4),
                "interval": f"{lower_bound(values):.3f} to {1 - lower_bound(1 - values):.3f}",
                "exact": round(statistics.mean(one.exact for one in found), 3),
                "effort": statistics.median(efforts) if efforts else None,
                "kept": "yes" if values.mean() >= promise else "NO",
            }
            print(kind, promise, figures[f"{kind}, {promise:g}"], flush=True)
    return figures


def time_searches(collection: Collection, asked: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Single searches at a promise of 0.95 and exact ones, of vectors and in turn; medians in milliseconds.

    Words are encoded before: what the encoder takes is the same for both.
    """
    figures: dict[str, dict[str, Any]] = {}
    every: dict[str, list[float]] = {"promised": [], "exact": []}
    for kind, queries in asked.items():
        rows = queries if isinstance(queries, np.ndarray) else embed(collection, queries[:TIMED])
        kinds = ("given",) if isinstance(queries, np.ndarray) else None
        searcher = collection._current().searcher()
        taken: dict[str, list[float]] = {"promised": [], "exact": []}
        for place in range(min(TIMED, len(rows))):
            own = kinds or Query(queries[place]).kinds
            for name, promise in (("promised", 0.95), ("exact", 1.0)):
                started = time.perf_counter()
                searcher.search(rows[place : place + 1], K, min_recall=promise, kinds=own)
                taken[name].append(1000 * (time.perf_counter() - started))
        for name, values in taken.items():
            every[name] += values
        figures[f"{kind}, time of one search"] = as_times(taken)
        print(kind, figures[f"{kind}, time of one search"], flush=True)
    return figures | {"all, time of one search": as_times(every)}


def as_times(taken: dict[str, list[float]]) -> dict[str, Any]:
    """Medians, and how many times as long an exact search takes."""
    promised, exact = (statistics.median(taken[name]) for name in ("promised", "exact"))
    return {"ms": round(promised, 3), "exact_ms": round(exact, 3), "exact over promised": round(exact / promised, 1)}


def embed(collection: Collection, queries: Sequence[str]) -> Float32Array:
    """The vectors of texts, composed ones among them."""
    encoder = collection.encoder
    return np.stack([Query(text).embed(lambda: encoder, dim=collection.dim)[0] for text in queries])


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("vectors", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--recipe", action="append", help="hnsw and lean where none is named")
    parser.add_argument("--queries", type=int, default=400)
    parser.add_argument("--timing", action="store_true", help="time single searches beside exact ones, too")
    options = parser.parse_args(words)
    options.work.mkdir(parents=True, exist_ok=True)
    asked: dict[str, Any] = texts(options.data, options.queries, np.random.default_rng(SEED))
    asked["pictures"] = np.load(options.vectors / "images-test.npy")[: options.queries].astype(np.float32)
    for recipe in options.recipe or ("hnsw", "lean"):
        collection, figures = make(options.vectors, options.work, options.data, rows=options.rows, recipe=recipe)
        table = ask(collection, asked) | (time_searches(collection, asked) if options.timing else {})
        size = "" if options.rows == 100_000 else f"_{options.rows}"
        write(
            f"query_kinds_{recipe}{size}",
            f"{options.rows:,} x {collection.dim} grown from real embeddings, {CAPTIONED} with captions, recipe "
            f"{recipe}, {options.queries} fresh queries of each kind, recall@{K}; {figures or 'the index was there'}",
            table,
        )


if __name__ == "__main__":
    main()
