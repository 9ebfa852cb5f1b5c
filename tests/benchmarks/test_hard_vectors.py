"""Hard vectors have the dimension that was asked for, and queries lie apart from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.hard_vectors import Surface, main
from benchmarks.vectors import profile


def test_nearby_rows_differ_in_as_many_directions_as_asked_for() -> None:
    narrow, wide = (Surface.draw(96, intrinsic) for intrinsic in (10, 40))
    told = [profile(surface.rows(12_000, (1,)), surface.texts(50, (2,))) for surface in (narrow, wide)]
    low, high = (float(row["local_intrinsic_dimension"]) for row in told)
    # The estimate of so few rows falls behind where there are many directions.
    assert low == pytest.approx(10, abs=2.5)
    assert high > 1.8 * low
    # No narrow subspace holds the rows.
    share = np.linalg.svd(narrow.rows(3000, (3,)), compute_uv=False) ** 2
    assert share[:20].sum() / share.sum() < 0.97


def test_queries_lie_apart() -> None:
    surface = Surface.draw(64, 10)
    rows, more, texts = surface.rows(2000, (1,)), surface.rows(300, (2,)), surface.texts(300, (3,))
    np.testing.assert_array_equal(rows, surface.rows(2000, (1,)))
    assert np.median((texts @ rows.T).max(axis=1)) < np.median((more @ rows.T).max(axis=1)) - 0.1
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)


def test_a_folder_gets_all_files_and_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.hard_vectors.TRAINED", 50)
    monkeypatch.setattr("benchmarks.hard_vectors.ASKED", 20)
    main([str(tmp_path / "out"), "--rows", "400", "--dim", "32", "--intrinsic", "5"])
    held = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"base.npy", "queries-train.npy", "truth-text-test.npz", "encoder.txt"} <= held
    base = np.load(tmp_path / "out" / "base.npy").astype(np.float32)
    queries = np.load(tmp_path / "out" / "queries-test.npy")
    with np.load(tmp_path / "out" / "truth-text-test.npz") as truth:
        np.testing.assert_array_equal(truth["ids"][:, 0], (queries @ base.T).argmax(axis=1))
    with pytest.raises(SystemExit):
        main([str(tmp_path / "out")])
    assert "holds vectors already" in capsys.readouterr().err
