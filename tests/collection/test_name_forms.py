"""Names in NFC and NFD, which look alike, through what is done with a collection."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from mmalign import Collection
from tests.tools.color_encoder import COLORS, ColorEncoder

NAMES = {"red": "café.png", "green": "Ünïcödé/일.png"}


def form(kind: str, text: str) -> str:
    return unicodedata.normalize(kind, text)  # type: ignore[arg-type]


def pictures(folder: Path, kind: str) -> None:
    for color, name in NAMES.items():
        path = folder / form(kind, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), COLORS[color]).save(path)


@pytest.mark.parametrize(("there", "given"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_table_and_a_folder_speak_of_the_same_items(there: str, given: str, tmp_path: Path) -> None:
    pictures(tmp_path / "p", there)
    collection = Collection.create(tmp_path / "c.mm", encoder=ColorEncoder())
    assert collection.add(tmp_path / "p", progress=False).added == 2
    table = tmp_path / "t.csv"
    table.write_text(
        "path,caption\n" + "".join(f"p/{form(given, name)},all {color}\n" for color, name in NAMES.items())
    )
    report = collection.add(table, progress=False)
    assert (report.added, report.updated, report.encoded, report.skipped) == (0, 2, 0, ())
    assert collection.add(tmp_path / "p", progress=False).added == 0
    assert len(collection) == 2
    _, rows = collection.snapshot().scan(["uri"])
    assert sorted(rows.column("uri").to_pylist()) == sorted(
        f"{tmp_path}/p/{form(there, name)}" for name in NAMES.values()
    )


@pytest.mark.parametrize(("before", "after"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_files_that_were_copied_under_the_other_form_have_moved(before: str, after: str, tmp_path: Path) -> None:
    pictures(tmp_path / "p", before)
    collection = Collection.create(tmp_path / "c.mm", encoder=ColorEncoder())
    collection.add(tmp_path / "p", progress=False)
    (tmp_path / "p").rename(tmp_path / "old")
    pictures(tmp_path / "p", after)
    report = collection.add(tmp_path / "p", progress=False)
    assert (report.moved, report.added, report.encoded, len(collection)) == (2, 0, 0, 2)


@pytest.mark.parametrize(("there", "given"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_query_names_a_picture_in_either_form(there: str, given: str, tmp_path: Path) -> None:
    pictures(tmp_path / "p", there)
    collection = Collection.create(tmp_path / "c.mm", encoder=ColorEncoder())
    collection.add(tmp_path / "p", progress=False)
    for color, name in NAMES.items():
        hit = collection.search(str(tmp_path / "p" / form(given, name)), k=1)[0]
        assert hit.uri == f"{tmp_path}/p/{form(there, name)}", color
