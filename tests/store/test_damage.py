"""Bits that flip on disk: noticed and said, or without any effect; never another answer, nor a bare exception."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from mmalign import Collection, MMAlignError
from mmalign.cli import app
from mmalign.errors import DamagedError
from mmalign.store.checksums import CHECKSUM, EMBEDDING_CHECKSUM, differs, embedding_checksums, row_checksums
from mmalign.store.lance_store import Store
from mmalign.store.version_checksums import check_version

DIM, ROWS = 16, 60
FILTERS = ["year > 2010", "title = 'title 4'", "score < 3 AND kept", "title IS NULL", "id < 'v3'"]


def vectors() -> np.ndarray:
    made = np.random.default_rng(3).normal(size=(ROWS, DIM)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def name_of(row: int) -> str:
    """Digits that no compression makes shorter, so that they stand in the file as they are."""
    return f"v{row:02}-{np.random.default_rng(row).bytes(12).hex()}"


def add(collection: Collection, rows: range) -> None:
    collection.add_embeddings(
        [name_of(row) for row in rows],
        vectors()[rows.start : rows.stop],
        uris=[f"/pictures/{row}.png" for row in rows],
        metadata={
            "title": [f"title {row}" if row % 3 else None for row in rows],
            "year": [1990 + row for row in rows],
            "score": [row / 7 for row in rows],
            "kept": [row % 2 == 0 for row in rows],
            "words": [["some", "words"][: row % 3] for row in rows],
        },
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fragments, of both of which some rows are deleted; no index."""
    path = tmp_path_factory.mktemp("whole") / "whole.mm"
    collection = Collection.create(path, encoder=None, dim=DIM)
    add(collection, range(30))
    add(collection, range(30, ROWS))
    collection.remove([name_of(3), name_of(40), name_of(41)])
    return path


@pytest.fixture(scope="module")
def indexed(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("indexed") / "whole.mm"
    shutil.copytree(whole, path)
    collection = Collection.open(path)
    collection.build_index("IVF4,Flat", progress=False)
    collection.remove([name_of(5), name_of(44)])
    return path


def look(path: Path) -> list[Any]:
    """What a collection answers when it is opened anew: searches, filters, and all that it holds."""
    opened = Collection.open(path)
    found = opened.search(vectors()[5:8], k=5)
    answers: list[Any] = [[(hit.id, hit.uri, hit.score, hit.metadata) for hit in hits] for hits in found]
    answers += [[hit.id for hit in opened.search(vectors()[1], k=4, where=where)] for where in FILTERS]
    answers.append([len(opened), opened.has(name_of(3)), opened.has(name_of(4)), opened.columns])
    store = opened.snapshot()
    _, table = store.scan([name for name in store.dataset.schema.names if name != "embedding"])
    row_ids, matrix = store.embeddings()
    answers += [list(opened), opened.get([name_of(20), name_of(4)]), opened.to_arrow().to_pylist()]
    answers += [opened.to_arrow(columns=["id", "title"], where=where).to_pylist() for where in FILTERS]
    names, vectors_again = opened.embeddings()
    answers += [names, vectors_again.tolist(), opened.embeddings([name_of(33)])[1].tolist()]
    return [*answers, table.to_pylist(), row_ids.tolist(), matrix.view(np.uint16).tolist()]


def flip(path: Path, place: int) -> None:
    """Turn one bit of a file over."""
    raw = bytearray(path.read_bytes())
    raw[place // 8] ^= 1 << place % 8
    path.write_bytes(raw)


def flip_in(path: Path, needle: bytes, bit: int = 0, *, after: int = 0) -> None:
    """Turn over a bit of the one value that is stored as these bytes."""
    found = [file for file in (path / "items.lance" / "data").iterdir() if needle in file.read_bytes()]
    assert len(found) == 1, "the value is not stored as it is, or more than once"
    flip(found[0], 8 * (found[0].read_bytes().index(needle) + after) + bit)


def halves(row: int) -> bytes:
    """An embedding as it is stored."""
    return vectors()[row].astype(np.float16).tobytes()


def outcomes(path: Path, files: list[Path], count: int, work: Path, seed: int) -> Counter[str]:
    """Flip one bit at a time, in a copy of its own, and count what became of it."""
    right, local = look(path), np.random.default_rng(seed)
    told: Counter[str] = Counter()
    for turn in range(count):
        copy, file = work / str(turn), files[int(local.integers(len(files)))]
        shutil.copytree(path, copy)
        place = int(local.integers(8 * file.stat().st_size))
        flip(copy / file.relative_to(path), place)
        try:
            assert look(copy) == right, f"bit {place} of {file.name} gave another answer"
            told["right"] += 1
        except MMAlignError:
            told["refused"] += 1
        shutil.rmtree(copy)
    return told


def test_any_bit_of_the_data(whole: Path, tmp_path: Path) -> None:
    told = outcomes(whole, sorted((whole / "items.lance" / "data").iterdir()), 40, tmp_path, seed=1)
    assert told["refused"] > 15, told


def test_any_bit_of_what_tells_which_rows_there_are(whole: Path, tmp_path: Path) -> None:
    items = whole / "items.lance"
    newest = min((items / "_versions").glob("*.manifest"))
    assert outcomes(whole, [newest, *sorted((items / "_deletions").iterdir())], 20, tmp_path, seed=2) == {"refused": 20}


def test_any_bit_of_what_tells_of_earlier_versions(indexed: Path, tmp_path: Path) -> None:
    """An index was built from one of them, and is compared with what is there now."""
    items = indexed / "items.lance"
    earlier = sorted((items / "_versions").glob("*.manifest"))[1:]
    files = [*earlier, *sorted((items / "_deletions").iterdir()), *sorted((items / "_checksums").iterdir())]
    told = outcomes(indexed, files, 15, tmp_path, seed=3)
    assert told["right"] > 5, told


def test_any_bit_of_the_index(indexed: Path, tmp_path: Path) -> None:
    """What is damaged is left out and told of: the search is then an exact one."""
    there = [row for row in range(ROWS) if row not in (3, 5, 40, 41, 44)]
    queries = np.random.default_rng(6).normal(size=(3, DIM)).astype(np.float32)
    scores = queries @ vectors()[there].astype(np.float16).astype(np.float32).T
    exact = [[name_of(there[place]) for place in np.argsort(-row)[:5]] for row in scores]
    usual = [[hit.id for hit in result] for result in Collection.open(indexed).search(queries, k=5)]
    files = sorted(file for file in (indexed / "index").rglob("*") if file.is_file() and file.stat().st_size)
    assert len(files) > 4
    local, noticed = np.random.default_rng(4), 0
    for turn in range(25):
        copy, file = tmp_path / str(turn), files[turn % len(files)]
        shutil.copytree(indexed, copy)
        flip(copy / file.relative_to(indexed), int(local.integers(8 * file.stat().st_size)))
        opened = Collection.open(copy)
        # What an index finds with no promise to keep may differ from exact search; what is damaged is not asked.
        found = [[hit.id for hit in result] for result in opened.search(queries, k=5)]
        without = any("without the index" in note for note in opened.search(queries[0], k=5).notes)
        noticed += without
        assert found == (exact if without else usual), file
        assert [[hit.id for hit in result] for result in opened.search(queries, k=5, min_recall=1.0)] == exact
        shutil.rmtree(copy)
    assert noticed > 15


# One item ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "copy.mm")
    return tmp_path / "copy.mm"


@pytest.mark.parametrize("bit", [0, 9, 15])
def test_a_damaged_embedding_is_an_error_and_no_hit_less(copy: Path, bit: int) -> None:
    flip_in(copy, halves(17), bit % 8, after=2 + bit // 8)
    with pytest.raises(DamagedError, match="1 embedding of the collection is damaged"):
        Collection.open(copy).search(vectors()[2], k=1)
    with pytest.raises(DamagedError):
        Collection.open(copy).snapshot().embeddings()
    with pytest.raises(DamagedError):
        list(Collection.open(copy).snapshot().iter_embeddings())
    (damage,) = Collection.open(copy).snapshot().find_damage()
    assert (damage.values["id"], damage.embedding, damage.columns) == (name_of(17), True, False)


@pytest.mark.parametrize("large", [False, True])
def test_a_damaged_hit_is_an_error_and_not_left_out(copy: Path, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a large collection, those that are found are checked, and not all before."""
    if large:
        kept = Store.verify.__kwdefaults__
        assert kept is not None
        monkeypatch.setitem(kept, "most", 10)
    flip_in(copy, name_of(17).encode(), 1, after=8)
    opened = Collection.open(copy)
    with pytest.raises(DamagedError) as refused:
        opened.search(vectors()[17], k=1)
    (told,) = refused.value.items
    assert told[:3] == "v17"
    assert told != name_of(17)
    with pytest.raises(DamagedError):
        opened.search(vectors()[17], k=1, where="year = 2007")
    if large:
        assert opened.search(vectors()[19], k=1)[0].id == name_of(19)
    else:
        with pytest.raises(DamagedError):
            opened.snapshot().row_ids(where="year = 1999")
        with pytest.raises(DamagedError):
            opened.has(name_of(17))
        with pytest.raises(DamagedError):
            opened.snapshot().find("id", name_of(17), ["uri"])


@pytest.mark.parametrize("large", [False, True])
def test_no_way_of_reading_back_passes_damage_over(copy: Path, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as a value, nor as a row that a filter leaves out, nor as an id that is not there."""
    if large:
        kept = Store.verify.__kwdefaults__
        assert kept is not None
        monkeypatch.setitem(kept, "most", 10)
    flip_in(copy, name_of(17).encode(), 1, after=8)
    for read in (
        lambda one: one.get(name_of(17)),
        lambda one: list(one),
        lambda one: list(one.to_batches(columns=["year"], batch_size=7)),
        lambda one: one.to_arrow(columns=["year"]),
        lambda one: one.to_arrow(columns=["year"], where=f"id = '{name_of(17)}'"),
        lambda one: one.embeddings([name_of(17)]),
        lambda one: one.embeddings(),
    ):
        with pytest.raises(DamagedError):
            read(Collection.open(copy))


def test_damaged_embeddings_are_not_read_back(copy: Path) -> None:
    flip_in(copy, halves(17), 2, after=5)
    opened = Collection.open(copy)
    for read in (
        lambda: opened.embeddings(),
        lambda: opened.embeddings([name_of(17)]),
        lambda: opened.to_arrow(columns=["embedding"]),
    ):
        with pytest.raises(DamagedError):
            read()
    assert opened.get(name_of(17)).metadata["year"] == 2007
    assert len(opened.embeddings([name_of(18)])[1]) == 1


def test_damage_that_comes_while_it_is_open(copy: Path) -> None:
    """What was found to be right is not read again; what another opens later is."""
    opened = Collection.open(copy)
    assert opened.search(vectors()[17], k=1)[0].id == name_of(17)
    flip_in(copy, name_of(17).encode(), 1, after=8)
    with pytest.raises(DamagedError):
        Collection.open(copy).search(vectors()[17], k=1)


def test_damage_is_never_given_a_checksum_that_fits_it(copy: Path) -> None:
    """Neither by a change of the item, nor by columns that are added, widened or turned into text."""
    flip_in(copy, name_of(17).encode(), 1, after=8)
    opened = Collection.open(copy)
    broken = next(opened.snapshot().find_damage()).values["id"]
    with pytest.raises(DamagedError):
        opened.update([broken], {"title": "other"})
    with pytest.raises(DamagedError):
        Store.open(copy / "items.lance").patch([{"id": broken, "uri": "/elsewhere"}])
    with pytest.raises(DamagedError):
        opened.make_text("year")
    opened.add_embeddings(["new"], vectors()[:1], metadata={"mood": ["calm"]})
    opened.update([name_of(18)], {"mood": "glad"})
    opened.snapshot().compact(force=True)
    assert [one.values["id"] for one in Collection.open(copy).snapshot().find_damage()] == [broken]
    assert opened.remove([broken]) == 1
    assert Collection.open(copy).check_items() == []
    assert name_of(17) not in [hit.id for hit in Collection.open(copy).search(vectors()[17], k=ROWS)]


@pytest.mark.parametrize("what", ["embedding", "columns"])
def test_doctor_names_the_damaged_item(copy: Path, what: str) -> None:
    run = CliRunner()
    done = run.invoke(app, ["doctor", "--deep", "--collection", str(copy), "--json"])
    (check,) = [one for one in json.loads(done.stdout) if one["name"] == "items"]
    assert (check["ok"], check["detail"]) == (True, "57 are what was written")
    if what == "embedding":
        flip_in(copy, halves(17), 3)
    else:
        flip_in(copy, name_of(17).encode(), 1, after=8)
    done = run.invoke(app, ["doctor", "--deep", "--collection", str(copy), "--json"])
    assert done.exit_code == 1
    (check,) = [one for one in json.loads(done.stdout) if one["name"] == "items"]
    assert not check["ok"]
    assert check["detail"].startswith("1 damaged: item 'v17-")
    assert "/pictures/17.png" in check["detail"]
    assert f"its {what}" in check["detail"]
    assert "mmalign index" in check["remedy"]
    shown = run.invoke(app, ["doctor", "--deep", "--collection", str(copy)])
    assert shown.exit_code == 1
    assert "v17-" in shown.output


def test_embeddings_that_cannot_be_read_are_damaged() -> None:
    """Damage can make one of them null, so that fewer come than there are rows."""
    stored = pa.chunked_array([pa.array([5, None, 7], pa.uint32())])
    assert differs(stored, np.array([5, 7], np.uint32)).tolist() == [True, False, True]
    assert differs(stored, np.array([5, 6, 8], np.uint32)).tolist() == [False, False, True]


# Versions -------------------------------------------------------------------------------------------------------------


def manifest_of(store: Store) -> Path:
    return Path(store.dataset.uri) / "_versions" / f"{(1 << 64) - 1 - store.version:020}.manifest"


def test_a_damaged_manifest_is_refused_by_all_who_open_it(copy: Path) -> None:
    """Lance itself panics over some of these bits, which is no exception that anybody catches."""
    items = copy / "items.lance"
    earlier = Store.open(items)
    Collection.open(copy).remove([name_of(8)])
    file = manifest_of(Store.open(items))
    right, local = file.read_bytes(), np.random.default_rng(7)
    for place in local.choice(8 * len(right), 25, replace=False).tolist():
        flip(file, place)
        with pytest.raises(MMAlignError):
            Store.open(items)
        with pytest.raises(MMAlignError):
            earlier.latest()
        with pytest.raises(MMAlignError):
            Collection.open(copy)
        file.write_bytes(right)
    assert len(earlier.latest()) == len(earlier) - 1


def test_a_damaged_manifest_without_a_checksum(copy: Path) -> None:
    """Not every bit is noticed then, but what Lance cannot read is an error as any other."""
    items = copy / "items.lance"
    earlier = Store.open(items)
    Collection.open(copy).remove([name_of(8)])
    file = manifest_of(Store.open(items))
    shutil.rmtree(items / "_checksums")
    right, refused = file.read_bytes(), 0
    for place in range(0, 8 * len(right), 83):
        flip(file, place)
        for opening in (lambda: Store.open(items).columns, lambda: earlier.latest().columns):
            try:
                opening()
            except MMAlignError:
                refused += 1
        file.write_bytes(right)
    assert refused > 50


def test_a_damaged_list_of_deleted_rows_is_refused(copy: Path) -> None:
    """It would bring back an item, and take away another."""
    file = sorted((copy / "items.lance" / "_deletions").iterdir())[0]
    right, local = file.read_bytes(), np.random.default_rng(8)
    for place in local.choice(8 * len(right), 10, replace=False).tolist():
        flip(file, place)
        with pytest.raises(DamagedError, match="is damaged: its checksum is another one"):
            Store.open(copy / "items.lance")
        file.write_bytes(right)


def test_a_damaged_list_of_deleted_rows_of_the_version_that_an_index_was_built_from(tmp_path: Path) -> None:
    """What the index covers is found by comparing that version with the newest: items would go missing."""
    path = tmp_path / "updated.mm"
    collection = Collection.create(path, encoder=None, dim=DIM)
    add(collection, range(ROWS))
    collection.update([name_of(row) for row in range(10, 40)], {"title": "set by hand"})
    collection.build_index("IVF4,Flat", progress=False)
    (file,) = (path / "items.lance" / "_deletions").iterdir()
    collection.remove([name_of(50)])
    right = look(path)
    # Where the numbers of the rows lie, compressed; what is around them is refused by whoever reads it.
    for turn, bit in enumerate(range(8 * 440, 8 * 500, 11)):
        copy = tmp_path / str(turn)
        shutil.copytree(path, copy)
        flip(copy / file.relative_to(path), bit)
        assert look(copy) == right


def test_later_versions_keep_the_checksum_of_a_file_that_is_damaged_since(copy: Path) -> None:
    """Read anew for the next version, its damage would count as right."""
    writer = Store.open(copy / "items.lance")
    file = sorted((copy / "items.lance" / "_deletions").glob("0-*"))[0]
    flip(file, 8 * (file.stat().st_size // 2))
    # In the other fragment, so that the damaged file stays in use.
    writer.mark()
    with pytest.raises(DamagedError):
        Store.open(copy / "items.lance")


@pytest.mark.parametrize("way", ["no folder", "no file", "damaged"])
def test_versions_without_checksums_are_not_checked(copy: Path, whole: Path, way: str) -> None:
    """Those of earlier versions of mmalign have none; the next write makes one."""
    folder = copy / "items.lance" / "_checksums"
    newest = folder / f"{Store.open(copy / 'items.lance').version}.json"
    if way == "no folder":
        shutil.rmtree(folder)
    elif way == "no file":
        newest.unlink()
    else:
        flip(newest, 8 * 20)
    assert not check_version(Store.open(copy / "items.lance").dataset)
    assert look(copy) == look(whole)
    Collection.open(copy).remove([name_of(8)])
    store = Store.open(copy / "items.lance")
    assert check_version(store.dataset)
    flip(manifest_of(store), 5000)
    with pytest.raises(MMAlignError):
        Store.open(copy / "items.lance")


# Collections that have no checksums yet -------------------------------------------------------------------------------


@pytest.fixture
def old(copy: Path) -> Path:
    """As an earlier mmalign left it."""
    lance.dataset(str(copy / "items.lance")).drop_columns([EMBEDDING_CHECKSUM, CHECKSUM])
    shutil.rmtree(copy / "items.lance" / "_checksums")
    return copy


def without_checksums(answers: list[Any]) -> list[Any]:
    *others, rows, row_ids, matrix = answers
    kept = [{name: value for name, value in row.items() if name not in (EMBEDDING_CHECKSUM, CHECKSUM)} for row in rows]
    return [*others, kept, row_ids, matrix]


@pytest.mark.parametrize("way", ["add", "update", "make_text"])
def test_old_collections_get_checksums_with_the_first_write(old: Path, whole: Path, way: str) -> None:
    right = without_checksums(look(whole))
    assert without_checksums(look(old)) == right
    assert CHECKSUM not in Store.open(old / "items.lance").dataset.schema.names
    opened = Collection.open(old)
    assert opened.check_items() == []
    if way == "add":
        opened.add_embeddings(["new"], vectors()[:1])
        opened.remove(["new"])
    elif way == "update":
        opened.update([name_of(8)], {"year": 1998})
    else:
        opened.make_text("year")
    _, table = opened.snapshot().scan([*lance.dataset(str(old / "items.lance")).schema.names])
    matrix = np.array(table.column("embedding").to_pylist(), np.float16)
    assert table.column(EMBEDDING_CHECKSUM).to_pylist() == embedding_checksums(matrix).tolist()
    assert table.column(CHECKSUM).to_pylist() == row_checksums(table).tolist()
    if way == "add":
        assert without_checksums(look(old)) == right
    assert opened.check_items() == []
    flip_in(old, halves(17), 3)
    with pytest.raises(DamagedError):
        Collection.open(old).search(vectors()[17], k=1)


def test_an_old_collection_that_is_empty(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    lance.dataset(str(tmp_path / "a.mm" / "items.lance")).drop_columns([EMBEDDING_CHECKSUM, CHECKSUM])
    collection = Collection.open(tmp_path / "a.mm")
    add(collection, range(5))
    assert collection.snapshot().scan([CHECKSUM])[1].column(CHECKSUM).null_count == 0
    assert collection.check_items() == []
