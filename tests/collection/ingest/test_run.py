"""Doing only the work that something changed asks for."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from mmalign.collection.collection import Collection
from mmalign.collection.ingest import IngestJob, Known, NewRow, derive_id
from mmalign.errors import AddInterrupted, MetadataError, SourceError
from mmalign.store import Claim
from mmalign.types import AddReport, Item
from tests.tools.color_encoder import COLORS, ColorEncoder, paint


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for i, color in enumerate(COLORS):
        paint(folder / f"{color}.png", color, detail=i)
        paint(folder / "sub" / f"{color}.png", color, detail=20 + i)
    return folder


@pytest.fixture
def encoder() -> ColorEncoder:
    return ColorEncoder()


@pytest.fixture
def collection(tmp_path: Path, encoder: ColorEncoder) -> Collection:
    return Collection.create(tmp_path / "photos.mm", encoder=encoder)


def counts(report: AddReport) -> dict[str, int]:
    told = report.to_dict()
    told["skipped"] = len(told["skipped"])
    return {name: value for name, value in told.items() if value and name not in ("seconds", "renamed")}


def table(collection: Collection) -> dict[str, dict]:
    hits = collection.search(np.ones(collection.dim), k=10_000, copies=True)
    return {hit.uri: {"id": hit.id, **hit.metadata} for hit in hits}


def test_same_names_in_different_folders_stay_distinct(collection: Collection, photos: Path) -> None:
    assert counts(collection.add(photos)) == {"added": 18, "encoded": 18}
    found = table(collection)
    assert len(found) == 18
    assert found[str(photos / "red.png")]["id"] != found[str(photos / "sub" / "red.png")]["id"]
    assert found[str(photos / "red.png")]["width"] == 40


def test_unchanged_files_are_not_even_read(
    collection: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add(photos)
    monkeypatch.setattr("mmalign.media.images.read_media", lambda *a, **k: pytest.fail("a file was read"))
    assert counts(collection.add(photos)) == {"unchanged": 18}


def test_touched_edited_moved_copied_deleted(collection: Collection, photos: Path, encoder: ColorEncoder) -> None:
    collection.add(photos)
    before = table(collection)
    encoder.encoded = 0
    os.utime(photos / "red.png", (1, 1))
    paint(photos / "blue.png", "yellow", detail=90)
    (photos / "green.png").rename(photos / "sub" / "renamed.png")
    shutil.copy(photos / "cyan.png", photos / "copy.png")
    (photos / "black.png").unlink()
    report = collection.add(photos)
    gone = ["1 item of the collection has no file any more; add --prune to take it out (in Python: prune=True)"]
    assert counts(report) == {
        "added": 1, "updated": 1, "moved": 1, "unchanged": 15, "encoded": 1, "notes": gone,
    }  # fmt: skip
    assert encoder.encoded == 1
    after = table(collection)
    assert after[str(photos / "sub" / "renamed.png")]["id"] == before[str(photos / "green.png")]["id"]
    assert str(photos / "green.png") not in after
    assert after[str(photos / "blue.png")]["id"] == before[str(photos / "blue.png")]["id"]
    assert {Path(hit.uri).name for hit in collection.search("yellow", k=3)} == {"yellow.png", "blue.png"}
    assert {Path(hit.uri).name for hit in collection.search("cyan", k=3, copies=True)} == {"cyan.png", "copy.png"}
    assert str(photos / "black.png") in after, "a vanished file stays without prune"
    assert counts(collection.add(photos)) == {"unchanged": 18, "notes": gone}
    assert counts(collection.add(photos / "sub")).get("notes") is None, "the folder does not hold it"
    assert counts(collection.add(photos, prune=True)) == {"unchanged": 18, "removed": 1}
    assert str(photos / "black.png") not in table(collection)


def test_a_new_file_where_a_moved_one_was(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    old = table(collection)[str(photos / "red.png")]["id"]
    (photos / "red.png").rename(photos / "moved.png")
    collection.add(photos)
    paint(photos / "red.png", "black", detail=55)
    assert counts(collection.add(photos))["added"] == 1
    found = table(collection)
    assert found[str(photos / "moved.png")]["id"] == old == derive_id(str(photos / "red.png"))
    assert found[str(photos / "red.png")]["id"] != old


def test_prune_leaves_other_folders_alone(collection: Collection, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "photos-2"
    paint(other / "a.png", "red", detail=70)
    collection.add(photos)
    collection.add(other)
    (other / "a.png").unlink()
    (photos / "red.png").unlink()
    assert counts(collection.add(photos, prune=True))["removed"] == 1
    assert str(other / "a.png") in table(collection)


def test_prune_of_an_emptied_folder_is_refused(collection: Collection, photos: Path) -> None:
    collection.add(photos)
    shutil.rmtree(photos)
    photos.mkdir()
    with pytest.raises(SourceError, match="no picture"):
        collection.add(photos, prune=True)
    assert len(collection) == 18


def test_the_same_bytes_are_encoded_once(collection: Collection, tmp_path: Path, encoder: ColorEncoder) -> None:
    folder = tmp_path / "copies"
    paint(folder / "0.png", "red", detail=3)
    for i in range(1, 80):
        shutil.copy(folder / "0.png", folder / f"{i}.png")
    report = collection.add(folder, batch_size=8)
    assert report.added == len(collection) == 80
    assert report.encoded == encoder.encoded == 1


def test_skipped_items_are_told_and_the_rest_is_kept(collection: Collection, photos: Path) -> None:
    (photos / "empty.jpg").touch()
    (photos / "text.jpg").write_text("this is no picture", encoding="utf-8")
    whole = (photos / "red.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "dangling.png").symlink_to(photos / "nowhere.png")
    report = collection.add(photos)
    assert report.added == 18
    reasons = {Path(skip.uri).name: skip.reason for skip in report.skipped}
    assert set(reasons) == {"empty.jpg", "text.jpg", "cut.png", "dangling.png"}
    assert "0 bytes" in reasons["empty.jpg"]
    assert "not a picture" in reasons["text.jpg"]
    assert "truncated" in reasons["cut.png"]
    again = collection.add(photos)
    assert again.unchanged == 18
    assert len(again.skipped) == 4


def test_strange_names(collection: Collection, tmp_path: Path) -> None:
    folder = tmp_path / "strange"
    paint(folder / "plain.png", "red", detail=1)
    shutil.copy(folder / "plain.png", folder / "two\nlines.png")
    os.rename(  # noqa: PTH104 - bytes
        os.fsencode(paint(folder / "x.png", "blue", detail=2)), os.fsencode(folder) + b"/caf\xe9.png"
    )
    assert counts(collection.add(folder)) == {"added": 3, "encoded": 2}
    assert counts(collection.add(folder)) == {"unchanged": 3}
    hit = collection.search("blue", k=1)[0]
    assert hit.uri.isprintable()
    assert hit.uri.endswith("caf%E9.png")


def test_metadata_of_a_manifest(collection: Collection, photos: Path) -> None:
    manifest = photos / "manifest.jsonl"
    rows = [
        {"image": "red.png", "captions": ["a red thing"], "year": 2001, "split": "dev"},
        {"image": "blue.png", "captions": ["a blue thing", "it is blue"], "year": 2002, "tags": ["b"], "width": 3},
    ]
    manifest.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = collection.add(manifest)
    assert counts(report) == {"added": 2, "encoded": 2}
    assert report.renamed == {"width": "width_"}
    assert collection.columns == {"year": "int64", "split": "string", "tags": "list<item: string>", "width_": "int64"}
    assert [hit.metadata["captions"] for hit in collection.search("blue", where="year = 2002")] == [
        ["a blue thing", "it is blue"]
    ]
    assert counts(collection.add(manifest)) == {"unchanged": 2}
    rows[0]["year"] = 2010
    manifest.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert counts(collection.add(manifest)) == {"unchanged": 1, "updated": 1}
    assert collection.search("red", k=1, where="year = 2010")[0].metadata["captions"] == ["a red thing"]


def test_an_edit_keeps_what_was_said_of_the_item(collection: Collection, photos: Path) -> None:
    collection.add(photos, metadata={"album": "first"})
    name = table(collection)[str(photos / "red.png")]["id"]
    collection.update([name], {"stars": 5, "captions": ["mine"]})
    paint(photos / "red.png", "red", detail=95)
    assert counts(collection.add(photos))["updated"] == 1
    kept = table(collection)[str(photos / "red.png")]
    assert (kept["album"], kept["stars"], kept["captions"]) == ("first", 5, ["mine"])


def test_rows_for_one_picture_are_joined(collection: Collection, photos: Path) -> None:
    captions = photos / "captions.csv"
    captions.write_text("image,caption\nred.png,one\nred.png,two\nblue.png,three\nred.png,one\n", encoding="utf-8")
    assert counts(collection.add(captions)) == {"added": 2, "encoded": 2}
    assert table(collection)[str(photos / "red.png")]["captions"] == ["one", "two"]


def test_ids_of_the_caller_s_own(collection: Collection, photos: Path) -> None:
    collection.add([{"path": str(photos / "red.png"), "id": "first"}])
    assert counts(collection.add([{"path": str(photos / "red.png"), "id": "first"}])) == {"unchanged": 1}
    # The id of a picture that is gone may go to another one.
    (photos / "red.png").unlink()
    assert counts(collection.add([{"path": str(photos / "blue.png"), "id": "first"}])) == {"updated": 1, "encoded": 1}
    assert [(hit.id, Path(hit.uri).name) for hit in collection.search("blue")] == [("first", "blue.png")]


def test_metadata_for_every_item_that_does_not_fit_changes_nothing(collection: Collection, photos: Path) -> None:
    collection.add([{"path": str(photos / "red.png"), "year": 2001}])
    with pytest.raises(MetadataError, match="column 'year' holds int64, got 'old'"):
        collection.add([str(photos / "blue.png")], metadata={"year": "old", "new": 1})
    assert len(collection) == 1
    assert collection.columns == {"year": "int64"}


def test_a_value_that_does_not_fit_costs_its_cell(collection: Collection, photos: Path) -> None:
    collection.add([{"path": str(photos / "red.png"), "year": 2001}])
    rows = [{"path": str(photos / "blue.png"), "year": "old"}, {"path": str(photos / "cyan.png"), "year": 1999}]
    report = collection.add(rows)
    assert report.added == 2
    assert [(note.text, note.about) for note in report.notes] == [
        ("column 'year' holds int64, got 'old'; the cell was left out", "item 0")
    ]
    assert "make_text('year')" in report.notes[0].remedy
    years = {Path(uri).stem: values.get("year") for uri, values in table(collection).items()}
    assert years == {"red": 2001, "blue": None, "cyan": 1999}
    assert counts(collection.add(rows)) == {"unchanged": 2, "notes": [str(report.notes[0])]}
    # As text the column takes it; the source is read again, and what was left out comes in.
    assert counts(collection.add(rows, as_text=["year"])) == {"unchanged": 1, "updated": 1}
    years = {Path(uri).stem: values.get("year") for uri, values in table(collection).items()}
    assert years == {"red": "2001", "blue": "old", "cyan": "1999"}


def test_interrupted_runs_keep_what_was_encoded(
    collection: Collection, photos: Path, encoder: ColorEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = encoder.encode_image

    def stop_after_eight(images: object, *, batch_size: int = 32) -> np.ndarray:
        if encoder.encoded >= 8:
            raise KeyboardInterrupt
        return encode(images, batch_size=batch_size)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder, "encode_image", stop_after_eight)
    with pytest.raises(AddInterrupted) as caught:
        collection.add(photos, batch_size=4)
    assert caught.value.report.added == len(collection) == 8
    monkeypatch.setattr(encoder, "encode_image", encode)
    assert counts(collection.add(photos)) == {"added": 10, "unchanged": 8, "encoded": 10}


def test_no_encoder_is_loaded_where_nothing_is_encoded(
    collection: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection.add(photos)
    again = Collection.open(collection.path)
    monkeypatch.setattr(
        "mmalign.collection.collection.load_encoder", lambda spec: pytest.fail("the encoder was loaded")
    )
    os.utime(photos / "red.png", (5, 5))
    (photos / "blue.png").rename(photos / "azure.png")
    assert counts(again.add(photos)) == {"moved": 1, "unchanged": 17}


@pytest.mark.parametrize("often", [False, True])
def test_files_that_change_places_take_their_embeddings_along(
    collection: Collection, photos: Path, encoder: ColorEncoder, monkeypatch: pytest.MonkeyPatch, often: bool
) -> None:
    """Also where a commit comes between the two, as it does after some seconds."""
    collection.add(photos)
    (photos / "black.png").rename(photos / "aside")
    (photos / "yellow.png").rename(photos / "black.png")
    (photos / "aside").rename(photos / "yellow.png")
    # Read between the two, and due to be committed at once.
    os.utime(photos / "red.png", (5, 5))
    if often:
        monkeypatch.setattr("mmalign.collection.ingest.commit._COMMIT_ITEMS", 1)
    assert counts(collection.add(photos)) == {"updated": 2, "unchanged": 16}
    store = collection.snapshot()
    _, rows = store.scan(["uri"])
    wanted = ColorEncoder().encode_image(rows.column("uri").to_pylist())
    assert store.embeddings()[1] == pytest.approx(wanted, abs=1e-3)


def test_a_picture_that_comes_again_and_again_to_the_same_place_takes_no_item_away(
    collection: Collection, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    paint(photos / "new.png", "red")
    assert counts(collection.add(photos)) == {"added": 1, "encoded": 1}
    for name in ("one", "two", "three"):
        (photos / "new.png").rename(photos / f"{name}.png")
        assert counts(collection.add(photos))["moved"] == 1
        shutil.copy(photos / f"{name}.png", photos / "new.png")
        assert counts(collection.add(photos))["added"] == 1
    assert {Path(uri).stem for uri in table(collection)} == {"new", "one", "two", "three"}


def table_of(path: Path, rows: int, *, title: str = "title") -> Path:
    """A table of pictures on the web, of which none needs to be there."""
    lines = [f'{{"id": "i{row}", "url": "https://host/{row}.jpg", "{title}": "{row} of many"}}' for row in range(rows)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def with_vectors(path: Path, rows: int) -> Collection:
    collection = Collection.create(path, encoder=None, dim=4)
    vectors = np.random.default_rng(0).standard_normal((rows, 4)).astype(np.float32)
    names = [f"i{row}" for row in range(rows)]
    collection.add_embeddings(names, vectors, uris=[f"https://host/{row}.jpg" for row in range(rows)])
    return collection


def test_memory_does_not_grow_with_the_table_or_the_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each row it keeps some numbers; a row as a dictionary would take ten times as much."""
    monkeypatch.setattr("mmalign.collection.ingest.run._BLOCK", 256)
    monkeypatch.setattr("mmalign.collection.ingest.spool._IN_MEMORY", 1 << 12)
    monkeypatch.setattr("mmalign.collection.ingest.spool._AT_ONCE", 1 << 12)
    monkeypatch.setattr("mmalign.collection.ingest.known._BLOCK", 256)
    monkeypatch.setattr("mmalign.store.verifying._ROWS", 256)
    peaks = []
    for rows in (1_000, 5_000):
        table = table_of(tmp_path / f"{rows}.jsonl", rows)
        collection = with_vectors(tmp_path / f"{rows}.mm", rows)
        assert counts(collection.add(table)) == {"updated": rows}
        tracemalloc.start()
        assert counts(collection.add(table)) == {"unchanged": rows}
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 150 * 4_000


def test_rows_of_one_picture_that_are_far_apart(collection: Collection, photos: Path, tmp_path: Path) -> None:
    """The captions of all of them are its captions, whatever lies between; the later of other values counts."""
    pictures = sorted(path.name for path in photos.iterdir() if path.suffix == ".png")
    rows = [(name, turn) for turn in range(3) for name in (pictures if turn % 2 else pictures[::-1])]
    lines = [f'{{"path": "photos/{name}", "caption": "{name} {turn}", "turn": {turn}}}' for name, turn in rows]
    table = tmp_path / "captions.jsonl"
    table.write_text("\n".join(lines), encoding="utf-8")
    report = collection.add(table)
    assert report.added == len(pictures)
    assert sum("and then" in note.text for note in report.notes) == 1
    _, found = collection.snapshot().scan(["uri", "captions", "turn"])
    assert {Path(row["uri"]).name: (row["captions"], row["turn"]) for row in found.to_pylist()} == {
        name: ([f"{name} {turn}" for turn in range(3)], 2) for name in pictures
    }


def test_an_id_that_two_pictures_claim_far_apart(tmp_path: Path) -> None:
    """The picture that has it keeps it; in a new collection it is the first."""
    collection = with_vectors(tmp_path / "a.mm", 3)
    table = tmp_path / "table.jsonl"
    claims = [("i1", "https://other/1.jpg"), *((f"x{row}", f"file:///none/{row}.jpg") for row in range(9))]
    claims += [("i1", "https://host/1.jpg"), ("i1", "https://third/1.jpg")]
    table.write_text("\n".join(f'{{"id": "{name}", "url": "{url}", "n": 1}}' for name, url in claims), "utf-8")
    report = collection.add(table)
    assert (report.updated, report.added) == (1, 0)
    assert sum("names https://host/1.jpg already" in skip.reason for skip in report.skipped) == 2


def test_what_goes_from_step_to_step_can_be_pickled() -> None:
    known = Known(3, "a", "/a.png", "0" * 64, 10, 20, None)
    item = Item("/b.png", id="a", captions=("a dog",), metadata={"year": 2000}, place="t.csv:3", source="/t.csv")
    job = IngestJob(item, known, 11, 21, "ab", "cd", taken=True)
    again = pickle.loads(pickle.dumps(job))
    assert again == job
    assert (again.item.place, again.item.source) == ("t.csv:3", "/t.csv")
    assert pickle.loads(pickle.dumps(known)) == known
    with pytest.raises(AttributeError):
        job.size = 12  # type: ignore[misc]
    vector = np.arange(4, dtype=np.float32)
    row = NewRow(7, [Claim("txt", {"captions": ["a dog"]}, digest="ab")], {"id": "a", "width": 5}, vector)
    copy = pickle.loads(pickle.dumps(row))
    assert (copy.row_id, copy.claims, copy.values) == (row.row_id, row.claims, row.values)
    np.testing.assert_array_equal(copy.vector, vector)
