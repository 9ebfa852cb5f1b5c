"""A whole training: data, frozen arrays, teachers, loop, export; running it again goes on where it stopped."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign.encoders import resolve_device
from mmalign.training.cache import Table
from mmalign.training.checkpoint import Checkpoints, state_digest
from mmalign.training.contrastive.batches import BatchPlan
from mmalign.training.contrastive.config import TrainingConfig, parse_config
from mmalign.training.contrastive.data import CaptionedPart, TrainingData, load_data
from mmalign.training.contrastive.frozen import frozen_texts
from mmalign.training.contrastive.model import TrainableEncoder
from mmalign.training.contrastive.models import build_model
from mmalign.training.contrastive.pictures import CachedPictures, FreshPictures, frozen_pictures
from mmalign.training.contrastive.task import ContrastiveTask, Pictures, TrainingSet, training_dtype
from mmalign.training.contrastive.teachers import load_teachers, take_weights
from mmalign.training.contrastive.validate import to_tensors
from mmalign.training.loop import LoopOptions, TrainingLoop
from mmalign.training.progress import Progress
from mmalign.training.run_dir import TrainingReport, claim, run, seeded
from mmalign.utils import ShowProgress

_SAMPLE = 4096


def train_contrastive(
    config: TrainingConfig,
    out: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    device: str | None = None,
    progress: ShowProgress | None = None,
    log: Callable[[Mapping[str, Any]], None] | None = None,
) -> TrainingReport:
    """Train an encoder to bring pictures and their captions together, and export the best epoch.

    On a processor the result is the same, bit for bit, for the same configuration, data and number of torch threads,
    whether or not the run was stopped and taken up again.

    Args:
        config: What to train, on what, how; from `mmalign.training.contrastive.config.read_config`.
        out: The run's folder; one that holds a run of the same configuration is gone on with.
        cache: Where frozen arrays are kept; several runs may share it. `OUT/cache` by default.
        device: A torch device; None for CUDA where there is one, else the processor.
        progress: Told how far things are: what, how many are done, how many there are.
        log: Called with each record that is written to `OUT/log.jsonl`.

    Returns:
        The report.

    Raises:
        InputError: The folder holds a run of another configuration or other data, the data cannot be used, or the
            loss is not finite.
        StorageError: The disk refused; what was written before is kept.
        TrainingInterrupted: Ctrl-C; the state is saved.
    """
    folder = Path(out)
    where = torch.device(resolve_device(device))
    store = folder / "cache" if cache is None else Path(cache)
    claim(folder, config.to_dict(), known=lambda there: parse_config(there).to_dict())
    data = load_data(config.data, cache=store, progress=progress)
    seed = config.optimization.seed
    with seeded(seed, where):
        model = build_model(config.model, device=where, seed=seed)
        if config.model.start:
            take_weights(model, [Path(run) for run in config.model.start])
        training_set = _training_set(model, config, data, cache=store, device=where, progress=progress)
        identity = state_digest(model.state_dict(), model.image_version, model.text_version, data.digest)
        torch.manual_seed(seed)
        task = ContrastiveTask(model, config, training_set, device=where)
        loop = TrainingLoop(
            task, _loop_options(config, where), device=where, checkpoints=Checkpoints(folder, identity=identity)
        )
        return run(
            loop,
            folder,
            config=config.to_dict(),
            data=data.summary(),
            header=_header(where),
            export=lambda weights, to: (_export(model, weights, config, to, progress=loop.progress), ""),
            log=log,
            progress=progress,
        )


def _loop_options(config: TrainingConfig, device: torch.device) -> LoopOptions:
    settings = config.optimization
    return LoopOptions(
        epochs=settings.epochs,
        accumulate=settings.accumulate,
        warmup=settings.warmup,
        grad_clip=settings.grad_clip,
        ema_decay=settings.ema_decay,
        patience=settings.patience,
        loss_scaling=training_dtype(device, settings.precision) is torch.float16,
        checkpoint_minutes=settings.checkpoint_minutes,
    )


def _portable(value: Any) -> Any:
    """The same values, of absolute paths the last two parts alone: weights travel, folders of a machine do not."""
    if isinstance(value, Mapping):
        return {key: _portable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(entry) for entry in value]
    return "/".join(Path(value).parts[1:][-2:]) if isinstance(value, str) and Path(value).is_absolute() else value


def _training_set(
    model: TrainableEncoder,
    config: TrainingConfig,
    data: TrainingData,
    *,
    cache: Path,
    device: torch.device,
    progress: ShowProgress | None,
) -> TrainingSet:
    seed = config.optimization.seed

    def pictures_of(group: CaptionedPart, view: str, role: str) -> Table:
        return Table(
            *(
                frozen_pictures(model, part, view=view, cache=cache, role=role, progress=progress)
                for part in group.parts
            )
        )

    pictures: Pictures
    if config.data.cached:
        views = [pictures_of(data.train, view, "train") for view in config.data.views]
        pictures = CachedPictures(views)
    else:
        pictures = FreshPictures(model, data.train.pictures, views=config.data.views, seed=seed)
    texts = frozen_texts(model, data.train.captions, cache=cache, role="train", progress=progress)
    wants_extras = config.loss.extra_texts and data.texts
    extras = data.texts if wants_extras else []
    plan = BatchPlan(
        data.train.owner,
        np.array([picture.repeat for picture in data.train.pictures], np.float64),
        batch_size=config.optimization.batch_size,
        captions=config.loss.captions,
        extras=len(extras),
        extras_per_batch=config.loss.extra_texts,
        seed=seed,
    )
    # Weights of an earlier run belong to the mean and deviation that it found.
    if not config.model.start and type(model).standardise is not TrainableEncoder.standardise:
        draw = np.random.default_rng([seed, 0])
        some = np.sort(draw.permutation(plan.pictures)[:_SAMPLE])
        sentences = np.sort(draw.permutation(len(texts))[:_SAMPLE])
        model.standardise(
            to_tensors(pictures.batch(some, epoch=0, draw=draw), device), to_tensors(texts.take(sentences), device)
        )
    return TrainingSet(
        pictures=pictures,
        texts=texts,
        plan=plan,
        dev_images=pictures_of(data.dev, "plain", "dev"),
        dev_texts=frozen_texts(model, data.dev.captions, cache=cache, role="dev", progress=progress),
        dev_owner=data.dev.owner,
        extras=frozen_texts(model, extras, cache=cache, role="extra", progress=progress) if extras else None,
        teachers=load_teachers(
            config.loss.teachers,
            data.train,
            extras,
            temperature=config.loss.distillation_temperature,
            views=config.data.views if config.data.cached else ("plain",),
            cache=cache,
            device=device,
            progress=progress,
        ),
    )


def _export(
    model: TrainableEncoder,
    weights: Mapping[str, torch.Tensor],
    config: TrainingConfig,
    folder: Path,
    *,
    progress: Progress,
) -> Path:
    model.load_state_dict(weights)
    model.eval()
    best = progress.best or {}
    metadata = {
        "license": "see the licences of the data and of the weights that the training began with",
        "provenance": f"trained by mmalign train contrastive; epoch {best['epoch']} is the best of "
        f"{len(progress.history)}",
        "config": json.dumps(_portable(config.to_dict()), sort_keys=True),
        "scale": repr(float(best["scale"])),
        "bias": repr(float(best.get("bias", 0.0))),
    }
    return model.export(folder, metadata=metadata)


def _header(device: torch.device) -> dict[str, Any]:
    from importlib.metadata import version

    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": {
            "mmalign": version("mmalign"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
