from __future__ import annotations

import hashlib
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from mmalign.errors import DecodeError
from mmalign.media.reading import read_media, sha256_hex
from tests.media.media_helpers import unprivileged


def reason(uri: str | Path, **options: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        read_media(str(uri), **options)
    assert caught.value.uri == str(uri)
    return caught.value.reason


def test_a_file_is_read_with_its_modification_time(tmp_path: Path) -> None:
    path = tmp_path / "a b.bin"
    path.write_bytes(b"abc")
    os.utime(path, ns=(1, 1_700_000_000_123_456_789))
    for uri in (str(path), f"file://{tmp_path}/a%20b.bin"):
        media = read_media(uri)
        assert media.data == b"abc"
        assert media.mtime_ns == 1_700_000_000_123_456_789
    assert sha256_hex(media.data) == hashlib.sha256(b"abc").hexdigest()


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    (tmp_path / "large.png").write_bytes(b"x" * 11)
    assert reason(tmp_path / "none.png") == "not found"
    assert reason(tmp_path / "large.png" / "below.png") == "not found"
    assert reason(tmp_path / "empty.png") == "empty file (0 bytes)"
    assert reason(tmp_path / "loop.png") == "a symbolic link that leads back to itself"
    assert reason(tmp_path) == "a folder, not a picture"
    assert reason(tmp_path / "large.png", max_bytes=10) == "too large: 11 bytes, the limit is 10"
    assert read_media(str(tmp_path / "large.png"), max_bytes=11).data == b"x" * 11
    assert "not a path" in reason("/a\0b")
    assert "s3:// cannot be read" in reason("s3://bucket/key.png")


def test_pipes_devices_and_sockets_do_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.png"))
        started = time.monotonic()
        assert reason(tmp_path / "pipe.png") == "not a regular file"
        assert reason("/dev/zero") == "not a regular file"
        assert reason(tmp_path / "socket.png") == "not a regular file"
    assert time.monotonic() - started < 5


def test_a_file_without_permission_says_so(open_tmp: Path) -> None:
    path = open_tmp / "secret.png"
    path.write_bytes(b"x")
    path.chmod(0)

    def attempt() -> str:
        try:
            return repr(read_media(str(path)))
        except DecodeError as error:
            return error.reason

    assert unprivileged(attempt) == "permission denied"


def test_a_url_is_fetched_and_redirects_are_followed(server: Any) -> None:
    for name in ("ok.png", "moved"):
        media = read_media(f"{server.url}/{name}")
        assert media.data == server.body
        assert media.mtime_ns is None


def test_a_url_with_a_blank_is_quoted_and_we_say_who_we_are(server: Any) -> None:
    assert read_media(f"{server.url}/two words").data.startswith(b"mmalign/")


def test_urls_that_cannot_be_fetched_say_why(server: Any) -> None:
    assert reason(f"{server.url}/nothing.png") == "the server answered HTTP 404 Not Found"
    assert reason(f"{server.url}/big.png") == "too large: 1,000,000,000 bytes, the limit is 536,870,912"
    assert reason(f"{server.url}/endless.png", max_bytes=4000) == "too large: more than the limit of 4,000 bytes"
    assert reason(f"{server.url}/short.png") == "truncated download: 100 of 200 bytes"
    assert reason(f"{server.url}/empty.png") == "empty file (0 bytes)"
    assert "not a URL" in reason("http://[half/a.png")


def test_a_redirect_to_a_local_file_is_refused(server: Any) -> None:
    assert "HTTP 302" in reason(f"{server.url}/local")


def test_no_server_is_a_clear_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("MMALIGN_ALLOW_PRIVATE_NETWORK", "1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert "is there a network?" in reason(f"http://127.0.0.1:{port}/a.png")


def test_a_download_can_be_given_up(server: Any) -> None:
    assert reason(f"{server.url}/drip.png", stop=server.dripping.is_set) == "interrupted"
