"""Views: where they are kept, their index and what it covers, one hit an item, and the part of an item that is found.

The oracle compares with every caption of every item in a loop.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmalign import Collection
from mmalign.errors import IndexFileError, InputError
from mmalign.types import Box, Part
from tests.collection.test_view_search import DIM, WordEncoder, captioned, check, expected, files_with, vector_of

VIEW = Path("views") / "captions"


def grouped(collection: Collection, query: str, *, where: str | None = None) -> list[tuple[str, float]]:
    """The best caption of each item, by a loop."""
    best: dict[str, float] = {}
    for name, _, score in expected(collection, query, 10_000, where=where):
        best[name] = max(score, best.get(name, -2.0))
    return sorted(best.items(), key=lambda one: -one[1])


def check_grouped(collection: Collection, query: str, k: int, *, where: str | None = None) -> None:
    result = collection.search_captions(query, k=k, where=where, group_by="item")
    best = grouped(collection, query, where=where)
    wanted = best[:k]
    assert [hit.score for hit in result] == pytest.approx([score for _, score in wanted], abs=1e-3)
    assert len({hit.id for hit in result}) == len(result) == len(wanted)
    every = {(name, text): score for name, text, score in expected(collection, query, 10_000)}
    for hit in result:
        (text,) = hit.metadata["captions"]
        assert hit.score == pytest.approx(every[hit.id, text], abs=1e-3)
        assert hit.score == pytest.approx(dict(best)[hit.id], abs=1e-3)


def index_versions(collection: Collection) -> list[Path]:
    return [path for path in (collection.path / VIEW / "index").iterdir() if path.is_dir()]


# Where it is kept --------------------------------------------------------------------------------------------------


def test_captions_are_a_view_of_a_collection_of_format_3(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    assert json.loads((collection.path / "collection.json").read_text())["format"] == 3
    assert not (collection.path / "views").exists()
    assert collection.info()["views"] == {"captions": {"rows": 0, "index": None, "indexed": 0}}
    check(collection, "a thing of kind 3")
    assert sorted(path.name for path in (collection.path / VIEW).iterdir()) == [".lock", "table.lance"]
    assert not list(collection.path.rglob("captions.lance"))
    assert collection.info()["views"]["captions"]["rows"] == 120
    # It is made of what the items hold.
    shutil.rmtree(collection.path / "views")
    check(collection, "a thing of kind 3")
    check(Collection.open(collection.path, encoder=WordEncoder()), "a thing of kind 3")


def test_a_table_of_many_captions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys of many rows get indexes, and a view has not all of those that items have."""
    monkeypatch.setattr("mmalign.store.scalar_indexes._WORTHWHILE", 10)
    monkeypatch.setattr("mmalign.store.lookup._LARGE", 10)
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    check(collection, "a thing of kind 3")
    first = collection.search_captions("a thing of kind 3", k=1)[0].id
    collection.remove([first], purge=True)
    check(collection, "a thing of kind 3")
    for _ in range(20):
        collection.update([next(iter(collection)).id], {"captions": ["a thing of kind 3"]})
        check(collection, "a thing of kind 3")


def test_a_table_that_is_no_view_s_is_made_anew(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    table = collection.path / VIEW / "table.lance"
    shutil.copytree(collection.path / "items.lance", table)
    check(collection, "a thing of kind 3")
    shutil.rmtree(table)
    table.mkdir()
    (table / "what").write_text("no dataset")
    # Nothing else is stopped by it.
    assert collection.check_items() == [f"{table} cannot be read"]
    assert collection.info()["views"]["captions"]["rows"] == 0
    collection.refresh_index(progress=False)
    collection.check_index()
    check(Collection.open(collection.path, encoder=WordEncoder()), "a thing of kind 3")


# Its index ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["flat", "IVF8,Flat", "SQ8"])
def test_captions_with_an_index_are_found_as_a_loop_finds_them(tmp_path: Path, recipe: str) -> None:
    pytest.importorskip("faiss")
    collection = captioned(tmp_path / "a.mm", WordEncoder(), 200)
    manifest = collection.build_index(recipe, view="captions", progress=False)
    assert manifest is not None
    assert (manifest.rows, collection.index_manifest) == (600, None)
    told = collection.info()["views"]["captions"]
    assert (told["rows"], told["indexed"], told["index"]) == (600, 600, recipe)
    for opened in (collection, Collection.open(collection.path, encoder=WordEncoder())):
        for query in ("a thing of kind 3", "i7 in view 1"):
            for k in (1, 12, 1000):
                result = opened.search_captions(query, k=k, min_recall=1.0)
                wanted = expected(opened, query, k)
                assert [hit.score for hit in result] == pytest.approx([score for *_, score in wanted], abs=5e-3)
            assert opened.search_captions(query, k=1)[0].metadata["captions"] == [query]
        for k in (1, 7, 200, 1000):
            result = opened.search_captions("a thing of kind 3", k=k, group_by="item")
            assert len(result) == len({hit.id for hit in result}) == min(k, 200)


def test_what_the_index_lacks_is_found_and_what_is_gone_is_not(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    collection.build_index("flat", view="captions", progress=False)
    (version,) = index_versions(collection)
    reader = Collection.open(collection.path, encoder=WordEncoder())
    check(reader, "i3 in view 0")
    collection.update(["i3"], {"captions": ["new words of it"]})
    collection.remove(["i4"])
    for opened in (collection, reader):
        for query in ("new words of it", "i3 in view 0", "i4 in view 1"):
            check(opened, query)
            check(opened, query, where="number < 20")
            check_grouped(opened, query, 5)
    assert index_versions(collection) == [version]
    assert collection.info()["views"]["captions"] == {"rows": 115, "index": "flat", "indexed": 120}
    # Much that is new is taken in.
    names = [f"n{number}" for number in range(60)]
    collection.add_embeddings(names, np.ones((60, DIM)), metadata={"number": [7] * 60})
    collection.update(names, {"captions": ["the same new words"]})
    check(collection, "the same new words", k=70)
    collection.refresh_index(progress=False)
    assert collection.info()["views"]["captions"]["indexed"] == 175
    check(collection, "the same new words", k=70)
    check(reader, "the same new words", k=70)
    assert collection.check_index() is None


def test_captions_get_an_index_by_themselves_once_they_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    collection.refresh_index(progress=False)
    # Those that nobody has searched are not embedded for it.
    assert not (collection.path / "views").exists()
    collection.search_captions("x")
    collection.refresh_index(progress=False)
    assert collection.info()["views"]["captions"]["index"] is None
    monkeypatch.setattr("mmalign.collection.indexing.chooses_exact", lambda rows, *_: rows < 100)
    monkeypatch.setattr("mmalign.collection.indexing.choose", lambda *_: type("Choice", (), {"recipe": flat()}))
    collection.refresh_index(progress=False)
    told = collection.info()
    assert (told["index"], told["views"]["captions"]["indexed"]) == (None, 120)
    check(collection, "a thing of kind 3")


def flat() -> object:
    from mmalign.index import load_recipe

    return load_recipe("flat")


def test_a_damaged_index_is_told_of_and_built_again(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    collection.build_index("flat", view="captions", progress=False)
    (version,) = index_versions(collection)
    file = max(version.glob("*.npy"), key=lambda path: path.stat().st_size)
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 4
    file.write_bytes(raw)
    opened = Collection.open(collection.path, encoder=WordEncoder())
    for _ in range(3):
        check(opened, "a thing of kind 3")
    assert any("without the index" in note for note in opened.search_captions("x").notes)
    with pytest.raises(IndexFileError, match="damaged"):
        opened.check_index()
    opened.refresh_index(progress=False)
    opened.check_index()
    assert opened.search_captions("x").notes == ()
    check(opened, "a thing of kind 3")


def test_an_index_of_a_table_that_was_made_anew_is_not_used(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    collection.build_index("flat", view="captions", progress=False)
    check(collection, "a thing of kind 3")
    shutil.rmtree(collection.path / VIEW / "table.lance")
    for opened in (collection, Collection.open(collection.path, encoder=WordEncoder())):
        opened.update(["i1"], {"captions": ["other words"]})
        for query in ("other words", "i39 in view 1"):
            check(opened, query)


def test_recall_among_captions_is_promised_and_measured_again(tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    collection = captioned(tmp_path / "a.mm", WordEncoder(), 300)
    manifest = collection.build_index("IVF16,Flat", view="captions", min_recall=0.9, progress=False)
    assert manifest is not None
    assert manifest.contract["min_recall"] == 0.9
    found = collection.check_recall(seed=1, progress=False)
    assert {one.view for one in found} == {"captions"}
    assert {"sentence", "word", "difference", "image"} <= {one.kind for one in found}
    assert all(one.ok for one in found)
    assert "among the captions" in str(found[0])
    with pytest.raises(InputError, match="min_recall"):
        collection.search_captions("x", min_recall=2)


def test_arguments_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder(), 2)
    with pytest.raises(InputError, match="view must be image or captions, got 'moments'"):
        collection.build_index("flat", view="moments")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="group_by must be item, got 'page'"):
        collection.search_captions("x", group_by="page")  # type: ignore[arg-type]


# Purging it --------------------------------------------------------------------------------------------------------


def files_with_vector(folder: Path, text: str) -> list[str]:
    needle = vector_of(text).astype(np.float16).tobytes()
    return [path.name for path in folder.rglob("*") if path.is_file() and needle in path.read_bytes()]


def test_a_purge_leaves_no_byte_in_any_version_of_the_index(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    collection.update(["i8"], {"captions": ["SECRETWORDS"]})
    collection.update(["i9"], {"captions": ["OTHERSECRET"]})
    collection.build_index("flat-fp16" if has_faiss() else "flat", view="captions", progress=False)
    # An earlier version of the index, too, holds them.
    collection.update(["i9"], {"captions": ["harmless"]})
    collection.search_captions("x")
    collection.build_index("flat-fp16" if has_faiss() else "flat", view="captions", progress=False)
    assert len(index_versions(collection)) == 2
    if has_faiss():
        assert len(files_with_vector(collection.path / VIEW / "index", "SECRETWORDS")) == 2
    assert collection.remove(["i8"], purge=True) == 1
    for text in ("SECRETWORDS", "OTHERSECRET"):
        assert files_with(tmp_path, text) == []
        assert files_with_vector(tmp_path, text) == []
    assert len(index_versions(collection)) == 1
    assert collection.info()["views"]["captions"]["indexed"] == 38 * 3 + 1
    check(collection, "i7 in view 1")
    assert collection.check_index() is None
    # A table that is gone leaves nothing of its index behind.
    shutil.rmtree(collection.path / VIEW / "table.lance")
    collection.remove(["i10"], purge=True)
    assert index_versions(collection) == []


def has_faiss() -> bool:
    from importlib.util import find_spec

    return find_spec("faiss") is not None


KILLED = """
import sys
from pathlib import Path
from mmalign import Collection
from mmalign.collection import view_table
from tests.collection.test_view_search import WordEncoder
from tests.tools.indexing import plant

# Many small commits, so that there is something to lose between them.
view_table.CHUNK = 20
plant(sys.argv[2])
collection = Collection.open(sys.argv[1], encoder=WordEncoder())
collection.search_captions("x")
collection.build_index("flat", view="captions", progress=False)
collection.remove(["i8"], purge=True)
"""


@pytest.mark.parametrize(
    "point",
    [
        "mmalign.collection.view_refresh:ViewTable.create:after:1",
        "mmalign.collection.view_table:ViewTable.write:before:3",
        "mmalign.collection.view_table:ViewTable.write:after:3",
        "mmalign.index.lifecycle.versions:write_files:after:1",
        "mmalign.index.lifecycle.versions:rename_version:after:1",
        "mmalign.index.lifecycle.versions:replace_pointer:after:1",
        "mmalign.collection.views:View.purge:before:1",
        "mmalign.collection.views:View.purge:after:1",
        "mmalign.index.lifecycle.versions:rename_version:after:2",
    ],
)
def test_a_kill_at_any_step_leaves_what_is_found_and_can_be_purged(tmp_path: Path, point: str) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", KILLED, str(collection.path), point], cwd=root, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    opened = Collection.open(collection.path, encoder=WordEncoder())
    check(opened, "a thing of kind 1", k=1000)
    assert opened.check_items() == []
    opened.check_index()
    opened.build_index("flat", view="captions", progress=False)
    check(opened, "i9 in view 0", k=1000)
    opened.remove(["i8", "i9"], purge=True)
    for name in ("i8", "i9"):
        assert files_with(tmp_path, f"{name} in view") == []
    check(opened, "i9 in view 0", k=1000)
    assert len(index_versions(opened)) == 1


# One hit an item, and parts ----------------------------------------------------------------------------------------


def test_captions_that_nobody_has_need_no_index(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder(), 3)
    collection.build_index("flat", view="captions", progress=False)
    collection.update(["i0", "i1", "i2"], {"captions": []})
    assert collection.build_index("flat", view="captions", progress=False) is None
    assert len(collection.search_captions("x")) == 0
    collection.refresh_index(progress=False)
    assert collection.info()["views"]["captions"] == {"rows": 0, "index": None, "indexed": 0}


@pytest.mark.parametrize("recipe", [None, "flat"])
def test_one_hit_an_item_is_that_of_its_best_caption(tmp_path: Path, recipe: str | None) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder())
    # One item has so many of the nearest captions that others lie far behind them.
    collection.update(["i5"], {"captions": ["a thing of kind 3", *(f"{n} and a thing" for n in range(120))]})
    if recipe is not None:
        collection.build_index(recipe, view="captions", progress=False)
    for query in ("a thing of kind 3", "7 and a thing"):
        for k in (0, 1, 2, 40, 1000):
            check_grouped(collection, query, k)
        check_grouped(collection, query, 10, where="number < 12")
    assert len(collection.search_captions("x", k=5, where="number < 0", group_by="item")) == 0


def test_equal_captions_are_grouped_in_the_order_of_the_items(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "a.mm", encoder=WordEncoder())
    names = [f"i{number}" for number in range(300)]
    collection.add_embeddings(names, np.ones((300, DIM)))
    collection.update(names, {"captions": ["the same words", "other words"]})
    for k in (1, 40, 300, 1000):
        for _ in range(3):
            result = collection.search_captions("the same words", k=k, group_by="item")
            assert [hit.id for hit in result] == names[:k]
            assert {hit.metadata["captions"][0] for hit in result} == {"the same words"}


def test_a_hit_says_which_part_of_the_item_was_found(tmp_path: Path) -> None:
    collection = captioned(tmp_path / "a.mm", WordEncoder(), 3)
    assert [hit.part for hit in collection.search_captions("x", k=20)] == [None] * 9
    assert "part" not in collection.search_captions("x")[0].to_dict()
    table = collection._current().captions._writer()
    _, rows = table.scan(["id", "text"])
    names = {row["text"]: row["id"] for row in rows.to_pylist()}
    table.patch([{"id": names["i0 in view 0"], "start_s": 1.5, "end_s": 3.0}])
    table.patch([{"id": names["i1 in view 0"], "box": [1.0, 2.0, 30.0, 40.0]}])
    table.patch([{"id": names["i2 in view 0"], "page": 7}])
    found = {hit.metadata["captions"][0]: hit for hit in collection.search_captions("x", k=20)}
    assert found["i0 in view 0"].part == Part(start_s=1.5, end_s=3.0)
    assert found["i1 in view 0"].part == Part(box=Box(1, 2, 30, 40))
    assert found["i2 in view 0"].part == Part(page=7)
    assert found["i0 in view 1"].part is None
    assert found["i1 in view 0"].to_dict()["part"] == {"box": [1.0, 2.0, 30.0, 40.0]}


@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        ({"start_s": -1.0}, "seconds from 0 on, got -1.0"),
        ({"end_s": float("nan")}, "seconds from 0 on, got nan"),
        ({"start_s": 2.0, "end_s": 1.0}, "ends where it begins or later"),
        ({"page": 0}, "page of a part is an integer of at least 1"),
        ({"box": [0, 0, 1, 1]}, "the box of a part must be a Box"),
        ({"start_s": "1"}, "start_s of a part must be a number of seconds"),
    ],
)
def test_a_part_that_can_be_none_is_refused(bounds: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        Part(**bounds)  # type: ignore[arg-type]


def test_a_part_is_json() -> None:
    assert Part(1, 2.5, Box(0, 1, 2, 3), 4).to_dict() == {
        "start_s": 1,
        "end_s": 2.5,
        "box": [0, 1, 2, 3],
        "page": 4,
    }
    assert Part().to_dict() == {}
