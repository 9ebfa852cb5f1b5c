"""What stays out of a source: by pattern, by ignore file, and by default."""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmalign.errors import InputError, SourceError
from mmalign.media.exclusion import Exclusion, Pattern, check_patterns, join_patterns
from mmalign.media.sources import exclusion_of, open_source
from mmalign.types import Item, Note, Skip, Unread

NAMES = (
    "a.jpg", "b.gif", "raw/c.jpg", "raw/keep.jpg", "2020/raw/d.jpg", "2020/e.jpg", "2020/sub/f.gif", "2020/sub/g.jpg",
)  # fmt: skip


@pytest.fixture
def album(tmp_path: Path, save: Callable[[Path], Path]) -> Path:
    for name in NAMES:
        save(tmp_path / "album" / name)
    return tmp_path / "album"


def found(source: Any, root: Path, *patterns: str, **options: Any) -> set[str]:
    said = [Pattern(text, str(root)) for text in patterns]
    entries = list(open_source(source, exclusion=exclusion_of(source, said), **options))
    assert not [entry for entry in entries if isinstance(entry, Skip)]
    return {os.path.relpath(entry.uri, root) for entry in entries if isinstance(entry, Item)}


def said(source: Any, *patterns: Pattern) -> list[str]:
    entries = open_source(source, exclusion=exclusion_of(source, patterns))
    return [str(entry) for entry in entries if isinstance(entry, Note)]


@pytest.mark.parametrize(
    "patterns",
    [
        ["*.gif"], ["raw/"], ["/raw"], ["2020/raw"], ["raw/*", "!raw/keep.jpg"], ["**/sub/"], ["2020/**"], ["[ab].*"],
        ["*.jpg", "!a.jpg"], ["raw", "!/raw"], ["e.jpg/"], ["sub/f.gif"], ["/*", "!/2020"], ["*", "!*/", "!*.jpg"],
    ],
)  # fmt: skip
def test_patterns_mean_what_they_mean_to_git(album: Path, patterns: list[str]) -> None:
    (album / ".gitignore").write_text("\n".join(patterns))
    subprocess.run(["git", "init", "-q"], cwd=album, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-o", "--exclude-standard"], cwd=album, check=True, capture_output=True, text=True
    ).stdout.split()
    expected = set(listed) - {".gitignore"}
    assert expected < set(NAMES) or patterns == ["e.jpg/"] or patterns == ["sub/f.gif"]
    assert found(album, album, *patterns) == expected
    # In the folder's own file they mean the same.
    (album / ".gitignore").rename(album / ".mmalignignore")
    assert found(album, album) == expected


def test_a_pattern_that_matches_nothing_there_leaves_all(album: Path) -> None:
    assert found(album, album, "*.webp", "sub/f.gif") == set(NAMES)


def test_every_kind_of_source_is_treated_alike(album: Path, tmp_path: Path) -> None:
    expected = {"a.jpg", "2020/e.jpg", "2020/sub/g.jpg"}
    patterns = ["*.gif", "raw/"]
    listing = album / "list.txt"
    listing.write_text("\n".join(NAMES))
    table = album / "table.jsonl"
    table.write_text("".join(f'{{"path": "{name}"}}\n' for name in NAMES))
    values = [str(album / name) for name in NAMES]
    assert found(f"{album}/**/*", album, *patterns) == expected
    assert found(f"{album}/*", album, *patterns) == {"a.jpg"}
    for source in (album, listing, table, values, [{"path": value} for value in values], map(Item, values)):
        assert found(source, album, *patterns) == expected
    stream = io.BytesIO("\n".join(values).encode())
    assert found("-", album, *patterns, stdin=stream) == expected


def test_patterns_of_an_earlier_source_hold_for_a_folder_in_it(album: Path) -> None:
    pattern = Pattern("2020/raw", str(album))
    source = album / "2020"
    assert {Path(entry.uri).name for entry in open_source(source, exclusion=exclusion_of(source, [pattern]))
            if isinstance(entry, Item)} == {"e.jpg", "f.gif", "g.jpg"}  # fmt: skip


def test_folders_of_thumbnails_and_wastebaskets_stay_out(album: Path, save: Callable[[Path], Path]) -> None:
    out = (
        "@eaDir/x.jpg", "2020/@eaDir/e.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/x.jpg", "$RECYCLE.BIN/x.jpg",
        "System Volume Information/x.jpg", "__MACOSX/x.jpg", "Previews.lrdata/0/x.jpg", "node_modules/x/x.png",
        ".thumbnails/x.jpg", ".Trash-1000/files/x.jpg", "whatsapp/x.jpg", "whatsapp/sent/x.jpg", "._a.jpg",
    )  # fmt: skip
    for name in out:
        save(album / name)
    (album / "whatsapp" / ".nomedia").touch()
    assert found(album, album) == set(NAMES)
    listed = [str(album / name) for name in (*NAMES, *out)]
    list_file = album / "all.txt"
    list_file.write_text("\n".join(listed))
    assert found(list_file, album) == set(NAMES)
    assert found(f"{album}/**/*", album) == set(NAMES)
    # What somebody names is meant; and what stays out by default can be taken in.
    assert found(album / "@eaDir", album) == {"@eaDir/x.jpg"}
    assert found(album / "whatsapp" / "x.jpg", album) == {"whatsapp/x.jpg"}
    assert found(album, album, "!@eaDir/", "!/whatsapp/") == {
        *NAMES, "@eaDir/x.jpg", "2020/@eaDir/e.jpg/SYNOPHOTO_THUMB_M.jpg", "whatsapp/x.jpg", "whatsapp/sent/x.jpg",
    }  # fmt: skip
    table = album / "table.csv"
    table.write_text(f"path\n{album}/@eaDir/x.jpg\n")
    assert found(table, album) == {"@eaDir/x.jpg"}, "a table says itself what it means"


def test_what_is_left_out_is_counted_and_not_listed(album: Path, save: Callable[[Path], Path]) -> None:
    for i in range(30):
        save(album / "@eaDir" / f"{i}.jpg")
    (album / "2020" / ".mmalignignore").write_text("# not mine\n\nsub/\n")
    assert said(album, Pattern("*.gif")) == [
        "left out by rule: @eaDir (1 folder), *.gif (1 file), .mmalignignore (1 folder)"
    ]
    assert said(album / "raw") == []


def test_ignore_files_deeper_down_have_the_last_word(album: Path) -> None:
    (album / ".mmalignignore").write_text("*.gif\nraw/\n")
    (album / "2020" / "sub" / ".mmalignignore").write_text("!f.gif\ng.jpg\n")
    assert found(album, album) == {"a.jpg", "2020/e.jpg", "2020/sub/f.gif"}
    assert found(album, album, "f.gif") == {"a.jpg", "2020/e.jpg"}, "what was said beats every file"


def test_an_ignore_file_that_cannot_be_used_says_so(album: Path) -> None:
    (album / "2020" / ".mmalignignore").write_bytes(b"\xff\xfe")
    (album / ".mmalignignore").write_text("!\n*.gif\n")
    assert found(album, album) == {name for name in NAMES if not name.endswith(".gif")}
    notes = said(album)
    assert f"line 1 is no pattern: '!'" in notes[0]  # noqa: F541
    assert "not UTF-8; save it as UTF-8" in notes[1]


def test_films_raw_photos_and_odd_pictures_are_counted(album: Path) -> None:
    for name in ("x.mp4", "y.MP4", "2020/z.dng", "raw/q.CR3", "s.svg", "notes.txt", "Thumbs.db"):
        (album / name).write_bytes(b"not looked at")
    folder = {entry.ending: entry.count for entry in open_source(album) if isinstance(entry, Unread)}
    assert folder == {".mp4": 2, ".dng": 1, ".cr3": 1, ".svg": 1}
    flat = [entry for entry in open_source(f"{album}/*") if isinstance(entry, Unread)]
    assert flat == [Unread(".mp4", 2), Unread(".svg", 1)]
    listed = list(open_source([str(album / "a.jpg"), str(album / "x.mp4"), str(album / "z.dng")]))
    assert listed == [Item(f"{album}/a.jpg"), Unread(".mp4"), Unread(".dng")]
    below = [entry for entry in open_source(f"{album}/2020/**/*") if isinstance(entry, Unread)]
    assert below == [Unread(".dng", 1)]


def test_a_folder_of_films_alone_says_what_it_holds(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.mov").touch()
    with pytest.raises(SourceError, match=r"no picture in .*; not read: 3 \.mov"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match=r"matches 3 names, but no picture; not read: 3 \.mov"):
        open_source(f"{tmp_path}/*")


def test_files_without_an_ending_are_looked_at(tmp_path: Path, save: Callable[[Path], Path]) -> None:
    for name in ("IMG_1", "x.jpg.1", "holiday. me and the dog", "y.jpg_orig"):
        save(tmp_path / "x.png").rename(tmp_path / name)
    (tmp_path / "README").write_text("words")
    (tmp_path / "LICENSE").touch()
    (tmp_path / "IMG_1.txt").write_text("a caption")
    entries = list(open_source(tmp_path))
    assert {Path(entry.uri).name for entry in entries if isinstance(entry, Item)} == {
        "IMG_1", "x.jpg.1", "holiday. me and the dog", "y.jpg_orig",
    }  # fmt: skip
    assert not [entry for entry in entries if not isinstance(entry, Item)]
    assert next(entry.captions for entry in entries if entry.uri.endswith("IMG_1")) == ("a caption",)
    assert list(open_source(tmp_path / "IMG_1")) == [Item(f"{tmp_path}/IMG_1", captions=("a caption",))]
    assert len(list(open_source(f"{tmp_path}/*"))) == 4


@pytest.mark.parametrize("wrong", ["", "  ", "!", "/", "# words", "a\nb", None, 3, ["*.gif", ""], [None]])
def test_what_is_no_pattern_is_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"exclude takes patterns|is no pattern"):
        check_patterns(wrong)


def test_patterns_are_joined_and_taken_back() -> None:
    known = join_patterns((), check_patterns("*.gif"), "/a")
    known = join_patterns(known, ["raw/", "!*.png"], "/b")
    assert known == (Pattern("*.gif", "/a"), Pattern("raw/", "/b"), Pattern("!*.png", "/b"))
    assert join_patterns(known, ["!*.gif", "raw/"], None) == (Pattern("!*.png", "/b"), Pattern("raw/", None))


def test_it_says_for_any_path_whether_it_stays_out() -> None:
    exclusion = Exclusion("/p", [Pattern("raw/", "/p")])
    assert exclusion.covers("/p/raw/x.jpg")
    assert exclusion.covers("/p/a/@eaDir/x.jpg")
    assert not exclusion.covers("/p/a/x.jpg")
    assert not exclusion.covers("/q/raw/x.jpg")
    assert exclusion.notes() == ()
