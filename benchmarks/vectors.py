"""A million and more picture embeddings, and sentences that ask for them, to measure indexes on.

Real: what `lite` makes of all pictures of `flickr8k`, `coco`, `ucm`, `imagenet_sample`, `openclipart` and `openmoji`
(13,010), of a random crop of 6,000 of them, and of the sentences of `text/flickr30k.txt`, which are the queries.

Grown, so that there are enough: row i of `base.npy` begins with a picture drawn uniformly, is turned towards one of
its 10 nearest pictures (drawn uniformly) by a share of the angle between them drawn from 0 to 0.5 (slerp), and is then
moved by two crop displacements, each the embedding of a real crop minus that of its picture, drawn from the 16 crops
whose pictures are nearest to the one begun with; it is scaled back to length 1 and rounded to float16. Rows are drawn
in blocks with a seed of their own, so that whole blocks are the same for every size. Image queries are drawn in the
same way with other seeds; they are in no base.

What was grown is compared with what is real, samples of equal size: cosines of the nearest and 10th nearest
neighbours, the local intrinsic dimension (Levina and Bickel's estimate from 20 neighbours), and the scores of the best
and 10th best picture for sentences. The figures go to `benchmarks/results/vectors.json`.

OUT then holds `base.npy` (float16), `queries-{train,tune,test}.npy` and `images-{tune,test}.npy` (float32, rows of
length 1, no sentence in two of them), and `truth-{text,image}-{tune,test}.npz` (scores and ids of the true 100
nearest). A run that was killed goes on where it was.

python -m benchmarks.vectors DATA OUT [--rows ROWS] [--texts TEXTS]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import write
from benchmarks.vector_sources import SEED, SETS, Sources, encode_sources
from mmalign.index.recall.ground_truth import exact_truth

BLOCK = 50_000
NEAR_PICTURES, NEAR_CROPS, TURN, CROPS = 10, 16, 0.5, 2
TESTED, TUNED = 1_000, 1_000
DEPTH = 100
COMPARED, NEIGHBOURS = 4_000, 20
Array = NDArray[np.float32]


def unit(rows: Array) -> Array:
    """Rows scaled to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def nearest(queries: Array, rows: Array, k: int, *, same: bool = False) -> tuple[Array, NDArray[np.int64]]:
    """The k largest inner products of each query and where they are, best first; `same` leaves out the row itself."""
    scores = queries @ rows.T
    if same:
        np.fill_diagonal(scores, -np.inf)
    found = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(scores, found, 1), axis=1)
    found = np.take_along_axis(found, order, 1)
    return np.take_along_axis(scores, found, 1), found


@dataclass(frozen=True, slots=True)
class Growth:
    """What rows are grown from.

    Attributes:
        pictures: Shape (n, dim).
        near: The nearest other pictures of each, shape (n, NEAR_PICTURES).
        displacements: Shape (crops, dim).
        near_crops: The crops whose pictures are nearest to each picture, shape (n, NEAR_CROPS).
    """

    pictures: Array
    near: NDArray[np.int64]
    displacements: Array
    near_crops: NDArray[np.int64]

    @classmethod
    def prepare(cls, sources: Sources) -> Growth:
        """Find the neighbours."""
        pictures = sources.pictures
        origins = pictures[sources.crop_of]
        return cls(
            pictures,
            nearest(pictures, pictures, NEAR_PICTURES, same=True)[1],
            sources.crops - origins,
            nearest(pictures, origins, NEAR_CROPS)[1],
        )

    def rows(self, count: int, seed: Sequence[int]) -> Array:
        """Grow rows, as the module says."""
        rng = np.random.default_rng(seed)
        start = rng.integers(0, len(self.pictures), count)
        end = self.near[start, rng.integers(0, NEAR_PICTURES, count)]
        share = rng.uniform(0, TURN, (count, 1)).astype(np.float32)
        a, b = self.pictures[start], self.pictures[end]
        angle = np.arccos(np.clip(np.sum(a * b, axis=1, keepdims=True), -1, 1))
        # Copies of one picture have no angle between them, and any mixture of the two is right.
        sine = np.sin(angle)
        with np.errstate(invalid="ignore", divide="ignore"):
            grown = np.where(sine < 1e-3, a, (np.sin((1 - share) * angle) * a + np.sin(share * angle) * b) / sine)
        for _ in range(CROPS):
            grown = grown + self.displacements[self.near_crops[start, rng.integers(0, NEAR_CROPS, count)]]
        return unit(grown)


def profile(rows: Array, texts: Array) -> dict[str, str]:
    """What tells one set of pictures from another."""
    chosen = np.random.default_rng(SEED).choice(len(rows), min(COMPARED, len(rows) - 1), replace=False)
    scores = rows[chosen] @ rows.T
    scores[np.arange(len(chosen)), chosen] = -np.inf
    best = -np.sort(np.partition(-scores, NEIGHBOURS, axis=1)[:, :NEIGHBOURS], axis=1)
    distances = np.sqrt(np.maximum(2 - 2 * best, 1e-9))
    local = 1 / np.mean(np.log(distances[:, -1:] / distances[:, :-1]))
    asked = nearest(texts[:COMPARED], rows, NEIGHBOURS)[0]
    return {
        "cosine_of_the_nearest": quantiles(best[:, 0]),
        "cosine_of_the_10th_nearest": quantiles(best[:, 9]),
        "local_intrinsic_dimension": f"{local:.1f}",
        "score_of_a_sentence's_best_picture": quantiles(asked[:, 0]),
        "score_of_a_sentence's_10th_best_picture": quantiles(asked[:, 9]),
    }


def quantiles(values: Array) -> str:
    """The 5%, 50% and 95% quantile in words."""
    return " / ".join(f"{value:.3f}" for value in np.percentile(values, [5, 50, 95]))


def save(path: Path, array: NDArray[Any]) -> None:
    """Write an array so that the file is whole or not there."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.save(file, array)
    partial.replace(path)


def chunks(base: Path, rows: int | None = None, *, block: int = BLOCK) -> Any:
    """A function that scans the base, as `build_index` and `exact_truth` take it."""

    def scan() -> Iterator[tuple[NDArray[np.int64], Array]]:
        held = np.load(base, mmap_mode="r")[:rows]
        for i in range(0, len(held), block):
            part = np.asarray(held[i : i + block], np.float32)
            yield np.arange(i, i + len(part)), part

    return scan


def grow(out: Path, growth: Growth, rows: int) -> None:
    """Write `base.npy`."""
    path = out / "base.npy"
    if path.exists():
        return
    partial = out / "base.partial.npy"
    held = np.lib.format.open_memmap(partial, "w+", np.float16, (rows, growth.pictures.shape[1]))
    for i in range(0, rows, BLOCK):
        held[i : i + BLOCK] = growth.rows(min(BLOCK, rows - i), (SEED, 0, i))
    held.flush()
    partial.replace(path)


def truths(out: Path) -> None:
    """Write the true neighbours of the queries that are tuned and tested on, in one scan."""
    names = {
        f"{kind}-{part}": f"{stem}-{part}.npy"
        for kind, stem in (("text", "queries"), ("image", "images"))
        for part in ("tune", "test")
    }
    if all((out / f"truth-{name}.npz").exists() for name in names):
        return
    queries = {name: np.load(out / file) for name, file in names.items()}
    found = exact_truth(np.concatenate(list(queries.values())), chunks(out / "base.npy"), DEPTH)
    start = 0
    for name, asked in queries.items():
        stop = start + len(asked)
        np.savez(out / f"truth-{name}.npz", scores=found.scores[start:stop], ids=found.ids[start:stop])
        start = stop


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.vectors", description=__doc__)
    parser.add_argument("data", type=Path, help="folder of shared data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--crops", type=int, default=6_000)
    parser.add_argument("--texts", type=int, help="how many sentences; left out, all of them")
    parser.add_argument("--workers", type=int, default=2, help="processes that encode")
    options = parser.parse_args(arguments)
    out: Path = options.out
    sources = encode_sources(
        options.data, out / "sources", crops=options.crops, texts=options.texts, workers=options.workers
    )
    made_by = out / "encoder.txt"
    if (out / "base.npy").exists() and (not made_by.exists() or made_by.read_text() != sources.encoder):
        parser.error(f"{out} holds vectors of another encoder than {sources.encoder}; name a folder that is to be made")
    made_by.write_text(sources.encoder)
    growth = Growth.prepare(sources)
    grow(out, growth, options.rows)
    save(out / "queries-test.npy", sources.texts[:TESTED])
    save(out / "queries-tune.npy", sources.texts[TESTED : TESTED + TUNED])
    save(out / "queries-train.npy", sources.texts[TESTED + TUNED :])
    save(out / "images-test.npy", growth.rows(TESTED, (SEED, 1)))
    save(out / "images-tune.npy", growth.rows(TUNED, (SEED, 2)))
    truths(out)
    # What is grown lies more densely, so that equal numbers have to be compared.
    held = np.load(out / "base.npy", mmap_mode="r")
    some = np.sort(np.random.default_rng(SEED).choice(len(held), min(len(held), len(sources.pictures)), replace=False))
    real, made = profile(sources.pictures, sources.texts), profile(held[some].astype(np.float32), sources.texts)
    write(
        "vectors",
        f"{len(held):,} rows grown from {len(sources.pictures):,} pictures ({', '.join(Path(s).name for s in SETS)}) "
        f"and {len(sources.crops):,} crops; {len(sources.texts):,} sentences, by {sources.encoder}; compared are "
        f"{len(some):,} rows of "
        "each kind; quantiles are 5%, 50%, 95%",
        {name: {"real": real[name], "grown": made[name]} for name in real},
    )


if __name__ == "__main__":
    main()
