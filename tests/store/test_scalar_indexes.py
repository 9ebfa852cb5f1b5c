"""Looking items up by their keys: with scalar indexes, as large collections have them, and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmalign import Collection
from mmalign.errors import DamagedError
from mmalign.store.lance_store import Store
from mmalign.store.scalar_indexes import due_indexes, indexed_columns

DIM = 8
KEYS = ("id", "uri", "sha256")
Row = dict[str, object]


@pytest.fixture
def small_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let collections of twenty items have indexes, and write few rows of them whole."""
    monkeypatch.setattr("mmalign.store.scalar_indexes._WORTHWHILE", 20)
    monkeypatch.setattr("mmalign.store.lookup._LARGE", 20)
    monkeypatch.setattr("mmalign.store.lookup._BLOCK", 16)


def made(number: int, turn: int = 0) -> Row:
    name = f"it's {number}"
    return {"id": name, "uri": f"/p/{number}-{turn}.png", "sha256": f"{number % 50:064x}", "title": f"{name} {turn}"}


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float16)


@pytest.mark.usefixtures("small_indexes")
@pytest.mark.parametrize("seed", range(3))
def test_lookups_agree_with_a_dictionary(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    store = Store.create(tmp_path / "items.lance", dim=DIM)
    store.settle([{"title": "x"}])
    there: dict[str, tuple[Row, list[float]]] = {}
    seen_indexed = False
    for turn in range(40):
        match rng.integers(4):
            case 0:
                rows = [made(int(number), turn) for number in np.unique(rng.integers(0, 200, rng.integers(1, 90)))]
                matrix = vectors(len(rows), turn)
                store.upsert(rows, matrix)
                there |= {str(row["id"]): (row, given) for row, given in zip(rows, matrix.tolist(), strict=True)}
            case 1 if there:
                few = int(rng.integers(1, 4)) if turn % 2 else len(there)
                names = rng.permutation(sorted(there))[:few].tolist()
                assert store.patch([{"id": name, "uri": f"/q/{turn}{name}"} for name in [*names, "no one"]]) == few
                for name in names:
                    there[name] = {**there[name][0], "uri": f"/q/{turn}{name}"}, there[name][1]
            case 2 if there:
                names = rng.permutation(sorted(there))[: rng.integers(1, 30)].tolist()
                assert store.delete(store.match(names)[0]) == len(names)
                there = {name: row for name, row in there.items() if name not in names}
            case _:
                store.compact(force=bool(turn % 3))
        seen_indexed = seen_indexed or indexed_columns(store.dataset) == set(KEYS)
        for handle in (store, store.latest(), Store.open(tmp_path / "items.lance")):
            check(handle, there, rng)
    assert seen_indexed


def check(store: Store, there: dict[str, tuple[Row, list[float]]], rng: np.random.Generator) -> None:
    everything = [row for row, _ in there.values()]
    asked = [made(int(number), int(rng.integers(40))) for number in rng.integers(0, 220, rng.integers(1, 60))]
    asked += [everything[place] for place in rng.permutation(len(everything))[:20]]
    for key in KEYS:
        wanted = {row[key] for row in asked}
        row_ids, table = store.lookup(key, [str(row[key]) for row in asked], ["title", *KEYS])
        found = {row["id"]: row for row in table.to_pylist()}
        assert found == {row["id"]: row for row in everything if row[key] in wanted}
        assert len(found) == table.num_rows == len(row_ids)
        assert store.take(row_ids, ["id"]).column("id").to_pylist() == table.column("id").to_pylist()
        held = [there[name][1] for name in table.column("id").to_pylist()]
        np.testing.assert_array_equal(store.embeddings(row_ids)[1], np.reshape(held, (-1, DIM)))


@pytest.mark.usefixtures("small_indexes")
def test_values_that_no_item_can_hold(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "items.lance", dim=DIM)
    store.upsert([made(number) for number in range(30)], vectors(30, 0))
    store.compact(force=True)
    assert indexed_columns(store.dataset) == set(KEYS)
    for value in ("", "\0", "\ud800", "' OR 1 = 1 --", "it's 3\0"):
        assert store.lookup("id", [value], ["id"])[1].num_rows == 0
    assert store.lookup("id", ["\ud800", "it's 3", "it's 3"], ["id"])[1].to_pylist() == [{"id": "it's 3"}]
    assert store.lookup("id", [], ["id"])[1].num_rows == 0


def test_small_collections_have_none_and_large_ones_keep_theirs_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store.create(tmp_path / "items.lance", dim=DIM)
    store.upsert([made(number) for number in range(100)], vectors(100, 0))
    store.compact(force=True)
    assert indexed_columns(store.dataset) == set()
    assert due_indexes(store.dataset) == {}
    monkeypatch.setattr("mmalign.store.scalar_indexes._WORTHWHILE", 20)
    assert due_indexes(store.dataset) == dict.fromkeys(KEYS, False)
    store.compact()
    assert indexed_columns(store.dataset) == set(KEYS)
    store.upsert([made(number) for number in range(100, 115)], vectors(15, 1))
    assert due_indexes(store.dataset) == {}
    store.upsert([made(number) for number in range(115, 130)], vectors(15, 2))
    assert due_indexes(store.dataset) == dict.fromkeys(KEYS, True)
    store.compact()
    assert due_indexes(store.dataset) == {}
    assert store.lookup("id", ["it's 129"], ["id"])[1].num_rows == 1


@pytest.mark.usefixtures("small_indexes")
def test_a_damaged_index_is_left_alone_and_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "items.lance"
    store = Store.create(path, dim=DIM)
    store.upsert([made(number) for number in range(100)], vectors(100, 0))
    store.compact(force=True)
    for file in (path / "_indices").rglob("page_data.lance"):
        data = bytearray(file.read_bytes())
        for place in range(0, len(data), 7):
            data[place] ^= 1
        file.write_bytes(data)
    # As another process finds it.
    monkeypatch.setattr("mmalign.store.version_checksums._sound", {})
    store = Store.open(path)
    assert indexed_columns(store.dataset) == set()
    for number in range(100):
        assert store.lookup("id", [f"it's {number}"], ["uri"])[1].to_pylist() == [{"uri": f"/p/{number}-0.png"}]
    assert store.upsert([made(5, 1), made(100, 1)], vectors(2, 1)) == 1
    store.compact()
    assert indexed_columns(store.dataset) == set(KEYS)
    assert sorted(store.lookup("id", ["it's 5", "it's 100"], ["id"])[1].column("id").to_pylist()) == [
        "it's 100",
        "it's 5",
    ]


@pytest.mark.usefixtures("small_indexes")
def test_a_purge_leaves_no_byte_in_an_index(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    names = [f"secret{number:04}" for number in range(200)]
    collection.add_embeddings(names, vectors(200, 0).astype(np.float32), uris=[f"https://host/{one}" for one in names])

    def files(needle: bytes) -> list[Path]:
        return [path for path in collection.path.rglob("*") if path.is_file() and needle in path.read_bytes()]

    assert any("_indices" in path.parts for path in files(b"secret0077"))
    assert collection.remove(["secret0077"], purge=True) == 1
    assert files(b"secret0077") == []
    assert any("_indices" in path.parts for path in files(b"secret0078"))
    assert collection.has("secret0078")
    assert collection.has("https://host/secret0078")
    assert not collection.has("secret0077")
    assert not collection.has("https://host/secret0077")


@pytest.mark.usefixtures("small_indexes")
def test_what_is_looked_up_is_compared_with_its_checksum_and_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmalign.store.opened._MOST_CHECKED", 20)
    monkeypatch.setattr("mmalign.store.verifying._verified", {})
    collection = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    names = [f"item{number:04}" for number in range(200)]
    titles = [f"the title of {name}" for name in names]
    collection.add_embeddings(names, vectors(200, 0).astype(np.float32), metadata={"title": titles})
    for file in (collection.path / "items.lance" / "data").glob("*.lance"):
        file.write_bytes(file.read_bytes().replace(b"title of item0077", b"title of item0078"))
    again = Collection.open(collection.path)
    assert again.has("item0078")
    assert again.update(["item0078"], {"title": "x"}) == 1
    with pytest.raises(DamagedError, match="item0077"):
        again.has("item0077")
    with pytest.raises(DamagedError, match="item0077"):
        again.update(["item0077"], {"title": "x"})
    assert again.remove(["item0077"]) == 1
