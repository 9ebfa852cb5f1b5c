"""The quality benchmark on made-up data, and the tables that pages show of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import report, retrieval
from mmalign.errors import SourceError
from tests.evaluation.helpers import TableEncoder, write

NAMES = ("cat", "dog")


class Named(TableEncoder):
    """An encoder under another name, right (1) or wrong (-1) about every picture."""

    def __init__(self, name: str, sign: int) -> None:
        texts = {f"a photo of a {name}": row for name, row in zip(NAMES, np.eye(2), strict=True)}
        super().__init__(texts, sign * np.eye(2))
        self.name = name


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    encoders = {"lite": Named("good@2", 1), "lite@1": Named("bad@1", -1), "same": Named("good@2", 1)}
    monkeypatch.setattr(retrieval, "load_encoder", lambda spec, *, device: encoders[spec])
    rows = [
        {
            "captions": [f"a photo of a {name}"],
            "label": name,
            "hard_negatives": [
                {"type": "swap", "caption": f"a photo of a {name}", "negative": f"a photo of a {other}"}
            ],
            "split": "dev",
        }
        for name, other in (NAMES, NAMES[::-1])
    ]
    for one in retrieval.SETS.values():
        (tmp_path / one.folder).mkdir(exist_ok=True)
        write(tmp_path / one.folder, rows)
    return tmp_path


def figures(written: Path, name: str) -> dict[str, Any]:
    return json.loads((written / f"{name}.json").read_text(encoding="utf-8"))


def test_two_encoders_side_by_side(data: Path, written: Path) -> None:
    retrieval.main([str(data)])
    assert sorted(path.stem for path in written.iterdir()) == sorted(retrieval.SETS)
    found = figures(written, "retrieval")
    assert found["figures"]["text-to-image any_hit@1"] == {
        "good@2": 100.0,
        "good@2 95%": "100.0 to 100.0",
        "bad@1": 0.0,
        "bad@1 95%": "0.0 to 0.0",
    }
    assert found["data"] == (
        "Flickr8k dev: photographs with five captions each; 2 pictures, 2 captions; percent, but ranks"
    )
    pairs = figures(written, "pairs")["figures"]
    assert list(pairs) == ["all pairs (2)", "swap (2)"]
    assert (pairs["swap (2)"]["good@2"], pairs["swap (2)"]["bad@1"], pairs["swap (2)"]["chance"]) == (100.0, 0.0, 50.0)
    classes = figures(written, "classes_ucm")
    assert classes["figures"]["image-to-class accuracy@1"]["chance"] == 50.0
    assert classes["figures"]["class-to-image median_rank"]["bad@1"] == 2.0
    assert "2 pictures, 2 classes; prompt 'a photo of a {}'" in classes["data"]


def test_an_encoder_named_twice_is_measured_once(data: Path, written: Path) -> None:
    retrieval.main([str(data), "--encoders", "lite", "same", "--sets", "pairs"])
    assert [path.name for path in written.iterdir()] == ["pairs.json"]
    assert figures(written, "pairs")["figures"]["swap (2)"] == {
        "good@2": 100.0,
        "95%": "100.0 to 100.0",
        "chance": 50.0,
    }


def test_what_is_missing_is_named(data: Path, written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        retrieval.main([str(data), "--cards", "--sets", "pairs"])
    assert "a card shows all sets" in capsys.readouterr().err
    (data / "coco" / "manifest.jsonl").unlink()
    with pytest.raises(SourceError, match="coco"):
        retrieval.main([str(data), "--sets", "pairs"])
    assert not written.exists()


def test_a_page_shows_columns_and_single_values() -> None:
    result = {"date": "2026-01-01", "data": "x", "machine": "m", "commit": "c"}
    single = report.table({**result, "figures": {"a_b": 1, "c": "two"}})
    assert single.splitlines()[:4] == ["| figure | value |", "| --- | ---: |", "| a b | 1 |", "| c | two |"]
    some = report.table({**result, "figures": {"a_b": 1, "c": 2, "d_e": 3}}, only="d e; a b")
    assert some.splitlines()[2:5] == ["| d e | 3 |", "| a b | 1 |", ""]
    several = report.table(
        {**result, "figures": {"a": {"lite@2": 1, "chance": 0.5}, "b": {"lite@2": 2, "95%": "1 to 3"}}}
    )
    assert several.splitlines()[:4] == [
        "| figure | lite@2 | chance | 95% |",
        "| --- | ---: | ---: | ---: |",
        "| a | 1 | 0.5 |  |",
        "| b | 2 |  | 1 to 3 |",
    ]
