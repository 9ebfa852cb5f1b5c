"""Collections that go by inner products of vectors of any length: against NumPy."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign import Query
from mmalign.cli.checks import check_collection
from mmalign.collection import Collection
from mmalign.collection.description import CollectionManifest
from mmalign.errors import CollectionError, CollectionFormatError, InputError, QueryError, RecipeError
from mmalign.utils import with_checksum
from tests.tools.color_encoder import ColorEncoder

DIM, ROWS = 16, 1500
# None, exact ones, a graph, lists, codes, a projection, rotations with bits; and how long the vectors are.
DESIGNS = (
    (None, 900.0),
    ("flat", 1e-3),
    ("flat-fp16", 900.0),
    ("hnsw", 1.0),
    ("hnsw", 900.0),
    ("hnsw", 1e-3),
    ("ivf-flat", 900.0),
    ("ivf-disk", 900.0),
    ("sq8", 1e-3),
    ("ivf-pq", 900.0),
    ("lean", 1e-3),
    ("rabitq", 900.0),
    ("binary", 1e-3),
)


def lengthy(count: int, seed: int, scale: float = 1.0) -> np.ndarray:
    """Vectors whose lengths differ by more than a factor of ten."""
    rng = np.random.default_rng(seed)
    lengths = scale * np.exp(rng.normal(0, 0.7, (count, 1)))
    return np.asarray(lengths * rng.normal(size=(count, DIM)), np.float32)


def names(start: int, stop: int) -> list[str]:
    return [f"v{i}" for i in range(start, stop)]


def made(path: Path) -> Collection:
    return Collection.create(path, encoder=None, dim=DIM, metric="ip")


class Oracle:
    """All rows as they are kept, compared in float64."""

    def __init__(self) -> None:
        self.rows: dict[str, np.ndarray] = {}

    def put(self, ids: list[str], vectors: np.ndarray) -> None:
        self.rows |= zip(ids, vectors.astype(np.float16).astype(np.float64), strict=True)

    def search(self, query: np.ndarray, allowed: Callable[[str], bool] = lambda name: True) -> list[tuple[str, float]]:
        scores = {name: float(row @ query) for name, row in self.rows.items() if allowed(name)}
        return sorted(scores.items(), key=lambda one: -one[1])


def agree(found: Any, expected: list[tuple[str, float]], unit: float, rounding: float = 1e-5) -> None:
    """The same hits, but for those that tie with the last, with the true inner products as scores."""
    true = pytest.approx([score for _, score in expected], rel=rounding, abs=rounding * unit)
    assert [hit.score for hit in found] == true
    last = expected[-1][1]
    assert {name for name, score in expected if score > last + 10 * rounding * unit} <= {hit.id for hit in found}


def third(name: str) -> bool:
    return int(name[1:]) % 3 == 0


@pytest.mark.parametrize(("design", "scale"), DESIGNS)
def test_search_is_numpys(design: str | None, scale: float, tmp_path: Path) -> None:
    """One query and many, with filters and least scores; after adding, replacing and removing; opened again."""
    collection, oracle = made(tmp_path / "c.mm"), Oracle()
    queries, unit = lengthy(6, 99, 50.0), 50.0 * scale
    # Lists on disk hold what vectors add to a list's centre, as float16.
    rounding = 3e-4 if design == "ivf-disk" else 1e-5

    def add(ids: list[str], vectors: np.ndarray) -> None:
        oracle.put(ids, vectors)
        collection.add_embeddings(ids, vectors, metadata={"n": [int(name[1:]) for name in ids]})

    def compare() -> None:
        together = collection.search(queries, k=10, min_recall=1.0)
        for query, found in zip(queries, together, strict=True):
            expected = oracle.search(query)
            agree(found, expected[:10], unit, rounding)
            agree(collection.search(query, k=3, min_recall=1.0), expected[:3], unit, rounding)
            filtered = collection.search(query, k=7, where="n % 3 = 0", min_recall=1.0)
            agree(filtered, oracle.search(query, third)[:7], unit, rounding)
            # What an index finds has the score of the vector itself, best first.
            by_index, truth = collection.search(query, k=10, min_recall=0), dict(expected)
            scores = [hit.score for hit in by_index]
            assert scores == pytest.approx([truth[hit.id] for hit in by_index], rel=rounding, abs=rounding * unit)
            assert scores == sorted(scores, reverse=True)
            least = (expected[19][1] + expected[20][1]) / 2
            above = collection.search(query, k=None, min_score=least, min_recall=1.0)
            assert {hit.id for hit in above} == {name for name, _ in expected[:20]}

    add(names(0, ROWS), lengthy(ROWS, 1, scale))
    if design is not None:
        manifest = collection.build_index(design, progress=False)
        assert manifest is not None
        assert manifest.rows == ROWS
    compare()
    add(names(ROWS, ROWS + 60), lengthy(60, 2, 3 * scale))
    add(names(10, 40), lengthy(30, 3, 3 * scale))
    assert collection.remove(names(200, 300)) == 100
    for name in names(200, 300):
        del oracle.rows[name]
    # Other columns change, the vectors stay.
    collection.update(names(50, 60), {"seen": True})
    compare()
    ids, kept = collection.embeddings()
    assert set(ids) == oracle.rows.keys()
    np.testing.assert_array_equal(kept, np.stack([oracle.rows[name] for name in ids]).astype(np.float32))
    collection = Collection.open(tmp_path / "c.mm")
    assert (collection.metric, collection.info()["metric"], collection.description.format) == ("ip", "ip", 4)
    compare()
    # What the index takes in, or is built again with.
    add(names(2000, 2500), lengthy(500, 4, scale))
    taken = collection.refresh_index(progress=False)
    assert taken is None if design is None else taken is not None and taken.rows == len(oracle.rows)
    compare()
    assert pickle.loads(pickle.dumps(collection)).metric == "ip"


@pytest.mark.parametrize(("design", "scale"), [("hnsw", 1e-3), ("ivf-flat", 900.0), ("lean", 1.0)])
def test_recall_is_kept_for_queries_of_any_length(design: str, scale: float, tmp_path: Path) -> None:
    collection, rows = made(tmp_path / "c.mm"), 12_000
    vectors = lengthy(rows, 5, scale)
    collection.add_embeddings(range(rows), vectors)
    asked = lengthy(400, 6)
    manifest = collection.build_index(design, queries=asked, min_recall=0.9, progress=False)
    assert manifest is not None
    assert manifest.contract["unit_length"] is False
    kinds = {curve["kind"] for curve in manifest.contract["curves"]}
    assert kinds == {"image", "given"}
    queries = lengthy(300, 7, 40.0)
    kept = vectors.astype(np.float16).astype(np.float32)
    true = np.argsort(-(queries @ kept.T), axis=1)[:, :10]
    found = collection.search(queries, k=10)
    # By the index: a query of another length is no stranger.
    assert sum(not one.exact for one in found) > 290
    shares = [
        len({int(hit.id) for hit in hits} & set(row.tolist())) / 10 for hits, row in zip(found, true, strict=True)
    ]
    assert np.mean(shares) >= 0.9
    # A query's length changes its scores and nothing else.
    for factor in (1e-6, 1e6):
        again = collection.search(queries[:20] * np.float32(factor), k=10)
        for one, other in zip(found, again, strict=False):
            assert [hit.id for hit in one] == [hit.id for hit in other]
            assert [hit.score * factor for hit in one] == pytest.approx([hit.score for hit in other], rel=1e-4)
    checked = collection.check_recall(seed=3, progress=False)
    assert {one.kind for one in checked} == {"image"}
    assert all(one.ok for one in checked)
    assert not [note for note in collection.notes() if note.about in ("recall", "drift")]


def test_vectors_that_grow_longer_have_drifted(tmp_path: Path) -> None:
    collection = made(tmp_path / "c.mm")
    collection.add_embeddings(range(3000), lengthy(3000, 1, 1e-3))
    collection.build_index("IVF16,Flat", progress=False)
    collection.add_embeddings(range(3000, 3400), lengthy(400, 2, 1e-3))
    assert not [note for note in collection.notes() if note.about == "drift"]
    collection.add_embeddings(range(3400, 3800), lengthy(400, 3, 4e-3))
    assert "spread times" in next(note for note in collection.notes() if note.about == "drift")


def test_composed_queries_are_sums_as_they_are(tmp_path: Path) -> None:
    collection, oracle = made(tmp_path / "c.mm"), Oracle()
    oracle.put(names(0, 200), lengthy(200, 1))
    collection.add_embeddings(names(0, 200), lengthy(200, 1))
    one, two = lengthy(2, 4, 7.0)
    for query, vector in (
        (Query(one), one),
        (2 * Query(one) + Query(two), 2 * one + two),
        (Query(one) - 0.5 * Query(two), one - 0.5 * two),
    ):
        agree(collection.search(query, k=5), oracle.search(vector)[:5], 7.0)
        agree(collection.search([query, one.tolist()], k=5)[0], oracle.search(vector)[:5], 7.0)
    agree(collection.search(one.astype(np.float64), k=5), oracle.search(one)[:5], 7.0)
    with pytest.raises(QueryError, match="cancel out"):
        collection.search(Query(one) - Query(one))
    with pytest.raises(QueryError, match="cancel out"):
        collection.search(np.zeros((2, DIM), np.float32))
    for factor in (1e-20, 1e20):
        with pytest.raises(QueryError, match=r"may have a length from 1e-12 to 1e\+15, got .*; scale it"):
            collection.search(one / np.linalg.norm(one) * np.float32(factor))
    with pytest.raises(InputError, match="NaN or infinity"):
        collection.search(np.full(DIM, np.inf, np.float32))


def test_whole_numbers_have_whole_scores(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "c.mm", encoder=None, dim=2, metric="ip")
    collection.add_embeddings(["a", "b", "c"], [[1, 2], [30, 40], [-5, 0]])
    found = collection.search([3.0, 4.0], k=3)
    assert [(hit.id, hit.score) for hit in found] == [("b", 250.0), ("a", 11.0), ("c", -15.0)]
    assert [hit.id for hit in collection.search([3.0, 4.0], k=None, min_score=11)] == ["b", "a"]
    assert [hit.id for hit in collection.search([3.0, 4.0], k=None, min_score=-15)] == ["b", "a", "c"]
    left = collection.search([3.0, 4.0], min_score=251)
    assert (len(left), left.notes[0].text) == (0, "the best hit has score 250, below min_score 251")
    with pytest.raises(InputError, match="min_score must be a finite number"):
        collection.search([3.0, 4.0], min_score=np.nan)


def test_what_float16_cannot_hold_is_refused(tmp_path: Path) -> None:
    collection = made(tmp_path / "c.mm")
    good = np.ones((1, DIM), np.float32)
    with pytest.raises(InputError, match=r"1 of 2 vectors hold values above 65,504.*id 'b'\. Divide all"):
        collection.add_embeddings(["a", "b"], np.concatenate([good, 65_505 * good]))
    with pytest.raises(InputError, match=r"1 of 2 vectors hold nothing above 3e-8.*id 'b'\. Multiply all"):
        collection.add_embeddings(["a", "b"], np.concatenate([good, 2e-8 * good]))
    with pytest.raises(InputError, match="all zeros"):
        collection.add_embeddings(["a"], 0 * good)
    assert len(collection) == 0
    collection.add_embeddings(["a", "b"], np.concatenate([65_504 * good, 6e-8 * good]))
    np.testing.assert_array_equal(
        collection.embeddings(["a", "b"])[1], np.concatenate([65_504 * good, 6e-8 * good]).astype(np.float16)
    )
    for design in ("flat", "flat-fp16", "HNSW8,SQfp16"):
        collection.build_index(design, progress=False)
        assert [hit.id for hit in collection.search(good[0], k=2)] == ["a", "b"]
        assert collection.search(good[0], k=1)[0].score == 65_504 * DIM
    checks = {check.name: check for check in check_collection(collection.path, deep=True)}
    assert checks["embeddings"].ok
    assert checks["items"].ok


@pytest.mark.parametrize("factory", ["L2norm,Flat", "L2Norm,HNSW8,Flat", "ITQ,Flat", "PCA8,L2norm,Flat"])
def test_designs_that_scale_are_refused(factory: str, tmp_path: Path) -> None:
    collection = made(tmp_path / "c.mm")
    collection.add_embeddings(range(400), lengthy(400, 1))
    with pytest.raises(RecipeError, match="scales vectors to length 1, and this collection goes by the inner products"):
        collection.build_index(factory, progress=False)
    assert collection.index_manifest is None


def test_an_encoder_and_other_metrics_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="metric 'ip' is for vectors of your own"):
        Collection.create(tmp_path / "a.mm", encoder=ColorEncoder(), metric="ip")
    for metric in ("l2", "IP", None):
        with pytest.raises(InputError, match="metric"):
            Collection.create(tmp_path / "a.mm", encoder=None, dim=3, metric=metric)  # type: ignore[arg-type]
    assert not (tmp_path / "a.mm").exists()
    collection = made(tmp_path / "c.mm")
    collection.add_embeddings(["a"], np.ones((1, DIM)))
    with pytest.raises(CollectionError, match="has no encoder"):
        collection.search("a red square")
    with pytest.raises(InputError, match="metric ip"):
        collection.reencode(ColorEncoder(), progress=False)
    with pytest.raises(QueryError, match="min_probability needs a query in words"):
        collection.search(np.ones(DIM), min_probability=0.5)


def test_collections_without_a_metric_are_cosine(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "c.mm", encoder=None, dim=2)
    collection.add_embeddings(["a", "b"], [[1, 2], [30, 40]])
    assert (collection.metric, collection.info()["metric"]) == ("cosine", "cosine")
    described = json.loads((collection.path / "collection.json").read_text(encoding="utf-8"))
    assert ("metric" in described, described["format"]) == (False, 3)
    assert [hit.score for hit in collection.search([3.0, 4.0], k=1)] == pytest.approx([1.0], abs=1e-3)
    with pytest.raises(InputError, match="min_score is a cosine from -1 to 1, got 11"):
        collection.search([3.0, 4.0], min_score=11)


def test_an_unknown_metric_and_a_reader_that_knows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / "c.mm").path
    file = path / "collection.json"
    described = {name: value for name, value in json.loads(file.read_text()).items() if name != "checksum"}
    assert described["metric"] == "ip"
    file.write_text(json.dumps(with_checksum(described | {"metric": "l2"})))
    with pytest.raises(CollectionFormatError, match="lacks or garbles metric 'l2'"):
        Collection.open(path)
    file.write_text(json.dumps(with_checksum(described)))
    assert CollectionManifest.read(path).metric == "ip"
    monkeypatch.setattr("mmalign.collection.description.FORMAT", 3)
    with pytest.raises(CollectionFormatError, match="has format 4, this mmalign reads up to 3; upgrade with: pip"):
        Collection.open(path)
