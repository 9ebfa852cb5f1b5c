"""Similarity of embeddings: normalisation, cosine, and exact nearest neighbours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import DimensionError, InputError

Float32Array = NDArray[np.float32]
Int64Array = NDArray[np.int64]

# Scores of one block of the exact search: 64 MiB of float32.
_BLOCK_SCORES = 1 << 24
# Values of float16 that are made float32 at once, so that they are multiplied while a processor's cache holds them.
_PIECE_VALUES = 1 << 20
# Lengths of rows whose squares float32 holds.
_SAFE = (1e-12, 1e15)


def as_matrix(vectors: ArrayLike, *, dim: int | None = None, name: str = "vectors") -> Float32Array:
    """Return `vectors` as a finite float32 matrix, or say what is wrong with it.

    Args:
        vectors: Array-like of shape (n, dim), or (dim,) for one vector.
        dim: The width that is expected, if any.
        name: What the vectors are, for the error's text.

    Returns:
        Array of shape (n, dim), float32, C-contiguous.

    Raises:
        DimensionError: Not 2-d, or of another width.
        InputError: Not numeric, or NaN or infinite values.

    Example:
        >>> as_matrix([3, 4]).shape
        (1, 2)
    """
    # What most searches give: nothing has to be made of it. Where anything is not finite, nor is the sum of squares,
    # which takes a quarter of the time of looking at each.
    if type(vectors) is np.ndarray and vectors.dtype == np.float32 and vectors.flags.c_contiguous:
        rows = vectors[None, :] if vectors.ndim == 1 else vectors
        if rows.ndim == 2 and dim in (None, rows.shape[1]) and math.isfinite(np.vdot(rows, rows)):
            return rows
    try:
        given = np.asarray(off_device(vectors))
        if given.dtype.kind not in "fiubO":
            # NumPy would read numbers from texts, take times for numbers, and drop imaginary parts.
            raise TypeError(f"expected real ones, got {given.dtype}")
        # What float32 cannot hold becomes infinite, and is refused as such.
        with np.errstate(over="ignore"):
            matrix = np.ascontiguousarray(given, dtype=np.float32)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        # RuntimeError: what tensors and lists that are nested without end raise.
        raise InputError(f"{name} must be numbers of shape (n, dim): {error}") from error
    if isinstance(vectors, np.ma.MaskedArray) and np.ma.getmaskarray(vectors).any():
        raise InputError(f"{name} must be numbers of shape (n, dim): some of these are masked")
    if matrix.ndim == 1:
        matrix = matrix[None, :]
    if matrix.ndim != 2:
        raise DimensionError(f"{name} must have shape (n, dim), got {matrix.shape}")
    if dim is not None and matrix.shape[1] != dim:
        raise DimensionError(
            f"expected dim {dim}, got {name} of shape {matrix.shape}; were they encoded with another model?"
        )
    finite = np.isfinite(matrix)
    # Row by row takes three times as long.
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1))
        raise InputError(
            f"{name}: {bad.size} of {len(matrix)} rows hold NaN or infinity, the first is row {bad[0]}"
            + ("" if given.dtype.itemsize <= 4 or given.dtype.kind != "f" else "; beyond 3.4e38 counts as infinite")
        )
    return matrix


def off_device(vectors: Any) -> Any:
    """Bring tensors to where NumPy reads them: off the graphics card, without a gradient, in a type that it knows.

    Args:
        vectors: A tensor, a list of tensors, or anything else.

    Returns:
        The same where there is nothing to do.
    """
    if isinstance(vectors, list | tuple) and any(hasattr(one, "detach") for one in vectors):
        return [off_device(one) for one in vectors]
    if not hasattr(vectors, "detach"):
        return vectors
    tensor = vectors.detach().cpu()
    return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor


def l2_normalize(vectors: ArrayLike) -> Float32Array:
    """Scale each row to Euclidean length 1; a zero row stays zero.

    Args:
        vectors: Array-like of shape (n, dim) or (dim,).

    Returns:
        Array of the same shape, float32.

    Example:
        >>> l2_normalize([[3.0, 4.0]]).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """
    array = np.asarray(vectors, dtype=np.float32)
    with np.errstate(over="ignore", under="ignore"):
        norm = np.linalg.norm(array, axis=-1, keepdims=True)
        if array.size and not (_SAFE[0] < norm.min() and norm.max() < _SAFE[1]):
            # The squares of such values are zero or infinite in float32.
            largest = np.abs(array).max(axis=-1, keepdims=True)
            array = np.divide(array, largest, out=np.zeros_like(array), where=largest > 0)
            norm = np.linalg.norm(array, axis=-1, keepdims=True)
    there = norm > 0
    # Without a mask, a division takes half the time.
    scaled: Float32Array = (
        np.divide(array, norm) if there.all() else np.divide(array, norm, out=np.zeros_like(array), where=there)
    )
    return scaled


def cosine(a: ArrayLike, b: ArrayLike) -> Float32Array:
    """Cosine similarity of every row of `a` with every row of `b`.

    Args:
        a: Array-like of shape (n, dim).
        b: Array-like of shape (m, dim).

    Returns:
        Array of shape (n, m), float32, from -1 to 1.

    Raises:
        DimensionError: The widths differ.

    Example:
        >>> cosine([[1, 0]], [[0, 2], [3, 0]]).tolist()
        [[0.0, 1.0]]
    """
    left = as_matrix(a, name="a")
    right = as_matrix(b, dim=left.shape[1], name="b")
    return as_cosines(l2_normalize(left) @ l2_normalize(right).T)


def as_cosines(scores: Float32Array) -> Float32Array:
    """Take off in place what rounding adds to cosines: vectors of float16 may be a little longer than 1.

    Args:
        scores: Inner products of vectors of length about 1, float32; -inf marks an empty place.

    Returns:
        The same array, from -1 to 1 where it is finite.
    """
    np.minimum(scores, np.float32(1), out=scores)
    if scores.size and scores.min() < -1:
        scores[(scores < -1) & (scores > -np.inf)] = -1
    return scores


def top_k(scores: NDArray[Any], k: int) -> tuple[Float32Array, Int64Array]:
    """The `k` largest entries of each row, best first; equal scores in order of position.

    Args:
        scores: Array of shape (n, m).
        k: How many, at least 0; at most m are returned.

    Returns:
        `(values, positions)`, each of shape (n, min(k, m)): float32 and int64.

    Example:
        >>> top_k(np.array([[0.1, 0.9, 0.5]]), 2)[1].tolist()
        [[1, 2]]
    """
    rows, columns = scores.shape
    k = min(k, columns)
    if k == 0:
        return np.zeros((rows, 0), np.float32), np.zeros((rows, 0), np.int64)
    order = np.empty((rows, k), np.int64)
    for i in range(rows):
        row = scores[i]
        if k < columns:
            # Everything at or above the k-th value, so that ties are cut by position and not by chance.
            bound = np.partition(row, columns - k)[columns - k]
            candidates = np.flatnonzero(row >= bound)
        else:
            candidates = np.arange(columns)
        order[i] = candidates[np.argsort(-row[candidates], kind="stable")][:k]
    return np.take_along_axis(scores, order, axis=1).astype(np.float32, copy=False), order


def merge_top_k(
    first: tuple[Float32Array, Int64Array], second: tuple[Float32Array, Int64Array], k: int
) -> tuple[Float32Array, Int64Array]:
    """Merge two lists of hits for the same queries into the `k` best.

    Args:
        first: `(scores, ids)` of shape (n, a); an id of -1 marks an empty place.
        second: `(scores, ids)` of shape (n, b).
        k: How many to keep.

    Returns:
        `(scores, ids)` of shape (n, min(k, a + b)), best first, empty places last.
    """
    scores = np.concatenate([first[0], second[0]], axis=1)
    ids = np.concatenate([first[1], second[1]], axis=1)
    values, order = top_k(np.where(ids < 0, -np.inf, scores), k)
    return values, np.take_along_axis(ids, order, axis=1)


def exact_top_k(queries: ArrayLike, vectors: NDArray[Any], k: int) -> tuple[Float32Array, Int64Array]:
    """The `k` vectors with the largest inner product for each query, by brute force.

    Args:
        queries: Array-like of shape (q, dim).
        vectors: Array of shape (n, dim), float16 or float32, finite; converted piece by piece.
        k: How many, at least 0; at most n are returned.

    Returns:
        `(scores, positions)` of shape (q, min(k, n)): float32, best first, and int64.

    Raises:
        DimensionError: The widths differ.
        InputError: `k` is negative.

    Example:
        >>> exact_top_k([[1, 0]], np.eye(2, dtype=np.float32), 1)[1].tolist()
        [[0]]
    """
    if k < 0:
        raise InputError(f"k must be at least 0, got {k}")
    matrix = as_matrix(queries, dim=vectors.shape[1], name="queries")
    best: tuple[Float32Array, Int64Array] = (
        np.zeros((len(matrix), 0), np.float32),
        np.zeros((len(matrix), 0), np.int64),
    )
    block = max(1024, _BLOCK_SCORES // max(len(matrix), vectors.shape[1], 1))
    for start in range(0, len(vectors), block):
        scores, positions = top_k(_inner_products(matrix, vectors[start : start + block]), k)
        best = merge_top_k(best, (scores, positions + start), k)
    return best


def _inner_products(queries: Float32Array, vectors: NDArray[Any]) -> Float32Array:
    """Inner products of every query with every vector, float32 of shape (q, n)."""
    if vectors.dtype != np.float16:
        found: Float32Array = queries @ vectors.astype(np.float32, copy=False).T
        return found
    scores = np.empty((len(queries), len(vectors)), np.float32)
    step = max(1, _PIECE_VALUES // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), step):
        scores[:, start : start + step] = queries @ _widened(vectors[start : start + step]).T
    return scores


def _widened(halves: NDArray[np.float16]) -> Float32Array:
    """Finite float16 as float32, five times as fast as `astype`, which takes one value at a time.

    Sign, exponent and fraction go where float32 has them; the exponent then counts from 127 instead of 15.
    """
    bits = halves.view(np.int16).astype(np.int32)
    bits <<= 13
    # Of what the sign was spread over, all but the sign itself.
    bits &= -0x70000001
    values: Float32Array = bits.view(np.float32)
    values *= np.float32(2.0**112)
    return values
