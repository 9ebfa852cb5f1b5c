"""Views, the cache of frozen arrays, tables, and the batches that are drawn from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmalign.encoders.pictures import load_rgb
from mmalign.errors import InputError
from mmalign.training.cache import Arrays, Table, cached_arrays
from mmalign.training.contrastive.augment import fresh_view, make_view
from mmalign.training.contrastive.batches import BatchPlan, step_draw
from mmalign.training.contrastive.pictures import CachedPictures, FreshPictures, frozen_pictures
from mmalign.training.manifest import CaptionedFile
from mmalign.training.optimization import RunningMean, schedule_factor
from tests.training.toy import ToyModel

KEYS = [f"k{i}" for i in range(11)]


class Counted:
    """Computes rows in blocks of three, remembers them, and stops where it is told to."""

    def __init__(self, *, fail_at: int | None = None) -> None:
        self.rows: list[int] = []
        self.fail_at = fail_at

    def __call__(self, start: int) -> Iterator[Arrays]:
        for first in range(start, 11, 3):
            stop = min(first + 3, 11)
            if self.fail_at is not None and stop > self.fail_at:
                raise KeyboardInterrupt
            self.rows += range(first, stop)
            numbers = np.arange(first, stop)
            yield {"half": numbers[:, None].repeat(2, 1).astype(np.float16), "bytes": numbers.astype(np.uint8)}


def rows(folder: Path, compute: Counted, *, keys: Sequence[str] = KEYS, version: str = "1") -> Arrays:
    return dict(cached_arrays(folder, "x", keys, compute, version=version, flush_rows=3))


def test_an_interrupted_cache_goes_on(tmp_path: Path) -> None:
    first = Counted(fail_at=7)
    with pytest.raises(KeyboardInterrupt):
        rows(tmp_path, first)
    assert first.rows == list(range(6))
    second = Counted()
    found = rows(tmp_path, second)
    assert second.rows == list(range(6, 11))
    np.testing.assert_array_equal(found["half"], np.arange(11)[:, None].repeat(2, 1))
    np.testing.assert_array_equal(found["bytes"], np.arange(11))
    assert (found["half"].dtype, found["bytes"].dtype) == (np.float16, np.uint8)
    assert isinstance(found["half"], np.memmap)
    third = Counted()
    rows(tmp_path, third)
    assert third.rows == []


def test_other_keys_or_another_version_start_anew(tmp_path: Path) -> None:
    rows(tmp_path, Counted())
    for change in ({"keys": [*KEYS[:-1], "new"]}, {"version": "2"}):
        compute = Counted()
        rows(tmp_path, compute, **change)  # type: ignore[arg-type]
        assert compute.rows == list(range(11))


def test_a_model_that_changes_its_mind_is_refused(tmp_path: Path) -> None:
    def wider(start: int) -> Iterator[Arrays]:
        yield {"a": np.zeros((2, 3))}
        yield {"a": np.zeros((2, 4))}

    with pytest.raises(InputError, match=r"expected rows of .*, got .*delete the cache"):
        cached_arrays(tmp_path, "x", KEYS, wider, version="1")

    def few(start: int) -> Iterator[Arrays]:
        yield {"a": np.zeros((2, 3))}

    with pytest.raises(InputError, match="expected 11 rows, the model gave 2"):
        cached_arrays(tmp_path, "y", KEYS, few, version="1")


def test_a_table_of_parts_reads_like_one(rng: np.random.Generator) -> None:
    whole = rng.standard_normal((12, 3)).astype(np.float32)
    table = Table({"a": whole[:5]}, {"a": whole[5:6]}, {"a": whole[6:]})
    chosen = rng.integers(12, size=30)
    assert len(table) == 12
    np.testing.assert_array_equal(table.take(chosen)["a"], whole[chosen])


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 60, 3), np.uint8))


def test_views() -> None:
    assert make_view(picture(), view="plain", seed="a") == picture()
    flip = np.asarray(make_view(picture(), view="flip", seed="a"))
    np.testing.assert_array_equal(flip, np.asarray(picture())[:, ::-1])
    crop = make_view(picture(), view="crop-1", seed="a")
    assert crop == make_view(picture(), view="crop-1", seed="a")
    for view, seed in (("crop-2", "a"), ("crop-1", "b")):
        assert crop != make_view(picture(), view=view, seed=seed)
    sizes = [make_view(picture(), view="crop", seed=str(seed)).size for seed in range(60)]
    areas = np.array([width * height / 2400 for width, height in sizes])
    assert areas.min() > 0.45
    assert areas.max() <= 1
    assert areas.min() < 0.6
    with pytest.raises(InputError, match="no view is called 'zoom'"):
        make_view(picture(), view="zoom", seed="a")
    drawn = [fresh_view(["flip"], seed=str(seed)) for seed in range(40)]
    assert set(drawn) == {"flip", "plain"}


@pytest.fixture
def files(tmp_path: Path) -> list[CaptionedFile]:
    found = []
    for number in range(9):
        path = tmp_path / f"{number}.png"
        picture(number).save(path)
        found.append(CaptionedFile(path.name, str(path), ("a", "b")))
    return found


def toy() -> ToyModel:
    return ToyModel({}, device=torch.device("cpu"), seed=0)


def frozen(model: ToyModel, file: CaptionedFile, view: str, seed: str) -> np.ndarray:
    prepared = model.prepare_image(make_view(load_rgb(file.path), view=view, seed=seed))
    return model.freeze_images(prepared[None])["pixels"][0]


def test_cached_pictures_are_views_of_the_right_picture(files: list[CaptionedFile], tmp_path: Path) -> None:
    model, views = toy(), ("plain", "flip", "crop-1")
    tables = [Table(frozen_pictures(model, files, view=view, cache=tmp_path / "c", role="train")) for view in views]
    chosen = np.array([8, 0, 3, 5, 1, 7, 2])
    pictures = CachedPictures(tables)
    seen = set()
    for step in range(6):
        found = pictures.batch(chosen, epoch=1, draw=step_draw(0, 1, step))["pixels"]
        for row, number in zip(found, chosen, strict=True):
            file = files[number]
            fits = [view for view in views if np.array_equal(row, frozen(model, file, view, file.name))]
            assert len(fits) == 1
            seen.update(fits)
    assert seen == set(views)


def test_fresh_pictures_differ_by_epoch_and_repeat_by_seed(files: list[CaptionedFile]) -> None:
    model, chosen = toy(), np.array([4, 0, 7])

    def batch(seed: int, epoch: int) -> np.ndarray:
        source = FreshPictures(model, files, views=["crop"], seed=seed)
        return source.batch(chosen, epoch=epoch, draw=step_draw(seed, epoch, 0))["pixels"]

    np.testing.assert_array_equal(batch(1, 1), batch(1, 1))
    for other in (batch(1, 2), batch(2, 1)):
        assert not np.array_equal(batch(1, 1), other)
    expected = [frozen(model, files[number], "crop", f"1/1/{files[number].name}") for number in chosen]
    np.testing.assert_array_equal(batch(1, 1), expected)


OWNER = np.array([0, 0, 0, 1, 3, 3, 4, 4, 4, 4, 5, 6, 7, 7])


def plan(**changes: object) -> BatchPlan:
    options: dict[str, object] = {"batch_size": 3, "captions": 2, "seed": 5} | changes
    return BatchPlan(OWNER, np.ones(9), **options)  # type: ignore[arg-type]


def test_an_epoch_deals_every_picture_with_a_caption_once() -> None:
    deals = [plan().epoch(epoch) for epoch in (1, 2)]
    for deal in deals:
        assert len(deal) == plan().steps == 3
        assert sorted(np.concatenate(deal).tolist()) == [0, 1, 3, 4, 5, 6, 7]
    assert any(not np.array_equal(a, b) for a, b in zip(*deals, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(deals[0], plan().epoch(1), strict=True))


def test_a_batch_draws_captions_of_its_own_pictures() -> None:
    drawn: dict[int, set[int]] = {}
    for step in range(60):
        batch = plan(extras=5, extras_per_batch=2).batch(np.array([4, 1, 0]), draw=step_draw(0, 1, step))
        assert batch.owner.tolist() == [0, 0, 1, 2, 2]
        np.testing.assert_array_equal(OWNER[batch.captions], batch.pictures[batch.owner])
        assert len(set(batch.captions.tolist())) == 5
        assert len(set(batch.extras.tolist())) == 2
        for caption, owner in zip(batch.captions, batch.owner, strict=True):
            drawn.setdefault(int(batch.pictures[owner]), set()).add(int(caption))
    assert drawn == {4: {6, 7, 8, 9}, 1: {3}, 0: {0, 1, 2}}


def test_repeats_come_up_so_often_and_never_twice_in_a_batch() -> None:
    repeats = np.array([1, 2.5, 1, 0.5, 1, 1, 1, 1, 1])
    repeated = BatchPlan(OWNER, repeats, batch_size=3, captions=1, seed=0)
    counts = np.zeros(9)
    for epoch in range(300):
        for batch in repeated.epoch(epoch):
            assert len(set(batch.tolist())) == len(batch)
            counts[batch] += 1
    # Fewer than 2.5 times: where it met itself in a batch, it is left out.
    assert 1.5 < counts[1] / 300 <= 2.5
    assert counts[3] / 300 == pytest.approx(0.5, abs=0.1)
    assert counts[[0, 4, 5, 6, 7]].tolist() == [300] * 5
    assert counts[2] == counts[8] == 0


def test_neighbours_meet(rng: np.random.Generator) -> None:
    # Four clusters of twelve pictures.
    centres = rng.standard_normal((4, 8)) * 10
    cluster = np.arange(48) % 4
    embeddings = (centres[cluster] + rng.standard_normal((48, 8))).astype(np.float32)
    dealt = BatchPlan(np.arange(48), np.ones(48), batch_size=4, captions=1, seed=0)

    def together(deal: list[np.ndarray]) -> float:
        return float(np.mean([len(set(cluster[batch])) == 1 for batch in deal]))

    grouped = dealt.epoch(2, embeddings=embeddings, group=4)
    assert sorted(np.concatenate(grouped).tolist()) == list(range(48))
    assert together(grouped) == 1
    assert together(dealt.epoch(2)) < 0.3


def test_the_schedule_rises_and_falls() -> None:
    factors = [schedule_factor(step, warmup=10, total=100) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert int(np.argmax(factors)) == 9
    assert factors[50] == pytest.approx(0.5)
    assert factors[100] == pytest.approx(0)
    assert np.all(np.diff(factors[10:]) < 0)


def test_the_running_mean_equals_a_naive_one() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    mean = RunningMean(model, decay=0.5)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for step in range(1, 6):
        with torch.no_grad():
            model[0].weight += step
            model[1].running_mean += step
            model[1].num_batches_tracked += 1
        mean.update()
        decay = min(0.5, (1 + step) / (10 + step))
        for name in ("0.weight", "1.running_mean"):
            expected[name] = decay * expected[name] + (1 - decay) * model.state_dict()[name]
    expected["1.num_batches_tracked"] = torch.tensor(5)
    live = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with mean.applied(model):
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, expected[name])
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, live[name])
