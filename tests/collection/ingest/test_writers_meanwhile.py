"""What another process writes while pictures are indexed, or while an item is updated, is not overwritten."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign import Collection
from mmalign.search import Searcher
from tests.tools.color_encoder import ColorEncoder, paint


class Meanwhile(ColorEncoder):
    """An encoder that lets somebody do something, once, when the first picture is encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.act: Callable[[], object] | None = None

    def encode_image(self, images: Any, **options: Any) -> Any:
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().encode_image(images, **options)


@pytest.fixture
def encoder() -> Meanwhile:
    return Meanwhile()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for color in ("red", "green", "blue"):
        paint(folder / f"{color}.png", color)
        (folder / f"{color}.txt").write_text(f"a {color} picture")
    return folder


@pytest.fixture
def collection(tmp_path: Path, encoder: Meanwhile) -> Collection:
    return Collection.create(tmp_path / "photos.mm", encoder=encoder)


def held(collection: Collection) -> dict[str, dict[str, Any]]:
    """Captions and metadata by the picture's name."""
    store = collection.snapshot()
    _, table = store.scan(["id", "uri", "captions", "width", *store.columns])
    return {Path(row["uri"]).stem: row for row in table.to_pylist()}


def test_an_update_of_an_item_whose_bytes_are_encoded_anew_stays(
    collection: Collection, photos: Path, encoder: Meanwhile
) -> None:
    collection.add(photos)
    name = held(collection)["red"]["id"]
    paint(photos / "red.png", "yellow", detail=7)
    (photos / "red.txt").write_text("it is yellow now")
    other = Collection.open(collection.path)
    encoder.act = lambda: other.update([name], {"captions": ["mine"], "rating": 5})
    report = collection.add(photos)
    assert report.updated == 1
    assert report.encoded == 1
    assert held(collection)["red"]["captions"] == ["mine"]
    assert held(collection)["red"]["rating"] == 5
    # And later, too: it is known to be the user's.
    (photos / "red.txt").write_text("still yellow")
    collection.add(photos)
    assert held(collection)["red"]["captions"] == ["mine"]
    assert any("keeps what `update` set" in note.text for note in report.notes)


def test_an_update_of_an_item_whose_text_alone_is_read_anew_stays(
    collection: Collection, photos: Path, encoder: Meanwhile
) -> None:
    collection.add(photos)
    before = held(collection)
    for color in ("red", "green"):
        (photos / f"{color}.txt").write_text(f"{color}, said anew")
        # Its bytes are read, and then it is heard.
        os.utime(photos / f"{color}.png", (1, 1))
    # Something to encode, so that there is a while.
    paint(photos / "new.png", "cyan", detail=3)
    other = Collection.open(collection.path)
    encoder.act = lambda: other.update([before["red"]["id"]], {"captions": ["mine"], "rating": 5})
    collection.add(photos)
    after = held(collection)
    assert after["red"]["captions"] == ["mine"]
    assert after["red"]["rating"] == 5
    assert after["green"]["captions"] == ["green, said anew"]
    (photos / "red.txt").write_text("and again")
    collection.add(photos)
    assert held(collection)["red"]["captions"] == ["mine"]


def test_what_is_removed_while_it_is_encoded_anew_stays_out(
    collection: Collection, photos: Path, encoder: Meanwhile
) -> None:
    collection.add(photos)
    name = held(collection)["red"]["id"]
    paint(photos / "red.png", "yellow", detail=7)
    other = Collection.open(collection.path)
    encoder.act = lambda: other.remove([name])
    report = collection.add(photos)
    assert report.updated == 0
    assert [note.text for note in report.notes] == ["1 item was removed by another process meanwhile, and stays out"]
    assert set(held(collection)) == {"green", "blue"}
    assert collection.add(photos).added == 0


def test_two_that_index_the_same_new_pictures_make_each_once(
    collection: Collection, photos: Path, encoder: Meanwhile
) -> None:
    other = Collection.open(collection.path, encoder=ColorEncoder())

    def index_and_update() -> None:
        other.add(photos)
        other.update([held(other)["red"]["id"]], {"captions": ["mine"]})

    encoder.act = index_and_update
    collection.add(photos)
    assert len(collection) == 3
    assert {name: row["captions"] for name, row in held(collection).items()} == {
        "red": ["mine"],
        "green": ["a green picture"],
        "blue": ["a blue picture"],
    }


def test_updates_of_many_threads_and_an_index_lose_nothing(
    collection: Collection, photos: Path, tmp_path: Path
) -> None:
    collection.add(photos)
    names = {color: row["id"] for color, row in held(collection).items()}
    failed: list[BaseException] = []

    def update(color: str, column: str) -> None:
        try:
            mine = Collection.open(collection.path)
            for number in range(5):
                mine.update([names[color]], {column: number})
        except BaseException as error:
            failed.append(error)

    def index() -> None:
        try:
            mine = Collection.open(collection.path, encoder=ColorEncoder())
            for number in range(4):
                for color in names:
                    (photos / f"{color}.txt").write_text(f"{color} {number}")
                mine.add(photos)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=update, args=(color, f"c{i}")) for color in names for i in range(2)]
    threads.append(threading.Thread(target=index))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    for color, row in held(collection).items():
        assert (row["c0"], row["c1"], row["captions"]) == (4, 4, [f"{color} 3"])
    said = collection.snapshot().scan(["said"])[1].column("said").to_pylist()
    # Whose they are is known of all: a source that says otherwise later changes none of them.
    assert all({"c0", "c1"} <= set(json.loads(one)["user"]) for one in said)


def test_slow_reads_go_on_while_others_write_all_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers clean earlier versions away; who reads one for longer than that asks them to keep it."""
    path = tmp_path / "c.mm"
    collection = Collection.create(path, encoder=None, dim=4)
    collection.add_embeddings(range(50), np.eye(4)[np.arange(50) % 4], metadata={"n": list(range(50))})
    plain, slow = Searcher.search, []

    def search(self: Searcher, *args: Any, **options: Any) -> Any:
        slow.append(1)
        number = self.store.version
        while Collection.open(path).snapshot().version < number + 40:
            time.sleep(0.02)
        return plain(self, *args, **options)

    stop = threading.Event()

    def write() -> None:
        mine, number = Collection.open(path), 1000
        while not stop.is_set():
            mine.add_embeddings([number], np.ones((1, 4)))
            number += 1

    monkeypatch.setattr(Searcher, "search", search)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        found = Collection.open(path).search(np.eye(4)[1], k=12, where="n >= 0")
    finally:
        stop.set()
        writer.join()
    assert sorted(hit.metadata["n"] % 4 for hit in found) == [1] * 12
    # Once, where by chance nobody cleaned away what was read.
    assert len(slow) <= 2
