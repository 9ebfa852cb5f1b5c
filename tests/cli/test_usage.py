"""What people type and see: words and dashes, exit statuses, which collection answers, widths, and files that moved."""

from __future__ import annotations

import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from mmalign import cli
from mmalign.cli.output import print_table
from mmalign.cli.searching import tell_apart
from mmalign.collection.collection import Collection
from mmalign.search.query import Query
from tests.cli.conftest import Done, Run
from tests.tools.color_encoder import COLORS, paint


@pytest.fixture
def photos(run: Run, pictures: Path) -> Path:
    assert run("index", "photos").code == 0
    return pictures


def names(done: Done) -> list[str]:
    return [Path(line).stem for line in done.out.splitlines()]


# Words --------------------------------------------------------------------------------------------------------------


def test_several_words_are_one_query(run: Run, photos: Path) -> None:
    """`search red blue` means both: the two colours come first, whichever way it is written."""
    wanted = run("search", "red blue", "-k", "2", "--json").json
    for words in (("red", "blue", "-k", "2"), ("red", "-k", "2", "blue"), ("-k", "2", "red", "blue")):
        told = run("search", *words, "--json").json
        assert told["query"] == "red blue"
        assert told["hits"] == wanted["hits"]
    assert {Path(hit["uri"]).stem for hit in wanted["hits"]} == {"red", "blue"}


@pytest.mark.parametrize(
    ("words", "query"),
    [
        (["- red + blue"], "- red + blue"),
        (["-", "red", "+", "blue"], "- red + blue"),
        (["blue", "-", "red"], "blue - red"),
        (["--", "-red", "blue"], "-red blue"),
        (["-red blue"], "-red blue"),
        (["-5 degrees, blue"], "-5 degrees, blue"),
        (["-5", "blue"], "-5 blue"),
        (["-\u72d7", "blue"], "-\u72d7 blue"),
        (["--where did the blue go"], "--where did the blue go"),
        (["-k", "3", "--", "-k", "blue"], "-k blue"),
    ],
)
def test_a_query_may_begin_with_a_dash(run: Run, photos: Path, words: list[str], query: str) -> None:
    done = run("search", "--json", *words)
    assert done.code == 0, done.err
    assert done.json["query"] == str(Query(query))
    assert Path(done.json["hits"][0]["uri"]).stem == "blue"


def test_what_is_told_apart() -> None:
    kinds = {"flags": {"--json", "-h"}, "valued": {"-k", "--where", "-c"}}
    args = ["a", "-k", "-1", "- b", "--where", "- x", "--json", "-k5", "--where=a > 1", "-c it", "--", "--json"]
    options, words, unknown = tell_apart(args, **kinds)  # type: ignore[arg-type]
    assert options == ["-k", "-1", "--where", "- x", "--json", "-k5", "--where=a > 1", "-c it"]
    assert (words, unknown) == (["a", "- b", "--json"], None)
    assert tell_apart(["-zoo", "-k"], **kinds) == (["-zoo", "-k"], [], "-zoo")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "red", "--explian"], "--explain"),
        (["search", "--wher=a > 1", "red"], "--where"),
        (["search", "-leash"], "mmalign search -- -leash"),
        (["search"], "Missing argument"),
        (["serach", "red"], "Did you mean 'search'?"),
        (["eval", "retreival"], "Did you mean 'retrieval'?"),
        (["align", "x.jpg", "a dog", "--ouput", "y.png"], "--output"),
    ],
)
def test_what_is_not_understood_says_what_is_near(run: Run, words: list[str], message: str) -> None:
    done = run(*words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err


# Statuses -----------------------------------------------------------------------------------------------------------


def test_nothing_found_is_status_1_and_json_is_still_a_document(run: Run, photos: Path) -> None:
    assert run("search", "red", "--where", "width > 39").code == 0
    done = run("search", "red", "--where", "width > 4000")
    assert (done.code, done.out) == (1, "nothing found\n")
    done = run("search", "red", "--where", "width > 4000", "--json")
    assert (done.code, done.json["hits"]) == (1, [])
    done = run("search", "red", "--where", "width > 4000", "--paths-only")
    assert (done.code, done.out) == (1, "")
    assert run("search", "red", "--captions").code == 1


def test_alone_it_shows_help_and_every_command_teaches(run: Run) -> None:
    done = run()
    assert "mmalign index ~/photos" in done.out + done.err
    groups = {
        "": ["index", "search", "info", "remove", "align", "caption", "models", "recipes", "plan", "doctor", "demo"]
    }
    groups["eval"] = ["retrieval", "pairs", "classes", "align", "calibration", "text", "caption"]
    groups["train"], groups["bench"] = ["contrastive", "captioner", "grounding"], ["index"]
    for group, verbs in groups.items():
        for verb in verbs:
            told = run(*([group] if group else []), verb, "--help")
            assert told.code == 0
            line = " ".join(["mmalign", *([group] if group else []), verb])
            assert f"\n      {line}" in told.out, f"{line} --help has no example"
            assert "--json" in told.out
            assert max(map(len, told.out.splitlines())) <= 80


# Which collection ---------------------------------------------------------------------------------------------------


def test_the_collection_that_answered_is_named(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("search", "red").err == "collection: photos.mm\n"
    assert run("search", "red", "-c", "photos.mm").err == ""
    done = run("search", "red", "--json")
    assert done.err == ""
    assert done.json["collection"] == str(photos.with_name("photos.mm"))
    monkeypatch.chdir(photos)
    assert run("search", "red").err == f"collection: {photos.with_name('photos.mm')}\n"
    monkeypatch.setenv("MMALIGN_COLLECTION", "../photos.mm")
    assert "photos.mm" in run("search", "red").err


def test_a_tilde_that_the_shell_left_is_the_home_folder(
    run: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of `--collection=~/a.mm`, and in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "empty").mkdir()
    assert run("index", "photos", "--collection=~/a.mm").code == 0
    assert run("search", "red", "--collection=~/a.mm").code == 0
    monkeypatch.setenv("MMALIGN_COLLECTION", "~/b.mm")
    assert run("index", "empty").code == 1
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["a.mm"], "a failed first run leaves nothing"
    assert not (tmp_path / "~").exists()


def test_a_collection_among_the_words_is_told(run: Run, photos: Path) -> None:
    done = run("search", "red", "photos.mm")
    assert "photos.mm is taken as words of the query; to search in it: --collection photos.mm" in done.err


@pytest.mark.parametrize("verb", ["info", "doctor"])
def test_info_and_doctor_take_a_place(run: Run, photos: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The collection itself, or the folder that it was made of."""
    elsewhere = photos.parent / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    for place in ("../photos.mm", "../photos", str(photos)):
        done = run(verb, place)
        assert done.code == 0, done.err
        assert "photos.mm" in done.out
    missing = run("info", "nowhere.mm")
    assert missing.code == 1
    assert "mmalign index FOLDER" in missing.err
    both = run(verb, "../photos.mm", "-c", "../photos.mm")
    assert (both.code, "give one of them" in both.err) == (2, True)
    if verb == "doctor":
        (wrong,) = [check for check in run(verb, "nowhere.mm", "--json").json if not check["ok"]]
        assert "nowhere.mm" in wrong["remedy"]


# Files that moved ---------------------------------------------------------------------------------------------------


def test_moved_files_are_told_and_found_again(run: Run, photos: Path, tmp_path: Path) -> None:
    assert run("info").err == ""
    photos.rename(tmp_path / "moved")
    remedy = f"where their folder was moved, mmalign index NEWFOLDER --collection {tmp_path / 'photos.mm'} finds them"
    done = run("search", "red", "-k", "4")
    assert f"note: 4 of 4 files of these hits are gone; {remedy}" in done.err
    assert done.code == 0
    assert any("4 of 4 files" in note for note in run("search", "red", "-k", "4", "--json").json["notes"])
    assert f"note: 9 of 9 files are gone; {remedy}" in run("info").err
    assert any("9 of 9 files are gone" in note for note in run("info", "--json").json["notes"])
    (wrong,) = [check for check in run("doctor", "--json").json if not check["ok"]]
    assert "mmalign index NEWFOLDER" in wrong["remedy"]
    assert "9 moved" in run("index", "moved", "--collection", "photos.mm").out
    assert run("info").err == ""
    shutil.copy(tmp_path / "moved" / "red.png", tmp_path / "kept.png")
    (tmp_path / "moved" / "red.png").unlink()
    assert "note: 1 of 2 files of these hits are gone" in run("search", "red", "-k", "2").err


# Widths -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_no_table_is_wider_than_the_terminal(
    run: Run, photos: Path, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for words in (["models"], ["recipes"], ["recipes", "lean"], ["plan", "-n", "1e6", "-d", "384"], ["info"]):
        done = run(*words)
        assert done.code == 0
        # A path, like any word, is not cut.
        wide = [line for line in done.out.splitlines() if len(line) > columns and len(line.split()) > 2]
        assert wide == [], words
        assert not [line for line in done.out.splitlines() if line != line.rstrip()]


def test_a_table_loses_nothing_however_narrow(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        ["open_clip:ViT-B-32/laion2b_s34b_b79k", "512", "", "ImageNet zero-shot 66.6%, Flickr30k R@1 66.8%"],
        ["lite@2", "384", "Apache-2.0 [see docs]", "SugarCrepe pairs 68.5%"],
    ]
    header = ["encoder", "dim", "licence", "quality"]
    for columns in (40, 80, 120, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(header, rows)
        shown = capsys.readouterr().out
        squeezed = "".join(shown.split())
        for row in rows:
            for cell in row[:3] if columns > 80 else row:
                assert "".join(cell.split()) in squeezed, (columns, cell)
        assert max(map(len, shown.splitlines())) <= columns
    assert shown.splitlines()[0].split() == header
    print_table(header, [])
    assert capsys.readouterr().out.split() == header


@pytest.mark.parametrize("columns", [80, 90, 120])
def test_a_table_of_numbers_is_whole_where_its_headers_have_room_to_wrap(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    header = [
        "recipe",
        "effort",
        "recall@10",
        "1 at a time/s",
        "batch/s",
        "p50 ms",
        "p99 ms",
        "bytes/vector",
        "build s",
    ]
    row = ["ivf-pq", "16", "0.9985", "3,881", "15,371", "11.91", "21.37", "2,100", "43.3"]
    monkeypatch.setenv("COLUMNS", str(columns))
    print_table(header, [row])
    *heads, last = capsys.readouterr().out.splitlines()
    assert last.split() == row
    assert sorted(" ".join(heads).split()) == sorted(" ".join(header).split())
    assert max(map(len, [*heads, last])) <= columns


# Pipes, and nothing to show for it ---------------------------------------------------------------------------------


def unread(stream: str, *words: str, folder: Path, root: Path) -> tuple[int, str]:
    """The status of a command one of whose streams nobody reads, and what came out of the other."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "mmalign.cli", *words]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    other = "stderr" if stream == "stdout" else "stdout"
    streams: dict[str, Any] = {stream: writing, other: subprocess.PIPE}
    try:
        with subprocess.Popen(command, cwd=folder, env=environment, text=True, **streams) as process:
            shown = getattr(process, other).read()
    finally:
        os.close(writing)
    return process.returncode, shown


@pytest.mark.parametrize("words", [["recipes"], ["recipes", "--json"], ["info", "photos.mm"], ["index", "--help"]])
def test_a_reader_that_has_seen_enough_is_no_error(photos: Path, root: Path, words: list[str]) -> None:
    assert unread("stdout", *words, folder=photos.parent, root=root) == (0, "")


def test_a_result_comes_also_where_nobody_reads_the_remarks(photos: Path, root: Path) -> None:
    words = ["remove", "photos/red.png", "photos/none.png", "--json", "--collection", "photos.mm"]
    status, shown = unread("stderr", *words, folder=photos.parent, root=root)
    assert (status, json.loads(shown)) == (0, {"removed": 1, "unknown": ["photos/none.png"]})
    words = ["remove", "photos/blue.png", "photos/none.png", "--collection", "photos.mm"]
    status, shown = unread("stderr", *words, folder=photos.parent, root=root)
    assert (status, shown) == (0, f"photos.mm: removed 1, {len(COLORS) - 2} items left\n")


def test_a_folder_of_which_nothing_can_be_used_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    done = run("index", "broken", "--json")
    assert done.code == 1
    assert (done.json["added"], [Path(skip["uri"]).name for skip in done.json["skipped"]]) == (0, ["a.jpg"])
    assert done.err.splitlines()[-1] == "error: nothing of broken could be used"
    assert not (tmp_path / "broken.mm").exists()
    paint(tmp_path / "broken" / "b.png", "red")
    done = run("index", "broken")
    assert done.code == 0
    assert f"{tmp_path / 'broken.mm'}: 1 item (1 added, 1 skipped; 1 encoded in " in done.out


# Help ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [[], ["eval"], ["train"], ["bench"]])
def test_help_says_a_whole_sentence_of_each_command(run: Run, group: list[str]) -> None:
    done = run(*group, "--help")
    assert max(map(len, done.out.splitlines())) <= 80
    told = " ".join(done.out.partition("Commands:")[2].split())
    found: Any = get_command(cli.app)
    for name in group:
        found = found.commands[name]
    assert found.commands
    for name, command in found.commands.items():
        sentence = " ".join(inspect.cleandoc(command.help).partition("\n\n")[0].split())
        assert f"{name} {sentence}" in told


@pytest.mark.parametrize("words", [["align"], ["demo"], ["eval", "retrieval"], ["train", "grounding"]])
def test_only_index_promises_the_encoder_of_a_collection(run: Run, words: list[str]) -> None:
    own = "Default: the collection's own, or lite for a new one."
    assert own in " ".join(run("index", "--help").out.split())
    told = " ".join(run(*words, "--help").out.split())
    assert own not in told
    assert "see `mmalign models`. Default: lite." in told


# What cannot be written ---------------------------------------------------------------------------------------------


def test_another_pipe_that_breaks_is_an_error(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of a worker that was killed."""

    def broken(*args: Any, **options: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("mmalign.collection.collection.Collection.search", broken)
    done = run("search", "red")
    assert done.code == 1
    assert done.err.splitlines()[-1] == "error: [Errno 32] Broken pipe"


def test_a_contact_sheet_that_cannot_be_written_is_one_clear_line(run: Run, photos: Path) -> None:
    (photos.parent / "sheets.png").mkdir()
    done = run("search", "red", "--contact-sheet", "sheets.png")
    assert (done.code, done.out) == (1, "")
    assert done.err == "error: Is a directory: sheets.png\n"
    (photos.parent / "file").write_text("no folder")
    done = run("search", "red", "--contact-sheet", "file/hits.html")
    assert (done.code, done.out) == (1, "")
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("error: ")
    assert done.err.endswith(": file\n")


# Vectors of one's own -------------------------------------------------------------------------------------------------


def test_doctor_says_what_is_there_instead_of_an_encoder(run: Run, tmp_path: Path) -> None:
    Collection.create(tmp_path / "own.mm", encoder=None, dim=2).add_embeddings(["a"], [[1.0, 0.0]])
    done = run("doctor", "own.mm")
    assert "ok   collection: own.mm: 1 items, no encoder: vectors of your own" in done.out


def test_a_remedy_can_be_pasted_into_a_shell(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that removes one folder, and not two others, where there is a space in its name."""
    run("index", "photos", "--collection", "my photos.mm")
    monkeypatch.setattr("mmalign.cli.checks._LENGTH_TOLERANCE", -1.0)
    told = json.loads(run("doctor", "my photos.mm", "--json").out)
    remedy = next(each["remedy"] for each in told if each["name"] == "embeddings")
    assert shlex.split(remedy.partition(": ")[2]) == ["rm", "-r", "my photos.mm"]
