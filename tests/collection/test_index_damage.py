"""Index files that are cut, flipped or gone: refused, searched without, and built again from the items."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmalign.cli.checks import check_collection
from mmalign.collection.collection import Collection
from mmalign.index.lifecycle import versions as publish

DIM, ROWS = 8, 400


def make(path: Path, recipe: str) -> tuple[Collection, np.ndarray, Path]:
    made = np.random.default_rng(3).normal(size=(ROWS, DIM)).astype(np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    collection = Collection.create(path, encoder=None, dim=DIM)
    collection.add_embeddings([f"v{i}" for i in range(ROWS)], made)
    assert collection.build_index(recipe, progress=False) is not None
    folder = publish.current(path / "index")
    assert folder is not None
    publish._verified.clear()
    return collection, made, folder


def true_ids(made: np.ndarray, query: np.ndarray) -> list[str]:
    scores = made.astype(np.float16).astype(np.float32) @ query
    return [f"v{i}" for i in np.argsort(-scores)[:5]]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[random.Random(len(content)).randrange(len(content))] ^= 1 << 4
    path.write_bytes(content)


def flip_the_end(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [cut, empty, flip, flip_the_end, gone])
@pytest.mark.parametrize("name", ["index.faiss", "ids.npy", "removed.npy", "index.json", "manifest.json"])
def test_damage_is_seen_and_mended(tmp_path: Path, name: str, damage: Callable[[Path], None]) -> None:
    recipe = "IVF8,SQfp16"
    _, made, folder = make(tmp_path / "c.mm", recipe)
    before = (folder / name).read_bytes()
    damage(folder / name)
    if name == "manifest.json" and damage in (flip, flip_the_end) and _still_right(folder / name, before):
        pytest.skip("this bit changes nothing that is read")
    opened = Collection.open(tmp_path / "c.mm")
    query = np.random.default_rng(4).normal(size=DIM).astype(np.float32)
    query /= np.linalg.norm(query)
    result = opened.search(query, k=5)
    assert [hit.id for hit in result] == true_ids(made, query)
    assert result.exact
    assert any("searched exactly, without the index" in note for note in result.notes)
    [check] = [one for one in check_collection(tmp_path / "c.mm") if one.name == "index"]
    assert not check.ok
    manifest = opened.refresh_index(recipe, progress=False)
    assert manifest is not None
    assert manifest.rows == ROWS
    assert opened.check_index() == manifest
    result = opened.search(query, k=5)
    assert not any("without the index" in note for note in result.notes)
    assert [hit.id for hit in opened.search(made[7], k=1)] == ["v7"]


def _still_right(path: Path, before: bytes) -> bool:
    """Whether a flipped manifest says the same, or says what nothing depends on."""
    try:
        values, old = json.loads(path.read_bytes()), json.loads(before)
    except ValueError:
        return False
    told = ("format", "factory", "dim", "rows", "dataset_version", "checksums")
    return all(values.get(key) == old[key] for key in told)


def test_a_large_file_is_checked_by_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit only sizes are compared when it is opened; `doctor` reads every byte."""
    collection, _, folder = make(tmp_path / "c.mm", "IVF8,SQfp16")
    monkeypatch.setattr(publish, "_VERIFY_BYTES", 10)
    flip_the_end(folder / "index.faiss")
    assert collection.search(np.ones(DIM), k=5).notes == ()
    [check] = [one for one in check_collection(tmp_path / "c.mm") if one.name == "index"]
    assert not check.ok
    assert "checksum" in check.detail
    cut(folder / "index.faiss")
    opened = Collection.open(tmp_path / "c.mm")
    assert "without the index" in opened.search(np.ones(DIM), k=5).notes[0]


def test_damage_is_never_copied_into_a_longer_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extending copies every byte, and would give damage a checksum of its own."""
    collection, made, folder = make(tmp_path / "c.mm", "IVF8,SQfp16")
    monkeypatch.setattr(publish, "_VERIFY_BYTES", 10)
    flip_the_end(folder / "index.faiss")
    collection.add_embeddings([f"w{i}" for i in range(100)], -made[:100])
    opened = Collection.open(tmp_path / "c.mm")
    manifest = opened.refresh_index("IVF8,SQfp16", progress=False)
    assert manifest is not None
    assert manifest.rows == ROWS + 100
    assert manifest.trained_rows == ROWS + 100, "built again, not extended"
    assert opened.check_index() == manifest
