"""The command as it is typed, and the pictures that it is tried on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mmalign import cli
from mmalign.encoders.registry import load_encoder
from tests.tools.color_encoder import COLORS, ColorEncoder, paint


class Done(NamedTuple):
    """What a command left: its exit status, and what it wrote to either stream."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def last(self) -> str:
        return self.err.splitlines()[-1]


Run = Callable[..., Done]


@pytest.fixture
def encoder() -> ColorEncoder:
    """What stands in for `lite`."""
    return ColorEncoder()


@pytest.fixture
def run(
    tmp_path: Path, encoder: ColorEncoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs the command in an empty folder; every spec but those of `encoder` goes the usual way."""
    monkeypatch.setattr(
        "mmalign.collection.collection.load_encoder",
        lambda spec: encoder if spec in ("lite", "color@1", encoder) else load_encoder(spec),
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMALIGN_COLLECTION", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*words: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["mmalign", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return Done(int(stop.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """The folder `photos`, with a picture of each colour."""
    for i, color in enumerate(COLORS):
        paint(tmp_path / "photos" / f"{color}.png", color, detail=i)
    return tmp_path / "photos"
