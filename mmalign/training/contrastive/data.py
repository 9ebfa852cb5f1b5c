"""From the configuration to what is trained and measured on, with what is measured on kept out of the training."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError
from mmalign.training.cache import Arrays, cached_arrays
from mmalign.training.contrastive.config import DataConfig
from mmalign.training.contrastive.scene_features import scene_features
from mmalign.training.manifest import CaptionedFile, check_captions_differ, read_part, read_sentences
from mmalign.training.near_duplicates import TWINS_VERSION, fuzzy_likeness, near_duplicates, same_words
from mmalign.training.usable_pictures import picture_key, usable_pictures
from mmalign.types import Skip
from mmalign.utils import Float32Array, ShowProgress

_SKIPS_NAMED = 20


@dataclass(frozen=True, slots=True)
class CaptionedPart:
    """Pictures and their captions.

    Attributes:
        parts: The pictures, part by part of the configuration.
        captions: The captions.
        owner: The picture of each caption, shape (n_captions,), counted through all parts.
    """

    parts: tuple[list[CaptionedFile], ...]
    captions: list[str]
    owner: NDArray[np.int64]

    @property
    def pictures(self) -> list[CaptionedFile]:
        """The pictures of all parts."""
        return [picture for part in self.parts for picture in part]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What to train on and what to measure on.

    Attributes:
        train: The training pictures; those that were kept out have no caption left.
        dev: The pictures that are measured on.
        texts: Sentences without a picture.
        counts: What was found and what was left out, for the log.
        skips: Pictures that cannot be decoded.
    """

    train: CaptionedPart
    dev: CaptionedPart
    texts: list[str]
    counts: dict[str, int]
    skips: tuple[Skip, ...]

    @property
    def digest(self) -> str:
        """Hex digest of the pictures' names and of all sentences: a checkpoint fits these alone."""
        content: list[Any] = [self.texts]
        for group in (self.train, self.dev):
            content += [[picture.name for picture in group.pictures], group.captions, group.owner.tolist()]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def summary(self) -> dict[str, Any]:
        """Counts and the first broken pictures, JSON-ready."""
        named = [f"{skip.uri}: {skip.reason}" for skip in self.skips[:_SKIPS_NAMED]]
        return {**self.counts, **({"skipped": named} if named else {})}


def load_data(config: DataConfig, *, cache: Path, progress: ShowProgress | None = None) -> TrainingData:
    """Read the manifests, leave out what cannot be used, and keep what is measured on out of the training.

    Args:
        config: What to read.
        cache: Where to keep what was found out about the pictures.
        progress: Told how far the pictures are checked.

    Returns:
        The data.

    Raises:
        SourceError: A manifest or a file of sentences cannot be read.
        InputError: A split does not exist, a picture is in two roles, no picture is usable, or there is nothing to
            tell apart.
        MissingExtraError: Near-duplicates are to be dropped, and the weights that tell them are not installed.
    """
    counts: Counter[str] = Counter()
    skips: list[Skip] = []

    def usable(parts: Iterable[Any], role: str) -> tuple[list[CaptionedFile], ...]:
        result = []
        for part in parts:
            found = read_part(part, role=role, counts=counts)
            good, bad = usable_pictures(found, cache=cache, role=role, progress=progress)
            counts[f"{role}_undecodable_pictures"] += len(bad)
            skips.extend(bad)
            if not good:
                raise InputError(
                    f"none of the {len(found)} pictures of {part.manifest} for data.{role} can be decoded; the first: "
                    f"{bad[0].uri}: {bad[0].reason}"
                )
            result.append(good)
        return tuple(result)

    def scenes(parts: Iterable[list[CaptionedFile]], role: str) -> Float32Array:
        # Part by part, so that a further manifest leaves what is known of the others as it is.
        return np.concatenate([scene_features(part, cache=cache, role=role, progress=progress) for part in parts])

    train_parts = usable(config.train, "train")
    dev_parts = usable([config.dev], "dev")
    held_parts = usable(config.held_out, "held_out")
    measured = [picture for part in (*dev_parts, *held_parts) for picture in part]
    _check_roles(train_parts, measured)
    train, dev = _captioned(train_parts), _captioned(dev_parts)
    keep = np.ones(len(train.captions), np.bool_)
    if config.near_duplicates:
        twins = near_duplicates(
            scenes(train_parts, "train"),
            scenes((*dev_parts, *held_parts), "measured"),
            threshold=config.near_duplicates,
        )
        counts["train_near_duplicate_pictures"] = int(twins.sum())
        keep &= ~twins[train.owner]
    sentences = [caption for picture in measured for caption in picture.captions]
    texts = read_sentences(config.texts, counts=counts)

    def echoes(candidates: Sequence[str], name: str) -> NDArray[np.bool_]:
        equal = same_words(candidates, sentences)
        counts[f"{name}_equal_sentences"] = int(equal.sum())
        if not config.fuzzy_twins:
            return equal
        likeness = _likeness(candidates, sentences, cache=cache, name=name)
        fuzzy = (likeness >= config.fuzzy_twins) & ~equal
        counts[f"{name}_fuzzy_twins"] = int(fuzzy.sum())
        return equal | fuzzy

    keep &= ~echoes(train.captions, "train")
    texts = [text for text, echo in zip(texts, echoes(texts, "text"), strict=True) if not echo]
    if config.most_texts:
        # By the texts alone, so that runs with other seeds share a cache.
        texts = random.Random(len(texts)).sample(texts, min(config.most_texts, len(texts)))
    train = CaptionedPart(
        parts=train.parts,
        captions=[caption for caption, kept in zip(train.captions, keep, strict=True) if kept],
        owner=train.owner[keep],
    )
    used = np.unique(train.owner)
    everything = train.pictures
    check_captions_differ([everything[position] for position in used], role="train")
    check_captions_differ(dev.pictures, role="dev")
    counts |= {
        "train_pictures": len(used),
        "train_captions": len(train.captions),
        "dev_pictures": len(dev.pictures),
        "dev_captions": len(dev.captions),
        "held_out_pictures": len(measured) - len(dev.pictures),
        "texts": len(texts),
    }
    kept_counts = {name: count for name, count in sorted(counts.items()) if count}
    return TrainingData(train=train, dev=dev, texts=texts, counts=kept_counts, skips=tuple(skips))


def _captioned(parts: tuple[list[CaptionedFile], ...]) -> CaptionedPart:
    pictures = [picture for part in parts for picture in part]
    owner = np.repeat(np.arange(len(pictures)), [len(picture.captions) for picture in pictures])
    return CaptionedPart(parts, [caption for picture in pictures for caption in picture.captions], owner)


def _check_roles(train_parts: Sequence[Sequence[CaptionedFile]], measured: Sequence[CaptionedFile]) -> None:
    kept_out = {picture_key(picture) for picture in measured}
    both = [picture.path for part in train_parts for picture in part if picture_key(picture) in kept_out]
    if both:
        raise InputError(
            f"{len(both)} pictures are to be trained on and measured on, the first is {both[0]}; name each split in "
            "one of data.train, data.dev and data.held_out"
        )


def _likeness(candidates: Sequence[str], sentences: Sequence[str], *, cache: Path, name: str) -> Float32Array:
    """`fuzzy_likeness`, kept: a run that is taken up again need not compare hundreds of thousands of sentences."""
    if not candidates:
        return np.zeros(0, np.float32)

    def compute(start: int) -> Iterator[Arrays]:
        yield {"likeness": fuzzy_likeness(candidates, sentences)[start:]}

    version = hashlib.sha256(json.dumps([TWINS_VERSION, sentences]).encode()).hexdigest()
    return np.asarray(cached_arrays(cache / "twins", name, candidates, compute, version=version)["likeness"])
