"""Identical files: encoded once, and one hit unless asked for one by one."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmalign.cli import app
from mmalign.collection.collection import Collection
from mmalign.errors import InputError
from mmalign.media.policy import MediaPolicy
from tests.tools.color_encoder import COLORS, ColorEncoder, paint


@pytest.fixture
def encoder() -> ColorEncoder:
    return ColorEncoder()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine pictures, and seven copies of the red one."""
    for i, color in enumerate(COLORS):
        paint(tmp_path / "photos" / f"{color}.png", color, detail=i)
    for i in range(7):
        shutil.copy(tmp_path / "photos" / "red.png", tmp_path / "photos" / f"red {i}.png")
    return tmp_path / "photos"


@pytest.fixture
def collection(tmp_path: Path, photos: Path, encoder: ColorEncoder) -> Collection:
    made = Collection.create(tmp_path / "photos.mm", encoder=encoder)
    made.add(photos / "red.png", progress=False)
    made.add(photos, progress=False)
    return made


def names(hits: object) -> list[str]:
    return [Path(hit.uri).name for hit in hits]  # type: ignore[attr-defined]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_encoder_sees_identical_files_once(tmp_path: Path, encoder: ColorEncoder, batch_size: int) -> None:
    folder = tmp_path / "many"
    for i in range(120):
        paint(folder / f"{i}.png", ("red", "blue", "green")[i % 3], detail=i % 3)
    made = Collection.create(tmp_path / "many.mm", encoder=encoder)
    report = made.add(folder, batch_size=batch_size, progress=False)
    assert (report.added, report.encoded, encoder.encoded) == (120, 3, 3)
    for i in range(5):
        shutil.copy(folder / "0.png", folder / f"later {i}.png")
    assert made.add(folder, progress=False).added == 5
    assert encoder.encoded == 3, "nor in a later run"
    row_ids, vectors = made.snapshot().embeddings()
    assert len(row_ids) == 125
    assert len(np.unique(vectors, axis=0)) == 3


def test_an_edit_to_what_another_new_file_holds_is_not_encoded_again(
    collection: Collection, photos: Path, encoder: ColorEncoder
) -> None:
    encoder.encoded = 0
    for name in ("a new.png", "blue.png", "z new.png"):
        paint(photos / name, "cyan", detail=80)
    report = collection.add(photos, progress=False)
    assert (report.added, report.updated, encoder.encoded) == (2, 1, 1)
    [hit] = [hit for hit in collection.search("cyan", k=2) if hit.copies]
    assert {Path(uri).name for uri in (hit.uri, *hit.copies)} == {"a new.png", "blue.png", "z new.png"}


@pytest.fixture
def server(photos: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=photos)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_identical_pictures_of_a_server_are_encoded_once(tmp_path: Path, server: str, encoder: ColorEncoder) -> None:
    made = Collection.create(tmp_path / "web.mm", encoder=encoder)
    urls = [f"{server}/red.png", *(f"{server}/red%20{i}.png" for i in range(7)), f"{server}/blue.png"]
    report = made.add(urls, batch_size=1, progress=False, policy=MediaPolicy(allow_private_networks=True))
    assert (report.added, report.skipped, encoder.encoded) == (9, (), 2)


def test_copies_are_one_hit_that_names_them(collection: Collection, photos: Path) -> None:
    result = collection.search("red", k=5)
    assert names(result)[0] == "red.png", "the oldest stands for all"
    assert result[0].copies == tuple(str(photos / f"red {i}.png") for i in range(7))
    assert len(result) == 5
    assert all(hit.copies == () for hit in result[1:])
    assert len({hit.uri for hit in result}) == 5
    assert result[0].to_dict()["copies"] == list(result[0].copies)
    assert "copies" not in result[1].to_dict()
    every = collection.search("red", k=8, copies=True)
    assert set(names(every)) == {"red.png", *(f"red {i}.png" for i in range(7))}
    assert len({hit.score for hit in every}) == 1
    assert all(hit.copies == () for hit in every)
    assert len(collection.search("red", k=100)) == 9
    assert len(collection.search("red", k=100, copies=True)) == 16
    assert len(collection.search("red", k=0)) == 0
    assert len(collection.search("red", k=1)) == 1


def test_folded_hits_are_the_hits_of_a_collection_without_copies(
    collection: Collection, photos: Path, tmp_path: Path, encoder: ColorEncoder
) -> None:
    alone = Collection.create(tmp_path / "alone.mm", encoder=encoder)
    alone.add([photos / f"{color}.png" for color in COLORS], progress=False)
    for query in ("red", "blue red", "white", photos / "red 3.png", "red - blue"):
        for k in (1, 3, 9, 20):
            mine, theirs = collection.search(query, k=k), alone.search(query, k=k)
            assert [hit.score for hit in mine] == [hit.score for hit in theirs]
            # What is equally near comes in either order.
            assert {hit.uri for hit in mine if hit.score > 0.01} == {hit.uri for hit in theirs if hit.score > 0.01}
            assert len({hit.uri for hit in mine}) == len(mine) == min(k, 9)


def test_batches_are_folded_as_single_queries_are(collection: Collection) -> None:
    queries = ["red", "green", "red red blue"] * 40
    singles = {query: collection.search(query, k=4).hits for query in set(queries)}
    for _ in range(3):
        # From disk at first, and then from memory.
        for query, result in zip(queries, collection.search(queries, k=4), strict=True):
            assert result.hits == singles[query]


def test_a_filter_comes_first(collection: Collection, photos: Path) -> None:
    [hit] = collection.search("red", k=1, where="uri LIKE '%red 4%' OR uri LIKE '%red 2%'")
    assert (Path(hit.uri).name, hit.copies) == ("red 2.png", (str(photos / "red 4.png"),))
    [hit] = collection.search("red", k=1, where="uri LIKE '%red 4%'")
    assert (Path(hit.uri).name, hit.copies) == ("red 4.png", ())
    assert len(collection.search("red", where="uri LIKE '%red%'")) == 1
    assert len(collection.search("red", where="uri LIKE '%red%'", copies=True)) == 8


def test_folding_follows_the_items(collection: Collection, photos: Path) -> None:
    assert len(collection.search("red", k=1)[0].copies) == 7
    collection.remove([str(photos / "red.png"), str(photos / "red 0.png")])
    [hit] = collection.search("red", k=1)
    assert (Path(hit.uri).name, len(hit.copies)) == ("red 1.png", 5)
    paint(photos / "red 1.png", "red", detail=60)
    collection.add(photos, progress=False)
    assert {Path(hit.uri).name: len(hit.copies) for hit in collection.search("red", k=2)} == {
        "red 1.png": 0, "red 2.png": 4,
    }  # fmt: skip


def test_an_index_is_folded_too(tmp_path: Path, encoder: ColorEncoder) -> None:
    pytest.importorskip("faiss")
    folder = tmp_path / "photos"
    for i in range(60):
        paint(folder / f"{i}.png", list(COLORS)[i % 9], detail=i)
        for copy in range(i % 5):
            shutil.copy(folder / f"{i}.png", folder / f"{i} {copy}.png")
    made = Collection.create(tmp_path / "photos.mm", encoder=encoder)
    made.add(folder, progress=False)
    exact = {query: made.search(query, k=12) for query in COLORS}
    made.build_index("hnsw", progress=False)
    for query, expected in exact.items():
        found = made.search(query, k=12)
        assert len({hit.uri for hit in found}) == len(found) == 12
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-3)
        assert all(len(hit.copies) == int(Path(hit.uri).stem.split()[0]) % 5 for hit in found)


def test_vectors_from_elsewhere_are_never_folded(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "v.mm", encoder=None, dim=4)
    made.add_embeddings(["a", "b", "c"], np.ones((3, 4)))
    assert len(made.search(np.ones(4))) == 3


def test_copies_must_be_a_yes_or_no(collection: Collection) -> None:
    with pytest.raises(InputError, match="copies"):
        collection.search("red", copies="yes")  # type: ignore[call-overload]


def test_the_command_line_counts_them_and_lists_them_when_asked(
    collection: Collection, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mmalign.collection.collection.load_encoder", lambda spec: ColorEncoder())
    call = CliRunner().invoke
    told = call(app, ["search", "red", "-k", "2", "-c", str(collection.path)])
    assert f"{photos / 'red.png'}  (+7 copies)" in told.output
    told = call(app, ["search", "red", "-k", "9", "--copies", "--paths-only", "-c", str(collection.path)])
    assert sum("red" in Path(line).name for line in told.stdout.splitlines()) == 8
    told = call(app, ["search", "red", "-k", "1", "--json", "-c", str(collection.path)])
    assert len(json.loads(told.stdout)["hits"][0]["copies"]) == 7
    assert call(app, ["search", "red", "--captions", "--copies", "-c", str(collection.path)]).exit_code != 0
