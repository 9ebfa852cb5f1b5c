"""Parts of a collection that do not belong together, and small files in which a bit has flipped: noticed, and said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmalign import Collection, MMAlignError
from mmalign.calibration.mapping import Calibration
from mmalign.encoders.lite.v2 import Lite2Encoder
from mmalign.errors import CalibrationError, CollectionFormatError, IndexFileError

DIM = 16


def vectors(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)


def check(collection: Collection, *queries: np.ndarray) -> list[str]:
    """Compare searches with a loop over what the items hold; returns the notes."""
    store = collection.snapshot()
    _, matrix = store.embeddings()
    names = store.scan(["id"])[1].column("id").to_pylist()
    notes: list[str] = []
    for query in np.vstack(queries):
        unit = query / np.linalg.norm(query)
        scores = matrix.astype(np.float32) @ unit
        result = collection.search(query, k=5)
        assert [hit.id for hit in result] == [names[i] for i in np.argsort(-scores)[:5]]
        assert [hit.score for hit in result] == pytest.approx(np.sort(scores)[::-1][:5].tolist(), abs=2e-3)
        notes += result.notes
    return notes


@pytest.fixture
def restored(tmp_path: Path) -> Path:
    """Items from an older copy beside an index that was built later, and other items written since."""
    path = tmp_path / "a.mm"
    collection = Collection.create(path, encoder=None, dim=DIM)
    collection.add_embeddings([f"v{number}" for number in range(600)], vectors(1, 600))
    shutil.copytree(path / "items.lance", tmp_path / "copy")
    collection.add_embeddings([f"a{number}" for number in range(100)], vectors(2, 100))
    collection.build_index("IVF4,Flat", progress=False)
    shutil.rmtree(path / "items.lance")
    shutil.copytree(tmp_path / "copy", path / "items.lance")
    return path


def test_items_from_an_older_copy_are_not_searched_with_a_newer_index(restored: Path) -> None:
    collection = Collection.open(restored)
    notes = check(collection, vectors(1, 20), vectors(2, 20))
    assert all("built from other items" in note for note in notes)
    # Versions count up again, and other items come to stand where the index knows those that are gone.
    collection.add_embeddings([f"b{number}" for number in range(100)], vectors(3, 100))
    collection.add_embeddings([f"c{number}" for number in range(100)], vectors(4, 100))
    for opened in (collection, Collection.open(restored)):
        assert check(opened, vectors(1, 20), vectors(2, 20), vectors(3, 20))
    with pytest.raises(IndexFileError, match="built from other items"):
        collection.check_index()
    collection.refresh_index(progress=False)
    assert collection.check_index() is not None
    assert check(collection, vectors(1, 20), vectors(2, 20), vectors(3, 20)) == []


def test_an_older_index_is_used_for_what_it_knows(tmp_path: Path) -> None:
    path = tmp_path / "a.mm"
    collection = Collection.create(path, encoder=None, dim=DIM)
    collection.add_embeddings([f"v{number}" for number in range(600)], vectors(1, 600))
    collection.build_index("IVF4,Flat", progress=False)
    shutil.copytree(path / "index", tmp_path / "copy")
    collection.add_embeddings([f"a{number}" for number in range(100)], vectors(2, 100))
    collection.remove([f"v{number}" for number in range(50)])
    collection.build_index("IVF8,Flat", progress=False)
    shutil.rmtree(path / "index")
    shutil.copytree(tmp_path / "copy", path / "index")
    opened = Collection.open(path)
    assert check(opened, vectors(1, 60)[40:], vectors(2, 20)) == []
    manifest = opened.check_index()
    assert manifest is not None
    assert manifest.recipe == "IVF4,Flat"


@pytest.mark.parametrize("name", ["collection.json", "manifest.json", "calibration.json", "CURRENT"])
def test_any_bit_of_a_small_file(tmp_path: Path, name: str) -> None:
    """Each is noticed or changes nothing: no other answer, and no bare exception."""
    path = tmp_path / "a.mm"
    collection = Collection.create(path, encoder=None, dim=DIM)
    collection.add_embeddings([f"v{number}" for number in range(300)], vectors(1, 300))
    manifest = collection.build_index("IVF4,Flat", progress=False)
    if name == "calibration.json":
        brought = Lite2Encoder().calibration
        assert brought is not None
        brought.write(path / name)
    (file,) = path.rglob(name)
    whole = file.read_bytes()
    answers = [[(hit.id, hit.score) for hit in collection.search(query)] for query in vectors(5, 3)]
    local = np.random.default_rng(7)
    noticed = 0
    for place in local.choice(8 * len(whole), min(120, 8 * len(whole)), replace=False).tolist():
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            if name == "calibration.json":
                assert Calibration.read(file) == brought
                continue
            opened = Collection.open(path)
            found = [[(hit.id, hit.score) for hit in opened.search(query, min_recall=1.0)] for query in vectors(5, 3)]
            assert [[one for one, _ in hits] for hits in found] == [[one for one, _ in hits] for hits in answers]
            assert opened.dim == DIM
            assert opened.index_manifest == manifest
        except MMAlignError:
            noticed += 1
    assert noticed > 20


def test_a_collection_description_of_another_collection(tmp_path: Path) -> None:
    Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    Collection.create(tmp_path / "b.mm", encoder=None, dim=DIM + 1)
    shutil.copy(tmp_path / "b.mm" / "collection.json", tmp_path / "a.mm")
    with pytest.raises(CollectionFormatError, match="another collection or an older copy"):
        Collection.open(tmp_path / "a.mm")


def test_what_an_earlier_mmalign_wrote_has_no_checksum(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    file = collection.path / "collection.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    del values["checksum"]
    file.write_text(json.dumps(values), encoding="utf-8")
    assert Collection.open(collection.path).dim == DIM


def test_a_calibration_with_another_digit(tmp_path: Path) -> None:
    brought = Lite2Encoder().calibration
    assert brought is not None
    brought.write(tmp_path / "calibration.json")
    values = json.loads((tmp_path / "calibration.json").read_text(encoding="utf-8"))
    values["scale" if "scale" in values else next(k for k, v in values.items() if isinstance(v, float))] = 1.25
    (tmp_path / "calibration.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(CalibrationError, match="checksum"):
        Calibration.read(tmp_path / "calibration.json")
