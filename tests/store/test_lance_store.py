from __future__ import annotations

import multiprocessing
import resource
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mmalign.errors import CollectionFormatError, FilterError, StorageError
from mmalign.store.lance_store import Store

DIM = 8


def rows(*names: str, **columns: object) -> list[dict[str, object]]:
    return [{"id": name, "uri": f"/{name}", "kind": "image", **columns} for name in names]


def vectors(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float16)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "items.lance", dim=DIM)


def contents(store: Store) -> dict[str, list[float]]:
    _, table = store.scan(["id"])
    _, matrix = store.embeddings()
    return dict(zip(table.column("id").to_pylist(), matrix.tolist(), strict=True))


def test_upsert_inserts_and_replaces_and_keeps_row_ids(store: Store) -> None:
    first, second = vectors(3), vectors(2, seed=1)
    store.upsert(rows("a", "b", "c"), first)
    before = dict(zip(store.scan(["id"])[1].column("id").to_pylist(), store.scan(["id"])[0].tolist(), strict=True))
    version = store.version
    store.upsert(rows("b", "d"), second)
    assert contents(store) == {
        "a": first[0].tolist(),
        "b": second[0].tolist(),
        "c": first[2].tolist(),
        "d": second[1].tolist(),
    }
    after = dict(zip(store.scan(["id"])[1].column("id").to_pylist(), store.scan(["id"])[0].tolist(), strict=True))
    assert {name: after[name] for name in before} == before
    assert sorted(store.row_ids(since=version).tolist()) == sorted([after["b"], after["d"]])
    assert store.row_ids(since=store.version).size == 0


def test_patch_changes_columns_and_leaves_embeddings(store: Store) -> None:
    store.upsert(rows("a", "b"), vectors(2))
    before = contents(store)
    assert store.patch([{"id": "a", "uri": "/moved"}, {"id": "nobody", "uri": "/x"}]) == 1
    assert contents(store) == before
    assert store.scan(["uri"], where="id = 'a'")[1].column("uri").to_pylist() == ["/moved"]


def test_take_returns_the_order_asked_for(store: Store) -> None:
    names = [f"n{i:02}" for i in range(40)]
    store.upsert(rows(*names), vectors(40))
    store.delete(store.row_ids(where="id IN ('n03', 'n20')"))
    store.compact(force=True)
    row_ids, table = store.scan(["id"])
    pick = np.random.default_rng(1).integers(0, len(row_ids), 25)
    assert store.take(row_ids[pick], ["id"]).column("id").to_pylist() == [
        table.column("id").to_pylist()[i] for i in pick
    ]
    _, matrix = store.embeddings(row_ids[pick])
    everything = contents(store)
    assert matrix.tolist() == [everything[table.column("id").to_pylist()[i]] for i in pick]


def test_delete_quotes_ids(store: Store) -> None:
    store.upsert(rows("it's", "b' OR '1'='1"), vectors(2))
    assert store.delete(store.row_ids(where="uri = '/it''s'")) == 1
    assert list(contents(store)) == ["b' OR '1'='1"]
    assert store.delete(np.zeros(0, np.int64)) == 0


def test_columns_are_added_once_and_can_be_filtered(store: Store) -> None:
    store.upsert(rows("a"), vectors(1))
    store.settle([{"year": 2000}])
    store.settle([{"year": None, "label": "x"}])
    assert store.columns == {"year": pa.int64(), "label": pa.string()}
    store.upsert(rows("b", year=2021), vectors(1))
    assert store.scan(["id"], where="year > 2020")[1].column("id").to_pylist() == ["b"]
    assert store.scan(["id"], where="year IS NULL")[1].column("id").to_pylist() == ["a"]


@pytest.mark.parametrize("where", ["nope = 3", "year = = 3", "DROP TABLE x"])
def test_a_bad_filter_says_which_columns_there_are(store: Store, where: str) -> None:
    with pytest.raises(FilterError, match=r"columns here: id, uri, sha256, kind, bytes, mtime_ns"):
        store.row_ids(where=where)


def test_latest_sees_what_another_handle_committed(tmp_path: Path, store: Store) -> None:
    other = Store.open(tmp_path / "items.lance")
    assert other.latest() is other
    store.upsert(rows("a"), vectors(1))
    assert len(other) == 0
    assert len(other.latest()) == 1


def test_iter_embeddings_covers_every_row_once(store: Store) -> None:
    for start in range(0, 50, 10):
        store.upsert(rows(*(f"{i}" for i in range(start, start + 10))), vectors(10, seed=start))
    chunks = list(store.iter_embeddings(rows=7))
    assert max(len(ids) for ids, _ in chunks) <= 7
    ids, matrix = store.embeddings()
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in chunks]), ids)
    np.testing.assert_array_equal(np.concatenate([part for _, part in chunks]), matrix)


def test_compact_keeps_rows_ids_and_versions_of_change(store: Store) -> None:
    for i in range(20):
        store.upsert(rows(f"{i}"), vectors(1, seed=i))
    changed = store.version
    store.upsert(rows("3"), vectors(1, seed=99))
    before, row_ids = contents(store), store.row_ids(since=changed)
    store.compact()
    assert contents(store) == before
    np.testing.assert_array_equal(store.row_ids(since=changed), row_ids)


def test_purge_leaves_no_byte(tmp_path: Path, store: Store) -> None:
    secret = "a-name-that-must-go"
    marked = np.full((1, DIM), 0.333, np.float16)
    store.upsert(rows("keep"), vectors(1))
    store.upsert(rows(secret), marked)
    store.delete(store.row_ids(where=f"id = '{secret}'"))

    def traces() -> list[Path]:
        files = [path for path in (tmp_path / "items.lance").rglob("*") if path.is_file()]
        return [path for path in files for data in [path.read_bytes()] if secret.encode() in data]

    assert traces(), "the test must be able to see what purge removes"
    store.purge()
    assert traces() == []
    assert list(contents(store.latest())) == ["keep"]


def test_open_refuses_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(CollectionFormatError, match="not a readable item store"):
        Store.open(tmp_path / "nothing.lance")


def _upsert_many(path: Path, seed: int, barrier: object) -> None:
    store = Store.open(path)
    barrier.wait()  # type: ignore[attr-defined]
    for start in range(0, 200, 20):
        store.upsert(rows(*(f"{i}" for i in range(start, start + 20))), vectors(20, seed=seed))
        store.settle([{f"c{start}": 1}])


def test_concurrent_writers_leave_no_duplicate(tmp_path: Path, store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    writers = [
        context.Process(target=_upsert_many, args=(tmp_path / "items.lance", seed, barrier)) for seed in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    names = store.latest().scan(["id"])[1].column("id").to_pylist()
    assert sorted(names, key=int) == [f"{i}" for i in range(200)]
    assert sorted(store.latest().columns) == sorted(f"c{i}" for i in range(0, 200, 20))


def test_a_full_disk_keeps_what_was_committed(small_disk: Path) -> None:
    store = Store.create(small_disk / "items.lance", dim=DIM)
    store.upsert(rows("a"), vectors(1))
    with pytest.raises(StorageError, match="free some space and run the same again"):
        store.upsert(rows(*(f"{i}" for i in range(60_000))), vectors(60_000))
    again = Store.open(small_disk / "items.lance")
    assert list(contents(again)) == ["a"]
    again.upsert(rows("b"), vectors(1))
    assert sorted(contents(again)) == ["a", "b"]


def test_a_refused_write_keeps_what_was_committed(store: Store) -> None:
    store.upsert(rows("a"), vectors(1))
    old_handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    old_limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old_limit[1]))
    try:
        with pytest.raises(StorageError, match="Everything committed before is kept"):
            store.upsert(rows(*(f"{i}" for i in range(5000))), vectors(5000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old_limit)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert list(contents(store.latest())) == ["a"]


def test_compaction_gives_way_to_writers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process deletes while fragments are merged: tried again, and put off where that goes on."""
    rng = np.random.default_rng(0)
    store = Store.create(tmp_path / "items.lance", dim=4)
    for i in range(6):
        store.upsert([{"id": f"{i}-{j}"} for j in range(5)], rng.normal(size=(5, 4)))
    other, times, left = Store.open(tmp_path / "items.lance"), [], 1
    optimizer = type(store.dataset.optimize)
    compact_files = optimizer.compact_files

    def interfere(self: object, **options: object) -> object:
        times.append(1)
        if len(times) <= left:
            # The handle that compacts is of the version before.
            other.delete(other.row_ids()[:1])
        return compact_files(self, **options)

    monkeypatch.setattr(optimizer, "compact_files", interfere)
    store.compact(force=True)
    assert len(times) == 2
    assert len(Store.open(tmp_path / "items.lance").dataset.get_fragments()) == 1
    assert len(store) == 29
    for i in range(3):
        store.upsert([{"id": f"again-{i}"}], rng.normal(size=(1, 4)))
    times.clear()
    left = 100
    other = Store.open(tmp_path / "items.lance")
    store.compact(force=True)
    assert len(times) == 10
    with pytest.raises(StorageError, match="while other processes write"):
        store.purge()
