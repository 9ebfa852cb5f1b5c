"""Data files of which Lance cannot read a column any more: told by item, and made anew from the source."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import pytest

from mmalign import Collection
from mmalign.errors import AddInterrupted, DamagedError, MMAlignError
from tests.tools.color_encoder import COLORS, ColorEncoder, paint


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for number in range(40):
        color = list(COLORS)[number % len(COLORS)]
        paint(folder / f"{number}.png", color, detail=number)
        (folder / f"{number}.txt").write_text(f"a {color} picture\nthe {number}th of all")
    return folder


@pytest.fixture
def whole(tmp_path: Path, photos: Path) -> Path:
    path = tmp_path / "whole.mm"
    Collection.create(path, encoder=ColorEncoder()).add(photos)
    return path


def held(collection: Collection) -> dict[str, tuple[dict[str, Any], bytes]]:
    store = collection.snapshot()
    names = ["id", "uri", "sha256", "captions", "said", "width", "bytes", "mtime_ns", *store.columns]
    _, table = store.scan(names)
    _, vectors = store.embeddings()
    return {row["id"]: (row, vector.tobytes()) for row, vector in zip(table.to_pylist(), vectors, strict=True)}


def unreadable_columns(path: Path) -> list[str]:
    dataset = lance.dataset(str(path / "items.lance"))
    names = []
    for name in dataset.schema.names:
        try:
            dataset.to_table(columns=[name])
        except BaseException:
            names.append(name)
    return names


def copies(whole: Path, *, seed: int) -> Iterator[tuple[Path, list[str]]]:
    """Copies of a collection with a bit of its data flipped so that columns cannot be read, and which."""
    chance = random.Random(seed)
    for number in range(10_000):
        path = whole.with_name(f"{seed}-{number}.mm")
        shutil.copytree(whole, path)
        data = chance.choice(sorted((path / "items.lance" / "data").iterdir()))
        content = bytearray(data.read_bytes())
        bit = chance.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        data.write_bytes(content)
        columns = unreadable_columns(path)
        if columns:
            yield path, columns
        shutil.rmtree(path)


def one_with(whole: Path, *columns: str) -> Path:
    """A copy in which just these columns cannot be read."""
    return next(path for path, names in copies(whole, seed=5) if set(names) == set(columns))


def test_items_in_an_unreadable_file_are_made_anew(whole: Path, photos: Path) -> None:
    right = held(Collection.open(whole))
    mended = 0
    for number, (path, columns) in enumerate(copies(whole, seed=1)):
        collection = Collection.open(path, encoder=ColorEncoder())
        told = collection.check_items()
        assert len(told) == len(right)
        assert all(columns[0] in one and "cannot be read" in one for one in told)
        # Without a place and an id nobody knows what they were.
        if {"id", "uri"} <= set(columns):
            with pytest.raises(DamagedError, match="index one source that gives them all"):
                collection.add(photos)
        else:
            report = collection.add(photos)
            assert report.notes[0].text == "40 damaged items were made anew from the source"
            assert held(collection) == right
            assert collection.check_items() == []
            mended += 1
        if number == 9:
            break
    assert mended >= 6


def test_items_of_another_source_in_that_file_are_not_taken_away(whole: Path, photos: Path, tmp_path: Path) -> None:
    paint(tmp_path / "others" / "other.png", "cyan", detail=77)
    path = one_with(whole, "captions")
    (photos / "7.png").rename(tmp_path / "others" / "7.png")
    collection = Collection.open(path, encoder=ColorEncoder())
    with pytest.raises(DamagedError, match=r"40 items cannot be read \(captions\), and 1 of them .*7\.png"):
        collection.add(photos)
    with pytest.raises(MMAlignError):
        collection.search("red", k=40)
    (tmp_path / "others" / "7.png").rename(photos / "7.png")
    collection.add(photos)
    assert held(collection) == held(Collection.open(whole))


def test_what_update_had_set_is_told_where_it_can_be_read_and_where_not(whole: Path, photos: Path) -> None:
    collection = Collection.open(whole, encoder=ColorEncoder())
    name = next(iter(held(collection)))
    collection.update([name], {"rating": 5})
    # One file again, so that the updated item is in it.
    shutil.rmtree(whole)
    collection = Collection.create(whole, encoder=ColorEncoder())
    collection.add(photos, metadata={"rating": 5})
    collection.update(list(held(collection)), {"rating": 6})
    path = one_with(whole, "captions")
    report = Collection.open(path, encoder=ColorEncoder()).add(photos)
    texts = " | ".join(note.text for note in report.notes)
    assert "captions could not be read: what `update` had set there is gone" in texts
    assert "rating=6" in texts


def test_a_picture_that_cannot_be_made_anew_is_named(whole: Path, photos: Path) -> None:
    path = one_with(whole, "captions")
    (photos / "3.png").write_bytes(b"no picture")
    collection = Collection.open(path, encoder=ColorEncoder())
    report = collection.add(photos)
    assert [Path(skip.uri).name for skip in report.skipped] == ["3.png"]
    assert any(note.text.startswith("1 item is damaged") for note in report.notes)
    told = collection.check_items()
    assert len(told) == 1
    assert "3.png" in told[0]
    # It can be taken away, and then all is well.
    collection.remove([told[0].split("'")[1]])
    assert collection.check_items() == []
    assert len(held(collection)) == 39


def test_stopped_in_between_it_goes_on(whole: Path, photos: Path) -> None:
    class Stopped(ColorEncoder):
        def encode_image(self, images: Any, **options: Any) -> Any:
            if self.encoded >= 20:
                raise KeyboardInterrupt
            return super().encode_image(images, **options)

    path = one_with(whole, "captions")
    with pytest.raises(AddInterrupted):
        Collection.open(path, encoder=Stopped()).add(photos, batch_size=4)
    collection = Collection.open(path, encoder=ColorEncoder())
    collection.add(photos)
    assert held(collection) == held(Collection.open(whole))


def test_a_file_that_is_not_there_is_no_damage_to_mend(whole: Path, photos: Path) -> None:
    for data in (whole / "items.lance" / "data").iterdir():
        data.rename(data.with_suffix(".away"))
    with pytest.raises(MMAlignError):
        Collection.open(whole, encoder=ColorEncoder()).add(photos)
    for data in (whole / "items.lance" / "data").iterdir():
        data.rename(data.with_suffix(".lance"))
    assert Collection.open(whole, encoder=ColorEncoder()).add(photos).unchanged == 40
