"""Pictures and texts per second of the default encoder, beside `lite@1`, CLIP and bare forward loops.

All loops see the same decoded pictures in memory, or the same texts, and take turns, since the machine's speed drifts;
what counts is the median of the ratios within a turn. The bare loops run the default encoder's own picture model in
batches: one prepares each picture (resize, to array) in the same thread and runs the model, the other is given
prepared arrays, so that nothing but the model runs. CLIP is open_clip's ViT-B-32, whose speed does not depend on its
weights: they are random, and nothing is downloaded. It gets the same two loops, and its weights are counted as fp32,
as they are published.

MANIFEST has pictures with captions, such as `flickr8k/manifest.jsonl`.

python -m benchmarks.encode MANIFEST [--count PICTURES] [--texts TEXTS] [--turns TURNS]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.card import Lite, parameters, weight_bytes
from benchmarks.results import write
from mmalign.encoders.lite.efficientnet import preprocess
from mmalign.encoders.lite.towers import image_features
from mmalign.encoders.registry import load_encoder
from mmalign.evaluation.retrieval import read_captions
from mmalign.media.images import decode_image

BATCH = 32
TEXT_BATCH = 64
Loop = Callable[[], object]


class RandomCLIP:
    """open_clip's ViT-B-32 with random weights."""

    def __init__(self) -> None:
        import open_clip
        import torch

        self._inference = torch.inference_mode
        self._stack = torch.stack
        # Without a tag nothing is loaded; the library then warns that the weights are random, as they are to be.
        self.model, _, self.prepare = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None, device="cpu")
        self.model.eval()
        self.tokenize = open_clip.get_tokenizer("ViT-B-32")
        self.parameters = sum(parameter.numel() for parameter in self.model.parameters())

    def run(self, prepared: Sequence[Any]) -> None:
        """Encode prepared pictures, batch by batch."""
        with self._inference():
            for start in range(0, len(prepared), BATCH):
                self.model.encode_image(self._stack(list(prepared[start : start + BATCH])), normalize=True)

    def prepare_and_run(self, pictures: Sequence[Image.Image]) -> None:
        """Prepare pictures with open_clip's own transforms and encode them, batch by batch."""
        for start in range(0, len(pictures), BATCH):
            self.run([self.prepare(picture) for picture in pictures[start : start + BATCH]])

    def texts(self, texts: Sequence[str]) -> None:
        """Tokenise and encode texts, batch by batch."""
        with self._inference():
            for start in range(0, len(texts), TEXT_BATCH):
                self.model.encode_text(self.tokenize(list(texts[start : start + TEXT_BATCH])), normalize=True)


def lite(spec: str) -> Lite:
    """A version of `lite` on the processor."""
    encoder = load_encoder(spec, device="cpu")
    assert isinstance(encoder, Lite)
    return encoder


def picture_loops(paths: Sequence[str], clip: RandomCLIP) -> dict[str, Loop]:
    """What is timed on pictures, by name."""
    pictures = [decode_image(path).image for path in paths]
    for_clip = [clip.prepare(picture) for picture in pictures]
    default, first = lite("lite"), lite("lite@1")
    model, size = default._pictures(), default.picture_input.size
    prepared = [preprocess(picture, size=size) for picture in pictures]

    def bare_prepared() -> None:
        for start in range(0, len(prepared), BATCH):
            image_features(model, prepared[start : start + BATCH])

    def bare_decoded() -> None:
        for start in range(0, len(pictures), BATCH):
            image_features(model, [preprocess(picture, size=size) for picture in pictures[start : start + BATCH]])

    return {
        "lite": lambda: default.encode_image(pictures, batch_size=BATCH),
        "lite@1": lambda: first.encode_image(pictures, batch_size=BATCH),
        "clip": lambda: clip.prepare_and_run(pictures),
        "clip prepared": lambda: clip.run(for_clip),
        "decoded": bare_decoded,
        "prepared": bare_prepared,
        "files": lambda: default.encode_image((decode_image(path).image for path in paths), batch_size=BATCH),
    }


def text_loops(texts: Sequence[str], clip: RandomCLIP) -> dict[str, Loop]:
    """What is timed on texts, by name."""
    default, first = lite("lite"), lite("lite@1")
    return {
        "lite": lambda: default.encode_text(texts, batch_size=TEXT_BATCH),
        "lite@1": lambda: first.encode_text(texts, batch_size=TEXT_BATCH),
        "clip": lambda: clip.texts(texts),
    }


def take_turns(loops: dict[str, Loop], *, count: int, turns: int) -> list[dict[str, float]]:
    """Items per second of each loop in each turn; a turn before the first warms up and is not counted."""
    for loop in loops.values():
        loop()
    rates: list[dict[str, float]] = []
    for _ in range(turns):
        rates.append({})
        for name, loop in loops.items():
            started = time.perf_counter()
            loop()
            rates[-1][name] = count / (time.perf_counter() - started)
    return rates


def median(turns: Sequence[dict[str, float]], name: str, *, over: str | None = None) -> float:
    """The median over turns of a rate, or of its ratio to another."""
    return round(statistics.median(turn[name] / (turn[over] if over else 1) for turn in turns), 2 if over else 1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encode", description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--count", type=int, default=256, help="pictures")
    parser.add_argument("--texts", type=int, default=1024, help="texts")
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = read_captions(options.manifest)
    paths = [row.uri for row in rows[: options.count]]
    texts = [caption for row in rows for caption in row.captions][: options.texts]
    clip, default, first = RandomCLIP(), lite("lite"), lite("lite@1")
    pictures = take_turns(picture_loops(paths, clip), count=len(paths), turns=options.turns)
    captions = take_turns(text_loops(texts, clip), count=len(texts), turns=options.turns)
    write(
        "encode",
        f"{len(paths)} pictures and {len(texts):,} captions of {options.manifest.resolve().parent.name}, "
        f"{default.name}, batches of {BATCH} pictures and {TEXT_BATCH} texts, {options.turns} turns; CLIP is "
        "open_clip's ViT-B-32 with random weights",
        {
            "pictures_per_s": median(pictures, "lite"),
            "pictures_per_s_decoding_included": median(pictures, "files"),
            "ratio_to_lite@1": median(pictures, "lite", over="lite@1"),
            "ratio_to_CLIP_that_prepares_and_runs": median(pictures, "lite", over="clip"),
            "ratio_to_CLIP_that_only_runs": median(pictures, "lite", over="clip prepared"),
            "ratio_to_a_loop_that_prepares_and_runs": median(pictures, "lite", over="decoded"),
            "ratio_to_a_loop_that_only_runs": median(pictures, "lite", over="prepared"),
            "texts_per_s": median(captions, "lite"),
            "texts:_ratio_to_lite@1": median(captions, "lite", over="lite@1"),
            "texts:_ratio_to_CLIP": median(captions, "lite", over="clip"),
            "weights_MB": round(weight_bytes(default) / 1e6, 1),
            "weights_MB_of_lite@1": round(weight_bytes(first) / 1e6, 1),
            "weights_MB_of_CLIP": round(4 * clip.parameters / 1e6, 1),
            "weights": parameters(default),
        },
    )


if __name__ == "__main__":
    main()
