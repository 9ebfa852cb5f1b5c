"""Ctrl-C at each stage of a command: one clear line, status 130, what was done is kept, and nothing half-made stays."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.collection.collection import Collection
from mmalign.errors import StorageError
from tests.cli.conftest import Run
from tests.tools.color_encoder import COLORS, ColorEncoder, paint

PICTURES = 60


class StoppedEncoder(ColorEncoder):
    """Is stopped by Ctrl-C once it has encoded so many pictures, the first time."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__()
        self.after = after

    def encode_image(self, images: Iterable[Any], *, batch_size: int = 32) -> np.ndarray:
        if self.after is not None and self.encoded >= self.after:
            self.after = None
            raise KeyboardInterrupt
        return super().encode_image(images, batch_size=batch_size)


@pytest.fixture
def encoder() -> StoppedEncoder:
    return StoppedEncoder()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(PICTURES):
        paint(tmp_path / "photos" / f"{i:02}.png", list(COLORS)[i % len(COLORS)], detail=i)
    return tmp_path / "photos"


def stop_in(monkeypatch: pytest.MonkeyPatch, place: str, *, error: BaseException | None = None) -> None:
    """Ctrl-C, or an error, as soon as a function is called; the second call of it works."""
    owner, _, name = place.rpartition(".")
    module = sys.modules[owner] if owner in sys.modules else sys.modules["mmalign.collection.ingest"].Ingest
    plain = getattr(module, name)

    def stopped(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(module, name, plain)
        raise error or KeyboardInterrupt

    monkeypatch.setattr(module, name, stopped)


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "photos")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("mmalign.collection.collection.load_encoder", "stopped before anything was done"),
        ("mmalign.collection.opening.make_folder", "stopped before anything was done"),
        (
            "Ingest._scan",
            "stopped while the source was read; nothing was encoded yet. Go on with the same command.",
        ),
        ("Ingest._compare", "stopped while the source was read; nothing was encoded yet. Go on with the same command."),
        ("Ingest._read", "stopped with 60 pictures left; nothing was encoded yet. Go on with the same command."),
    ],
)
def test_before_anything_is_encoded(
    run: Run, photos: Path, place: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in(monkeypatch, place)
    done = run("index", "photos")
    assert (done.code, done.out, done.err) == (130, "", told + "\n")
    assert left_behind(photos.parent) == []
    assert run("index", "photos").out.startswith(f"{photos}.mm: 60 items (60 added; 60 encoded")


def test_while_pictures_are_encoded(run: Run, photos: Path, encoder: StoppedEncoder) -> None:
    encoder.after = 32
    done = run("index", "photos")
    assert done.code == 130
    assert done.out.startswith(f"{photos}.mm: 32 items (32 added; 32 encoded in ")
    assert done.err == "stopped with 28 pictures left; what was encoded is kept. Go on with the same command.\n"
    assert run("index", "photos").out.startswith(f"{photos}.mm: 60 items (28 added, 32 unchanged; 28 encoded")


def test_the_document_says_what_is_left(run: Run, photos: Path, encoder: StoppedEncoder) -> None:
    encoder.after = 32
    done = run("index", "photos", "--json")
    told = json.loads(done.out)
    assert (done.code, told["added"], told["left"]) == (130, 32, 28)


def test_a_collection_that_was_there_stays(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty or not: only what this command made, and put nothing into, is removed."""
    Collection.create("photos.mm", encoder=ColorEncoder())
    stop_in(monkeypatch, "Ingest._read")
    assert run("index", "photos").code == 130
    assert left_behind(photos.parent) == ["photos.mm"]
    assert run("index", "photos").code == 0
    paint(photos / "new.png", "red", detail=90)
    stop_in(monkeypatch, "Ingest._read")
    done = run("index", "photos")
    assert done.out.startswith(f"{photos}.mm: 60 items (60 unchanged; 0 encoded")
    assert done.last.startswith("stopped with 1 pictures left")
    assert len(Collection.open("photos.mm", encoder=ColorEncoder())) == 60


@pytest.mark.parametrize("place", ["Ingest._scan", "Ingest._compare", "Ingest._read"])
def test_an_error_leaves_no_empty_collection_either(
    run: Run, photos: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_in(monkeypatch, place, error=StorageError("the disk is full"))
    done = run("index", "photos")
    assert (done.code, done.err) == (1, "error: the disk is full\n")
    assert left_behind(photos.parent) == []


@pytest.mark.parametrize("place", ["build_index", "measure_recall", "publish"])
def test_while_the_index_is_built(run: Run, photos: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "mmalign.index.lifecycle" if place == "publish" else "mmalign.collection.indexing"
    stop_in(monkeypatch, f"{module}.{place}")
    done = run("index", "photos", "--recipe", "IVF4,Flat")
    assert done.code == 130
    assert done.out.startswith(f"{photos}.mm: 60 items (60 added; 60 encoded")
    assert done.last == (
        "stopped before the index was brought up to date; all items are kept, and those that it lacks are searched one "
        "by one. Go on with the same command."
    )
    index = photos.with_name("photos.mm") / "index"
    assert not index.exists() or not list(index.iterdir())
    assert len(run("search", "red", "-k", "60", "--paths-only").out.splitlines()) == 60
    assert run("index", "photos", "--recipe", "IVF4,Flat").code == 0
    assert Collection.open("photos.mm").index_manifest is not None


@pytest.mark.parametrize(
    ("place", "words", "told"),
    [
        ("mmalign.cli.collections.open_collection", ["info"], "stopped; nothing was changed"),
        ("mmalign.cli.searching.open_collection", ["search", "red"], "stopped; nothing was changed"),
        (
            "mmalign.evaluation.bench_indexes",
            ["bench", "index", "photos.mm"],
            "kept in --out. Go on with the same",
        ),
        ("mmalign.cli.demonstration.run_demo", ["demo", "--output", "new"], "Go on with the same command."),
        (
            "mmalign.training.train_contrastive",
            ["train", "contrastive", "--config", "x.toml", "--out", "run"],
            "kept in --out. Go on with the same command.",
        ),
        (
            "mmalign.training.train_captioner",
            ["train", "captioner", "--text", "x.txt", "--out", "run"],
            "kept in --out. Go on with the same command.",
        ),
        (
            "mmalign.training.train_grounding",
            ["train", "grounding", "--manifest", "x.jsonl", "--out", "run"],
            "kept in --out. Go on with the same command.",
        ),
        (
            "mmalign.evaluation.evaluate_retrieval",
            ["eval", "retrieval", "--manifest", "x.jsonl"],
            "stopped; no figures were written",
        ),
    ],
)
def test_every_command_says_one_line(
    run: Run, photos: Path, place: str, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("index", "photos").code == 0
    (photos.parent / "x.toml").write_text(
        '[data]\nmanifest = "x.jsonl"\ntrain = [{ splits = ["train"] }]\ndev = { splits = ["dev"] }\n'
        '[model]\nkind = "lite"\n',
        encoding="utf-8",
    )
    __import__(place.rpartition(".")[0])
    stop_in(monkeypatch, place)
    done = run(*words)
    assert (done.code, done.out) == (130, "")
    assert told in done.err
    assert len(done.err.splitlines()) == 1
    assert not (photos.parent / "new").exists()


def test_a_purge_says_that_it_is_not_done(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("index", "photos")
    plain = Collection.remove

    def half(self: Collection, *args: Any, **options: Any) -> Any:
        monkeypatch.setattr(Collection, "remove", plain)
        raise KeyboardInterrupt

    monkeypatch.setattr(Collection, "remove", half)
    done = run("remove", "--where", "width > 1", "--purge")
    assert done.code == 130
    assert done.err == (
        "stopped; items may be removed already, and bytes of them still be on disk. The same command again finishes "
        "it.\n"
    )
    assert "removed 60" in run("remove", "--where", "width > 1", "--purge").out


def test_captions_that_were_written_are_kept(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the block that was under way, too: a block takes minutes."""
    from mmalign.captioning.captioner import Captioner

    for i in range(PICTURES):
        (photos / f"{i:02}.txt").write_text(f"{list(COLORS)[i % len(COLORS)]} wall\n", encoding="utf-8")
    run("index", "photos")
    plain, calls = Captioner.caption_many, 0

    def stopped(self: Captioner, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return plain(self, *args, **options)

    monkeypatch.setattr(Captioner, "caption_many", stopped)
    words = ("caption", "--write", "--mode", "nearest", "-c", "photos.mm")
    done = run(*words)
    assert (done.code, done.out) == (130, "")
    assert done.last == "stopped; 32 captions are written as written_caption of photos.mm. The same command goes on."
    written = "written_caption IS NOT NULL"
    assert len(json.loads(run("search", "red", "--where", written, "-k", "99", "--json").out)["hits"]) == 32
    assert "28 captions written" in run(*words).err
    calls = 0
    as_json = run(*words, "--again", "--json")
    assert as_json.code == 130
    assert len(json.loads(as_json.out)) == 32


def test_captions_are_written_every_few_seconds(run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ends the process, as a fault or a kill does, costs no more than that."""
    from mmalign.captioning.captioner import Captioner

    for i in range(PICTURES):
        (photos / f"{i:02}.txt").write_text(f"{list(COLORS)[i % len(COLORS)]} wall\n", encoding="utf-8")
    run("index", "photos")
    plain, calls = Captioner.caption_many, 0

    def failing(self: Captioner, *args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("a fault")
        return plain(self, *args, **options)

    monkeypatch.setattr(Captioner, "caption_many", failing)
    collection = Collection.open("photos.mm")
    with pytest.raises(RuntimeError, match="a fault"):
        list(collection.caption_items(mode="nearest", progress=False))
    assert "written_caption" not in collection.columns
    calls = 0
    monkeypatch.setattr("mmalign.collection.captioner._COMMIT_SECONDS", 0.0)
    with pytest.raises(RuntimeError, match="a fault"):
        list(collection.caption_items(mode="nearest", progress=False))
    hits = collection.search("red", k=99, where="written_caption IS NOT NULL")
    assert len(hits) == 32


@pytest.mark.usefixtures("interruptible")
def test_while_modules_are_read(tmp_path: Path) -> None:
    """A real signal, before the command has begun."""
    for module in ("typer", "numpy"):
        code = (
            "import importlib.abc, os, signal, sys\n"
            "class Stop(importlib.abc.MetaPathFinder):\n"
            "    def find_spec(self, name, path, target=None):\n"
            f"        if name == {module!r}:\n"
            "            sys.meta_path.remove(self)\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Stop())\n"
            f"sys.argv = ['mmalign', 'index', {str(tmp_path)!r}]\n"
            "from mmalign.cli import main\n"
            "main()\n"
        )
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 130, (done.stderr, time.monotonic() - began)
        assert done.stderr == "stopped before anything was done\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
