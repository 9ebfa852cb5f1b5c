from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.random_operations.driver import replay, run
from tests.random_operations.pictures import Pictures
from tests.random_operations.vectors import Vectors


def test_a_hundred_steps(tmp_path: Path) -> None:
    done = run("vectors", 100, 5, tmp_path, tmp_path / "trace.jsonl", kills=False)
    assert done.total() == 100


def test_a_trace_replays_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault that is put in is found, and found again at the same step from the trace alone."""
    trace = tmp_path / "trace.jsonl"
    perform = Vectors.perform

    def forgets(collection: object, step: dict) -> object:
        if step["do"] == "update" and "v7" in step["ids"]:
            step = step | {"ids": [name for name in step["ids"] if name != "v7"] or ["none"]}
        return perform(collection, step)  # type: ignore[arg-type]

    monkeypatch.setattr(Vectors, "perform", staticmethod(forgets))
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    with pytest.raises(AssertionError):
        run("vectors", 2000, 5, tmp_path / "first", trace, kills=False)
    steps = len(trace.read_text(encoding="utf-8").splitlines()) - 1
    with pytest.raises(AssertionError) as found:
        replay(trace, tmp_path / "second")
    noted = found.value.__notes__[0]
    assert noted.startswith("at step ")
    assert int(noted.split()[2].rstrip(":")) <= steps
    assert json.loads(noted.split(": ", 1)[1])["do"] in {"update", "search"}


def test_a_trace_of_pictures_replays_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of the same name the ids are the same, and so is what is found at the end of the trace."""
    trace, folder = tmp_path / "trace.jsonl", tmp_path / "folder"
    perform = Pictures.perform

    def forgets(collection: object, step: dict) -> object:
        # It names ids, which another folder would not have.
        return len(step["ids"]) if step["do"] == "update" else perform(collection, step)  # type: ignore[arg-type]

    monkeypatch.setattr(Pictures, "perform", staticmethod(forgets))
    told = []

    def first() -> object:
        return run("pictures", 300, 5, folder, trace, kills=False)

    for does in (first, lambda: replay(trace, folder)):
        folder.mkdir()
        with pytest.raises(AssertionError) as found:
            does()
        told.append(str(found.value))
        shutil.rmtree(folder)
    assert told[0] == told[1]
