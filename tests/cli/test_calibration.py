"""`mmalign eval calibration`: what it prints and writes, and what it refuses before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mmalign import encoders
from mmalign.calibration.mapping import Calibration
from mmalign.cli import app
from mmalign.errors import CalibrationError, InputError, MissingExtraError
from tests.evaluation.helpers import TableEncoder, write
from tests.evaluation.test_trials import THINGS, made

PICTURES = 96


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> TableEncoder:
    """Stands in for every spec; its captions lie near their pictures, its words at one of them."""
    data = made(PICTURES)
    texts = {f"a {THINGS[i // 2 % 4]} on the road {i}": row for i, row in enumerate(data.texts)}
    texts |= {thing: data.images[i] for i, thing in enumerate(THINGS)} | {"road": data.images[0]}
    own = TableEncoder(texts, data.images)
    monkeypatch.setattr(encoders, "load_encoder", lambda spec: own)
    return own


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    rows = [
        {"captions": [f"a {THINGS[i % 4]} on the road {2 * i + j}" for j in range(2)], "split": "dev"}
        for i in range(PICTURES)
    ]
    return write(tmp_path, [*rows, {"captions": ["another"], "split": "test"}])


def run(manifest: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["eval", "calibration", "--manifest", str(manifest), "--split", "dev", *words])


def test_json_and_files(manifest: Path, encoder: TableEncoder, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "deep" / "out"
    (manifest.parent / "007.png").write_bytes(b"no picture")
    done = run(manifest, "--json", "--out", str(out))
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert {"n", "ece", "auroc", "brier", "brier_skill", "base_rate", "no_answer", "risk", "broad_queries"} <= set(told)
    assert (told["encoder"], told["n_images"], told["n"]) == ("table@1", PICTURES - 1, 2 * PICTURES - 2)
    assert [Path(skip["uri"]).name for skip in told.pop("skipped")] == ["007.png"]
    assert json.loads((out / "report.json").read_text()) == told
    assert {path.name for path in out.iterdir()} == {
        *("calibration.json", "report.json", "reliability.png", "risk-coverage.png")
    }
    fitted = Calibration.read(out / "calibration.json")
    assert (fitted.fingerprint, fitted.largest, fitted.knots) == (encoder.fingerprint, PICTURES - 1, ())
    assert "split dev: 95 pictures, 190 captions" in fitted.fitted_on
    again = run(manifest, "--json", "--method", "isotonic", "--out", str(out))
    assert json.loads(again.stdout)["method"] == "isotonic"
    assert Calibration.read(out / "calibration.json").knots


def test_tables(manifest: Path, encoder: TableEncoder) -> None:
    told = json.loads(run(manifest, "--json").stdout)
    printed = run(manifest).stdout
    assert printed.startswith("table@1 on 96 pictures with 192 captions, platt, 5-fold by picture\n")
    lines = [line.split() for line in printed.splitlines()]
    first = [f"{told[name]:.3f}" for name in ("base_rate", "mean_probability", "ece", "ece_equal_width", "auroc")]
    assert ["96", "192", *first, f"{told['brier']:.3f}", f"{told['brier_skill']:.3f}"] in lines
    assert [f"{risk:.3f}" for risk in (*told["risk"].values(), told["risk_coverage_area"])] in lines
    for concept in told["concepts"]:
        shares = [f"{share:.3f}" for share in concept["false_accept"]]
        assert [concept["concept"], str(concept["removed"]), str(concept["queries"]), *shares] in lines


def test_one_fitted_on_other_pictures_is_judged_as_it_is(manifest: Path, encoder: TableEncoder, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    flat = Calibration("table@1", "0", 0.0, 0.0, 0.0, 0.0, smallest=1, largest=500, fitted_on="a coin")
    flat.write(path)
    told = json.loads(run(manifest, "--fitted", str(path), "--json").stdout)
    # A coin for every hit: the error is its distance from the base rate, and nothing is told apart.
    assert told["mean_probability"] == 0.5
    assert told["ece"] == pytest.approx(abs(0.5 - told["base_rate"]))
    assert (told["auroc"], told["folds"], list(told["methods"])) == (0.5, 0, ["platt"])
    assert [one["false_accept"] for one in told["no_answer"]] == [1, 1, 1, 0]
    assert "platt, fitted on a coin" in run(manifest, "--fitted", str(path)).stdout.splitlines()[0]
    assert "leave it out with --fitted" in str(run(manifest, "--fitted", str(path), "--write").exception)
    Calibration("table@2", "1", 0.0, 0.0, 0.0, 0.0, smallest=1, largest=500).write(path)
    assert isinstance(run(manifest, "--fitted", str(path)).exception, CalibrationError)


def test_it_is_kept_beside_the_weights(
    manifest: Path, encoder: TableEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run(manifest, "--write")
    assert isinstance(refused.exception, InputError)
    assert "got table@1; use --out DIR" in str(refused.exception)
    monkeypatch.setattr(TableEncoder, "calibration_path", tmp_path / "table-1.calibration.json", raising=False)
    assert run(manifest, "--write").exit_code == 0
    assert Calibration.read(tmp_path / "table-1.calibration.json").encoder == "table@1"


def test_what_is_refused(
    manifest: Path, encoder: TableEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "platt or isotonic" in str(run(manifest, "--method", "magic").exception)
    (tmp_path / "file").write_text("")
    assert "cannot write into --out" in str(run(manifest, "--out", str(tmp_path / "file")).exception)

    monkeypatch.setattr(TableEncoder, "modalities", frozenset({"text"}))
    assert "text and image are needed" in str(run(manifest).exception)
    monkeypatch.setattr(TableEncoder, "encode_image", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    # Said before a picture is encoded.
    missing = run(manifest, "--out", str(tmp_path / "out"))
    assert isinstance(missing.exception, MissingExtraError)
