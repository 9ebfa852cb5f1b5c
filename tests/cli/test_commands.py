"""The command as a person uses it: what it prints, where, and with which exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmalign.collection.collection import Collection
from tests.cli.conftest import Run
from tests.search.test_probability import FITTED
from tests.tools.color_encoder import COLORS, ColorEncoder, paint


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, color in enumerate(COLORS):
        paint(tmp_path / "photos" / f"{color}.png", color, detail=i, size=(40, 30) if i % 2 else (30, 40))
    (tmp_path / "photos" / "red.txt").write_text("something red\n", encoding="utf-8")
    (tmp_path / "photos" / "blue.txt").write_text("a blue thing\nblue blue\n", encoding="utf-8")
    return tmp_path / "photos"


@pytest.fixture
def indexed(run: Run, photos: Path) -> Path:
    assert run("index", "photos").code == 0
    return photos


def test_index_json_ends_with_one_line(run: Run, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    done = run("index", "photos", "--json")
    assert done.code == 0
    told = json.loads(done.out.strip().splitlines()[-1])
    assert told["added"] == 9
    assert {"added", "updated", "moved", "unchanged", "removed", "skipped", "seconds"} <= told.keys()
    assert [Path(skip["uri"]).name for skip in told["skipped"]] == ["broken.jpg"]
    assert set(told["skipped"][0]) == {"uri", "reason"}
    assert (photos.parent / "photos.mm" / "collection.json").is_file()
    assert run("index", "photos", "--json").json["unchanged"] == 9  # type: ignore[index]


def test_index_says_what_it_skipped(run: Run, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"no picture")
    done = run("index", "photos")
    assert "9 items (9 added, 1 skipped; 9 encoded" in done.out
    assert "broken.jpg: not a picture" in done.err


def test_search_ranks_and_prints_json(run: Run, indexed: Path) -> None:
    done = run("search", "red", "-k", "3", "--json")
    told = done.json
    assert set(told) >= {"query", "hits", "exact", "seconds"}  # type: ignore[arg-type]
    hits = told["hits"]  # type: ignore[index]
    assert [len(hits), Path(hits[0]["uri"]).name, told["exact"]] == [3, "red.png", True]  # type: ignore[index]
    assert set(hits[0]) == {"id", "uri", "score", "probability", "metadata"}
    assert hits[0]["metadata"]["captions"] == ["something red"]
    assert run("search", "red", "-k", "1").out.splitlines()[0].endswith("red.png")


def test_search_filters_and_prints_paths_only(run: Run, indexed: Path) -> None:
    done = run("search", "red", "--where", "width > height", "--paths-only", "-k", "100")
    assert sorted(Path(line).name for line in done.out.splitlines()) == [
        "cyan.png" if i == 4 else f"{color}.png" for i, color in sorted(enumerate(COLORS), key=lambda x: x[1]) if i % 2
    ]


def test_search_composes(run: Run, indexed: Path) -> None:
    done = run("search", "photos/blue.png + 0.5:red - 0.1:grey", "-k", "2", "--paths-only")
    assert [Path(line).name for line in done.out.splitlines()] == ["blue.png", "red.png"]


def test_search_captions(run: Run, indexed: Path, encoder: ColorEncoder) -> None:
    done = run("search", "photos/blue.png", "--captions", "--json", "-k", "2")
    hits = done.json["hits"]  # type: ignore[index]
    assert hits[0]["metadata"]["captions"] in (["blue blue"], ["a blue thing"])
    assert {Path(hit["uri"]).name for hit in hits} == {"blue.png"}
    narrowed = run("search", "photos/blue.png", "--captions", "--where", "width = height + 10 OR id = 'x'", "--json")
    assert all("blue" not in hit["uri"] for hit in narrowed.json["hits"])  # type: ignore[index]


def test_a_view_is_named(run: Run, indexed: Path) -> None:
    words = ("search", "photos/blue.png", "--json", "-k", "3")
    found = [run(*words, *more).json["hits"] for more in (("--captions",), ("--view", "captions"))]  # type: ignore[index]
    assert found[0] == found[1]
    pictures = [run(*words, *more).json["hits"] for more in ((), ("--view", "image"))]  # type: ignore[index]
    assert pictures[0] == pictures[1] != found[0]
    unknown = run("search", "red", "--view", "pages")
    assert (unknown.code, unknown.err) == (2, "error: view must be image or captions, got 'pages'\n")
    assert "name two views" in run("search", "red", "--view", "image", "--captions").err
    assert "leave it out with --view captions" in run("search", "red", "--view", "captions", "--explain").err


def test_captions_are_grouped_by_item_on_request(run: Run, indexed: Path) -> None:
    words = ("search", "photos/blue.png", "--captions", "--json", "--min-recall", "1")
    every, grouped = (run(*words, *more).json["hits"] for more in ((), ("--group-by", "item")))  # type: ignore[index]
    assert [hit["id"] for hit in grouped] == list(dict.fromkeys(hit["id"] for hit in every))
    assert len(grouped) < len(every)
    refused = run("search", "red", "--captions", "--group-by", "page")
    assert (refused.code, refused.err) == (2, "error: group_by must be item, got 'page'\n")
    assert "leave out --group-by without --captions" in run("search", "red", "--group-by", "item").err


def test_search_from_a_score_on_and_by_pages(run: Run, indexed: Path) -> None:
    hits = run("search", "green", "--json").json["hits"]  # type: ignore[index]
    least = hits[1]["score"]
    told = run("search", "green", "--min-score", str(least), "--all", "--json").json
    assert told["hits"] == [hit for hit in hits if hit["score"] >= least]  # type: ignore[index]
    assert (told["min_score"], "offset" in told) == (least, False)  # type: ignore[index, operator]
    page = run("search", "green", "-k", "1", "--offset", "1", "--json").json
    assert (page["hits"], page["offset"]) == (hits[1:2], 1)  # type: ignore[index]
    assert run("search", "green", "-k", "1", "--offset", "1").out.startswith("2.  ")
    none = run("search", "green", "--min-score", "0.9999", "--all")
    assert (none.code, none.out) == (1, "nothing found\n")
    assert "below min_score 0.9999" in none.err
    for words, error in (
        (["--all"], "give that too, or say how many hits with -k"),
        (["--min-score", "2"], "from -1 to 1"),
        (["--offset", "-1"], "offset is an integer of at least 0"),
        (["--captions", "--offset", "1"], "leave them out with --captions"),
    ):
        refused = run("search", "green", *words)
        assert (refused.code, error in refused.err) == (2, True), refused.err


def test_search_leaves_out_what_is_unlikely(run: Run, indexed: Path, encoder: ColorEncoder) -> None:
    encoder.calibration = FITTED  # type: ignore[attr-defined]
    hits = run("search", "green", "--json").json["hits"]  # type: ignore[index]
    chance = hits[0]["probability"]
    assert chance > hits[1]["probability"]
    assert f"{chance:.0%}  " in run("search", "green", "-k", "1").out
    one = run("search", "green", "--min-probability", str(chance), "--json").json
    assert [hit["probability"] for hit in one["hits"]] == [chance]  # type: ignore[index]
    none = run("search", "green", "--min-probability", "0.999", "--contact-sheet", "none.html")
    assert none.code == 1
    assert none.out == "nothing found\n"
    assert f"note: the best hit has probability {chance:.2g}, below min_probability 0.999" in none.err
    assert run("search", "green", "--min-probability", "0.999", "--json").json["notes"]  # type: ignore[index]
    refused = run("search", "photos/red.png", "--min-probability", "0.5")
    assert (refused.code, "words alone" in refused.err) == (2, True)


@pytest.mark.parametrize("name", ["hits.png", "hits.html", "deep/er/hits.jpg"])
def test_contact_sheet(run: Run, indexed: Path, tmp_path: Path, name: str) -> None:
    done = run("search", "red", "--contact-sheet", name, "-k", "4")
    assert done.code == 0
    if name.endswith("html"):
        assert (tmp_path / name).read_text(encoding="utf-8").count("<img") == 4
    else:
        sheet = Image.open(tmp_path / name).convert("RGB")
        colors = sheet.getcolors(1 << 20)
        assert colors is not None
        assert max((count for count, color in colors if color == (255, 0, 0)), default=0) > 1000 or name[-3:] == "jpg"


def test_the_nearest_collection_is_found(run: Run, indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(indexed)
    assert run("search", "red", "-k", "1").code == 0
    monkeypatch.setenv("MMALIGN_COLLECTION", "/nowhere.mm")
    done = run("search", "red")
    assert done.code == 1
    assert "no collection at /nowhere.mm" in done.err


def test_info_and_remove(run: Run, indexed: Path) -> None:
    told = run("info", "--json").json
    assert (told["items"], told["encoder"], told["columns"]) == (9, "color@1", {})  # type: ignore[index]
    lines = run("info").out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("encoder ")] == ["color@1"]
    (columns,) = (line for line in lines if line.startswith("columns "))
    assert columns.split(maxsplit=1)[1].startswith("of every item id, uri, ")
    assert not [line for line in lines if line.startswith(("renamed ", "recall "))], "there is nothing to say of these"
    assert not [line for line in lines if line.startswith("views ")], "nobody has searched captions"
    assert run("search", "something red", "--captions").code == 0
    assert "views          captions 3 rows" in run("info").out.splitlines()
    assert run("remove", "photos/red.png", "--json").json == {"removed": 1}
    assert run("remove", "--where", "width > height", "--purge", "--json").json == {"removed": 4}
    assert run("info", "--json").json["items"] == 4  # type: ignore[index]
    assert "something red" not in run("search", "red").out


def test_doctor_finds_what_is_wrong(run: Run, indexed: Path) -> None:
    done = run("doctor", "--json")
    assert done.code == 0, done.out
    (indexed / "red.png").unlink()
    done = run("doctor", "--json")
    assert done.code == 1
    wrong = [check for check in done.json if not check["ok"]]  # type: ignore[attr-defined]
    assert [(check["name"], check["detail"]) for check in wrong] == [("files", "1 of 9 pictures are gone")]
    assert "--prune" in wrong[0]["remedy"]
    assert "BAD  files" in run("doctor").out


def test_recipes_and_models(run: Run) -> None:
    assert {recipe["name"] for recipe in run("recipes", "--json").json} >= {"flat", "hnsw", "ivf-pq"}  # type: ignore[attr-defined]
    assert "hnsw" in run("recipes").out
    models = run("models", "--json").json
    assert {"spec", "dim", "bytes", "licence", "cached", "quality"} <= models[0].keys()  # type: ignore[index]
    assert "lite@1" in run("models").out


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["index", "nowhere"], 1, "does not exist"),
        (["index", "empty"], 1, "no picture"),
        (["index", "list.csv"], 2, "--collection NAME.mm"),
        (["index", "-"], 2, "--collection NAME.mm"),
        (["index", "photos", "--encoder", "ligth"], 2, "lite"),
        (["index", "photos", "--recipe", "hnws"], 2, "hnsw"),
        (["search", "red", "-c", "nowhere.mm"], 1, "mmalign index FOLDER"),
        (["search", ""], 2, "the query is empty"),
        (["search", "red", "-k", "-1"], 2, "at least 0"),
        (["search", "red", "--all"], 2, "--all gives all hits from --min-score on"),
        (["search", "red", "--view", "pages", "--all"], 2, "view must be image or captions, got 'pages'"),
        (["search", "red", "--captions", "--all"], 2, "are for pictures; leave them out with --captions"),
        (["search", "red", "-c", "x:/y.mm"], 2, "x:/y.mm is no place to use"),
        (["search", "red", "--where", "nope = 1"], 2, "columns here: id, uri"),
        (["search", "red", "--where", ""], 2, "it is empty"),
        (["search", "red", "--where", "'kind' = 'image'"], 2, "single quotes is a text"),
        (["search", "red", "--captions", "--where", "kind = 3"], 2, "kind is text, because of row 1: 'image'"),
        (["remove", "--where", "kind = ?"], 2, "placeholder"),
        (["search", "no-such.jpg"], 2, "double quotes"),
        (["search", "red", "--min-probability", "0.5"], 1, "mmalign eval calibration"),
        (["search", "red", "--min-probability", "1.5"], 2, "from 0 to 1"),
        (["search", "red", "--min-probability", "nan"], 2, "from 0 to 1"),
        (["search", "red", "--min-probability", "0.5", "--captions"], 2, "leave it out with --captions"),
        (["search", "red", "--contact-sheet", "x.pdf"], 2, ".png, .jpg, .webp or .html"),
        (["remove"], 2, "ids or where"),
        (["eval", "retrieval", "--manifest", "nowhere.jsonl"], 1, "nowhere.jsonl"),
    ],
)
def test_errors_say_what_to_do(run: Run, indexed: Path, words: list[str], status: int, message: str) -> None:
    (indexed.parent / "empty").mkdir()
    (indexed.parent / "list.csv").write_text("path\nphotos/red.png\n", encoding="utf-8")
    done = run(*words)
    assert done.code == status, done
    assert message in done.err
    assert done.err.startswith("error: ")
    assert "Traceback" not in done.err
    assert not (indexed.parent / "empty.mm").exists(), "a failed first run leaves nothing behind"


def test_k_zero_and_k_beyond_the_size(run: Run, indexed: Path) -> None:
    assert run("search", "red", "-k", "0", "--json").json["hits"] == []  # type: ignore[index]
    assert run("search", "red", "-k", "0").out == "nothing found\n"
    assert len(run("search", "red", "-k", "100000", "--json").json["hits"]) == 9  # type: ignore[index]


def test_a_very_long_query_works_and_says_so(run: Run, indexed: Path) -> None:
    done = run("search", "red " * 2500, "-k", "1")
    assert done.code == 0
    assert "its end was ignored" in done.err


def test_a_collection_of_another_encoder_or_a_newer_format(run: Run, indexed: Path) -> None:
    description = indexed.parent / "photos.mm" / "collection.json"
    values = json.loads(description.read_text(encoding="utf-8"))
    # As earlier versions wrote it: it is changed here.
    del values["checksum"]
    description.write_text(json.dumps(values | {"fingerprint": "0" * 64}), encoding="utf-8")
    assert "have changed" in run("search", "red").err
    description.write_text(json.dumps(values | {"encoder": "other@1", "fingerprint": "0" * 64}), encoding="utf-8")
    assert "was made with other@1" in run("index", "photos", "--encoder", "lite").err
    description.write_text(json.dumps(values | {"format": 99}), encoding="utf-8")
    assert "upgrade with: pip install --upgrade mmalign" in run("search", "red").err
    description.write_text("{", encoding="utf-8")
    assert "is damaged" in run("search", "red").err


def test_a_read_only_parent_asks_for_a_place(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere, so the answer of the operating system is replaced.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    done = run("index", "photos")
    assert done.code == 1
    assert "--collection NAME.mm" in done.err


def test_version_and_help(run: Run) -> None:
    assert run("--version").out.startswith("mmalign 0.")
    assert "mmalign search" in run("--help").out


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    gallery = Path(__file__).resolve().parents[2] / "examples" / "gallery" / "images"
    for copy in range(8):
        for path in gallery.glob("*.png"):
            (photos / str(copy)).mkdir(parents=True, exist_ok=True)
            Image.open(path).convert("RGB").point(lambda value, copy=copy: value ^ copy).save(
                photos / str(copy) / path.name
            )
    collection = tmp_path / "photos.mm"
    process = subprocess.Popen(
        [sys.executable, "-m", "mmalign.cli", "index", str(photos), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(collection.glob("items.lance/data/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "Go on with the same command" in err
    kept = json.loads(out)["added"]
    assert 0 < kept < 8 * len(list(gallery.glob("*.png")))


def test_remove_says_which_names_were_unknown(run: Run, tmp_path: Path) -> None:
    Collection.create(tmp_path / "v.mm", encoder=None, dim=4).add_embeddings([1, 2, 12], np.eye(3, 4))
    done = run("remove", "12", "nobody", "--collection", "v.mm")
    assert (done.code, done.out) == (0, "v.mm: removed 1, 2 items left\n")
    assert done.err == "no item has the id or path 'nobody'\n"
    done = run("remove", "12", "nobody", "--collection", "v.mm", "--json")
    assert (done.code, done.json) == (1, {"removed": 0, "unknown": ["12", "nobody"]})
    done = run("remove", "--where", "id = 'x'", "--collection", "v.mm", "--json")
    assert (done.code, done.json) == (0, {"removed": 0})
