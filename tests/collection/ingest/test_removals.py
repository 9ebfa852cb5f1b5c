"""What was removed stays out, until it is asked to come back; what is excluded stays out too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mmalign.cli import app
from mmalign.collection.collection import Collection
from mmalign.collection.description import CollectionManifest
from mmalign.errors import InputError, StorageError
from mmalign.store.removed import Removed
from tests.collection.ingest.test_run import counts
from tests.tools.color_encoder import COLORS, ColorEncoder, OtherColorEncoder, paint


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, color in enumerate(COLORS):
        paint(tmp_path / "photos" / f"{color}.png", color, detail=i)
    return tmp_path / "photos"


@pytest.fixture
def encoder() -> ColorEncoder:
    return ColorEncoder()


@pytest.fixture
def collection(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> Collection:
    made = Collection.create(tmp_path / "photos.mm", encoder=encoder)
    assert made.add(photos, progress=False).added == 9
    return made


def names(collection: Collection) -> set[str]:
    _, table = collection.snapshot().scan(["uri"])
    return {Path(uri).name for uri in table.column("uri").to_pylist()}


def add(collection: Collection, source: Any, **options: Any) -> dict[str, int]:
    told = counts(collection.add(source, progress=False, **options))
    told.pop("notes", None)
    return told


def test_a_removed_picture_stays_out_until_it_is_brought_back(
    collection: Collection, photos: Path, encoder: ColorEncoder
) -> None:
    assert collection.remove([str(photos / "red.png")]) == 1
    assert collection.remove(where="uri LIKE '%blue%'") == 1
    encoder.encoded = 0
    table = photos / "table.jsonl"
    table.write_text("".join(json.dumps({"path": f"{color}.png"}) + "\n" for color in COLORS))
    for source in (photos, table, f"{photos}/*.png", [str(photos / f"{color}.png") for color in COLORS]):
        assert add(collection, source) == {"unchanged": 7, "kept_out": 2}
    assert add(collection, photos / "red.png") == {"kept_out": 1}
    assert add(Collection.open(collection.path, encoder=encoder), photos) == {"unchanged": 7, "kept_out": 2}
    assert (encoder.encoded, len(collection)) == (0, 7)
    assert add(collection, photos / "red.png", restore=True) == {"added": 1, "encoded": 1}
    assert add(collection, photos) == {"unchanged": 8, "kept_out": 1}
    assert add(collection, photos, restore=True) == {"unchanged": 8, "added": 1, "encoded": 1}
    assert add(collection, photos) == {"unchanged": 9}
    collection.remove([str(photos / "red.png")])
    assert add(collection, photos) == {"unchanged": 8, "kept_out": 1}, "removed again, it stays out again"


def test_moved_renamed_or_edited_it_stays_out(collection: Collection, photos: Path, encoder: ColorEncoder) -> None:
    collection.remove([str(photos / "red.png"), str(photos / "blue.png")])
    (photos / "sub").mkdir()
    (photos / "red.png").rename(photos / "sub" / "other.png")
    paint(photos / "blue.png", "blue", detail=44)
    encoder.encoded = 0
    assert add(collection, photos) == {"unchanged": 7, "kept_out": 2}
    assert encoder.encoded == 0
    # The second time it is known by its new name, and not read.
    paint(photos / "sub" / "other.png", "green", detail=77)
    assert add(collection, photos) == {"unchanged": 7, "kept_out": 2}
    shutil.copy(photos / "green.png", photos / "copy.png")
    assert add(collection, photos) == {"unchanged": 7, "kept_out": 2, "added": 1}


def test_the_bytes_of_an_item_that_is_there_may_come_again(collection: Collection, photos: Path) -> None:
    shutil.copy(photos / "red.png", photos / "twin.png")
    assert add(collection, photos) == {"unchanged": 9, "added": 1}
    collection.remove([str(photos / "red.png")])
    assert add(collection, photos) == {"unchanged": 9, "kept_out": 1}
    (photos / "red.png").rename(photos / "third.png")
    assert add(collection, photos) == {"unchanged": 9, "added": 1}, "its twin is in the collection"
    assert names(collection) == {f"{color}.png" for color in COLORS} - {"red.png"} | {"twin.png", "third.png"}


def test_a_known_picture_that_moves_to_where_a_removed_one_was_is_not_lost(
    collection: Collection, photos: Path
) -> None:
    collection.remove([str(photos / "red.png")])
    (photos / "green.png").rename(photos / "red.png")
    assert add(collection, photos) == {"unchanged": 7, "moved": 1}
    assert "red.png" in names(collection)
    assert len(collection) == 8


def test_what_prune_takes_comes_back_by_itself(collection: Collection, photos: Path, tmp_path: Path) -> None:
    (photos / "red.png").rename(tmp_path / "red.png")
    assert add(collection, photos, prune=True) == {"unchanged": 8, "removed": 1}
    (tmp_path / "red.png").rename(photos / "red.png")
    assert add(collection, photos) == {"unchanged": 8, "added": 1, "encoded": 1}


def test_encoding_anew_keeps_the_memory(collection: Collection, photos: Path) -> None:
    collection.remove([str(photos / "red.png")])
    collection.add(photos, exclude=["blue.png"], progress=False)
    collection.reencode(OtherColorEncoder(), progress=False)
    assert add(collection, photos) == {"unchanged": 7, "kept_out": 1}
    assert CollectionManifest.read(collection.path).excluded == (("blue.png", str(photos)),)


def test_an_item_that_is_still_there_is_not_removed(
    collection: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("mmalign.store.lance_store.Store.delete", refuse)
        with pytest.raises(StorageError, match="full"):
            collection.remove([str(photos / "red.png")])
    assert Removed.read(collection.path).has_uri(str(photos / "red.png"))
    paint(photos / "red.png", "red", detail=66)
    assert add(collection, photos) == {"unchanged": 8, "updated": 1, "encoded": 1}


def test_what_cannot_be_remembered_is_not_removed(
    collection: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mmalign.store.removed.os.fsync", refuse)
        with pytest.raises(StorageError, match="free some space"):
            collection.remove([str(photos / "red.png")])
    assert len(collection) == 9


def test_a_vector_that_is_handed_in_is_meant(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "v.mm", encoder=None, dim=4)
    vectors = np.eye(4)
    collection.add_embeddings(["a", "b"], vectors[:2], uris=["/x/a.jpg", "/x/b.jpg"])
    assert collection.remove(["a", "b"]) == 2
    assert collection.add_embeddings(["a"], vectors[:1], uris=["/x/a.jpg"]).added == 1
    removed = Removed.read(collection.path)
    assert [removed.has_uri(uri) for uri in ("/x/a.jpg", "/x/b.jpg")] == [False, True]


def test_damage_to_the_memory_is_told(collection: Collection, photos: Path) -> None:
    collection.remove([str(photos / "red.png")])
    path = collection.path / "removed"
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(data)
    report = collection.add(photos, progress=False)
    assert any("the memory of 1 removals is damaged" in note for note in report.notes)


def test_patterns_are_kept_to(collection: Collection, photos: Path) -> None:
    assert add(collection, photos, exclude=["*red*", "black.png"]) == {"unchanged": 7}
    report = collection.add(photos, progress=False)
    assert report.notes == (
        "left out by rule: black.png (1 file), *red* (1 file)",
        "2 items of the collection are excluded now; add --prune to take them out (in Python: prune=True)",
    )
    assert len(collection) == 9
    paint(photos / "new red.png", "red", detail=50)
    assert add(Collection.open(collection.path, encoder=ColorEncoder()), photos) == {"unchanged": 7}
    assert add(collection, photos, prune=True) == {"unchanged": 7, "removed": 2}
    assert add(collection, photos, exclude="!black.png") == {"unchanged": 7, "added": 1, "encoded": 1}
    assert CollectionManifest.read(collection.path).excluded == (("*red*", str(photos)),)


def test_a_pattern_that_is_none_changes_nothing(collection: Collection, photos: Path) -> None:
    before = (collection.path / "collection.json").read_bytes()
    with pytest.raises(InputError, match="is no pattern"):
        collection.add(photos, exclude=["*.gif", "!"])
    assert (collection.path / "collection.json").read_bytes() == before


def test_the_command_line_says_what_stays_out_and_brings_it_back(
    collection: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmalign.collection.collection.load_encoder", lambda spec: ColorEncoder())
    for name in ("a.mp4", "b.mp4", "c.dng"):
        (photos / name).touch()
    call = CliRunner().invoke
    assert call(app, ["remove", str(photos / "red.png"), "-c", str(collection.path)]).exit_code == 0
    told = call(app, ["index", str(photos), "-c", str(collection.path), "--exclude", "blue.png"])
    assert told.exit_code == 0
    assert "note: left out by rule: blue.png (1 file)" in told.output.replace(f"{photos}: ", "")
    assert "not read: 2 .mp4, 1 .dng" in told.output
    assert "1 picture that was removed earlier stays out; --restore brings it back" in told.output
    told = call(app, ["index", str(photos), "-c", str(collection.path), "--restore", "--json"])
    report = json.loads(told.stdout)
    assert (report["added"], report["kept_out"], report["unread"]) == (1, 0, {".mp4": 2, ".dng": 1})
    told = call(app, ["index", "-c", str(collection.path), "--reencode", "--restore"])
    assert told.exit_code != 0


@pytest.mark.parametrize("left", [0, 2])
@pytest.mark.parametrize("then", ["purge", "reencode"])
def test_where_too_few_are_left_for_the_index_search_is_exact(
    collection: Collection, photos: Path, then: str, left: int
) -> None:
    collection.build_index("IVF3,Flat", progress=False)
    gone = [str(photos / f"{color}.png") for color in list(COLORS)[left:]]
    if then == "purge":
        collection.remove(gone, purge=True)
    else:
        collection.remove(gone)
        collection.reencode(OtherColorEncoder(), progress=False)
    assert collection.index_manifest is None
    assert len(collection) == len(collection.search("red", k=9)) == left
