"""What the grounding head learns from: the cells of pictures, kept on disk, and where in them phrases are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders import FEATURES, STRIDE, TwoTowerEncoder
from mmalign.errors import InputError
from mmalign.evaluation import PhrasePicture
from mmalign.grounding import SIDE, grounding_cells
from mmalign.media import load_pictures
from mmalign.training.cache import Arrays, cached_arrays
from mmalign.types import Skip
from mmalign.utils import Float32Array

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


@dataclass(frozen=True, slots=True, eq=False)
class PictureCells:
    """The reduced cells of n pictures.

    Attributes:
        pictures: The pictures.
        basis: From features to what is kept of them.
        cells: Shape (n, h, w, outputs), float16, mapped from a file; NaN for pictures that cannot be decoded.
        sizes: Width and height of each picture in pixels, shape (n, 2), float32; 0 for such.
    """

    pictures: Sequence[PhrasePicture]
    basis: Basis
    cells: NDArray[np.float16]
    sizes: NDArray[np.float32]


def cached_cells(
    folder: Path,
    encoder: TwoTowerEncoder,
    pictures: Sequence[PhrasePicture],
    *,
    basis: Basis | None = None,
    advance: Callable[[int], None] | None = None,
) -> PictureCells:
    """Return the reduced cells of pictures, computing only those that an earlier run did not.

    Args:
        folder: Where they are kept; runs may share it.
        encoder: The encoder.
        pictures: At least one.
        basis: How they are reduced; None to fit a basis to these pictures, which is kept with them.
        advance: Told how many more pictures are done.

    Returns:
        The cells.

    Raises:
        InputError: None of the pictures that a basis is fitted to can be decoded.
        StorageError: The disk refused; what was written is kept.
    """
    uris = [picture.uri for picture in pictures]
    basis = _cached_basis(folder, encoder, uris) if basis is None else basis
    digest = hashlib.sha256(basis.mean.tobytes() + basis.matrix.tobytes()).hexdigest()
    side = SIDE // STRIDE

    def compute(start: int) -> Iterator[Arrays]:
        for result in load_pictures(uris[start:]):
            cells = np.full((1, side, side, len(basis.matrix)), np.nan, np.float16)
            sizes = np.zeros((1, 2), np.float32)
            if not isinstance(result, Skip) and result.image is not None:
                cells[0] = basis(grounding_cells(encoder, result.image, bfloat16=True))
                sizes[0] = result.image.size
            yield {"cells": cells, "sizes": sizes}

    found = cached_arrays(
        folder,
        "grounding-cells",
        uris,
        compute,
        version=f"{encoder.fingerprint} {SIDE} {digest}",
        flush_rows=_SAVE_EVERY,
        progress=advance,
    )
    return PictureCells(pictures, basis, found["cells"], found["sizes"])


def _cached_basis(folder: Path, encoder: TwoTowerEncoder, uris: Sequence[str]) -> Basis:
    """A basis that is fitted to some of the pictures, kept as the one row of its file."""
    chosen = [uris[index] for index in np.random.default_rng(0).permutation(len(uris))[:_SAMPLE]]

    def compute(start: int) -> Iterator[Arrays]:
        sample = []
        for result in load_pictures(chosen):
            if not isinstance(result, Skip) and result.image is not None:
                cells = grounding_cells(encoder, result.image, bfloat16=True)
                sample.append(cells.reshape(-1, cells.shape[2]))
        if not sample:
            raise InputError(f"none of the {len(chosen)} pictures to learn from that were tried can be decoded")
        fitted = fit_basis(np.concatenate(sample))
        yield {"mean": fitted.mean[None], "matrix": fitted.matrix[None]}

    version = f"{encoder.fingerprint} {SIDE} {REDUCED}"
    found = cached_arrays(folder, "grounding-basis", [json.dumps(chosen)], compute, version=version)
    return Basis(np.array(found["mean"][0]), np.array(found["matrix"][0]))
