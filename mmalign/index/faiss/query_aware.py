"""Fit an index to queries of another kind than its vectors: words that look for pictures.

Embeddings of texts and of pictures lie apart, and texts vary in fewer directions. What a shortened vector should keep
is therefore not where pictures differ most, but where they differ in what queries ask for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.errors import DimensionError, InputError, RecipeError
from mmalign.index.faiss.library import load_faiss
from mmalign.utils import Float32Array, as_matrix, exact_top_k

# Shares of the queries in the mixture whose eigenvectors are tried.
_SHARES = np.linspace(0.0, 1.0, 21)
# To choose a width: queries that are tried, the share of their neighbours to be found, and the factor between widths.
_HELD, _FOUND, _STEP = 500, 0.99, 0.4


def fit_projection(vectors: Float32Array, queries: Float32Array | None, *, width: int) -> Float32Array:
    """Find the directions that keep inner products of queries with vectors best.

    The same projection serves queries and vectors, so that it fits into one FAISS transform. Its rows are the leading
    eigenvectors of a mixture of the queries' second moments and the vectors' covariance; of the mixtures tried, the one
    that leaves the least mean squared error. What all vectors have in common adds the same to all scores of a query,
    so it is left out of the error.

    Args:
        vectors: Shape (n, dim), a random sample of what is searched.
        queries: Shape (q, dim), a sample of the queries that will be asked; None where none are known: the vectors
            then stand in for them, which is a principal component analysis.
        width: How many directions to keep, 1 to dim.

    Returns:
        Array of shape (width, dim), float32, with orthonormal rows, the one that explains most first.

    Raises:
        InputError: `width` is below 1 or above dim, or there is nothing to fit to.
        DimensionError: Vectors and queries differ in width.

    Source: Tepper et al., LeanVec: Searching vectors faster by making them fit, 2023 (eigenvector search for
    out-of-distribution queries).

    Example:
        >>> axes = np.eye(3, dtype=np.float32)
        >>> np.abs(fit_projection(np.vstack([axes, -axes]) * [3, 2, 1], axes[2:], width=1)).round().tolist()
        [[0.0, 0.0, 1.0]]
    """
    base = as_matrix(vectors)
    dim = base.shape[1]
    if not 1 <= width <= dim:
        raise InputError(f"width must be 1 to {dim}, the width of the vectors, got {width}")
    asked = base if queries is None or not len(queries) else as_matrix(queries, name="queries")
    if asked.shape[1] != dim:
        raise DimensionError(f"vectors have dim {dim}, queries {asked.shape[1]}; were they made by one encoder?")
    if not len(base):
        raise InputError("a projection cannot be fitted to no vectors; expected shape (n, dim) with n at least 1")
    spread = _moments(base - base.mean(axis=0, dtype=np.float64).astype(np.float32))
    wanted = _moments(asked)
    best, least = None, np.inf
    for share in _SHARES:
        # eigh sorts upwards.
        rows = np.linalg.eigh((1 - share) * spread + share * wanted)[1][:, ::-1][:, :width].T
        error = lost(rows, spread, wanted)
        if best is None or error < least * (1 - 1e-9):
            best, least = rows, error
    assert best is not None
    return np.ascontiguousarray(best, np.float32)


def fit_width(
    vectors: Float32Array, queries: Float32Array | None, *, least: int, candidates: float, k: int = 10
) -> int:
    """Say how many directions to keep so that the true neighbours are among the candidates.

    Widths grow by about two fifths from `least` on. The neighbours of up to 500 queries in the sample are looked for
    among the better half of the candidates by the shortened vectors, for the sample is sparser than what is searched.
    Those queries are not among the ones that the projection is fitted to.

    Args:
        vectors: Shape (n, dim), a random sample of what is searched.
        queries: As for `fit_projection`; without any, every 20th vector stands in for one.
        least: The least width, at least 1.
        candidates: How many times k candidates are compared again in full, above 1.
        k: How many neighbours are to be found.

    Returns:
        The first width that finds 99% of the neighbours; dim where none does.
    """
    base = as_matrix(vectors)
    fitted: Float32Array | None = None
    if queries is not None and len(queries) > 1:
        asked = as_matrix(queries, name="queries")
        some = min(_HELD, len(asked) // 2)
        held, fitted = asked[:some], asked[some:]
    else:
        held, base = base[::20][:_HELD], np.delete(base, np.s_[: 20 * _HELD : 20], axis=0)
    dim, k = int(base.shape[1]), min(k, len(base))
    if not k:
        return dim
    depth = min(len(base), max(k, round(k * candidates / 2)))
    truth = exact_top_k(held, base, k)[1]
    width = least
    while width < dim:
        matrix = fit_projection(base, fitted, width=width)
        found = exact_top_k(held @ matrix.T, base @ matrix.T, depth)[1]
        hits = sum(len(np.intersect1d(a, b)) for a, b in zip(truth, found, strict=True))
        if hits >= _FOUND * truth.size:
            return width
        # FAISS packs codes of half a byte in pairs.
        width += 2 * max(1, round(width * _STEP / 2))
    return dim


def lost(projection: NDArray[np.float64], spread: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Mean squared error of inner products after a projection.

    Args:
        projection: Shape (width, dim), orthonormal rows.
        spread: Covariance of the vectors, shape (dim, dim).
        wanted: Second moments of the queries, shape (dim, dim).

    Returns:
        The error, in the units of `spread` times those of `wanted`.
    """
    left_out = np.eye(len(spread)) - projection.T @ projection
    return float(np.sum((left_out @ wanted @ left_out) * spread))


def _moments(rows: Float32Array) -> NDArray[np.float64]:
    """Second moments with a trace of 1, so that the length of what is given does not count."""
    found = (rows.T @ rows).astype(np.float64)
    return np.asarray(found / max(np.trace(found), np.finfo(np.float64).tiny))


def fit_transform(index: Any, vectors: Float32Array, queries: Float32Array | None) -> None:
    """Fit the transform with which a FAISS index begins to queries and vectors, instead of to vectors alone.

    Args:
        index: As for `set_projection`; the rest of it is trained afterwards.
        vectors: As for `fit_projection`.
        queries: As for `fit_projection`.

    Raises:
        RecipeError: The index does not begin with a linear transform, or holds vectors already.
    """
    transform = first_transform(index)
    if transform is None:
        raise RecipeError(
            "a recipe with query_aware = true needs a factory string that begins with a linear transform, such as "
            "PCA{reduced},HNSW32,SQ8"
        )
    set_projection(index, fit_projection(vectors, queries, width=int(transform.d_out)))


def set_projection(index: Any, matrix: Float32Array) -> None:
    """Put a projection into the transform with which a FAISS index begins; training then leaves it as it is.

    Args:
        index: An index such as one of the factory string `PCA128,HNSW32,SQ8,Refine(SQfp16)`, without vectors.
        matrix: Shape (width, dim), of the transform's output and input.

    Raises:
        RecipeError: The index does not begin with a linear transform of this shape, or holds vectors already.
    """
    faiss = load_faiss()
    transform = first_transform(index)
    shape = None if transform is None else (transform.d_out, transform.d_in)
    if transform is None or shape != matrix.shape:
        raise RecipeError(
            f"a projection of shape {matrix.shape} needs an index that begins with a linear transform of this shape, "
            f"such as PCA{len(matrix)},HNSW32,SQ8; this one begins with {'none' if shape is None else shape}"
        )
    if index.ntotal:
        raise RecipeError(f"the index holds {index.ntotal} vectors; a projection can only be set before the first")
    faiss.copy_array_to_vector(np.ascontiguousarray(matrix, np.float32).ravel(), transform.A)
    transform.b.clear()
    transform.have_bias = False
    transform.is_orthonormal = False
    transform.set_is_orthonormal()
    transform.is_trained = True


def first_transform(index: Any) -> Any | None:
    """Return the linear transform with which a FAISS index begins.

    Args:
        index: An index without an id map around it.

    Returns:
        A `faiss.LinearTransform`, or None where it begins with something else.
    """
    faiss = load_faiss()
    layer = faiss.downcast_index(index)
    while isinstance(layer, faiss.IndexRefine):
        layer = faiss.downcast_index(layer.base_index)
    if not isinstance(layer, faiss.IndexPreTransform):
        return None
    first = faiss.downcast_VectorTransform(layer.chain.at(0))
    return first if isinstance(first, faiss.LinearTransform) else None
