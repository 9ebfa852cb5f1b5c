"""Checkpoints: whole or not there, and refused where they do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.errors import InputError, StorageError
from mmalign.training import checkpoint
from mmalign.training.checkpoint import Checkpoints, load_best, state_digest
from mmalign.training.contrastive.config import parse_config
from mmalign.training.contrastive.model import Tensors
from mmalign.training.contrastive.train import train_contrastive
from tests.training.toy import ToyModel, make_manifest, settings


def state(epoch: int, *, size: int = 10) -> dict[str, Any]:
    return {"epoch": epoch, "step": 0, "weights": torch.full((size,), float(epoch)), "note": ["a", 1, None]}


def test_a_state_comes_back_and_replaces_the_last(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, identity="x")
    assert files.load() is None
    files.save(state(1), best={"w": torch.ones(2)})
    files.save(state(2))
    files.save(state(2))
    found = files.load()
    assert found is not None
    assert torch.equal(found["weights"], state(2)["weights"])
    assert found["note"] == ["a", 1, None]
    assert torch.equal(load_best(tmp_path)["w"], torch.ones(2))
    assert len(list(tmp_path.glob("*.pt"))) == 2


def test_a_full_disk_keeps_the_last_checkpoint(small_disk: Path) -> None:
    files = Checkpoints(small_disk, identity="x")
    files.save(state(1), best={"w": torch.ones(2)})
    before = {path.name: path.read_bytes() for path in small_disk.iterdir()}
    with pytest.raises(StorageError, match=r"cannot be written.*the last one is as it was: free space"):
        files.save(state(2, size=400_000), best={"w": torch.zeros(2)})
    assert {path.name: path.read_bytes() for path in small_disk.iterdir()} == before
    found = files.load()
    assert found is not None
    assert found["epoch"] == 1
    files.save(state(3))
    assert torch.equal(load_best(small_disk)["w"], torch.ones(2))


def test_a_disk_that_fails_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Checkpoints(tmp_path, identity="x")
    files.save(state(1))

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomic", refuse)
    with pytest.raises(StorageError, match="No space left on device"):
        files.save(state(2))
    assert [path.name for path in tmp_path.glob("*.pt")] == ["state-1-0.pt"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path, identity="x")
    files.save(state(1, size=5000), best={"w": torch.ones(2)})
    path = tmp_path / "state-1-0.pt"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[: len(whole) // 2], bytes(flipped), b""):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"is truncated or damaged; bring it back, or delete .*checkpoint\.json"):
            files.load()
    path.unlink()
    with pytest.raises(InputError, match="is gone"):
        files.load()
    (tmp_path / "checkpoint.json").write_text("{")
    with pytest.raises(InputError, match=r"checkpoint\.json is damaged"):
        files.load()


def test_the_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    small, large = torch.nn.Linear(3, 2).state_dict(), torch.nn.Linear(4, 2).state_dict()
    assert state_digest(small) != state_digest(large) != state_digest(large, "data")
    Checkpoints(tmp_path, identity=state_digest(small)).save(state(1))
    with pytest.raises(InputError, match="made by another model or with other pictures or captions"):
        Checkpoints(tmp_path, identity=state_digest(large)).load()


@pytest.mark.usefixtures("toy")
def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse_config(settings(make_manifest(tmp_path / "d")), folder=tmp_path)
    real, calls = ToyModel.embed_texts, []

    def overflows(model: ToyModel, inputs: Tensors) -> torch.Tensor:
        calls.append(model.training)
        # Three steps an epoch: the second of the second epoch.
        return real(model, inputs) * (float("nan") if sum(calls) == 5 and model.training else 1)

    with monkeypatch.context() as patch:
        patch.setattr(ToyModel, "embed_texts", overflows)
        with pytest.raises(
            InputError, match=r"the loss is nan in epoch 2, step 2; .* kept\. Lower optimization\.learning_rate"
        ):
            train_contrastive(config, tmp_path / "run")
    pointer = json.loads((tmp_path / "run/checkpoint.json").read_text())
    assert pointer["files"]["state"]["file"] == "state-2-0.pt"
    assert all(tensor.isfinite().all() for tensor in load_best(tmp_path / "run").values())
    assert train_contrastive(config, tmp_path / "run").epochs == 3


@pytest.mark.usefixtures("toy")
def test_a_training_on_a_full_disk_goes_on_once_there_is_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = make_manifest(tmp_path / "d")
    config = parse_config(settings(manifest), folder=tmp_path)
    real, calls = checkpoint.torch.save, []

    def full(content: Any, stream: Any) -> None:
        calls.append(1)
        if len(calls) > 3:
            stream.write(b"half")
            raise OSError(28, "No space left on device")
        real(content, stream)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", full)
        with pytest.raises(StorageError, match="run the same command again"):
            train_contrastive(config, tmp_path / "run")
    pointer = json.loads((tmp_path / "run/checkpoint.json").read_text())
    assert pointer["files"]["state"]["file"].startswith("state-2-0")
    report = train_contrastive(config, tmp_path / "run")
    whole = train_contrastive(config, tmp_path / "whole")
    assert report.resumed
    for name, tensor in load_best(whole.out).items():
        assert torch.equal(tensor, load_best(report.out)[name])
