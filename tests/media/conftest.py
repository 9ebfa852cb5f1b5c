"""Pictures and servers for the tests of the media room."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.media.media_helpers import encode


@pytest.fixture
def photo(rng: np.random.Generator) -> Image.Image:
    """A smooth picture, 96 x 64: what lossy formats keep well."""
    small = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
    return small.resize((96, 64), Image.Resampling.BICUBIC)


@pytest.fixture
def save() -> Callable[[Path], Path]:
    """Writes a tiny picture whose colour depends on its name, in the format of its suffix."""

    def write(path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = sum(os.fsencode(path.name)) % 256
        path.write_bytes(encode(Image.new("RGB", (4, 3), (colour, 0, 0)), "PNG"))
        return path

    return write


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A temporary folder that every user may enter, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="mmalign-test-"))
    folder.chmod(0o755)
    yield folder
    rmtree(folder)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        getattr(self, "get_" + self.path.strip("/").split("/")[0].split(".")[0].replace("%20", "_"), self.get_missing)()

    def _send(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def get_missing(self) -> None:
        self.send_error(404, "Not Found")

    def get_ok(self) -> None:
        self._send(self.server.body)

    def get_two_words(self) -> None:
        self._send(self.headers["User-Agent"].encode())

    def get_big(self) -> None:
        self._send(b"x" * 100, Content_Length="1000000000")

    def get_endless(self) -> None:
        self._send(b"x" * 5000, Content_Length="")

    def get_short(self) -> None:
        self._send(b"x" * 100, Content_Length="200")

    def get_empty(self) -> None:
        self._send(b"")

    def get_page(self) -> None:
        self._send(b"<!DOCTYPE html><html><body>sign in</body></html>")

    def get_moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/ok.png")
        self.end_headers()

    def get_local(self) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.end_headers()

    def get_drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.server.dripping.set()
        try:
            while not self.server.over.wait(0.02):
                self.wfile.write(b"x")
        except OSError:
            pass

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An HTTP server on the loopback interface; `url` is its address and `body` the PNG that it serves."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("MMALIGN_ALLOW_PRIVATE_NETWORK", "1")
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.body = encode(photo, "PNG")
    server.over, server.dripping = threading.Event(), threading.Event()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()
