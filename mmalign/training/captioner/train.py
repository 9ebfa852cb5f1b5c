"""Training a captioner: the likelihood of captions, given noised embeddings and what was retrieved with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mmalign.encoders import Encoder, load_encoder, resolve_device
from mmalign.training.captioner.config import CaptionerConfig
from mmalign.training.captioner.data import load_training_set
from mmalign.training.captioner.decoder import DecoderTask
from mmalign.training.captioner.prefix import PrefixTask
from mmalign.training.checkpoint import Checkpoints
from mmalign.training.loop import LoopOptions, TrainingLoop
from mmalign.training.options import parse_options
from mmalign.training.run_dir import TrainingReport, claim, run, seeded
from mmalign.utils import ShowProgress

# Longest gradient.
_CLIP = 1.0


def train_captioner(
    config: CaptionerConfig,
    out: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    encoder: Encoder | None = None,
    device: str | None = None,
    progress: ShowProgress | None = None,
    log: Callable[[Mapping[str, Any]], None] | None = None,
) -> TrainingReport:
    """Train a decoder for an encoder's embeddings, or a soft prefix for a language model, and export the best epoch.

    Args:
        config: What to learn from, and how.
        out: The run's folder; one that holds a run of the same configuration is gone on with.
        cache: Where embeddings are kept, which runs may share; `OUT/cache` by default.
        encoder: The encoder, where it is not to be loaded by `config.encoder`.
        device: A torch device; None for CUDA where there is one, else the processor.
        progress: Told how far things are.
        log: Called with each record that is written to `OUT/log.jsonl`.

    Returns:
        The report.

    Raises:
        InputError: The folder holds another run, or the data cannot be used.
        StorageError: The disk refused.
        TrainingInterrupted: Ctrl-C; the state is saved.
    """
    folder = Path(out)
    claim(folder, config.to_dict(), known=lambda there: parse_options(CaptionerConfig, there, where="").to_dict())
    where = torch.device(resolve_device(device))
    chosen = load_encoder(config.encoder) if encoder is None else encoder
    training_set = load_training_set(
        config, chosen, cache=folder / "cache" if cache is None else Path(cache), progress=progress
    )
    with seeded(config.seed, where):
        kind = PrefixTask if config.language_model else DecoderTask
        task = kind(config, training_set, dim=chosen.dim, device=where)
        options = LoopOptions(
            epochs=config.epochs,
            warmup=config.warmup,
            grad_clip=_CLIP,
            ema_decay=task.ema_decay,
            checkpoint_steps=task.keep_every,
        )
        checkpoints = Checkpoints(folder, identity=task.identity, upgrade=task.upgrade)
        loop = TrainingLoop(task, options, device=where, checkpoints=checkpoints)
        return run(
            loop,
            folder,
            config=config.to_dict(),
            data=training_set.counts,
            header={
                "parameters": sum(parameter.numel() for parameter in task.model.parameters()),
                "threads": torch.get_num_threads(),
            },
            export=lambda weights, to: task.export(weights, to, chosen, loop.progress),
            log=log,
            progress=progress,
        )
