"""A thousand text queries as one list beside the same one by one: open_clip's ViT-B-32 with random weights.

python -m benchmarks.query_batches FOLDER [--queries N] [--turns N]

Both take turns: a fifth of the queries as a list, a quarter of that one by one, so that what else the machine does
meets both alike. The ratios are those of a turn. Processor time is told beside wall time, since others may work on the
same cores.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write
from mmalign import Collection, load_encoder
from mmalign.collection.sample_queries import synthetic_queries

ITEMS, K = 5_000, 10
BATCHES = (8, 16, 32, 64, 128, 256)


def save_random(folder: Path) -> Path:
    """Weights of the architecture as open_clip draws them."""
    import open_clip
    import torch

    path = folder / "vit-b-32-random.pt"
    if not path.exists():
        torch.manual_seed(0)
        torch.save(open_clip.create_model("ViT-B-32", load_weights=False).state_dict(), path)
    return path


def make(folder: Path, encoder: Any) -> Collection:
    """A collection of vectors drawn at random, which is searched exactly."""
    path = folder / "queries.mm"
    collection = Collection.create(path, encoder=encoder, overwrite=path.exists())
    vectors = np.random.default_rng(0).normal(size=(ITEMS, encoder.dim))
    collection.add_embeddings([f"item{number}" for number in range(ITEMS)], vectors)
    return collection


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall time and processor time, in seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    encoder: Any = load_encoder(f"open_clip:ViT-B-32@{save_random(options.folder)}", device="cpu")
    collection = make(options.folder, encoder)
    texts = synthetic_queries(options.queries, seed=3)
    model, tokenizer = encoder.parts().model, encoder.parts().tokenizer

    def one_by_one(part: list[str]) -> list[Any]:
        return [list(collection.search(text, k=K)) for text in part]

    def in_a_list(part: list[str]) -> list[Any]:
        return [list(result) for result in collection.search(part, k=K)]

    def library(part: list[str]) -> None:
        import torch

        with torch.inference_mode():
            for text in part:
                model.encode_text(tokenizer([text]), normalize=True)

    one_by_one(texts[:8])
    in_a_list(texts[:8])
    turns: list[dict[str, list[float]]] = []
    step = len(texts) // options.turns
    for start in range(0, step * options.turns, step):
        own = texts[start : start + step]
        # A part is enough of what takes long; each is told for one query.
        few, fewer = own[: max(4, step // 4)], own[: max(2, step // 40)]
        told = {
            "list": [one / len(own) for one in timed(lambda own=own: in_a_list(own))],
            "single": [one / len(few) for one in timed(lambda few=few: one_by_one(few))],
            # The model as open_clip runs it.
            "library": [one / len(fewer) for one in timed(lambda fewer=fewer: library(fewer))],
        }
        turns.append(told)
    whole = timed(lambda: in_a_list(texts))[0] / len(texts)

    def middle(of: Callable[[dict[str, list[float]]], float]) -> float:
        return statistics.median(map(of, turns))

    some = texts[:20]
    single = [hit.id for hits in one_by_one(some) for hit in hits]
    together = [hit.id for hits in in_a_list(some) for hit in hits]
    figures: dict[str, Any] = {
        "queries": len(texts),
        "items": ITEMS,
        "k": K,
        "threads": _threads(),
        "single_ms": round(1000 * middle(lambda turn: turn["single"][0]), 2),
        "list_ms": round(1000 * middle(lambda turn: turn["list"][0]), 2),
        "whole_list_ms": round(1000 * whole, 2),
        "library_single_ms": round(1000 * middle(lambda turn: turn["library"][0]), 2),
        "ratio": round(middle(lambda turn: turn["single"][0] / turn["list"][0]), 2),
        "ratio_of_processor_time": round(middle(lambda turn: turn["single"][1] / turn["list"][1]), 2),
        "ratio_to_the_library_one_by_one": round(middle(lambda turn: turn["library"][0] / turn["list"][0]), 2),
        "ratios_of_turns": [round(turn["single"][0] / turn["list"][0], 2) for turn in turns],
        "same_hits": round(float(np.mean(np.array(single) == np.array(together))), 4),
    }
    some = texts[: len(texts) // 4]
    parts = {
        "encode": timed(lambda: encoder.encode_text(some)),
        "truncates": timed(lambda: [encoder.truncates(text) for text in some]),
    }
    figures["list_parts_ms"] = {name: round(1000 * wall / len(some), 2) for name, (wall, _) in parts.items()}
    figures["encode_ms_by_batch_size"] = {
        str(size): round(1000 * timed(lambda size=size: encoder.encode_text(some, batch_size=size))[0] / len(some), 2)
        for size in BATCHES
    }
    # Two threads wait for one another, which on busy cores costs single queries most: one thread tells what work it is.
    name = "query_batches" if figures["threads"] > 1 else "query_batches_one_thread"
    write(name, "sentences composed at random, open_clip ViT-B-32 with random weights", figures)


def _threads() -> int:
    import torch

    return torch.get_num_threads()


if __name__ == "__main__":
    main()
