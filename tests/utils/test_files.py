"""Files that are there whole or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mmalign.utils.files import link_or_copy, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("sync", [True, False])
def test_texts_bytes_and_writers(tmp_path: Path, sync: bool) -> None:
    write_atomic(tmp_path / "a.txt", "häß\n", sync=sync)
    assert (tmp_path / "a.txt").read_bytes() == b"h\xc3\xa4\xc3\x9f\n"
    write_atomic(tmp_path / "a.txt", b"\0\xff", sync=sync)
    assert (tmp_path / "a.txt").read_bytes() == b"\0\xff"
    write_atomic(tmp_path / "a.npy", lambda path: np.save(path, np.arange(3)), sync=sync)
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert names(tmp_path) == ["a.npy", "a.txt"]


def test_what_fails_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "before")

    def half(path: Path) -> None:
        path.write_text("ha")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_atomic(tmp_path / "a", half)
    assert (tmp_path / "a").read_text() == "before"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_is_an_error_of_the_system(small_disk: Path) -> None:
    write_atomic(small_disk / "a", "before")
    with pytest.raises(OSError, match="No space"):
        write_atomic(small_disk / "a", b"x" * (2 << 20))
    assert (small_disk / "a").read_text() == "before"
    assert names(small_disk) == ["a"]


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom mmalign.utils.files import write_atomic\n"
        "def half(path):\n    path.write_text('ha')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomic(Path(sys.argv[1]), half)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a[1]")])
    assert done.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    assert not (tmp_path / "a[1]").exists()
    write_atomic(tmp_path / "a[1]", "whole")
    assert names(tmp_path) == ["a[1]"]


def test_many_threads_write_one_file_whole(tmp_path: Path) -> None:
    texts = [str(number) * 10_000 for number in range(8)]
    threads = [
        threading.Thread(target=lambda text=text: [write_atomic(tmp_path / "a", text, sync=False) for _ in range(20)])
        for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a").read_text() in texts
    assert names(tmp_path) == ["a"]


def test_a_second_name_or_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("another")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")
    link_or_copy(tmp_path / "a", tmp_path / "b")

    def refuse(*_: object) -> None:
        raise OSError("no such names here")

    monkeypatch.setattr("os.link", refuse)
    link_or_copy(tmp_path / "a", tmp_path / "c")
    assert (tmp_path / "c").read_text() == "one"
    assert not (tmp_path / "c").samefile(tmp_path / "a")
