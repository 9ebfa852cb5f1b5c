"""CLIPScore and RefCLIPScore: how well a caption fits its picture in an encoder's space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import InputError
from mmalign.utils import as_matrix, l2_normalize

_WEIGHT = 2.5


def clip_score(images: ArrayLike, captions: ArrayLike, *, weight: float = _WEIGHT) -> NDArray[np.float64]:
    """Score captions by their pictures alone.

    Args:
        images: Embeddings of n pictures, shape (n, dim).
        captions: Embeddings of their captions by the same encoder, shape (n, dim).
        weight: What the cosine is multiplied with; 2.5 was made for CLIP ViT-B/32, and other encoders' cosines lie
            elsewhere, so scores of two encoders do not compare.

    Returns:
        Shape (n,), from 0 to `weight`.

    Raises:
        DimensionError: Another width.
        InputError: Another number of rows.

    Source: Hessel et al., CLIPScore: a reference-free evaluation metric for image captioning, 2021.

    Example:
        >>> clip_score([[1.0, 0.0]], [[0.6, 0.8]]).round(2).tolist()
        [1.5]
    """
    left = l2_normalize(as_matrix(images, name="images")).astype(np.float64)
    right = l2_normalize(as_matrix(captions, dim=left.shape[1], name="captions")).astype(np.float64)
    _check_rows(len(left), len(right))
    result: NDArray[np.float64] = weight * np.maximum((left * right).sum(axis=1), 0)
    return result


def ref_clip_score(
    images: ArrayLike, captions: ArrayLike, references: Sequence[ArrayLike], *, weight: float = _WEIGHT
) -> NDArray[np.float64]:
    """Score captions by their pictures and references: the harmonic mean of `clip_score` and the best cosine.

    Args:
        images: Embeddings of n pictures, shape (n, dim).
        captions: Embeddings of their captions, shape (n, dim).
        references: For each of them the embeddings of its references, shape (r, dim) with r >= 1.
        weight: As for `clip_score`.

    Returns:
        Shape (n,), at least 0.

    Raises:
        DimensionError: Another width.
        InputError: Another number of rows, or a caption without a reference.

    Source: Hessel et al., 2021, section 3.
    """
    first = clip_score(images, captions, weight=weight)
    _check_rows(len(first), len(references))
    rows = l2_normalize(as_matrix(captions)).astype(np.float64)
    second = np.zeros(len(first))
    for row, own in enumerate(references):
        matrix = l2_normalize(as_matrix(own, dim=rows.shape[1], name="references")).astype(np.float64)
        if not len(matrix):
            raise InputError(f"caption number {row} has no reference; leave such pictures out")
        second[row] = max(0.0, float((matrix @ rows[row]).max()))
    total = first + second
    result: NDArray[np.float64] = np.divide(2 * first * second, total, out=np.zeros_like(total), where=total > 0)
    return result


def _check_rows(expected: int, came: int) -> None:
    if expected != came:
        raise InputError(f"expected one caption for each picture, got {expected} and {came}")
