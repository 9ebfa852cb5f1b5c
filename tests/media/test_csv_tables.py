"""Delimited tables as spreadsheets, databases and data sets write them."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest

from mmalign.errors import SourceError
from mmalign.media.sources import open_source
from mmalign.media.tables import read_table, table_suffix
from mmalign.types import Item, Note, Skip


def table(folder: Path, content: str | bytes, name: str = "t.csv") -> list[Item | Skip | Note]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(open_source(path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt"])
def test_the_delimiter_is_found_in_the_header(delimiter: str, name: str, tmp_path: Path) -> None:
    rows = [["Image", "title", "n"], ["a.jpg", "x", "1"], ["b.jpg", "y", "2"]]
    found = table(tmp_path, "\n".join(map(delimiter.join, rows)) + "\n", name)
    assert found == [
        Item(f"{tmp_path}/a.jpg", metadata={"title": "x", "n": 1}),
        Item(f"{tmp_path}/b.jpg", metadata={"title": "y", "n": 2}),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "sep=;\npath;title\na.jpg;x, y | z\n",
        '"sep=;"\r\npath;title\r\na.jpg;x, y | z\r\n',
        "\ufeffpath;title\na.jpg;x, y | z\n",
        "\ufeffsep=;\r\npath;title\r\na.jpg;x, y | z\r\n",
        "\n\n  \npath;title\n\na.jpg;x, y | z\n\n;\n;;;\n",
        "path;title;;\na.jpg;x, y | z;;\n",
        "path ; title\na.jpg;x, y | z;;\n",
        '"path";"title"\n"a.jpg";"x, y | z"\n',
        "path;title\ra.jpg;x, y | z\r",
        "path;title, or what it is called\na.jpg;x, y | z".replace(", or what it is called", ""),
    ],
)
def test_forms_of_one_table(text: str, tmp_path: Path) -> None:
    assert table(tmp_path, text) == [Item(f"{tmp_path}/a.jpg", metadata={"title": "x, y | z"})]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_other_delimiters_in_the_text_do_not_mislead(delimiter: str, tmp_path: Path) -> None:
    others = [mark for mark in ",;|\t" if mark != delimiter]
    text = f"path{delimiter}caption\n" + "".join(f"{n}.jpg{delimiter}{''.join(others)} x{n}\n" for n in range(60))
    found = table(tmp_path, text)
    assert [entry.captions for entry in found if isinstance(entry, Item)] == [
        (f"{''.join(others)} x{n}".strip(),) for n in range(60)
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_with_a_mark_of_their_own(encoding: str, tmp_path: Path) -> None:
    text = "image\ttitle\r\ngrün.jpg\tJörg\r\nb.jpg\t日本\r\n"
    expected = [
        Item(f"{tmp_path}/grün.jpg", metadata={"title": "Jörg"}),
        Item(f"{tmp_path}/b.jpg", metadata={"title": "日本"}),
    ]
    for name in ("t.csv", "t.tsv"):
        assert table(tmp_path, text.encode(encoding), name) == expected
    json = '[{"image": "grün.jpg", "title": "Jörg"}, {"image": "b.jpg", "title": "日本"}]'
    assert table(tmp_path, json.encode(encoding), "t.json") == expected


def test_text_that_is_not_utf8_costs_its_row_and_names_the_remedy(tmp_path: Path) -> None:
    first, second, third = table(tmp_path, "path,caption\na.jpg,ok\nb.jpg,café\nc.jpg,ok\n".encode("latin-1"))
    assert isinstance(first, Item)
    assert isinstance(third, Item)
    assert second == Skip(f"{tmp_path}/t.csv:3", "column 'caption' is not UTF-8; save the table as UTF-8")
    with pytest.raises(SourceError, match="the header is not UTF-8; save the table as UTF-8"):
        table(tmp_path, "path,größe\na.jpg,1\n".encode("latin-1"))


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".gz", bytes)]
)
def test_compressed_tables_are_read(suffix: str, pack: Any, tmp_path: Path) -> None:
    assert table(tmp_path, pack(b"image,n\na.jpg,1\n"), f"T.CSV{suffix}") == [
        Item(f"{tmp_path}/a.jpg", metadata={"n": 1})
    ]
    assert table(tmp_path, pack(b'{"image": "a.jpg", "n": 1}\n'), f"t.jsonl{suffix}") == [
        Item(f"{tmp_path}/a.jpg", metadata={"n": 1})
    ]
    assert table_suffix("a.parquet.gz") == ""


def test_a_compressed_table_that_was_cut_off_is_an_error(tmp_path: Path) -> None:
    whole = gzip.compress(b"image,caption\n" + b"".join(b"%d.jpg,text %d\n" % (n, n * n) for n in range(9999)))
    with pytest.raises(SourceError, match=r"t.csv.gz (cannot be read|cannot be unpacked)"):
        table(tmp_path, whole[: len(whole) // 2], "t.csv.gz")


def test_columns_without_a_name_are_told(tmp_path: Path) -> None:
    # As pandas writes its index.
    note, item = table(tmp_path, ",image,n\n0,a.jpg,5\n")
    assert item == Item(f"{tmp_path}/a.jpg", metadata={"n": 5})
    assert isinstance(note, Note)
    assert str(note) == "column 1 has no name in the header and is left out; give it a name to keep it"
    assert note.about == f"{tmp_path}/t.csv:2"


@pytest.mark.parametrize("marker", ["N/A", "NA", "n/a", "#N/A", "NaN", "null", "NULL", "None", "-", "?"])
def test_a_marker_of_no_value_costs_its_cell_not_the_column(marker: str, tmp_path: Path) -> None:
    note, *items = table(tmp_path, f"path,zip,ok\na.jpg,12345,true\nb.jpg,{marker},true\nc.jpg,7,false\n")
    assert [item.metadata for item in items if isinstance(item, Item)] == [
        {"zip": 12345, "ok": True},
        {"zip": None, "ok": True},
        {"zip": 7, "ok": False},
    ]
    assert isinstance(note, Note)
    assert str(note) == f"column 'zip' holds numbers: {marker!r} at line 3 is kept as no value"
    assert note.about == f"{tmp_path}/t.csv:3"


def test_markers_in_text_are_text(tmp_path: Path) -> None:
    found = table(tmp_path, "path,who,all\na.jpg,Ann,N/A\nb.jpg,N/A,N/A\n")
    assert [entry.metadata for entry in found if isinstance(entry, Item)] == [
        {"who": "Ann", "all": "N/A"},
        {"who": "N/A", "all": "N/A"},
    ]


def test_many_markers_are_one_note(tmp_path: Path) -> None:
    rows = "".join(f"{n}.jpg,{n if n % 2 else 'N/A'}\n" for n in range(100))
    notes = [entry for entry in table(tmp_path, "path,n\n" + rows) if isinstance(entry, Note)]
    assert [str(note) for note in notes] == [
        "column 'n' holds numbers: 'N/A' at line 2 (and 49 more like it) is kept as no value"
    ]


def test_nul_bytes_cost_their_row(tmp_path: Path) -> None:
    first, second = table(tmp_path, b"path,caption\na\0.jpg,x\nb.jpg,y\n")
    assert isinstance(first, Skip)
    assert "NUL" in first.reason
    assert second == Item(f"{tmp_path}/b.jpg", captions=("y",))


def test_flickr8k_as_kaggle_hands_it_out(tmp_path: Path) -> None:
    (tmp_path / "Images").mkdir()
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / "Images" / name).write_bytes(b"x")
    found = table(tmp_path, 'image,caption\n1.jpg,A dog .\n1.jpg,"A dog , running ."\n2.jpg,A cat .\n', "captions.txt")
    assert [entry for entry in found if isinstance(entry, Item)] == [
        Item(f"{tmp_path}/Images/1.jpg", captions=("A dog .",)),
        Item(f"{tmp_path}/Images/1.jpg", captions=("A dog , running .",)),
        Item(f"{tmp_path}/Images/2.jpg", captions=("A cat .",)),
    ]
    assert [str(entry) for entry in found if isinstance(entry, Note)] == [
        f"pictures that are not beside the table are taken from {tmp_path}/Images"
    ]


@pytest.mark.parametrize("name", ["Flickr8k.token.txt", "results_20130124.token"])
def test_numbered_captions(name: str, tmp_path: Path) -> None:
    found = table(tmp_path, '1.jpg#0\tA dog .\n1.jpg#1\tIt\'s "it" .\n\n2.jpg.1#0\tA cat .\nodd\n', name)
    assert found == [
        Item(f"{tmp_path}/1.jpg", captions=("A dog .",)),
        Item(f"{tmp_path}/1.jpg", captions=('It\'s "it" .',)),
        Item(f"{tmp_path}/2.jpg.1", captions=("A cat .",)),
        Skip(f"{tmp_path}/{name}:5", "expected a picture's name, '#', a number, a tab and a caption, got 'odd'"),
    ]


def test_flickr30k_results(tmp_path: Path) -> None:
    text = "image_name| comment_number| comment\n1.jpg| 0| Two men , outside .\n1.jpg| 4   A dog .\n2.jpg| 0| A cat .\n"
    assert table(tmp_path, text, "results.csv") == [
        Item(f"{tmp_path}/1.jpg", captions=("Two men , outside .",)),
        Skip(f"{tmp_path}/results.csv:3", "has 2 fields, the header has 3"),
        Item(f"{tmp_path}/2.jpg", captions=("A cat .",)),
    ]


def test_a_list_of_paths_stays_a_list(tmp_path: Path) -> None:
    lines = ["a.jpg", "sub/b, c.jpg", "it;em|x.jpg", "d#0.jpg"]
    for first in lines:
        text = "\n".join([first, *lines]) + "\n"
        assert table(tmp_path, text, "l.txt") == [Item(f"{tmp_path}/{name}") for name in [first, *lines]]
    # A file may even be called as a header is.
    (tmp_path / "image,caption").write_bytes(b"x")
    assert table(tmp_path, "image,caption\na.jpg\n", "l.txt") == [
        Item(f"{tmp_path}/image,caption"),
        Item(f"{tmp_path}/a.jpg"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_as_windows_writes_them(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "grün.jpg").write_bytes(b"x")
    found = table(tmp_path, "sub\\grün.jpg\r\nb.jpg\r\n".encode(encoding), "l.txt")
    assert [entry for entry in found if isinstance(entry, Item)] == [
        Item(f"{tmp_path}/sub/grün.jpg"),
        Item(f"{tmp_path}/b.jpg"),
    ]
    assert [str(entry) for entry in found if isinstance(entry, Note)] == ["paths with \\ are read with /"]


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("shard.tar", "unpack it: tar -xf"),
        ("book.xlsx", "save the sheet as CSV UTF-8"),
        ("set.arrow", "save it as Parquet"),
        ("set.feather", "save it as Parquet"),
        ("set.zip", "unpack it"),
        ("t.jsonl.zst", "unpack it"),
        ("t.db", "export a CSV"),
        ("t.pkl", "save it as Parquet or CSV"),
    ],
)
def test_formats_that_are_not_read_name_the_way_out(name: str, way_out: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=way_out):
        table(tmp_path, b"x", name)


def test_a_table_reads_itself_by_another_suffix_when_told(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("image\na.jpg\n")
    assert list(read_table(path, suffix=".csv")) == [Item(f"{tmp_path}/a.jpg")]
