from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from mmalign.errors import SourceError
from mmalign.media.tables import TABLE_SUFFIXES, read_table
from mmalign.types import Item, Note, Skip

ROWS = [
    {"image": "a.jpg", "caption": "a dog, a ball", "year": 2020, "score": 0.5, "good": True, "who": "Ann"},
    {"image": "sub/b.jpg", "caption": 'two\nlines "quoted"', "year": 1999, "score": 2.0, "good": False, "who": "Jörg"},
    {"image": "http://x/c.jpg", "caption": "", "year": None, "score": None, "good": None, "who": None},
]


def quoted(value: Any) -> str:
    if value is None:
        return ""
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',;\t"\n') else text


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"table{suffix}"
    if suffix in {".jsonl", ".ndjson"}:
        path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    elif suffix == ".json":
        path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8")
    elif suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        mark = "\t" if suffix == ".tsv" else ","
        lines = [mark.join(ROWS[0]), *(mark.join(map(quoted, row.values())) for row in ROWS)]
        path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8", newline="")
    return path


def entries(path: Path) -> list[Item | Skip | Note]:
    return list(read_table(path))


def metadata(path: Path) -> list[dict[str, Any]]:
    found = entries(path)
    assert all(isinstance(entry, Item) for entry in found), found
    return [dict(entry.metadata) for entry in found if isinstance(entry, Item)]


@pytest.mark.parametrize("suffix", sorted(TABLE_SUFFIXES))
def test_every_kind_of_table_gives_the_same_items(suffix: str, tmp_path: Path) -> None:
    expected = [
        Item(
            row["image"] if "://" in str(row["image"]) else f"{tmp_path}/{row['image']}",  # type: ignore[arg-type]
            captions=(str(row["caption"]),) if row["caption"] else (),
            metadata={name: row[name] for name in ("year", "score", "good", "who")},
        )
        for row in ROWS
    ]
    found = entries(write(tmp_path, suffix))
    assert found == expected
    kinds = [type(value) for value in found[0].metadata.values()]  # type: ignore[union-attr]
    assert kinds == [int, float, bool, str]


def test_a_broken_json_line_is_a_skip_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('\ufeff{"image": "a.jpg"}\n{"image": \n[1]\n\n{"image": "b.jpg", "n": NaN}\n', encoding="utf-8")
    first, broken, other, last = entries(path)
    assert first == Item(f"{tmp_path}/a.jpg")
    assert isinstance(broken, Skip)
    assert broken.uri == f"{path}:2"
    assert broken.reason.startswith("not valid JSON: ")
    assert other == Skip(f"{path}:3", "expected a JSON object, got [1]")
    assert last == Item(f"{tmp_path}/b.jpg", metadata={"n": None})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "m.jsonl",
            b"hello\nworld\n",
            r"m.jsonl names no picture; the first problem is at .*m.jsonl:1: not valid JSON",
        ),
        ("m.jsonl", b'{"n": 1}\n', "the columns are 'n'; name one of them image or path"),
        ("m.jsonl", b"\n\n", "m.jsonl has no rows"),
        ("m.json", b'[{"image": "a.jpg"},\n  oops]', r"m.json:2:3: not valid JSON"),
        ("m.json", b'{"image": "a.jpg"}', "expected a JSON list of objects, got dict; for one a line, use .jsonl"),
        ("m.json", b"[]", "m.json has no rows"),
        ("m.json", b"[" * 100_000, "nested too deeply"),
        ("m.csv", b"a,b\n1,2\n", "the columns are 'a', 'b'; name one of them image or path"),
        ("m.csv", b"image,n\n", "m.csv has no rows"),
        ("m.csv", b"image,n,n\na.jpg,1,2\n", "several columns are named n; rename all but one"),
        ("m.csv", b"\xff\xfei\0m\0a\0g\0e\0\n\0a", "not the text that its first bytes promise"),
        (
            "m.csv",
            b"a.jpg,a dog\nb.jpg,a cat\n",
            r"m.csv has no header: its first line is 'a.jpg,a dog'; put the names",
        ),
        ("m.csv", b"PK\x03\x04" + b"\0" * 40, "is a ZIP archive or an Excel workbook; unpack it, or save"),
        ("m.csv", b"SQLite format 3\0", "is a SQLite database"),
        ("m.jsonl", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS.*git lfs pull"),
        ("m.parquet", b"version https://git-lfs.github.com/spec/v1\n", "pointer of Git LFS.*git lfs pull"),
        ("m.csv.gz", b"\x1f\x8b\x08\0broken", "cannot be unpacked"),
        ("m.json", b'"text"', "expected a JSON list of objects, got str"),
        ("m.json", b'{"a": [1], "b": [2]}', "got dict.*its keys are 'a', 'b'.*COCO"),
        ("m.csv", b'image,n\n"' + b"x" * 200_000 + b'",1\n', "not valid CSV"),
        ("m.parquet", b"PAR1 but not really", "not a readable Parquet file"),
        *((f"m{suffix}", b"", "is empty") for suffix in sorted(TABLE_SUFFIXES)),
    ],
)
def test_a_table_that_cannot_be_used_says_why(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        entries(tmp_path / name)


def csv_column(folder: Path, *cells: str, name: str = "x") -> list[Any]:
    path = folder / "c.csv"
    path.write_text(f"path,{name}\n" + "".join(f"a.jpg,{cell}\n" for cell in cells), encoding="utf-8")
    return [row[name] for row in metadata(path)]


def test_csv_columns_are_numbers_only_where_all_their_cells_are(tmp_path: Path) -> None:
    assert csv_column(tmp_path, "1", "", "-20") == [1, None, -20]
    assert csv_column(tmp_path, "1", "2.5", "1e3") == [1.0, 2.5, 1000.0]
    assert csv_column(tmp_path, "true", "False", "") == [True, False, None]
    assert csv_column(tmp_path, "1", "x") == ["1", "x"]
    assert csv_column(tmp_path, "1", "true") == ["1", "true"]
    assert csv_column(tmp_path, "", "") == [None, None]


def test_csv_cells_that_a_number_would_change_stay_text(tmp_path: Path) -> None:
    for cells in (["007", "008"], ["+1"], ["12345678901234567890"], ["nan"], ["inf"], ["1_000"], ["1e999"], ["0x10"]):
        assert csv_column(tmp_path, *cells) == cells
    assert csv_column(tmp_path, str(2**63 - 1), str(-(2**63))) == [2**63 - 1, -(2**63)]


def test_csv_ids_and_captions_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("path,id,caption\n1,2,1984\n")
    assert entries(path) == [Item(f"{tmp_path}/1", id="2", captions=("1984",))]


def test_csv_rows_of_another_length_are_skips(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text('path,n\na.jpg,1\n\nb.jpg\nc.jpg,2,3\n"d\n.jpg",4\n')
    first, short, long, last = entries(path)
    assert first == Item(f"{tmp_path}/a.jpg", metadata={"n": 1})
    assert short == Skip(f"{path}:4", "has 1 fields, the header has 2")
    assert long == Skip(f"{path}:5", "has 3 fields, the header has 2")
    assert last == Item(f"file://{tmp_path}/d%0A.jpg", metadata={"n": 4})


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("\ufeffimage;title;\r\na.jpg;ein, zwei;\r\n", encoding="utf-8", newline="")
    assert entries(path) == [Item(f"{tmp_path}/a.jpg", metadata={"title": "ein, zwei"})]


def test_csv_paths_may_be_any_bytes_but_text_must_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(b"path,note\ncaf\xe9.jpg,ok\nb.jpg,caf\xe9\n")
    first, second = entries(path)
    assert first.uri == f"file://{tmp_path}/caf%E9.jpg"
    assert second == Skip(f"{path}:3", "column 'note' is not UTF-8; save the table as UTF-8")


def test_parquet_drops_pictures_stored_in_the_table_and_reads_all_batches(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": b"x", "path": "in.jpg"}, "raw": b"y", "file_name": f"{n}.jpg", "tags": ["t"], "n": n}
        for n in range(2500)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    found = entries(tmp_path / "p.parquet")
    notes = [entry for entry in found if isinstance(entry, Note)]
    assert [str(note) for note in notes] == [
        "column 'image' holds bytes: it is left out",
        "column 'raw' holds bytes: it is left out",
    ]
    found = [entry for entry in found if not isinstance(entry, Note)]
    assert found == [Item(f"{tmp_path}/{n}.jpg", metadata={"tags": ["t"], "n": n}) for n in range(2500)]


def test_parquet_with_nothing_but_stored_pictures_says_so(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"image": [b"x"], "n": [1]}), tmp_path / "p.parquet")
    with pytest.raises(SourceError, match="the columns are 'n'; name one of them"):
        entries(tmp_path / "p.parquet")


def test_rows_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"image": "a.jpg"}\n')
    with path.open("ab") as file:
        os.truncate(file.fileno(), 1 << 32)
    # A hole of 4 GiB follows: only a lazy reader gets the first row at once.
    assert next(read_table(path)) == Item(f"{tmp_path}/a.jpg")
