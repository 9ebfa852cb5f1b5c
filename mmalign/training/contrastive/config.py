"""What a contrastive training is told: the TOML file, as frozen dataclasses."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mmalign.errors import InputError
from mmalign.training.manifest import PartConfig
from mmalign.training.options import check_range, override, parse_options, read_toml
from mmalign.types import field_values


@dataclass(frozen=True, slots=True)
class DataConfig:
    """What is learnt from, and what is kept out of it.

    Attributes:
        manifest: The manifest of the parts that name none.
        train: What to train on.
        dev: What is measured on after every epoch, and chooses the best epoch.
        held_out: What the training must not resemble, beside `dev`.
        texts: Files of sentences without pictures, one a line, for the distillation.
        most_texts: How many of those sentences are used, drawn at random; 0 for all.
        cached: Whether the frozen part's outputs are computed once for a fixed set of views; else pictures are
            decoded and augmented afresh in every epoch.
        views: With `cached`: `plain`, `flip`, `crop-1`, `crop-2`, ...; one is drawn for each picture each time.
            Without: `plain` (nothing random), `flip` (mirrored at random), `crop` (a random part, mirrored and
            recoloured at random).
        near_duplicates: Least likeness, 0 to 1, of a training picture that is dropped because it shows what a dev or
            held-out picture shows; 0 drops none. Needs the weights of `mmalign[lite1]`.
        fuzzy_twins: Least likeness, 0 to 1, of a training sentence that is dropped because it nearly equals a dev or
            held-out one; 0 drops those with the same words alone.
    """

    manifest: str = ""
    train: tuple[PartConfig, ...] = (PartConfig(splits=("train",)),)
    dev: PartConfig = field(default_factory=lambda: PartConfig(splits=("dev",)))
    held_out: tuple[PartConfig, ...] = ()
    texts: tuple[str, ...] = ()
    most_texts: int = 0
    cached: bool = True
    views: tuple[str, ...] = ("plain", "flip")
    near_duplicates: float = 0.75
    fuzzy_twins: float = 0.8

    def __post_init__(self) -> None:
        check_range("near_duplicates", self.near_duplicates, least=0, most=1)
        check_range("fuzzy_twins", self.fuzzy_twins, least=0, most=1)
        check_range("most_texts", self.most_texts, least=0)
        if not self.train:
            raise InputError("train must name at least one part to train on")
        from mmalign.training.contrastive.augment import check_views

        check_views(self.views, cached=self.cached)


@dataclass(frozen=True, slots=True)
class EncoderModelConfig:
    """Which model is trained.

    Attributes:
        kind: `lite`, `open_clip` or `adapter`.
        start: Finished runs of the same model, the mean of whose best weights is trained on; none for the model's own.
            A run that is named twice counts twice. Runs of other seeds do not average well; those of one seed with
            other data, losses or rates do.
        options: The model's own settings: every other key of `[model]`.
    """

    kind: str
    start: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


_MODEL_KEYS = ("kind", "start")


@dataclass(frozen=True, slots=True)
class LossConfig:
    """What is minimised.

    Attributes:
        kind: `clip` (softmax over the batch) or `siglip` (a sigmoid for each pair).
        captions: Captions of each picture a step, drawn anew each time.
        label_smoothing: Of the captions' side of `clip`.
        temperature: To begin with; learned. Left out: the model's own, else 0.07 (`clip`) or 0.1 (`siglip`).
        largest_scale: Bound of the learned inverse temperature.
        hard_negative_weight: Weight of the triplet loss on the hardest negative of the batch.
        hard_negative_margin: Its margin, a cosine.
        neighbours: From the second epoch on, pictures are batched in groups of so many that were near one another in
            the last epoch; 0 or 1 batches at random.
        teachers: Folders of finished runs; with cached views, each sees the mean of a picture's views.
        distillation_weight: Weight of the distillation.
        contrastive_weight: Weight of the contrastive loss.
        distillation_temperature: Of the teachers' and the student's softmax, as a cosine's divisor.
        extra_texts: Sentences without a picture that are added to each step's distillation.
    """

    kind: Literal["clip", "siglip"] = "clip"
    captions: int = 2
    label_smoothing: float = 0.0
    temperature: float | None = None
    largest_scale: float = 100.0
    hard_negative_weight: float = 0.0
    hard_negative_margin: float = 0.2
    neighbours: int = 0
    teachers: tuple[str, ...] = ()
    distillation_weight: float = 1.0
    contrastive_weight: float = 1.0
    distillation_temperature: float = 0.05
    extra_texts: int = 0

    def __post_init__(self) -> None:
        values = field_values(self)
        check_range("captions", self.captions, least=1)
        check_range("label_smoothing", self.label_smoothing, least=0, most=0.99)
        if self.temperature is not None:
            check_range("temperature", self.temperature, least=0, above=True)
        check_range("largest_scale", self.largest_scale, least=0, above=True)
        for name in ("hard_negative_weight", "hard_negative_margin", "distillation_weight", "contrastive_weight"):
            check_range(name, values[name], least=0)
        check_range("neighbours", self.neighbours, least=0)
        check_range("distillation_temperature", self.distillation_temperature, least=0, above=True)
        check_range("extra_texts", self.extra_texts, least=0)
        if self.extra_texts and not self.teachers:
            raise InputError("extra_texts needs teachers: a sentence without a picture is learnt from them alone")


@dataclass(frozen=True, slots=True)
class OptimizationConfig:
    """How it is minimised.

    Attributes:
        epochs: Passes over the pictures; 0 measures and exports what `model.start` names, and learns nothing.
        batch_size: Pictures a step.
        accumulate: Batches whose gradients are averaged into one step.
        learning_rate: At its peak; it rises over `warmup` steps and falls as a cosine.
        warmup: Steps.
        weight_decay: Of the matrices, decoupled.
        betas: Of AdamW.
        grad_clip: Longest gradient; 0 for no bound.
        ema_decay: Of the running mean of the weights, which is what is measured and exported; 0 for none.
        precision: `auto` (bf16 on CUDA, fp32 elsewhere), `fp32`, `bf16` or `fp16` (CUDA alone).
        seed: Of all that is random.
        patience: Epochs without a better dev figure after which the training stops; 0 never stops.
        checkpoint_minutes: A checkpoint is written after every epoch, and at the latest after so long.
    """

    epochs: int = 10
    batch_size: int = 256
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: int = 20
    weight_decay: float = 0.05
    betas: tuple[float, ...] = (0.9, 0.999)
    grad_clip: float = 1.0
    ema_decay: float = 0.0
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = 0
    patience: int = 0
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        values = field_values(self)
        for name, least in (("epochs", 0), ("batch_size", 2), ("accumulate", 1), ("warmup", 0), ("patience", 0)):
            check_range(name, values[name], least=least)
        check_range("learning_rate", self.learning_rate, least=0, above=True)
        check_range("weight_decay", self.weight_decay, least=0)
        check_range("grad_clip", self.grad_clip, least=0)
        check_range("ema_decay", self.ema_decay, least=0, most=0.99999)
        check_range("checkpoint_minutes", self.checkpoint_minutes, least=0)
        check_range("seed", self.seed, least=0)
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must be two numbers from 0 up to below 1, got {list(self.betas)}")


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """All that decides a training.

    Attributes:
        model: Which model.
        data: Of what.
        loss: Towards what.
        optimization: How.
    """

    model: EncoderModelConfig
    data: DataConfig = DataConfig()
    loss: LossConfig = LossConfig()
    optimization: OptimizationConfig = OptimizationConfig()

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON-ready values, the shape that `parse_config` takes."""
        values = dataclasses.asdict(self)
        # As it is written in a file: one run as a text.
        start = self.model.start[0] if len(self.model.start) == 1 else list(self.model.start) or ""
        values["model"] = {"kind": self.model.kind, "start": start, **self.model.options}
        if values["loss"]["temperature"] is None:
            del values["loss"]["temperature"]
        return values


def parse_config(table: Mapping[str, Any], *, folder: Path | None = None) -> TrainingConfig:
    """Make the configuration of a TOML document's tables.

    Args:
        table: The document.
        folder: What relative paths of manifests, texts and teachers are relative to; they are left where None.

    Returns:
        The configuration.

    Raises:
        InputError: Unknown keys, wrong types, or values out of range.
    """
    document = dict(table)
    model = document.pop("model", {})
    if isinstance(model, Mapping):
        known = {key: model[key] for key in _MODEL_KEYS if key in model}
        if isinstance(known.get("start"), str):
            known["start"] = [known["start"]] if known["start"] else []
        document["model"] = {
            **known,
            "options": {key: value for key, value in model.items() if key not in _MODEL_KEYS},
        }
    else:
        document["model"] = model
    config = parse_options(TrainingConfig, document, where="")
    return config if folder is None else _anchored(config, folder)


def read_config(path: str | os.PathLike[str], *, manifest: str | os.PathLike[str] | None = None) -> TrainingConfig:
    """Read a configuration file; its relative paths are relative to it.

    Args:
        path: The TOML file.
        manifest: Stands for the `manifest` of `[data]`.

    Returns:
        The configuration.

    Raises:
        SourceError: The file cannot be read or is not TOML.
        InputError: Unknown keys, wrong types, or values out of range.
    """
    file = Path(path)
    given = None if manifest is None else str(Path(manifest).absolute())
    table = override(read_toml(file), {"data.manifest": given})
    try:
        return parse_config(table, folder=file.absolute().parent)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _anchored(config: TrainingConfig, folder: Path) -> TrainingConfig:
    def path(text: str) -> str:
        return os.path.normpath(folder / Path(text).expanduser()) if text else ""

    def part(part: PartConfig) -> PartConfig:
        return dataclasses.replace(part, manifest=path(part.manifest or config.data.manifest))

    data = config.data
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, start=tuple(map(path, config.model.start))),
        data=dataclasses.replace(
            data,
            manifest=path(data.manifest),
            train=tuple(map(part, data.train)),
            dev=part(data.dev),
            held_out=tuple(map(part, data.held_out)),
            texts=tuple(map(path, data.texts)),
        ),
        loss=dataclasses.replace(config.loss, teachers=tuple(map(path, config.loss.teachers))),
    )
