"""What many small writes leave: few fragments, few versions, a bounded folder, and all items right."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmalign import Collection
from mmalign.store.compaction import MOST_FRAGMENTS, worn_fragments
from mmalign.store.lance_store import Store

DIM = 8


def fragments(*sizes: int | tuple[int, int]) -> Any:
    """A dataset with fragments of so many rows, of which so many are deleted."""
    made = [size if isinstance(size, tuple) else (size, 0) for size in sizes]
    metadata = [
        SimpleNamespace(metadata=SimpleNamespace(id=3 * place, physical_rows=rows, num_deletions=deleted))
        for place, (rows, deleted) in enumerate(made)
    ]
    return SimpleNamespace(get_fragments=lambda: metadata)


def test_sixteen_of_a_size_are_merged() -> None:
    assert worn_fragments(fragments()) == []
    assert worn_fragments(fragments(*[1] * 15)) == []
    assert worn_fragments(fragments(*[1] * 16)) == list(range(0, 48, 3))
    assert worn_fragments(fragments(*[1] * 8, *[1023] * 8)) == list(range(0, 48, 3))


@pytest.mark.parametrize("large", [1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 24])
def test_large_ones_are_left_alone(large: int) -> None:
    assert worn_fragments(fragments(large, *[1] * 15)) == []
    assert worn_fragments(fragments(large, *[1] * 16)) == list(range(3, 51, 3))
    assert worn_fragments(fragments(*[large] * 15, *[1] * 15)) == []
    assert worn_fragments(fragments(*[large] * 16)) == (list(range(0, 48, 3)) if large < 1 << 20 else [])


def test_a_tenth_of_which_is_deleted() -> None:
    assert worn_fragments(fragments((1000, 100), (1 << 20, 1 << 16))) == []
    assert worn_fragments(fragments((1000, 101), 1, (1 << 22, 1 << 20), (1, 1))) == [0, 6, 9]
    # Of so many rows are left as make it one of the small ones.
    assert worn_fragments(fragments((1100, 90), *[1] * 15)) == list(range(0, 48, 3))


# Collections ----------------------------------------------------------------------------------------------------------


def vectors(count: int, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def create(path: Path) -> Collection:
    return Collection.create(path, encoder=None, dim=DIM)


def contents(store: Store) -> dict[str, tuple[Any, list[float]]]:
    row_ids, table = store.scan(["id", "title"])
    matrix = store.embeddings(row_ids)[1]
    names, titles = (column.to_pylist() for column in table.columns)
    assert len(names) == len(set(names)) == len(store)
    return {name: (title, row.tolist()) for name, title, row in zip(names, titles, matrix, strict=True)}


def bytes_under(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def data_files(collection: Collection) -> set[str]:
    """The files of the newest version."""
    return {Path(file.path).name for one in collection.snapshot().dataset.get_fragments() for file in one.data_files()}


def test_single_adds_and_single_removes(tmp_path: Path) -> None:
    collection, made = create(tmp_path / "a.mm"), vectors(80)
    items = collection.path / "items.lance"
    oracle: dict[str, tuple[Any, list[float]]] = {}

    def check() -> None:
        store = collection.snapshot()
        assert contents(store) == oracle
        assert len(store.dataset.get_fragments()) <= 2 * MOST_FRAGMENTS
        versions = {int(version["version"]) for version in store.dataset.versions()}
        assert len(versions) <= MOST_FRAGMENTS + 6
        assert {int(path.stem) for path in (items / "_checksums").iterdir()} <= versions
        # Lance writes some 70 KB of each version, and each fragment takes some 6 KB.
        assert bytes_under(tmp_path) < 2_000_000

    for row in range(80):
        collection.add_embeddings([f"v{row}"], made[[row]], metadata={"title": [f"title {row}"]})
        oracle[f"v{row}"] = (f"title {row}", made[row].astype(np.float16).tolist())
        if row % 10 == 9:
            check()
    whole = bytes_under(items / "data")
    for turn, row in enumerate(np.random.default_rng(1).permutation(80).tolist()):
        assert collection.remove([f"v{row}"]) == 1
        del oracle[f"v{row}"]
        if turn % 10 == 9:
            check()
    assert collection.check_items() == []
    collection.snapshot().compact(force=True)
    assert bytes_under(items / "data") < whole / 4


def test_single_updates(tmp_path: Path) -> None:
    collection, made = create(tmp_path / "a.mm"), vectors(20)
    names = [f"v{row}" for row in range(20)]
    collection.add_embeddings(names, made, metadata={"title": ["none"] * 20})
    for turn in range(50):
        collection.update([names[turn % 20]], {"title": f"title {turn}"})
    store = collection.snapshot()
    assert {name: title for name, (title, _) in contents(store).items()} == {
        names[turn % 20]: f"title {turn}" for turn in range(30, 50)
    }
    assert collection.check_items() == []
    assert len(store.dataset.get_fragments()) <= 2 * MOST_FRAGMENTS
    assert len(store.dataset.versions()) <= MOST_FRAGMENTS + 6


def test_a_small_write_never_rewrites_a_large_fragment(tmp_path: Path) -> None:
    collection, made = create(tmp_path / "a.mm"), vectors(2000)
    collection.add_embeddings([f"v{row}" for row in range(2000)], made, metadata={"title": ["x"] * 2000})
    (large,) = data_files(collection)
    for row in range(40):
        collection.add_embeddings([f"w{row}"], -made[[row]])
    assert large in data_files(collection)
    assert len(data_files(collection)) <= 2 * MOST_FRAGMENTS
    assert len(collection) == 2040
    # A tenth of it, and that is worth its while.
    collection.remove([f"v{row}" for row in range(201)])
    for row in range(20):
        collection.remove([f"w{row}"])
    assert large not in data_files(collection)
    names = [f"v{row}" for row in range(201, 2000)] + [f"w{row}" for row in range(20, 40)]
    assert sorted(contents(collection.snapshot())) == sorted(names)


def write_much(collection: Collection, turns: int = 40) -> None:
    made = vectors(turns, seed=5)
    for row in range(turns):
        collection.add_embeddings([f"more{row % 3}"], made[[row]])


def test_who_reads_long_keeps_the_version(tmp_path: Path) -> None:
    collection = create(tmp_path / "a.mm")
    collection.add_embeddings(["a", "b"], vectors(2), metadata={"title": ["x", None]})
    store = Store.open(collection.path / "items.lance")
    before = contents(store)
    with store.reads_long():
        write_much(Collection.open(collection.path))
        Collection.open(collection.path).snapshot().compact(force=True)
        again = store.at(store.version)
        assert again is not None
        assert contents(again) == before
        assert contents(store) == before
    write_much(Collection.open(collection.path))
    assert store.at(store.version) is None, "nobody reads it any more"
    assert not (collection.path / "items.lance" / "_checksums" / f"{store.version}.json").exists()


def test_who_reads_long_keeps_a_version_that_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That nothing was written for a day is no reason to take it away from who reads it."""
    monkeypatch.setattr("mmalign.store.compaction._KEEP_READ", timedelta(0))
    collection = create(tmp_path / "a.mm")
    collection.add_embeddings(["a", "b"], vectors(2), metadata={"title": ["x", None]})
    store = Store.open(collection.path / "items.lance")
    before = contents(store)
    with store.reads_long():
        write_much(Collection.open(collection.path))
        Collection.open(collection.path).snapshot().compact(force=True)
        assert contents(store) == before
        assert len(store.dataset.versions()) < 10, "the others are gone"
    assert store.dataset.tags.list() == {}


def test_versions_kept_for_a_reader_that_was_killed_are_cleaned_away(tmp_path: Path) -> None:
    collection = create(tmp_path / "a.mm")
    collection.add_embeddings(["a", "b"], vectors(2), metadata={"title": ["x", None]})
    store = Store.open(collection.path / "items.lance")
    reading = store.reads_long()
    reading.__enter__()
    (tag,) = store.dataset.tags.list()
    reading.__exit__(None, None, None)
    # As it would be there still, but its lock is not, which ends with its process.
    store.dataset.tags.create(tag, store.version)
    write_much(Collection.open(collection.path))
    assert store.at(store.version) is None
    assert store.dataset.tags.list() == {}


def test_a_purge_does_not_leave_what_is_read(tmp_path: Path) -> None:
    collection = create(tmp_path / "a.mm")
    collection.add_embeddings(["a", "b"], vectors(2), metadata={"title": ["unheard", None]})
    store = Store.open(collection.path / "items.lance")
    with store.reads_long():
        collection.remove(["a"], purge=True)
    files = [path for path in collection.path.rglob("*") if path.is_file()]
    assert not [path for path in files if b"unheard" in path.read_bytes()]


def test_a_short_search_still_finds_its_version(tmp_path: Path) -> None:
    """A few stay in any case, whoever cleans away in between."""
    collection = create(tmp_path / "a.mm")
    collection.add_embeddings(["a", "b"], vectors(2), metadata={"title": ["x", None]})
    store = Store.open(collection.path / "items.lance")
    Collection.open(collection.path).add_embeddings(["c"], vectors(1, seed=2))
    Collection.open(collection.path).snapshot().compact(force=True)
    assert sorted(contents(store)) == ["a", "b"]


def at_once(*calls: Callable[[], None]) -> None:
    with ThreadPoolExecutor(len(calls)) as pool:
        for running in [pool.submit(call) for call in calls]:
            running.result()


def test_no_item_is_lost_where_two_add_at_once(tmp_path: Path) -> None:
    create(tmp_path / "a.mm").add_embeddings(["first"], vectors(1), metadata={"title": ["x"]})
    made = vectors(60, seed=6)

    def add(first: int) -> None:
        own = Collection.open(tmp_path / "a.mm")
        for row in range(first, 60, 2):
            own.add_embeddings([f"v{row}"], made[[row]], metadata={"title": [str(row)]})
            if row % 10 == first:
                own.remove([f"v{row}"])

    at_once(lambda: add(0), lambda: add(1))
    collection = Collection.open(tmp_path / "a.mm")
    found = contents(collection.snapshot())
    del found["first"]
    assert found == {
        f"v{row}": (str(row), made[row].astype(np.float16).tolist()) for row in range(60) if row % 10 not in (0, 1)
    }
    assert collection.check_items() == []
    assert len(collection.snapshot().dataset.get_fragments()) <= 3 * MOST_FRAGMENTS


def test_two_that_change_other_columns_of_the_same_items(tmp_path: Path) -> None:
    """The checksum of an item is that of both changes, whoever came second."""
    names = [f"v{row}" for row in range(5)]
    create(tmp_path / "a.mm").add_embeddings(names, vectors(5), metadata={"title": ["x"] * 5, "year": [0] * 5})

    def change(column: str, values: list[Any]) -> None:
        own = Collection.open(tmp_path / "a.mm")
        for value in values:
            own.update(names, {column: value})

    at_once(lambda: change("title", [f"title {turn}" for turn in range(15)]), lambda: change("year", list(range(15))))
    collection = Collection.open(tmp_path / "a.mm")
    assert collection.check_items() == []
    _, table = collection.snapshot().scan(["title", "year"])
    assert table.to_pylist() == [{"title": "title 14", "year": 14}] * 5
