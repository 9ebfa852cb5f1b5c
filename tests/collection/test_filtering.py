"""Filters as they are used: in searches, in captions, on the command line and to remove items."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mmalign import Collection
from mmalign.cli import app
from mmalign.errors import CollectionFormatError, FilterError, InputError, StorageError
from mmalign.store.lance_store import Store
from tests.tools.color_encoder import ColorEncoder, paint

IDS = ["a", "b", "c"]
VECTORS = np.eye(3, dtype=np.float32)


class PanicException(BaseException):
    """What pyo3 raises for a panic in Rust is derived from BaseException, has this name, and cannot be imported."""


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    made = Collection.create(tmp_path / "shop.mm", encoder=None, dim=3)
    metadata = {
        "brand": ["x", "y", "x"],
        "Camera Model": ["X1", "it's", "X1"],
        "price": ["12", "7.5", "n/a"],
        "day": [datetime.date(2020, 1, i + 1) for i in range(3)],
    }
    made.add_embeddings(IDS, VECTORS, metadata=metadata)
    return made


def ids(collection: Collection, where: str) -> list[str]:
    return sorted(hit.id for hit in collection.search(VECTORS[0], k=9, where=where))


def test_remove_takes_what_the_filter_says_and_no_more(collection: Collection) -> None:
    for where in ("\"brnad\" != 'x'", "'brand' != 'x'", "brand != x", "brand != 'x' OR", "", "brand = ?", "price > 3"):
        for purge in (False, True):
            with pytest.raises(FilterError, match="columns here: id, uri"):
                collection.remove(where=where, purge=purge)
    assert len(collection) == 3
    assert collection.remove(where="\"brand\" != 'x'") == 1
    assert sorted(collection.snapshot().scan(["id"])[1].column("id").to_pylist()) == ["a", "c"]
    assert collection.remove(["a", "c"], where="day > '2020-01-02'", purge=True) == 1
    assert ids(collection, "true") == ["a"]


def test_a_search_finds_what_the_filter_says(collection: Collection) -> None:
    assert ids(collection, "brand = 'x' AND day >= '2020-01-02'") == ["c"]
    assert ids(collection, "\"Camera Model\" = 'it''s'") == ["b"]
    assert ids(collection, "TRY_CAST(price AS DOUBLE) < 10") == ["b"]
    with pytest.raises(FilterError, match=r"price is text, because of row 3: 'n/a' \(item 'c'\)"):
        ids(collection, "price > 10")
    for where in (5, b"brand = 'x'", float("nan")):
        with pytest.raises(FilterError, match="a filter is a text"):
            collection.search(VECTORS[0], where=where)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="a list of filters needs a list of queries"):
        collection.search(VECTORS[0], where=["brand"])
    empty = Collection.create(collection.path.parent / "empty.mm", encoder=None, dim=3)
    assert ids(empty, "width > 3") == []
    with pytest.raises(FilterError, match="no column 'brand'"):
        ids(empty, "brand = 'x'")


def test_columns_that_were_renamed_or_hold_odd_types(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=None, dim=3)
    told = {
        "exif.iso": [100, 200, 400],
        "a`b": ["x", "y", "z"],
        "_hidden": [1, 2, 3],
        'it\'s "so"': [1, 2, 3],
        "$price": [1, 2.5, 3],
        "width": [7, 8, 9],
        "select": ["p", "q", "r"],
        "clock": [datetime.time(1), datetime.time(2), None],
        "fine": np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[ns]"),
    }
    made.add_embeddings(IDS, VECTORS, metadata=told)
    for where, wanted in {
        '"exif.iso" > 100': ["b", "c"],
        "exif.iso > 100": ["b", "c"],
        "`a``b` = 'x'": ["a"],
        "_hidden >= 2": ["b", "c"],
        '"it\'s ""so""" = 3': ["c"],
        '"$price" > 2': ["b", "c"],
        "width_ = 8": ["b"],
        "width IS NULL": ["a", "b", "c"],
        "select = 'q'": ["b"],
        "clock IS NULL": ["c"],
        "fine >= '2020-01-02'": ["b", "c"],
    }.items():
        assert ids(made, where) == wanted, where


def test_captions_take_the_same_filters(tmp_path: Path) -> None:
    encoder = ColorEncoder()
    made = Collection.create(tmp_path / "a.mm", encoder=encoder)
    made.add(
        [
            {"path": str(paint(tmp_path / f"{color}.png", color)), "captions": [f"all {color}"], "Day": day}
            for color, day in (("red", "2020-01-01"), ("blue", "2020-01-02"), ("green", "2020-01-03"))
        ],
        progress=False,
    )
    found = made.search_captions("red", where="\"Day\" >= '2020-01-02' AND array_to_string(captions, ' ') LIKE 'all %'")
    assert sorted(hit.metadata["captions"][0] for hit in found) == ["all blue", "all green"]
    told = dict(made.caption_items(mode="nearest", where="day = '2020-01-02'", progress=False))
    assert len(told) == 1
    assert list(made.caption_items(mode="nearest", where="day = '2020-01-02'", progress=False)) == []
    for where in ("'day' = 'x'", " ", "captions = 'x'", "day > 3"):
        with pytest.raises(FilterError, match="columns here"):
            made.search_captions("red", where=where)
        with pytest.raises(FilterError, match="columns here"):
            list(made.caption_items(mode="nearest", where=where, progress=False))
    bare = Collection.create(tmp_path / "b.mm", encoder=encoder)
    with pytest.raises(FilterError):
        bare.search_captions("red", where="nope = 1")


def test_a_filter_is_refused_before_an_encoder_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    monkeypatch.setattr(ColorEncoder, "encode_text", lambda *_, **__: pytest.fail("a query was encoded"))
    for search in (made.search, made.search_captions):
        with pytest.raises(FilterError, match="no column 'nope'"):
            search("red", where="nope = 1")


def test_the_command_line_removes_by_filter(collection: Collection) -> None:
    done = CliRunner().invoke(app, ["remove", "-c", str(collection.path), "--where", "\"brand\" != 'x'", "--json"])
    assert json.loads(done.stdout)["removed"] == 1
    assert sorted(collection.snapshot().scan(["id"])[1].column("id").to_pylist()) == ["a", "c"]


def test_a_search_without_a_filter_needs_no_parser(collection: Collection) -> None:
    told = """
import sys, numpy, mmalign
opened = mmalign.Collection.open(sys.argv[1])
query = numpy.eye(3, dtype=numpy.float32)[0]
opened.search(query)
print("sqlglot" in sys.modules)
opened.search(query, where="width > 1")
print("sqlglot" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", told, str(collection.path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["False", "True"]


# Panics --------------------------------------------------------------------------------------------------------------


def test_a_panic_in_lance_is_an_error_of_ours(collection: Collection, capfd: pytest.CaptureFixture[str]) -> None:
    # A placeholder makes Lance's planner panic; no filter of a user reaches it.
    with pytest.raises(StorageError, match="cannot read"):
        collection.snapshot().scan(["id"], also="id = ?")
    with pytest.raises(StorageError, match="cannot read"):
        collection.snapshot().row_ids(also="id = $1")
    capfd.readouterr()


def fails_with(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


READS: dict[str, tuple[str, Callable[[Collection], object]]] = {
    "scanner": ("scanner", lambda made: made.search(VECTORS[0], where="brand = 'x'")),
    "take": ("_take_rows", lambda made: made.search(VECTORS[0], k=1)),
    "count": ("count_rows", len),
    "batches": ("to_batches", lambda made: list(made.snapshot().iter_embeddings())),
    "latest": ("latest_version", lambda made: made.snapshot()),
    "delete": ("delete", lambda made: made.remove(["a"])),
    "columns": ("add_columns", lambda made: made.add_embeddings(["z"], VECTORS[:1], metadata={"new": [1]})),
    "merge": ("merge_insert", lambda made: made.add_embeddings(["z"], VECTORS[:1])),
    "update": ("merge_insert", lambda made: made.update(["a"], {"brand": "z"})),
}


@pytest.mark.parametrize("read", READS)
def test_no_panic_leaves_a_public_function(collection: Collection, monkeypatch: pytest.MonkeyPatch, read: str) -> None:
    import lance

    name, use = READS[read]
    for error in (
        PanicException("index out of bounds"),
        OSError("LanceError(IO): x"),
        RuntimeError("Task was aborted"),
    ):
        with monkeypatch.context() as patch:
            broken = fails_with(error)
            patch.setattr(lance.LanceDataset, name, property(broken) if name == "latest_version" else broken)
            with pytest.raises(StorageError):
                use(Collection.open(collection.path))
    # What is no fault of the library goes its way.
    for other in (KeyboardInterrupt(), SystemExit(3), TypeError("a fault of mmalign"), ValueError("one of Python's")):
        with monkeypatch.context() as patch:
            broken = fails_with(other)
            patch.setattr(lance.LanceDataset, name, property(broken) if name == "latest_version" else broken)
            with pytest.raises(type(other)) as caught:
                use(Collection.open(collection.path))
            assert caught.value is other
    assert len(collection) == 3


def test_a_panic_on_opening_is_an_error_of_ours(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    import lance

    monkeypatch.setattr(lance, "dataset", fails_with(PanicException("range end index 12 out of range")))
    with pytest.raises(CollectionFormatError, match="range end index 12"):
        Store.open(collection.path / "items.lance")
