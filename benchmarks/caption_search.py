"""A search of captions beside one of pictures, in turn: 20,000 items with five captions each, vectors made up.

python -m benchmarks.caption_search FOLDER
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write
from mmalign import Collection
from mmalign.encoders import EncoderBase

ITEMS, EACH, DIM, ROUNDS = 20_000, 5, 384, 60


class Random(EncoderBase):
    """A vector of its own for each text, at no cost, so that the search itself is what is timed."""

    name, dim, modalities = "random@1", DIM, frozenset({"text", "image"})
    fingerprint = hashlib.sha256(b"random@1").hexdigest()

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        """One random vector a text."""
        vectors = np.random.default_rng(sum(map(len, texts))).normal(size=(len(texts), DIM)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_image(self, images: Any, *, batch_size: int = 32) -> np.ndarray:
        """Nothing here is a picture."""
        raise NotImplementedError


def make(folder: Path) -> Collection:
    """The collection; its captions are embedded by the first search."""
    path = folder / "captions.mm"
    collection = Collection.create(path, encoder=Random(), overwrite=path.exists())
    vectors = np.random.default_rng(0).normal(size=(ITEMS, DIM))
    captions = [[f"caption {number} of item {item}" for number in range(EACH)] for item in range(ITEMS)]
    names = [f"item{number}" for number in range(ITEMS)]
    collection.add_embeddings(names, vectors, metadata={"year": [2000 + number % 20 for number in range(ITEMS)]})
    store = collection._current().writer()
    store.patch([{"id": name, "captions": texts} for name, texts in zip(names, captions, strict=True)])
    return collection


def hits_of(search: Callable[..., Any], query: str, **options: Any) -> list[Any]:
    """The hits themselves, which a search makes when they are first looked at."""
    return list(search(query, **options))


def milliseconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    collection = make(folder)
    first = milliseconds(lambda: collection.search_captions("first"))
    figures: dict[str, Any] = {"items": ITEMS, "captions": ITEMS * EACH, "dim": DIM, "first_call_ms": round(first)}
    for name, where in (("all", None), ("filtered", "year >= 2010")):
        times: dict[str, list[float]] = {"search": [], "search_captions": []}
        for turn in range(ROUNDS + 10):
            for kind, search in (("search", collection.search), ("search_captions", collection.search_captions)):
                taken = milliseconds(partial(hits_of, search, f"query {'x' * turn}", where=where))
                # The first ones bring vectors and columns into memory.
                if turn >= 10:
                    times[kind].append(taken)
        medians = {kind: statistics.median(values) for kind, values in times.items()}
        figures[name] = {
            "search_ms": round(medians["search"], 2),
            "search_captions_ms": round(medians["search_captions"], 2),
            "ratio": round(medians["search_captions"] / medians["search"], 2),
        }
    write("caption_search", f"{ITEMS:,} items with {EACH} captions each, made-up vectors of {DIM} dimensions", figures)


if __name__ == "__main__":
    main()
