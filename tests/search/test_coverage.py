"""What an index covers is the same whether it is followed from version to version or looked up from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.index.exact import ExactIndex
from mmalign.search.coverage import Coverage
from mmalign.store import changes
from mmalign.store.changes import find_changes
from mmalign.store.lance_store import Store

DIM = 4


def put(store: Store, names: list[str], rng: np.random.Generator) -> None:
    store.upsert([{"id": name, "uri": name} for name in names], rng.normal(size=(len(names), DIM)))


def indexed(store: Store) -> ExactIndex:
    index = ExactIndex(store.dim)
    for row_ids, vectors in store.iter_embeddings():
        index.add(row_ids, vectors)
    return index


def oracle(store: Store, index: ExactIndex, known: dict[int, bytes]) -> tuple[set[int], list[int]]:
    """The tail and the true positions, from the vectors themselves: what the index holds is compared with the store."""
    now = dict(zip(*vectors_of(store), strict=True))
    true = [
        place
        for place, row in enumerate(index.ids.tolist())
        if index.live[place] and now.get(row) == known[row] and row in now
    ]
    return now.keys() - {index.ids[place] for place in true}, true


def vectors_of(store: Store) -> tuple[list[int], list[bytes]]:
    row_ids, vectors = store.embeddings()
    return row_ids.tolist(), [vector.tobytes() for vector in vectors]


def check(covered: Coverage, store: Store, index: ExactIndex, known: dict[int, bytes]) -> None:
    tail, true = oracle(store, index, known)
    assert len(set(covered.unindexed.tolist())) == len(covered.unindexed)
    assert set(covered.unindexed.tolist()) == tail
    found = np.arange(len(index.ids)) if covered.mask is None else np.flatnonzero(covered.mask)
    assert found.tolist() == true
    assert covered.stale == len(index.ids) - len(true)


@pytest.mark.parametrize("seed", range(6))
def test_followed_coverage_equals_the_oracle(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    # Small data lie in few fragments: without this each change would be looked up from nothing.
    monkeypatch.setattr("mmalign.search.coverage._MOST_CHANGED", 100.0)
    store = Store.create(tmp_path / "items.lance", dim=DIM)
    for start in range(0, 120, 30):
        put(store, [f"a{i}" for i in range(start, start + 30)], rng)
    index = indexed(store)
    if seed % 2:
        # An index that was extended: removed positions, and ids that come a second time.
        gone = store.row_ids()[10:20]
        index.remove(gone)
        index.add(gone, store.embeddings(gone)[1])
    known = dict(zip(*vectors_of(store), strict=True))
    since = store.version
    reader = Store.open(tmp_path / "items.lance")
    covered = Coverage.look(reader, index, since=since)
    check(covered, reader, index, known)
    for step in range(12):
        kind = ["insert", "update", "delete", "compact", "many"][int(rng.integers(5))]
        names = store.scan(["id"])[1].column("id").to_pylist()
        picked = [str(name) for name in rng.choice(names, 5, replace=False)]
        if kind == "insert":
            put(store, [f"{step}-{i}" for i in range(7)], rng)
        elif kind == "update":
            put(store, [*picked, f"{step}-new"], rng)
        elif kind == "delete":
            store.delete(rng.choice(store.row_ids(), 4, replace=False))
        elif kind == "compact":
            store.compact(force=True)
        else:
            put(store, picked, rng)
            store.delete(rng.choice(store.row_ids(), 4, replace=False))
            put(store, [f"{step}-{i}" for i in range(3)], rng)
            store.compact(force=True)
        reader = reader.latest()
        assert covered._follow(reader) is not None
        covered = covered.follow(reader, index)
        check(covered, reader, index, known)
        check(Coverage.look(reader, index, since=since), reader, index, known)
        check(Coverage._read(reader, index, since, covered.positions), reader, index, known)


def test_only_changed_fragments_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    store = Store.create(tmp_path / "items.lance", dim=DIM)
    for start in range(0, 500, 100):
        put(store, [f"a{i}" for i in range(start, start + 100)], rng)
    old = Store.open(tmp_path / "items.lance")
    row_ids = store.row_ids()
    store.delete(row_ids[3:5])
    put(store, ["b"], rng)
    found = find_changes(old, store, since=old.version)
    assert found is not None
    assert found.deleted.tolist() == row_ids[3:5].tolist()
    assert len(found.before) == 2
    assert len(found.after) == len(found.written) == 1
    assert [len(ids) for ids in found.known.values()] == [98]
    # 100 row ids as they were and as they are, and the new one twice.
    assert find_changes(old, store, since=old.version, most=202) is not None
    assert find_changes(old, store, since=old.version, most=201) is None
    later = Store.open(tmp_path / "items.lance")
    store.delete(row_ids[7:8])
    again = find_changes(later, store, since=old.version, known=found.known, most=100)
    assert again is not None
    assert again.deleted.tolist() == row_ids[7:8].tolist()
    assert find_changes(store, old, since=old.version) is None


def test_a_version_that_was_cleaned_away_is_looked_up_from_nothing(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(tmp_path / "items.lance", dim=DIM)
    put(store, [f"a{i}" for i in range(50)], rng)
    index, since = indexed(store), store.version
    known = dict(zip(*vectors_of(store), strict=True))
    covered = Coverage.look(Store.open(tmp_path / "items.lance"), index, since=since)
    put(store, ["a1", "b"], rng)
    store.delete(store.row_ids()[5:9])
    store.purge()
    assert store.at(since) is None
    after = Store.open(tmp_path / "items.lance")
    check(covered.follow(after, index), after, index, known)
    check(Coverage.look(after, index, since=since), after, index, known)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("gone")

    monkeypatch.setattr(changes.Store, "row_ids", refuse)
    assert find_changes(after, store, since=0) is not None
