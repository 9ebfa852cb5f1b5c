"""Whole trainings of a toy model: they learn, and they survive being stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.errors import InputError, TrainingInterrupted
from mmalign.training.checkpoint import load_best
from mmalign.training.contrastive.config import parse_config
from mmalign.training.contrastive.train import _portable, train_contrastive
from tests.training.toy import make_manifest, settings

pytestmark = pytest.mark.usefixtures("toy")

# Runs in a child, so that it can be killed; sleeps a little in each batch, so that there is time to.
CHILD = """
import json, sys, time
from pathlib import Path
from mmalign.errors import TrainingInterrupted
from mmalign.training.contrastive import train as run
from mmalign.training.contrastive import teachers
from mmalign.training.contrastive.config import parse_config
from tests.training.conftest import build
run.build_model = teachers.build_model = build
table, out = json.loads(sys.argv[1]), sys.argv[2]
def progress(name, done, total):
    print(name, done, flush=True)
    time.sleep(float(sys.argv[3]))
try:
    run.train_contrastive(parse_config(table, folder=Path(".")), out, progress=progress)
except TrainingInterrupted as stop:
    print(stop, flush=True)
    sys.exit(130)
"""


def train(table: dict[str, Any], out: Path, **options: Any) -> Any:
    return train_contrastive(parse_config(table, folder=out.parent), out, **options)


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_best(out)


def start_child(table: dict[str, Any], out: Path, root: Path, *, pause: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, json.dumps(table), str(out), str(pause)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(root)}
    return subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(child: subprocess.Popen[str], text: str) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if text in line:
            return
    pytest.fail(f"the child ended without {text!r}")


def test_a_training_learns_and_tells(tmp_path: Path) -> None:
    out = tmp_path / "run"
    report = train(settings(make_manifest(tmp_path / "d"), optimization={"epochs": 12}), out)
    header, *epochs = records(out)
    assert header["event"] == "start"
    assert header["config"]["optimization"]["epochs"] == 12
    assert header["data"]["train_pictures"] == 40
    assert header["versions"]["torch"] == torch.__version__
    assert [record["epoch"] for record in epochs] == list(range(1, 13))
    # Chance among 24 pictures with 48 captions is 4 %, and about 130 for the sum.
    assert report.best["sum"] == max(record["sum"] for record in epochs) > 300
    assert report.exported.is_file()
    assert not list(out.glob(".tmp-*"))
    assert len(list(out.glob("best-*.pt"))) == len(list(out.glob("state-*.pt"))) == 1


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    table, out = settings(make_manifest(tmp_path / "d")), tmp_path / "run"
    first = train(table, out)
    before = weights(out)
    second = train(table, out)
    assert (first.resumed, second.resumed) == (False, True)
    assert second.best == first.best
    assert [record["event"] for record in records(out)] == ["start", "epoch", "epoch", "epoch", "resume"]
    assert all(torch.equal(weights(out)[name], tensor) for name, tensor in before.items())


def test_the_epoch_is_named_before_its_first_step(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    table, out = settings(make_manifest(tmp_path / "d")), tmp_path / "run"
    train(table, out, progress=lambda *now: told.append(now))
    epochs = [now for now in told if now[0].startswith("epoch")]
    steps = epochs[0][2]
    assert epochs[:2] == [("epoch 1 of 3", 0, steps), ("epoch 1 of 3", 1, steps)]
    told.clear()
    train(table, out, progress=lambda *now: told.append(now))
    assert [now for now in told if now[0].startswith("epoch")] == [], "nothing is left to train"


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, root: Path, accumulate: int) -> None:
    changes = {"epochs": 4, "batch_size": 6, "checkpoint_minutes": 0, "accumulate": accumulate}
    table = settings(
        make_manifest(tmp_path / "d"), optimization=changes, loss={"neighbours": 3, "hard_negative_weight": 0.5}
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(table, whole)
    child = start_child(table, cut, root, pause=0.05)
    wait_for(child, "epoch 3 of 4 3")
    child.send_signal(signal.SIGKILL)
    child.communicate()
    pointer = json.loads((cut / "checkpoint.json").read_text())
    assert pointer["files"]["state"]["file"].startswith("state-3-")
    report = train(table, cut)
    assert report.resumed
    expected, found = weights(whole), weights(cut)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    figures = [
        [{k: v for k, v in record.items() if k != "seconds"} for record in records(out) if record["event"] == "epoch"]
        for out in (whole, cut)
    ]
    assert figures[0] == figures[1]


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, root: Path, interruptible: None) -> None:
    table = settings(make_manifest(tmp_path / "d"), optimization={"epochs": 3, "batch_size": 6})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train(table, whole)
    child = start_child(table, cut, root, pause=0.1)
    wait_for(child, "epoch 2 of 3 2")
    child.send_signal(signal.SIGINT)
    output = child.communicate(timeout=60)[0]
    assert child.returncode == 130
    assert "the same command goes on from there" in output
    train(table, cut)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(cut)[name]), name


def test_an_interrupt_is_an_exception_to_the_caller(tmp_path: Path) -> None:
    def progress(name: str, done: int, total: int) -> None:
        if (name, done) == ("epoch 2 of 3", 1):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(TrainingInterrupted, match="stopped in epoch 2 of 3 after 1 of 3"):
            train(settings(make_manifest(tmp_path / "d")), tmp_path / "run", progress=progress)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_seed_decides(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "d")
    outs = [tmp_path / name for name in ("a", "b", "c")]
    torch.manual_seed(3)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    for out, seed in zip(outs, (1, 1, 2), strict=True):
        train(settings(manifest, optimization={"seed": seed}), out)
    first, same, other = map(weights, outs)
    assert all(torch.equal(tensor, same[name]) for name, tensor in first.items())
    assert not torch.equal(first["image.weight"], other["image.weight"])
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), expected_next)


def test_another_configuration_is_refused_by_what_differs(tmp_path: Path) -> None:
    manifest, out = make_manifest(tmp_path / "d"), tmp_path / "run"
    train(settings(manifest), out)
    with pytest.raises(InputError, match=r"optimization\.learning_rate was 0\.02 and is 0\.03; name another --out"):
        train(settings(manifest, optimization={"learning_rate": 0.03}), out)


def test_a_key_that_is_new_since_is_no_difference(tmp_path: Path) -> None:
    manifest, out = make_manifest(tmp_path / "d"), tmp_path / "run"
    train(settings(manifest), out)
    kept = json.loads((out / "run.json").read_text())
    del kept["config"]["optimization"]["patience"]
    (out / "run.json").write_text(json.dumps(kept))
    assert train(settings(manifest), out).resumed
    with pytest.raises(InputError, match=r"optimization\.patience was 0 and is 4"):
        train(settings(manifest, optimization={"patience": 4}), out)


def test_other_data_under_the_same_configuration_is_refused(tmp_path: Path) -> None:
    manifest, out = make_manifest(tmp_path / "d"), tmp_path / "run"
    train(settings(manifest), out)
    make_manifest(tmp_path / "d", seed=1)
    with pytest.raises(InputError, match="another model or with other pictures or captions; name another --out"):
        train(settings(manifest), out)


def test_early_stop_and_best_epoch(tmp_path: Path) -> None:
    # A learning rate far too high: nothing gets better after the first epochs.
    table = settings(make_manifest(tmp_path / "d"), optimization={"epochs": 30, "learning_rate": 0.3, "patience": 2})
    report = train(table, tmp_path / "run")
    assert report.epochs < 30
    assert report.epochs == report.best["epoch"] + 2


def test_fresh_pictures_train_too(tmp_path: Path) -> None:
    data = {"cached": False, "views": ["plain", "flip", "crop"]}
    table = settings(make_manifest(tmp_path / "d"), data=data, optimization={"epochs": 6})
    first, second = (train(table, tmp_path / name) for name in "ab")
    assert first.best["sum"] > 200
    assert all(torch.equal(t, weights(second.out)[name]) for name, t in weights(first.out).items())


def test_what_travels_with_the_weights_names_no_folder_of_the_machine() -> None:
    values = {"a": ["/home/me/data/text/one.txt", "relative/two.txt"], "b": {"c": "/x", "d": 3, "e": None}}
    assert _portable(values) == {"a": ["text/one.txt", "relative/two.txt"], "b": {"c": "x", "d": 3, "e": None}}
