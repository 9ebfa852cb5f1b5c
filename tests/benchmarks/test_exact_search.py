"""The benchmark of exact search: everybody takes part, and what is told are ratios of what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("faiss")

from benchmarks import exact_search


def test_tells_ratios_of_what_it_measured(tmp_path: Path) -> None:
    told = exact_search.measure(3000, 64, 0.01, tmp_path / "c.mm")
    fastest = told["fastest peer"]
    assert told[f"{fastest} us"] == min(told[f"{name} us"] for name in ("FAISS SQfp16", fastest))
    for name in ("index", "collection"):
        assert told[f"{name} us"] > 0
        ratio = told[f"{name} us"] / told["FAISS SQfp16 us"]
        assert told[f"{name} / FAISS SQfp16"] == pytest.approx(ratio, rel=0.02, abs=0.01)
