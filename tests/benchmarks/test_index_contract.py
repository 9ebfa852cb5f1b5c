"""The benchmark of the recall contract, in small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import index_contract


def test_three_cases_and_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(index_contract, "MEASURED", 80)
    monkeypatch.setattr(index_contract, "FRESH", 60)
    words = [str(tmp_path), "--cases", "3", "--largest", "2000"]
    figures = index_contract.main(words)
    lines = [json.loads(line) for line in (tmp_path / "cases.jsonl").read_text().splitlines()]
    assert sorted(line["seed"] for line in lines) == [0, 1, 2]
    assert all(line["recall"] > 0.8 and line["items"] <= 2100 for line in lines)
    assert figures["cases"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["cases.jsonl"]
    monkeypatch.setattr(index_contract, "run", lambda *a, **b: pytest.fail("was done already"))
    capsys.readouterr()
    assert index_contract.main(words) == figures


def test_fifty_cases_hold_what_they_should() -> None:
    cases = [index_contract.draw(seed) for seed in range(50)]
    assert cases == [index_contract.draw(seed) for seed in range(50)]
    assert {(case.recipe, case.share) for case in cases} == {
        (recipe, share) for recipe in index_contract.RECIPES for share in index_contract.SHARES
    }
    assert sum(case.rows > index_contract.LARGE for case in cases) >= 10
    assert {case.apart for case in cases} == {case.along_clusters for case in cases} == {True, False}


def test_summary_lists_what_was_missed() -> None:
    case = {
        "seed": 1,
        "rows": 60_000,
        "dim": 16,
        "recipe": "hnsw",
        "share": 0.5,
        "along_clusters": True,
        "promise": 0.95,
        "recall": 0.96,
        "exact": False,
        "fell_back": False,
        "exact_over_promised": 3.0,
    }
    bad = case | {"seed": 2, "recall": 0.94, "exact_over_promised": 0.5}
    back = case | {"seed": 3, "recall": 1.0, "exact": True, "fell_back": True, "exact_over_promised": 1.0}
    figures = index_contract.summarise([case, bad, back])
    assert figures["promise_kept"] == "2 of 3"
    assert figures["missed"].startswith("seed 2: 0.940 of 0.95, hnsw, 60,000 x 16, filter 0.5 along clusters")
    assert figures["fallback_share_above_50000_rows"] == round(1 / 3, 3)
    assert figures["slower_than_exact"] == 1


def test_texts_lie_apart() -> None:
    case = next(case for case in map(index_contract.draw, range(50)) if case.apart)
    world = index_contract.World(case)
    vectors, queries = world.vectors(400)[0], world.queries(400)
    assert np.linalg.norm(vectors.mean(axis=0) - queries.mean(axis=0)) > 0.3
