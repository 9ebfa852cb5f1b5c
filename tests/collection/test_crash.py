"""Nothing is lost when the power goes: SIGKILL at any moment, a search in the gap, a resume, the same collection."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mmalign.collection.collection import Collection
from mmalign.errors import CollectionNotFoundError
from tests.tools.color_encoder import COLORS, ColorEncoder, paint

PICTURES = 1000
QUERIES = ["red", "blue white", "green", "grey black", "yellow"]

# Every step whose interruption could be seen on disk.
POINTS = [
    "mmalign.collection.description:CollectionManifest.write:before:1",
    "mmalign.collection.description:CollectionManifest.write:after:1",
    "mmalign.store.lance_store:Store.upsert:before:4",
    "mmalign.store.lance_store:Store.upsert:after:4",
    "mmalign.store.lance_store:Store.compact:before:1",
    "mmalign.store.lance_store:Store.compact:after:1",
    "mmalign.index.lifecycle.versions:write_files:after:1",
    "mmalign.index.lifecycle.versions:rename_version:after:1",
    "mmalign.index.lifecycle.versions:replace_pointer:before:1",
    "mmalign.index.lifecycle.versions:replace_pointer:after:1",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crash") / "photos"
    for i in range(PICTURES):
        paint(folder / f"{i % 7}" / f"{i:04}.png", list(COLORS)[i % len(COLORS)], detail=i)
        if i % 50 == 0:
            (folder / f"{i % 7}" / f"{i:04}.txt").write_text(f"caption {i}\n", encoding="utf-8")
    return folder


def start(photos: Path, collection: Path, *points: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.tools.indexing", str(photos), str(collection), *points]
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> dict:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out)


def contents(path: Path) -> dict[str, tuple[dict, np.ndarray]]:
    store = Collection.open(path).snapshot()
    names = [*store.columns, "id", "uri", "sha256", "width", "height", "bytes", "captions"]
    _, table = store.scan(names)
    _, matrix = store.embeddings()
    return {row["id"]: (row, vector) for row, vector in zip(table.to_pylist(), matrix, strict=True)}


def check_same(path: Path, expected: dict[str, tuple[dict, np.ndarray]], reference: Collection) -> None:
    found = contents(path)
    assert found.keys() == expected.keys()
    for name, (row, vector) in found.items():
        assert row == expected[name][0]
        np.testing.assert_allclose(vector, expected[name][1], atol=1e-3)
    resumed = Collection.open(path, encoder=ColorEncoder())
    for mine, theirs in zip(resumed.search(QUERIES), reference.search(QUERIES), strict=True):
        assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in theirs], abs=1e-3)
        bound = mine[-1].score + 1e-3
        assert {hit.id for hit in mine if hit.score > bound} == {hit.id for hit in theirs if hit.score > bound}


def check_gap(path: Path) -> int:
    """A search in the gap works, and shows whole items; returns how many there are."""
    try:
        opened = Collection.open(path, encoder=ColorEncoder())
    except CollectionNotFoundError:
        return 0
    hits = opened.search("red", k=5)
    assert len(hits) == min(5, len(opened))
    assert all(Path(hit.uri).is_file() and hit.metadata["width"] == 40 for hit in hits)
    return len(opened)


@pytest.fixture(scope="module")
def reference(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    path = tmp_path_factory.mktemp("reference") / "reference.mm"
    assert finish(start(photos, path))["added"] == PICTURES
    return Collection.open(path, encoder=ColorEncoder())


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_step(photos: Path, reference: Collection, tmp_path: Path, point: str) -> None:
    path = tmp_path / "photos.mm"
    process = start(photos, path, point)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, f"{point} was never reached"
    kept = check_gap(path)
    report = finish(start(photos, path))
    assert report["added"] + report["unchanged"] == PICTURES
    assert report["unchanged"] == kept
    check_same(path, contents(reference.path), reference)
    leftovers = [entry.name for entry in tmp_path.iterdir() if entry.name != "photos.mm"]
    assert leftovers == [], "a resume clears away what a killed process left"


@pytest.mark.parametrize("seed", range(10))
def test_killed_at_a_random_moment(photos: Path, reference: Collection, tmp_path: Path, seed: int) -> None:
    path = tmp_path / "photos.mm"
    local = random.Random(seed)
    for _ in range(2):
        process = start(photos, path)
        while not path.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(local.uniform(0.0, 1.5))
        process.kill()
        process.communicate(timeout=120)
        check_gap(path)
    report = finish(start(photos, path))
    assert report["added"] + report["unchanged"] == PICTURES
    check_same(path, contents(reference.path), reference)


def test_two_processes_adding_the_same_folder(photos: Path, reference: Collection, tmp_path: Path) -> None:
    path = tmp_path / "photos.mm"
    both = [start(photos, path), start(photos, path)]
    for process in both:
        finish(process)
    check_same(path, contents(reference.path), reference)


def test_a_disk_that_fills_up(photos: Path, reference: Collection, small_disk: Path) -> None:
    """A clear error, a search that sees what was committed, and with more room the same command goes on."""
    path = small_disk / "photos.mm"
    subprocess.run(["mount", "-o", "remount,size=280k", small_disk], check=True)
    process = start(photos, path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "StorageError" in err
    assert "free some space" in err
    assert 0 < check_gap(path) < PICTURES
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    finish(start(photos, path))
    check_same(path, contents(reference.path), reference)
