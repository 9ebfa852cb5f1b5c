"""A tiny encoder whose answers are known: pictures and words meet in the space of colours.

Its embedding of a picture is the share of each of nine colours in it, so a text query for a colour must find the
pictures of that colour, and a picture of half red and half blue lies between the two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from mmalign.encoders import EncoderBase

COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "cyan": (0, 255, 255),
    "magenta": (255, 0, 255),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "black": (0, 0, 0),
}
_FINE = 23


class ColorEncoder(EncoderBase):
    """Encoder protocol over `COLORS`; a few further dimensions tell pictures of one colour apart."""

    name = "color@1"
    dim = len(COLORS) + _FINE
    fingerprint = hashlib.sha256(b"color@1").hexdigest()
    modalities = frozenset({"text", "image"})

    def __init__(self) -> None:
        self.encoded = 0

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        rows = np.zeros((len(texts), ColorEncoder.dim), np.float32)
        for row, text in zip(rows, texts, strict=True):
            words = text.lower().split()
            for i, color in enumerate(COLORS):
                row[i] = words.count(color)
            row[-1] = 1e-3
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_image(self, images: Iterable[Image.Image | str | Path], *, batch_size: int = 32) -> np.ndarray:
        rows = []
        for image in images:
            picture = image if isinstance(image, Image.Image) else Image.open(image)
            pixels = np.asarray(picture.convert("RGB").resize((32, 32)), np.float32).reshape(-1, 3)
            palette = np.array(list(COLORS.values()), np.float32)
            nearest = ((pixels[:, None] - palette) ** 2).sum(axis=2).argmin(axis=1)
            shares = np.bincount(nearest, minlength=len(COLORS)) / len(pixels)
            fine = np.histogram(pixels.mean(axis=1), bins=_FINE, range=(0, 255.001))[0] / len(pixels)
            rows.append(np.concatenate([shares, 0.05 * fine]))
            self.encoded += 1
        matrix = np.array(rows, np.float32).reshape(-1, ColorEncoder.dim)
        return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-9)

    def truncates(self, text: str) -> bool:
        return len(text.split()) > 1000


def paint(path: Path, color: str, *, detail: int = 0, size: tuple[int, int] = (40, 30)) -> Path:
    """Write a picture of one colour; `detail` makes its bytes, and slightly its embedding, its own."""
    picture = Image.new("RGB", size, COLORS[color])
    for i in range(detail % 97):
        picture.putpixel((i % size[0], i // size[0]), (7 * i % 256, detail % 256, detail // 256 % 256))
    picture.putpixel((size[0] - 1, size[1] - 1), (detail % 256, detail // 256 % 256, 77))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


class OtherColorEncoder(ColorEncoder):
    """The same colours in another space: other dimensions, in another order."""

    name = "color@2"
    dim = ColorEncoder.dim + 5
    fingerprint = hashlib.sha256(b"color@2").hexdigest()

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        return self._turn(super().encode_text(texts))

    def encode_image(self, images: Iterable[Image.Image | str | Path], *, batch_size: int = 32) -> np.ndarray:
        return self._turn(super().encode_image(images))

    def _turn(self, rows: np.ndarray) -> np.ndarray:
        return np.pad(rows[:, ::-1], ((0, 0), (2, 3)))
