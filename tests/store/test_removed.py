"""The memory of what was removed: in digests, appended, and readable after a crash."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from mmalign.errors import StorageError
from mmalign.store.removed import FILE, Removed

SHA = "ab" * 32


def test_it_remembers_and_forgets(tmp_path: Path) -> None:
    Removed(tmp_path).remember([("/p/a.jpg", SHA), ("/p/b.jpg", None), (None, None)])
    removed = Removed.read(tmp_path)
    assert removed.has_uri("/p/a.jpg")
    assert removed.has_uri("/p/b.jpg")
    assert removed.has_picture(SHA)
    assert not removed.has_uri("/p/c.jpg")
    assert not removed.has_picture("cd" * 32)
    removed.forget([("/p/a.jpg", None), ("/p/c.jpg", "cd" * 32)])
    assert not removed.has_uri("/p/a.jpg")
    again = Removed.read(tmp_path)
    assert (again.has_uri("/p/a.jpg"), again.has_uri("/p/b.jpg"), again.has_picture(SHA)) == (False, True, True)
    again.remember([("/p/a.jpg", None)])
    assert Removed.read(tmp_path).has_uri("/p/a.jpg")


def test_nothing_is_written_for_nothing(tmp_path: Path) -> None:
    removed = Removed.read(tmp_path)
    removed.remember([(None, None)])
    removed.forget([("/p/a.jpg", SHA)])
    assert not (tmp_path / FILE).exists()


def test_it_holds_no_byte_of_a_name_or_a_digest(tmp_path: Path) -> None:
    Removed(tmp_path).remember([("/secret/grandma.jpg", SHA)])
    data = (tmp_path / FILE).read_bytes()
    assert b"grandma" not in data
    assert SHA[:16].encode() not in data


@pytest.mark.parametrize("cut", [1, 30, 70, 76])
def test_a_line_that_was_cut_off_costs_nothing_but_itself(tmp_path: Path, cut: int) -> None:
    Removed(tmp_path).remember([("/p/a.jpg", SHA)])
    whole = (tmp_path / FILE).read_bytes()
    Removed(tmp_path).remember([("/p/b.jpg", None)])
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[: len(whole) + cut])
    Removed(tmp_path).remember([("/p/c.jpg", None)])
    removed = Removed.read(tmp_path)
    assert [removed.has_uri(f"/p/{name}.jpg") for name in "abc"] == [True, False, True]
    assert removed.damaged == 0


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    Removed(tmp_path).remember([(f"/p/{i}.jpg", None) for i in range(3)])
    data = bytearray((tmp_path / FILE).read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / FILE).write_bytes(data)
    removed = Removed.read(tmp_path)
    assert removed.damaged == 1
    assert [removed.has_uri(f"/p/{i}.jpg") for i in range(3)] == [True, False, True]


def _remember(folder: Path, process: int) -> None:
    for i in range(50):
        Removed(folder).remember([(f"/{process}/{i}", None)])


def test_processes_may_remember_at_the_same_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    running = [context.Process(target=_remember, args=(tmp_path, process)) for process in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    removed = Removed.read(tmp_path)
    assert removed.damaged == 0
    assert all(removed.has_uri(f"/{process}/{i}") for process in range(3) for i in range(50))


def test_a_folder_in_its_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    with pytest.raises(StorageError, match="removed"):
        Removed.read(tmp_path)
    with pytest.raises(StorageError, match="removed"):
        Removed(tmp_path).remember([("/p/a.jpg", None)])
