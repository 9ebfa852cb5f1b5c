"""Fits of scores to probabilities, against scikit-learn, and folds that keep groups together."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from mmalign.calibration.fit import fit_isotonic, fit_platt, grouped_folds, sigmoid
from mmalign.errors import InputError


def test_platt_equals_logistic_regression_on_its_targets(rng: np.random.Generator) -> None:
    features = rng.normal(size=(400, 3)) * [0.05, 1, 20] + [0.4, 0, 7]
    came = (rng.random(400) < sigmoid(features @ [20, -0.5, 0.1] - 8)).astype(int)
    weights, bias = fit_platt(features, came)
    # A soft target is one row of each outcome, weighted; scikit-learn, unregularised, on scaled features.
    right, wrong = came.sum(), (1 - came).sum()
    targets = np.where(came == 1, (right + 1) / (right + 2), 1 / (wrong + 2))
    scale = np.array([0.05, 1, 20])
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000)
    doubled = np.concatenate([features, features]) / scale
    model.fit(doubled, np.repeat([1, 0], 400), sample_weight=np.concatenate([targets, 1 - targets]))
    assert weights == pytest.approx(model.coef_[0] / scale, rel=1e-3)
    assert bias == pytest.approx(model.intercept_[0], rel=1e-3)


def test_platt_bounds_constants_and_separable_data(rng: np.random.Generator) -> None:
    falling = np.linspace(1, 0, 50)
    came = np.repeat([0, 1], 25)
    assert fit_platt(falling, came)[0][0] < 0
    assert fit_platt(falling, came, rising=[True])[0][0] == 0
    # A constant tells nothing: the bias is then the base rate, as the targets have it.
    weights, bias = fit_platt(np.full(50, 7.3), came)
    assert weights[0] == 0
    assert sigmoid(bias) == pytest.approx(0.5)
    weights, bias = fit_platt(-falling, came)
    assert np.isfinite(weights).all()
    assert weights[0] > 0


def test_isotonic_equals_scikit_learn(rng: np.random.Generator) -> None:
    scores = np.round(rng.normal(size=500), 1)
    came = (rng.random(500) < sigmoid(2 * scores)).astype(int)
    knots, values = fit_isotonic(scores, came)
    model = IsotonicRegression(out_of_bounds="clip").fit(scores, came)
    asked = np.linspace(-5, 5, 333)
    assert np.interp(asked, knots, values) == pytest.approx(model.predict(asked), abs=1e-9)
    assert (np.diff(knots) > 0).all()
    assert (np.diff(values) >= 0).all()
    assert len(knots) < len(np.unique(scores))


def test_bad_fits_are_refused() -> None:
    with pytest.raises(InputError, match="both right and wrong"):
        fit_platt([1, 2], [1, 1])
    with pytest.raises(InputError, match="NaN"):
        fit_platt([np.nan, 2], [0, 1])
    with pytest.raises(InputError, match="shape"):
        fit_isotonic([1, 2], [0, 1, 1])
    with pytest.raises(InputError, match="shape"):
        fit_isotonic([[1, 2], [3, 4]], [0, 1])
    with pytest.raises(InputError, match="rising"):
        fit_platt([1, 2], [0, 1], rising=[True, True])
    with pytest.raises(InputError, match="0 and 1"):
        fit_platt([1, 2], [0, 3])


def test_folds_keep_groups_together(rng: np.random.Generator) -> None:
    groups = rng.integers(0, 23, 400)
    folds = grouped_folds(groups, 5, seed=3)
    assert folds.shape == (400,)
    per_fold = [set(groups[folds == fold]) for fold in range(5)]
    assert sum(len(own) for own in per_fold) == len(set(groups))
    assert {len(own) for own in per_fold} <= {4, 5}
    assert (grouped_folds(groups, 5, seed=3) == folds).all()
    assert (grouped_folds(groups, 5, seed=4) != folds).any()
    for wrong in (1, 24):
        with pytest.raises(InputError, match="folds"):
            grouped_folds(groups, wrong)
    with pytest.raises(InputError, match="shape"):
        grouped_folds([], 2)
