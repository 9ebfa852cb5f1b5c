"""What a source gave it can take away; what another source or the user gave stays."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmalign.collection.collection import Collection
from mmalign.types import Item
from tests.collection.ingest.test_run import counts
from tests.tools.color_encoder import ColorEncoder, OtherColorEncoder, paint

Row = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, color in enumerate(("red", "green", "blue")):
        paint(tmp_path / "photos" / f"{color}.png", color, detail=i)
    return tmp_path / "photos"


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.create(tmp_path / "photos.mm", encoder=ColorEncoder())


def shown(collection: Collection, name: str = "red") -> Row:
    """What the collection says of a picture beside its bytes."""
    columns = ["uri", "captions", *collection.columns]
    _, table = collection.snapshot().scan(columns)
    [row] = [row for row in table.to_pylist() if Path(row["uri"]).stem == name]
    return {column: value for column, value in row.items() if column != "uri" and value is not None}


def item_id(collection: Collection, name: str = "red") -> str:
    _, table = collection.snapshot().scan(["id", "uri"])
    [found] = [row["id"] for row in table.to_pylist() if Path(row["uri"]).stem == name]
    return str(found)


def add(collection: Collection, source: Any, **options: Any) -> Row:
    told = counts(collection.add(source, progress=False, **options))
    return {name: value for name, value in told.items() if name not in ("encoded", "notes")}


def write_lines(path: Path, rows: list[Row]) -> None:
    path.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_json(path: Path, rows: list[Row]) -> None:
    path.with_suffix(".json").write_text(json.dumps(rows), encoding="utf-8")


def write_csv(path: Path, rows: list[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


def write_parquet(path: Path, rows: list[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path.with_suffix(".parquet"))


@pytest.mark.parametrize("write", [write_lines, write_json, write_csv, write_parquet])
def test_a_table_takes_away_what_it_gave(
    collection: Collection, folder: Path, write: Callable[[Path, list[Row]], None]
) -> None:
    rows: list[Row] = [
        {"path": f"{color}.png", "caption": f"a {color} thing", "year": 2000 + i, "mood": color[0]}
        for i, color in enumerate(("red", "green", "blue"))
    ]
    write(folder / "t", rows)
    [table] = folder.glob("t.*")
    assert add(collection, table) == {"added": 3}
    assert shown(collection) == {"captions": ["a red thing"], "year": 2000, "mood": "r"}
    rows[0] |= {"caption": None, "mood": None}
    write(folder / "t", rows)
    assert add(collection, table) == {"unchanged": 2, "updated": 1}
    assert shown(collection) == {"year": 2000}
    assert shown(collection, "green") == {"captions": ["a green thing"], "year": 2001, "mood": "g"}
    write(folder / "t", [{"path": row["path"], "mood": row["mood"]} for row in rows])
    assert add(collection, table) == {"updated": 3}
    assert (shown(collection), shown(collection, "green")) == ({}, {"mood": "g"})
    write(folder / "t", [{"path": row["path"]} for row in rows])
    assert add(collection, table) == {"unchanged": 1, "updated": 2}
    assert [shown(collection, color) for color in ("red", "green", "blue")] == [{}] * 3
    assert add(collection, table) == {"unchanged": 3}
    assert len(collection.search_captions("red")) == 0


def test_one_of_two_captions_goes(collection: Collection, folder: Path) -> None:
    table = folder / "t.csv"
    table.write_text("path,caption\nred.png,one\nred.png,two\n")
    add(collection, table)
    assert shown(collection) == {"captions": ["one", "two"]}
    table.write_text("path,caption\nred.png,two\n")
    assert add(collection, table) == {"updated": 1}
    assert shown(collection) == {"captions": ["two"]}


@pytest.mark.parametrize("end", ["", "\n \n", None])
def test_a_text_beside_a_picture_takes_away_its_captions(collection: Collection, folder: Path, end: str | None) -> None:
    text = folder / "red.txt"
    text.write_text("private words\nmore words\n")
    add(collection, folder)
    assert shown(collection) == {"captions": ["private words", "more words"]}
    if end is None:
        text.unlink()
    else:
        text.write_text(end)
    # Whichever way the picture is named.
    assert add(collection, f"{folder}/*.png") == {"unchanged": 2, "updated": 1}
    assert shown(collection) == {}
    assert add(collection, folder) == {"unchanged": 3}


def test_a_text_that_cannot_be_read_takes_nothing_away(collection: Collection, folder: Path) -> None:
    (folder / "red.txt").write_text("früh\n", encoding="utf-8")
    add(collection, folder)
    (folder / "red.txt").write_bytes("früh\n".encode("latin-1"))
    report = collection.add(folder, progress=False)
    assert (report.unchanged, report.updated) == (3, 0)
    assert "captions left out: the text is not UTF-8" in report.skipped[0].reason
    assert shown(collection) == {"captions": ["früh"]}


def test_a_folder_takes_nothing_from_a_table_nor_one_table_from_another(collection: Collection, folder: Path) -> None:
    one, two = folder / "one.jsonl", folder / "two.jsonl"
    write_lines(one, [{"path": "red.png", "caption": "of one", "year": 1}])
    write_lines(two, [{"path": "red.png", "mood": "of two"}, {"path": "blue.png", "mood": "blue"}])
    add(collection, one)
    add(collection, two)
    add(collection, folder)
    everything = {"captions": ["of one"], "year": 1, "mood": "of two"}
    assert shown(collection) == everything
    for source in (one, two, folder, f"{folder}/*.png", [folder / "red.png"]):
        assert "updated" not in add(collection, source)
    write_lines(one, [{"path": "red.png"}])
    assert add(collection, one) == {"updated": 1}
    assert shown(collection) == {"mood": "of two"}
    # A row that is gone takes nothing away: the next table of the same name may hold the next pictures.
    write_lines(two, [{"path": "blue.png", "mood": "blue"}])
    assert add(collection, two) == {"unchanged": 1}
    assert shown(collection) == {"mood": "of two"}


def test_the_last_to_give_a_column_owns_it(collection: Collection, folder: Path) -> None:
    one, two = folder / "one.jsonl", folder / "two.jsonl"
    write_lines(one, [{"path": "red.png", "year": 1}])
    write_lines(two, [{"path": "red.png", "year": 2}])
    for table, year in ((one, 1), (two, 2), (one, 1), (two, 2)):
        add(collection, table)
        assert shown(collection) == {"year": year}
    write_lines(one, [{"path": "red.png"}])
    add(collection, one)
    assert shown(collection) == {"year": 2}, "it is the other table's"


def test_what_update_set_stays(collection: Collection, folder: Path) -> None:
    table = folder / "t.jsonl"
    write_lines(table, [{"path": "red.png", "caption": "of the table", "year": 1, "mood": "x"}])
    (folder / "green.txt").write_text("of the text")
    add(collection, table)
    add(collection, folder)
    for name in ("red", "green"):
        collection.update([item_id(collection, name)], {"captions": ["mine"], "stars": 5})
    collection.update([item_id(collection)], {"mood": None})
    assert add(collection, table) == {"unchanged": 1}
    write_lines(table, [{"path": "red.png", "caption": "another", "year": 2, "mood": "y", "stars": 1}])
    report = collection.add(table, progress=False)
    assert report.updated == 1
    assert "1 item keeps what `update` set, where the source says otherwise now" in report.notes[0]
    assert shown(collection) == {"captions": ["mine"], "stars": 5, "year": 2}
    (folder / "green.txt").unlink()
    write_lines(table, [{"path": "red.png"}])
    add(collection, table)
    add(collection, folder)
    assert shown(collection) == {"captions": ["mine"], "stars": 5}
    assert shown(collection, "green") == {"captions": ["mine"], "stars": 5}
    paint(folder / "red.png", "red", detail=77)
    (folder / "green.png").rename(folder / "moved.png")
    assert add(collection, folder) == {"unchanged": 1, "updated": 1, "moved": 1}
    assert shown(collection) == shown(collection, "moved") == {"captions": ["mine"], "stars": 5}
    # The way back: out, and in again.
    write_lines(table, [{"path": "red.png", "caption": "of the table"}])
    collection.remove([item_id(collection)])
    assert add(collection, table, restore=True) == {"added": 1}
    assert shown(collection) == {"captions": ["of the table"]}


def test_metadata_of_the_call_stays(collection: Collection, folder: Path) -> None:
    table = folder / "t.jsonl"
    write_lines(table, [{"path": "red.png", "year": 1}])
    add(collection, table, metadata={"album": "first", "width": 3})
    assert shown(collection) == {"year": 1, "album": "first", "width_": 3}
    assert add(collection, table) == {"unchanged": 1}
    assert add(collection, table, metadata={"album": "first", "width": 3}) == {"unchanged": 1}
    write_lines(table, [{"path": "red.png"}])
    add(collection, table)
    add(collection, folder)
    assert shown(collection) == {"album": "first", "width_": 3}
    assert add(collection, table, metadata={"album": "second"}) == {"updated": 1}
    assert shown(collection)["album"] == "second"


def test_rows_from_python_are_one_source(collection: Collection, folder: Path) -> None:
    path = str(folder / "red.png")
    add(collection, [{"path": path, "caption": "a", "year": 1}])
    add(collection, [path])
    assert shown(collection) == {"captions": ["a"], "year": 1}
    assert add(collection, {"path": path, "year": None, "caption": "a"}) == {"updated": 1}
    assert add(collection, [Item(path)]) == {"updated": 1}
    assert shown(collection) == {}


def test_an_edited_or_moved_picture_takes_its_changes_along(collection: Collection, folder: Path) -> None:
    (folder / "red.txt").write_text("one")
    (folder / "blue.txt").write_text("two")
    add(collection, folder)
    paint(folder / "red.png", "red", detail=88)
    (folder / "red.txt").unlink()
    (folder / "blue.png").rename(folder / "azure.png")
    assert add(collection, folder) == {"unchanged": 1, "updated": 1, "moved": 1}
    assert shown(collection) == shown(collection, "azure") == {}


def test_what_an_earlier_version_kept_is_taken_over(collection: Collection, folder: Path) -> None:
    """Earlier versions kept a digest alone, here as `_said` of theirs made it."""
    import hashlib

    table = folder / "t.jsonl"
    write_lines(table, [{"path": "red.png", "caption": "a", "year": 1}])
    (folder / "green.txt").write_text("words")
    add(collection, table)
    add(collection, folder)
    store = collection._current().writer()
    earlier = {
        "red": [["a"], {"year": 1}],
        "green": [["words"], {}],
    }
    digests = {
        name: hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()
        for name, value in earlier.items()
    }
    store.patch([{"id": item_id(collection, name), "said": digest} for name, digest in digests.items()])
    before = {name: shown(collection, name) for name in earlier}
    assert add(collection, folder) == {"unchanged": 3}
    assert add(collection, table) == {"unchanged": 1}
    assert {name: shown(collection, name) for name in earlier} == before
    write_lines(table, [{"path": "red.png", "year": 1}])
    (folder / "green.txt").unlink()
    assert add(collection, table) == {"updated": 1}
    assert add(collection, folder) == {"unchanged": 2, "updated": 1}
    assert (shown(collection), shown(collection, "green")) == ({"year": 1}, {})


def test_rows_with_a_column_each_are_one_commit(collection: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    for i in range(30):
        paint(folder / f"{i}.png", "red", detail=i)
    table = folder / "t.jsonl"
    rows: list[Row] = [{"path": f"{i}.png", f"a{i}": i, "all": i} for i in range(30)]
    write_lines(table, rows)
    add(collection, table)
    version = collection.snapshot().version
    write_lines(table, [{"path": row["path"], f"a{i}": -i, f"b{i % 7}": i} for i, row in enumerate(rows)])
    assert add(collection, table) == {"updated": 30}
    for i in range(30):
        assert shown(collection, str(i)) == {f"a{i}": -i, f"b{i % 7}": i}
    assert collection.snapshot().version - version < 12


def test_encoding_anew_keeps_who_gave_what(collection: Collection, folder: Path) -> None:
    (folder / "red.txt").write_text("words")
    add(collection, folder)
    collection.update([item_id(collection, "green")], {"captions": ["mine"]})
    collection.reencode(OtherColorEncoder(), progress=False)
    (folder / "red.txt").unlink()
    (folder / "green.txt").write_text("not mine")
    assert add(collection, folder) == {"unchanged": 2, "updated": 1}
    assert (shown(collection), shown(collection, "green")) == ({}, {"captions": ["mine"]})


def test_a_damaged_record_is_said_again(collection: Collection, folder: Path) -> None:
    (folder / "red.txt").write_text("words")
    add(collection, folder)
    collection._current().writer().patch([{"id": item_id(collection), "said": '{"txt":'}])
    add(collection, folder)
    (folder / "red.txt").unlink()
    assert add(collection, folder) == {"unchanged": 2, "updated": 1}
    assert shown(collection) == {}
