"""Building FAISS indexes: what they are trained on, with graphics cards, and in shards on disk."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmalign.index.backends import BuildRequest
from mmalign.index.base import Index
from mmalign.index.chunks import sample_vectors
from mmalign.index.exact import ExactBackend
from mmalign.index.faiss.index import FaissIndex, require_gpu
from mmalign.index.faiss.on_disk import build_on_disk
from mmalign.index.faiss.query_aware import fit_transform, fit_width
from mmalign.index.planning.recipe import check_ef_construction
from mmalign.utils import Float32Array

# Of a memory budget, what the training sample may take.
_SAMPLE_SHARE = 0.25
# Vectors on which the width of a projection is chosen.
_WIDTH_SAMPLE = 20_000


class FaissBackend:
    """Builds and loads FAISS indexes."""

    def build(self, request: BuildRequest) -> Index:
        """Build an index; an exact one where a named recipe has too few rows to train on. See `IndexBackend.build`."""
        index = _empty(request)
        if index is None:
            return ExactBackend().build(request)
        if request.device == "cuda":
            return _with_gpu(request, index)
        if request.recipe.storage == "disk":
            return _on_disk(request, index)
        if not index.is_trained:
            index, vectors = _fitted(request, index)
            index.train(vectors)
        request.fill(index)
        return index

    def load(self, folder: Path, *, mmap: bool = True) -> FaissIndex:
        """Load an index; see `IndexBackend.load`."""
        return FaissIndex.load(folder, mmap=mmap)


def _empty(request: BuildRequest) -> FaissIndex | None:
    """The index before it is trained; None where a named recipe has too few rows to train on."""
    recipe = request.recipe
    check_ef_construction(recipe, origin=f"recipe {recipe.name}", device=request.device)
    options = {"k_factor": recipe.k_factor, "ef_construction": recipe.ef_construction}
    factory = recipe.resolve(rows=request.rows, dim=request.dim)
    given = {name: value for name, value in options.items() if value is not None}
    index = FaissIndex(factory, request.dim, default_effort=recipe.default_effort, **given)
    return None if request.rows < index.least_training and recipe.name != recipe.factory else index


def _sample(request: BuildRequest, index: FaissIndex) -> Float32Array:
    """Draw the vectors to train on; what is learned from the queries is set in the index."""
    size = min(request.rows, index.advised_training(request.recipe.vectors_per_centroid))
    if request.memory is not None:
        # FAISS works on copies of the sample, or parts of it, while it trains.
        most = int(_SAMPLE_SHARE * request.memory) // (4 * request.dim)
        size = min(size, max(most, index.least_training))
    vectors = sample_vectors(request.chunks, rows=request.rows, dim=request.dim, size=size, seed=request.seed)
    if request.recipe.query_aware:
        fit_transform(index.bare, vectors, request.queries)
    return vectors


def _fitted(request: BuildRequest, index: FaissIndex) -> tuple[FaissIndex, Float32Array]:
    """The index, wider than the recipe says where the data need it, and the vectors to train it on."""
    recipe, vectors = request.recipe, _sample(request, index)
    if recipe.query_aware and recipe.reduced is not None:
        reduced = min(recipe.reduced, request.dim)
        # The sample is in the order of the rows.
        few = vectors[:: max(1, len(vectors) // _WIDTH_SAMPLE)]
        width = fit_width(few, request.queries, least=reduced, candidates=index.k_factor)
        if width > reduced:
            wider = _empty(replace(request, recipe=replace(recipe, reduced=width)))
            if wider is not None:
                fit_transform(wider.bare, vectors, request.queries)
                return wider, vectors
    return index, vectors


def _with_gpu(request: BuildRequest, index: FaissIndex) -> FaissIndex:
    """Build with the help of graphics cards; the index itself is that of a processor, and serves any machine."""
    require_gpu(cagra=index.layers.core == "hnsw")
    if index.layers.core == "hnsw":
        # A card builds the graph from all vectors at once.
        parts = list(request.chunks())
        ids, vectors = np.concatenate([i for i, _ in parts]), np.concatenate([v for _, v in parts])
        del parts
        index = type(index).from_gpu(index.factory, ids, vectors, default_effort=request.recipe.default_effort)
        if request.advance is not None:
            request.advance(len(ids))
        return index
    if not index.is_trained:
        with index.training_on_gpu():
            index.train(_sample(request, index))
    request.fill(index)
    return index


def _on_disk(request: BuildRequest, index: FaissIndex) -> FaissIndex:
    """Train and fill an index in shards on disk."""
    workspace = request.workspace
    folder = Path(tempfile.mkdtemp(prefix="mmalign-index-")) if workspace is None else workspace
    plan = {"recipe": request.recipe.to_dict() | {"measured": []}, "rows": request.rows, "seed": request.seed}
    try:
        built = build_on_disk(
            index,
            folder,
            request.chunks,
            plan=plan,
            sample=lambda: _sample(request, index),
            memory=request.memory,
            advance=request.advance,
        )
    except BaseException:
        if workspace is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if workspace is None:
        # Nobody else knows of the folder.
        weakref.finalize(built, shutil.rmtree, folder, ignore_errors=True)
    return built
