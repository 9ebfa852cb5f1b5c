"""Names in tables and lists, and the files that they mean."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from mmalign.errors import DecodeError
from mmalign.media.folders import scan_folder
from mmalign.media.locating import Locator, is_picture_name
from mmalign.media.reading import read_media
from mmalign.media.sources import default_collection_path, open_source, source_folder
from mmalign.types import Item, Note

NAMES = ["café.jpg", "Ångström.png", "한글.jpg", "dossier é/ü.jpg", "a/b ö/c.jpg", "q\u0323\u0307.jpg"]


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def nfd(text: str) -> str:
    return unicodedata.normalize("NFD", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.jpg").write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.jpg").write_bytes(b"x")
    return tmp_path


def found(folder: Path, text: str, **options: bool) -> tuple[str, list[str]]:
    locator = Locator(str(folder), **options)
    return locator.uri(text), list(locator.notes())


@pytest.mark.parametrize(("on_disk", "given"), [(nfc, nfd), (nfd, nfc), (nfc, nfc), (nfd, nfd)])
@pytest.mark.parametrize("name", NAMES)
def test_nfc_and_nfd_names_find_one_another(on_disk, given, name: str, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / on_disk(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    (scanned,) = scan_folder(str(tmp_path))
    sources = {
        "t.csv": f'path,n\n"{given(name)}",1\n',
        "t.jsonl": f'{{"path": "{given(name)}", "n": 1}}\n',
        "l.txt": f"{given(name)}\n",
    }
    for file, text in sources.items():
        (tmp_path / file).write_text(text, encoding="utf-8")
        assert [entry.uri for entry in open_source(tmp_path / file) if isinstance(entry, Item)] == [scanned.uri]
    full = f"{tmp_path}/{given(name)}"
    for value in (full, Path(full), Item(full), {"image": full}):
        assert [entry.uri for entry in open_source([value]) if isinstance(entry, Item)] == [scanned.uri]
    assert [entry.uri for entry in open_source(full) if isinstance(entry, Item)] == [scanned.uri]


@pytest.mark.parametrize(("there", "given"), [(nfc, nfd), (nfd, nfc)])
def test_a_picture_is_read_by_a_name_in_the_other_form(there, given, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / there("dossier é") / there("ü.jpg")
    path.parent.mkdir()
    path.write_bytes(b"x")
    assert read_media(str(tmp_path / given("dossier é") / given("ü.jpg"))).data == b"x"
    with pytest.raises(DecodeError, match="not found"):
        read_media(str(tmp_path / given("dossier é") / "ö.jpg"))


def test_where_both_forms_are_there_each_is_itself(tmp_path: Path) -> None:
    for form in (nfc, nfd):
        (tmp_path / form("é.jpg")).write_bytes(b"x")
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("the file system takes both forms for one name")
    for form in (nfc, nfd):
        assert found(tmp_path, form("é.jpg")) == (str(tmp_path / form("é.jpg")), [])


def test_a_source_in_the_other_form_is_found(tmp_path: Path) -> None:
    (tmp_path / nfd("Straße é")).mkdir()
    (tmp_path / nfd("Straße é") / "a.jpg").write_bytes(b"x")
    folder = tmp_path / nfd("Straße é")
    assert list(open_source(tmp_path / nfc("Straße é"))) == [Item(str(folder / "a.jpg"))]
    assert source_folder(tmp_path / nfc("Straße é")) == folder
    assert default_collection_path(tmp_path / nfc("Straße é")) == tmp_path / (nfd("Straße é") + ".mm")


@pytest.mark.parametrize(
    "text", ["a.jpg", " a.jpg ", "./a.jpg", "sub/../a.jpg", "\ta.jpg"]
)  # fmt: skip
def test_names_as_people_write_them(text: str, folder: Path) -> None:
    assert found(folder, text) == (f"{folder}/a.jpg", [])


def test_uris_and_absolute_paths(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    for text in (
        f"file://{folder}/sub/b.jpg",
        f"file://localhost{folder}/sub/b.jpg",
        f"{folder}/sub/b.jpg",
        "~/sub/b.jpg",
    ):
        assert found(folder / "sub", text) == (f"{folder}/sub/b.jpg", [])
    assert found(folder, "https://x/a.jpg") == ("https://x/a.jpg", [])
    assert found(folder, "s3://x/a.jpg") == ("s3://x/a.jpg", [])


def test_backslashes_of_windows_are_read_as_slashes_and_told_once(folder: Path) -> None:
    locator = Locator(str(folder))
    assert locator.uri("sub\\b.jpg") == f"{folder}/sub/b.jpg"
    assert locator.uri(".\\sub\\b.jpg") == f"{folder}/sub/b.jpg"
    assert list(locator.notes()) == ["paths with \\ are read with /"]
    # A name that has a backslash is itself, and one that leads nowhere keeps it.
    (folder / "sub\\b.jpg").write_bytes(b"x")
    assert found(folder, "sub\\b.jpg") == (f"{folder}/sub\\b.jpg", [])
    assert found(folder, "C:\\photos\\a.jpg") == (f"{folder}/C:\\photos\\a.jpg", [])


def test_another_spelling_of_letters_is_told_and_not_taken(folder: Path) -> None:
    if (folder / "A.JPG").exists():
        pytest.skip("the file system does not tell capital letters")
    assert found(folder, "A.JPG") == (f"{folder}/A.JPG", [f"no file 'A.JPG' in {folder}, but 'a.jpg'"])
    (folder / "t.csv").write_text("path\nsub/B.jpg\na.jpg\n")
    note, _, item = open_source(folder / "t.csv")
    assert isinstance(note, Note)
    assert note.about == f"{folder}/t.csv:2"
    assert item == Item(f"{folder}/a.jpg")


def test_the_folders_of_data_sets_are_looked_into(folder: Path) -> None:
    (folder / "Images").mkdir()
    (folder / "Images" / "c.jpg").write_bytes(b"x")
    assert found(folder, "c.jpg", folders=True) == (
        f"{folder}/Images/c.jpg",
        [f"pictures that are not beside the table are taken from {folder}/Images"],
    )
    assert found(folder, "c.jpg") == (f"{folder}/c.jpg", [])
    assert found(folder, "a.jpg", folders=True) == (f"{folder}/a.jpg", [])
    # In two of them: nobody knows which is meant.
    (folder / "train").mkdir()
    (folder / "train" / "c.jpg").write_bytes(b"y")
    uri, remarks = found(folder, "c.jpg", folders=True)
    assert uri == f"{folder}/c.jpg"
    assert remarks == [
        f"'c.jpg' is in {folder}/Images and {folder}/train: put the folder into the path to say which is meant"
    ]


def test_a_missing_name_is_left_as_it_was_given(folder: Path) -> None:
    for text in ("no.jpg", "nö/é.jpg", "sub/no/é.jpg"):
        assert found(folder, text, folders=True) == (f"{folder}/{text}", [])


def test_names_of_pictures() -> None:
    assert all(map(is_picture_name, ["a.jpg", "x/Y.PNG", "http://x/1", " a.webp"]))
    assert not any(map(is_picture_name, ["a dog", "jpg", ".jpg", "a.txt", "a\nb.jpg", ""]))
