"""Delimited text against Python's own csv module as the writer, and stray quotation marks by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.media.csv_records import read_records, split_leniently
from mmalign.media.tables import read_table
from mmalign.types import Item, Note, Skip


def read(folder: Path, text: str | bytes, name: str = "t.csv") -> tuple[list[Item], list[Skip], list[Note]]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = list(read_table(path))
    return (
        [entry for entry in found if isinstance(entry, Item)],
        [entry for entry in found if isinstance(entry, Skip)],
        [entry for entry in found if isinstance(entry, Note)],
    )


def captions(items: list[Item]) -> dict[str, str]:
    return {item.uri.rpartition("/")[2]: "|".join(item.captions) for item in items}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
def test_what_the_csv_module_writes_is_read_back(
    delimiter: str, end: str, quoting: Any, tmp_path: Path, rng: np.random.Generator
) -> None:
    alphabet = ["a", "dog", " ", ",", ";", "|", "\t", '"', '""', "'", "\\", "\n", "é", "5", "."]
    texts = ["".join(rng.choice(alphabet, rng.integers(1, 9))).strip() or "x" for _ in range(300)]
    if end == "\r":
        # The writer quotes only ends of lines that are its own.
        texts = [text.replace("\n", "_") for text in texts]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerow(["image", "title", "n"])
    for at, text in enumerate(texts):
        writer.writerow([f"{at}.jpg", text, at])
    items, skips, notes = read(tmp_path, stream.getvalue().encode())
    assert skips == []
    assert notes == []
    assert [item.metadata["title"] for item in items] == texts
    assert [item.metadata["n"] for item in items] == list(range(300))


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_a_stray_quotation_mark_costs_nothing_but_is_told(delimiter: str, tmp_path: Path) -> None:
    rows = ["path,caption", 'red.png,"red things', "green.png,green things", "blue.png,blue things"]
    text = "\n".join(row.replace(",", delimiter) for row in rows) + "\n"
    items, skips, notes = read(tmp_path, text)
    assert captions(items) == {"red.png": '"red things', "green.png": "green things", "blue.png": "blue things"}
    assert skips == []
    assert [note.about for note in notes] == [f"{tmp_path}/t.csv:2"]
    assert notes[0].text == "line 2 has a quotation mark without a partner, which was read as it stands"
    assert notes[0].remedy


@pytest.mark.parametrize(
    ("lines", "expected", "told"),
    [
        # Two strays: the second would close the first.
        (
            ['a.png,"one', "b.png,two", 'c.png,"three', "d.png,four"],
            {"a.png": '"one', "b.png": "two", "c.png": '"three', "d.png": "four"},
            [2, 4],
        ),
        # The second stray ends a line, where a closing mark would be.
        (
            ['a.png,"one', 'b.png,two"', "c.png,three"],
            {"a.png": '"one', "b.png": 'two"', "c.png": "three"},
            [2],
        ),
        # Properly quoted rows follow.
        (
            ['a.png,"one', '"b.png","two, three"', "c.png,four"],
            {"a.png": '"one', "b.png": "two, three", "c.png": "four"},
            [2],
        ),
        # In the last line, and alone.
        (["a.png,one", 'b.png,"'], {"a.png": "one", "b.png": '"'}, [3]),
        # Text goes on behind the closing mark.
        (['a.png,"Stop" signs', "b.png,two"], {"a.png": '"Stop" signs', "b.png": "two"}, [2]),
        # Inside of a field a mark is a letter, as the standard's readers have it.
        (['a.png,a 5" nail', "b.png,two"], {"a.png": 'a 5" nail', "b.png": "two"}, []),
        # Backslashes before the marks.
        (['a.png,"a \\"red\\" thing"', 'b.png,"\\"two\\""'], {"a.png": 'a "red" thing', "b.png": '"two"'}, []),
        (['a.png,"ends with \\""', "b.png,two"], {"a.png": 'ends with "', "b.png": "two"}, []),
        # A path of Windows is no escape.
        (['a.png,"C:\\dir\\"', "b.png,two"], {"a.png": "C:\\dir\\", "b.png": "two"}, []),
        # Space before the mark.
        (['a.png, "red, blue"', 'b.png, "two"'], {"a.png": "red, blue", "b.png": "two"}, []),
        # Lines of text within quotes, also such as have the delimiter.
        (
            ['a.png,"one', "and, so on", '"', 'b.png,"two', 'three"'],
            {"a.png": "one\nand, so on", "b.png": "two\nthree"},
            [],
        ),
        (['a.png,"a ""quoted""', 'word"', "b.png,two"], {"a.png": 'a "quoted"\nword', "b.png": "two"}, []),
    ],
)  # fmt: skip
def test_quotation_marks_in_csv(lines: list[str], expected: dict[str, str], told: list[int], tmp_path: Path) -> None:
    items, skips, notes = read(tmp_path, "\n".join(["image,caption", *lines]) + "\n")
    assert captions(items) == expected
    assert skips == []
    assert [note.about for note in notes] == [f"{tmp_path}/t.csv:{line}" for line in told]


def test_the_column_of_paths_may_come_last(tmp_path: Path) -> None:
    text = 'caption,path\n"two\nlines",a.png\n"red,b.png\ngreen,c.png\n'
    items, skips, _ = read(tmp_path, text)
    assert captions(items) == {"a.png": "two\nlines", "b.png": '"red', "c.png": "green"}
    assert skips == []


def test_rows_without_endings_are_told_by_their_make(tmp_path: Path) -> None:
    items, skips, _ = read(tmp_path, 'path,caption\nimg/001,"one\nimg/002,two"\nimg/003,three\n')
    assert captions(items) == {"001": '"one', "002": 'two"', "003": "three"}
    assert skips == []


def test_what_nobody_can_know_is_a_skip_that_names_the_lines(tmp_path: Path) -> None:
    items, skips, _ = read(tmp_path, 'path,caption\ncow,moo\ndog,"woof\ncat,miaow"\nhen,cluck\n')
    assert captions(items) == {"cow": "moo", "hen": "cluck"}
    assert [skip.uri for skip in skips] == [f"{tmp_path}/t.csv:3"]
    assert skips[0].reason.startswith(
        "a quotation opens at line 3 and ends at line 4, but line 4 looks like a row of its own"
    )


def test_a_stray_mark_in_a_row_of_another_length_is_a_skip(tmp_path: Path) -> None:
    items, skips, _ = read(tmp_path, 'path,caption\na.png,"red, blue\nb.png,two\n')
    assert captions(items) == {"b.png": "two"}
    assert skips == [
        Skip(
            f"{tmp_path}/t.csv:2",
            "has 3 fields, the header has 2, and a quotation mark has no partner; double it, or take it out",
        )
    ]


def test_many_stray_marks_are_counted(tmp_path: Path) -> None:
    text = "path,caption\n" + "".join(f'{n}.png,"text {n}\n' for n in range(1000))
    items, skips, notes = read(tmp_path, text)
    assert len(items) == 1000
    assert skips == []
    assert len(notes) == 21
    assert str(notes[-1]) == "980 more lines have a quotation mark without a partner"


def test_tsv_is_read_without_quoting_unless_every_mark_is_paired(tmp_path: Path) -> None:
    paired = 'path\tcaption\na.png\t"one\ttwo"\nb.png\t"three\nfour"\n'
    items, _, notes = read(tmp_path, paired, "t.tsv")
    assert captions(items) == {"a.png": "one\ttwo", "b.png": "three\nfour"}
    assert notes == []
    unpaired = 'path\tcaption\na.png\t"one"\nb.png\t"two\nc.png\tthree\n'
    items, skips, notes = read(tmp_path, unpaired, "t.tsv")
    assert captions(items) == {"a.png": '"one"', "b.png": '"two', "c.png": "three"}
    assert skips == []
    assert [note.about for note in notes] == [f"{tmp_path}/t.tsv:3"]
    assert str(notes[0]).startswith("read without quoting: line 3 has a quotation mark without a partner")


def test_tsv_whose_names_or_paths_are_quoted_has_quoting(tmp_path: Path) -> None:
    for header, path in (('"path"\t"caption"', "{}.png"), ("path\tcaption", '"{}.png"')):
        rows = [f'{path.format("a")}\t"one"', f'{path.format("b")}\t"two', f'{path.format("c")}\t"three ""3"""']
        items, skips, notes = read(tmp_path, "\n".join([header, *rows]) + "\n", "t.tsv")
        assert captions(items) == {"a.png": "one", "b.png": '"two', "c.png": 'three "3"'}
        assert skips == []
        assert [note.about for note in notes] == [f"{tmp_path}/t.tsv:3"]


def test_no_tsv_row_is_doubtful(tmp_path: Path) -> None:
    items, skips, _ = read(tmp_path, 'path\tcaption\ncow\tmoo\ndog\t"woof\ncat\tmiaow"\nhen\tcluck\n', "t.tsv")
    assert captions(items) == {"cow": "moo", "dog": '"woof', "cat": 'miaow"', "hen": "cluck"}
    assert skips == []


def test_no_line_is_lost_wherever_a_mark_is_put(tmp_path: Path, rng: np.random.Generator) -> None:
    """One mark anywhere in the rows of a table: each other row is read as it was, or all are told."""
    rows = [f"{n}.png,{text}" for n, text in enumerate(["a dog", "two, cats", "it's", "5 birds", "x", "the end"])]
    rows = [row if row.count(",") == 1 else row.replace(",", ',"', 1) + '"' for row in rows]
    plain, _, _ = read(tmp_path, "\n".join(["path,caption", *rows]) + "\n")
    expected = captions(plain)
    assert len(expected) == 6
    for at, row in enumerate(rows):
        for place in range(len(row) + 1):
            changed = [*rows]
            changed[at] = row[:place] + '"' + row[place:]
            items, skips, _ = read(tmp_path, "\n".join(["path,caption", *changed]) + "\n")
            others = {name: text for name, text in expected.items() if name != f"{at}.png"}
            assert others.items() <= captions(items).items(), changed
            assert len(items) + len(skips) == 6, changed


def test_lenient_splitting_is_the_standards_where_marks_are_paired(rng: np.random.Generator) -> None:
    for _ in range(500):
        cells = ["".join(rng.choice(list('ab ,"'), rng.integers(0, 6))) for _ in range(rng.integers(1, 5))]
        stream = io.StringIO()
        csv.writer(stream, lineterminator="", quoting=csv.QUOTE_ALL).writerow(cells)
        assert split_leniently(stream.getvalue(), ",") == (cells, None)
        assert [record.cells for record in read_records([stream.getvalue()], ",")] == [cells]


def test_the_limit_of_a_field_is_left_as_it_was(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    long = "x" * (before + 1)
    items, skips, _ = read(tmp_path, f'path,caption\na.png,"{long}"\nb.png,{long}\nc.png,ok\n')
    assert captions(items) == {"c.png": "ok"}
    assert [skip.reason for skip in skips] == [f"not valid CSV: a field is longer than {before:,} characters"] * 2
    assert csv.field_size_limit() == before
