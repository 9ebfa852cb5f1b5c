from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import results


@pytest.fixture(autouse=True)
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a measurement of a test goes, instead of among the real ones."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    return tmp_path / "results"
