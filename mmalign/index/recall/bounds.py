"""How low the mean recall may be, given the recall of some queries."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.errors import InputError

# The bound then moves by about a thirtieth of its distance to the mean from one seed to another.
_DRAWS = 5_000


def lower_bound(values: ArrayLike, *, confidence: float = 0.95, seed: int = 0) -> float:
    """Bound the mean of a variable between 0 and 1 from below, one-sided, from independent draws of it.

    The bound is the quantile of a Bayesian bootstrap over the values with one more value of 0 beside them: what was
    not seen may be the worst possible. Where all values are 0 or 1 it is Clopper and Pearson's exact bound; queries
    that were all answered perfectly do not give 1, as a plain bootstrap would have it, but 0.05 ** (1 / n). Values
    that repeat are drawn together, so that the cost is that of the different values.

    Args:
        values: Array-like of shape (n,), from 0 to 1, one for each independent query.
        confidence: How often the bound lies at or below the true mean, more than 0 and less than 1.
        seed: Of the draws.

    Returns:
        The bound, from 0 to 1; 0 where there are no values.

    Raises:
        InputError: Values out of range, or a confidence that is none.

    Source: Gaffke, Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
        variable, Mathematical Methods of Statistics 14 (2005); Phan, Thomas, Learned-Miller, Towards practical mean
        bounds for small samples, ICML 2021. Its coverage is proven for two values and was never seen to fail for
        others; tests/index/recall/test_bounds.py looks again for what recall looks like.

    Example:
        >>> round(lower_bound([1.0] * 58 + [0.0] * 2), 2)
        0.9
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie between 0 and 1, got {confidence}; 0.95 is usual")
    sample: NDArray[np.float64] = np.asarray(values, dtype=np.float64).ravel()
    if not ((sample >= 0) & (sample <= 1)).all():
        raise InputError("values must be from 0 to 1, and none of them NaN")
    if not sample.size:
        return 0.0
    levels, counts = np.unique(np.append(sample, 0.0), return_counts=True)
    # A Dirichlet distribution over the levels: gamma variables of each level's count, over their sum.
    weights = np.random.default_rng(seed).standard_gamma(counts.astype(np.float64), size=(_DRAWS, len(counts)))
    means = weights @ levels / weights.sum(axis=1)
    return float(np.quantile(means, 1 - confidence))
