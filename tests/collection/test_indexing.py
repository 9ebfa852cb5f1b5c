"""An index that takes in what it lacks finds what a fresh one would, and builds that were killed are gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mmalign.collection import maintenance as upkeep
from mmalign.collection.collection import Collection
from mmalign.errors import CollectionError, IndexFileError
from mmalign.index.lifecycle import versions as publish
from mmalign.index.lifecycle.versions import IndexManifest
from mmalign.index.lifecycle.workspace import SUFFIX

DIM, ROWS = 16, 900
ROOT = Path(__file__).resolve().parents[2]
DISK = """
name = "on-disk"
summary = "x."
factory = "IVF8,SQfp16"
storage = "disk"

[search]
effort = "nprobe"
default = 8
"""


def vectors(count: int, seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def disk(folder: Path) -> str:
    path = folder / "on-disk.toml"
    path.write_text(DISK, encoding="utf-8")
    return str(path)


def filled(path: Path) -> tuple[Collection, dict[str, np.ndarray]]:
    truth = {f"v{i}": vector for i, vector in enumerate(vectors(ROWS, 1))}
    collection = Collection.create(path, encoder=None, dim=DIM)
    collection.add_embeddings([*truth], np.stack([*truth.values()]))
    return collection, truth


def change(collection: Collection, truth: dict[str, np.ndarray], seed: int) -> None:
    """Add, replace and remove items."""
    names = [f"{seed}-{i}" for i in range(120)] + [f"v{i}" for i in range(10 * seed, 10 * seed + 30)]
    new = vectors(len(names), 100 + seed)
    collection.add_embeddings(names, new)
    truth |= dict(zip(names, new, strict=True))
    gone = [f"v{i}" for i in range(500 + 20 * seed, 520 + 20 * seed)]
    collection.remove(gone)
    for name in gone:
        del truth[name]


def check(collection: Collection, truth: dict[str, np.ndarray]) -> None:
    """Every item is found by its own vector, and queries find the true nearest."""
    names, matrix = np.array([*truth]), np.stack([*truth.values()]).astype(np.float16).astype(np.float32)
    queries = vectors(20, 7)
    expected = names[np.argsort(-(queries @ matrix.T), axis=1)[:, :5]]
    generation = collection._current()
    index = generation.searcher().index
    found = collection.search(list(queries), k=5, min_recall=1.0)
    assert [[hit.id for hit in hits] for hits in found] == expected.tolist()
    assert index is not None
    # The index itself, not what is searched beside it.
    if not len(generation.searcher().unindexed):
        ids = index.search(queries, 5, effort=10_000)[1]
        told = collection.snapshot().take(ids.ravel(), ["id"]).column("id").to_pylist()
        assert np.array(told).reshape(ids.shape).tolist() == expected.tolist()


@pytest.mark.parametrize("recipe", ["flat", "HNSW16,SQfp16", "IVF8,SQfp16", "IVF8,SQ8,RFlat", "disk"])
def test_extended_again_and_again(tmp_path: Path, recipe: str) -> None:
    recipe = disk(tmp_path) if recipe == "disk" else recipe
    collection, truth = filled(tmp_path / "c.mm")
    first = collection.build_index(recipe, progress=False)
    assert first is not None
    before = first
    for seed in (1, 2, 3):
        change(collection, truth, seed)
        check(collection, truth)
        manifest = collection.refresh_index(recipe, progress=False)
        assert manifest is not None
        assert manifest.version != before.version
        assert (manifest.rows, manifest.trained_rows) == (len(truth), ROWS)
        assert manifest.factory == first.factory
        check(collection, truth)
        check(Collection.open(tmp_path / "c.mm"), truth)
        assert collection._current().searcher().uncovered == 50 * seed, "tombstones of replaced and removed items"
        before = manifest
    change(collection, truth, 4)
    gone = [f"v{i}" for i in range(700, 800)]
    collection.remove(gone)
    for name in gone:
        del truth[name]
    built = collection.refresh_index(recipe, progress=False)
    assert built is not None
    assert built.trained_rows == built.rows == len(truth), "too much of it was gone"
    check(collection, truth)
    assert [path.name for path in (tmp_path / "c.mm" / "index").glob(f"*{SUFFIX}")] == []


def test_nothing_to_extend(tmp_path: Path) -> None:
    collection, _ = filled(tmp_path / "c.mm")
    with pytest.raises(IndexFileError, match="no index in use"):
        upkeep.extend(tmp_path / "c.mm" / "index", collection.snapshot())


READER = """
import sys, time
from pathlib import Path
import numpy as np
from mmalign.collection.collection import Collection
opened = Collection.open(sys.argv[1])
query = np.eye(16)[0]
seen = []
print("ready", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    result = opened.search(query, k=5)
    assert len(result) == 5 and not any("without the index" in note for note in result.notes), result.notes
    version = opened.index_manifest.version
    if version not in seen:
        seen.append(version)
        print(version, flush=True)
    if Path(sys.argv[2]).exists():
        break
"""


def test_processes_that_search_see_the_swap(tmp_path: Path) -> None:
    """A background thread rebuilds while this thread writes and two other processes search."""
    collection, truth = filled(tmp_path / "c.mm")
    versions = [collection.build_index("IVF8,SQfp16", progress=False)]
    end = tmp_path / "end"

    def refresh() -> None:
        mine = Collection.open(tmp_path / "c.mm")
        for _ in range(2):
            versions.append(mine.build_index("IVF8,SQfp16", progress=False))
            time.sleep(1)

    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(tmp_path / "c.mm"), str(end)],
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    try:
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        background = threading.Thread(target=refresh)
        background.start()
        seed = 1
        while background.is_alive() and seed < 15:
            change(collection, truth, seed)
            check(collection, truth)
            seed += 1
        background.join()
        time.sleep(1)
    finally:
        end.touch()
        told = [reader.communicate(timeout=60)[0].split() for reader in readers]
    last = versions[-1]
    assert isinstance(last, IndexManifest)
    for reader, seen in zip(readers, told, strict=True):
        assert reader.returncode == 0
        assert seen[-1] == last.version
        assert len(seen) > 1
    check(collection, truth)


BUILD = """
import os, signal, sys
from mmalign.collection.collection import Collection
from mmalign.index.faiss import shards
from pathlib import Path
shards._LEAST_ROWS, shards._SHARD_BYTES = 300, 1
replace, calls = Path.replace, 0
def planted(self, target):
    global calls
    calls += self.parent.name == "build"
    if calls == int(sys.argv[3]): os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = planted
Collection.open(sys.argv[1]).build_index(sys.argv[2], progress=False)
"""


def killed(path: Path, recipe: str, nth: int) -> list[Path]:
    done = subprocess.run([sys.executable, "-c", BUILD, str(path), recipe, str(nth)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    return sorted((path / "index").glob(f"*{SUFFIX}"))


def test_a_killed_build_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where items were added since: it covers the version that it was begun with, and the tail the rest."""
    from mmalign.index.faiss import shards
    from mmalign.index.faiss.index import FaissIndex

    collection, truth = filled(tmp_path / "c.mm")
    recipe = disk(tmp_path)
    [work] = killed(tmp_path / "c.mm", recipe, 5)
    made = {path.name: path.stat().st_ino for path in (work / "build").iterdir()}
    assert "shard-00000.npy" in made
    assert publish.clean(tmp_path / "c.mm" / "index") == [], "kept for the next build"
    change(collection, truth, 1)
    monkeypatch.setattr(shards, "_LEAST_ROWS", 300)
    monkeypatch.setattr(shards, "_SHARD_BYTES", 1)
    monkeypatch.setattr(FaissIndex, "train", lambda *_: pytest.fail("trained again"))
    manifest = collection.build_index(recipe, progress=False)
    assert manifest is not None
    assert manifest.rows == ROWS
    check(collection, truth)
    assert not work.exists()


def test_work_that_nobody_needs_is_removed(tmp_path: Path) -> None:
    collection, _ = filled(tmp_path / "c.mm")
    [work] = killed(tmp_path / "c.mm", disk(tmp_path), 5)
    with publish.claim_workspace(tmp_path / "c.mm" / "index", "x", version=1, usable=lambda _: True) as mine:
        assert not mine.resumed
        other = mine.folder.parent
        os.utime(other, (0, 0))
        os.utime(work, (0, 0))
        os.utime(work / "build", (0, 0))
        collection.build_index("IVF8,SQfp16", progress=False)
        assert not work.exists(), "an index was put in use since"
        assert other.exists(), "somebody is at work in it"
    assert not other.exists()


def test_two_builds_at_once_use_two_folders(tmp_path: Path) -> None:
    with (
        publish.claim_workspace(tmp_path, "x", version=1, usable=lambda _: True) as one,
        publish.claim_workspace(tmp_path, "x", version=1, usable=lambda _: True) as two,
    ):
        assert one.folder != two.folder
        assert not two.resumed
    assert list(tmp_path.glob(f"*{SUFFIX}")) == []


def test_work_on_a_version_that_is_gone_is_left(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="stop"),
        publish.claim_workspace(tmp_path, "x", version=1, usable=lambda _: True),
    ):
        raise ValueError("stop")
    assert len(list(tmp_path.glob(f"*{SUFFIX}"))) == 1, "a build that failed can be tried again"
    with publish.claim_workspace(tmp_path, "x", version=5, usable=lambda version: version != 1) as fresh:
        assert (fresh.version, fresh.resumed) == (5, False)
    with publish.claim_workspace(tmp_path, "x", version=5, usable=lambda _: True) as again:
        assert (again.version, again.resumed) == (1, True)


def test_purge_leaves_no_shards(tmp_path: Path) -> None:
    collection, _ = filled(tmp_path / "c.mm")
    [work] = killed(tmp_path / "c.mm", disk(tmp_path), 5)
    with (
        publish.claim_workspace(tmp_path / "c.mm" / "index", "x", version=1, usable=lambda _: True),
        pytest.raises(CollectionError, match="is being built"),
    ):
        collection.remove(["v3"], purge=True)
    assert collection.has("v3")
    assert collection.remove(["v3"], purge=True) == 1
    assert not work.exists()
