"""Building an index from chunks of vectors, so that they need never be in memory together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mmalign.errors import InputError
from mmalign.index.backends import BuildRequest, find_backend
from mmalign.index.base import Index
from mmalign.index.chunks import Chunks
from mmalign.index.planning.choose import Budget, choose
from mmalign.index.planning.recipe import Recipe, has_faiss_installed, load_recipe
from mmalign.utils import Float32Array


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
    request = BuildRequest(
        recipe,
        chunks,
        rows=rows,
        dim=dim,
        queries=queries,
        device="cuda" if "cuda" in (device, recipe.device) else "cpu",
        memory=memory,
        advance=advance,
        seed=seed,
        workspace=workspace,
    )
    return find_backend(recipe.backend).build(request), recipe.name
