"""`mmalign index --reencode` as a person uses it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mmalign.collection.collection import Collection
from mmalign.collection.description import CollectionManifest
from mmalign.encoders.registry import load_encoder
from tests.cli.conftest import Run
from tests.tools.color_encoder import ColorEncoder, OtherColorEncoder, paint

# Runs the command in a process of its own, with an encoder that takes its time and can be named.
SLOW = """
import sys
import mmalign.collection.collection
from mmalign import cli
from mmalign.collection import embedding_cache as renewal
from tests.tools.reencoding import SlowEncoder
load = mmalign.collection.collection.load_encoder
mmalign.collection.collection.load_encoder = lambda spec: SlowEncoder() if spec == "color@2" else load(spec)
renewal._COMMIT_PICTURES = 20
sys.argv = ["mmalign", *sys.argv[1:]]
cli.main()
"""


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command, with two versions of `lite` that are quick: `color@1`, and `color@2`, which is the newest."""
    kinds = {"color@1": ColorEncoder, "color@2": OtherColorEncoder, "lite": OtherColorEncoder}
    monkeypatch.setattr(
        "mmalign.collection.collection.load_encoder",
        lambda spec: kinds[spec]() if spec in kinds else load_encoder(spec),
    )
    monkeypatch.setattr("mmalign.collection.reencode.newer_version", {"color@1": "color@2"}.get)
    return run


@pytest.fixture
def photos(run: Run, pictures: Path) -> Path:
    assert run("index", "photos", "--encoder", "color@1").code == 0
    return pictures


def made_with(photos: Path) -> str | None:
    return CollectionManifest.read(photos.with_name("photos.mm")).encoder


def test_the_nearest_collection_and_the_newest_version(run: Run, photos: Path) -> None:
    done = run("index", "--reencode")
    assert done.code == 0, done.err
    assert "9 items made with color@2 (9 pictures encoded; " in done.out
    assert made_with(photos) == "color@2"
    assert "red.png" in run("search", "red", "-k", "1").out
    assert "nothing to do" in run("index", "--reencode").out


def test_json(run: Run, photos: Path) -> None:
    told = run("index", "--reencode", "--json", "--collection", "photos.mm").json["reencode"]
    assert set(told) == {"encoder", "items", "encoded", "kept", "updated", "dropped", "seconds"}
    assert (told["encoder"], told["items"], told["encoded"]) == ("color@2", 9, 9)


def test_with_a_source_it_is_brought_up_to_date_too(run: Run, photos: Path) -> None:
    paint(photos / "new.png", "red", detail=80)
    told = run("index", "photos", "--reencode", "--json").json
    assert (told["reencode"]["encoded"], told["added"], told["unchanged"]) == (9, 1, 9)
    assert made_with(photos) == "color@2"
    assert len(Collection.open("photos.mm")) == 10


def test_with_a_source_that_has_no_collection_yet(run: Run, photos: Path, tmp_path: Path) -> None:
    paint(tmp_path / "others" / "red.png", "red")
    told = run("index", "others", "--reencode", "--encoder", "color@1", "--json").json
    assert told["added"] == 1
    assert "reencode" not in told


def test_pictures_that_are_gone(run: Run, photos: Path) -> None:
    (photos / "red.png").unlink()
    done = run("index", "--reencode")
    assert done.code == 1
    assert "1 of 9 items" in done.err
    assert "red.png: not found" in done.err
    assert "--drop-missing" in done.err
    assert made_with(photos) == "color@1"
    listed = run("index", "--reencode", "--json")
    assert listed.code == 1
    assert listed.json == {"unreadable": [{"uri": str(photos / "red.png"), "reason": "not found"}]}
    done = run("index", "--reencode", "--drop-missing")
    assert done.code == 0
    assert f"removed {photos / 'red.png'}: not found" in done.err
    assert "8 items made with color@2 (8 pictures encoded, 1 item removed; " in done.out


def test_old_versions_are_told_of_the_newer_one(run: Run, photos: Path) -> None:
    note = "made with color@1; color@2 is better; mmalign index --reencode"
    assert note in run("info").err
    assert note in run("index", "photos").err
    assert note in run("info", "--json").json["notes"][0]
    told = [check for check in run("doctor", "--json").json if check["name"] == "encoder"]
    assert [(check["ok"], check["detail"]) for check in told] == [(True, "made with color@1; color@2 is better")]
    assert told[0]["remedy"].startswith("mmalign index --reencode --collection ")
    assert run(*told[0]["remedy"].split()[1:]).code == 0
    assert run("info").err == run("index", "photos").err == ""
    assert [check for check in run("doctor", "--json").json if check["name"] == "encoder"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["index"], "say what to index"),
        (["index", "photos", "--drop-missing"], "belongs to --reencode"),
        (["index", "--reencode", "--prune"], "need a SOURCE"),
        (["index", "--reencode", "--collection", "nowhere.mm"], "no collection at nowhere.mm"),
        (["index", "--reencode", "--encoder", "lite@99"], "--upgrade mmalign"),
        (["index", "photos", "--encoder", "color@2"], "index --reencode --encoder color@2 --collection"),
    ],
)
def test_errors_say_what_to_do(run: Run, photos: Path, words: list[str], message: str) -> None:
    done = run(*words)
    # What is not there, or is made with something else, ends with 1, what means nothing with 2.
    assert done.code == (1 if "nowhere.mm" in words or "color@2" in words else 2)
    assert message in done.err
    assert made_with(photos) == "color@1"


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_says_how_to_go_on(run: Run, tmp_path: Path, root: Path) -> None:
    for i in range(100):
        paint(tmp_path / "photos" / f"{i}.png", "red", detail=i)
    run("index", "photos", "--encoder", "color@1")
    command = [sys.executable, "-c", SLOW, "index", "--reencode", "--encoder", "color@2", "--json"]
    process = subprocess.Popen(
        [*command, "--collection", str(tmp_path / "photos.mm")],
        cwd=root,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("photos.mm/generation-2/vectors.lance/data/*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "Go on with the same command" in err
    stopped = json.loads(out)["reencode"]
    assert 0 < stopped["encoded"] < 100
    assert "to encode it anew with color@2 was begun" in run("info").err
    told = run("index", "--reencode", "--encoder", "color@2", "--json").json["reencode"]
    assert (told["kept"], told["encoded"] + told["kept"]) == (stopped["encoded"], 100)


def test_ctrl_c_before_the_first_picture_promises_nothing(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(OtherColorEncoder, "encode_image", stopped)
    done = run("index", "--reencode")
    assert done.code == 130
    told = "is as it was, and nothing was encoded yet. Go on with the same command."
    assert done.err.splitlines()[-1] == f"stopped; {photos.with_name('photos.mm')} {told}"
