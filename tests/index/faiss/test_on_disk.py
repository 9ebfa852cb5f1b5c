"""Indexes built in shards on disk are those that are built in memory, also after a kill."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import IndexFileError, InputError, RecipeError
from mmalign.index.backends import load_index
from mmalign.index.faiss import shards
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.faiss.on_disk import build_on_disk, extend_on_disk, fits_disk
from mmalign.index.faiss.shards import split

DIM, ROWS = 16, 1000
ROOT = Path(__file__).resolve().parents[3]


def data(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    return rng.permutation(10 * rows)[:rows], rng.normal(size=(rows, DIM)).astype(np.float32)


def chunked(ids: np.ndarray, vectors: np.ndarray, size: int = 70) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size], vectors[start : start + size].astype(np.float16)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_LEAST_ROWS", 300)
    monkeypatch.setattr(shards, "_SHARD_BYTES", 1)


def build(factory: str, folder: Path, rows: int = ROWS) -> FaissIndex:
    ids, vectors = data(rows)
    index = FaissIndex(factory, DIM)
    return build_on_disk(index, folder, lambda: chunked(ids, vectors), plan={"a": 1}, sample=lambda: vectors)


def in_memory(factory: str) -> FaissIndex:
    ids, vectors = data()
    index = FaissIndex(factory, DIM)
    index.train(vectors)
    for part in chunked(ids, vectors):
        index.add(*part)
    return index


@pytest.mark.parametrize("factory", ["IVF16,SQfp16", "IVF16,Flat", "IVF8,PQ4x4", "IVF400,SQ8", "IVF4_HNSW8,SQ8"])
def test_same_bytes_as_in_memory(tmp_path: Path, factory: str) -> None:
    whole = in_memory(factory)
    whole.save(tmp_path / "memory")
    joined = build(factory, tmp_path / "work")
    joined.save(tmp_path / "disk")
    assert sorted(path.name for path in (tmp_path / "disk").iterdir()) == sorted(
        path.name for path in (tmp_path / "memory").iterdir()
    )
    for path in (tmp_path / "memory").iterdir():
        assert path.read_bytes() == (tmp_path / "disk" / path.name).read_bytes(), path.name
    # A moved folder still works, and the work can go.
    shutil.rmtree(tmp_path / "work")
    shutil.move(tmp_path / "disk", tmp_path / "elsewhere")
    loaded = load_index(tmp_path / "elsewhere")
    for left, right in zip(loaded.search(data()[1][:20], 5), whole.search(data()[1][:20], 5), strict=True):
        np.testing.assert_array_equal(left, right)


def test_behind_a_transform(tmp_path: Path) -> None:
    found = build("PCA8,IVF16,Flat", tmp_path / "work").search(data()[1][:50], 5)
    expected = in_memory("PCA8,IVF16,Flat").search(data()[1][:50], 5)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-4)
    assert (found[1] == expected[1]).mean() > 0.98


@pytest.mark.parametrize("factory", ["HNSW8", "Flat", "IVF16,SQ8,RFlat", "IVF16,PQ8x4fs", "IDMap,IVF16,Flat"])
def test_what_has_to_be_in_memory_is_refused(tmp_path: Path, factory: str) -> None:
    assert not fits_disk(FaissIndex(factory, DIM))
    with pytest.raises(RecipeError, match=r"cannot be built on disk.*IVF1024,SQfp16"):
        build(factory, tmp_path)


def test_bad_vectors_and_ids(tmp_path: Path) -> None:
    ids, vectors = data(40)
    for name, wrong_ids, wrong in (("NaN", ids, vectors * np.nan), ("twice", ids * 0, vectors)):
        index = FaissIndex("IVF2,Flat", DIM)
        with pytest.raises(InputError, match=name):
            build_on_disk(
                index, tmp_path / name, lambda i=wrong_ids, v=wrong: [(i, v)], plan={}, sample=lambda: vectors
            )


CODE = """
import os, signal, sys
from itertools import pairwise
from pathlib import Path
import tests.index.faiss.test_on_disk as test
from mmalign.index.faiss import shards
shards._LEAST_ROWS, shards._SHARD_BYTES = 300, 1
folder, nth = Path(sys.argv[1]), int(sys.argv[2])
original, calls = Path.replace, 0
def replace(self, target):
    global calls
    calls += 1
    if calls == nth: os.kill(os.getpid(), signal.SIGKILL)
    return original(self, target)
Path.replace = replace
test.build("IVF16,SQ8", folder)
"""


@pytest.mark.parametrize("nth", [2, 5, 6, 11])
def test_a_killed_build_goes_on(tmp_path: Path, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the training, a shard, its ids, or the joined index gets its name."""
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "work"), str(nth)], cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    before = {
        path.name: path.stat().st_mtime_ns
        for path in (tmp_path / "work").iterdir()
        if not path.name.startswith(".tmp-")
    }
    trainings = []
    train = FaissIndex.train
    monkeypatch.setattr(FaissIndex, "train", lambda self, vectors: (trainings.append(1), train(self, vectors)))
    written = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (written.append(target.name), replace(self, target)))
    index = build("IVF16,SQ8", tmp_path / "work")
    assert len(trainings) == ("trained.faiss" not in before)
    assert not {name for name in written if name.endswith(".npy")} & before.keys()
    monkeypatch.undo()
    index.save(tmp_path / "disk")
    in_memory("IVF16,SQ8").save(tmp_path / "memory")
    for path in (tmp_path / "memory").iterdir():
        assert path.read_bytes() == (tmp_path / "disk" / path.name).read_bytes(), path.name


def test_work_that_was_finished_but_not_taken_over(tmp_path: Path) -> None:
    first = build("IVF16,SQ8", tmp_path / "work")
    state = (tmp_path / "work" / "index.faiss").stat().st_mtime_ns
    again = build("IVF16,SQ8", tmp_path / "work")
    assert (tmp_path / "work" / "index.faiss").stat().st_mtime_ns == state
    np.testing.assert_array_equal(first.ids, again.ids)


def test_another_plan_begins_from_nothing(tmp_path: Path) -> None:
    build("IVF16,SQ8", tmp_path / "work")
    assert build("IVF8,Flat", tmp_path / "work", rows=500).ntotal == 500


def test_other_items_under_the_same_plan_are_noticed(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "work"), "11"], cwd=ROOT)
    ids, vectors = data()
    with pytest.raises(IndexFileError, match="holds other items"):
        build_on_disk(
            FaissIndex("IVF16,SQ8", DIM),
            tmp_path / "work",
            lambda: chunked(ids + 1, vectors),
            plan={"a": 1},
            sample=lambda: vectors,
        )


@pytest.mark.parametrize("sizes", [[], [0], [5], [10], [3, 4, 0, 20, 1], [25, 25], [10, 10]])
def test_cut(sizes: list[int]) -> None:
    stops = np.cumsum([0, *sizes])
    chunks = [(np.arange(a, b), np.arange(a, b)[:, None]) for a, b in pairwise(stops)]
    groups = [[ids.tolist() for ids, _ in pieces] for pieces in split(iter(chunks), 10)]
    flat = [[number for piece in group for number in piece] for group in groups]
    assert flat == [list(range(a, min(a + 10, stops[-1]))) for a in range(0, stops[-1], 10)]
    assert all(piece for group in groups for piece in group)


def test_extend(tmp_path: Path) -> None:
    """What was removed is not found, what comes again is found where it is now, and the old index stays as it was."""
    build("IVF16,Flat", tmp_path / "work").save(tmp_path / "first")
    old = FaissIndex.load(tmp_path / "first")
    ids, vectors = data()
    rng = np.random.default_rng(9)
    gone, again = ids[:50], ids[50:100]
    new_ids = np.concatenate([again, np.arange(20_000, 20_700)])
    new = rng.normal(size=(len(new_ids), DIM)).astype(np.float32)
    longer = extend_on_disk(
        old, tmp_path / "more", lambda: chunked(new_ids, new), plan={}, removed=np.concatenate([gone, again])
    )
    longer.save(tmp_path / "second")
    shutil.rmtree(tmp_path / "more")
    loaded = FaissIndex.load(tmp_path / "second")
    truth = dict(zip(ids.tolist(), vectors, strict=True)) | dict(zip(new_ids.tolist(), new, strict=True))
    for one in gone.tolist():
        del truth[one]
    names, matrix = np.array([*truth]), np.stack([*truth.values()]).astype(np.float16).astype(np.float32)
    assert len(loaded) == len(names)
    queries = rng.normal(size=(30, DIM)).astype(np.float32)
    expected = names[np.argsort(-(queries @ matrix.T), axis=1)[:, :10]]
    np.testing.assert_array_equal(loaded.search(queries, 10, effort=16)[1], expected)
    assert len(old) == ROWS
    assert old.search(vectors[:1], 1)[1].tolist() == [[gone[0]]]
    with pytest.raises(InputError, match="mmap=True"):
        extend_on_disk(in_memory("IVF16,Flat"), tmp_path / "x", lambda: [], plan={}, removed=[])
