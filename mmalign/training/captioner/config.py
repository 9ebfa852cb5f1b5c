"""What the training of a captioner is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.captioning import FusionName
from mmalign.errors import InputError
from mmalign.training.manifest import PartConfig
from mmalign.training.options import check_range, override, parse_options, read_toml
from mmalign.types import field_values

_NOTHING = "there is nothing to learn from; name files of sentences with --text, or --manifest, or --collection"


@dataclass(frozen=True, slots=True)
class CaptionerData:
    """What a captioner learns from.

    Attributes:
        text: Files of sentences, one a line.
        most_texts: How many of those sentences are used, drawn at random; 0 for all.
        pairs: Pictures with captions, learnt from beside the sentences; none to train on text alone.
        collections: Folders of collections whose captioned pictures are learnt from as well, by their stored
            embeddings; those without captions tell where pictures lie. Pictures of `dev` and `held_out` are left out.
        dev: Pictures that are measured on after every epoch; None to measure on one in twenty of the captioned pictures
            (1,000 at most), or where there are fewer than twenty, of the sentences, which are then not learnt from.
        held_out: Pictures whose captions no sentence may resemble, beside those of `dev`.
        fuzzy_twins: Least likeness, 0 to 1, of a sentence that is dropped because it nearly equals a caption of `dev`
            or `held_out`.
    """

    text: tuple[str, ...] = ()
    most_texts: int = 0
    pairs: tuple[PartConfig, ...] = ()
    collections: tuple[str, ...] = ()
    dev: PartConfig | None = None
    held_out: tuple[PartConfig, ...] = ()
    fuzzy_twins: float = 0.8

    def __post_init__(self) -> None:
        if not (self.text or self.pairs or self.collections):
            raise InputError(_NOTHING)


@dataclass(frozen=True, slots=True)
class CaptionerConfig:
    """How a captioner is trained.

    Attributes:
        data: What it learns from.
        encoder: Whose embeddings it reads.
        vocabulary: Most tokens.
        fusion: How picture and captions are joined.
        width: Of the decoder's states.
        layers: The decoder's blocks.
        epochs: How often the pairs come up; without pairs, the sentences.
        texts_per_epoch: Sentences of an epoch beside the pairs, drawn anew each time; 0 for all of them.
        batch_size: Captions a step.
        learning_rate: Peak of AdamW's.
        weight_decay: Of matrices.
        warmup: Steps until the peak.
        smoothing: Label smoothing.
        text_cosine: Cosine between a sentence's embedding and what stands for its picture.
        picture_cosine: Cosine between the embedding of a picture that was trained on and what stands for it: an encoder
            knows the pictures that it was itself trained on better than new ones.
        views: Noised vectors of each picture, each with its own retrieved captions.
        context: Captions retrieved for each.
        drop_context: Share of the examples without retrieved captions.
        drop_vector: Share without an embedding.
        language_model: A language model of Hugging Face, `hf:NAME_OR_PATH`, that a soft prefix is trained for, instead
            of a decoder: vectors made from the embedding, which the model, itself unchanged, reads behind its prompt.
            `vocabulary`, `fusion`, `width`, `layers`, `smoothing`, `drop_vector` and `start` then mean nothing.
        prefix_length: How many vectors a soft prefix has.
        start: A decoder's file whose weights and vocabulary are begun with; none for random ones.
        seed: Of everything random.
        bf16: Whether to compute in bfloat16 where that is safe and the device has instructions for it.
    """

    data: CaptionerData
    encoder: str = "lite"
    vocabulary: int = 4096
    fusion: FusionName = "transformer"
    width: int = 256
    layers: int = 3
    epochs: int = 4
    texts_per_epoch: int = 0
    batch_size: int = 128
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 100
    smoothing: float = 0.05
    text_cosine: float = 0.63
    picture_cosine: float = 0.78
    views: int = 3
    context: int = 32
    drop_context: float = 0.1
    drop_vector: float = 0.1
    language_model: str = ""
    prefix_length: int = 8
    start: str = ""
    seed: int = 0
    bf16: bool = True

    def __post_init__(self) -> None:
        values = field_values(self)
        for name, least, most in (
            ("vocabulary", 300, 65536), ("width", 8, 4096), ("layers", 1, 48), ("epochs", 1, 10000),
            ("texts_per_epoch", 0, 10**9), ("batch_size", 1, 65536), ("learning_rate", 0, 10), ("weight_decay", 0, 10),
            ("warmup", 0, 10**6), ("smoothing", 0, 0.9), ("text_cosine", 0.05, 1), ("picture_cosine", 0.05, 1),
            ("views", 1, 64), ("prefix_length", 1, 256), ("context", 1, 256), ("drop_context", 0, 1),
            ("drop_vector", 0, 1),
        ):  # fmt: skip
            check_range(name, values[name], least=least, most=most)
        kind, _, name = self.language_model.partition(":")
        if self.language_model and not (kind == "hf" and name):
            raise InputError(f"language_model is hf:NAME_OR_PATH, got {self.language_model!r}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return dataclasses.asdict(self)


def read_captioner_config(path: Path | None, *, options: Mapping[str, Any], data: Mapping[str, Any]) -> CaptionerConfig:
    """Read a TOML file, and put options on top of it.

    Args:
        path: The file: the keys of `CaptionerConfig`, those of `CaptionerData` under `[data]`; None for none. Paths in
            it are relative to it.
        options: Keys of `CaptionerConfig` that replace the file's, None for those that do not.
        data: The same for `[data]`.

    Returns:
        The configuration.

    Raises:
        SourceError: The file cannot be read, or is no TOML.
        InputError: Unknown keys or wrong values.
    """
    table = {} if path is None else _absolute(read_toml(path), path.absolute().parent)
    table = override(table, {**options, **{f"data.{name}": value for name, value in data.items()}})
    learnt = table.get("data", {})
    if isinstance(learnt, Mapping) and not any(learnt.get(name) for name in ("text", "pairs", "collections")):
        raise InputError(_NOTHING)
    return parse_options(CaptionerConfig, table, where="")


def _absolute(value: Any, folder: Path, key: str = "") -> Any:
    """The same values, paths that are relative taken from the folder of the file."""
    if isinstance(value, Mapping):
        return {name: _absolute(entry, folder, name) for name, entry in value.items()}
    if isinstance(value, list):
        return [_absolute(entry, folder, key) for entry in value]
    if key == "language_model" and (folder / str(value).removeprefix("hf:")).exists():
        # Else it is a name on the hub.
        return f"hf:{folder / str(value).removeprefix('hf:')}"
    return str(folder / value) if key in ("text", "manifest", "collections", "start") and value else value
