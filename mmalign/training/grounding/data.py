"""What the grounding head learns from: the cells of pictures, kept on disk, and where in them phrases are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from mmalign.encoders import FEATURES, STRIDE, TwoTowerEncoder
from mmalign.evaluation import PhrasePicture
from mmalign.grounding import SIDE, grounding_cells
from mmalign.media import load_pictures
from mmalign.types import Skip
from mmalign.utils import Float32Array, write_atomic

REDUCED = 320
"""How many of the directions in which cells differ most are kept of their features."""
_SAMPLE = 120
_SAVE_EVERY = 50


@dataclass(frozen=True, slots=True, eq=False)
class Basis:
    """From a cell's features to fewer numbers of unit variance; linear, so that a trained layer can take it in.

    Attributes:
        mean: Shape (inputs,).
        matrix: Shape (outputs, inputs): the reduced features are `matrix @ (features - mean)`.
    """

    mean: Float32Array
    matrix: Float32Array

    def __call__(self, features: Float32Array) -> Float32Array:
        """Reduce an array of shape (..., inputs) to (..., outputs)."""
        centred = features - self.mean
        # Only the first rows mix features; the others are one number times a projection, and cost nothing.
        kept = len(self.matrix) - (self.matrix.shape[1] - FEATURES)
        mixed = centred[..., :FEATURES] @ self.matrix[:kept, :FEATURES].T
        return np.concatenate([mixed, centred[..., FEATURES:] * self.matrix[-1, -1]], axis=-1)


def fit_basis(features: Float32Array, *, reduced: int = REDUCED) -> Basis:
    """Find the directions in which features differ most.

    Args:
        features: What `grounding_cells` gives, shape (n, 2120 + dim).
        reduced: How many directions are kept of the first 2120; the projections behind them are all kept, scaled.

    Returns:
        The basis.

    Source: principal components of standardised features, whitened.
    """
    mean = features.mean(axis=0)
    deviation = features.std(axis=0) + 1e-6
    own = (features[:, :FEATURES] - mean[:FEATURES]) / deviation[:FEATURES]
    values, vectors = np.linalg.eigh((own.T @ own / len(own)).astype(np.float64))
    values, vectors = values[::-1][:reduced], vectors[:, ::-1][:, :reduced]
    dim = features.shape[1] - FEATURES
    matrix = np.zeros((len(values) + dim, features.shape[1]), np.float32)
    matrix[: len(values), :FEATURES] = (vectors / np.sqrt(values + 1e-6)).T / deviation[:FEATURES]
    # One scale for all of a projection, so that directions of the shared space keep their proportions.
    matrix[len(values) :, FEATURES:] = np.eye(dim) / deviation[FEATURES:].mean()
    return Basis(mean.astype(np.float32), matrix)


class CellCache:
    """The reduced cells of a list of pictures in a folder, computed once; a run that was stopped goes on.

    Args:
        folder: Where they are kept.
        encoder: The encoder.
        pictures: The pictures; another list, or another encoder, needs another folder.
        basis: The basis of another cache, or None to fit one to these pictures.
    """

    def __init__(
        self, folder: Path, encoder: TwoTowerEncoder, pictures: Sequence[PhrasePicture], *, basis: Basis | None = None
    ) -> None:
        self.folder, self.encoder, self.pictures = folder, encoder, pictures
        folder.mkdir(parents=True, exist_ok=True)
        self._given = basis

    @cached_property
    def basis(self) -> Basis:
        """From features to what is kept."""
        if self._given is not None:
            return self._given
        path = self.folder / "basis.npz"
        if not path.exists():
            chosen = np.random.default_rng(0).permutation(len(self.pictures))[:_SAMPLE]
            sample = []
            for result in load_pictures([self.pictures[index].uri for index in chosen]):
                if not isinstance(result, Skip) and result.image is not None:
                    cells = grounding_cells(self.encoder, result.image, bfloat16=True)
                    sample.append(cells.reshape(-1, cells.shape[2]))
            fitted = fit_basis(np.concatenate(sample))
            np.savez(path, mean=fitted.mean, matrix=fitted.matrix)
        stored = np.load(path)
        return Basis(stored["mean"], stored["matrix"])

    def fill(self, *, advance: Callable[[int], None] = lambda steps: None, most: int | None = None) -> int:
        """Compute what is missing.

        Args:
            advance: Told how many more pictures are done.
            most: Stop when so many pictures are there; all of them where None.

        Returns:
            How many of the first pictures are there.

        Raises:
            InputError: The folder holds the cells of other pictures or another encoder.
        """
        done = self._done()
        wanted = len(self.pictures) if most is None else min(most, len(self.pictures))
        advance(min(done, wanted))
        if done >= wanted:
            return done
        cells, sizes = self._open("r+" if done else "w+")
        rest = load_pictures([picture.uri for picture in self.pictures[done:wanted]])
        for index, result in enumerate(rest, done):
            if isinstance(result, Skip) or result.image is None:
                cells[index], sizes[index] = np.nan, 0
            else:
                sizes[index] = result.image.size
                cells[index] = self.basis(grounding_cells(self.encoder, result.image, bfloat16=True))
            if (index + 1) % _SAVE_EVERY == 0 or index + 1 == wanted:
                cells.flush()
                sizes.flush()
                self._write(index + 1)
            advance(1)
        return wanted

    def read(self) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Map what was kept into memory.

        Returns:
            The cells, shape (n, h, w, outputs), float16, NaN for pictures that cannot be decoded; and the widths and
            heights of the pictures in pixels, shape (n, 2), float32, 0 for such.
        """
        return self._open("r")

    def _open(self, mode: Literal["r", "r+", "w+"]) -> tuple[Any, Any]:
        n = len(self.pictures)
        shape = (n, SIDE // STRIDE, SIDE // STRIDE, len(self.basis.matrix))
        return (
            open_memmap(self.folder / "cells.npy", mode=mode, dtype=np.float16, shape=shape),
            open_memmap(self.folder / "sizes.npy", mode=mode, dtype=np.float32, shape=(n, 2)),
        )

    def _done(self) -> int:
        path = self.folder / "state.json"
        if not path.exists():
            return 0
        state = json.loads(path.read_text())
        return int(state["done"]) if state["key"] == self._key else 0

    def _write(self, done: int) -> None:
        write_atomic(self.folder / "state.json", json.dumps({"key": self._key, "done": done}))

    @property
    def _key(self) -> list[str]:
        return [
            self.encoder.fingerprint,
            str(SIDE),
            str(len(self.pictures)),
            self.pictures[0].uri,
            self.pictures[-1].uri,
        ]
