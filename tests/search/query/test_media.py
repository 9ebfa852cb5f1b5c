"""What a query may open, and that a picture which is in the collection needs no encoder."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mmalign import Collection, Query
from mmalign.cli import app
from mmalign.errors import DecodeError, QueryError
from mmalign.media.policy import MediaPolicy
from mmalign.media.uris import path_to_uri
from mmalign.search.query import PictureRef, QueryTerm
from tests.tools.color_encoder import ColorEncoder, paint

ODD = [
    b"caf\xe9.png",
    b"two\nlines.png",
    b"a+b - c.png",
    "雪.png".encode(),
    b"50%25 #1?.png",
    b" lead.png",
    b"a.parquet#image=1.png",
]


class TouchedError(AssertionError):
    """A file or a server was looked at."""


def refuse(*_: Any, **__: Any) -> Any:
    raise TouchedError


@contextmanager
def opening_nothing() -> Iterator[None]:
    """Any look at a file, any opening and any lookup of a host is an error; pytest itself is not to be caught by it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("stat", "lstat", "open", "scandir"):
            patch.setattr(os, name, refuse)
        for name in ("is_file", "stat", "exists", "open"):
            patch.setattr(Path, name, refuse)
        for name in ("getaddrinfo", "socket"):
            patch.setattr(socket, name, refuse)
        patch.setattr(Image, "open", refuse)
        yield


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collection:
    monkeypatch.chdir(tmp_path)
    for color in ("red", "blue", "green"):
        paint(tmp_path / "photos" / f"{color}.png", color)
    made = Collection.create(tmp_path / "c.mm", encoder=ColorEncoder())
    made.add(tmp_path / "photos", progress=False)
    made.update([hit.id for hit in made.search("red", k=1)], {"captions": ["a red wall"]})
    return made


NAMES = [
    "/etc/passwd", "photos/red.png", "file:///etc/passwd", "http://127.0.0.1/a.png", "HTTPS://[::1]/", "./c.mm",
    "\\\\server\\share\\a.png", "//server/a.png", "a - b",
     "2:red + photos/blue.png", "- red", '"quoted', "~/.ssh/id_rsa",
]  # fmt: skip


@pytest.mark.parametrize("text", NAMES)
def test_words_open_nothing_and_parse_nothing(text: str) -> None:
    with opening_nothing():
        query = Query.words(text)
        vector, _ = query.embed(ColorEncoder, dim=ColorEncoder.dim)
    assert [(term.value, term.weight) for term in query.terms] == [(text, 1.0)]
    assert query.is_words
    np.testing.assert_array_equal(vector, ColorEncoder().encode_text([text])[0])


@pytest.mark.parametrize("text", [name for name in NAMES if name != "- red"])
def test_without_media_every_term_is_words(text: str) -> None:
    with opening_nothing():
        terms = Query(text, allow_media=False).terms
    assert all(isinstance(term.value, str) for term in terms)


def test_the_check_can_fail() -> None:
    with opening_nothing(), pytest.raises(TouchedError):
        Query("photos/red.png")


def test_a_search_without_media(photos: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    # Lance and the collection's own description are read; the media room is not.
    monkeypatch.setattr("mmalign.media.decoding.read_media", refuse)
    monkeypatch.setattr("mmalign.search.query.stored.read_media", refuse)
    monkeypatch.setattr(Path, "is_file", refuse)
    for ask in (photos.search, photos.search_captions):
        result = ask("2:blue + photos/red.png", k=1, allow_media=False)
        assert [note for note in result.notes if "taken as words" in note] == [
            "taken as words, since no picture may be opened here: 'photos/red.png'"
        ]
        assert ask("red + blue", allow_media=False).notes == ()
        for path in (Path("photos/red.png"), PictureRef("photos/red.png"), Query((QueryTerm(PictureRef("x.png")),))):
            with pytest.raises(QueryError, match="no picture may be opened here"):
                ask(path, allow_media=False)
    assert photos.search("2:blue + photos/red.png", k=1, allow_media=False)[0].uri.endswith("blue.png")
    # A picture that is handed in is opened by nobody.
    assert photos.search(Image.new("RGB", (40, 30), "red"), k=1, allow_media=False)[0].uri.endswith("red.png")


def test_a_policy_says_what_a_query_may_open(photos: Collection) -> None:
    with pytest.raises(DecodeError, match="local files may not be read"):
        photos.search("photos/red.png", policy=MediaPolicy(allow_files=False))
    with pytest.raises(DecodeError, match="URLs may not be fetched"):
        photos.search("http://example.org/a.png", policy=MediaPolicy(allow_network=False))
    with pytest.raises(DecodeError, match="private network"):
        photos.search("http://127.0.0.1:9/a.png + red")
    with pytest.raises(DecodeError, match="private network"):
        photos.search_captions("http://localhost:9/a.png")
    report = photos.add(["http://127.0.0.1:9/a.png"], progress=False)
    assert "private network" in report.skipped[0].reason
    assert photos.search("photos/red.png", policy=MediaPolicy(allow_network=False), k=1)[0].uri.endswith("red.png")


def test_an_explicit_picture(photos: Collection, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "photos" / "green.png", tmp_path / "red - blue")
    assert photos.search(Query.picture("red - blue"), k=1)[0].uri.endswith("green.png")
    for wrong in (None, 3, b"x", ["a.png"]):
        with pytest.raises(QueryError, match="a picture is"):
            Query.picture(wrong)  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="no picture at"):
        Query.picture("none.png")


@pytest.mark.parametrize("name", ODD)
def test_every_uri_that_is_printed_is_a_picture_again(name: bytes, tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    path = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
    paint(tmp_path / "plain.png", "red")
    (tmp_path / "plain.png").rename(path)
    paint(folder / "blue.png", "blue")
    made = Collection.create(tmp_path / "c.mm", encoder=ColorEncoder())
    made.add(folder, progress=False)
    made.update([hit.id for hit in made.search("blue", k=1)], {"captions": ["a blue wall"]})
    printed = made.search("red", k=1)[0].uri
    for uri in dict.fromkeys([printed, path_to_uri(path), path.as_uri()]):
        assert made.search(uri, k=1)[0].uri == printed
        if uri.startswith("file:"):
            assert made.search(f"blue + 5:{uri}", k=1)[0].uri == printed
        assert [hit.metadata["captions"] for hit in made.search_captions(uri)] == [["a blue wall"]]
        assert made.search(Query.picture(uri), k=1)[0].uri == printed
        assert made.has(uri)
        other = Collection.create(tmp_path / "other.mm", encoder=ColorEncoder(), overwrite=True)
        assert other.add(uri, progress=False).added == 1
        assert other.search("red")[0].uri == printed
        assert other.remove([uri]) == 1


class NoEncoder(ColorEncoder):
    """Fails as soon as anything is to be encoded."""

    def encode_image(self, images: Any, *, batch_size: int = 32) -> Any:
        raise AssertionError("nothing is to be encoded")

    encode_text = encode_image


def test_a_picture_that_is_there_needs_no_encoder(photos: Collection, tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "photos" / "red.png"
    encoded = ColorEncoder().encode_image([path])[0]
    by_encoder = photos.search(encoded)
    photos.search_captions("red")
    # Opened by its path alone, where the encoder's name means nothing.
    bare = Collection.open(tmp_path / "c.mm")
    monkeypatch.setattr("mmalign.collection.collection.load_encoder", lambda *_: pytest.fail("loaded"))
    copy = tmp_path / "elsewhere.bin"
    shutil.copy(path, copy)
    for query in (path, str(path), "photos/red.png", path.as_uri(), PictureRef(str(path)), Query.picture(copy)):
        found = bare.search(query)
        assert [hit.id for hit in found] == [hit.id for hit in by_encoder]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in by_encoder], abs=1e-3)
        assert all(-1 <= hit.score <= 1 for hit in found)
        assert [hit.metadata["captions"] for hit in bare.search_captions(query)] == [["a red wall"]]
    assert [hit.id for hit in bare.search(f"2:{path} - photos/blue.png", k=1)] == [by_encoder[0].id]
    assert [one.hits[0].id for one in bare.search([path, copy])] == [by_encoder[0].id] * 2


def test_a_picture_that_has_changed_is_encoded(photos: Collection, tmp_path: Path) -> None:
    path = tmp_path / "photos" / "red.png"
    before = path.stat()
    paint(path, "blue")
    assert photos.search(path, k=1)[0].uri.endswith("blue.png"), "the bytes are others"
    # Of the old size and time it passes for the old one, as it does for `index`.
    data = path.read_bytes()
    path.write_bytes(data[: before.st_size].ljust(before.st_size, b"\0"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert photos.search(path, k=1)[0].uri.endswith("red.png")
    encoder = photos.encoder
    assert isinstance(encoder, ColorEncoder)
    seen = encoder.encoded
    assert photos.search(paint(tmp_path / "new.png", "green", detail=5), k=1)[0].uri.endswith("green.png")
    assert encoder.encoded == seen + 1


def test_values_of_a_uri_are_never_parsed(photos: Collection, tmp_path: Path) -> None:
    """Names that would be a filter of their own find what they name."""
    for i, name in enumerate(("it's.png", "x' OR '1'='1.png", "a''b.png", "%_.png", "`uri`.png", "\\'.png")):
        # Each its own bytes: those of a picture that was removed would stay out.
        path = paint(tmp_path / "quoted" / name, "red", detail=3 + i)
        assert photos.search(path, k=1)[0].uri.endswith("photos/red.png")
        photos.add(path, progress=False)
        assert photos.search(path, k=1)[0].uri == str(path)
        assert photos.remove([str(path)]) == 1


def test_a_private_network_is_allowed_by_an_option(photos: Collection, tmp_path: Path, monkeypatch: Any) -> None:
    """Nobody listens there: allowed, the reason is another one."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("mmalign.collection.collection.load_encoder", lambda *_: ColorEncoder())
    url = "http://127.0.0.1:9/a.png"
    for words in (["search", url], ["search", url, "--captions"]):
        words += ["-c", str(tmp_path / "c.mm")]
        assert "private network" in str(CliRunner().invoke(app, words).exception)
        assert "Connection refused" in str(CliRunner().invoke(app, [*words, "--allow-private-network"]).exception)
    words = ["index", url, "-c", str(tmp_path / "c.mm")]
    assert "private network" in CliRunner().invoke(app, words).output
    assert "Connection refused" in CliRunner().invoke(app, [*words, "--allow-private-network"]).output
