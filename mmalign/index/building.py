"""Building an index from chunks of vectors, so that they need never be in memory together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.index.base import Index
from mmalign.index.exact import ExactIndex
from mmalign.index.plan import Budget, choose
from mmalign.index.recipe import Recipe, has_faiss_installed, load_recipe
from mmalign.similarity import Float32Array, Int64Array

Chunks: TypeAlias = Callable[[], Iterable[tuple[Int64Array, NDArray[Any]]]]
"""Called once for each pass; yields `(ids, vectors)`, int64 of shape (n,) and float of shape (n, dim)."""


def build_index(
    recipe: str | Recipe,
    chunks: Chunks,
    *,
    rows: int,
    dim: int,
    queries: Float32Array | None = None,
    device: str = "cpu",
    memory: int | None = None,
    advance: Callable[[int], None] | None = None,
    seed: int = 0,
    workspace: Path | None = None,
) -> tuple[Index, str]:
    """Build an index in two passes over the data, one to draw the training sample and one to add.

    Args:
        recipe: A recipe, or what `load_recipe` takes, or `auto` to choose by size.
        chunks: Called once for each pass; yields `(ids, vectors)`, int64 of shape (n,) and float of shape (n, dim).
        rows: How many vectors there are.
        dim: Their width.
        queries: A sample of the queries that will be asked, shape (q, dim), for recipes that learn from them.
        device: Where it is built: `cpu` or `cuda`.
        memory: How many bytes the build may take; None for no bound.
        advance: Called with the number of vectors after each chunk is added.
        seed: Of the training sample, which is drawn uniformly from all rows.
        workspace: Folder where a sharded build keeps its progress, so that the same call resumes.

    Returns:
        The index, and the name of the recipe used. A named recipe that cannot be trained on so few rows gives an
        exact index.

    Raises:
        RecipeError: The recipe means nothing, or a factory string needs more training vectors than there are.
        MissingExtraError: It needs FAISS, which is not installed.
    """
    if recipe == "auto":
        budget = Budget(memory=memory, queries_known=queries is not None, has_faiss=has_faiss_installed())
        recipe = choose(rows, dim, budget).recipe
    elif isinstance(recipe, str):
        recipe = load_recipe(recipe)
    index = _trained(recipe, chunks, rows=rows, dim=dim, seed=seed)
    for ids, vectors in chunks():
        index.add(ids, vectors)
        if advance is not None:
            advance(len(ids))
    return index, recipe.name


def _trained(recipe: Recipe, chunks: Chunks, *, rows: int, dim: int, seed: int) -> Index:
    if recipe.factory == "exact":
        return ExactIndex(dim)
    from mmalign.index.faiss import FaissIndex

    options = {} if recipe.k_factor is None else {"k_factor": recipe.k_factor}
    factory = recipe.resolve(rows=rows, dim=dim)
    index = FaissIndex(factory, dim, default_effort=recipe.default_effort, **options)
    if index.is_trained:
        return index
    if rows < index.least_training and recipe.name != recipe.factory:
        return ExactIndex(dim)
    size = min(rows, index.advised_training(recipe.vectors_per_centroid))
    index.train(sample_vectors(chunks, rows=rows, dim=dim, size=size, seed=seed))
    return index


def sample_vectors(chunks: Chunks, *, rows: int, dim: int, size: int, seed: int) -> Float32Array:
    """Draw vectors uniformly without replacement, in one pass.

    Args:
        chunks: As for `build_index`.
        rows: How many vectors there are.
        dim: Their width.
        size: How many to draw, at most `rows`.
        seed: Of the draw.

    Returns:
        Array of shape (size, dim), float32.
    """
    chosen = np.sort(np.random.default_rng(seed).choice(rows, size, replace=False))
    sample = np.empty((size, dim), np.float32)
    start = filled = 0
    for ids, vectors in chunks():
        stop = int(np.searchsorted(chosen, start + len(ids)))
        sample[filled:stop] = vectors[chosen[filled:stop] - start]
        start, filled = start + len(ids), stop
    return sample[:filled]
