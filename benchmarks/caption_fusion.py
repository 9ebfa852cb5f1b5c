"""The four fusions of the caption decoder on equal terms: with both modalities, with one, and with a wrong one.

Each is trained with the same configuration, seed and examples; only `fusion` differs. Of its epochs the training
exports the one with the better CIDEr, as always. Captions of the configuration's `dev` pictures are greedy, their
contexts those that the training retrieves; nats are of each picture's first caption. Permuted: every picture gets the
vector, or the context, of another one. Intervals cover 95%, drawn over pictures, the same for both sides of a
difference.

A run that was stopped goes on where it was; OUT holds a folder a fusion.

python -m benchmarks.caption_fusion CONFIG.toml OUT [--epochs 2] [--cache FOLDER]
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from benchmarks.results import write
from mmalign.captioning.decoders.fusion import FusionName
from mmalign.captioning.decoders.generation import GenerationConfig, generate
from mmalign.captioning.decoders.model import make_inputs, pad_targets
from mmalign.captioning.decoders.trained import DecoderFile, TrainedDecoder, read_decoder
from mmalign.encoders.registry import load_encoder
from mmalign.metrics.caption import CaptionScores, score_captions
from mmalign.training.captioner.config import read_captioner_config
from mmalign.training.captioner.data import CaptionerTrainingSet, load_training_set
from mmalign.training.captioner.train import train_captioner
from mmalign.utils.similarity import Int64Array

CONDITIONS = ("both", "no vector", "no context", "vector permuted", "context permuted")
BASE = "transformer"
DRAWS = 1000
BATCH = 64


def strangers(count: int, *, seed: int = 0) -> Int64Array:
    """For each of so many pictures, two at least, another one; each comes once."""
    order = np.random.default_rng(seed).permutation(count)
    partner = np.empty(count, np.int64)
    partner[order] = np.roll(order, 1)
    return partner


@torch.inference_mode()
def measure(file: DecoderFile, training_set: CaptionerTrainingSet, condition: str) -> tuple[CaptionScores, float]:
    """Scores of greedy captions, and nats a token of the first captions, under one condition."""
    model, config = TrainedDecoder(file, name=condition).model, file.config
    dev, told = training_set.dev, training_set.dev_captions
    rows = np.arange(len(dev.vectors))
    seen_by = strangers(len(rows)) if condition == "vector permuted" else rows
    read_by = strangers(len(rows)) if condition == "context permuted" else rows
    used, places = np.unique(dev.contexts, return_inverse=True)
    tokens = file.tokenizer.encode([training_set.sentences[row] for row in used.tolist()], longest=config.longest - 2)
    contexts = places.reshape(dev.contexts.shape)
    firsts = file.tokenizer.encode([told[own[0]] for own in dev.targets], longest=config.longest - 2)
    said: list[str] = []
    nats, count = 0.0, 0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        inputs = make_inputs(
            dev.vectors[seen_by[part]],
            [[] if condition == "no context" else [tokens[place] for place in contexts[read_by[row]]] for row in part],
            seen=np.full(len(part), condition != "no vector"),
        )
        targets = pad_targets([firsts[row] for row in part], longest=config.longest)
        words = int((targets[:, 1:] != 0).sum())
        nats, count = nats + float(model.loss(inputs, targets)) * words, count + words
        said += [
            file.tokenizer.decode(found[0].tokens) for found in generate(model, inputs, GenerationConfig("greedy"))
        ]
    return score_captions(said, [[told[row] for row in own] for own in dev.targets]), nats / count


def compare(found: Mapping[tuple[str, str], tuple[CaptionScores, float]], *, seed: int = 0) -> dict[str, Any]:
    """A row for each fusion and condition, with the differences from both modalities and from `transformer`."""
    count = len(next(iter(found.values()))[0])
    draws = np.random.default_rng(seed).integers(count, size=(DRAWS, count))
    samples = {key: scores.resampled(draws)["cider"] for key, (scores, _) in found.items()}

    def difference(key: tuple[str, str], other: tuple[str, str]) -> str:
        if key == other:
            return ""
        low, high = np.quantile(samples[key] - samples[other], [0.025, 0.975])
        value = found[key][0].figures()["cider"] - found[other][0].figures()["cider"]
        return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"

    rows = {}
    for (fusion, condition), (scores, nats) in found.items():
        figures = scores.figures()
        rows[f"{fusion}, {condition}"] = {
            "CIDEr": round(figures["cider"], 1),
            "BLEU-4": round(figures["bleu4"], 1),
            "nats a token": round(nats, 3),
            f"CIDEr over {BASE}": difference((fusion, condition), (BASE, condition)),
            "CIDEr over both": difference((fusion, condition), (fusion, "both")),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder for embeddings, which runs may share; OUT/cache by default")
    words = parser.parse_args()
    cache = words.cache or words.out / "cache"
    base = read_captioner_config(words.config, options={"epochs": words.epochs}, data={})
    encoder = load_encoder(base.encoder)
    found, parameters, epochs = {}, {}, {}
    training_set = None
    for fusion in get_args(FusionName):
        report = train_captioner(
            replace(base, fusion=fusion),
            words.out / fusion,
            cache=cache,
            encoder=encoder,
            device="cpu",
            log=lambda record: print(record, flush=True),
        )
        training_set = training_set or load_training_set(base, encoder, cache=cache)
        file = read_decoder(report.exported)
        model = TrainedDecoder(file, name=fusion).model
        parameters[fusion] = {
            "parameters": sum(weights.numel() for weights in model.parameters()),
            "of them in the fusion": sum(weights.numel() for weights in model.fusion.parameters()),
        }
        epochs[fusion] = report.best["epoch"]
        for condition in CONDITIONS:
            found[fusion, condition] = measure(file, training_set, condition)
            print(fusion, condition, found[fusion, condition][0].figures()["cider"], flush=True)
    assert training_set is not None
    data = (
        f"{len(training_set.dev.vectors)} dev pictures of {words.config.stem}.toml, {words.epochs} epochs, "
        f"{training_set.counts['sentences']} sentences; the exported epoch: "
        + ", ".join(f"{epoch} of {fusion}" for fusion, epoch in epochs.items())
    )
    write("caption_fusion", data, {**parameters, **compare(found)})


if __name__ == "__main__":
    main()
