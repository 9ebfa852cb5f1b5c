"""The captions view and the ingest: new captions are embedded where somebody searched captions before, and not else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mmalign import Collection
from mmalign.collection import view_table
from mmalign.errors import AddInterrupted
from tests.tools.color_encoder import ColorEncoder, paint


class CountingEncoder(ColorEncoder):
    """Keeps the texts that it encodes, and is stopped by Ctrl-C once it was asked for so many."""

    def __init__(self, *, stop_after: int = 1_000_000) -> None:
        super().__init__()
        self.texts: list[str] = []
        self._stop_after = stop_after

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        if len(self.texts) >= self._stop_after:
            raise KeyboardInterrupt
        self.texts += texts
        return super().encode_text(texts)


def caption(folder: Path, name: str, color: str, *sentences: str) -> None:
    paint(folder / f"{name}.png", color, detail=len(name))
    (folder / f"{name}.txt").write_text("\n".join(sentences) + "\n", encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    caption(tmp_path / "photos", "a", "red", "a red wall", "all red")
    caption(tmp_path / "photos", "bb", "blue", "a blue wall")
    return tmp_path / "photos"


def made(path: Path, folder: Path, encoder: CountingEncoder) -> Collection:
    collection = Collection.create(path, encoder=encoder)
    collection.add(folder, progress=False)
    return collection


def test_nobody_waits_who_never_searched_captions(tmp_path: Path, folder: Path) -> None:
    encoder = CountingEncoder()
    collection = made(tmp_path / "a.mm", folder, encoder)
    caption(folder, "ccc", "green", "a green wall")
    collection.add(folder, progress=False)
    collection.refresh_index(progress=False)
    assert encoder.texts == []
    assert not (collection.path / "views").exists()


@pytest.mark.parametrize("asked", ["searched", "indexed"])
def test_captions_that_were_asked_for_are_embedded_by_the_ingest(tmp_path: Path, folder: Path, asked: str) -> None:
    encoder = CountingEncoder()
    collection = made(tmp_path / "a.mm", folder, encoder)
    if asked == "searched":
        collection.search_captions("red", k=1)
    else:
        collection.build_index("flat", view="captions", progress=False)
    encoder.texts.clear()
    caption(folder, "ccc", "green", "a green wall", "all green")
    (folder / "a.txt").write_text("all red\n", encoding="utf-8")
    report = collection.add(folder, progress=False)
    assert (report.added, report.updated, report.notes) == (1, 1, ())
    assert sorted(encoder.texts) == ["a green wall", "all green"]
    assert collection.add(folder, progress=False).unchanged == 3
    assert len(encoder.texts) == 2

    other = CountingEncoder()
    opened = Collection.open(collection.path, encoder=other)
    found = [(hit.metadata["captions"][0], Path(hit.uri).stem) for hit in opened.search_captions("green", k=10)]
    assert sorted(found) == [("a blue wall", "bb"), ("a green wall", "ccc"), ("all green", "ccc"), ("all red", "a")]
    assert other.texts == ["green"], "the search found them embedded"


def test_what_was_stopped_is_gone_on_with(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view_table, "CHUNK", 2)
    path = made(tmp_path / "a.mm", folder, CountingEncoder()).path
    Collection.open(path, encoder=CountingEncoder()).search_captions("red")
    caption(folder, "ccc", "green", *(f"green {number}" for number in range(5)))
    first = CountingEncoder(stop_after=4)
    with pytest.raises(AddInterrupted) as stop:
        Collection.open(path, encoder=first).add(folder, progress=False)
    assert (stop.value.report.added, stop.value.left) == (1, 0)
    assert len(first.texts) == 4
    second = CountingEncoder()
    collection = Collection.open(path, encoder=second)
    assert collection.add(folder, progress=False).unchanged == 3
    assert sorted(first.texts + second.texts) == [f"green {number}" for number in range(5)]


def test_an_encoder_that_is_not_here_fails_no_ingest(tmp_path: Path, folder: Path) -> None:
    collection = made(tmp_path / "a.mm", folder, CountingEncoder())
    collection.search_captions("red")
    (folder / "bb.txt").write_text("a blue wall\nmore blue\n", encoding="utf-8")
    # By its name nobody can load it, and no picture is new.
    report = Collection.open(collection.path).add(folder, progress=False)
    assert report.updated == 1
    (note,) = report.notes
    assert note.about == "captions"
    assert "captions that are new are embedded when they are searched" in note.text
    assert "Collection.open(path, encoder=...)" in note.text
    opened = Collection.open(collection.path, encoder=CountingEncoder())
    assert "more blue" in [hit.metadata["captions"][0] for hit in opened.search_captions("blue", k=3)]
