"""What may be opened: addresses are checked after the lookup and after each redirect, and nothing is repeated."""

from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmalign.errors import DecodeError, InputError
from mmalign.media.policy import MediaPolicy
from mmalign.media.reading import read_media

ANYWHERE = MediaPolicy(allow_private_networks=True)
SECRET = "s3cr3t\x1b[31m"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MMALIGN_ALLOW_PRIVATE_NETWORK", raising=False)


def reason(uri: str, policy: MediaPolicy | None = None) -> str:
    with pytest.raises(DecodeError) as caught:
        read_media(uri, policy=policy)
    assert "s3cr3t" not in str(caught.value)
    assert str(caught.value).isprintable()
    return caught.value.reason


@contextmanager
def serving(*answers: Callable[[socket.socket], Any] | bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that says what it is told to each connection in turn; gives its address and what it was asked."""
    asked: list[bytes] = []
    over = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in answers:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(65536))
                try:
                    if isinstance(answer, bytes):
                        connection.sendall(answer)
                    else:
                        for piece in answer(connection):
                            connection.sendall(piece)
                            if over.wait(0.02):
                                break
                except OSError:
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
    finally:
        over.set()
        # A thread that waits for a connection is not woken by closing what it waits at.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


PRIVATE = [
    "127.0.0.1", "127.9.9.9", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "192.0.0.192", "198.18.0.1", "192.0.2.1", "240.0.0.1", "168.63.129.16", "::1", "::",
    "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "fec0::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001:db8::1", "2001:0:a00:1::1",
]  # fmt: skip
PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_leave(address: str) -> None:
    assert not MediaPolicy().allows(address)
    assert ANYWHERE.allows(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_need_none(address: str) -> None:
    assert MediaPolicy().allows(address)


@pytest.mark.parametrize("address", ["224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:224.0.0.1"])
def test_groups_are_never_asked(address: str) -> None:
    assert not ANYWHERE.allows(address)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "[::1]",
     "[::ffff:127.0.0.1]", "①②⑦.⓪.⓪.①", "10.1.2.3", "169.254.169.254"],
)  # fmt: skip
def test_no_spelling_of_a_local_address_is_connected_to(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("connected"))
    assert "private network or on this machine" in reason(f"http://{host}:8/a.png")


def test_a_name_is_looked_up_once_and_checked_by_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name whose second answer would be another address gains nothing."""
    asked, connected = [], []

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        address = "10.0.0.1" if len(asked) % 2 else "93.184.216.34"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def connect(_: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    monkeypatch.setattr(socket.socket, "connect", connect)
    assert "private network" in reason("http://inside.example.org/a.png")
    assert connected == []
    assert "Connection refused" in reason("http://outside.example.org/a.png")
    assert connected == [("93.184.216.34", 80)]
    assert asked == ["inside.example.org", "outside.example.org"]


def test_every_redirect_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first server stands for a public one."""
    monkeypatch.setattr(MediaPolicy, "allows", lambda self, address: address == "127.0.0.1")
    inside = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.2:%d/x\r\n\r\n"
    with serving(b"HTTP/1.1 200 OK\r\n\r\n" + SECRET.encode()) as (target, _):
        port = int(target.rsplit(":", 1)[1])
        with serving(inside % port) as (url, _):
            assert "private network" in reason(f"{url}/a.png")
    onward = b"HTTP/1.1 301 Moved\r\nLocation: /again?%s\r\n\r\n" % SECRET[:6].encode()
    with serving(*[onward] * 10) as (url, asked):
        assert reason(f"{url}/a.png") == "redirected more than 5 times"
    assert len(asked) == 6


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://127.0.0.1/s3cr3t", "gopher://x", "http://[s3cr3t", ""]
)
def test_redirects_that_lead_nowhere(location: str) -> None:
    with serving(f"HTTP/1.1 302 {SECRET}\r\nLocation: {location}\r\n\r\n".encode()) as (url, _):
        assert "HTTP 302 Found" in reason(url, ANYWHERE)


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 500 {SECRET}\r\n\r\n",
        f"HTTP/1.1 799 {SECRET}\r\n\r\n",
        f"{SECRET}\r\n",
        f"HTTP/1.1 {SECRET}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
        f"HTTP/1.1 200 OK\r\nContent-Encoding: {SECRET}\r\n\r\nx",
        f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n{SECRET}",
        f"HTTP/1.1 200 OK\r\nX: {'y' * 70_000}{SECRET}\r\n\r\n",
        "HTTP/1.1 200 OK\r\n" + f"X: {SECRET}\r\n" * 200 + "\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: s3cr3t\r\n\r\n",
        "",
    ],
)
def test_nothing_that_a_server_says_is_repeated(answer: str) -> None:
    with serving(answer.encode()) as (url, _):
        assert reason(url, ANYWHERE)


def test_nothing_of_a_file_is_repeated(tmp_path: Path) -> None:
    from mmalign.media.decoding import decode_image

    for start in (
        "root:",
        "s3cr3t:x:0:0",
        "P5 s3cr3t ",
        "P1\ns3cr3t\n",
        "GIF89as3cr3t",
        "\x89PNG\r\n\x1a\ns3cr3t",
        "BMs3cr3t",
    ):
        path = tmp_path / "passwd"
        path.write_bytes(start.encode("latin-1") + b"s3cr3t:x:0:0" * 20)
        with pytest.raises(DecodeError) as caught:
            decode_image(path)
        assert "s3cr3t" not in str(caught.value), start


def drip(head: bytes, piece: bytes) -> Callable[[socket.socket], Iterator[bytes]]:
    def pieces(_: socket.socket) -> Iterator[bytes]:
        yield head
        while True:
            yield piece

    return pieces


@pytest.mark.parametrize(
    "answer",
    [
        drip(b"", b"H"),
        drip(b"HTTP/1.1 200 OK\r\n", b"x"),
        drip(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
        drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
        drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"x: y\r\n"),
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"x"),
        drip(b"", b""),
    ],
    ids=["status", "header", "headers", "continue", "body", "chunks", "chunk size", "trailers", "length", "silence"],
)
def test_one_deadline_holds_for_all_of_an_answer(answer: Any) -> None:
    policy = MediaPolicy(allow_private_networks=True, deadline_s=0.5)
    with serving(answer) as (url, _):
        found = reason(url, policy)
    # Python reads at most a hundred headers.
    assert found == "took longer than 0.5 s" or "sound HTTP" in found


def test_one_deadline_holds_over_redirects_and_for_tls() -> None:
    policy = MediaPolicy(allow_private_networks=True, deadline_s=0.5)

    def slowly(_: socket.socket) -> Iterator[bytes]:
        for letter in b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n":
            yield bytes([letter])

    with serving(*[slowly] * 3) as (url, asked):
        assert reason(url, policy) == "took longer than 0.5 s"
        assert len(asked) < 3
    with serving(drip(b"", b"\x16")) as (url, _):
        found = reason(url.replace("http:", "https:"), policy)
        assert "0.5 s" in found or "secure connection" in found


def test_a_packed_body_is_bounded_by_what_it_holds() -> None:
    body = gzip.compress(b"x" * 1_000_000)
    answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + body
    with serving(answer, answer) as (url, asked):
        assert read_media(url, policy=ANYWHERE).data == b"x" * 1_000_000
        small = MediaPolicy(allow_private_networks=True, max_bytes=100_000)
        assert reason(url, small) == "too large: more than the limit of 100,000 bytes"
    assert b"Accept-Encoding: identity" in asked[0]
    assert b"Host: 127.0.0.1:" in asked[0]


def test_a_policy_without_files_or_network(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    assert read_media(str(path)).data == b"x"
    for name in (str(path), path.as_uri(), str(tmp_path / "none.png")):
        assert reason(name, MediaPolicy(allow_files=False)) == "local files may not be read here"
    assert reason("http://1.1.1.1/", MediaPolicy(allow_network=False)) == "URLs may not be fetched here"
    assert (
        "the limit is 2" in reason(str(tmp_path / "b.png"), MediaPolicy(max_bytes=2))
        if ((tmp_path / "b.png").write_bytes(b"xxx"))
        else True
    )


def test_a_proxy_needs_leave_and_does_not_lead_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
    with serving(answer, b"HTTP/1.1 407 s3cr3t\r\n\r\n") as (proxy, asked):
        monkeypatch.setenv("http_proxy", proxy.replace("//", "//me:word@"))
        monkeypatch.setenv("https_proxy", proxy)
        assert "through a proxy" in reason("http://example.org/a.png")
        allowed = MediaPolicy(allow_proxy=True)
        for host in ("127.0.0.1", "2130706433", "localhost", "[::1]", "10.0.0.1"):
            assert "private network" in reason(f"http://{host}/a.png", allowed)
        assert asked == []
        # The proxy itself may be on this machine.
        assert read_media("http://example.org/a.png", policy=MediaPolicy(allow_proxy=True, allow_private_networks=True))
        assert asked[0].startswith(b"GET http://example.org/a.png HTTP/1.1\r\nHost: example.org\r\n")
        assert b"Proxy-Authorization: Basic bWU6d29yZA==" in asked[0]
        assert "cannot be fetched" in reason("https://example.org/a.png", allowed)
        assert asked[1].startswith(b"CONNECT example.org:443")
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    assert "private network" in reason("http://example.org/a.png")


def test_urls_that_are_none() -> None:
    for url in ("http://", "http:///a.png", "http://me:word@1.1.1.1/a.png", "http://1.1.1.1:99999/", "http://a b/"):
        assert "URL" in reason(url) or "not known" in reason(url)


def test_a_policy_says_what_is_wrong_with_it() -> None:
    for wrong in ({"max_bytes": 0}, {"deadline_s": float("nan")}, {"deadline_s": "9"}, {"allow_files": "no"}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            MediaPolicy(**wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="MMALIGN_ALLOW_PROXY must be 1 or 0"):
        MediaPolicy.from_environment({"MMALIGN_ALLOW_PROXY": "perhaps"})
    assert MediaPolicy.from_environment({"MMALIGN_ALLOW_PRIVATE_NETWORK": "1"}) == ANYWHERE
    assert MediaPolicy.from_environment({}) == MediaPolicy()
