"""Indexes are built once, timed in turn, and compared with the best of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import index_peers
from benchmarks.index_peers import BEST_MINE, BEST_PEER, RATIO, SPREAD, TOLD, UNTOLD, around, table
from benchmarks.report import table as page
from benchmarks.vectors import chunks, unit
from mmalign.index.recall.ground_truth import exact_truth

pytest.importorskip("faiss")
DIM = 24


def took(recall_to_speed: dict[float, float]) -> list[dict[str, float]]:
    return [{"queries": 100, "cpu_seconds": 100 / speed, "seconds": 1} for speed in recall_to_speed.values()]


def measured(**speeds: list[dict[float, float]]) -> dict[str, Any]:
    """What was timed where the points of each index, in each turn, have these speeds."""
    told = {}
    for name, turns in speeds.items():
        told[name.replace("_", " ")] = {
            "build_cpu_s": 1.5,
            "build_s": 9.0,
            "bytes": 2000,
            "resident": 3000,
            "version": "1",
            "points": [[0, effort, recall] for effort, recall in enumerate(turns[0], 1)],
            "turns": [{"batch": took(turn), "single": took(turn)} for turn in turns],
        }
    return {"rows": 10, "dim": 4, "absent": {"NGT ONNG": "no module"}, "peers": told}


def test_the_ratio_is_to_the_best_peer_of_each_recall() -> None:
    steep = {0.90: 1000.0, 0.95: 500.0, 0.98: 100.0}
    even = {0.90: 600.0, 0.95: 550.0, 0.98: 500.0}
    rows = table(
        measured(
            mmalign_lean=[{0.90: 3000.0, 0.95: 1100.0, 0.98: 10.0}] * 3,
            mmalign_hnsw=[{0.90: 10.0, 0.95: 10.0, 0.98: 250.0}] * 3,
            steep=[steep] * 3,
            even=[even] * 3,
            low=[{0.5: 9e9, 0.6: 8e9}] * 3,
        ),
        "cpu_seconds",
    )
    assert rows[BEST_PEER] == {
        f"{way} at {recall}": name
        for way in ("batch", "single")
        for recall, name in (("0.90", "steep"), ("0.95", "even"), ("0.98", "even"))
    }
    assert rows[BEST_MINE]["batch at 0.90"] == "lean"
    assert rows[BEST_MINE]["batch at 0.98"] == "hnsw"
    assert [rows[RATIO][f"single at {recall}"] for recall in ("0.90", "0.95", "0.98")] == [3, 2, 0.5]
    assert rows["low"]["batch at 0.90"] == "-"
    assert rows["steep"] | {"bytes": 200, "bytes in memory": 300, "build s": 1.5} == rows["steep"]
    assert rows["NGT ONNG"] == {"library": "not measured: no module"}
    page({"figures": rows, "date": "", "data": "", "machine": "", "commit": ""}, RATIO)


def test_the_ratio_is_the_median_of_turns() -> None:
    mine = [{0.98: speed} for speed in (100.0, 20.0, 9.0)]
    other = [{0.98: speed} for speed in (50.0, 10.0, 3.0)]
    rows = table(measured(mmalign_hnsw=mine, other=other), "cpu_seconds")
    assert rows[RATIO]["batch at 0.98"] == 2
    assert rows[SPREAD]["batch at 0.98"] == "2.00 to 3.00"
    assert rows["other"]["batch at 0.98"] == 10


def test_lean_that_was_not_told_of_queries_is_beside_it_and_no_best_recipe() -> None:
    figures = measured(mmalign_lean=[{0.98: 200.0}], other=[{0.98: 100.0}])
    figures["peers"][UNTOLD] = measured(x=[{0.98: 400.0}])["peers"]["x"]
    rows = table(figures, "cpu_seconds")
    assert rows[BEST_MINE]["single at 0.95"] == "lean"
    assert rows[TOLD]["single at 0.95"] == 0.5


def test_of_several_numbers_of_candidates_the_fastest_counts() -> None:
    figures = measured(mmalign_hnsw=[{0.98: 100.0}], other=[{0.90: 800.0, 0.96: 200.0, 0.901: 500.0, 0.99: 400.0}])
    for i, point in enumerate(figures["peers"]["other"]["points"]):
        point[0] = 4 if i < 2 else 16
    rows = table(figures, "cpu_seconds")
    assert rows["other"]["batch at 0.90"] == 800
    assert rows["other"]["batch at 0.98"] == pytest.approx(500 * 0.8 ** ((0.98 - 0.901) / (0.99 - 0.901)), abs=1)


@pytest.mark.parametrize("targets", [(0.9, 0.95, 0.98), (0.5,), (0.1, 0.999)])
def test_the_efforts_around_each_recall_are_found(targets: tuple[float, ...]) -> None:
    efforts = index_peers.EFFORTS
    asked: list[int] = []

    def recall_of(effort: int) -> float:
        asked.append(effort)
        return 1 - 1 / (1 + effort)

    chosen = around(efforts, recall_of, targets)
    for target in targets:
        at = next(i for i, effort in enumerate(efforts) if 1 - 1 / (1 + effort) >= target)
        assert {efforts[max(0, at - 1)], efforts[at]} <= set(chosen)
    assert len(asked) == len(set(asked)) < len(efforts) / 2
    assert around(efforts, lambda effort: 0.01, targets) == efforts[-2:]
    assert efforts[0] in around(efforts, lambda effort: 1.0, targets)
    # Beyond some effort nothing is found at all, and before it all is.
    broken = around(efforts, lambda effort: recall_of(effort) if effort < 3000 else 0.0, targets)
    assert broken == chosen


def test_no_more_lists_are_looked_at_than_there_are() -> None:
    assert index_peers.lists_of(10_000) == 400
    assert {peer.name for peer in index_peers.PEERS if peer.lists} == {
        peer.name for peer in index_peers.PEERS if "IVF" in peer.name or peer.kind == "scann"
    }


def test_peers_are_built_once_timed_once_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    vectors = unit(rng.normal(size=(1500, DIM)).astype(np.float32)).astype(np.float16)
    np.save(tmp_path / "base.npy", vectors)
    for stem in ("queries-train", "queries-test"):
        np.save(tmp_path / f"{stem}.npy", unit(rng.normal(size=(20, DIM)).astype(np.float32)))
    truth = exact_truth(np.load(tmp_path / "queries-test.npy"), chunks(tmp_path / "base.npy"), 20)
    np.savez(tmp_path / "truth-text-test.npz", scores=truth.scores, ids=truth.ids)
    told: dict[str, Any] = {}
    monkeypatch.setattr(index_peers, "write", lambda name, data, figures: told.update({name: figures}))
    monkeypatch.setattr(index_peers, "LEAST_S", 0.0)
    work = tmp_path / "work"
    names = ["mmalign hnsw", "FAISS HNSW32,Flat", "FAISS IVF,PQ(d/2)x4fs,RFlat"]
    words = [str(tmp_path), str(work), "--only", *names, "autofaiss"]
    index_peers.main(["build", *words])
    built = {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    index_peers.main(["build", *words])
    assert built == {path.name: path.stat().st_mtime_ns for path in work.iterdir()}
    index_peers.main(["time", *words, "--turns", "1"])
    lines = (work / "times-text.jsonl").read_text().splitlines()
    index_peers.main(["time", *words, "--turns", "2"])
    # The turn that was done stays as it is.
    assert (work / "times-text.jsonl").read_text().splitlines()[: len(lines)] == lines
    figures = told["index_peers"]
    json.dumps(figures)
    for name in names:
        assert figures[name]["batch at 0.90"] > 0
        assert figures[name]["single at 0.98"] > 0
        assert figures[name]["bytes"] > DIM
    assert figures[BEST_PEER]["single at 0.95"] in names[1:]
    assert figures[RATIO]["single at 0.95"] > 0
    assert figures["autofaiss"] == {"library": "not measured: --autofaiss was not given"}
    index_peers.main(["cases", str(work)])
    assert list(told["index_peers_cases"]) == [f"1,500 x {DIM} (unknown), text queries"]


def test_a_library_that_is_not_there_is_told_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import peer_worker

    assert peer_worker.probe("faiss")["version"].startswith("faiss")
    monkeypatch.setitem(peer_worker.LIBRARIES, "faiss", ("no_such_library", "none"))
    assert "no_such_library" in peer_worker.probe("faiss")["missing"]
