"""Few rows of a large table get other values: as Lance's own merge does it, whatever was done to them before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest

from mmalign.errors import DamagedError
from mmalign.store import row_changes, taking
from mmalign.store.changes import find_changes
from mmalign.store.lance_store import Store

DIM, ROWS = 8, 120


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("mmalign.store.lookup._LARGE", 10)
    monkeypatch.setattr("mmalign.store.scalar_indexes._WORTHWHILE", 10)
    made = Store.create(tmp_path / "items.lance", dim=DIM)
    made.settle([{"year": 1}])
    rng = np.random.default_rng(5)
    for start in range(0, ROWS, 40):
        rows = [{"id": f"i{n}", "uri": f"/{n}", "kind": "image", "year": n} for n in range(start, start + 40)]
        made.upsert(rows, rng.standard_normal((40, DIM)))
    made.keep_indexes()
    return made


def contents(store: Store) -> dict[int, dict[str, Any]]:
    row_ids, table = store.scan(["id", "uri", "year", "embedding"])
    return dict(zip(row_ids.tolist(), table.to_pylist(), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_what_is_replaced_is_what_a_dictionary_says(store: Store, seed: int) -> None:
    draws = np.random.default_rng(seed)
    expected = contents(store)
    for step in range(12):
        chosen = draws.choice(sorted(expected), int(draws.integers(1, 6)), replace=False).tolist()
        # Some twice in a row, so that fragments of few rows lose the last one of these.
        for year in (step, step + 1000):
            if step % 2:
                rows = [{"id": expected[one]["id"], "uri": f"/{year}/{one}", "year": year} for one in chosen]
                assert store.patch([*rows, {"id": "nobody", "uri": "/", "year": 0}]) == len(chosen)
            else:
                made = {"uri": "/{}", "year": year}
                changed = store.edit(
                    np.array(chosen), ["year"], lambda row, made=made: {**made, "uri": f"/was {row['year']}"}
                )
                assert changed == len(chosen)
            for one in chosen:
                was = expected[one]["year"]
                expected[one] |= {"year": year, "uri": f"/{year}/{one}" if step % 2 else f"/was {was}"}
        if step % 3 == 0:
            gone = chosen[0]
            assert store.delete(np.array([gone])) == 1
            del expected[gone]
        assert contents(store) == expected
        # Through the indexes, which know the old places and the old URIs.
        one = chosen[-1]
        for column in ("id", "uri"):
            wanted = expected.get(one, {"id": "-", "uri": "-"})[column]
            same = sorted(row_id for row_id, row in expected.items() if row[column] == wanted)
            assert store.lookup(column, [wanted], ["id"])[0].tolist() == same
    store.verify(most=None)
    store.dataset.validate()
    reopened = Store.open(Path(store.dataset.uri))
    assert contents(reopened) == expected
    reopened.compact(force=True)
    assert contents(reopened) == expected


def test_it_is_the_transaction_of_a_merge(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"i{n}", "year": -n} for n in (3, 50, 51, 119)]
    before = Store.open(Path(store.dataset.uri))
    version = store.version
    store.patch(rows)
    assert store.version == version + 1
    own = store.dataset.read_transaction(store.version).operation
    changes = find_changes(before, store, since=version)
    monkeypatch.setattr(row_changes, "replace_rows", lambda *_: None)
    between = Store.open(Path(store.dataset.uri))
    store.patch(rows)
    other = find_changes(between, store, since=between.version)
    assert changes is not None
    assert other is not None
    assert sorted(changes.written.tolist()) == sorted(other.written.tolist()) == [3, 50, 51, 119]
    assert changes.deleted.size == other.deleted.size == 0
    merged = store.dataset.read_transaction(store.version).operation
    assert isinstance(own, lance.LanceOperation.Update)
    for name in ("fields_modified", "fields_for_preserving_frag_bitmap", "update_mode", "updated_fragment_offsets"):
        assert getattr(own, name) == getattr(merged, name), name


@pytest.mark.parametrize("what", ["patch", "edit"])
def test_rows_that_are_removed_meanwhile_stay_away(store: Store, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    real, path = row_changes.replace_rows, Path(store.dataset.uri)
    raced: list[object] = []

    def race(*given: Any) -> object:
        if not raced:
            Store.open(path).delete(np.array([4]))
        raced.append(real(*given))
        return raced[-1]

    monkeypatch.setattr(row_changes, "replace_rows", race)
    if what == "patch":
        changed = store.patch([{"id": f"i{n}", "year": 7} for n in (4, 5)])
    else:
        changed = store.edit(np.array([4, 5]), ["year"], lambda row: {"year": row["year"] + 2})
    assert raced[0] is None
    assert changed == 1
    assert contents(store)[5]["year"] == 7
    assert 4 not in contents(Store.open(path))
    assert len(Store.open(path)) == ROWS - 1


def test_damage_gets_no_checksum_that_fits_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = taking.read_rows

    def damaged(*given: Any) -> Any:
        table = real(*given)
        place = table.schema.get_field_index("year")
        return table.set_column(place, table.schema.field(place), [[year + 1 for year in table["year"].to_pylist()]])

    monkeypatch.setattr(taking, "read_rows", damaged)
    version = store.version
    for change in (
        lambda: store.patch([{"id": "i1", "uri": "/x"}]),
        lambda: store.edit(np.array([1]), ["year"], lambda row: {"uri": "/x"}),
    ):
        with pytest.raises(DamagedError):
            change()
    assert store.latest().version == version
