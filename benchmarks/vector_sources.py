"""Real embeddings of real pictures, random crops of them, and sentences, as the encoder `lite` makes them.

What `benchmarks.vectors` grows a million vectors from. Work is cut into blocks, each a file, so that a run that was
killed goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmalign.encoders.base import Encoder
from mmalign.encoders.registry import load_encoder
from mmalign.evaluation.manifest import read_manifest_rows
from mmalign.media.images import decode_image

SETS = ("flickr8k", "coco", "ucm", "imagenet_sample", "../gallery/openclipart", "../gallery/openmoji")
SENTENCES = "text/flickr30k.txt"
BLOCK = 256
SEED = 20_261_124
# A crop keeps this share of a picture's area, uniformly drawn, and its sides are in a proportion of up to 4 to 3.
AREA, PROPORTION = (0.5, 0.9), 4 / 3
Kind: TypeAlias = Literal["picture", "crop", "text"]


@dataclass(frozen=True, slots=True)
class Block:
    """Work for one file.

    Attributes:
        file: Where the embeddings go, float16 of shape (items, dim).
        kind: What is encoded.
        items: Paths or sentences.
        seeds: Of each crop; empty for the other kinds.
    """

    file: Path
    kind: Kind
    items: tuple[str, ...]
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """What was encoded.

    Attributes:
        pictures: Float32 of shape (pictures, dim), rows of length 1.
        crops: Float32 of shape (crops, dim), rows of length 1.
        crop_of: The picture of each crop, int64 of shape (crops,).
        texts: Float32 of shape (texts, dim), rows of length 1, in a random order.
        sentences: What was encoded in `texts`.
        encoder: The encoder's name and the beginning of its fingerprint.
    """

    pictures: NDArray[np.float32]
    crops: NDArray[np.float32]
    crop_of: NDArray[np.int64]
    texts: NDArray[np.float32]
    sentences: tuple[str, ...]
    encoder: str


@cache
def _encoder() -> Encoder:
    import torch

    torch.set_num_threads(1)
    return load_encoder("lite", device="cpu")


def crop(picture: Image.Image, seed: int) -> Image.Image:
    """Cut a random part out of a picture.

    Args:
        picture: Any picture.
        seed: Of the draw of area, proportion and place.

    Returns:
        The part.
    """
    draw = random.Random(seed)
    width, height = picture.size
    area, proportion = draw.uniform(*AREA) * width * height, PROPORTION ** draw.uniform(-1, 1) * width / height
    w = min(width, max(1, round((area * proportion) ** 0.5)))
    h = min(height, max(1, round((area / proportion) ** 0.5)))
    left, top = draw.randint(0, width - w), draw.randint(0, height - h)
    return picture.crop((left, top, left + w, top + h))


def _encode(block: Block) -> None:
    if block.file.exists():
        return
    if block.kind == "text":
        found = _encoder().encode_text(block.items)
    else:
        pictures = [decode_image(path).image for path in block.items]
        if block.kind == "crop":
            pictures = [crop(picture, seed) for picture, seed in zip(pictures, block.seeds, strict=True)]
        found = _encoder().encode_image(pictures)
    partial = block.file.with_suffix(f".{os.getpid()}.partial")
    with partial.open("wb") as file:
        np.save(file, found.astype(np.float16))
    partial.replace(block.file)


def _blocks(folder: Path, kind: Kind, items: Sequence[str], seeds: Sequence[int] = ()) -> list[Block]:
    return [
        Block(folder / f"{kind}-{i:06d}.npy", kind, tuple(items[i : i + BLOCK]), tuple(seeds[i : i + BLOCK]))
        for i in range(0, len(items), BLOCK)
    ]


def _read(blocks: Sequence[Block]) -> NDArray[np.float32]:
    found = np.concatenate([np.load(block.file) for block in blocks]).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def encode_sources(data: Path, folder: Path, *, crops: int, texts: int | None, workers: int) -> Sources:
    """Encode pictures, crops and sentences, or read what an earlier run has encoded.

    Args:
        data: Folder of shared data.
        folder: Where blocks are kept.
        crops: How many crops, each of another picture.
        texts: How many sentences, drawn at random; None for all.
        workers: Processes to encode with, each with one thread.

    Returns:
        The embeddings.
    """
    # Other weights make other embeddings, even under the same name.
    folder = folder / _encoder().fingerprint[:12]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [row.uri for name in SETS for row in read_manifest_rows(data / name / "manifest.jsonl")]
    rng = np.random.default_rng(SEED)
    crop_of = np.sort(rng.choice(len(paths), crops, replace=False))
    # Sentences about one picture follow one another in the file, and some are in it twice.
    lines = list(dict.fromkeys((data / SENTENCES).read_text(encoding="utf-8").splitlines()))
    sentences = [lines[i] for i in rng.permutation(len(lines))][:texts]
    work: dict[str, list[Block]] = {
        "pictures": _blocks(folder, "picture", paths),
        "crops": _blocks(folder, "crop", [paths[i] for i in crop_of], [SEED + int(i) for i in crop_of]),
        "texts": _blocks(folder, "text", sentences),
    }
    everything = [block for blocks in work.values() for block in blocks]
    waiting = [block for block in everything if not block.file.exists()]
    if waiting:
        # A forked process would inherit the threads of the libraries, which it has not.
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for done, _ in enumerate(pool.imap_unordered(_encode, waiting), 1):
                print(f"encoded {done} of {len(waiting)} blocks", flush=True)
    arrays: dict[str, Any] = {name: _read(blocks) for name, blocks in work.items()}
    return Sources(
        crop_of=crop_of.astype(np.int64),
        sentences=tuple(sentences),
        encoder=f"{_encoder().name} {folder.name}",
        **arrays,
    )
