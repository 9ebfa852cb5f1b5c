"""The comparison of caption scorers, on a manifest of a few pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks.caption_metrics import measure

CAPTIONS = [
    ["A dog can't swim.", "The dog is in the water.", "A wet dog"],
    ["Two men ride horses.", "Men on brown horses"],
    ["Alone"],
    ["A boy jumps on a bed.", "The boy's jump", "A child jumps high on the bed."],
]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "manifest.jsonl"
    path.write_text("\n".join(json.dumps({"image": f"{i}.jpg", "captions": own}) for i, own in enumerate(CAPTIONS)))
    return path


def test_scorers_agree(manifest: Path) -> None:
    figures = measure(manifest, turns=1)
    assert (figures["captions judged"], figures["references"]) == (3, 5)
    assert figures["largest difference from pycocoevalcap"] < 1e-6
    assert figures["largest difference of BLEU from sacrebleu"] < 1e-6


@pytest.mark.skipif(shutil.which("java") is None, reason="no Java runtime")
def test_tokens_of_java(manifest: Path) -> None:
    figures = measure(manifest, turns=1, java=True)
    assert figures["sentences that Java splits alike"] == "8 of 8"
    told = {name: value for name, value in figures.items() if name.startswith("CIDEr")}
    assert len(set(told.values())) == 1
