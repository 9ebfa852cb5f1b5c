from __future__ import annotations

import gc
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.errors import InputError
from mmalign.media import images
from mmalign.media.images import Picture, load_pictures
from mmalign.types import Skip
from tests.media.media_helpers import encode


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "mmalign-load"]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Forty pictures whose grey is their number; the larger ones decode slower than those that come after."""
    paths = []
    for number in range(40):
        side = 400 if number % 4 == 0 else 8
        path = tmp_path / f"{number}.png"
        path.write_bytes(encode(Image.new("RGB", (side, side // 2), (number, number, number)), "PNG"))
        paths.append(str(path))
    return paths


@pytest.mark.parametrize(("threads", "ahead"), [(1, 1), (4, 2), (4, 64), (None, None)])
def test_pictures_come_in_order_with_what_is_known_of_them(
    threads: int | None, ahead: int | None, files: list[str]
) -> None:
    os.utime(files[3], ns=(5, 1_600_000_000_000_000_007))
    loaded = list(load_pictures(files, workers=threads, ahead=ahead))
    assert len(loaded) == len(files)
    for number, (path, picture) in enumerate(zip(files, loaded, strict=True)):
        assert isinstance(picture, Picture)
        assert picture.image is not None
        assert (np.asarray(picture.image) == number).all()
        data = Path(path).read_bytes()
        assert picture.uri == path
        assert picture.sha256 == hashlib.sha256(data).hexdigest()
        assert picture.bytes == len(data)
        assert picture.mtime_ns == Path(path).stat().st_mtime_ns
        assert (picture.width, picture.height) == picture.image.size
    assert loaded[3].mtime_ns == 1_600_000_000_000_000_007  # type: ignore[union-attr]
    assert workers() == []


def test_what_cannot_be_used_is_a_skip_in_its_place(files: list[str], tmp_path: Path, server: Any) -> None:
    (tmp_path / "text.jpg").write_text("no picture at all")
    os.mkfifo(tmp_path / "pipe.jpg")
    uris = [files[0], str(tmp_path / "none.jpg"), str(tmp_path / "text.jpg"), str(tmp_path / "pipe.jpg"),
            f"{server.url}/ok.png", f"{server.url}/gone.png", f"{server.url}/page", files[1]]  # fmt: skip
    loaded = list(load_pictures(uris))
    assert [entry.uri for entry in loaded] == uris
    assert [entry.reason[:20] for entry in loaded if isinstance(entry, Skip)] == [
        "not found", "not a picture, or of", "not a regular file", "the server answered ", "a web page, not a pi",
    ]  # fmt: skip
    web = loaded[4]
    assert isinstance(web, Picture)
    assert web.mtime_ns is None
    assert web.bytes == len(server.body)


def test_a_picture_that_is_not_wanted_is_digested_but_not_decoded(files: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "known.png"
    broken.write_bytes(b"bytes that could not be decoded")
    digest = hashlib.sha256(broken.read_bytes()).hexdigest()
    asked: list[str] = []

    def wanted(sha256: str) -> bool:
        asked.append(sha256)
        return sha256 != digest

    first, second = load_pictures([str(broken), files[0]], wanted=wanted)
    assert first == Picture(str(broken), digest, 31, broken.stat().st_mtime_ns)
    assert isinstance(second, Picture)
    assert second.image is not None
    assert sorted(asked) == sorted([digest, second.sha256])


def test_options_reach_the_decoder(files: list[str]) -> None:
    (reduced,) = load_pictures(files[:1], at_least=50)
    assert isinstance(reduced, Picture)
    assert reduced.image is not None
    assert reduced.image.size == (100, 50)
    assert (reduced.width, reduced.height) == (400, 200)
    (refused,) = load_pictures(files[:1], max_pixels=79_999)
    assert isinstance(refused, Skip)
    assert refused.reason.startswith("too many pixels")


def test_endless_input_is_consumed_only_so_far_ahead(files: list[str]) -> None:
    taken = 0

    def endless() -> Iterator[str]:
        nonlocal taken
        for path in itertools.cycle(files):
            taken += 1
            yield path

    pictures = load_pictures(endless(), workers=3, ahead=5)
    assert taken == 0
    assert workers() == []
    for number in range(100):
        next(pictures)
        assert taken == number + 5
    assert len(workers()) == 3
    pictures.close()
    assert workers() == []
    assert taken == 104


def test_an_exception_in_the_loop_ends_the_workers(files: list[str]) -> None:
    def consume() -> None:
        for number, _ in enumerate(load_pictures(files, workers=2)):
            if number == 3:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert workers() == []


def test_an_error_of_the_input_comes_after_the_pictures_before_it(files: list[str]) -> None:
    def failing() -> Iterator[str]:
        yield from files[:3]
        raise ValueError("the list broke")

    pictures = load_pictures(failing(), workers=2, ahead=10)
    assert [next(pictures).uri for _ in range(3)] == files[:3]
    with pytest.raises(ValueError, match="the list broke"):
        next(pictures)
    assert workers() == []


def test_an_error_of_the_predicate_is_raised_and_ends_the_workers(files: list[str]) -> None:
    def wanted(sha256: str) -> bool:
        raise LookupError(sha256)

    with pytest.raises(LookupError):
        list(load_pictures(files, wanted=wanted))
    assert workers() == []


def test_closing_gives_up_a_download_that_never_ends(server: Any) -> None:
    pictures = load_pictures(itertools.chain([f"{server.url}/ok.png"], itertools.repeat(f"{server.url}/drip.png")))
    assert isinstance(next(pictures), Picture)
    assert server.dripping.wait(10)
    started = time.monotonic()
    pictures.close()
    assert time.monotonic() - started < images._CLOSE_S
    assert workers() == []


def test_no_picture_is_kept_alive_once_taken(files: list[str]) -> None:
    pictures = load_pictures(files, workers=1, ahead=1)
    taken = next(pictures)
    assert isinstance(taken, Picture)
    image = weakref.ref(taken.image)
    del taken
    gc.collect()
    assert image() is None
    pictures.close()


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_a_process_that_waits_for_a_picture(server: Any) -> None:
    script = (
        "import sys\n"
        "from mmalign.media.images import load_pictures\n"
        "try:\n"
        "    next(load_pictures([sys.argv[1]] * 9))\n"
        "except KeyboardInterrupt:\n"
        "    print('stopped', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, f"{server.url}/drip.png"], stdout=subprocess.PIPE, text=True
    )
    assert server.dripping.wait(60)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30)[0] == "stopped\n"
    assert time.monotonic() - started < 10
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["workers", "ahead", "at_least", "max_pixels"])
def test_numbers_below_one_are_refused_at_once(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(InputError, match=f"{name} must be at least 1, got 0"):
        load_pictures([], **options)


def test_nothing_in_nothing_out() -> None:
    assert list(load_pictures([])) == []
