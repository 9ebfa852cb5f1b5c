"""`remove(purge=True)` leaves no byte of an item, wherever earlier work has left some; looked for byte by byte."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mmalign import Collection, MMAlignError
from mmalign.collection.generation_files import LOCK
from mmalign.errors import CollectionError
from mmalign.utils.locks import lock
from tests.tools.color_encoder import COLORS, ColorEncoder, OtherColorEncoder, paint

DIM = 32


def files_with(folder: Path, *needles: bytes) -> list[str]:
    """Files of a folder in which one of the needles stands."""
    return [
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]


def numbers(vector: np.ndarray) -> list[bytes]:
    """A part of a stored vector as the files may hold it."""
    half = (vector / np.linalg.norm(vector)).astype(np.float16)
    return [half[4:14].tobytes(), half[4:14].astype(np.float32).tobytes()]


def made(path: Path, rows: int = 600) -> tuple[Collection, np.ndarray]:
    vectors = np.random.default_rng(1).normal(size=(rows, DIM)).astype(np.float32)
    collection = Collection.create(path, encoder=None, dim=DIM)
    collection.add_embeddings([f"secret{number:04}" for number in range(rows)], vectors)
    return collection, vectors


@pytest.mark.parametrize(
    "recipes", [["IVF4,Flat"], ["IVF4,Flat", "flat"], ["flat", "auto"], ["hnsw", "IVF4,Flat", "auto"]]
)
def test_every_version_of_the_index(tmp_path: Path, recipes: list[str]) -> None:
    """In use, older than that, and withdrawn since `auto` finds that no index is needed."""
    collection, vectors = made(tmp_path / "a.mm")
    for recipe in recipes:
        collection.build_index(recipe, progress=False)
    assert files_with(tmp_path, *numbers(vectors[77]))
    assert collection.remove(["secret0077"], purge=True) == 1
    assert files_with(tmp_path, b"secret0077", *numbers(vectors[77])) == []
    manifest = collection.index_manifest
    assert (None if manifest is None else manifest.recipe) == (None if recipes[-1] == "auto" else recipes[-1])
    assert collection.search(vectors[78], k=1)[0].id == "secret0078"


def test_an_index_that_nobody_can_read(tmp_path: Path) -> None:
    collection, vectors = made(tmp_path / "a.mm")
    collection.build_index("flat", progress=False)
    (manifest,) = (tmp_path / "a.mm").rglob("manifest.json")
    manifest.write_text("{}", encoding="utf-8")
    opened = Collection.open(tmp_path / "a.mm")
    assert opened.remove(["secret0077"], purge=True) == 1
    assert files_with(tmp_path, *numbers(vectors[77])) == []


def test_what_a_killed_writer_has_left(tmp_path: Path) -> None:
    """A file of data that no version names, which only its age would give away."""
    collection, vectors = made(tmp_path / "a.mm")
    (data,) = (tmp_path / "a.mm" / "items.lance" / "data").iterdir()
    data.with_name("0" * 24 + ".lance").write_bytes(data.read_bytes())
    assert collection.remove(["secret0077"], purge=True) == 1
    assert files_with(tmp_path, b"secret0077", *numbers(vectors[77])) == []


def test_what_was_removed_or_replaced_before(tmp_path: Path) -> None:
    collection, vectors = made(tmp_path / "a.mm")
    collection.remove(["secret0005"])
    collection.add_embeddings(["secret0006"], vectors[9:10] + 1)
    assert collection.remove(["secret0077"], purge=True) == 1
    assert files_with(tmp_path, b"secret0005", *numbers(vectors[5]), *numbers(vectors[6])) == []


def test_earlier_generations(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number, color in enumerate(COLORS):
        paint(photos / f"secret-{color}.png", color, detail=number)
    collection = Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    collection.add(photos, progress=False)
    collection.reencode(OtherColorEncoder(), progress=False)
    hit = collection.search("green", k=1)[0]
    assert "secret-green" in hit.uri
    assert len(files_with(tmp_path / "a.mm", b"secret-green")) > 1
    assert collection.remove([hit.id], purge=True) == 1
    assert files_with(tmp_path / "a.mm", b"secret-green", hit.id.encode()) == []


def test_searches_meanwhile_finish_or_say_so(tmp_path: Path) -> None:
    """In threads, each with a collection of its own, as other processes would have."""
    collection, _ = made(tmp_path / "a.mm", 2000)
    collection.update([f"secret{number:04}" for number in range(2000)], {"number": 1})
    stop = threading.Event()
    seen: Counter[str] = Counter()

    def search(seed: int) -> None:
        mine = Collection.open(tmp_path / "a.mm")
        local = np.random.default_rng(seed)
        while not stop.is_set():
            for where in (None, "number = 1"):
                try:
                    hits = list(mine.search(local.normal(size=DIM), where=where))
                    seen["ok" if len(hits) == 10 else "too few"] += 1
                except MMAlignError as error:
                    seen["says so"] += "purged" in str(error) or "search again" in str(error)
                except BaseException as error:
                    seen[f"bare {type(error).__name__}"] += 1

    threads = [threading.Thread(target=search, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for number in range(8):
        collection.remove([f"secret{number:04}"], purge=True)
    stop.set()
    for thread in threads:
        thread.join()
    assert seen.keys() <= {"ok", "says so"}
    assert seen["ok"] > 0


def _hold(path: Path, held: object, done: object) -> None:
    with lock(path / LOCK, shared=True):
        held.set()  # type: ignore[attr-defined]
        done.wait()  # type: ignore[attr-defined]


def test_another_writer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection, _ = made(tmp_path / "a.mm")
    spawn = multiprocessing.get_context("spawn")
    held, done = spawn.Event(), spawn.Event()
    other = spawn.Process(target=_hold, args=(collection.path, held, done))
    other.start()
    held.wait()
    monkeypatch.setattr("mmalign.collection.generation_files._WAIT_FOR_WRITERS", 0.2)
    with pytest.raises(CollectionError, match="another process is writing"):
        collection.remove(["secret0001"], purge=True)
    assert len(collection) == 600
    done.set()
    other.join()
    assert collection.remove(["secret0001"], purge=True) == 1
