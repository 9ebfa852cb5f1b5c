"""Retrieval metrics: ranks of right answers, any-hit, set recall and precision at k, median rank, bootstrap intervals.

A rank is 1 for the best. Ties count against the system: an answer's rank is 1 plus the number of wrong candidates
that score at least as high, so that a constant score earns nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import DimensionError, InputError
from mmalign.utils import Int64Array, as_matrix

# Scores held at once: 64 MiB of float32.
_BLOCK_SCORES = 1 << 24


def retrieval_ranks(texts: ArrayLike, images: ArrayLike, text_to_image: ArrayLike) -> tuple[Int64Array, Int64Array]:
    """Rank of each text's picture among the pictures, and of each picture's best text among the texts.

    Args:
        texts: Embeddings of shape (t, dim), of length 1 for cosine similarity.
        images: Embeddings of shape (n, dim).
        text_to_image: The position of each text's picture, shape (t,), integers from 0 to n - 1.

    Returns:
        `(text_ranks, image_ranks)` of shapes (t,) and (n,), int64, from 1. A picture's rank is that of its best
        own text, counted among its best own text and the texts of other pictures; 0 for a picture without a text.

    Raises:
        DimensionError: The widths differ.
        InputError: `text_to_image` has another length, or points outside the pictures.

    Source: the protocol of Karpathy and Fei-Fei, 2015, with pessimistic ties. The scores are computed in blocks
    of at most 64 MiB.

    Example:
        >>> retrieval_ranks([[1, 0], [0, 1], [1, 0]], [[1, 0], [0, 1]], [0, 1, 1])[0].tolist()
        [1, 1, 2]
    """
    text_matrix = as_matrix(texts, name="texts")
    image_matrix = as_matrix(images, dim=text_matrix.shape[1], name="images")
    owner = _owners(text_to_image, n_texts=len(text_matrix), n_images=len(image_matrix))
    text_ranks = np.zeros(len(text_matrix), np.int64)
    best_own = np.full(len(image_matrix), -np.inf, np.float32)
    block = max(1, _BLOCK_SCORES // max(1, len(image_matrix)))
    starts = range(0, len(text_matrix), block)
    for start in starts:
        scores = text_matrix[start : start + block] @ image_matrix.T
        own = owner[start : start + block]
        own_scores = scores[np.arange(len(own)), own]
        # The right picture is at least as high as itself, which is the 1 of the rank.
        text_ranks[start : start + block] = (scores >= own_scores[:, None]).sum(axis=1)
        np.maximum.at(best_own, own, own_scores)
    image_ranks = np.where(np.isfinite(best_own), 1, 0).astype(np.int64)
    for start in starts:
        scores = text_matrix[start : start + block] @ image_matrix.T
        own = owner[start : start + block]
        better = scores >= best_own
        better[np.arange(len(own)), own] = False
        image_ranks += np.where(image_ranks > 0, better.sum(axis=0), 0)
    return text_ranks, image_ranks


def any_hit_at_k(ranks: ArrayLike, k: int) -> float:
    """Share of the queries with at least one right answer among the first k; papers on CLIP call it R@k.

    Args:
        ranks: Rank of each query's best right answer, shape (q,), from 1.
        k: How many answers are looked at, at least 1.

    Returns:
        From 0 to 1.

    Raises:
        InputError: No ranks, a rank below 1, or `k` below 1.

    Example:
        >>> any_hit_at_k([1, 2, 9, 20], 5)
        0.5
    """
    return float(np.mean(_ranks(ranks) <= _at_least_one(k)))


def recall_at_k(found: ArrayLike, relevant: ArrayLike, k: int) -> float:
    """Set recall: the mean share of a query's right answers that are among the first k.

    Args:
        found: Item numbers answered to each query, best first, shape (q, m); -1 marks an empty place.
        relevant: Item numbers that are right for each query, shape (q, r); -1 fills the row of a query with fewer.
        k: How many answers are looked at, at least 1.

    Returns:
        From 0 to 1.

    Raises:
        InputError: Another shape, a query with no right answer, or `k` below 1.

    Source: Manning et al., Introduction to Information Retrieval, 2008, chapter 8.

    Example:
        >>> recall_at_k([[4, 7, 1]], [[7, 9]], 2)
        0.5
    """
    answers, right = np.asarray(found), np.asarray(relevant)
    if answers.ndim != 2 or right.ndim != 2 or len(answers) != len(right) or len(answers) == 0:
        raise InputError(
            f"expected found and relevant of shapes (q, m) and (q, r) with q >= 1, got {answers.shape} and "
            f"{right.shape}; give one row a query"
        )
    answers = answers[:, : _at_least_one(k)]
    shares = []
    for row, (got, wanted) in enumerate(zip(answers, right, strict=True)):
        truth = np.unique(wanted[wanted >= 0])
        if truth.size == 0:
            raise InputError(f"query {row} has no right answer; leave such queries out")
        shares.append(np.isin(truth, got).mean())
    return float(np.mean(shares))


def precision_at_k(scores: ArrayLike, right: ArrayLike, k: int) -> float:
    """Share of right answers among the first k, or among as many as there are right answers where those are fewer.

    Args:
        scores: Score of each candidate, shape (n,), higher is better.
        right: Whether each candidate is a right answer, shape (n,), at least one of them.
        k: How many answers are looked at, at least 1; with r < k right answers only the first r, so that a perfect
            order reaches 1.

    Returns:
        From 0 to 1. Of candidates that tie, the wrong ones come first.

    Raises:
        InputError: Other shapes, no right answer, or `k` below 1.

    Source: Manning et al., Introduction to Information Retrieval, 2008, chapter 8; cut as R-precision is.

    Example:
        >>> precision_at_k([0.9, 0.8, 0.1], [True, False, True], 10)
        0.5
    """
    values, wanted = np.asarray(scores), np.asarray(right, np.bool_)
    if values.ndim != 1 or wanted.shape != values.shape or not wanted.any():
        raise InputError(
            f"expected scores and right of one shape (n,) with a right answer, got {values.shape} and {wanted.shape} "
            f"with {int(wanted.sum())} right; leave queries without a right answer out"
        )
    cut = min(_at_least_one(k), int(wanted.sum()))
    first = np.lexsort((wanted, -values))[:cut]
    return float(wanted[first].mean())


def median_rank(ranks: ArrayLike) -> float:
    """The middle rank.

    Args:
        ranks: Rank of each query's best right answer, shape (q,), from 1.

    Returns:
        The median, from 1; halfway between the two middle ranks where their number is even.

    Raises:
        InputError: No ranks, or a rank below 1.

    Example:
        >>> median_rank([1, 2, 9])
        2.0
    """
    return float(np.median(_ranks(ranks)))


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[[NDArray[np.float64]], float] | None = None,
    *,
    groups: ArrayLike | None = None,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic over queries.

    Args:
        values: One value a query, shape (q,).
        statistic: From values to a number; the mean by default.
        groups: What each query belongs to, shape (q,); whole groups are drawn, since the captions of one picture
            are not independent. Each query stands alone by default.
        level: Probability that the interval is to cover, between 0 and 1.
        resamples: How many samples are drawn.
        seed: Of the random draws.

    Returns:
        `(low, high)`.

    Raises:
        InputError: No values, another number of groups, or `level` outside (0, 1).

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or data.size == 0:
        raise InputError(f"expected values of shape (q,) with q >= 1, got {data.shape}")
    if not 0 < level < 1:
        raise InputError(f"expected a level between 0 and 1, got {level}")
    names = np.arange(data.size) if groups is None else np.asarray(groups)
    if names.shape != data.shape:
        raise InputError(f"expected one group a value, got {names.shape} groups for {data.shape} values")
    order = np.argsort(names, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(np.unique(names[order], return_inverse=True)[1])) + 1)
    rng = np.random.default_rng(seed)
    chosen = (rng.integers(len(members), size=len(members)) for _ in range(resamples))
    if statistic is None:
        # The mean of whole groups needs only their sums and sizes, which is many times faster.
        sums, sizes = np.array([data[rows].sum() for rows in members]), np.array([len(rows) for rows in members])
        draws = [float(sums[drawn].sum() / sizes[drawn].sum()) for drawn in chosen]
    else:
        draws = [float(statistic(data[np.concatenate([members[i] for i in drawn])])) for drawn in chosen]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _ranks(ranks: ArrayLike) -> NDArray[np.int64]:
    values = np.asarray(ranks)
    if values.ndim != 1 or values.size == 0 or values.min() < 1:
        raise InputError(
            f"expected ranks of shape (q,), each at least 1, got shape {values.shape}"
            + (f" with the smallest {values.min()}" if values.size else "")
            + "; leave queries without a right answer out"
        )
    return values.astype(np.int64, copy=False)


def _at_least_one(k: int) -> int:
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    return k


def _owners(text_to_image: ArrayLike, *, n_texts: int, n_images: int) -> NDArray[np.int64]:
    owner = np.asarray(text_to_image)
    if owner.shape != (n_texts,):
        raise DimensionError(f"expected one picture position for each of {n_texts} texts, got shape {owner.shape}")
    owner = owner.astype(np.int64, copy=False)
    if n_texts and (owner.min() < 0 or owner.max() >= n_images):
        raise InputError(f"text_to_image must lie in 0..{n_images - 1}, got {owner.min()}..{owner.max()}")
    return owner
