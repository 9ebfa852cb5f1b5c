"""Hits tell of their items the same from disk and from memory, and of the version that was searched."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.collection.collection import Collection
from mmalign.errors import DimensionError, InputError, QueryError
from mmalign.search import hit_reader as module
from mmalign.search.hit_reader import HitReader
from mmalign.search.searcher import FoundRows, How
from mmalign.types import Hit, SearchResult, batch_results

DIM, ROWS = 8, 60


def told(i: int) -> dict[str, Any]:
    return {"year": None if i % 3 else 1990 + i, "tags": ["a", str(i)], "name": f"Straße {i}"}


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    made = Collection.create(tmp_path / "v.mm", encoder=None, dim=DIM)
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIM)).astype(np.float32)
    # Replacing rows leaves row ids that are no longer in order.
    for chosen in (range(ROWS), range(10, 20), range(3, 5)):
        names = [f"v{i}" for i in chosen]
        values = {key: [told(i)[key] for i in chosen] for key in told(0)}
        made.add_embeddings(names, vectors[list(chosen)], metadata=values, uris=[f"/p/{i}.jpg" for i in chosen])
    return made


def expected(found: FoundRows, names: dict[int, str]) -> list[list[Hit]]:
    """Hits made from what was put in, one by one."""
    results = []
    for scores, rows in zip(found.scores, found.row_ids, strict=True):
        made = []
        for score, row in zip(scores, rows, strict=True):
            if row >= 0:
                i = int(names[int(row)][1:])
                values = {"kind": "vector"} | {key: value for key, value in told(i).items() if value is not None}
                made.append(Hit(f"v{i}", f"/p/{i}.jpg", float(score), values))
        results.append(made)
    return results


def some(collection: Collection, seed: int) -> tuple[FoundRows, dict[int, str]]:
    row_ids, table = collection.snapshot().scan(["id"])
    rng = np.random.default_rng(seed)
    chosen = rng.choice(row_ids, (7, 5))
    chosen[2, 3:] = -1
    chosen[4] = -1
    found = FoundRows(rng.random(chosen.shape).astype(np.float32), chosen, (How(True, None),))
    return found, dict(zip(row_ids.tolist(), table.column("id").to_pylist(), strict=True))


def read(reader: HitReader, found: FoundRows, **options: Any) -> list[list[Hit]]:
    hits = reader.read(found, **options)
    return [list(hits(i)) for i in range(len(found.scores))]


def test_memory_tells_what_the_disk_tells(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = HitReader(collection.snapshot())
    scans = []
    scan = type(reader.store).scan
    monkeypatch.setattr(type(reader.store), "scan", lambda *a, **o: (scans.append(1), scan(*a, **o))[1])
    found, names = some(collection, 3)
    scans.clear()
    assert read(reader, found) == expected(found, names)
    assert len(scans) == 1, "60 rows are read at once rather than taken again and again"
    for seed in range(4, 8):
        other, _ = some(collection, seed)
        assert read(reader, other) == expected(other, names)
    chances = np.where(found.row_ids % 2 == 0, 0.25, np.nan)
    for one, rows in zip(read(reader, found, probabilities=chances), found.row_ids, strict=True):
        assert [hit.probability for hit in one] == [0.25 if row % 2 == 0 else None for row in rows if row >= 0]


def test_columns_that_are_too_large_stay_on_disk(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMORY", 1000)
    reader = HitReader(collection.snapshot())
    for seed in range(3):
        found, names = some(collection, seed)
        assert reader._table is None
        assert read(reader, found) == expected(found, names)


def test_nothing_found(collection: Collection) -> None:
    reader = HitReader(collection.snapshot())
    none = FoundRows(np.zeros((2, 0), np.float32), np.zeros((2, 0), np.int64), (How(True, None),))
    for _ in range(3):
        assert read(reader, none) == [[], []]
        read(reader, some(collection, 1)[0])


def test_hits_are_of_the_version_that_was_searched(collection: Collection) -> None:
    query = np.ones(DIM, np.float32)
    collection.search(query)
    before, twin = collection.search([query, query], k=ROWS)
    collection.update(["v1"], {"year": 7})
    collection.remove(["v2"], purge=True)
    assert {hit.id for hit in before} == {f"v{i}" for i in range(ROWS)}
    assert next(hit for hit in before if hit.id == "v1").metadata["name"] == "Straße 1"
    assert "year" not in next(hit for hit in before if hit.id == "v1").metadata
    assert before.hits == twin.hits
    after = collection.search(query, k=ROWS)
    assert next(hit for hit in after if hit.id == "v1").metadata["year"] == 7
    assert "v2" not in {hit.id for hit in after}


def result(hits: Any) -> SearchResult:
    return SearchResult(hits=hits, query="q", exact=True, seconds=1.0, collection="c")


def late(make: Callable[[int], tuple[Hit, ...]]) -> SearchResult:
    return batch_results(make, queries="q", notes=[()], exact=[True], seconds=1.0, collection="c", effort=[None])[0]


def test_hits_that_are_made_late_are_hits() -> None:
    made = []

    def make(place: int) -> tuple[Hit, ...]:
        made.append(place)
        return (Hit("a", "", 0.5), Hit("b", "", 0.25))

    once = late(make)
    assert made == []
    plain = result((Hit("a", "", 0.5), Hit("b", "", 0.25)))
    assert (len(once), once[0], once[-1].id, [hit.id for hit in once]) == (2, Hit("a", "", 0.5), "b", ["a", "b"])
    assert made == [0]
    for one in (lambda: late(make), lambda: once):
        assert one() == plain
        assert repr(one()) == repr(plain)
        assert one().to_dict() == plain.to_dict()
        assert pickle.loads(pickle.dumps(one())) == plain
        assert copy.deepcopy(one()) == plain
        assert copy.copy(one()).hits == plain.hits
        assert replace(one(), query="r").hits == plain.hits
        assert isinstance(one().hits, tuple)
    with pytest.raises(AttributeError):
        once.hits = ()  # type: ignore[misc]


def test_what_made_the_hits_is_let_go() -> None:
    class Maker:
        def make(self, place: int) -> tuple[Hit, ...]:
            return (Hit(str(place), "", 0.5),)

    maker = Maker()
    gone = weakref.ref(maker)
    one = late(maker.make)
    del maker
    assert gone() is not None
    assert one[0].id == "0"
    assert gone() is None
    assert one[0].id == "0"


def test_an_error_while_hits_are_made_comes_up_each_time() -> None:
    def fail(place: int) -> tuple[Hit, ...]:
        raise OSError("gone")

    one = late(fail)
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            len(one)


def test_results_of_a_batch_are_those_of_the_constructor() -> None:
    hits = ((Hit("a", "", 0.5),), (), (Hit("b", "", 0.25), Hit("a", "", 0.0)))
    shared: dict[str, Any] = {"seconds": 2.5, "collection": "c"}
    exact, efforts, notes = [False, True, False], [64, None, 8], [("n",), (), ("m", "o")]
    made = batch_results(hits.__getitem__, queries="xyz", notes=notes, exact=exact, effort=efforts, **shared)
    for at, (one, own) in enumerate(zip(made, hits, strict=True)):
        plain = SearchResult(hits=own, query="xyz"[at], notes=notes[at], exact=exact[at], effort=efforts[at], **shared)
        assert one == plain
        assert pickle.loads(pickle.dumps(one)) == plain
        # A field that were forgotten could not be read.
        assert {field.name: getattr(one, field.name) for field in fields(plain)} == {
            field.name: getattr(plain, field.name) for field in fields(plain)
        }
        with pytest.raises(AttributeError):
            one.query = "z"  # type: ignore[misc]
    assert batch_results(hits.__getitem__, queries=[], notes=[], exact=[], effort=[], **shared) == []


def test_a_batch_leaves_the_callers_vectors_as_they_are_and_refuses_a_wrong_one(collection: Collection) -> None:
    given = 100 * np.random.default_rng(6).standard_normal((5, DIM)).astype(np.float32)
    queries = [row.copy() for row in given]
    queries[2] *= np.float32(1e36 / np.abs(queries[2]).max())
    kept = [row.copy() for row in queries]
    huge = collection.search(queries, k=3)[2]
    assert [hit.id for hit in huge] == [hit.id for hit in collection.search(given[2], k=3)]
    np.testing.assert_array_equal(queries, kept)
    for wrong in (np.nan, np.inf):
        queries[4] = np.full(DIM, wrong, np.float32)
        with pytest.raises(InputError, match="NaN or infinity"):
            collection.search(queries)
    queries[4] = np.zeros(DIM, np.float32)
    with pytest.raises(QueryError, match="cancel out"):
        collection.search(queries)


def test_a_batch_of_many_vectors_gives_what_each_of_them_gives(collection: Collection) -> None:
    queries = list(np.random.default_rng(5).standard_normal((70, DIM)) * 10)
    # From disk first, then from columns in memory, in blocks of 32.
    for _ in range(3):
        results = collection.search(queries, k=4)
        assert len(results) == 70
        for query, one in zip(queries, results, strict=True):
            alone = collection.search(query, k=4)
            assert one.query == alone.query
            assert [(hit.id, hit.metadata) for hit in one] == [(hit.id, hit.metadata) for hit in alone]
            np.testing.assert_allclose([hit.score for hit in one], [hit.score for hit in alone], atol=1e-6)


def test_an_array_of_vectors_is_a_batch(collection: Collection) -> None:
    queries = 10 * np.random.default_rng(7).standard_normal((5, DIM))
    kept = queries.copy()
    alone = [[hit.id for hit in collection.search(row, k=4)] for row in queries]
    for given in (queries, queries.astype(np.float32), queries.astype(np.float16), np.asfortranarray(queries)):
        assert [[hit.id for hit in one] for one in collection.search(given, k=4)] == alone
    np.testing.assert_array_equal(queries, kept)
    assert [[hit.id for hit in one] for one in collection.search(queries[:1], k=4)] == alone[:1]
    assert collection.search(queries[:0]) == []
    with pytest.raises(DimensionError, match=f"expected dim {DIM}"):
        collection.search(queries[:, :-1])
    for wrong, error, words in ((np.nan, InputError, "NaN or infinity"), (0, QueryError, "cancel out")):
        bad = queries.copy()
        bad[3] = wrong
        with pytest.raises(error, match=words):
            collection.search(bad)
