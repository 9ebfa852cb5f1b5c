"""The facade: what it creates, opens, adds, removes and finds, against brute force over what was put in."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from mmalign.collection.collection import Collection
from mmalign.errors import (
    CollectionError,
    CollectionExistsError,
    CollectionFormatError,
    CollectionNotFoundError,
    DimensionError,
    EncoderMismatchError,
    FilterError,
    InputError,
    MetadataError,
    QueryError,
)
from mmalign.utils.similarity import l2_normalize
from tests.tools.color_encoder import COLORS, ColorEncoder, paint

DIM = 16


def vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


def names(start: int, stop: int) -> list[str]:
    return [f"v{i}" for i in range(start, stop)]


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    return Collection.create(tmp_path / "vectors.mm", encoder=None, dim=DIM)


class Oracle:
    """What the collection should hold, searched by brute force."""

    def __init__(self) -> None:
        self.rows: dict[str, np.ndarray] = {}

    def put(self, ids: list[str], matrix: np.ndarray) -> None:
        self.rows |= dict(zip(ids, l2_normalize(matrix), strict=True))

    def search(self, query: np.ndarray, k: int, allowed: set[str] | None = None) -> list[tuple[str, float]]:
        query = l2_normalize(query)
        scored = [(name, float(query @ row)) for name, row in self.rows.items() if allowed is None or name in allowed]
        return sorted(scored, key=lambda pair: -pair[1])[:k]


def check(collection: Collection, oracle: Oracle, *, k: int = 10, **options: object) -> None:
    """The same hits in the same order, but for what float16 cannot tell apart."""
    allowed = options.pop("allowed", None)
    for query in vectors(5, seed=777):
        expected = oracle.search(query, k, allowed)  # type: ignore[arg-type]
        found = collection.search(query, k=k, **options)  # type: ignore[call-overload]
        assert [hit.score for hit in found] == pytest.approx([score for _, score in expected], abs=2e-3)
        sure = {name for name, score in expected if score > expected[-1][1] + 4e-3} if expected else set()
        assert sure <= {hit.id for hit in found}


@pytest.mark.parametrize("recipe", [None, "flat", "Flat", "IVF8,Flat", "SQ8", "PCA8,Flat"])
def test_a_search_sees_every_committed_item(collection: Collection, recipe: str | None) -> None:
    oracle = Oracle()

    def add(ids: list[str], matrix: np.ndarray) -> None:
        oracle.put(ids, matrix)
        collection.add_embeddings(ids, matrix, metadata={"n": [int(name[1:]) for name in ids]})

    # SQ8 rounds, IVF8 looks into few lists, PCA8 drops half the dimensions: held to a share of the truth.
    lossy = recipe in ("IVF8,Flat", "SQ8", "PCA8,Flat")

    def compare(k: int = 10, **options: object) -> None:
        if not lossy:
            check(collection, oracle, k=k, **options)
            return
        allowed = options.pop("allowed", None)
        found = total = 0
        for query in vectors(20, seed=777):
            expected = {name for name, _ in oracle.search(query, k, allowed)}  # type: ignore[arg-type]
            hits = collection.search(query, k=k, **options)  # type: ignore[call-overload]
            got = {hit.id for hit in hits}
            if recipe == "PCA8,Flat":
                # Whatever the index told, a hit's score is the cosine.
                cosines = [float(l2_normalize(query) @ oracle.rows[hit.id]) for hit in hits]
                assert [hit.score for hit in hits] == pytest.approx(cosines, abs=2e-3)
            assert got <= oracle.rows.keys()
            assert allowed is None or got <= allowed  # type: ignore[operator]
            found, total = found + len(got & expected), total + len(expected)
        assert found / total >= 0.25

    add(names(0, 400), vectors(400, seed=1))
    if recipe is not None:
        manifest = collection.build_index(recipe, progress=False)
        assert manifest is not None
        assert manifest.rows == 400
    compare()
    # New rows, replaced rows and deleted rows, none of which the index knows of.
    add(names(400, 450), vectors(50, seed=2))
    add(names(20, 60), vectors(40, seed=3))
    assert collection.remove(names(100, 160)) == 60
    for name in names(100, 160):
        del oracle.rows[name]
    compare()
    allowed = {name for name in oracle.rows if 30 <= int(name[1:]) < 420}
    compare(where="n >= 30 AND n < 420", allowed=allowed)
    compare(where="n = 410", allowed={"v410"})
    assert list(collection.search(vectors(1, 4)[0], where="n < 0")) == []
    if not lossy:
        assert len(Collection.open(collection.path).search(vectors(1, 4)[0], k=10_000)) == 390


def test_exactness_is_told_as_it_is(collection: Collection) -> None:
    collection.add_embeddings(names(0, 300), vectors(300, seed=1))
    query = vectors(1, 2)[0]
    assert collection.search(query).exact
    collection.build_index("IVF8,SQ8", progress=False)
    result = collection.search(query)
    assert not result.exact
    assert result.effort is not None
    assert collection.search(query, where="id = 'v3'").exact


def test_many_queries_give_what_single_ones_give(collection: Collection) -> None:
    collection.add_embeddings(names(0, 300), vectors(300, seed=1))
    queries = list(vectors(7, seed=2))
    together = collection.search(queries, k=5)
    assert isinstance(together, list)
    for query, result in zip(queries, together, strict=True):
        assert [hit.id for hit in result] == [hit.id for hit in collection.search(query, k=5)]
    assert collection.search([]) == []


def test_a_damaged_index_is_reported_and_searched_around(collection: Collection) -> None:
    oracle = Oracle()
    oracle.put(names(0, 300), vectors(300, seed=1))
    collection.add_embeddings(names(0, 300), vectors(300, seed=1))
    collection.build_index("Flat", progress=False)
    file = next((collection.path / "index").glob("*/index.faiss"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    again = Collection.open(collection.path)
    check(again, oracle)
    result = again.search(vectors(1, 2)[0])
    assert result.exact
    assert "searched exactly, without the index" in result.notes[0]
    manifest = again.refresh_index(progress=False)
    assert manifest is not None
    assert again.search(vectors(1, 2)[0]).notes == ()


def test_refresh_builds_only_what_has_fallen_behind(collection: Collection) -> None:
    collection.add_embeddings(names(0, 200), vectors(200, seed=1))
    assert collection.refresh_index(progress=False) is None, "so few vectors need no index"
    first = collection.refresh_index("Flat", progress=False)
    assert first is not None
    collection.add_embeddings(names(200, 210), vectors(10, seed=2))
    assert collection.refresh_index(progress=False) == first
    collection.add_embeddings(names(210, 260), vectors(50, seed=3))
    second = collection.refresh_index(progress=False)
    assert second is not None
    assert (second.rows, second.recipe) == (260, "Flat")
    assert second.version != first.version
    assert collection.build_index(progress=False) is None
    assert collection.index_manifest is None


def test_add_embeddings_refuses_what_it_cannot_keep(collection: Collection) -> None:
    with pytest.raises(DimensionError, match="expected dim 16"):
        collection.add_embeddings(["a"], np.ones((1, 3)))
    with pytest.raises(InputError, match="2 ids but 1 vectors"):
        collection.add_embeddings(["a", "b"], np.ones((1, DIM)))
    with pytest.raises(InputError, match="different from one another"):
        collection.add_embeddings(["a", "a"], np.ones((2, DIM)))
    with pytest.raises(InputError, match="NaN or infinity"):
        collection.add_embeddings(["a"], np.full((1, DIM), np.nan))
    with pytest.raises(InputError, match="all zeros, the first is that of id 'b'"):
        collection.add_embeddings(["a", "b"], np.eye(2, DIM) * [[1], [0]])
    with pytest.raises(InputError, match="1 ids but 2 label"):
        collection.add_embeddings(["a"], np.ones((1, DIM)), metadata={"label": ["x", "y"]})
    assert len(collection) == 0
    assert collection.add_embeddings([], np.zeros((0, DIM))).added == 0


def test_adding_again_replaces(collection: Collection) -> None:
    assert collection.add_embeddings(["a", "b"], vectors(2, 1), metadata={"year": [1, 2]}).added == 2
    report = collection.add_embeddings(["b", "c"], vectors(2, 2), metadata={"year": [5, 6]}, uris=["u", "w"])
    assert (report.added, report.updated) == (1, 1)
    hit = collection.search(vectors(2, 2)[0], k=1)[0]
    assert (hit.id, hit.uri, hit.metadata["year"]) == ("b", "u", 5)
    assert hit.score == pytest.approx(1.0, abs=2e-3)


def test_update_and_filters(collection: Collection) -> None:
    collection.add_embeddings(names(0, 4), vectors(4, 1), metadata={"year": [1999, 2005, 2010, None]})
    assert collection.update(["v0", "v3", "nobody"], {"year": 2020, "label": "new"}) == 2
    query = vectors(1, 9)[0]
    assert {hit.id for hit in collection.search(query, where="year >= 2010")} == {"v0", "v2", "v3"}
    assert {hit.id for hit in collection.search(query, where="label = 'new' AND year = 2020")} == {"v0", "v3"}
    assert collection.columns == {"year": "int64", "label": "string"}
    with pytest.raises(MetadataError, match="column 'year' holds int64, got 'x'"):
        collection.update(["v0"], {"year": "x"})
    with pytest.raises(MetadataError, match="no metadata given"):
        collection.update(["v0"], {})
    with pytest.raises(FilterError, match=r"columns here: id, uri.*year, label"):
        collection.search(query, where="nope = 1")


def test_remove_and_purge(collection: Collection) -> None:
    collection.add_embeddings([*names(0, 50), "the-secret-one"], vectors(51, 1), metadata={"n": list(range(51))})
    collection.build_index("Flat", progress=False)
    assert collection.remove(where="n < 10 AND n >= 5") == 5
    assert collection.remove(["v0", "v1"], where="n = 1") == 1
    assert collection.remove(["nobody"]) == 0
    with pytest.raises(InputError, match="ids or where"):
        collection.remove()
    secret = l2_normalize(vectors(51, 1)[50]).astype(np.float16).tobytes()
    as_float = np.frombuffer(secret, np.float16).astype(np.float32).tobytes()

    def traces() -> list[str]:
        files = [path for path in collection.path.rglob("*") if path.is_file()]
        wanted = (b"the-secret-one", secret, as_float)
        return [path.name for path in files for data in [path.read_bytes()] if any(part in data for part in wanted)]

    assert traces(), "the test must be able to see what purge removes"
    assert collection.remove(["the-secret-one"], purge=True) == 1
    assert traces() == []
    assert len(collection.search(vectors(1, 2)[0], k=100)) == 44
    assert collection.index_manifest is not None


def test_create_and_open_say_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.mm"
    with pytest.raises(CollectionNotFoundError, match="mmalign index FOLDER"):
        Collection.open(path)
    with pytest.raises(InputError, match="needs dim"):
        Collection.create(path, encoder=None)
    assert not path.exists()
    Collection.create(path, encoder=ColorEncoder())
    with pytest.raises(CollectionExistsError, match="overwrite=True"):
        Collection.create(path, encoder=ColorEncoder())
    Collection.create(path, encoder=None, dim=3, overwrite=True)
    assert Collection.open(path).dim == 3
    with pytest.raises(EncoderMismatchError, match="takes no encoder, got color@1"):
        Collection.open(path, encoder=ColorEncoder())
    with pytest.raises(CollectionError, match="search it by vector"):
        Collection.open(path).search("words")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep me", encoding="utf-8")
    with pytest.raises(CollectionExistsError, match="choose another path"):
        Collection.create(tmp_path / "full", encoder=None, dim=3, overwrite=True)
    assert (tmp_path / "full" / "mine.txt").read_text(encoding="utf-8") == "keep me"
    (tmp_path / "empty").mkdir()
    assert len(Collection.create(tmp_path / "empty", encoder=None, dim=3)) == 0
    (path / "items.lance").rename(path / "gone.lance")
    with pytest.raises(CollectionFormatError, match="not a readable item store"):
        Collection.open(path)


def test_another_encoder_is_refused_by_name(tmp_path: Path) -> None:
    Collection.create(tmp_path / "a.mm", encoder=ColorEncoder())
    other = ColorEncoder()
    other.name, other.fingerprint = "other@1", "f" * 64  # type: ignore[misc]
    with pytest.raises(EncoderMismatchError, match=r"was made with color@1 .*got other@1"):
        Collection.open(tmp_path / "a.mm", encoder=other)


def test_bad_queries_are_refused(collection: Collection) -> None:
    collection.add_embeddings(["a"], vectors(1, 1))
    with pytest.raises(InputError, match="at least 0, got -3"):
        collection.search(np.ones(DIM), k=-3)
    with pytest.raises(DimensionError, match="expected dim 16"):
        collection.search(np.ones(5))
    with pytest.raises(QueryError, match="the query is empty"):
        collection.search("")
    assert len(collection.search(np.ones(DIM), k=0)) == 0


def test_an_empty_collection_finds_nothing(collection: Collection) -> None:
    result = collection.search(np.ones(DIM))
    assert (len(result), result.exact) == (0, True)


def test_searches_go_on_while_items_and_index_change(collection: Collection) -> None:
    """Four threads search while one adds, removes and rebuilds: no error, no removed item, no missing one."""
    collection.add_embeddings(names(0, 200), vectors(200, 1))
    stop = threading.Event()
    problems: list[str] = []
    removed: set[str] = set()
    query = vectors(1, 5)[0]

    def search() -> None:
        while not stop.is_set():
            gone = set(removed)
            try:
                hits = collection.search(query, k=1000)
            except Exception as error:
                problems.append(repr(error))
                return
            found = {hit.id for hit in hits}
            if not set(names(0, 100)) <= found:
                problems.append(f"missing {sorted(set(names(0, 100)) - found)[:3]}")
            if found & gone:
                problems.append(f"removed but found {sorted(found & gone)[:3]}")

    readers = [threading.Thread(target=search) for _ in range(4)]
    for reader in readers:
        reader.start()
    for step in range(8):
        collection.add_embeddings(names(200 + 10 * step, 210 + 10 * step), vectors(10, step))
        victim = f"v{100 + step}"
        collection.remove([victim])
        removed.add(victim)
        if step % 3 == 0:
            collection.build_index("Flat", progress=False)
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []


def test_captions_follow_their_items(tmp_path: Path) -> None:
    encoder = ColorEncoder()
    collection = Collection.create(tmp_path / "a.mm", encoder=encoder)
    rows = [
        {"path": str(paint(tmp_path / f"{color}.png", color, detail=i)), "captions": [f"all {color}", f"{color} too"]}
        for i, color in enumerate(COLORS)
    ]
    collection.add(rows)
    result = collection.search_captions(tmp_path / "green.png", k=2)
    assert [hit.metadata["captions"] for hit in result] in (
        [["all green"], ["green too"]],
        [["green too"], ["all green"]],
    )
    green = result[0].id
    collection.update([green], {"captions": ["all blue now"]})
    found = [hit.metadata["captions"][0] for hit in collection.search_captions("blue", k=3)]
    assert sorted(found) == ["all blue", "all blue now", "blue too"]
    collection.remove([green])
    assert "all blue now" not in [hit.metadata["captions"][0] for hit in collection.search_captions("blue", k=100)]
    empty = Collection.create(tmp_path / "b.mm", encoder=encoder)
    assert len(empty.search_captions("blue")) == 0
