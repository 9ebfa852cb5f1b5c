"""`mmalign train contrastive`, as it is typed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmalign.encoders.registry import load_encoder
from tests.encoders.tiny_models import save_local_dir
from tests.training.toy import make_manifest

CONFIG = """
[data]
near_duplicates = 0
fuzzy_twins = 0
[model]
kind = "adapter"
encoder = "open_clip:local-dir:{model}"
[optimization]
epochs = {epochs}
batch_size = 16
learning_rate = 0.005
"""
CLIP = {"size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.encoders.tiny_models import CLIP as ARCHITECTURE

    folder = tmp_path_factory.mktemp("train")
    save_local_dir(folder / "model", ARCHITECTURE, CLIP)
    make_manifest(folder / "d")
    for name, epochs in (("short", 2), ("long", 100_000)):
        (folder / f"{name}.toml").write_text(CONFIG.format(model=folder / "model", epochs=epochs))
    return folder


def command(folder: Path, *words: str) -> list[str]:
    manifest = ["--manifest", str(folder / "d" / "manifest.jsonl")]
    return [sys.executable, "-m", "mmalign.cli", "train", "contrastive", *manifest, *words]


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *words), cwd=folder, capture_output=True, text=True, timeout=300)


def test_it_trains_tells_and_goes_on(folder: Path) -> None:
    words = ["--config", "short.toml", "--out", "run", "--cache", "cache", "--device", "cpu"]
    first = run(folder, *words)
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["epoch", "1"], ["epoch", "2"]]
    assert "best epoch: " in lines[2]
    assert "train_pictures 40" in first.stderr
    assert (folder / "cache").is_dir()
    assert not (folder / "run" / "cache").exists()
    second = run(folder, *words, "--json")
    assert second.returncode == 0, second.stderr
    report = json.loads(second.stdout)
    assert report["resumed"]
    assert (report["epochs"], report["best"]["epoch"]) == (2, int(lines[2].split()[2]))
    assert load_encoder(f"adapter:{folder / report['exported']}").dim == 32


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["--config", "none.toml", "--out", "x"], 1, "error: the configuration none.toml cannot be read"),
        (["--config", "short.toml", "--out", "y", "--device", "tpu9"], 2, "error: device 'tpu9' is not one that torch"),
    ],
)
def test_errors_are_one_clear_line(folder: Path, words: list[str], status: int, text: str) -> None:
    found = run(folder, *words)
    assert found.returncode == status
    assert found.stderr.startswith(text)
    assert "Traceback" not in found.stderr


def test_ctrl_c_exits_130_and_says_how_to_go_on(folder: Path, interruptible: None) -> None:
    words = command(folder, "--config", "long.toml", "--out", "stopped", "--cache", "cache")
    child = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("epoch   3"):
            break
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, told = child.communicate(timeout=120)
    assert child.returncode == 130
    assert "the same command goes on from there" in told
    assert json.loads((folder / "stopped" / "checkpoint.json").read_text())["files"]["state"]
