from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from mmalign.media.folders import is_image_name, natural_key, scan_folder
from mmalign.media.uris import uri_to_path
from mmalign.types import Item, Skip, Unread
from tests.media.media_helpers import unprivileged


def names(root: Path) -> list[str]:
    """What a scan finds, relative to its root; a skip is marked by a '!' and its reason."""
    found = []
    for entry in scan_folder(str(root)):
        if isinstance(entry, Unread):
            found.append(f"?{entry.ending}: {entry.count}")
            continue
        path = uri_to_path(entry.uri)
        assert path is not None
        name = os.path.relpath(path, root)
        found.append(name if isinstance(entry, Item) else f"!{name}: {entry.reason}")
    return found


def test_natural_order_counts_numbers_and_ignores_case() -> None:
    unordered = ["img10", "img2", "IMG1", "img02", "10", "9", "a", "", "img2b", "img²"]
    assert sorted(unordered, key=natural_key) == ["", "9", "10", "a", "IMG1", "img02", "img2", "img2b", "img10", "img²"]
    assert natural_key("A1") != natural_key("a1")


def test_suffixes_in_any_case() -> None:
    assert all(map(is_image_name, ("a.jpg", "a.JPEG", "a.b.Png", "a.heic", "a.AVIF", "a.jfif", "a.pgm", "a.tif")))
    assert not any(map(is_image_name, ("a.txt", "jpg", ".jpg.txt", "a.svg", "a.mp4", "a")))


def test_a_folder_is_scanned_in_a_fixed_natural_order(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    for name in ("b/2.jpg", "b/10.jpg", "b/1.PNG", "a/x.jpg", "z.jpg", "b/c/deep.webp", "10/x.jpg", "9/x.jpg"):
        save(tmp_path / name)
    for name in (".hidden.jpg", ".git/x.jpg", "photos.mm/thumb.jpg", "b/.cache/x.jpg", "b/old.MM/x.jpg"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "film.mp4").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    expected = ["z.jpg", "9/x.jpg", "10/x.jpg", "a/x.jpg", "b/1.PNG", "b/2.jpg", "b/10.jpg", "b/c/deep.webp"]
    assert names(tmp_path) == [*expected, "?.mp4: 1"]
    assert names(tmp_path) == [*expected, "?.mp4: 1"]


def test_captions_lie_beside_their_picture(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    for folder in ("one", "two"):
        save(tmp_path / folder / "x.jpg")
        (tmp_path / folder / "x.txt").write_text(f"\ufeff a dog in {folder} \r\n\n  ein Hund, früh\n", encoding="utf-8")
    save(tmp_path / "bare.jpg")
    save(tmp_path / "void.jpg").with_suffix(".txt").touch()
    items = {entry.uri: entry for entry in scan_folder(str(tmp_path))}
    assert all(isinstance(entry, Item) for entry in items.values())
    captions = {os.path.relpath(uri, tmp_path): entry.captions for uri, entry in items.items()}  # type: ignore[union-attr]
    assert captions == {
        "bare.jpg": (),
        "void.jpg": (),
        "one/x.jpg": ("a dog in one", "ein Hund, früh"),
        "two/x.jpg": ("a dog in two", "ein Hund, früh"),
    }


def test_captions_that_cannot_be_read_cost_only_the_captions(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    for name in ("bad", "huge", "pipe", "link", "ok"):
        save(tmp_path / f"{name}.jpg")
    (tmp_path / "bad.txt").write_bytes("früh".encode("latin-1"))
    (tmp_path / "huge.txt").write_bytes(b"x" * ((1 << 20) + 1))
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "link.txt").symlink_to("nowhere")
    (tmp_path / "ok.txt").write_text("fine")
    found = list(scan_folder(str(tmp_path)))
    assert len([entry for entry in found if isinstance(entry, Item)]) == 5
    assert [entry.captions for entry in found if isinstance(entry, Item) and entry.captions] == [("fine",)]
    notes = {Path(entry.uri).name: entry.reason for entry in found if isinstance(entry, Skip)}
    assert {name for name in notes if name.endswith(".txt")} == {"bad.txt", "huge.txt", "pipe.txt", "link.txt"}
    assert "not UTF-8; save it as UTF-8" in notes["bad.txt"]
    assert "too large" in notes["huge.txt"]


def test_link_loops_end_and_nothing_is_found_twice(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    root = tmp_path / "root"
    save(root / "a" / "x.jpg")
    save(tmp_path / "outside" / "o.jpg")
    save(tmp_path / "beside.jpg")
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (root / "parent").symlink_to(tmp_path)
    (root / "0first").symlink_to(root / "a")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "out again").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(root)
    assert names(root) == ["a/x.jpg", "out/o.jpg"]


def test_links_to_pictures_are_pictures_and_broken_ones_are_reported(
    tmp_path: Path, save: Callable[[Path], Path]
) -> None:
    root = tmp_path / "root"
    save(tmp_path / "elsewhere.png")
    root.mkdir()
    (root / "good.png").symlink_to(tmp_path / "elsewhere.png")
    (root / "gone.png").symlink_to(tmp_path / "none.png")
    (root / "gone folder").symlink_to(tmp_path / "none")
    (root / "gone.txt").symlink_to(tmp_path / "none.txt")
    (root / "me.jpg").symlink_to(root / "me.jpg")
    assert names(root) == [
        "!gone folder: a broken symbolic link",
        "!gone.png: a broken symbolic link",
        "good.png",
        "!me.jpg: a symbolic link that leads back to itself",
    ]


def test_pipes_and_sockets_named_like_pictures_are_reported_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.gif"))
        assert names(tmp_path) == [
            "!pipe.jpg: not a regular file", "!socket.gif: not a regular file", "!zero.png: not a regular file",
        ]  # fmt: skip


def test_names_that_are_not_utf8_or_hold_newlines_are_found(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    paths = [tmp_path / os.fsdecode(name) for name in (b"caf\xe9.jpg", b"two\nlines.jpg", b"d\xff/x.jpg")]
    for path in paths:
        save(path)
        path.with_suffix(".txt").write_text("a caption")
    found = list(scan_folder(str(tmp_path)))
    assert {uri_to_path(entry.uri) for entry in found} == set(paths)
    assert all(isinstance(entry, Item) and entry.captions == ("a caption",) for entry in found)
    assert all(entry.uri.isprintable() for entry in found)


def test_a_folder_without_permission_is_reported_and_the_rest_goes_on(
    open_tmp: Path, save: Callable[[Path], Path]
) -> None:
    save(open_tmp / "a" / "x.jpg")
    save(open_tmp / "locked" / "x.jpg").parent.chmod(0)
    save(open_tmp / "z" / "x.jpg")
    for folder in ("a", "z"):
        (open_tmp / folder).chmod(0o755)
    found = unprivileged(lambda: names(open_tmp))
    (open_tmp / "locked").chmod(0o755)
    assert found == ["a/x.jpg", "!locked: the folder cannot be listed: permission denied", "z/x.jpg"]


def test_same_named_files_in_different_folders_stay_distinct(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    for folder in "abc":
        save(tmp_path / folder / "x.jpg")
    assert [entry.uri for entry in scan_folder(str(tmp_path))] == [f"{tmp_path}/{folder}/x.jpg" for folder in "abc"]
