"""Building an index from chunks of vectors, so that they need never be in memory together."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import InputError, RecipeError
from mmalign.index.base import Index
from mmalign.index.exact import ExactIndex
from mmalign.index.faiss.query_aware import fit_transform, fit_width
from mmalign.index.planning.choose import Budget, choose
from mmalign.index.planning.recipe import Recipe, has_faiss_installed, load_recipe
from mmalign.utils import Float32Array, Int64Array

if TYPE_CHECKING:
    from mmalign.index.faiss.index import FaissIndex

# Of a memory budget, what the training sample may take.
_SAMPLE_SHARE = 0.25
# Vectors on which the width of a projection is chosen.
_WIDTH_SAMPLE = 20_000
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
        memory: How many bytes building may take where the recipe leaves that open: it bounds the training sample, and
            the shards of an index that is built on disk. None for no bound.
        advance: Called with the number of vectors after each chunk is added.
        seed: Of the training sample, which is drawn uniformly from all rows.
        workspace: Folder where an index that is built on disk keeps its shards, so that the same call goes on after
            the process was killed. The index lies in it until it is saved. None for a temporary folder.

    Returns:
        The index, and the name of the recipe used. A named recipe that cannot be trained on so few rows gives an
        exact index.

    Raises:
        RecipeError: The recipe means nothing, or a factory string needs more training vectors than there are.
        MissingExtraError: It needs FAISS, which is not installed.
        EnvironmentConflictError: For device `cuda`, or a recipe for it, where FAISS has no graphics card to work with.
    """
    if device not in ("cpu", "cuda"):
        raise InputError(f"device must be cpu or cuda, got {device!r}")
    if recipe == "auto":
        budget = Budget(
            memory=memory,
            queries_known=queries is not None,
            has_faiss=has_faiss_installed(),
            device="cuda" if device == "cuda" else "cpu",
        )
        recipe = choose(rows, dim, budget).recipe
    elif isinstance(recipe, str):
        recipe = load_recipe(recipe)
    job = _Job(recipe, chunks, rows=rows, dim=dim, queries=queries, memory=memory, seed=seed)
    index = job.empty()
    if "cuda" in (device, recipe.device):
        return job.to_gpu(index, advance), recipe.name
    if isinstance(index, ExactIndex):
        job.fill(index, advance)
        return index, recipe.name
    if recipe.storage == "disk":
        return job.on_disk(index, workspace, advance), recipe.name
    if not index.is_trained:
        index, vectors = job.fitted(index)
        index.train(vectors)
    job.fill(index, advance)
    return index, recipe.name


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What is built."""

    recipe: Recipe = field(kw_only=False)
    chunks: Chunks = field(kw_only=False)
    rows: int
    dim: int
    queries: Float32Array | None
    memory: int | None
    seed: int

    def empty(self) -> ExactIndex | FaissIndex:
        """The index before it is trained; an exact one where a named recipe has too few rows to train on."""
        recipe = self.recipe
        if recipe.factory == "exact":
            return ExactIndex(self.dim)
        from mmalign.index.faiss.index import FaissIndex

        options = {} if recipe.k_factor is None else {"k_factor": recipe.k_factor}
        factory = recipe.resolve(rows=self.rows, dim=self.dim)
        index = FaissIndex(factory, self.dim, default_effort=recipe.default_effort, **options)
        if self.rows < index.least_training and recipe.name != recipe.factory:
            return ExactIndex(self.dim)
        return index

    def fill(self, index: Index, advance: Callable[[int], None] | None) -> None:
        """Add all vectors."""
        for ids, vectors in self.chunks():
            index.add(ids, vectors)
            if advance is not None:
                advance(len(ids))

    def sample(self, index: FaissIndex) -> Float32Array:
        """Draw the vectors to train on; what is learned from the queries is set in the index."""
        size = min(self.rows, index.advised_training(self.recipe.vectors_per_centroid))
        if self.memory is not None:
            # FAISS works on copies of the sample, or parts of it, while it trains.
            most = int(_SAMPLE_SHARE * self.memory) // (4 * self.dim)
            size = min(size, max(most, index.least_training))
        vectors = sample_vectors(self.chunks, rows=self.rows, dim=self.dim, size=size, seed=self.seed)
        if self.recipe.query_aware:
            fit_transform(*index.bare, vectors, self.queries)
        return vectors

    def fitted(self, index: FaissIndex) -> tuple[FaissIndex, Float32Array]:
        """The index, wider than the recipe says where the data need it, and the vectors to train it on."""
        vectors = self.sample(index)
        if self.recipe.query_aware and self.recipe.reduced is not None:
            reduced = min(self.recipe.reduced, self.dim)
            # The sample is in the order of the rows.
            few = vectors[:: max(1, len(vectors) // _WIDTH_SAMPLE)]
            width = fit_width(few, self.queries, least=reduced, candidates=index.k_factor)
            if width > reduced:
                wider = replace(self, recipe=replace(self.recipe, reduced=width)).empty()
                if not isinstance(wider, ExactIndex):
                    fit_transform(*wider.bare, vectors, self.queries)
                    return wider, vectors
        return index, vectors

    def to_gpu(self, index: ExactIndex | FaissIndex, advance: Callable[[int], None] | None) -> FaissIndex:
        """Build with the help of graphics cards; the index itself is that of a processor, and serves any machine."""
        if isinstance(index, ExactIndex):
            raise RecipeError(
                f"{self.recipe.name} cannot be built for device cuda from {self.rows:,} vectors; use gpu-flat, or "
                "device cpu"
            )
        from mmalign.index.faiss.index import require_gpu

        require_gpu(cagra=index.layers.core == "hnsw")
        if index.layers.core == "hnsw":
            # A card builds the graph from all vectors at once.
            parts = list(self.chunks())
            ids, vectors = np.concatenate([i for i, _ in parts]), np.concatenate([v for _, v in parts])
            del parts
            index = type(index).from_gpu(index.factory, ids, vectors, default_effort=self.recipe.default_effort)
            if advance is not None:
                advance(len(ids))
        else:
            if not index.is_trained:
                with index.training_on_cards():
                    index.train(self.sample(index))
            self.fill(index, advance)
        return index

    def on_disk(self, index: FaissIndex, workspace: Path | None, advance: Callable[[int], None] | None) -> FaissIndex:
        """Train and fill an index in shards on disk."""
        from mmalign.index.faiss.on_disk import build_on_disk

        folder = Path(tempfile.mkdtemp(prefix="mmalign-index-")) if workspace is None else workspace
        plan = {"recipe": self.recipe.to_dict() | {"measured": []}, "rows": self.rows, "seed": self.seed}
        try:
            built = build_on_disk(
                index,
                folder,
                self.chunks,
                plan=plan,
                sample=lambda: self.sample(index),
                memory=self.memory,
                advance=advance,
            )
        except BaseException:
            if workspace is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        if workspace is None:
            # Nobody else knows of the folder.
            weakref.finalize(built, shutil.rmtree, folder, ignore_errors=True)
        return built


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
