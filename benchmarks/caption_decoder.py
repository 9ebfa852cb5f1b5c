"""How fast the shipped caption decoder writes on a processor, what its cache of keys and values brings, and its memory.

Of a manifest's captioned pictures 64 are written for, from the captions of the 400 before them, those that the encoder
finds nearest. What is timed is the decoder alone, from embeddings and retrieved captions to drafts: one picture a call,
and 64. The ways take turns. The cache is compared on the captions that greedy writing gave: each step's scores are
computed once from the newest token and the cache, once from all tokens so far; they must be the same. Memory is the
highest resident size of a process of its own, less what it held once the decoder's code, and so torch, was imported.

python -m benchmarks.caption_decoder MANIFEST [--split SPLIT] [--turns 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.results import ROOT, write
from mmalign.captioning.decoders.generation import GenerationConfig, generate
from mmalign.captioning.decoders.gpt import Cache
from mmalign.captioning.decoders.model import DecoderInputs, MultimodalTransformer, make_inputs, pad_targets
from mmalign.captioning.decoders.registry import SHIPPED, load_decoder
from mmalign.captioning.decoders.trained import DecoderFile, TrainedDecoder, read_decoder
from mmalign.captioning.retrieval import Retrieval, TextStore, retrieve_context
from mmalign.encoders.base import Encoder
from mmalign.encoders.registry import load_encoder
from mmalign.evaluation.retrieval import read_captions
from mmalign.utils.similarity import Float32Array, l2_normalize

WAYS: dict[str, GenerationConfig | None] = {
    "greedy": GenerationConfig("greedy", longest=24),
    "beam of 5": GenerationConfig("beam", count=5, longest=24),
    "as shipped: beam of 5 and 16 draws": None,
}
PICTURES, BEFORE, SINGLE = 64, 400, 16
Contexts = Sequence[Sequence[str]]


def gather(manifest: Path, split: str | None, encoder: Encoder) -> tuple[Float32Array, list[list[str]]]:
    """Embeddings of the pictures that are written for, and the captions retrieved for each."""
    pictures = read_captions(manifest, split=split)[: BEFORE + PICTURES]
    told = pictures[: -PICTURES or None]
    captions = list(dict.fromkeys(caption for picture in told for caption in picture.captions))
    store = TextStore(captions, encoder.encode_text(captions))
    vectors = encoder.encode_image([picture.uri for picture in pictures[len(told) :]])
    found = retrieve_context(vectors, store, how=Retrieval(k=150))
    return vectors, [list(context.captions) for context in found]


def one_by_one(
    decoder: TrainedDecoder, vectors: Float32Array, contexts: Contexts, writing: GenerationConfig | None
) -> None:
    """Write for each picture in a call of its own."""
    for vector, context in zip(vectors, contexts, strict=True):
        decoder.caption(vector, context, config=writing)


def seconds(work: Callable[[], object]) -> float:
    """Wall time."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def speeds(decoder: TrainedDecoder, vectors: Float32Array, contexts: Contexts, *, turns: int) -> dict[str, Any]:
    """Captions a second of each way, the median of turns: one picture a call, and all in one."""
    few = min(SINGLE, len(contexts))
    works: dict[tuple[str, str], tuple[int, Callable[[], object]]] = {}
    for name, writing in WAYS.items():
        works[name, "one picture a call"] = (
            few,
            lambda writing=writing: one_by_one(decoder, vectors[:few], contexts[:few], writing),  # type: ignore[misc]
        )
        works[name, f"{len(contexts)} a call"] = (
            len(contexts),
            lambda writing=writing: decoder.caption_many(vectors, contexts, config=writing),  # type: ignore[misc]
        )
    taken: dict[tuple[str, str], list[float]] = {key: [] for key in works}
    decoder.caption_many(vectors[:2], contexts[:2])
    for _ in range(turns):
        for key, (_, work) in works.items():
            taken[key].append(seconds(work))
    rows: dict[str, Any] = {f"captions a second, {name}": {} for name in WAYS}
    for (name, how), (count, _) in works.items():
        rows[f"captions a second, {name}"][how] = round(count / statistics.median(taken[name, how]), 1)
    return rows


@torch.inference_mode()
def score_steps(
    model: MultimodalTransformer, inputs: DecoderInputs, tokens: torch.Tensor, *, cached: bool
) -> torch.Tensor:
    """Scores of each next token, shape (b, t, vocabulary): from the newest token and a cache, or from all so far."""
    memory, mask = model.remember(inputs)
    cache = Cache()
    steps = []
    for length in range(1, tokens.shape[1]):
        if cached:
            found = model.decoder(tokens[:, length - 1 : length], memory, mask, inputs.votes, cache)
        else:
            found = model.decoder(tokens[:, :length], memory, mask, inputs.votes)
        steps.append(found[:, -1])
    return torch.stack(steps, dim=1)


def as_inputs(file: DecoderFile, vectors: Float32Array, contexts: Contexts) -> DecoderInputs:
    """What the network is given."""
    read = [file.tokenizer.encode(list(own[: file.config.context]), longest=file.config.longest) for own in contexts]
    return make_inputs(l2_normalize(vectors - file.mean), read)


def cache_gain(file: DecoderFile, vectors: Float32Array, contexts: Contexts, *, turns: int) -> dict[str, Any]:
    """How many times faster steps are with the cache, one picture at a time and all at once."""
    model = TrainedDecoder(file, name="lite").model
    inputs = as_inputs(file, vectors, contexts)
    written = [found[0].tokens for found in generate(model, inputs, GenerationConfig("greedy", longest=24))]
    alone = [
        (as_inputs(file, vectors[row : row + 1], contexts[row : row + 1]), written[row : row + 1])
        for row in range(min(SINGLE, len(written)))
    ]
    ratios: dict[str, Any] = {}
    largest = 0.0
    for name, parts in (("one picture a call", alone), (f"{len(written)} a call", [(inputs, written)])):
        tables = [(given, pad_targets(captions, longest=file.config.longest)) for given, captions in parts]

        def run(cached: bool, tables: Any = tables) -> list[torch.Tensor]:
            return [score_steps(model, given, table, cached=cached) for given, table in tables]

        # What stands behind a caption's end is padding, which nobody reads.
        for fast, slow, (_, table) in zip(run(True), run(False), tables, strict=True):
            there = table[:, 1:] != 0
            largest = max(largest, float((fast - slow)[there].abs().max()))
        ratios[name] = round(
            statistics.median(seconds(lambda: run(False)) / seconds(lambda: run(True)) for _ in range(turns)), 2
        )
    return {"times faster with the cache": ratios, "largest difference of scores": largest}


def memory(vectors: Float32Array, contexts: Contexts) -> dict[str, Any]:
    """MB that each way takes over the import, in a process of its own."""
    rows: dict[str, Any] = {}
    for count in (1, len(contexts)):
        for way in WAYS:
            how = "one picture a call" if count == 1 else f"{count} a call"
            taken = peak_of(vectors[:count], contexts[:count], way)
            rows.setdefault(f"peak memory over the import, MB, {way}", {})[how] = round(taken)
    return rows


def peak_of(vectors: Float32Array, contexts: Contexts, way: str) -> float:
    """MB of one way, measured in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.json"
        given.write_text(json.dumps({"vectors": vectors.tolist(), "contexts": [list(own) for own in contexts]}))
        command = [sys.executable, "-m", "benchmarks.caption_decoder", str(given), "--peak", way]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def peak(given: Path, way: str) -> float:
    """In this process: MB of the highest resident size over what it is now."""
    told = json.loads(given.read_text())
    before = resident("VmRSS")
    decoder = load_decoder("lite")
    assert isinstance(decoder, TrainedDecoder)
    decoder.caption_many(np.array(told["vectors"], np.float32), told["contexts"], config=WAYS[way])
    return resident("VmHWM") - before


def resident(kind: str) -> float:
    """MB of this process by Linux: `VmRSS` now, `VmHWM` at most."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith(kind))
    return int(line.split()[1]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default=None)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peak", choices=list(WAYS), help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.peak:
        print(peak(words.manifest, words.peak))
        return
    vectors, contexts = gather(words.manifest, words.split, load_encoder("lite"))
    decoder = load_decoder("lite")
    assert isinstance(decoder, TrainedDecoder)
    figures = {
        **speeds(decoder, vectors, contexts, turns=words.turns),
        **cache_gain(read_decoder(SHIPPED), vectors, contexts, turns=words.turns),
        **memory(vectors, contexts),
    }
    data = (
        f"{len(contexts)} pictures of {words.manifest.parent.name}, 150 retrieved captions each, "
        f"{torch.get_num_threads()} threads, median of {words.turns} turns"
    )
    write("caption_decoder", data, figures)


if __name__ == "__main__":
    main()
