"""What a step minimises, in which precision, and what is written down of it."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from mmalign.errors import InputError
from mmalign.training.contrastive.config import LossConfig, parse_config
from mmalign.training.contrastive.losses import caption_contrastive_loss, distillation_loss, hardest_negative_loss
from mmalign.training.contrastive.objective import Objective
from mmalign.training.contrastive.task import training_dtype
from mmalign.training.contrastive.train import train_contrastive
from mmalign.training.logs import TrainingLog
from tests.training.toy import make_manifest, settings


def rows(count: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, 6, generator=draw), dim=-1)


def test_the_parts_are_weighted_and_extras_are_distilled_alone() -> None:
    images, texts, owner = rows(3, 1), rows(7, 2), torch.tensor([0, 0, 1, 2, 2])
    taught = 5 * rows(7, 3) @ rows(3, 4).T
    config = LossConfig(
        contrastive_weight=0.5,
        hard_negative_weight=0.25,
        teachers=("t",),
        distillation_weight=2.0,
        distillation_temperature=0.1,
        extra_texts=2,
    )
    objective = Objective(config)
    total, parts = objective(images, texts, owner, taught=taught, auxiliary=torch.tensor(0.75))
    expected = {
        "contrastive": caption_contrastive_loss(images, texts[:5], owner, 1 / 0.07),
        "hard_negative": hardest_negative_loss(images, texts[:5], owner, margin=0.2),
        "distillation": distillation_loss(texts @ images.T / 0.1, taught),
        "auxiliary": torch.tensor(0.75),
    }
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value)
    weights = {"contrastive": 0.5, "hard_negative": 0.25, "distillation": 2.0, "auxiliary": 1.0}
    torch.testing.assert_close(total, sum(weights[name] * value for name, value in expected.items()))


def test_the_scale_begins_where_it_should_and_is_bounded() -> None:
    assert Objective(LossConfig()).scale.item() == pytest.approx(1 / 0.07)
    assert Objective(LossConfig(), initial=(50.0, -3.0)).scale.item() == pytest.approx(50)
    assert Objective(LossConfig(temperature=0.05), initial=(50.0, -3.0)).scale.item() == pytest.approx(20)
    assert Objective(LossConfig(largest_scale=30), initial=(50.0, -3.0)).scale.item() == pytest.approx(30)
    sigmoid = Objective(LossConfig(kind="siglip"), initial=(50.0, -3.0))
    assert sigmoid.bias is not None
    assert sigmoid.bias.item() == pytest.approx(-3)
    assert {name for name, _ in Objective(LossConfig()).named_parameters()} == {"log_scale"}


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    ("loss", "optimization"),
    [
        ({"kind": "siglip"}, {}),
        ({"kind": "siglip", "neighbours": 4}, {"precision": "bf16"}),
        ({"hard_negative_weight": 1.0, "contrastive_weight": 0.0}, {"ema_decay": 0.0}),
        ({"label_smoothing": 0.1, "captions": 1}, {"precision": "bf16", "accumulate": 3}),
    ],
)
def test_each_loss_learns(tmp_path: Path, loss: dict[str, Any], optimization: dict[str, Any]) -> None:
    changes = {"epochs": 15, "batch_size": 10, **optimization}
    table = settings(make_manifest(tmp_path / "d"), loss=loss, optimization=changes)
    report = train_contrastive(parse_config(table, folder=tmp_path), tmp_path / "run")
    # Chance is about 130.
    assert report.best["sum"] > 250
    assert ("bias" in report.best) == (loss.get("kind") == "siglip")


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert training_dtype(cpu, "auto") is training_dtype(cpu, "fp32") is None
    assert training_dtype(cpu, "bf16") is torch.bfloat16
    with pytest.raises(InputError, match="fp16 needs a CUDA device, this is cpu; use bf16 or fp32"):
        training_dtype(cpu, "fp16")
    assert training_dtype(torch.device("cuda"), "fp16") is torch.float16


def test_records_and_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curves: list[tuple[str, float, int]] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            curves.append((name, value, step))

        def flush(self) -> None: ...

        def close(self) -> None: ...

    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if name == "tensorboard" else None)
    log = TrainingLog(tmp_path)
    log.write({"event": "start", "threads": 2})
    log.write({"event": "epoch", "epoch": 4, "loss": 0.5, "t2i@1": 20.0})
    log.close()
    assert curves == [("loss", 0.5, 4), ("t2i@1", 20.0, 4)]
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["start", "epoch"]
    with (tmp_path / "log.jsonl").open("a") as stream:
        stream.write('{"event": "epoch", "epo')
    again = TrainingLog(tmp_path)
    again.write({"event": "epoch", "epoch": 5})
    assert again.epochs() == {4, 5}
