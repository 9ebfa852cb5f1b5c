"""What a collection gives back is what went in: by id, in batches, as tables and as vectors."""

from __future__ import annotations

import datetime
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from mmalign import Collection
from mmalign.errors import FilterError, InputError, ItemNotFoundError, MissingExtraError, StorageError
from mmalign.store.lance_store import Store
from mmalign.types import StoredItem
from tests.tools.color_encoder import COLORS, ColorEncoder, paint

DIM, ROWS = 8, 250
DAY = datetime.date(2020, 2, 28)


def vectors() -> np.ndarray:
    made = np.random.default_rng(11).normal(size=(ROWS, DIM))
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def expected() -> dict[str, dict[str, Any]]:
    """By id what was put in; values that are missing are left out."""
    rows: dict[str, dict[str, Any]] = {}
    for i in range(ROWS):
        row = {
            "n": 2**60 + i,
            "title": f"title {i}",
            "odd": i % 2 == 1,
            "day": DAY + datetime.timedelta(i),
            "Price $": i / 3,
        }
        rows[f"v{i}"] = {name: value for name, value in row.items() if i % 5 or name not in ("n", "odd", "title")}
    return rows


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In several fragments, of which some rows are deleted."""
    made = Collection.create(tmp_path_factory.mktemp("reading") / "a.mm", encoder=None, dim=DIM)
    rows = expected()
    names = list(rows)
    columns = {name: [row.get(name) for row in rows.values()] for name in ("n", "title", "odd", "day", "Price $")}
    for start in range(0, ROWS, 60):
        part = slice(start, start + 60)
        told = {name: values[part] for name, values in columns.items()}
        made.add_embeddings(names[part], vectors()[part], metadata=told)
    made.remove(["v7", "v100"])
    return made.path


@pytest.fixture
def collection(path: Path) -> Collection:
    return Collection.open(path)


def there() -> list[str]:
    return [name for name in expected() if name not in ("v7", "v100")]


def test_items_come_by_id_in_the_order_asked_for(collection: Collection) -> None:
    asked = ["v33", "v0", "v249", "v33", "v61"]
    found = collection.get(asked)
    assert [item.id for item in found] == asked
    for item in found:
        assert item == StoredItem(item.id, kind="vector", metadata=expected()[item.id])
    assert collection.get("v61") == found[-1]
    assert collection.get([]) == []
    assert [one.id for one in collection.get(np.array(["v2", "v1"]))] == ["v2", "v1"]
    with pytest.raises(AttributeError):
        found[0].id = "other"  # type: ignore[misc]


def test_integers_are_ids(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    made.add_embeddings([5, 6], vectors()[:2])
    assert made.get(6) == made.get("6") == made.get(np.int64(6))
    assert [item.id for item in made.get(np.array([6, 5]))] == ["6", "5"]
    assert made.embeddings([6])[0] == ["6"]


def test_an_id_that_no_item_has_is_an_error_that_names_it(collection: Collection) -> None:
    with pytest.raises(KeyError, match="no item has the id 'v7'"):
        collection.get("v7")
    with pytest.raises(ItemNotFoundError, match=r"the 7 ids 'a', 'v100', 'b', 'c', 'd', \.\.\.;") as refused:
        collection.get(["v1", "a", "v100", "b", "a", "c", "d", "e", "f"])
    assert refused.value.unknown == ("a", "v100", "b", "c", "d", "e", "f")
    again = pickle.loads(pickle.dumps(refused.value))
    assert (str(again), again.unknown) == (str(refused.value), refused.value.unknown)
    with pytest.raises(ItemNotFoundError):
        collection.embeddings(["v7"])
    for wrong in (None, 1.5, True, b"v1", ["v1", None], {"v1": 1}):
        with pytest.raises(InputError):
            collection.get(wrong)  # type: ignore[call-overload]


def test_a_picture_s_item_tells_of_its_file(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    picture = paint(tmp_path / "red.png", "red", size=(31, 17))
    made.add([{"image": str(picture), "captions": ["all red", "no blue"], "stars": 3}], progress=False)
    (item,) = made
    assert (item.uri, item.kind, item.width, item.height) == (str(picture), "image", 31, 17)
    assert (item.bytes, item.captions, item.metadata) == (picture.stat().st_size, ("all red", "no blue"), {"stars": 3})
    assert len(item.sha256 or "") == 64
    assert item.to_dict()["captions"] == ["all red", "no blue"]
    assert item.id in made
    assert "nothing" not in made


def test_going_through_gives_every_item_once(collection: Collection) -> None:
    items = list(collection)
    assert [item.id for item in items] == there()
    assert {item.id: dict(item.metadata) for item in items} == {name: expected()[name] for name in there()}


@pytest.mark.parametrize("size", [1, 7, 60, 248, 1000])
def test_batches_have_the_size_asked_for(collection: Collection, size: int) -> None:
    batches = list(collection.to_batches(columns=["title", "id"], batch_size=size))
    assert all(isinstance(batch, pa.RecordBatch) for batch in batches)
    sizes = [batch.num_rows for batch in batches]
    assert sizes == [size] * (248 // size) + [248 % size] * bool(248 % size)
    assert batches[0].schema.names == ["title", "id"]
    told = [(row["id"], row["title"]) for batch in batches for row in batch.to_pylist()]
    assert told == [(name, expected()[name].get("title")) for name in there()]


def test_a_filter_leaves_what_a_loop_leaves(collection: Collection) -> None:
    where = "odd AND title <> 'title 3'"
    wanted = [name for name in there() if expected()[name].get("odd") and expected()[name].get("title") != "title 3"]
    assert collection.to_arrow(columns=["id"], where=where).column("id").to_pylist() == wanted
    batches = list(collection.to_batches(columns=["id"], where=where, batch_size=10))
    assert [batch.num_rows for batch in batches][:-1] == [10] * (len(wanted) // 10)
    assert [name for batch in batches for name in batch.column("id").to_pylist()] == wanted
    nothing = collection.to_arrow(where="n < 0")
    assert (nothing.num_rows, nothing.schema) == (0, collection.to_arrow().schema)
    assert list(collection.to_batches(where="n < 0")) == []


def test_a_table_has_every_column_but_what_is_the_store_s_own(collection: Collection) -> None:
    table = collection.to_arrow()
    own = ["id", "uri", "sha256", "kind", "width", "height", "bytes", "mtime_ns", "captions"]
    assert table.schema.names == [*own, *collection.columns]
    rows = {row["id"]: row for row in table.to_pylist()}
    assert list(rows) == there()
    for name, row in rows.items():
        assert {key: row[key] for key in collection.columns if row[key] is not None} == expected()[name]
    assert collection.to_arrow(columns=["Price $"]).schema.names == ["Price $"]


def test_a_column_answers_to_the_name_it_was_given(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    made.add_embeddings(["a"], vectors()[:1], metadata={"a.b": [3]})
    assert made.to_arrow(columns=["a.b", "a_b"]).to_pylist() == [{"a_b": 3}]


def test_embeddings_are_those_that_went_in(collection: Collection) -> None:
    names, found = collection.embeddings()
    wanted = dict(zip(expected(), vectors(), strict=True))
    assert (names, found.dtype, found.shape) == (there(), np.float32, (248, DIM))
    np.testing.assert_allclose(found, [wanted[name] for name in names], atol=1e-3)
    names, some = collection.embeddings(["v60", "v2", "v60"])
    assert (names, some.dtype) == (["v60", "v2", "v60"], np.float32)
    np.testing.assert_array_equal(some, [found[there().index(name)] for name in names])
    assert collection.embeddings([])[1].shape == (0, DIM)
    with pytest.raises(InputError, match="for one item write"):
        collection.embeddings("v2")
    lists = collection.to_arrow(columns=["id", "embedding"]).column("embedding")
    assert lists.type == pa.list_(pa.float16(), DIM)
    np.testing.assert_array_equal(np.array(lists.to_pylist(), np.float32), found)


def test_what_cannot_be_read_is_refused_at_once(collection: Collection) -> None:
    for wrong in (["nothing"], "title", ["said"], ["_checksum"], [3], []):
        with pytest.raises(InputError, match=r"column"):
            collection.to_batches(columns=wrong)  # type: ignore[arg-type]
    with pytest.raises(FilterError):
        collection.to_batches(where="nothing = 3")
    for size in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="batch_size"):
            collection.to_batches(batch_size=size)  # type: ignore[arg-type]


def test_an_empty_collection_has_tables_without_rows(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    assert list(made) == list(made.to_batches()) == []
    assert made.to_arrow().num_rows == 0
    names, found = made.embeddings()
    assert (names, found.shape, found.dtype) == ([], (0, DIM), np.float32)


def test_reading_sees_one_version_whatever_others_write(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    names = [f"v{i}" for i in range(ROWS)]
    made.add_embeddings(names, vectors(), metadata={"n": list(range(ROWS))})
    batches = made.to_batches(columns=["id", "n"], batch_size=20)
    seen = next(batches).to_pylist()
    other = Collection.open(made.path)
    for turn in range(40):
        other.update([f"v{turn + 50}"], {"n": -1})
        other.remove([f"v{turn + 100}"])
    for batch in batches:
        seen += batch.to_pylist()
    assert seen == [{"id": name, "n": n} for n, name in enumerate(names)]
    assert len(list(made)) == ROWS - 40


def test_what_is_read_again_is_asked_for_again(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may replace the files while they are read; a generator of ids cannot be gone through twice."""
    for method in ("lookup", "iter_rows"):
        real, failures = getattr(Store, method), ["once"]

        def gone(*args: Any, real: Any = real, failures: list[str] = failures, **options: Any) -> Any:
            if failures and failures.pop():
                raise StorageError("cannot read: being replaced")
            return real(*args, **options)

        monkeypatch.setattr(Store, method, gone)
        if method == "lookup":
            assert [item.id for item in collection.get(name for name in ("v3", "v1"))] == ["v3", "v1"]
            failures.append("again")
            assert collection.embeddings(name for name in ("v3", "v1"))[0] == ["v3", "v1"]
        else:
            assert collection.to_arrow(columns=(name for name in ("id", "n"))).schema.names == ["id", "n"]
        assert failures == []


def test_batches_are_those_of_when_it_begins(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    made.add_embeddings(["a", "b"], vectors()[:2], metadata={"n": [1, 2]})
    batches = made.to_batches(columns=["id", "n"])
    for turn in range(40):
        made.update(["b"], {"n": turn})
    assert [batch.to_pylist() for batch in batches] == [[{"id": "a", "n": 1}, {"id": "b", "n": 39}]]


def test_reading_and_writing_in_threads(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=None, dim=DIM)
    made.add_embeddings(["kept"], vectors()[:1], metadata={"n": [7]})
    failed: list[BaseException] = []

    def read() -> None:
        try:
            for _ in range(30):
                assert made.get("kept").metadata == {"n": 7}
                assert "kept" in made.embeddings()[0]
        except BaseException as error:
            failed.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(20):
        made.add_embeddings([f"w{turn}"], vectors()[turn : turn + 1], metadata={"n": [turn]})
    for reader in readers:
        reader.join()
    assert failed == []


def test_a_collection_that_may_only_be_read(read_only: tuple[Path, Callable[[], None]], path: Path) -> None:
    import shutil

    folder, close = read_only
    shutil.copytree(path, folder / "a.mm")
    close()
    opened = Collection.open(folder / "a.mm")
    assert [item.id for item in opened] == there()
    assert opened.get("v3").metadata == expected()["v3"]
    assert opened.to_arrow(where="odd").num_rows == sum(bool(expected()[name].get("odd")) for name in there())
    assert len(opened.embeddings()[1]) == 248


def test_without_pandas_the_error_says_what_to_install(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"needs the package pandas; install it with: .*mmalign\[pandas\]"):
        collection.to_pandas()


def test_a_frame_changes_no_value(collection: Collection) -> None:
    pandas = pytest.importorskip("pandas")
    frame = collection.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    rows = {row["id"]: row for row in frame.to_dict("records")}
    assert list(rows) == there()
    for name, row in rows.items():
        for column in collection.columns:
            value = expected()[name].get(column)
            assert pandas.isna(row[column]) if value is None else row[column] == value, (name, column)
    # A missing value would turn integers into fractions.
    assert str(frame["n"].dtype) == "Int64"
    assert list(collection.to_pandas(columns=["id"], where="n IS NULL").columns) == ["id"]


def test_captions_and_pictures_of_many_sizes_come_back(tmp_path: Path) -> None:
    """As the raw library reads their files."""
    made = Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    rows = [
        {"image": str(paint(tmp_path / f"{color}.png", color, size=(20 + i, 30 + 2 * i))), "caption": f"all {color}"}
        for i, color in enumerate(COLORS)
    ]
    made.add(rows, progress=False)
    for item in made:
        with Image.open(item.uri) as picture:
            assert (item.width, item.height) == picture.size
        assert item.captions == (f"all {Path(item.uri).stem}",)
