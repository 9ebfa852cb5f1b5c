"""The value that turns scores into probabilities: what it computes, what it refuses, and how it is kept."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.calibration.mapping import Calibration, hit_features
from mmalign.errors import CalibrationError, InputError

PLAIN = Calibration(
    encoder="color@1",
    fingerprint="f" * 64,
    score_weight=8.0,
    margin_weight=12.0,
    size_weight=-0.5,
    bias=-1.0,
    smallest=10,
    largest=1000,
    fitted_on="made up",
)


def by_hand(row: list[float], pictures: int) -> list[float]:
    """Probabilities of one query's hits, by the formula in words."""
    result = []
    for score in row:
        copies = [other for other in row if abs(other - row[0]) <= 1e-6]
        others = [other for other in row if other not in copies]
        ahead = row[0] - max(others) if others else 0.0
        lead = ahead if score in copies else score - row[0]
        odds = math.exp(8 * score + 12 * lead - 0.5 * math.log(max(pictures, 10)) - 1)
        result.append(odds / (1 + odds))
    return result


@pytest.mark.parametrize("pictures", [1, 10, 11, 1000, 10**9])
def test_probabilities_are_those_of_the_formula(rng: np.random.Generator, pictures: int) -> None:
    rows = -np.sort(-rng.uniform(-1, 1, (20, 6)), axis=1)
    rows[3, 1] = rows[3, 0]
    rows[4, :] = 0.5
    found = PLAIN.probabilities(rows, pictures=pictures)
    assert found == pytest.approx(np.array([by_hand(row.tolist(), pictures) for row in rows]), rel=1e-9)
    # Hits below one that is refused are never accepted.
    assert (np.diff(found, axis=1) <= 0).all()


def test_copies_are_no_rivals_and_empty_places_have_no_chance() -> None:
    alone = PLAIN.probabilities([[0.8, 0.3]], pictures=50)[0]
    copied = PLAIN.probabilities(np.float32([[0.8, 0.8, 0.3]]), pictures=50)[0]
    assert copied[0] == pytest.approx(alone[0])
    assert copied[1] == pytest.approx(alone[0])
    padded = PLAIN.probabilities([[0.8, 0.3, -np.inf], [-np.inf] * 3], pictures=50)
    assert padded[0].tolist() == [*alone.tolist(), 0]
    assert padded[1].tolist() == [0, 0, 0]
    single = PLAIN.probabilities([[0.8]], pictures=50)[0, 0]
    assert single == pytest.approx(by_hand([0.8], 50)[0])
    assert PLAIN.probabilities(np.zeros((2, 0)), pictures=50).shape == (2, 0)


def test_knots_replace_the_logistic_function() -> None:
    bent = replace(PLAIN, knots=((-2.0, 0.0), (0.0, 0.25), (3.0, 1.0)))
    scores = np.array([[0.9, 0.1, -0.4]])
    expected = np.interp(PLAIN.log_odds(scores, pictures=20), [-2, 0, 3], [0, 0.25, 1])
    assert bent.probabilities(scores, pictures=20).tolist() == expected.tolist()
    assert bent.probabilities([[-np.inf]], pictures=20).tolist() == [[0]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": float("nan")}, "finite"),
        ({"size_weight": float("inf")}, "finite"),
        ({"score_weight": "1"}, "finite"),
        ({"score_weight": -1.0}, "less probable"),
        ({"margin_weight": -0.1}, "less probable"),
        ({"fingerprint": ""}, "fingerprint"),
        ({"smallest": 0}, "smallest"),
        ({"smallest": 1001}, "smallest"),
        ({"knots": ((0.0, 0.1), (0.0, 0.2))}, "rise"),
        ({"knots": ((0.0, 0.3), (1.0, 0.2))}, "rise"),
        ({"knots": ((0.0, 0.3), (1.0, 1.2))}, "probabilities"),
    ],
)
def test_impossible_values_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(PLAIN, **change)


def test_bad_scores_are_refused() -> None:
    with pytest.raises(InputError, match="shape"):
        hit_features([0.5, 0.4], pictures=3)
    with pytest.raises(InputError, match="pictures"):
        hit_features([[0.5]], pictures=0)


def test_it_is_kept_as_json(tmp_path: Path) -> None:
    for one in (PLAIN, replace(PLAIN, knots=((-1.5, 0.0), (0.1, 1 / 3)))):
        one.write(tmp_path / "calibration.json")
        assert Calibration.read(tmp_path / "calibration.json") == one
    assert [path.name for path in tmp_path.iterdir()] == ["calibration.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"format": None},
        {"bias": "NaN"},
        {"bias": None},
        {"knots": [[1]]},
        {"knots": 3},
        {"smallest": -1},
        {"surprise": 1},
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "calibration.json"
    PLAIN.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CalibrationError, match=r"calibration\.json"):
        Calibration.read(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}'])
def test_what_is_no_calibration_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(CalibrationError, match="no calibration"):
        Calibration.read(tmp_path / "calibration.json")
    with pytest.raises(CalibrationError, match="no calibration"):
        Calibration.read(tmp_path / "missing.json")


def test_another_encoder_is_refused() -> None:
    PLAIN.check("f" * 64, name="color@1")
    with pytest.raises(CalibrationError, match=r"fitted for color@1 \(fingerprint ffffffffffff\).*of color@2"):
        PLAIN.check("e" * 64, name="color@2")
    with pytest.raises(CalibrationError, match="fitted for"):
        PLAIN.check(None, name=None)


def test_neither_torch_nor_scipy_is_needed(tmp_path: Path) -> None:
    PLAIN.write(tmp_path / "calibration.json")
    code = (
        "import sys; from mmalign.calibration.mapping import Calibration; "
        "print(Calibration.read(sys.argv[1]).probabilities([[0.5, 0.1]], pictures=30)[0, 0], *sys.modules)"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "calibration.json")]
    value, *modules = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert float(value) == pytest.approx(by_hand([0.5, 0.1], 30)[0])
    assert not {name for name in modules if name.split(".")[0] in ("torch", "scipy", "sklearn")}
