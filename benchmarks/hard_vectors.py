"""Vectors of a known intrinsic dimension, and queries that lie apart from them, to measure indexes on.

A row is the image of a point of a Gaussian in INTRINSIC dimensions under a fixed random map into DIM: a linear map, the
hyperbolic tangent of each coordinate, and a rotation, scaled to length 1. So nearby rows differ in INTRINSIC
directions, and yet no subspace narrower than DIM holds all rows, so that a linear projection has no easy game.

`images-*.npy` are further rows. `queries-*.npy` are like texts that look for pictures: their points vary in half of the
dimensions alone, they are moved by a constant as long as APART of a row, and noise in all directions is added, so that
they lie off the rows. OUT gets the files that `benchmarks.vectors` describes, with `encoder.txt` to say what they are,
and rows are drawn in blocks with a seed of their own, so that whole blocks are the same for every size.

python -m benchmarks.hard_vectors OUT --rows 100000 --dim 384 --intrinsic 40
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.vectors import BLOCK, save, truths, unit

SEED = 20_261_130
# How far the tangent bends, how far queries are moved, and how long their noise is; rows have length 1.
BEND, APART, NOISE = 1.5, 0.7, 0.3
TRAINED, ASKED = 10_000, 1_000
Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Surface:
    """A fixed map from few dimensions into many.

    Attributes:
        spread: Shape (intrinsic, dim).
        turn: Shape (dim, dim), a rotation.
        gap: Shape (dim,), of length APART.
    """

    spread: Array
    turn: Array
    gap: Array

    @classmethod
    def draw(cls, dim: int, intrinsic: int) -> Surface:
        """Draw a map.

        Args:
            dim: Width of a vector.
            intrinsic: 2 to dim.

        Returns:
            The same map for the same numbers.
        """
        rng = np.random.default_rng((SEED, dim, intrinsic))
        spread = rng.normal(size=(intrinsic, dim)) * BEND / intrinsic**0.5
        turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
        gap = rng.normal(size=dim)
        return cls(
            spread.astype(np.float32), turn.astype(np.float32), (APART * gap / np.linalg.norm(gap)).astype(np.float32)
        )

    def rows(self, count: int, seed: Sequence[int]) -> Array:
        """Rows of length 1, shape (count, dim)."""
        points = np.random.default_rng((SEED, *seed)).standard_normal((count, len(self.spread)), np.float32)
        return unit(np.tanh(points @ self.spread) @ self.turn)

    def texts(self, count: int, seed: Sequence[int]) -> Array:
        """Queries of length 1 that lie apart from all rows, shape (count, dim)."""
        rng = np.random.default_rng((SEED, *seed))
        points = rng.standard_normal((count, len(self.spread)), np.float32)
        points[:, len(self.spread) // 2 :] = 0
        noise = rng.standard_normal((count, len(self.turn)), np.float32) * NOISE / len(self.turn) ** 0.5
        return unit(unit(np.tanh(points @ self.spread) @ self.turn) + self.gap + noise)


def make(out: Path, rows: int, dim: int, intrinsic: int) -> None:
    """Write all files."""
    out.mkdir(parents=True, exist_ok=True)
    surface = Surface.draw(dim, intrinsic)
    partial = out / "base.partial.npy"
    held = np.lib.format.open_memmap(partial, "w+", np.float16, (rows, dim))
    for i in range(0, rows, BLOCK):
        held[i : i + BLOCK] = surface.rows(min(BLOCK, rows - i), (0, i))
    held.flush()
    partial.replace(out / "base.npy")
    for number, (part, count) in enumerate((("train", TRAINED), ("tune", ASKED), ("test", ASKED)), 1):
        save(out / f"queries-{part}.npy", surface.texts(count, (number, 0)))
        if part != "train":
            save(out / f"images-{part}.npy", surface.rows(count, (number, 1)))
    (out / "encoder.txt").write_text(
        f"benchmarks.hard_vectors, intrinsic dimension {intrinsic}, queries apart", encoding="utf-8"
    )
    truths(out)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hard_vectors", description=__doc__)
    parser.add_argument("out", type=Path, help="folder that is to be made")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--intrinsic", type=int, default=40)
    options = parser.parse_args(arguments)
    if (options.out / "base.npy").exists():
        parser.error(f"{options.out} holds vectors already; name a folder that is to be made")
    if not 2 <= options.intrinsic <= options.dim:
        parser.error(f"--intrinsic must be 2 to {options.dim}, the width, got {options.intrinsic}")
    make(options.out, options.rows, options.dim, options.intrinsic)


if __name__ == "__main__":
    main()
