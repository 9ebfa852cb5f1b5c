from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign.errors import SourceError
from mmalign.media.sources import default_collection_path, open_source, source_folder
from mmalign.types import Item, Skip
from tests.media.media_helpers import unprivileged


def names(source: Any, root: Path, **options: Any) -> list[str]:
    found = list(open_source(source, **options))
    assert all(isinstance(entry, Item) for entry in found), found
    return [os.path.relpath(entry.uri, root) for entry in found]


@pytest.fixture
def album(tmp_path: Path, save: Callable[[Path], Path]) -> Path:
    """A folder of pictures: `x2.jpg` has a caption, `x10.jpg` and `deep/down/x1.png` have none."""
    for name in ("x10.jpg", "x2.jpg", "deep/down/x1.png", ".hidden/h.jpg", "old.mm/m.jpg"):
        save(tmp_path / "album" / name)
    (tmp_path / "album" / "x2.txt").write_text("a caption")
    (tmp_path / "album" / "read.me").write_text("no picture")
    return tmp_path / "album"


EVERYTHING = ["x2.jpg", "x10.jpg", "deep/down/x1.png"]


def test_a_folder_by_every_name_it_has(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album.parent)
    monkeypatch.setenv("HOME", str(album.parent))
    (album.parent / "link").symlink_to(album)
    for source in (album, str(album), f"{album}/", "album", "./album/", "~/album", "link", os.fsencode(album),
                   f"file://{album}"):  # fmt: skip
        assert names(source, album) == EVERYTHING
    first = next(open_source(album))
    assert first == Item(f"{album}/x2.jpg", captions=("a caption",))


def test_a_folder_without_pictures_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "captions.csv").write_text("x")
    with pytest.raises(SourceError, match=r"no picture in .*\.avif .*\.jpg .*to use a table, name it: captions.csv"):
        open_source(tmp_path)


def test_a_folder_whose_only_picture_cannot_be_used_is_reported_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("nowhere")
    assert list(open_source(tmp_path)) == [Skip(f"{tmp_path}/a.jpg", "a broken symbolic link")]


def test_a_collection_is_no_source(album: Path) -> None:
    with pytest.raises(SourceError, match="is a collection, not a source"):
        open_source(album / "old.mm")


def test_a_picture_a_table_and_a_list(album: Path) -> None:
    assert list(open_source(album / "x2.jpg")) == [Item(f"{album}/x2.jpg", captions=("a caption",))]
    table = album / "m.jsonl"
    table.write_text('{"image": "x10.jpg", "n": 1}\n')
    assert list(open_source(table)) == [Item(f"{album}/x10.jpg", metadata={"n": 1})]
    listing = album / "list.txt"
    listing.write_text(f"x2.jpg\r\n\n{album}/x10.jpg\nhttp://x/y.jpg\nnot there.jpg")
    assert list(open_source(listing)) == [
        Item(f"{album}/x2.jpg", captions=("a caption",)),
        Item(f"{album}/x10.jpg"),
        Item("http://x/y.jpg"),
        Item(f"{album}/not there.jpg"),
    ]


def test_a_url_is_one_picture() -> None:
    assert list(open_source("http://x/y.jpg")) == [Item("http://x/y.jpg")]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["x2.jpg", "x10.jpg"]),
        ("x?.jpg", ["x2.jpg"]),
        ("x[0-9]*.jpg", ["x2.jpg", "x10.jpg"]),
        ("*", ["x2.jpg", "x10.jpg"]),
        ("**/*.png", ["deep/down/x1.png"]),
        ("**/x*", ["x2.jpg", "x10.jpg", "deep/down/x1.png"]),
        ("**", ["x2.jpg", "x10.jpg", "deep/down/x1.png"]),
        ("deep/*/*.png", ["deep/down/x1.png"]),
        ("deep/**/x1.*", ["deep/down/x1.png"]),
        ("d*p/**/x1.*", ["deep/down/x1.png"]),
    ],
)
def test_glob_patterns(pattern: str, expected: list[str], album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(f"{album}/{pattern}", album) == expected
    monkeypatch.chdir(album)
    assert names(pattern, album) == expected


def test_a_glob_survives_link_loops_and_odd_names(album: Path, save: Callable[[Path], Path]) -> None:
    (album / "deep" / "a").symlink_to(album)
    (album / "deep" / "b").symlink_to(album / "deep")
    assert names(f"{album}/**/*.png", album) == ["deep/down/x1.png"]
    odd = album / "odd [1]*"
    save(odd / "x.jpg")
    assert names(odd, album) == ["odd [1]*/x.jpg"]
    assert names(f"{album}/odd*/*.jpg", album) == ["odd [1]*/x.jpg"]


def test_a_glob_that_matches_nothing_or_no_picture_is_an_error(album: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing matches .*\*\.tif'; in a shell, put the pattern in quotes"):
        open_source(f"{album}/*.tif")
    with pytest.raises(SourceError, match="nothing matches"):
        open_source(f"{album}/none/**/*.tif")
    with pytest.raises(SourceError, match="matches 1 name, but no picture"):
        open_source(f"{album}/*.me")


@pytest.mark.parametrize(
    "content", ["x2.jpg\nx10.jpg\n", "x2.jpg\0x10.jpg\0", "x2.jpg\r\n\r\nx10.jpg", "x2.jpg\0x10.jpg"]
)
def test_paths_on_standard_input(content: str, album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    found = list(open_source("-", stdin=io.BytesIO(content.encode())))
    assert found == [Item(f"{album}/x2.jpg", captions=("a caption",)), Item(f"{album}/x10.jpg")]


def test_names_on_standard_input_may_be_any_bytes(tmp_path: Path) -> None:
    stream = io.BytesIO(os.fsencode(tmp_path) + b"/caf\xe9.jpg\0" + os.fsencode(tmp_path) + b"/two\nlines.jpg\0")
    assert [entry.uri for entry in open_source("-", stdin=stream)] == [
        f"file://{tmp_path}/caf%E9.jpg",
        f"file://{tmp_path}/two%0Alines.jpg",
    ]


def test_standard_input_longer_than_a_chunk_is_split_right() -> None:
    paths = [f"/p/{number:05d}.jpg" for number in range(20_000)]
    stream = io.BytesIO("\n".join(paths).encode())
    assert [entry.uri for entry in open_source("-", stdin=stream)] == paths


def test_standard_input_is_taken_as_it_comes() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb", buffering=0) as pipe:
        pipe.write(b"/p/1.jpg\n/p/2")
        items = open_source("-", stdin=stream)
        assert next(items).uri == "/p/1.jpg"
        pipe.write(b".jpg\n")
        assert next(items).uri == "/p/2.jpg"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\0"])
def test_empty_standard_input_is_an_error(content: bytes) -> None:
    with pytest.raises(SourceError, match="standard input names no path"):
        open_source("-", stdin=io.BytesIO(content))


def test_python_values(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    values = ["x2.jpg", album / "x10.jpg", Item("x.jpg", id="7"), {"path": "y.jpg", "n": 1}, {"n": 2}, "http://x/y.jpg"]
    expected = [
        Item(f"{album}/x2.jpg", captions=("a caption",)),
        Item(f"{album}/x10.jpg"),
        Item(f"{album}/x.jpg", id="7"),
        Item(f"{album}/y.jpg", metadata={"n": 1}),
    ]
    found = list(open_source(value for value in values))
    assert found[:4] == expected
    assert isinstance(found[4], Skip)
    assert found[4].uri == "item 4"
    assert found[5] == Item("http://x/y.jpg")
    assert list(open_source(Item("/x.jpg"))) == [Item("/x.jpg")]
    assert list(open_source({"path": "/x.jpg"})) == [Item("/x.jpg")]


def test_a_pattern_of_tables_reads_each(tmp_path: Path) -> None:
    for part in (10, 2):
        (tmp_path / f"train-{part}.jsonl").write_text(f'{{"path": "{part}.jpg"}}\n')
    assert list(open_source(f"{tmp_path}/train-*.jsonl")) == [Item(f"{tmp_path}/2.jpg"), Item(f"{tmp_path}/10.jpg")]


def test_endless_python_values_are_taken_one_by_one() -> None:
    taken = 0

    def endless() -> Any:
        nonlocal taken
        while True:
            taken += 1
            yield f"/{taken}.jpg"

    items = open_source(endless())
    assert [next(items).uri for _ in range(3)] == ["/1.jpg", "/2.jpg", "/3.jpg"]
    assert taken <= 4
    items.close()


def test_metadata_for_every_item_gives_way_to_the_items_own() -> None:
    values = [{"path": "/a.jpg", "year": 1}, {"path": "/b.jpg"}, {}]
    a, b, skip = open_source(values, metadata={"year": 2, "trip": "sea"})
    assert a == Item("/a.jpg", metadata={"year": 1, "trip": "sea"})
    assert b == Item("/b.jpg", metadata={"year": 2, "trip": "sea"})
    assert isinstance(skip, Skip)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "the source is empty"),
        ([], "holds no item"),
        (7, "expected a folder, a table .*; got int"),
        ([object()], "item 0 is object; expected a path"),
        ("s3://bucket/x", "only paths, file:// URIs and http"),
        ("a\0b", "cannot be read"),
        ("/dev/null", "is neither a folder nor a regular file"),
    ],
)
def test_what_is_no_source_says_so(source: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(source)


def test_a_name_that_is_not_there_is_answered_with_near_ones(album: Path) -> None:
    with pytest.raises(SourceError, match=r"albun does not exist: no 'albun' in .*; did you mean 'album'\?"):
        open_source(album.parent / "albun")
    with pytest.raises(SourceError, match=r"no 'Albun' in .*; did you mean 'album'\?"):
        open_source(album.parent / "Albun" / "deep" / "x.jpg")
    with pytest.raises(SourceError, match=r"no 'qqqq' in .* holds no name like it"):
        open_source(album / "qqqq")


def test_a_file_of_no_known_kind_says_what_is_known(album: Path) -> None:
    with pytest.raises(SourceError, match=r"ends in '\.me', which is no kind of source; expected a folder, a table"):
        open_source(album / "read.me")


@pytest.mark.parametrize("name", ["folder", "table.jsonl", "list.txt"])
def test_a_source_without_permission_is_an_error(name: str, open_tmp: Path) -> None:
    path = open_tmp / name
    if name == "folder":
        path.mkdir()
    else:
        path.write_text('{"path": "x.jpg"}')
    path.chmod(0)

    def attempt() -> str:
        try:
            return repr(list(open_source(path)))
        except SourceError as error:
            return str(error)

    message = unprivileged(attempt)
    path.chmod(0o700)
    assert name in message
    assert message.lower().endswith("permission denied")


def test_default_collection_path(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    (album.parent / "link").symlink_to(album)
    expected = album.parent / "album.mm"
    for source in (album, ".", f"{album}/", "../link", "deep/.."):
        assert default_collection_path(source) == expected
    assert default_collection_path("deep") == album / "deep.mm"
    for other in ("x2.jpg", "*.jpg", "-", "none", "/", "old.mm", "http://x/y", [album], None, "a\0b"):
        assert default_collection_path(other) is None


def test_source_folder(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(album)
    (album.parent / "link").symlink_to(album)
    (album / "m.csv").write_text("path\nx2.jpg\n")
    for source in (album, ".", "../link", "m.csv", "../link/m.csv", "x2.jpg", "*.jpg", "**/*.png", "../link/*.jpg"):
        assert source_folder(source) == album
    assert source_folder("deep/*/x") == album / "deep"
    for other in ("-", "none", "http://x/y", ["x2.jpg"]):
        assert source_folder(other) is None


def test_the_import_is_light() -> None:
    code = (
        "import sys, mmalign.media.sources\n"
        "heavy = {'numpy', 'PIL', 'pyarrow', 'urllib.request', 'ssl', 'torch', 'lance'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
