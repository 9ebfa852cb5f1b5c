"""What a captioner learns from: sentences and pictures as embeddings, and the captions that are retrieved for each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmalign.captioning import plain_words
from mmalign.encoders import Encoder
from mmalign.errors import InputError
from mmalign.training.captioner.config import CaptionerConfig
from mmalign.training.collection_data import read_collection
from mmalign.training.embedding_cache import EmbeddingCache
from mmalign.training.manifest import CaptionedFile, read_part, read_sentences
from mmalign.training.near_duplicates import fuzzy_likeness, same_words
from mmalign.training.progress import counter
from mmalign.training.usable_pictures import usable_pictures
from mmalign.utils import Float32Array, Int64Array, ShowProgress, l2_normalize

# One in so many is measured on where nothing else is named.
_HELD = 20
# Scores of one block of queries, beside which the sentences' vectors are small.
_QUERIES = 256


@dataclass(frozen=True, slots=True)
class Queries:
    """Vectors that stand for pictures, and what was retrieved for each.

    Attributes:
        vectors: Shape (q, dim), float32, rows of length 1, the mean taken off.
        contexts: Positions of retrieved sentences, best first, shape (q, k).
        targets: Positions of the sentences that describe each.
    """

    vectors: Float32Array
    contexts: Int64Array
    targets: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class CaptionerTrainingSet:
    """All that a captioner learns from and is measured on.

    Attributes:
        sentences: Different sentences that are learnt from and retrieved.
        texts: Queries made of sentences alone, one a sentence.
        pairs: Queries made of pictures, `views` a picture.
        dev: Queries that are measured on; their targets count in `dev_captions`.
        dev_captions: Captions of the pictures that are measured on.
        picture_mean: Mean embedding of pictures, or of sentences where there are no pictures; shape (dim,).
        counts: What was found and left out.
        digest: Hex digest of all of it that decides a training.
    """

    sentences: list[str]
    texts: Queries
    pairs: Queries
    dev: Queries
    dev_captions: list[str]
    picture_mean: Float32Array
    counts: dict[str, int]
    digest: str


def load_training_set(
    config: CaptionerConfig, encoder: Encoder, *, cache: Path, progress: ShowProgress | None = None
) -> CaptionerTrainingSet:
    """Read, embed and retrieve.

    Args:
        config: What to read.
        encoder: Embeds sentences and pictures.
        cache: Where embeddings are kept by the encoder's fingerprint.
        progress: Told how far things are.

    Returns:
        The training set.

    Raises:
        SourceError: A file cannot be read.
        InputError: Too little to learn from.
    """
    counts: Counter[str] = Counter()
    data = config.data
    files: dict[str, list[CaptionedFile]] = {"train": [], "dev": [], "held_out": []}
    for role, parts in (("train", data.pairs), ("dev", [data.dev] if data.dev else []), ("held_out", data.held_out)):
        for part in parts:
            found = read_part(part, role=role, counts=counts)
            if role != "held_out":
                found, bad = usable_pictures(found, cache=cache, role=role, progress=progress)
                counts[f"{role}_undecodable_pictures"] += len(bad)
            files[role] += found
    embed = EmbeddingCache(encoder, cache, progress)
    pictures = _pictures(config, files, embed, counts)
    measured = [caption for of_one in pictures.dev_captions for caption in of_one]
    measured += [caption for file in files["held_out"] for caption in file.captions]
    sentences, owners = _sentences(config, pictures.captions, measured, counts)
    raw = embed.texts("train", sentences)
    text_mean = raw.mean(axis=0)
    picture_mean = text_mean if pictures.mean is None else pictures.mean
    vectors = l2_normalize(raw - text_mean)
    rng = np.random.default_rng(config.seed)
    shape = _shape(vectors)
    count = len(pictures.captions)
    siblings: list[set[int]] = [set() for _ in sentences]
    for targets in owners:
        for target in targets:
            siblings[target] |= set(targets)
    retrieve = _Retrieval(vectors, config.context, progress)
    texts = Queries(np.zeros((0, vectors.shape[1]), np.float32), np.zeros((0, config.context), np.int64), ())
    if data.text:
        # Captions of the pictures are learnt with their pictures.
        rows = np.array([row for row, near in enumerate(siblings) if not near], np.int64)
        moved = add_noise(vectors[rows], config.text_cosine, shape=shape, rng=rng)
        own = tuple((row,) for row in rows.tolist())
        texts = Queries(moved, retrieve("sentences", moved, own), own)
    still = l2_normalize(pictures.vectors - picture_mean)
    views = np.concatenate([add_noise(still, config.picture_cosine, shape=shape, rng=rng) for _ in range(config.views)])
    owned = tuple(owners[row % count] for row in range(len(views))) if count else ()
    pairs = Queries(views, retrieve("pictures", views, owned), owned)
    if pictures.dev_captions:
        seen = l2_normalize(pictures.dev_vectors - picture_mean)
        dev_captions = [caption for of_one in pictures.dev_captions for caption in of_one]
        ends = np.cumsum([len(of_one) for of_one in pictures.dev_captions]).tolist()
        spans = tuple(tuple(range(a, b)) for a, b in zip([0, *ends], ends, strict=False))
        dev = Queries(seen, retrieve("dev", seen, [()] * len(seen)), spans)
    else:
        dev, texts, dev_captions = _held_back(texts, sentences, rng)
    counts |= {"sentences": len(sentences), "pictures": count, "dev_pictures": len(pictures.dev_captions)}
    content = [sentences, owners, dev_captions, encoder.fingerprint]
    return CaptionerTrainingSet(
        sentences=sentences,
        texts=texts,
        pairs=pairs,
        dev=dev,
        dev_captions=dev_captions,
        picture_mean=picture_mean,
        counts={name: number for name, number in sorted(counts.items()) if number},
        digest=hashlib.sha256(json.dumps(content).encode()).hexdigest(),
    )


def add_noise(
    vectors: Float32Array, cosine: float, *, shape: Float32Array | None, rng: np.random.Generator
) -> Float32Array:
    """Turn each vector by an angle in a random direction.

    Args:
        vectors: Shape (n, dim), rows of length 1.
        cosine: Of the angle, above 0 and at most 1.
        shape: A matrix (dim, dim) that white noise is multiplied with, so that it spreads as embeddings do; None for
            the same in all directions.
        rng: Draws.

    Returns:
        Shape (n, dim), float32, rows of length 1; each has exactly this cosine with its own vector.

    Source: Nukrai et al., Text-Only Training for Image Captioning using Noise-Injected CLIP, 2022; with the same in all
    directions, `sigma = sqrt(1 / cosine^2 - 1) / sqrt(dim)` there.
    """
    noise: Any = rng.standard_normal(vectors.shape, dtype=np.float32)
    if shape is not None:
        noise = noise @ shape.T
    noise -= (noise * vectors).sum(axis=1, keepdims=True) * vectors
    return l2_normalize(cosine * vectors + np.float32(np.sqrt(1 - cosine**2)) * l2_normalize(noise))


def _shape(vectors: Float32Array) -> Float32Array:
    """A matrix that gives white noise the covariance of the vectors."""
    covariance = np.cov(vectors.T.astype(np.float64)) if len(vectors) > 1 else np.eye(vectors.shape[1])
    values, directions = np.linalg.eigh(covariance)
    result: Float32Array = (directions * np.sqrt(np.maximum(values, 0) + 1e-9)).astype(np.float32)
    return result


@dataclass(frozen=True, slots=True)
class _Pictures:
    """Pictures with captions: those that are learnt from, and those that are measured on."""

    captions: list[tuple[str, ...]]
    vectors: Float32Array
    dev_captions: list[tuple[str, ...]]
    dev_vectors: Float32Array
    mean: Float32Array | None


def _pictures(
    config: CaptionerConfig, files: dict[str, list[CaptionedFile]], embed: EmbeddingCache, counts: Counter[str]
) -> _Pictures:
    captions = [file.captions for file in files["train"]]
    vectors = [embed.pictures("train", files["train"])]
    unseen = {file.path for role in ("dev", "held_out") for file in files[role]}
    everything = [*vectors]
    for path in config.data.collections:
        found = read_collection(Path(path), embed.encoder, exclude=unseen)
        rows = [row for row, own in enumerate(found.captions) if own]
        captions += [found.captions[row] for row in rows]
        vectors.append(found.vectors[rows])
        everything.append(found.vectors)
        counts["collection_pictures"] += len(rows)
        counts["collection_pictures_without_caption"] += len(found.captions) - len(rows)
        counts["collection_pictures_measured_on"] += found.left_out
    joined, whole = np.concatenate(vectors), np.concatenate(everything)
    mean = whole.mean(axis=0) if len(whole) else None
    dev, seen = [file.captions for file in files["dev"]], embed.pictures("dev", files["dev"])
    if not dev and len(captions) >= 2 * _HELD:
        order = np.random.default_rng([config.seed, len(captions)]).permutation(len(captions))
        held, rest = np.split(order, [min(1000, len(captions) // _HELD)])
        held, rest = np.sort(held), np.sort(rest)
        dev, seen = [captions[row] for row in held.tolist()], joined[held]
        captions, joined = [captions[row] for row in rest.tolist()], joined[rest]
    return _Pictures(captions, joined, dev, seen, mean)


def _sentences(
    config: CaptionerConfig, paired: Sequence[tuple[str, ...]], measured: Sequence[str], counts: Counter[str]
) -> tuple[list[str], tuple[tuple[int, ...], ...]]:
    """The different sentences, captions of the pictures first, and which of them describe each picture."""
    numbers: dict[str, int] = {}
    found: list[str] = []

    def number(sentence: str) -> int:
        key = plain_words(sentence)
        if key not in numbers:
            numbers[key] = len(found)
            found.append(sentence)
        return numbers[key]

    captions = [caption for one in paired for caption in one]
    kept = dict.fromkeys(_unlike(captions, measured, config.data.fuzzy_twins, "train", counts))
    owners = tuple(tuple(sorted({number(caption) for caption in one if caption in kept})) for one in paired)
    texts = read_sentences(config.data.text, counts=counts)
    if config.data.most_texts and len(texts) > config.data.most_texts:
        # Those of the pictures come anyhow, and count as some of the drawn ones where a file repeats them.
        rng = np.random.default_rng(len(texts))
        texts = [texts[row] for row in np.sort(rng.permutation(len(texts))[: config.data.most_texts])]
    for sentence in _unlike(texts, measured, config.data.fuzzy_twins, "text", counts):
        number(sentence)
    if len(found) < 10:
        wanted = "expected ten different ones at least"
        if config.data.collections and not captions:
            wanted += (
                ": the pictures of the collection have no captions; name sentences with --text, or caption them first "
                "with: mmalign caption --write"
            )
        raise InputError(f"{len(found)} sentences are too few to learn from; {wanted}")
    return found, owners


def _unlike(
    sentences: Sequence[str], measured: Sequence[str], threshold: float, name: str, counts: Counter[str]
) -> list[str]:
    if not measured or not sentences:
        return list(sentences)
    bad: NDArray[np.bool_] = same_words(sentences, measured)
    if threshold:
        bad |= fuzzy_likeness(sentences, measured) >= threshold
    counts[f"{name}_twins"] = int(bad.sum())
    return [sentence for sentence, twin in zip(sentences, bad, strict=True) if not twin]


class _Retrieval:
    """Finds the sentences nearest to vectors, less those that describe them."""

    def __init__(self, vectors: Float32Array, count: int, progress: ShowProgress | None) -> None:
        self._vectors, self._count, self._progress = torch.from_numpy(vectors), min(count, len(vectors)), progress

    def __call__(self, name: str, queries: Float32Array, own: Sequence[Sequence[int]]) -> Int64Array:
        found = np.zeros((len(queries), self._count), np.int64)
        count = counter(self._progress, f"retrieval for {name}", len(queries))
        for start in range(0, len(queries), _QUERIES):
            scores = torch.from_numpy(queries[start : start + _QUERIES]) @ self._vectors.T
            for row, targets in enumerate(own[start : start + len(scores)]):
                scores[row, list(targets)] = -torch.inf
            # Several times faster on a processor than a partition by NumPy.
            found[start : start + len(scores)] = scores.topk(self._count, dim=1).indices.numpy()
            count(len(scores))
        return found


def _held_back(
    texts: Queries, sentences: Sequence[str], rng: np.random.Generator
) -> tuple[Queries, Queries, list[str]]:
    """Without pictures to measure on, one sentence in twenty, at most 1,000, is measured on and not learnt from."""
    order = rng.permutation(len(texts.targets))
    held = np.sort(order[: max(1, min(1000, len(order) // _HELD))])
    rest = np.sort(order[len(held) :])

    def part(rows: Int64Array) -> Queries:
        return Queries(texts.vectors[rows], texts.contexts[rows], tuple(texts.targets[row] for row in rows))

    dev = part(held)
    captions = [sentences[targets[0]] for targets in dev.targets]
    return Queries(dev.vectors, dev.contexts, tuple((row,) for row in range(len(held)))), part(rest), captions
