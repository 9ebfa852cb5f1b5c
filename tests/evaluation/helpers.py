"""Manifests of tiny pictures, and an encoder whose scores a test can choose."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmalign.encoders import EncoderBase


class TableEncoder(EncoderBase):
    """Looks up the vector of a text, and of a picture by the level of grey of its first pixel."""

    name, fingerprint, modalities = "table@1", "0", frozenset({"text", "image"})

    def __init__(self, texts: dict[str, Sequence[float]], images: np.ndarray) -> None:
        self.texts, self.images, self.dim = texts, np.asarray(images, np.float32), np.shape(images)[1]

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        return np.array([self.texts[text] for text in texts], np.float32)

    def encode_image(self, images: Iterable[Image.Image], *, batch_size: int = 32) -> np.ndarray:
        return self.images[[image.convert("L").getpixel((0, 0)) for image in images]]


def write(folder: Path, rows: Sequence[Any]) -> Path:
    """A manifest with one picture a row, whose level of grey is the row's number; texts are written as they are."""
    lines = []
    for number, row in enumerate(rows):
        if isinstance(row, str):
            lines.append(row)
            continue
        name = f"{number:03}.png"
        Image.new("L", (8, 8), number).save(folder / name)
        lines.append(json.dumps({"image": name, **row}))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def random_unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random vectors of length 1."""
    rows = rng.normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
