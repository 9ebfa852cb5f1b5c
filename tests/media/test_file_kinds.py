"""What a file is by its name, and by its first bytes where the name says nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mmalign.media.file_kinds import UNREAD_SUFFIXES, begins_as_picture, ending_of, is_picture, kind_by_name
from mmalign.media.formats import IMAGE_SUFFIXES


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("picture", "a.jpg A.JPEG b.c.Png x.mpo x.jfif x.tga x.ico x.jpg_large x.heic"),
        ("unread", "a.mp4 a.MOV a.mkv a.dng a.CR3 a.nef a.jxl a.svg a.psd a.pdf a.exr x.jpg.part x.mp4.crdownload"),
        ("look", "a README IMG_1.jpg! x.jpg:large x.jpg_orig x.jpg~ x.jpg.1 x.jpg.bak x.jpeg?w=3 v1.2 a. x.dib x.jps"),
        ("other", "a.txt a.json a.py Thumbs.db a.sqlite3 a.part a.bak a.jpg.txt a.html a.ini a.zip"),
    ],
)
def test_a_name_says_what_a_file_is(kind: str, names: str) -> None:
    assert {name: kind_by_name(f"/photos/v1.0/{name}") for name in names.split()} == dict.fromkeys(names.split(), kind)


def test_no_ending_is_both_read_and_not() -> None:
    assert not IMAGE_SUFFIXES & UNREAD_SUFFIXES
    assert all(ending.startswith(".") and ending == ending.lower() for ending in UNREAD_SUFFIXES)
    assert (ending_of("/a.b/x.MP4"), ending_of("/a.b/x")) == (".mp4", "")


def test_the_first_bytes_decide_where_the_name_does_not(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    picture = save(tmp_path / "x.png").rename(tmp_path / "IMG 3. me and the dog")
    text = tmp_path / "Makefile"
    text.write_text("all:\n")
    (tmp_path / "empty").touch()
    assert begins_as_picture(str(picture))
    assert is_picture(str(picture))
    assert not is_picture(str(text))
    assert not is_picture(str(tmp_path / "empty"))
    assert not is_picture(str(tmp_path / "nothing"))


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_picture(str(tmp_path / "pipe"))
