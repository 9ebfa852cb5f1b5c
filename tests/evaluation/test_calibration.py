"""Fitting and measuring probabilities: known truths are found again, and nothing is judged on what it was fitted to."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import brier_score_loss, roc_auc_score

from mmalign.calibration.fit import sigmoid
from mmalign.calibration.mapping import Calibration
from mmalign.errors import InputError, MissingExtraError
from mmalign.evaluation.calibration import CalibrationReport, measure_calibration
from mmalign.evaluation.calibration_fit import Method, cross_fit, fit_calibration
from mmalign.evaluation.calibration_plots import draw_reliability, draw_risk_coverage, require_matplotlib
from mmalign.evaluation.galleries import Trials, run_trials
from tests.evaluation.test_trials import THINGS, made

fit = partial(fit_calibration, encoder="made@1", fingerprint="f" * 64)


def drawn(count: int, *, pictures: int = 300, seed: int = 1) -> tuple[Trials, Trials]:
    """Trials whose best hit is right with a probability that a known calibration gives."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.uniform(0.2, 0.8, (count, 5)), axis=1)
    sizes = rng.choice([30, 100, 300], count)
    lead = scores[:, 0] - scores[:, 1]
    chance = sigmoid(6 * scores[:, 0] + 9 * lead - 0.7 * np.log(sizes) - 1.5)
    right = np.zeros((count, 5), bool)
    right[:, 0] = rng.random(count) < chance
    owner = rng.integers(0, pictures, count)
    owner[:pictures] = np.arange(pictures)
    answerable = Trials(scores, right, sizes, owner, np.ones(count, np.int64))
    # The wrong ones once more: that changes the level of the probabilities in all, and no weight.
    return answerable, answerable[~right[:, 0]]


def test_known_probabilities_are_found_again() -> None:
    answerable, nothing = drawn(40_000)
    truth = sigmoid(
        6 * answerable.scores[:, 0]
        + 9 * (answerable.scores[:, 0] - answerable.scores[:, 1])
        - 0.7 * np.log(answerable.pictures)
        - 1.5
    )
    for method in Method:
        fitted = fit(answerable, nothing, method=method)
        found = fitted.probabilities(answerable.scores, pictures=answerable.pictures)[:, 0]
        assert np.abs(found - truth).mean() < (0.01 if method is Method.PLATT else 0.02)
        for size in (30, 100, 300):
            chosen = answerable.pictures == size
            assert found[chosen].mean() == pytest.approx(truth[chosen].mean(), abs=0.01)
        assert (fitted.smallest, fitted.largest) == (30, 300)
        assert bool(fitted.knots) == (method is Method.ISOTONIC)
        assert min(fitted.score_weight, fitted.margin_weight) > 0 > fitted.size_weight


def test_each_fold_is_judged_by_the_others() -> None:
    answerable, nothing = drawn(900, pictures=30)
    seen: list[set[int]] = []

    def recording(with_answer: Trials, without: Trials) -> Calibration:
        assert set(without.owner) <= set(with_answer.owner)
        seen.append(set(with_answer.owner.tolist()))
        return fit(with_answer, without)

    folded = cross_fit(recording, answerable, nothing, folds=5)
    assert [len(pictures) for pictures in seen] == [24] * 5
    for fold, pictures in enumerate(seen):
        assert not pictures & set(np.flatnonzero(folded.folds == fold).tolist())
    found = folded.probabilities(answerable)
    for row in range(0, 900, 90):
        own = folded.calibrations[folded.folds[answerable.owner[row]]]
        alone = own.probabilities(answerable.scores[row : row + 1], pictures=int(answerable.pictures[row]))
        assert found[row] == pytest.approx(alone[0])
    with pytest.raises(InputError, match="folds"):
        cross_fit(recording, answerable, nothing, folds=31)


@pytest.fixture(scope="module")
def report() -> CalibrationReport:
    data = made(180)
    words = np.stack([data.images[i] for i in range(4)])
    return measure_calibration(data, concepts=THINGS, words=words, encoder=("made@1", "f" * 64), fitted_on="made up")


def test_the_report_says_what_its_probabilities_say(report: CalibrationReport) -> None:
    data = made(180)
    answerable, nothing = run_trials(data)
    whole = answerable[answerable.parts == 1]
    folded = cross_fit(fit, answerable, nothing, folds=5)
    chances = folded.probabilities(whole)
    assert report.probabilities[0] == pytest.approx(chances[:, 0])
    right = whole.right
    told = report.to_dict()
    assert (told["n"], told["pictures"], told["n_captions"], told["n_images"]) == (360, 180, 360, 180)
    assert told["base_rate"] == pytest.approx(right[:, 0].mean())
    assert told["auroc"] == pytest.approx(roc_auc_score(right[:, 0], chances[:, 0]))
    assert told["brier"] == pytest.approx(brier_score_loss(right[:, 0], chances[:, 0]))
    assert told["auroc"] > 0.6
    assert told["brier_skill"] > 0
    assert told["ece"] < 0.12
    low, high = told["intervals_95"]["auroc"]
    assert low < told["auroc"] < high
    assert [one["pictures"] for one in told["sizes"]] == [180, 60, 20]
    assert told["sizes"][0] == told["methods"]["platt"] == told["ranks"][0]
    assert told["methods"]["isotonic"]["ece"] != told["methods"]["platt"]["ece"]
    for rank, one in enumerate(told["ranks"]):
        assert one["base_rate"] == pytest.approx(right[:, rank].mean())
        assert one["mean_probability"] == pytest.approx(chances[:, rank].mean())
    most = np.argsort(-chances[:, 0])[:36]
    assert told["risk"]["0.1"] == pytest.approx(1 - right[most, 0].mean())
    assert told["risk"]["1"] == pytest.approx(1 - right[:, 0].mean())
    assert [one["concept"] for one in told["concepts"]] == list(THINGS)
    assert [one["min_probability"] for one in told["no_answer"]] == [0.1, 0.3, 0.5, 0.7]
    falling = [one["false_accept"] for one in told["no_answer"]]
    assert falling == sorted(falling, reverse=True)
    assert told["broad_queries"]["right"] == 1
    assert json.loads(json.dumps(told, allow_nan=False))["ece"] == told["ece"]
    assert report.calibration.fitted_on == "made up"
    assert report.calibration == fit(answerable, nothing, fitted_on="made up")


def test_what_is_all_right_cannot_be_fitted() -> None:
    data = made(90, noise=0.0)
    words = data.images[:4]
    with pytest.raises(InputError, match="both right and wrong"):
        measure_calibration(data, concepts=THINGS, words=words, encoder=("made@1", "f" * 64))


def test_pictures_are_drawn(report: CalibrationReport, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for draw, size in ((draw_reliability, (960, 1110)), (draw_risk_coverage, (960, 720))):
        draw(report, tmp_path / "drawn.png")
        with Image.open(tmp_path / "drawn.png") as picture:
            assert (picture.format, picture.size) == ("PNG", size)
            # Ink of all three sizes, and not only a frame.
            colours = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
        assert {(0x1F, 0x4E, 0x9C), (0xD1, 0x74, 0x1C), (0x4F, 0x9A, 0x5F)} <= colours


def test_without_matplotlib_the_error_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mmalign\[plots\]'"):
        require_matplotlib()
