"""From a manifest to training and dev features, with what is measured on kept out of the training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders.device import resolve_device
from mmalign.encoders.efficientnet import EFFICIENTNET_WEIGHTS, FEATURES, MAP_CHANNELS, PREPROCESSING, EfficientNetLite2
from mmalign.encoders.lite import TEXT_POOLING
from mmalign.encoders.minilm import MINILM_WEIGHTS, MiniLM
from mmalign.encoders.towers import POOLING, stream_features, text_features
from mmalign.errors import InputError, SourceError
from mmalign.similarity import Float32Array
from mmalign.training.duplicates import near_duplicates, same_words
from mmalign.training.features import CaptionedFeatures, Numbered, cached_features, view_features

DUPLICATE_COSINE = 0.75
"""Centred cosine of the last map's means from which a training picture counts as a near-duplicate of a held-out one.
Looked at on a sample of Flickr8k: above 0.8 mostly one scene, a moment later; from 0.75 one event, or a lookalike."""

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Features to train on and to measure on.

    Attributes:
        train: The training pictures, without duplicates of held-out ones.
        dev: The pictures that are measured on.
        summary: Counts, for the log.
    """

    train: CaptionedFeatures
    dev: CaptionedFeatures
    summary: dict[str, Any]


def load_features(
    manifest: str | os.PathLike[str],
    *,
    cache: Path,
    views: Sequence[str],
    train_splits: Sequence[str],
    dev_split: str,
    held_out_splits: Sequence[str] = (),
    progress: Callable[[str, int, int], None] | None = None,
) -> TrainingData:
    """Compute, or read from the cache, the frozen features of a manifest.

    Args:
        manifest: A `manifest.jsonl` with `image`, `captions` and `split`.
        cache: Folder of the feature cache.
        views: Views of each training picture; the first is `plain`.
        train_splits: Splits to train on.
        dev_split: Split to measure on.
        held_out_splits: Further splits that the training must not resemble.
        progress: Called with a name, the rows done and the rows in all.

    Returns:
        The features.

    Raises:
        InputError: A split is empty or in both roles, or the first view is not `plain`.
        SourceError: The manifest cannot be read.
        DecodeError: A picture cannot be decoded.
    """
    held_out = [dev_split, *held_out_splits]
    both = sorted(set(train_splits) & set(held_out))
    if both:
        raise InputError(f"the splits {', '.join(both)} are to be trained on and held out; name each in one role")
    if not views or views[0] != "plain":
        raise InputError(f"expected the first view to be plain, got {list(views)}")
    path = Path(manifest)
    try:
        rows: list[_Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise SourceError(f"the manifest {path} cannot be read: {error}; expected a manifest.jsonl") from error
    groups = {
        name: [row for row in rows if row.get("split") in splits and row["captions"]]
        for name, splits in (("train", list(train_splits)), ("dev", [dev_split]), ("other", list(held_out_splits)))
    }
    for name in ("train", "dev"):
        if not groups[name]:
            there = sorted({str(row.get("split")) for row in rows})
            raise InputError(f"{path} has no captioned picture to use as {name}; its splits are {', '.join(there)}")
    extract = _Extractor(path.resolve().parent, cache, progress)
    plain = {name: extract.pictures(group, name, "plain") for name, group in groups.items()}
    # Without the earlier stages, whose colours and textures make any two lawns or ski slopes alike.
    scenes = {name: features[:, :MAP_CHANNELS] for name, features in plain.items()}
    held_out_scenes = np.concatenate([scenes["dev"], scenes["other"]])
    twins = near_duplicates(scenes["train"], held_out_scenes, threshold=DUPLICATE_COSINE)
    train_captions, train_owner = _captions(groups["train"])
    dev_captions, dev_owner = _captions(groups["dev"])
    echoes = same_words(train_captions, [*dev_captions, *_captions(groups["other"])[0]])
    keep = ~echoes & ~twins[train_owner]
    texts = extract.captions(train_captions, "train")
    all_views = [plain["train"], *(extract.pictures(groups["train"], "train", view) for view in views[1:])]
    return TrainingData(
        train=CaptionedFeatures(views=tuple(all_views), texts=texts[keep], owner=train_owner[keep]),
        dev=CaptionedFeatures(views=(plain["dev"],), texts=extract.captions(dev_captions, "dev"), owner=dev_owner),
        summary={
            "train_pictures": len(np.unique(train_owner[keep])),
            "train_captions": int(keep.sum()),
            "dev_pictures": len(groups["dev"]),
            "dropped_near_duplicate_pictures": int(twins.sum()),
            "dropped_equal_captions": int(echoes.sum()),
        },
    )


class _Extractor:
    """The frozen towers, loaded when the cache lacks something."""

    def __init__(self, folder: Path, cache: Path, progress: Callable[[str, int, int], None] | None) -> None:
        self._folder = folder
        self._cache = cache
        self._progress = progress
        self._image_model: EfficientNetLite2 | None = None
        self._text_model: MiniLM | None = None

    def pictures(self, rows: Sequence[_Row], name: str, view: str) -> Float32Array:
        return view_features(
            self._cache / name,
            [str(self._folder / row["image"]) for row in rows],
            self._pictures,
            view=view,
            width=FEATURES,
            version=f"{EFFICIENTNET_WEIGHTS.sha256}/{PREPROCESSING}/{FEATURES}",
            progress=self._counter(f"{name} {view}", len(rows)),
        )

    def captions(self, sentences: Sequence[str], name: str) -> Float32Array:
        return cached_features(
            self._cache / name,
            "text",
            sentences,
            lambda start, stop: text_features(self._text(), sentences[start:stop]),
            width=POOLING.features,
            version=f"{MINILM_WEIGHTS.sha256}/{TEXT_POOLING}",
            step=2048,
            progress=self._counter(f"{name} captions", len(sentences)),
        )

    def _pictures(
        self, items: Iterable[Numbered], prepare: Callable[[Numbered], NDArray[np.uint8]]
    ) -> Iterator[Float32Array]:
        if self._image_model is None:
            self._image_model = EfficientNetLite2(resolve_device(None))
        model = self._image_model
        return stream_features(lambda: model, items, prepare, batch_size=32)

    def _text(self) -> MiniLM:
        if self._text_model is None:
            self._text_model = MiniLM()
        return self._text_model

    def _counter(self, name: str, total: int) -> Callable[[int], None]:
        done = 0

        def count(rows: int) -> None:
            nonlocal done
            done += rows
            if self._progress is not None:
                self._progress(name, done, total)

        return count


def _captions(rows: Sequence[_Row]) -> tuple[list[str], NDArray[np.int64]]:
    sentences = [caption for row in rows for caption in row["captions"]]
    return sentences, np.repeat(np.arange(len(rows)), [len(row["captions"]) for row in rows])
