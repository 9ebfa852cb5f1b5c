"""Fitting what turns scores into probabilities, and folds to judge it on what it was not fitted to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmalign.calibration.metrics import Float64Array
from mmalign.errors import InputError
from mmalign.utils import Int64Array


def sigmoid(logits: ArrayLike) -> Float64Array:
    """The logistic function, without overflow.

    Args:
        logits: Any numbers.

    Returns:
        Array of the same shape, float64, 0 to 1.

    Example:
        >>> sigmoid([0.0, 1000.0, -1000.0]).tolist()
        [0.5, 1.0, 0.0]
    """
    values = np.asarray(logits, np.float64)
    small = np.exp(-np.abs(values))
    result: Float64Array = np.where(values >= 0, 1.0, small) / (1 + small)
    return result


def fit_platt(
    features: ArrayLike, outcomes: ArrayLike, *, rising: Sequence[bool] | None = None
) -> tuple[Float64Array, float]:
    """Fit `sigmoid(features @ weights + bias)` to outcomes, with Platt's regularised targets.

    Args:
        features: Shape (n, d), or (n,) for one score.
        outcomes: What came about, shape (n,), 0 or 1; both must occur.
        rising: For each of the d features, whether its weight must not be negative; none by default.

    Returns:
        `(weights, bias)`: float64 of shape (d,), and a number.

    Raises:
        InputError: No rows, other shapes or values, or all outcomes are the same.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999: the targets are (r + 1) / (r + 2) for the
    r right and 1 / (w + 2) for the w wrong answers, so that separable data keep finite weights.

    Example:
        >>> weights, bias = fit_platt([0.1, 0.2, 0.6, 0.8], [0, 0, 1, 1])
        >>> bool(weights[0] > 0 > bias)
        True
    """
    from scipy.optimize import minimize

    matrix, came = _rows(features, outcomes)
    right = came.sum()
    wrong = came.size - right
    if not right or not wrong:
        raise InputError(f"all {came.size} outcomes are {came[0]:g}; a fit needs both right and wrong answers")
    targets = np.where(came > 0, (right + 1) / (right + 2), 1 / (wrong + 2))
    # Scaled to mean 0 and deviation 1, where one step length suits every feature; a constant one keeps weight 0.
    mean, scale = matrix.mean(axis=0), matrix.std(axis=0)
    scaled = np.divide(matrix - mean, scale, out=np.zeros_like(matrix), where=scale > 1e-12 * (1 + np.abs(mean)))
    design = np.column_stack([scaled, np.ones(len(scaled))])

    def loss(point: Float64Array) -> tuple[float, Float64Array]:
        logits = design @ point
        # -t log p - (1 - t) log(1 - p), written so that no exponential overflows.
        value = np.mean(np.logaddexp(0, logits) - targets * logits)
        return float(value), design.T @ (sigmoid(logits) - targets) / len(logits)

    floors = [0.0 if up else None for up in (rising or [False] * matrix.shape[1])]
    if len(floors) != matrix.shape[1]:
        raise InputError(f"expected one entry of rising for each of {matrix.shape[1]} features, got {len(floors)}")
    found = minimize(
        loss,
        np.zeros(design.shape[1]),
        jac=True,
        method="L-BFGS-B",
        bounds=[*((floor, None) for floor in floors), (None, None)],
        options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000},
    )
    weights: Float64Array = np.divide(found.x[:-1], scale, out=np.zeros_like(scale), where=scale > 0)
    return weights, float(found.x[-1] - weights @ mean)


def fit_isotonic(scores: ArrayLike, outcomes: ArrayLike) -> tuple[Float64Array, Float64Array]:
    """Fit the rising function that is nearest to the outcomes, by pooling adjacent violators.

    Args:
        scores: Finite numbers, shape (n,).
        outcomes: What came about, shape (n,), 0 or 1.

    Returns:
        `(knots, values)`, float64, both rising, knots strictly: the function runs straight between knots and is
        constant outside them (`numpy.interp`).

    Raises:
        InputError: No scores, or other shapes or values.

    Source: Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates, 2002;
    SciPy's `isotonic_regression`.

    Example:
        >>> knots, values = fit_isotonic([0.1, 0.2, 0.3, 0.4], [0, 1, 0, 1])
        >>> values.tolist()
        [0.0, 0.5, 0.5, 1.0]
    """
    from scipy.optimize import isotonic_regression

    matrix, came = _rows(scores, outcomes)
    if matrix.shape[1] != 1:
        raise InputError(f"expected scores of shape (n,), got {np.shape(scores)}")
    # Equal scores get one value: they are one point with a weight.
    unique, inverse, counts = np.unique(matrix[:, 0], return_inverse=True, return_counts=True)
    fitted = isotonic_regression(np.bincount(inverse, weights=came) / counts, weights=counts).x
    # Only the ends of a flat piece are needed.
    flat = np.diff(fitted) == 0
    inner = np.r_[False, flat] & np.r_[flat, False]
    return unique[~inner], np.clip(fitted[~inner], 0, 1)


def grouped_folds(groups: ArrayLike, folds: int, *, seed: int = 0) -> Int64Array:
    """Deal groups out to folds at random; a group stays together.

    Args:
        groups: What each row belongs to, shape (n,), such as the picture of each caption.
        folds: How many, at least 2 and at most the number of groups.
        seed: Of the random order.

    Returns:
        The fold of each row, shape (n,), int64, 0 to `folds` - 1; their numbers of groups differ by at most one.

    Raises:
        InputError: Not one group a row, or more folds than groups.

    Example:
        >>> found = grouped_folds(["a", "a", "b", "b", "c"], 3)
        >>> bool(found[0] == found[1] != found[2] == found[3])
        True
    """
    names = np.asarray(groups)
    if names.ndim != 1 or names.size == 0:
        raise InputError(f"expected groups of shape (n,) with n >= 1, got {names.shape}")
    unique, member = np.unique(names, return_inverse=True)
    if not 2 <= folds <= unique.size:
        raise InputError(f"expected from 2 to {unique.size} folds for {unique.size} groups, got {folds}")
    order = np.random.default_rng(seed).permutation(unique.size)
    result: NDArray[np.int64] = (order % folds)[member].astype(np.int64, copy=False)
    return result


def _rows(features: ArrayLike, outcomes: ArrayLike) -> tuple[Float64Array, Float64Array]:
    matrix, came = np.asarray(features, np.float64), np.asarray(outcomes, np.float64)
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    if matrix.ndim != 2 or came.shape != (len(matrix),) or not len(matrix):
        raise InputError(
            f"expected features of shape (n, d) and outcomes of shape (n,) with n >= 1, got {np.shape(features)} "
            f"and {came.shape}"
        )
    if not np.isfinite(matrix).all():
        raise InputError("the features hold NaN or infinity; leave such rows out")
    if not np.isin(came, (0, 1)).all():
        raise InputError(f"expected outcomes of 0 and 1, got {np.unique(came)[:5].tolist()}")
    return matrix, came
