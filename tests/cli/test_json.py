"""`--json` is one document of JSON's own values on standard output, for every command that is quick enough to try."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mmalign.cli import app
from mmalign.cli.output import json_list, print_json
from mmalign.collection.collection import Collection
from tests.tools.color_encoder import ColorEncoder, paint


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is no JSON")


def document(text: str) -> Any:
    """Exactly one document, strictly read."""
    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mmalign.collection.collection.load_encoder", lambda *_: ColorEncoder())
    for color in ("red", "blue", "green"):
        paint(tmp_path / "photos" / f"{color}.png", color)
    (tmp_path / "photos" / "broken.png").write_bytes(b"nothing")
    (tmp_path / "photos" / "red.txt").write_text("a red wall\n")
    made = Collection.create(tmp_path / "photos.mm", encoder=ColorEncoder())
    made.add(tmp_path / "photos", progress=False)
    ids = [hit.id for hit in made.search("red")]
    made.update(ids, {"day": datetime.date(2020, 1, 2), "at": datetime.datetime(2020, 1, 2, 3), "far": float("inf")})
    return tmp_path


COMMANDS = [
    "index photos --json",
    "index photos --prune --json",
    "search red --json",
    "search photos/red.png --json -k 2",
    "search red -k 0 --json",
    "search red --where far>1 --json",
    "search photos/red.png --captions --json",
    "info --json",
    "doctor --json",
    "models --json",
    "recipes --json",
    "recipes hnsw --json",
    "plan -n 100M --dim 512 --json",
    "remove photos/red.png --json",
    "remove --where far>1 --json",
]


@pytest.mark.parametrize("words", COMMANDS)
def test_one_document(folder: Path, words: str) -> None:
    asked = words.split()
    result = CliRunner().invoke(app, [*asked, *(["-c", "photos.mm"] if asked[0] in OF_A_COLLECTION else [])])
    found = document(result.stdout)
    assert found is not None
    if words.startswith("search red --json"):
        kept = found["hits"][0]["metadata"]
        assert (kept["day"], kept["at"], kept["far"]) == ("2020-01-02", "2020-01-02T03:00:00", None)
        assert max(hit["score"] for hit in found["hits"]) <= 1


OF_A_COLLECTION = {"index", "search", "info", "doctor", "remove"}


def test_what_json_has_no_word_for(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"f": float("inf"), "n": float("nan"), "a": np.float32("-inf"), "d": datetime.date(2020, 1, 2)})
    assert document(capsys.readouterr().out) == {"f": None, "n": None, "a": None, "d": "2020-01-02"}
    for count in range(3):
        with json_list() as put:
            for number in range(count):
                put({"n": number})
        assert document(capsys.readouterr().out) == [{"n": number} for number in range(count)]

    def stopped() -> None:
        with json_list() as put:
            put(1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert document(capsys.readouterr().out) == [1]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_any_terminal_can_print_it(encoding: str) -> None:
    code = "from mmalign.cli.output import print_json; print_json({'a': '\\u72d7', 'b': '\\udcff', 'c': '\\u2028'})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env={"PYTHONIOENCODING": encoding, **_path()}
    )
    assert document(done.stdout.decode(encoding)) == {"a": "狗", "b": "\udcff", "c": "\u2028"}


def _path() -> dict[str, str]:
    import os

    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
