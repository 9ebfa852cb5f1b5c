"""The proof of promised recall: its cases, what it keeps of a run, and the embeddings that it grows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import recall_proof
from benchmarks.recall_proof_sources import grow, unit


def test_cases_are_counted_and_kept_for_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall_proof, "RECIPES", {"inner30": ("IVF64,Flat",)})
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "flickr8k.txt").write_text("a dog in the snow\n", encoding="utf-8")
    work = tmp_path / "work"
    words = [str(tmp_path), str(work), "--rows", "3000", "--queries", "24", "--family", "inner30"]
    figures = recall_proof.main(words)
    cases = json.loads((work / "inner30-IVF64,Flat.json").read_text(encoding="utf-8"))
    # Two kinds, two states; three promises without a filter, one with each of the two filters.
    assert len(cases) == 2 * 2 * (3 + 2)
    assert {one["filter"] for one in cases} == {"no filter", "with the query", "against the query"}
    # So few items that a filter leaves are compared with one by one.
    assert all(one["exact"] == 1 and one["recall"] == 1 for one in cases if one["filter"] != "no filter")
    assert figures["cases"] == 20
    assert figures["answered by the index"] == sum(one["exact"] < 0.5 for one in cases) > 0
    kept = sum(one["recall"] >= one["promise"] for one in cases)
    assert figures["kept"].startswith(f"{kept} of 20 ")
    monkeypatch.setattr(recall_proof, "Case", lambda *_: pytest.fail("was done already"))
    assert recall_proof.main(words) == figures


def test_a_promise_that_was_not_kept_is_listed() -> None:
    case = {"family": "f", "recipe": "r", "state": "changed", "filter": "no filter", "kind": "words", "promise": 0.95}
    good = case | {"recall": 0.97, "exact": 0.0, "kept": True, "refuted": False, "worst tenth": 0.8}
    bad = case | {"recall": 0.91, "exact": 0.1, "kept": False, "refuted": True, "worst tenth": 0.5}
    figures = recall_proof.summarise([good, good, good, bad])
    assert figures["kept, by the index"].startswith("3 of 4 (0.750, ")
    assert figures["refuted: the whole interval is below the promise"] == 1
    assert figures["missed"] == "f, r, changed, no filter, words: 0.910 of 0.95"
    assert figures["missed by collection"] == "f, r: 1"


def test_what_is_grown_lies_where_the_real_ones_lie() -> None:
    rng = np.random.default_rng(0)
    real = unit(rng.normal(size=(20, 32))[rng.integers(20, size=400)] + 0.3 * rng.normal(size=(400, 32)))
    grown = grow(real, 1_000, 1)
    assert grown.shape == (1_000, 32)
    np.testing.assert_allclose(np.linalg.norm(grown, axis=1), 1, atol=1e-5)
    assert len(np.unique(grown.round(5), axis=0)) == 1_000
    np.testing.assert_array_equal(grown, grow(real, 1_000, 1))
    nearest = (grown @ real.T).max(axis=1)
    apart = (unit(rng.normal(size=(1_000, 32))) @ real.T).max(axis=1)
    assert np.median(nearest) > np.quantile(apart, 0.99)
