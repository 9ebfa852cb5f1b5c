"""Toy pictures with captions, and a toy model that learns them in seconds."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

from mmalign.training.cache import Arrays
from mmalign.training.contrastive.model import Tensors, TrainableEncoder
from mmalign.training.options import parse_options

COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 190, 40),
    "blue": (30, 60, 230),
    "yellow": (230, 220, 40),
    "white": (245, 245, 245),
    "black": (10, 10, 10),
    "purple": (150, 30, 170),
    "orange": (250, 140, 20),
}
WORDS = 256
SIDE = 8


def make_manifest(folder: Path, *, train: int = 40, dev: int = 24, seed: int = 0, **changes: Any) -> Path:
    """Pictures of two halves, each in one colour, and two sentences about each."""
    draw = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [(left, right) for left in COLOURS for right in COLOURS]
    draw.shuffle(pairs)
    lines = []
    for number in range(train + dev):
        left, right = pairs[number % len(pairs)]
        pixels = np.zeros((20, 24, 3))
        pixels[:, :12], pixels[:, 12:] = COLOURS[left], COLOURS[right]
        noisy = (pixels + draw.normal(0, 6, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{number:03}.png")
        captions = [f"{left} beside {right}", f"left {left} , right {right}"]
        split = "train" if number < train else "dev"
        lines.append({"image": f"{number:03}.png", "captions": captions, "split": split, **changes})
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def settings(manifest: Path, **tables: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of a small run, with some of its keys changed."""
    base: dict[str, dict[str, Any]] = {
        "data": {"manifest": str(manifest), "near_duplicates": 0.0, "fuzzy_twins": 0.0},
        "model": {"kind": "toy"},
        "loss": {},
        "optimization": {"epochs": 3, "batch_size": 16, "learning_rate": 0.02, "warmup": 2, "ema_decay": 0.9},
    }
    return {name: {**base[name], **tables.get(name, {})} for name in base}


@dataclass(frozen=True, slots=True)
class ToyOptions:
    """What the toy model may be told."""

    dim: int = 16
    dropout: float = 0.1


class ToyModel(TrainableEncoder):
    """A linear layer on 8 x 8 pixels, another on hashed words."""

    def __init__(self, options: Mapping[str, Any], *, device: torch.device, seed: int) -> None:
        super().__init__()
        chosen = parse_options(ToyOptions, options, where="model")
        self.dim, self.device = chosen.dim, device
        self.image_version, self.text_version = "toy image", "toy text"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.image = torch.nn.Linear(SIDE * SIDE * 3, self.dim)
            self.text = torch.nn.Linear(WORDS, self.dim)
        self.drop = torch.nn.Dropout(chosen.dropout)
        self.to(device)

    def prepare_image(self, picture: Image.Image) -> np.ndarray:
        return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BOX))

    def freeze_images(self, pictures: np.ndarray) -> Arrays:
        return {"pixels": (pictures.reshape(len(pictures), -1) / 255 - 0.5).astype(np.float16)}

    def freeze_texts(self, texts: Sequence[str]) -> Arrays:
        found = np.zeros((len(texts), WORDS), np.float32)
        for row, text in enumerate(texts):
            for word, after in zip(text.split(), [*text.split()[1:], ""], strict=True):
                found[row, zlib.crc32(word.encode()) % WORDS] += 1
                found[row, zlib.crc32(f"{word} {after}".encode()) % WORDS] += 1
        return {"words": found, "length": np.array([len(text) for text in texts])}

    def embed_images(self, inputs: Tensors) -> torch.Tensor:
        return functional.normalize(self.image(self.drop(inputs["pixels"])), dim=-1)

    def embed_texts(self, inputs: Tensors) -> torch.Tensor:
        return functional.normalize(self.text(self.drop(inputs["words"])), dim=-1)

    def export(self, folder: Path, *, metadata: Mapping[str, str]) -> Path:
        path = folder / "toy.safetensors"
        save_file(self.state_dict(), path, metadata=dict(metadata))
        return path
