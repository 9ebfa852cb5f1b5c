"""Training a captioner: the likelihood of captions, given noised embeddings and what was retrieved with them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from mmalign.encoders import Encoder, load_encoder, resolve_device
from mmalign.training.captioner.config import CaptionerConfig
from mmalign.training.captioner.data import load_material
from mmalign.training.captioner.decoder import DecoderTrainer
from mmalign.training.captioner.prefix import PrefixTrainer
from mmalign.training.options import parse_options
from mmalign.training.run_folder import TrainingReport, carry_out, claim_folder, seeded
from mmalign.utils import ShowProgress


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
    claim_folder(
        folder, config.to_dict(), known=lambda there: parse_options(CaptionerConfig, there, where="").to_dict()
    )
    where = torch.device(resolve_device(device))
    chosen = load_encoder(config.encoder) if encoder is None else encoder
    material = load_material(
        config, chosen, cache=folder / "cache" if cache is None else Path(cache), progress=progress
    )
    with seeded(config.seed, where):
        kind = PrefixTrainer if config.language_model else DecoderTrainer
        trainer = kind(config, material, dim=chosen.dim, folder=folder, device=where)
        header = {"config": config.to_dict(), "data": material.counts, "parameters": trainer.parameters,
                  "threads": torch.get_num_threads()}  # fmt: skip
        resumed = carry_out(trainer, folder, header=header, log=log, progress=progress)
        exported, digest = trainer.export(chosen)
    return TrainingReport(
        out=folder,
        exported=exported,
        sha256=digest,
        best=trainer.best or {},
        epochs=config.epochs,
        resumed=resumed,
        data=material.counts,
    )
