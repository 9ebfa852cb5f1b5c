"""`mmalign eval`: what each table prints, and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from mmalign.cli import app
from mmalign.errors import InputError
from mmalign.evaluation import classes, pairs, retrieval
from tests.evaluation.helpers import TableEncoder, write

ROWS: list[dict[str, Any]] = [
    {
        "captions": [f"a photo of a {name}"],
        "label": name,
        "hard_negatives": [{"type": "swap", "caption": f"a photo of a {name}", "negative": f"a photo of a {other}"}],
        "split": split,
    }
    for name, other, split in (("cat", "dog", "dev"), ("dog", "cat", "dev"), ("cow", "cat", "test"))
]
TEXTS = {f"a photo of a {name}": row for name, row in zip(("cat", "dog", "cow"), np.eye(3), strict=True)}
TEXTS |= {name: TEXTS[f"a photo of a {name}"] for name in ("cat", "dog", "cow")}


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures, the last of them seen as a cat, and an encoder that stands in for every spec."""
    encoder = TableEncoder(TEXTS, np.eye(3)[[0, 1, 0]])
    for module in (retrieval, pairs, classes):
        monkeypatch.setattr(module, "load_encoder", lambda spec: encoder)
    return write(tmp_path, ROWS)


def run(table: str, manifest: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["eval", table, "--manifest", str(manifest), *words])


def test_pairs(manifest: Path) -> None:
    told = json.loads(run("pairs", manifest, "--json").stdout)
    assert told["overall"]["accuracy"] == pytest.approx(66.67)
    assert (told["n_pairs"], told["skipped"]) == (3, [])
    printed = run("pairs", manifest, "--split", "dev").stdout.splitlines()
    assert printed[0] == "table@1 on 2 pictures with 2 pairs"
    assert printed[-1].split() == ["overall", "2", "100.0", "100.0", "to", "100.0", "50.0"]


def test_classes(manifest: Path) -> None:
    told = json.loads(run("classes", manifest, "--json").stdout)
    assert told["image_to_class"]["accuracy@1"] == pytest.approx(66.67)
    assert told["prompts"] == ["a photo of a {}"]
    assert json.loads(run("classes", manifest, "--json", "--prompt", "{}").stdout)["prompts"] == ["{}"]
    printed = run("classes", manifest, "--split", "dev", "--prompt", "{}", "--prompt", "a photo of a {}").stdout
    assert printed.startswith("table@1 on 2 pictures of 2 classes\n")
    assert ["class-to-image", "any_hit@1", "100.0", "100.0", "to", "100.0", "50.0"] in [
        line.split() for line in printed.splitlines()
    ]
    assert isinstance(run("classes", manifest, "--prompt", "no place").exception, InputError)


def test_the_help_names_the_default_prompt() -> None:
    helped = " ".join(CliRunner().invoke(app, ["eval", "classes", "--help"]).stdout.split())
    assert f'Default: "{classes.PROMPTS[0]}"' in helped.replace("│ ", "")


@pytest.mark.parametrize("table", ["retrieval", "pairs", "classes"])
def test_what_was_left_out_is_told(manifest: Path, table: str) -> None:
    (manifest.parent / "001.png").write_bytes(b"no picture")
    printed = run(table, manifest)
    assert "001.png: not a picture" in printed.stderr
    skipped = json.loads(run(table, manifest, "--json").stdout)["skipped"]
    assert [Path(skip["uri"]).name for skip in skipped] == ["001.png"]
    assert set(skipped[0]) == {"uri", "reason"}
