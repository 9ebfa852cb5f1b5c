"""Encoding anew keeps all but the embeddings, and what is seen is the old collection or the new one, whole.

The oracle is a collection that was made with the second encoder from the start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.collection import generation_files
from mmalign.collection.collection import Collection
from mmalign.collection.description import CollectionManifest
from mmalign.errors import (
    CollectionError,
    CollectionFormatError,
    DimensionError,
    EncoderMismatchError,
    InputError,
    UnreadableItemsError,
)
from mmalign.utils.locks import lock
from tests.tools.color_encoder import COLORS, ColorEncoder, OtherColorEncoder, paint

PICTURES = 120
QUERIES = ["red", "blue white", "green", "grey black", "yellow"]

# Every step whose interruption could be seen on disk.
POINTS = [
    "mmalign.collection.reencode:Reencode._prepare:after:1",
    "mmalign.collection.embedding_cache:ReembedJob.flush:before:3",
    "mmalign.collection.embedding_cache:ReembedJob.flush:after:3",
    "mmalign.collection.view_table:Store.upsert:after:1",
    "mmalign.collection.embedding_cache:ReembedJob.join:before:1",
    "mmalign.collection.embedding_cache:Store.embeddings:after:1",
    "mmalign.collection.embedding_cache:ReembedJob.join:after:1",
    "mmalign.index.lifecycle.versions:rename_version:after:1",
    "mmalign.index.lifecycle.versions:replace_pointer:after:1",
    "mmalign.collection.reencode:put_in_use:before:1",
    "mmalign.collection.reencode:sync_tree:after:1",
    "mmalign.collection.description:CollectionManifest.write:after:1",
    "mmalign.collection.reencode:clear_earlier:before:1",
]


@pytest.fixture(autouse=True)
def _by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both encoders can be loaded by their names, as encoders that come with mmalign can."""
    known = {kind.name: kind for kind in (ColorEncoder, OtherColorEncoder)}
    monkeypatch.setattr(
        "mmalign.collection.collection.load_encoder", lambda spec: known[spec]() if spec in known else spec
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and a collection of each encoder with the same items; an index, captions and metadata included."""
    folder = tmp_path_factory.mktemp("reencode")
    items = []
    for i in range(PICTURES):
        path = paint(folder / "photos" / f"{i:04}.png", list(COLORS)[i % len(COLORS)], detail=i)
        items.append({"path": str(path), "year": 1900 + i, "captions": [f"caption {i} red"] if i % 10 == 0 else []})
    items[7]["id"] = "seven"
    shutil.copy(folder / "photos" / "0003.png", folder / "photos" / "copy.png")
    items.append({"path": str(folder / "photos" / "copy.png"), "year": 3000, "captions": []})
    for encoder in (ColorEncoder(), OtherColorEncoder()):
        collection = Collection.create(folder / f"{encoder.name}.mm", encoder=encoder)
        collection.add(items[:60], progress=False)
        collection.add(items[60:], progress=False)
        collection.update(["seven"], {"mood": "calm"})
        collection.remove(where="year = 1911")
        collection.build_index("flat", progress=False)
        collection.search_captions("red")
    return folder


@pytest.fixture
def collection(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made / "color@1.mm", tmp_path / "photos.mm")


@pytest.fixture
def reference(made: Path) -> Collection:
    return Collection.open(made / "color@2.mm")


def contents(path: Path) -> list[tuple[dict[str, Any], np.ndarray]]:
    """All that a collection holds, in its order."""
    store = Collection.open(path).snapshot()
    names = [*store.columns, "id", "uri", "sha256", "kind", "width", "height", "bytes", "mtime_ns", "said", "captions"]
    _, table = store.scan(names)
    _, matrix = store.embeddings()
    return list(zip(table.to_pylist(), matrix, strict=True))


def check_same(path: Path, reference: Collection) -> None:
    """Everything is as if the collection had been made with the second encoder."""
    found, expected = contents(path), contents(reference.path)
    assert [row for row, _ in found] == [row for row, _ in expected]
    for (_, mine), (_, theirs) in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-3)
    check_searches(Collection.open(path), reference)


def check_searches(opened: Collection, reference: Collection) -> None:
    for query in QUERIES:
        mine, theirs = opened.search(query), reference.search(query)
        assert mine.notes == ()
        assert [hit.score for hit in mine] == pytest.approx([hit.score for hit in theirs], abs=1e-3)
        assert [hit.id for hit in mine] == [hit.id for hit in theirs]
        captions, expected = opened.search_captions(query), reference.search_captions(query)
        assert [(hit.id, hit.metadata) for hit in captions] == [(hit.id, hit.metadata) for hit in expected]


def start(collection: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.tools.reencoding", str(collection), *words]
    root = Path(__file__).resolve().parents[2]
    return subprocess.Popen(command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    told: dict[str, Any] = json.loads(out)
    return told


def test_all_but_the_embeddings_stays(collection: Path, made: Path, reference: Collection) -> None:
    opened = Collection.open(collection)
    before = contents(collection)
    encoder = OtherColorEncoder()
    report = opened.reencode(encoder, progress=False)
    assert (report.encoder, report.items, report.encoded, report.kept) == ("color@2", PICTURES, PICTURES - 1, 0)
    assert (report.updated, report.dropped) == (0, ())
    assert encoder.encoded == PICTURES - 1, "two files with the same bytes are encoded once"
    assert [row for row, _ in contents(collection)] == [row for row, _ in before]
    assert (opened.encoder, opened.dim) == (encoder, OtherColorEncoder.dim)
    check_same(collection, reference)
    manifest = opened.check_index()
    assert manifest is not None
    assert (manifest.asked, manifest.rows, manifest.dim) == ("flat", PICTURES, OtherColorEncoder.dim)
    assert manifest.fingerprint == encoder.fingerprint


def test_a_second_run_does_nothing(collection: Path) -> None:
    opened = Collection.open(collection)
    opened.reencode("color@2", progress=False)
    report = opened.reencode("color@2", progress=False)
    assert (report.items, report.encoded, report.kept) == (PICTURES, 0, 0)
    assert CollectionManifest.read(collection).generation == 2
    # Without a name: the newest version of its own, which it is.
    assert opened.reencode(progress=False).encoded == 0


def test_there_and_back(collection: Path, made: Path) -> None:
    opened = Collection.open(collection)
    opened.reencode("color@2", progress=False)
    opened.reencode("color@1", progress=False)
    assert CollectionManifest.read(collection).generation == 3
    check_same(collection, Collection.open(made / "color@1.mm"))


def test_a_collection_that_is_encoded_anew_goes_on_as_any_other(collection: Path, made: Path) -> None:
    opened = Collection.open(collection)
    opened.reencode("color@2", progress=False)
    new = paint(made / "later" / "new.png", "cyan", detail=95)
    assert opened.add([new], progress=False).added == 1
    report = opened.add(made / "photos", progress=False)
    assert (report.unchanged, report.added, report.kept_out) == (PICTURES, 0, 1), "the one that was removed stays out"
    assert str(new) in {hit.uri for hit in opened.search(new, k=20)}
    assert opened.remove(["seven"]) == 1
    assert opened.refresh_index(progress=False) is not None
    assert len(Collection.open(collection)) == PICTURES


def test_an_older_mmalign_is_told_to_upgrade(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Collection.open(collection).reencode("color@2", progress=False)
    # What the first version reads up to.
    monkeypatch.setattr("mmalign.collection.description.FORMAT", 1)
    with pytest.raises(CollectionFormatError, match="pip install --upgrade mmalign"):
        Collection.open(collection)


# Stopped ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_a_step(collection: Path, made: Path, reference: Collection, point: str) -> None:
    process = start(collection, point)
    _, err = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, f"{point} was never reached\n{err}"
    gap = Collection.open(collection)
    check_searches(gap, Collection.open(made / f"{gap.description.encoder}.mm"))
    report = finish(start(collection))
    assert report["items"] == PICTURES
    check_same(collection, reference)
    if gap.description.generation == 1:
        assert report["encoded"] + report["kept"] == PICTURES - 1
    check_searches(gap, reference)


@pytest.mark.parametrize("seed", range(5))
def test_killed_at_a_random_moment(collection: Path, made: Path, reference: Collection, seed: int) -> None:
    local = np.random.default_rng(seed)
    for _ in range(3):
        process = start(collection, "--slow")
        work = collection / "generation-2" / "vectors.lance"
        while not work.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(local.uniform(0.0, 1.2))
        process.kill()
        process.communicate(timeout=120)
        opened = Collection.open(collection)
        check_searches(opened, Collection.open(made / f"{opened.description.encoder}.mm"))
    finish(start(collection))
    check_same(collection, reference)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_what_was_encoded(collection: Path, made: Path, reference: Collection) -> None:
    process = start(collection, "--slow")
    deadline = time.monotonic() + 60
    while len(list(collection.glob("generation-2/vectors.lance/data/*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    stopped = json.loads(out)
    assert 0 < stopped["encoded"] < PICTURES
    check_same(collection, Collection.open(made / "color@1.mm"))
    report = Collection.open(collection).reencode("color@2", progress=False)
    assert report.kept == stopped["encoded"]
    assert report.encoded == PICTURES - 1 - report.kept
    check_same(collection, reference)


def test_another_encoder_begins_again(collection: Path, reference: Collection) -> None:
    process = start(collection, "mmalign.collection.embedding_cache:ReembedJob.join:before:1")
    process.communicate(timeout=120)

    class Third(OtherColorEncoder):
        name = "color@3"
        fingerprint = "3" * 64

        def _turn(self, rows: np.ndarray) -> np.ndarray:
            return -super()._turn(rows)

    report = Collection.open(collection).reencode(Third(), progress=False)  # type: ignore[arg-type]
    assert (report.kept, report.encoded) == (0, PICTURES - 1)
    for (mine, vector), (theirs, other) in zip(contents(collection), contents(reference.path), strict=True):
        assert mine == theirs
        np.testing.assert_allclose(vector, -other, atol=1e-3)


# Other processes -------------------------------------------------------------------------------------------------


def test_searches_go_on_and_then_see_the_new_collection(collection: Path, made: Path, reference: Collection) -> None:
    old = Collection.open(made / "color@1.mm")
    opened = Collection.open(collection)
    process = start(collection, "--slow")
    during = after = 0
    while process.poll() is None:
        told = opened.search("red", k=3)
        scores = [hit.score for hit in told]
        # Whole: the old or the new, index and all.
        assert told.notes == ()
        assert scores == pytest.approx([hit.score for hit in old.search("red", k=3)], abs=1e-3) or scores == (
            pytest.approx([hit.score for hit in reference.search("red", k=3)], abs=1e-3)
        )
        during += opened.description.encoder == "color@1"
        after += opened.description.encoder == "color@2"
    finish(process)
    assert during > 3
    check_searches(opened, reference)
    assert opened.dim == OtherColorEncoder.dim


def test_what_is_added_changed_and_removed_meanwhile_is_not_lost(collection: Path, made: Path, tmp_path: Path) -> None:
    process = start(collection, "--slow")
    while len(list(collection.glob("generation-2/vectors.lance/data/*"))) < 2 and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None
    opened = Collection.open(collection)
    new = [paint(tmp_path / f"new-{i}.png", "magenta", detail=40 + i) for i in range(5)]
    assert opened.add(new, progress=False).added == 5
    opened.update(["seven"], {"mood": "wild"})
    assert opened.remove(where="year = 1950") == 1
    finish(process)
    assert CollectionManifest.read(collection).encoder == "color@2"
    assert len(opened) == PICTURES + 4
    assert {hit.uri for hit in opened.search("magenta", k=30, copies=True)} >= set(map(str, new))
    row = {row["id"]: row for row, _ in contents(collection)}
    assert row["seven"]["mood"] == "wild"
    assert all(item["year"] != 1950 for item in row.values())
    expected = OtherColorEncoder().encode_image(new)
    vectors = {row["uri"]: vector for row, vector in contents(collection)}
    np.testing.assert_allclose([vectors[str(path)] for path in new], expected, atol=1e-3)


def test_the_swap_waits_for_a_writer_and_takes_what_it_wrote(collection: Path, tmp_path: Path) -> None:
    """A writer at work holds the swap up; what it commits in the last moment is in the new generation."""
    old = Collection.open(collection)
    picture = paint(tmp_path / "late.png", "red", detail=91)
    with old._writing() as held:
        process = start(collection)
        deadline = time.monotonic() + 60
        while len(list(collection.glob("generation-2/vectors.lance/data/*"))) < 6 and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        assert process.poll() is None, process.communicate()
        assert not (collection / "generation-2" / "items.lance").exists()
        vector = ColorEncoder().encode_image([picture])
        held.writer().upsert([{"id": "late", "uri": str(picture), "sha256": "0" * 64, "kind": "image"}], vector)
    assert finish(process)["items"] == PICTURES + 1
    assert old.has("late")
    assert {row["id"]: row for row, _ in contents(collection)}["late"]["sha256"] != "0" * 64


def test_a_writer_waits_for_the_swap_and_writes_to_the_new_collection(collection: Path, tmp_path: Path) -> None:
    opened = Collection.open(collection)
    picture = paint(tmp_path / "late.png", "red", detail=91)
    with lock(collection / generation_files.LOCK):
        thread = threading.Thread(target=opened.add, args=([picture],), kwargs={"progress": False})
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        # What the swap does while it holds the lock.
        other = Collection.create(tmp_path / "other.mm", encoder=OtherColorEncoder())
        shutil.copytree(other.path / "items.lance", collection / "generation-2" / "items.lance")
        following = CollectionManifest("color@2", OtherColorEncoder.fingerprint, OtherColorEncoder.dim, generation=2)
        following.write(collection)
    thread.join(60)
    assert [row["uri"] for row, _ in contents(collection)] == [str(picture)]


def test_the_caller_s_own_vectors_of_the_old_encoder_are_refused(collection: Path) -> None:
    class Turned(ColorEncoder):
        """Of the same width, so that its vectors cannot be told from the others by that."""

        name = "turned@1"
        fingerprint = "7" * 64

    opened = Collection.open(collection)
    vector = ColorEncoder().encode_text(["red"])[0]
    assert opened.search(vector, k=1)
    Collection.open(collection).reencode(Turned(), progress=False)
    with pytest.raises(EncoderMismatchError, match=r"encoded anew with turned@1 since it was opened"):
        opened.search(vector)
    with pytest.raises(EncoderMismatchError, match="open it again"):
        opened.add_embeddings(["v"], vector[None])
    again = Collection.open(collection, encoder=Turned())
    assert again.search(vector, k=1)
    assert again.add_embeddings(["v"], vector[None]).added == 1


def test_two_at_once(collection: Path, reference: Collection) -> None:
    process = start(collection, "--slow")
    while not (collection / "generation-2" / "vectors.lance").exists() and process.poll() is None:
        time.sleep(0.02)
    opened = Collection.open(collection)
    with pytest.raises(CollectionError, match="another process encodes"):
        opened.reencode("color@2", progress=False)
    with pytest.raises(CollectionError, match="another process encodes"):
        opened.remove(["seven"], purge=True)
    assert opened.has("seven")
    finish(process)
    check_same(collection, reference)


# Pictures that are gone ------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A collection whose pictures a test may change."""
    for i in range(6):
        paint(tmp_path / "photos" / f"{i}.png", list(COLORS)[i], detail=i)
    opened = Collection.create(tmp_path / "photos.mm", encoder=ColorEncoder())
    opened.add(tmp_path / "photos", metadata={"album": "a"}, progress=False)
    return tmp_path / "photos.mm"


def uris(path: Path) -> list[str]:
    return [Path(row["uri"]).name for row, _ in contents(path)]


def test_pictures_that_are_gone_are_listed_and_nothing_is_lost(own: Path, tmp_path: Path) -> None:
    before = contents(own)
    (tmp_path / "photos" / "1.png").unlink()
    (tmp_path / "photos" / "4.png").unlink()
    opened, encoder = Collection.open(own), OtherColorEncoder()
    with pytest.raises(UnreadableItemsError, match=r"(?s)2 of 6 items .* --drop-missing") as caught:
        opened.reencode(encoder, progress=False)
    assert [(Path(skip.uri).name, skip.reason) for skip in caught.value.unreadable] == [
        ("1.png", "not found"),
        ("4.png", "not found"),
    ]
    assert encoder.encoded == 0, "found out before anything is encoded"
    for (mine, vector), (theirs, other) in zip(contents(own), before, strict=True):
        assert mine == theirs
        np.testing.assert_array_equal(vector, other)
    report = opened.reencode(encoder, drop_missing=True, progress=False)
    assert (report.items, [Path(skip.uri).name for skip in report.dropped]) == (4, ["1.png", "4.png"])
    assert uris(own) == ["0.png", "2.png", "3.png", "5.png"]


def test_a_damaged_picture_is_listed_after_the_others_are_encoded(own: Path, tmp_path: Path) -> None:
    (tmp_path / "photos" / "2.png").write_bytes(b"no picture")
    opened, encoder = Collection.open(own), OtherColorEncoder()
    with pytest.raises(UnreadableItemsError, match=r"1 of 6 items .*\n.*2\.png: not a picture") as caught:
        opened.reencode(encoder, progress=False)
    assert len(caught.value.unreadable) == 1
    report = opened.reencode(encoder, drop_missing=True, progress=False)
    assert (encoder.encoded, report.kept, report.items) == (5, 5, 5)
    assert uris(own) == ["0.png", "1.png", "3.png", "4.png", "5.png"]


def test_a_copy_of_what_is_gone_is_enough(own: Path, tmp_path: Path) -> None:
    opened = Collection.open(own)
    shutil.copy(tmp_path / "photos" / "3.png", tmp_path / "copy.png")
    opened.add([tmp_path / "copy.png"], progress=False)
    (tmp_path / "photos" / "3.png").unlink()
    assert opened.reencode("color@2", progress=False).items == 7
    hits = opened.search("yellow", k=2, copies=True)
    assert hits[0].score == pytest.approx(hits[1].score)


def test_an_edited_picture_is_taken_as_it_is_now(own: Path, tmp_path: Path) -> None:
    path = tmp_path / "photos" / "0.png"
    paint(path, "white", detail=77, size=(50, 20))
    os.utime(path, ns=(1, 1))
    opened = Collection.open(own)
    report = opened.reencode("color@2", progress=False)
    assert (report.updated, report.items) == (1, 6)
    row = contents(own)[0][0]
    assert (row["width"], row["height"], row["mtime_ns"], row["album"]) == (50, 20, 1, "a")
    np.testing.assert_allclose(contents(own)[0][1], OtherColorEncoder().encode_image([path])[0], atol=1e-3)
    assert opened.add(tmp_path / "photos", progress=False).unchanged == 6, "and is known by its new bytes"


def test_nothing_left_is_refused_even_if_missing_ones_may_go(own: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "photos")
    with pytest.raises(UnreadableItemsError, match="6 of 6 items"):
        Collection.open(own).reencode("color@2", drop_missing=True, progress=False)
    assert len(Collection.open(own)) == 6


def test_vectors_without_pictures_cannot_be_encoded_anew(own: Path, tmp_path: Path) -> None:
    vectors = Collection.create(tmp_path / "vectors.mm", encoder=None, dim=4)
    vectors.add_embeddings(["a", "b"], np.eye(2, 4))
    with pytest.raises(InputError, match="without an encoder; say with which"):
        vectors.reencode(progress=False)
    with pytest.raises(UnreadableItemsError, match=r"(?s)2 of 2 items.*a: has no picture: its vector"):
        vectors.reencode("color@2", progress=False)
    mixed = Collection.open(own)
    mixed.add_embeddings(["v"], np.ones((1, ColorEncoder.dim)))
    with pytest.raises(UnreadableItemsError, match="v: has no picture: its vector was given"):
        mixed.reencode("color@2", progress=False)
    assert mixed.reencode("color@2", drop_missing=True, progress=False).items == 6


def test_vectors_with_pictures_become_a_collection_of_the_encoder(tmp_path: Path) -> None:
    paths = [str(paint(tmp_path / f"{color}.png", color)) for color in ("red", "green")]
    opened = Collection.create(tmp_path / "vectors.mm", encoder=None, dim=4)
    opened.add_embeddings(["r", "g"], np.eye(2, 4), uris=paths, metadata={"n": [1, 2]})
    assert opened.reencode("color@2", progress=False).items == 2
    assert [(hit.id, hit.metadata["n"], hit.metadata["width"]) for hit in opened.search("green", k=1)] == [("g", 2, 40)]
    with pytest.raises(DimensionError):
        Collection.open(tmp_path / "vectors.mm").add_embeddings(["x"], np.eye(1, 4))


def test_an_empty_collection(tmp_path: Path) -> None:
    opened = Collection.create(tmp_path / "empty.mm", encoder=ColorEncoder())
    assert opened.reencode("color@2", progress=False).items == 0
    assert opened.dim == OtherColorEncoder.dim
    assert list(opened.search("red")) == []


def test_an_encoder_of_texts_alone_is_refused(own: Path) -> None:
    class ImageLoader(OtherColorEncoder):
        modalities = frozenset({"text"})

    with pytest.raises(InputError, match="encodes no pictures"):
        Collection.open(own).reencode(ImageLoader(), progress=False)


# What is left behind ---------------------------------------------------------------------------------------------


def test_the_old_data_go_with_a_later_write(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Collection.open(collection)
    opened.reencode("color@2", progress=False)
    assert (collection / "items.lance").is_dir(), "a search that has just begun may still need it"
    assert not (collection / "generation-2" / "vectors.lance").exists()
    opened.update(["seven"], {"mood": "late"})
    assert (collection / "items.lance").is_dir()
    monkeypatch.setattr(generation_files, "_KEEP_SECONDS", 0.0)
    opened.update(["seven"], {"mood": "later"})
    assert sorted(path.name for path in collection.iterdir()) == [
        ".lock",
        ".reencode.lock",
        "collection.json",
        "generation-2",
        "removed",
    ]
    assert len(opened.search("red")) == 10


def test_purge_leaves_nothing_in_earlier_or_unfinished_generations(collection: Path) -> None:
    opened = Collection.open(collection)
    opened.reencode("color@2", progress=False)
    (collection / "generation-3").mkdir()
    (collection / "generation-3" / "vectors.lance").write_text("seven", encoding="utf-8")
    assert opened.remove(["seven"], purge=True) == 1
    left = [path for path in collection.rglob("*") if path.is_file() and b"seven" in path.read_bytes()]
    assert left == []
    assert not (collection / "items.lance").exists()
    assert not (collection / "generation-3").exists()
    assert len(Collection.open(collection)) == PICTURES - 1


def test_a_disk_that_fills_up(made: Path, reference: Collection, small_disk: Path) -> None:
    path = shutil.copytree(made / "color@1.mm", small_disk / "photos.mm")
    used = shutil.disk_usage(small_disk).used
    subprocess.run(["mount", "-o", f"remount,size={used // 1024 + 60}k", small_disk], check=True)
    process = start(path)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "StorageError" in err, err
    assert "free some space" in err, err
    check_searches(Collection.open(path), Collection.open(made / "color@1.mm"))
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    finish(start(path))
    check_same(path, reference)
