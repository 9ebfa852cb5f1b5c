"""Frozen features of a manifest's pictures and captions, computed once and kept in files that a run can resume."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from mmalign.encoders.base import ImageLike
from mmalign.encoders.efficientnet import INPUT_SIZE, preprocess
from mmalign.encoders.pictures import load_rgb
from mmalign.errors import InputError
from mmalign.similarity import Float32Array

Numbered: TypeAlias = tuple[int, str]
"""A picture's place in the manifest, which seeds its random views, and its path."""

VIEWS = ("plain", "flip", "crop")
"""Kinds of view: as the encoder sees the picture; mirrored; a random part of it, perhaps mirrored, recoloured.
`crop-1`, `crop-2`, ... are independent draws."""

_LEAST_AREA = 0.6
_ASPECT = 1.18
_COLOUR = 0.2


@dataclass(frozen=True, slots=True)
class CaptionedFeatures:
    """Frozen features of pictures and of their captions.

    Attributes:
        views: Features of each view of the n pictures, each of shape (n, d); the first is the plain one.
        texts: Features of the m captions, shape (m, e).
        owner: The picture of each caption, shape (m,), from 0 to n - 1.
    """

    views: tuple[Float32Array, ...]
    texts: Float32Array
    owner: NDArray[np.int64]


def prepare_view(image: ImageLike, *, view: str, seed: int) -> NDArray[np.uint8]:
    """Make the model's input from one view of a picture.

    Args:
        image: A picture or a path.
        view: `plain`, `flip` or `crop-N`.
        seed: Of the random choices; the same view, seed and picture always give the same result.

    Returns:
        Array of shape (288, 288, 3), uint8.

    Raises:
        DecodeError: The path cannot be decoded.
        InputError: No such view.
    """
    picture = load_rgb(image)
    kind = view.partition("-")[0]
    if kind == "plain":
        return preprocess(picture)
    if kind == "flip":
        return preprocess(picture)[:, ::-1]
    if kind != "crop":
        raise InputError(f"no view is called {view!r}; the views are plain, flip, crop-1, crop-2, ...")
    draw = random.Random(f"{view}/{seed}")
    width, height = picture.size
    side = draw.uniform(_LEAST_AREA, 1) ** 0.5
    aspect = draw.uniform(1 / _ASPECT, _ASPECT) ** 0.5
    part = (min(width, width * side * aspect), min(height, height * side / aspect))
    left, top = draw.uniform(0, width - part[0]), draw.uniform(0, height - part[1])
    box = (left, top, left + part[0], top + part[1])
    picture = picture.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC, box=box)
    if draw.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = change(picture).enhance(draw.uniform(1 - _COLOUR, 1 + _COLOUR))
    return np.asarray(picture)


def cached_features(
    folder: Path,
    name: str,
    keys: Sequence[str],
    compute: Callable[[int, int], Float32Array],
    *,
    width: int,
    version: str,
    step: int = 256,
    progress: Callable[[int], None] | None = None,
) -> Float32Array:
    """Return a matrix of features, computing only the rows that an earlier, perhaps killed, run did not finish.

    Args:
        folder: Where the files are kept; made if need be.
        name: What the features are, such as `image-plain`.
        keys: What decides each row, such as a path or a sentence; n of them.
        compute: Gives the rows from `start` up to `stop`, shape (stop - start, width).
        width: Width of a row.
        version: What else decides the rows, such as the model's digest; other keys or another version start anew.
        step: Rows computed between two marks of progress.
        progress: Called with the number of further rows done.

    Returns:
        Array of shape (n, width), float32, read from the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(json.dumps([version, width, list(keys)]).encode()).hexdigest()[:16]
    path, mark = folder / f"{name}-{digest}.npy", folder / f"{name}-{digest}.rows"
    done = int(mark.read_text()) if mark.exists() and path.exists() else 0
    if not len(keys):
        return np.zeros((0, width), np.float32)
    rows = open_memmap(path, mode="r+" if done else "w+", dtype=np.float32, shape=(len(keys), width))
    while done < len(keys):
        stop = min(done + step, len(keys))
        rows[done:stop] = compute(done, stop)
        rows.flush()
        # The mark follows the rows, and replaces the last mark whole: a kill in between repeats one step at most.
        fresh = mark.with_suffix(".tmp")
        fresh.write_text(str(stop))
        fresh.replace(mark)
        if progress is not None:
            progress(stop - done)
        done = stop
    return np.array(rows)


def view_features(
    folder: Path,
    paths: Sequence[str],
    extract: Callable[[Iterable[Numbered], Callable[[Numbered], NDArray[np.uint8]]], Iterable[Float32Array]],
    *,
    view: str,
    width: int,
    version: str,
    progress: Callable[[int], None] | None = None,
) -> Float32Array:
    """The features of one view of each picture, from the cache as far as it goes.

    Args:
        folder: The cache.
        paths: n pictures.
        extract: The frozen model: given items and how to prepare one, yields features of shape (b, width).
        view: `plain`, `flip` or `crop-N`.
        width: Width of a feature.
        version: Names the model and its preprocessing.
        progress: Called with the number of further pictures done.

    Returns:
        Array of shape (n, width), float32.

    Raises:
        DecodeError: A picture cannot be decoded.
    """

    def prepare(numbered: Numbered) -> NDArray[np.uint8]:
        return prepare_view(numbered[1], view=view, seed=numbered[0])

    def compute(start: int, stop: int) -> Float32Array:
        numbered = list(enumerate(paths))[start:stop]
        return np.concatenate(list(extract(numbered, prepare)))

    return cached_features(
        folder, f"image-{view}", paths, compute, width=width, version=f"{version}/{view}", progress=progress
    )
