"""Distillation: what teachers say, and that a student learns from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmalign.encoders.pictures import load_rgb
from mmalign.errors import InputError
from mmalign.training.contrastive.augment import make_view
from mmalign.training.contrastive.batches import Batch
from mmalign.training.contrastive.config import parse_config
from mmalign.training.contrastive.data import load_data
from mmalign.training.contrastive.teachers import load_teachers, load_trained
from mmalign.training.contrastive.train import train_contrastive
from tests.training.toy import make_manifest, settings

pytestmark = pytest.mark.usefixtures("toy")
TEXTS = ["red over blue", "a white picture", "yellow beside green and black", "purple"]


def train(table: dict[str, Any], out: Path) -> Any:
    return train_contrastive(parse_config(table, folder=out.parent), out)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, a file of sentences, and two finished runs."""
    from tests.training import conftest

    folder = tmp_path_factory.mktemp("runs")
    manifest = make_manifest(folder / "d")
    (folder / "texts.txt").write_text("\n".join([*TEXTS, "", TEXTS[0]]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmalign.training.contrastive.train.build_model", conftest.build)
        for seed, dim in ((1, 16), (2, 24)):
            table = settings(manifest, optimization={"seed": seed, "epochs": 15}, model={"dim": dim})
            train(table, folder / f"teacher-{seed}")
    return folder


def test_similarities_are_the_mean_over_the_teachers(runs: Path, tmp_path: Path) -> None:
    manifest = runs / "d" / "manifest.jsonl"
    config = parse_config(settings(manifest), folder=tmp_path).data
    data = load_data(config, cache=tmp_path / "c")
    folders = [str(runs / f"teacher-{seed}") for seed in (1, 2)]
    device = torch.device("cpu")
    found = load_teachers(folders, data.train, TEXTS, temperature=0.1, cache=tmp_path / "c", device=device)
    assert found is not None
    batch = Batch(np.array([3, 0, 7]), np.array([0, 6, 7, 14]), np.array([1, 0, 0, 2]), np.array([2, 0]))
    # Step by step: each teacher's cosine of each text and picture.
    sentences = [data.train.captions[i] for i in batch.captions] + [TEXTS[i] for i in batch.extras]
    pictures = [data.train.pictures[i].path for i in batch.pictures]
    expected = np.zeros((6, 3))
    for folder in folders:
        model = load_trained(Path(folder), device=device)
        for column, path in enumerate(pictures):
            pixels = model.prepare_image(make_view(load_rgb(path), view="plain", seed=""))[None]
            arrays = {n: torch.from_numpy(a).float() for n, a in model.freeze_images(pixels).items()}
            image = model.embed_images(arrays)[0]
            for row, sentence in enumerate(sentences):
                words = {n: torch.from_numpy(a) for n, a in model.freeze_texts([sentence]).items()}
                expected[row, column] += float(model.embed_texts(words)[0].detach() @ image.detach()) / 0.1 / 2
    np.testing.assert_allclose(found.similarities(batch).numpy(), expected, atol=2e-2)


def test_a_student_learns_from_its_teachers_alone(runs: Path, tmp_path: Path) -> None:
    loss = {
        "teachers": [str(runs / "teacher-1"), str(runs / "teacher-2")],
        "contrastive_weight": 0.0,
        "distillation_temperature": 0.1,
        "extra_texts": 3,
    }
    data = {"texts": [str(runs / "texts.txt")]}
    table = settings(runs / "d" / "manifest.jsonl", loss=loss, data=data, optimization={"epochs": 12})
    report = train(table, tmp_path / "student")
    assert report.data["texts"] == len(TEXTS)
    assert (report.data["text_blank_lines"], report.data["text_repeated_lines"]) == (1, 1)
    # Chance is about 130.
    assert report.best["sum"] > 250
    again = train(table, tmp_path / "again")
    assert {**again.best, "seconds": 0} == {**report.best, "seconds": 0}


def test_a_folder_that_is_no_finished_run(runs: Path, tmp_path: Path) -> None:
    table = settings(runs / "d" / "manifest.jsonl", loss={"teachers": [str(tmp_path / "nothing")]})
    with pytest.raises(InputError, match="nothing is no folder of a training"):
        train(table, tmp_path / "out")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "run.json").write_bytes((runs / "teacher-1" / "run.json").read_bytes())
    table["loss"]["teachers"] = [str(broken)]
    with pytest.raises(InputError, match="holds no finished epoch"):
        train(table, tmp_path / "out2")


def test_a_run_goes_on_from_another_ones_best_weights(runs: Path, tmp_path: Path) -> None:
    manifest = runs / "d" / "manifest.jsonl"
    model = {"dim": 16, "start": str(runs / "teacher-1")}
    table = settings(manifest, optimization={"epochs": 1, "learning_rate": 1e-9, "warmup": 0}, model=model)
    train(table, tmp_path / "on")
    expected = load_trained(runs / "teacher-1", device=torch.device("cpu")).state_dict()
    for name, found in load_trained(tmp_path / "on", device=torch.device("cpu")).state_dict().items():
        torch.testing.assert_close(found, expected[name], atol=1e-6, rtol=1e-5)
    table["model"] |= {"dim": 24}
    with pytest.raises(InputError, match="do not fit the model"):
        train(table, tmp_path / "other")


def test_some_of_the_sentences_are_drawn_the_same_each_time(runs: Path, tmp_path: Path) -> None:
    manifest = runs / "d" / "manifest.jsonl"
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    drawn = []
    for most in (2, 2, 0, 9):
        table = settings(manifest, data={"texts": ["texts.txt"], "most_texts": most})
        drawn.append(load_data(parse_config(table, folder=tmp_path).data, cache=tmp_path / "c").texts)
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 2
    assert set(drawn[0]) < set(TEXTS)
    assert sorted(drawn[2]) == sorted(drawn[3]) == sorted(TEXTS)


def test_a_teacher_sees_the_mean_of_the_views(runs: Path, tmp_path: Path) -> None:
    data = load_data(parse_config(settings(runs / "d" / "manifest.jsonl"), folder=tmp_path).data, cache=tmp_path / "c")
    folder, device, views = runs / "teacher-1", torch.device("cpu"), ("plain", "flip", "crop-1")
    found = load_teachers(
        [str(folder)], data.train, [], temperature=0.1, views=views, cache=tmp_path / "c", device=device
    )
    assert found is not None
    model = load_trained(folder, device=device)
    for row in (0, 5):
        path, total = data.train.pictures[row], np.zeros(16)
        for view in views:
            pixels = model.prepare_image(make_view(load_rgb(path.path), view=view, seed=path.name))[None]
            arrays = {n: torch.from_numpy(a).float() for n, a in model.freeze_images(pixels).items()}
            total += model.embed_images(arrays)[0].detach().numpy()
        np.testing.assert_allclose(found.images["0"][row], total / np.linalg.norm(total), atol=2e-3)


def test_the_mean_of_two_runs_one_counted_twice_is_gone_on_from(runs: Path, tmp_path: Path) -> None:
    manifest = runs / "d" / "manifest.jsonl"
    gentle = {"epochs": 1, "learning_rate": 1e-9, "warmup": 0}
    train(settings(manifest, optimization={"epochs": 2, "seed": 5}, model={"dim": 16}), tmp_path / "a")
    train(settings(manifest, optimization={"epochs": 6, "seed": 5}, model={"dim": 16}), tmp_path / "b")
    both = {"dim": 16, "start": [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "b")]}
    train(settings(manifest, optimization=gentle, model=both), tmp_path / "mean")
    a, b, mean = (load_trained(tmp_path / n, device=torch.device("cpu")).state_dict() for n in ("a", "b", "mean"))
    moved = 0
    for name, found in mean.items():
        expected = (a[name] + 2 * b[name]) / 3 if found.is_floating_point() else b[name]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
        moved += int(not torch.equal(a[name], b[name]))
    assert moved
    other = {"dim": 24, "start": [str(tmp_path / "a"), str(runs / "teacher-2")]}
    with pytest.raises(InputError, match="a do not fit the model"):
        train(settings(manifest, optimization=gentle, model=other), tmp_path / "other")


def test_no_epoch_measures_and_exports_what_it_begins_with(runs: Path, tmp_path: Path) -> None:
    manifest = runs / "d" / "manifest.jsonl"
    table = settings(manifest, optimization={"epochs": 0}, model={"dim": 16, "start": str(runs / "teacher-1")})
    report = train(table, tmp_path / "none")
    expected = load_trained(runs / "teacher-1", device=torch.device("cpu")).state_dict()
    for name, found in load_trained(tmp_path / "none", device=torch.device("cpu")).state_dict().items():
        torch.testing.assert_close(found, expected[name], atol=0, rtol=0)
    told = json.loads((runs / "teacher-1" / "log.jsonl").read_text().splitlines()[-1])
    best = max(json.loads(line).get("sum", 0) for line in (runs / "teacher-1" / "log.jsonl").read_text().splitlines())
    assert told["event"] == "epoch"
    assert report.best["epoch"] == 0
    assert report.best["sum"] == pytest.approx(best, abs=1e-6)
    assert report.exported.exists()
    again = train(table, tmp_path / "none")
    assert again.resumed
    assert again.best["sum"] == report.best["sum"]
