from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders.registry import load_encoder
from mmalign.errors import InputError, TrainingInterrupted
from mmalign.evaluation.phrases import PhrasePicture
from mmalign.grounding.cells import grounding_cells, spot_maps
from mmalign.grounding.head import Grounding, corner_iou
from mmalign.grounding.net import GroundingNet, NetSize
from mmalign.metrics.boxes import first_hit, iou_matrix
from mmalign.training.grounding import data as grounding_data
from mmalign.training.grounding.batches import HeadData, spots_of_reduced
from mmalign.training.grounding.config import HeadTraining
from mmalign.training.grounding.data import Basis, cached_cells, fit_basis
from mmalign.training.grounding.fit_head import HeadTask, _overlaps, train_head
from mmalign.training.grounding.scoring import fit_scoring
from mmalign.training.grounding.targets import coverage, drawn_boxes
from mmalign.training.grounding.train import folded, train_grounding
from mmalign.types import Box

DIM, CELLS = 6, 8
TINY = NetSize(inputs=10 + DIM, text=DIM, width=24, trunk=1, narrow=16, fused=1, hidden=16)


def random_corners(rng: np.random.Generator, count: int) -> np.ndarray:
    low = rng.uniform(0, 0.7, (count, 2))
    return np.concatenate([low, low + rng.uniform(0.05, 0.3, (count, 2))], axis=1).astype(np.float32)


def test_coverage_equals_counting_points(rng: np.random.Generator) -> None:
    corners = np.array([[0.1, 0.2, 0.5, 0.9], [0.6, 0.0, 0.95, 0.35]], np.float32)
    fine = (np.arange(400) + 0.5) / 400
    y, x = fine[:, None], fine[None]
    masks = [(x >= a) & (x <= c) & (y >= b) & (y <= d) for a, b, c, d in corners]
    expected = np.max([mask.reshape(4, 100, 5, 80).mean(axis=(1, 3)) for mask in masks], axis=0)
    np.testing.assert_allclose(coverage(corners, 4, 5), expected, atol=0.03)


def test_cells_draw_the_smallest_box_that_holds_them(rng: np.random.Generator) -> None:
    for _ in range(30):
        corners = random_corners(rng, 4)
        found = drawn_boxes(corners, 9, 7)
        areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
        for row in range(9):
            for column in range(7):
                x, y = (column + 0.5) / 7, (row + 0.5) / 9
                holding = [k for k, (a, b, c, d) in enumerate(corners) if a <= x <= c and b <= y <= d]
                if holding and found[row, column] in holding:
                    smallest = min(holding, key=lambda k: areas[k])
                    # Else the cell was given to a box that would have none.
                    assert found[row, column] == smallest or (found == found[row, column]).sum() == 1
        for k in set(range(4)) - set(found.ravel().tolist()):
            # A box without cells gave way to another whose middle lies in the same cell.
            row, column = int((corners[k, 1] + corners[k, 3]) / 2 * 9), int((corners[k, 0] + corners[k, 2]) / 2 * 7)
            assert found[row, column] not in (-1, k)
    tiny = drawn_boxes(np.array([[0.51, 0.51, 0.52, 0.52]], np.float32), 4, 4)
    assert (tiny >= 0).sum() == 1
    assert tiny[2, 2] == 0


def test_overlaps_equal_the_metric(rng: np.random.Generator) -> None:
    first, second = random_corners(rng, 50), random_corners(rng, 50)
    overlap, distance = _overlaps(torch.from_numpy(first), torch.from_numpy(second))
    as_sizes = [np.concatenate([c[:, :2], c[:, 2:] - c[:, :2]], axis=1) for c in (first, second)]
    expected = np.diag(iou_matrix(*as_sizes))
    np.testing.assert_allclose(overlap, expected, atol=1e-5)
    np.testing.assert_allclose(np.diag(corner_iou(first, second)), expected, atol=1e-5)
    for a, b, iou, giou in zip(first, second, expected, distance.numpy(), strict=True):
        around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        areas = [float((c[2] - c[0]) * (c[3] - c[1])) for c in (a, b)]
        union = sum(areas) / (1 + iou)
        assert giou == pytest.approx(iou - (around - union) / around, abs=1e-4)


def planted(rng: np.random.Generator, count: int) -> HeadData:
    """Pictures of two things each, whose cells carry the thing's own direction where its box is."""
    things = {f"a {name}": row for name, row in zip("abcd", np.eye(DIM, dtype=np.float32), strict=False)}
    pictures, cells = [], rng.normal(0, 0.3, (count, CELLS, CELLS, 10 + DIM)).astype(np.float32)
    for index in range(count):
        names = list(rng.permutation(list(things))[:2])
        corners = np.array([[0.0, 0.0, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]], np.float32)
        corners += rng.uniform(0, 0.1, (2, 1)).astype(np.float32)
        for name, box in zip(names, corners, strict=True):
            cells[index, ..., -DIM:] += coverage(box[None], CELLS, CELLS)[..., None] * things[name] * 3
            cells[index, ..., 0] += coverage(box[None], CELLS, CELLS) * 2
        sizes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1) * 100
        pictures.append(PhrasePicture(f"{index}.jpg", (), tuple(names), tuple(sizes[:, None].astype(np.float64))))
    return HeadData(
        pictures=pictures,
        sizes=np.full((count, 2), 100, np.float32),
        cells=cells.astype(np.float16),
        texts=things,
        dim=DIM,
        shared_mean=np.ones(DIM, np.float32),
    )


def look(net: GroundingNet, data: HeadData, index: int, phrases: list[str]) -> Grounding:
    text = torch.from_numpy(np.stack([data.texts[phrase] for phrase in phrases]))
    cells = torch.from_numpy(data.cells[index : index + 1].astype(np.float32))
    owner = torch.zeros(len(text), dtype=torch.long)
    with torch.inference_mode():
        mixed = net.picture(cells).expand(len(text), -1, -1, -1)
        heat, fit, boxes = net(mixed, text, spots_of_reduced(cells, data, owner, text))
    drawn = np.clip(boxes.numpy(), 0, 1) * 100
    return Grounding(100, 100, torch.sigmoid(heat).numpy(), fit.numpy(), drawn, np.zeros(len(text), np.float32))


@pytest.fixture(scope="module")
def trained() -> tuple[GroundingNet, HeadData, list[dict[str, Any]]]:
    torch.set_num_threads(1)
    rng = np.random.default_rng(5)
    records: list[dict[str, Any]] = []
    how = HeadTraining(epochs=14, batch=16, rate=6e-3, average=0.9, strangers=1)
    net = train_head(planted(rng, 96), size=TINY, how=how, log=records.append).net
    return net, planted(rng, 30), records


def test_training_finds_what_was_planted(trained: tuple[GroundingNet, HeadData, list[dict[str, Any]]]) -> None:
    net, fresh, records = trained
    assert records[-1]["box"] < 0.5 * records[0]["box"]
    right = []
    for index, picture in enumerate(fresh.pictures):
        found = look(net, fresh, index, list(picture.phrases))
        for regions, true in zip(found.regions(most=3), picture.boxes, strict=True):
            right.append(first_hit([region.box.to_list() for region in regions], true) == 1)
        scores = found.score([Box(*true[0]) for true in picture.boxes])
        assert scores.shape == (2, 2)
    assert np.mean(right) > 0.85


def test_the_same_seed_trains_the_same(rng: np.random.Generator) -> None:
    torch.set_num_threads(1)
    data = planted(np.random.default_rng(1), 16)
    how = HeadTraining(epochs=1, batch=8)
    torch.manual_seed(3)
    expected_next = torch.rand(1)
    torch.manual_seed(3)
    first, second = (train_head(data, size=TINY, how=how).net.state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.rand(1), expected_next), "the caller's draws are its own"


def test_what_is_kept_is_the_mean_of_the_last_epoch() -> None:
    torch.set_num_threads(1)
    data = planted(np.random.default_rng(1), 16)
    records: list[dict[str, Any]] = []
    net = train_head(data, size=TINY, how=HeadTraining(epochs=3, batch=8, average=0.0), log=records.append).net
    assert [list(record) for record in records] == [["epoch", "peak", "cover", "fit", "box", "seconds"]] * 3
    assert not net.training
    assert not any(parameter.requires_grad for parameter in net.parameters())
    longer = train_head(data, size=TINY, how=HeadTraining(epochs=3, batch=8, average=0.99)).net
    assert any(not torch.equal(a, b) for a, b in zip(net.parameters(), longer.parameters(), strict=True))


def test_a_loss_that_is_not_finite_stops_it() -> None:
    data = planted(np.random.default_rng(1), 16)
    data.texts["a a"] *= np.nan
    with pytest.raises(InputError, match=r"the loss is nan in epoch 1, step 1; lower the learning rate \(0.002\)"):
        train_head(data, size=TINY, how=HeadTraining(epochs=1, batch=8))


@pytest.mark.parametrize(("option", "value"), [("epochs", 0), ("batch", 0), ("rate", 0.0), ("noise", 1.5)])
def test_settings_out_of_range(option: str, value: float) -> None:
    with pytest.raises(InputError, match=f"{option} must be"):
        HeadTraining(**{option: value})


def test_scores_and_probabilities_are_fitted(trained: tuple[GroundingNet, HeadData, list[dict[str, Any]]]) -> None:
    net, fresh, _ = trained
    fitted = fit_scoring(fresh.pictures, lambda number, phrases: look(net, fresh, number, list(phrases)))
    there, strange = [], []
    for index, picture in enumerate(fresh.pictures):
        others = [name for name in fresh.texts if name not in picture.phrases]
        found = look(net, fresh, index, [*picture.phrases, *others])
        odds = found.existence_signs @ np.array(fitted.existence)
        there += odds[:2].tolist()
        strange += odds[2:].tolist()
    assert np.mean(np.array(there) > 0) > 0.8
    assert np.mean(np.array(strange) < 0) > 0.8
    assert fitted.overlap > 0
    with pytest.raises(InputError, match="decoded"):
        fit_scoring(fresh.pictures, lambda number, phrases: None)


def test_the_basis_can_be_taken_in(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grounding_data, "FEATURES", 30)
    mixing = rng.normal(size=(30 + DIM, 30 + DIM)) / 6
    features = (rng.normal(size=(500, 30 + DIM)) @ mixing + 1).astype(np.float32)
    basis = fit_basis(features, reduced=10)
    reduced = basis(features)
    np.testing.assert_allclose(reduced, (features - basis.mean) @ basis.matrix.T, atol=1e-3)
    np.testing.assert_allclose(reduced[:, :10].std(axis=0), 1, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(reduced[:, :10].T) - np.eye(10), 0, atol=0.02)
    net = GroundingNet(TINY).eval()
    tensors, size = folded(net, basis)
    assert size.inputs == 30 + DIM
    whole = GroundingNet(size).eval()
    whole.load_state_dict({name: torch.from_numpy(np.array(tensor)) for name, tensor in tensors.items()})
    cells = torch.from_numpy(features[:64].reshape(1, 8, 8, -1))
    with torch.inference_mode():
        narrow = net.picture(torch.from_numpy(basis(features[:64]).reshape(1, 8, 8, -1)))
        np.testing.assert_allclose(whole.picture(cells), narrow, atol=0.02)


def test_spots_are_the_same_before_and_after_the_basis(rng: np.random.Generator) -> None:
    shared = rng.normal(1, 1, (CELLS, CELLS, DIM)).astype(np.float32)
    text = rng.normal(size=(3, DIM)).astype(np.float32)
    expected = spot_maps(text, shared)
    mean, scale = rng.normal(size=DIM).astype(np.float32), 1.7
    data = planted(rng, 1)
    told = HeadData(data.pictures, data.sizes, data.cells, data.texts, DIM, mean * scale)
    cells = torch.from_numpy(((shared - mean) * scale)[None])
    found = spots_of_reduced(cells, told, torch.zeros(3, dtype=torch.long), torch.from_numpy(text))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    for p in range(3):
        mean_cell = shared.reshape(-1, DIM).mean(axis=0)
        cell = (shared[2, 5] - mean_cell) @ text[p] / np.linalg.norm(mean_cell)
        assert expected[p, 2, 5] == pytest.approx(cell, rel=1e-4)


def test_a_cache_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = []
    for number in range(5):
        Image.new("RGB", (10 + number, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        pictures.append(PhrasePicture(str(tmp_path / f"{number}.png"), (), ("a",), (np.ones((1, 4)),)))
    (tmp_path / "3.png").write_bytes(b"no picture")
    asked: list[int] = []
    stopped_at = [2]

    def cells(encoder: Any, image: Image.Image, *, bfloat16: bool = False) -> np.ndarray:
        number = image.getpixel((0, 0))[0]
        if number in stopped_at:
            raise KeyboardInterrupt
        asked.append(number)
        return np.full((18, 18, 3), number, np.float32)

    monkeypatch.setattr(grounding_data, "grounding_cells", cells)
    monkeypatch.setattr(grounding_data, "FEATURES", 2)
    monkeypatch.setattr(grounding_data, "_SAVE_EVERY", 1)
    basis = Basis(np.zeros(3, np.float32), np.eye(3, dtype=np.float32)[[0, 2]])
    encoder: Any = type("Fake", (), {"fingerprint": "one"})()
    with pytest.raises(KeyboardInterrupt):
        cached_cells(tmp_path / "cache", encoder, pictures, basis=basis)
    stopped_at.clear()
    found = cached_cells(tmp_path / "cache", encoder, pictures, basis=basis)
    assert asked == [0, 1, 2, 4]
    assert found.cells[:, 0, 0, 0].astype(float).tolist()[:3] == [0, 1, 2]
    assert np.isnan(found.cells[3]).all()
    assert found.sizes.tolist() == [[10, 8], [11, 8], [12, 8], [0, 0], [14, 8]]
    cached_cells(tmp_path / "cache", encoder, pictures, basis=basis)
    assert asked == [0, 1, 2, 4], "all of them are there"
    other: Any = type("Fake", (), {"fingerprint": "two"})()
    cached_cells(tmp_path / "cache", other, pictures, basis=basis)
    assert asked == [0, 1, 2, 4, 0, 1, 2, 4]
    fitted = cached_cells(tmp_path / "cache", other, pictures[::2]).basis
    cached_cells(tmp_path / "cache", other, pictures, basis=fitted)
    assert len(asked) == 8 + 6 + 4, "for the basis, for the cells, and for those that it reduces otherwise"
    again = cached_cells(tmp_path / "cache", other, pictures[::2])
    assert len(asked) == 18, "the basis is kept, too"
    np.testing.assert_array_equal(again.basis.matrix, fitted.matrix)


@pytest.mark.parametrize(("epoch", "step"), [(1, 1), (1, 3), (2, 0), (2, 2), (3, 1)])
def test_a_stopped_head_goes_on_as_if_it_had_not_been(
    tmp_path: Path, epoch: int, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    data, how = planted(np.random.default_rng(1), 28), HeadTraining(epochs=3, batch=8, average=0.9)
    whole: list[dict[str, Any]] = []
    expected = train_head(data, size=TINY, how=how, log=whole.append)
    learn, seen = HeadTask.learn, []

    def learn_and_stop(task: HeadTask, batch: Any, progress: Any, backward: Any) -> Any:
        seen.append((progress.epoch, progress.step))
        done = learn(task, batch, progress, backward)
        at = (epoch, step - 1) if step else (epoch - 1, task.steps - 1)
        if seen[-1] == at:
            os.kill(os.getpid(), signal.SIGINT)
        return done

    monkeypatch.setattr(HeadTask, "learn", learn_and_stop)
    records: list[dict[str, Any]] = []
    with pytest.raises(TrainingInterrupted, match=f"stopped in epoch {epoch} of 3 after {step} of 4 batches"):
        train_head(data, size=TINY, how=how, folder=tmp_path, log=records.append)
    stopped = len(seen)
    monkeypatch.setattr(HeadTask, "learn", learn)
    found = train_head(data, size=TINY, how=how, folder=tmp_path, log=records.append)
    assert stopped == 4 * (epoch - 1) + step
    theirs, ours = expected.net.state_dict(), found.net.state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    untimed = [[{**one, "seconds": 0} for one in told] for told in (whole, records)]
    assert untimed[0] == untimed[1], "each epoch is told once"
    assert {**found.losses, "seconds": 0} == untimed[0][-1]
    # A finished run is not trained again; one with other data is refused.
    again = train_head(data, size=TINY, how=how, folder=tmp_path, log=records.append)
    assert len(records) == 3
    assert all(torch.equal(tensor, ours[name]) for name, tensor in again.net.state_dict().items())
    with pytest.raises(InputError, match="with other pictures or captions"):
        train_head(planted(np.random.default_rng(2), 28), size=TINY, how=how, folder=tmp_path)


def test_a_processor_without_bfloat16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder: Any = load_encoder("lite", device="cpu")
    monkeypatch.setattr("mmalign.grounding.cells.SIDE", 96)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: False)
    picture = Image.effect_noise((60, 40), 60).convert("RGB")
    exact = grounding_cells(encoder, picture)
    np.testing.assert_array_equal(grounding_cells(encoder, picture, bfloat16=True), exact)
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    fewer = grounding_cells(encoder, picture, bfloat16=True)
    assert 0 < np.abs(fewer - exact).max() < 0.1 * np.abs(exact).max()


def test_pictures_to_tune_on_are_not_learnt_from(tmp_path: Path) -> None:
    line = '{"image": "%d.jpg", "phrases": [{"phrase": "a", "box": [0, 0, 1, 1]}]}\n'
    (tmp_path / "m.jsonl").write_text("".join(line % number for number in range(8)))
    with pytest.raises(InputError, match="learnt from and tuned on"):
        train_grounding(tmp_path / "m.jsonl", tmp_path, split=None, tune=tmp_path / "m.jsonl")
