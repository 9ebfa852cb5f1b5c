"""What an index was estimated to take, beside what it took."""

from __future__ import annotations

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from mmalign.collection.collection import Collection
from mmalign.errors import InputError
from mmalign.index.lifecycle import versions as publish

ROWS, DIM = 2000, 32


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    made = Collection.create(tmp_path / "vectors.mm", encoder=None, dim=DIM)
    made.add_embeddings([f"v{i}" for i in range(ROWS)], vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return made


@pytest.mark.parametrize("recipe", ["flat", "sq8", "ivf-flat"])
def test_a_build_keeps_both_and_they_agree(recipe: str, collection: Collection) -> None:
    manifest = collection.build_index(recipe, progress=False)
    assert manifest is not None
    folder = publish.current(collection.path / "index")
    assert folder is not None
    size = sum(path.stat().st_size for path in folder.iterdir() if path.name != "manifest.json")
    cost = manifest.cost()
    assert cost["taken"]["bytes_per_vector"] == size / ROWS
    assert cost["estimated"]["bytes_per_vector"] == pytest.approx(size / ROWS, rel=0.1)
    assert cost["taken"]["seconds"] > 0
    assert collection.index_manifest == manifest
    assert collection.info()["index_cost"] == cost
    assert not [note for note in collection.notes() if "estimate" in note]


def test_an_estimate_that_was_off_is_told(tmp_path: Path) -> None:
    # An index of more than a megabyte.
    collection = Collection.create(tmp_path / "wide.mm", encoder=None, dim=16 * DIM)
    vectors = np.random.default_rng(0).normal(size=(ROWS, 16 * DIM))
    collection.add_embeddings([f"v{i}" for i in range(ROWS)], vectors)
    collection.build_index("sq8", progress=False)
    folder = publish.current(collection.path / "index")
    assert folder is not None
    path = folder / "manifest.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    # As earlier versions wrote it: it is changed here.
    del values["checksum"]
    values["estimate"]["bytes_per_vector"] /= 2
    path.write_text(json.dumps(values), encoding="utf-8")
    notes = [note for note in Collection.open(collection.path).notes() if "estimate" in note]
    assert len(notes) == 1
    assert notes[0].startswith("the index took ")
    assert "a vector on disk, 2 times the estimate" in notes[0]


@pytest.mark.parametrize("recipe", ["hnsw", "sq8", "flat"])
def test_few_items_have_no_estimate_that_was_off(tmp_path: Path, recipe: str) -> None:
    few = Collection.create(tmp_path / "few.mm", encoder=None, dim=DIM)
    few.add_embeddings(range(11), np.random.default_rng(0).normal(size=(11, DIM)))
    assert few.build_index(recipe, progress=False) is not None
    assert not [note for note in few.notes() if "bytes a vector" in note]


def test_a_manifest_says_how_a_graph_was_built_and_more_is_added_in_the_same_way(
    collection: Collection, tmp_path: Path
) -> None:
    design = tmp_path / "mine.toml"
    design.write_text(
        'name = "mine"\nsummary = "x"\nfactory = "HNSW8,SQfp16"\n[training]\nef_construction = 90\n', encoding="utf-8"
    )
    for recipe, said, in_file in (("HNSW8,SQfp16", None, 40), (str(design), 90, 90)):
        manifest = collection.build_index(recipe, progress=False)
        assert manifest is not None
        assert manifest.ef_construction == said
        assert efforts_of_building(collection) == [in_file]
    more = np.random.default_rng(1).normal(size=(500, DIM)).astype(np.float32)
    collection.add_embeddings([f"w{i}" for i in range(500)], more)
    collection.refresh_index(progress=False)
    again = Collection.open(collection.path)
    assert again.index_manifest is not None
    assert (again.index_manifest.ef_construction, again.index_manifest.rows) == (90, ROWS + 500)
    assert efforts_of_building(again) == [90]
    # Of before: the value is missing.
    values = {name: value for name, value in again.index_manifest.to_dict().items() if name != "checksum"}
    del values["ef_construction"]
    assert publish.IndexManifest.from_dict(values).ef_construction is None


def efforts_of_building(collection: Collection) -> list[int]:
    folder = publish.current(collection.path / "index")
    assert folder is not None
    index = faiss.read_index(str(folder / "index.faiss"))
    assert index.ntotal >= ROWS
    return [faiss.downcast_index(index).hnsw.efConstruction]


def test_a_manifest_of_before_has_no_cost(collection: Collection) -> None:
    manifest = collection.build_index("sq8", progress=False)
    assert manifest is not None
    values = manifest.to_dict()
    for name in ("bytes", "estimate", "taken", "checksum"):
        del values[name]
    assert publish.IndexManifest.from_dict(values).cost() == {"estimated": {}, "taken": {}}


def test_too_few_rows_for_a_design_have_no_estimate(tmp_path: Path) -> None:
    few = Collection.create(tmp_path / "few.mm", encoder=None, dim=8)
    few.add_embeddings(["a", "b"], np.eye(2, 8, dtype=np.float32))
    manifest = few.build_index("opq", progress=False)
    assert manifest is not None
    assert manifest.factory == "exact"
    assert manifest.cost()["estimated"] == {}


def test_too_little_memory_says_how_much_is_enough(collection: Collection) -> None:
    with pytest.raises(InputError, match="building hnsw over 2,000 vectors of dim 32 takes at least "):
        collection.build_index("hnsw", memory=1000, progress=False)
    with pytest.raises(InputError, match="the smallest budget that works is "):
        collection.build_index(memory=1000, progress=False)
    assert collection.index_manifest is None
