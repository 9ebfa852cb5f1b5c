from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmalign.errors import InputError
from mmalign.media.uris import is_url, path_to_uri, to_uri, uri_to_path

NAMES = [
    b"plain.jpg",
    "schöne Fotos 写真 👩‍🚀.jpg".encode(),
    b"100% %41 #1?.jpg",
    b"not-utf8-\xff\xfe.jpg",
    b"two\nlines.jpg",
    b"bell\x07 tab\t cr\r.jpg",
    "next\u0085 line\u2028.jpg".encode(),
    b"file:",
]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_becomes_one_printable_line_and_leads_back_to_the_file(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(b"content")
    uri = path_to_uri(path)
    uri.encode("utf-8")
    assert len(uri.splitlines()) == 1
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in uri)
    back = uri_to_path(uri)
    assert back == path
    assert back.read_bytes() == b"content"
    assert to_uri(uri) == uri


def test_only_unprintable_names_are_encoded() -> None:
    assert path_to_uri("/a/ü %41.jpg") == "/a/ü %41.jpg"
    assert path_to_uri("/a/" + os.fsdecode(b"\xff")) == "file:///a/%FF"
    assert path_to_uri("/a/b\nc") == "file:///a/b%0Ac"


def test_relative_paths_start_from_the_base_else_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_to_uri("a.jpg") == f"{tmp_path}/a.jpg"
    assert to_uri("../b.jpg", base="/x/y") == "/x/b.jpg"
    assert to_uri(Path("/abs.jpg"), base="/x/y") == "/abs.jpg"


def test_file_uris_in_all_their_forms() -> None:
    for uri in ("file:///a/b%20c.jpg", "file://localhost/a/b%20c.jpg", "FILE:///a/b%20c.jpg"):
        assert uri_to_path(uri) == Path("/a/b c.jpg")
        assert to_uri(uri) == "/a/b c.jpg"


def test_urls_and_other_schemes_are_no_paths() -> None:
    assert all(map(is_url, ("http://x/a", "HTTPS://x/a")))
    assert not any(map(is_url, ("/http://x", "ftp://x/a", "httpx", "")))
    assert uri_to_path("http://x/a.jpg") is None
    assert uri_to_path("s3://bucket/a.jpg") is None
    assert to_uri("http://x/a b\nc.jpg", base="/x") == "http://x/a b%0Ac.jpg"


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_a_name_that_no_file_can_have_is_an_error(name: str) -> None:
    with pytest.raises(InputError, match="no file can be named"):
        path_to_uri(name)
