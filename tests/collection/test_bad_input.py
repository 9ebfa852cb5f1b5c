"""Bad vectors, ids and numbers of hits: refused in words, or taken as what they are; nothing else changes."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.collection.collection import Collection
from mmalign.errors import DimensionError, InputError, MMAlignError, RecipeError
from mmalign.index.base import Index
from mmalign.index.lifecycle.build import build_index
from mmalign.index.planning.recipe import list_recipes
from mmalign.types import Item
from mmalign.utils.similarity import l2_normalize
from tests.tools.color_encoder import ColorEncoder, paint

DIM, ROWS = 16, 400
GOOD = np.random.default_rng(3).standard_normal(DIM).astype(np.float32)
KINDS = ["exact", "Flat", "SQfp16", "SQ8", "HNSW8", "HNSW8,SQfp16", "IVF8,Flat", "IVF8,SQ8", "IVF8,PQ4x4fs,RFlat"]
RECIPES = [one.name for one in list_recipes() if one.device == "cpu"]

# What is no vector at all, with a part of the reason.
REFUSED: dict[str, tuple[Any, str]] = {
    "nan": (np.where(np.arange(DIM) == 3, np.nan, GOOD), "NaN or infinity"),
    "infinity": (np.where(np.arange(DIM) == 3, -np.inf, GOOD), "NaN or infinity"),
    "beyond float32": (np.where(np.arange(DIM) == 3, 1e300, GOOD.astype(np.float64)), "NaN or infinity"),
    "too wide": (np.ones(DIM + 1), f"expected dim {DIM}"),
    "too narrow": (np.ones(DIM - 1), f"expected dim {DIM}"),
    "empty": (np.ones(0), f"expected dim {DIM}"),
    "complex": (GOOD + 1j, "must be numbers"),
    "text": (GOOD.astype(str), "must be numbers"),
    "objects": (np.array([None] * DIM), "NaN or infinity"),
    "objects that are no numbers": (np.array([object()] * DIM), "must be numbers"),
    "times": (np.zeros(DIM, "M8[s]"), "must be numbers"),
    "three dimensions": (np.ones((1, 1, DIM)), "shape"),
}
# What means the same as GOOD.
TAKEN: dict[str, Any] = {
    "float64": GOOD.astype(np.float64),
    "big endian": GOOD.astype(">f4"),
    "not contiguous": np.repeat(GOOD, 2)[::2],
    "reversed twice": GOOD[::-1].copy()[::-1],
    "objects": GOOD.astype(object),
    "huge": GOOD * np.float32(1e30),
    "tiny": GOOD * np.float32(1e-30),
    "read only": np.frombuffer(GOOD.tobytes(), np.float32),
}
COUNTS: list[Any] = [-1, -(2**70), 1.5, 2.0, True, "3", None, float("nan")]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return l2_normalize(np.random.default_rng(4).standard_normal((ROWS, DIM)))


@pytest.fixture(params=[None, "HNSW8"], ids=["no index", "HNSW8"])
def collection(request: pytest.FixtureRequest, tmp_path: Path, vectors: np.ndarray) -> Iterator[Collection]:
    pytest.importorskip("faiss").omp_set_num_threads(1)
    made = Collection.create(tmp_path / "c.mm", encoder=None, dim=DIM)
    made.add_embeddings([f"v{i}" for i in range(ROWS)], vectors)
    if request.param:
        made.build_index(request.param, progress=False)
    before = made.snapshot().version
    yield made
    assert (made.snapshot().version, len(made)) == (before, ROWS), "what is refused changes nothing"


def test_queries_that_are_no_vectors(collection: Collection) -> None:
    for query, words in (*REFUSED.values(), (np.zeros(DIM), "cancel out")):
        for asked in (query, [query], [GOOD, query], [GOOD, query, "a text"]):
            with pytest.raises(InputError, match=words):
                collection.search(asked)
    assert collection.search([]) == []


def test_vectors_that_cannot_be_added(collection: Collection, vectors: np.ndarray) -> None:
    for row, words in (*REFUSED.values(), (np.zeros(DIM), "1 vectors are all zeros")):
        with pytest.raises(InputError, match=words):
            collection.add_embeddings(["new"], row if row.ndim == 3 else row[None])
    mixed = vectors[:3].astype(np.float64)
    mixed[2, 5] = np.nan
    with pytest.raises(InputError, match="1 of 3 rows hold NaN or infinity, the first is row 2"):
        collection.add_embeddings(["a", "b", "c"], mixed)
    ids: list[Any] = [["a", "a"], ["a", ""], ["a"], ["a", None], "ab", ["a", "\ud800"], ["a", "b\0"]]
    for names in ids:
        with pytest.raises(InputError, match="ids"):
            collection.add_embeddings(names, vectors[:2])
    with pytest.raises(InputError, match="0 ids but 2 vectors"):
        # Else they would be lost in silence.
        collection.add_embeddings([], vectors[:2])


def test_a_nul_in_an_id_is_refused_wherever_it_comes_from(tmp_path: Path) -> None:
    """No filter can name it, so that the item could neither be found nor replaced."""
    made = Collection.create(tmp_path / "c.mm", encoder=ColorEncoder())
    red, green, blue = (str(paint(tmp_path / f"{color}.png", color)) for color in ("red", "green", "blue"))
    rows = [{"path": red, "id": "good"}, {"path": green, "id": "ba\0d"}, {"path": blue, "id": "\0"}]
    table = tmp_path / "table.jsonl"
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    for source in (table, rows, [Item(str(row["path"]), id=row["id"]) for row in rows]):
        report = made.add(source, progress=False)
        assert report.added + report.unchanged == len(made) == 1
        assert len(report.skipped) == 2
        assert all("id must be text without NUL characters, got" in skip.reason for skip in report.skipped)
    asked: list[Callable[[], Any]] = [
        lambda: made.get("ba\0d"),
        lambda: made.has("ba\0d"),
        lambda: made.remove(["ba\0d"]),
        lambda: made.update(["ba\0d"], {"year": 1}),
    ]
    for ask in asked:
        with pytest.raises(InputError, match="text without NUL characters"):
            ask()


def test_queries_of_other_types_find_the_same(collection: Collection) -> None:
    expected = [(hit.id, pytest.approx(hit.score, abs=1e-5)) for hit in collection.search(GOOD)]
    for name, query in TAKEN.items():
        assert [(hit.id, hit.score) for hit in collection.search(query)] == expected, name
        for result in collection.search([query, query]):
            assert [(hit.id, hit.score) for hit in result] == expected, name
    columns = np.asfortranarray(np.stack([GOOD, -GOOD]))
    for batch in (list(columns), columns, GOOD[None]):
        assert [(hit.id, hit.score) for hit in collection.search(batch)[0]] == expected


@pytest.mark.parametrize("k", COUNTS)
def test_numbers_of_hits_that_are_none(collection: Collection, k: Any) -> None:
    # None asks for all hits from a score on, and here is none; captions have no use for one.
    with pytest.raises(InputError, match="k=None gives all hits from min_score on" if k is None else "k must be"):
        collection.search(GOOD, k=k)
    with pytest.raises(InputError, match="^k=None is for pictures; say how many" if k is None else "k must be") as told:
        collection.search_captions(GOOD, k=k)
    assert "min_score" not in str(told.value)


@pytest.mark.parametrize("kind", [np.int64, np.uint8])
def test_numbers_of_hits_of_numpy(collection: Collection, kind: type) -> None:
    for offset in (0, 1):
        found = collection.search(GOOD, k=kind(2), offset=kind(offset))
        assert found.hits == collection.search(GOOD, k=2, offset=offset).hits
        assert len(found) == 2


def test_as_many_hits_as_nobody_has(collection: Collection) -> None:
    """The room for a billion hits a query is not asked for."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in (10**9, 2**62, 2**70):
        assert len(collection.search(GOOD, k=k)) == ROWS
        assert [len(one) for one in collection.search([GOOD] * 3, k=k)] == [ROWS] * 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, "kilobytes"


def test_added_vectors_of_other_types_are_the_same(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "c.mm", encoder=None, dim=DIM)
    for name, row in TAKEN.items():
        collection.add_embeddings([name], np.atleast_2d(row))
    order = np.random.default_rng(5).standard_normal((3, DIM)).astype(np.float32)
    collection.add_embeddings(["f0", "f1", "f2"], np.asfortranarray(order))
    scores = {hit.id: hit.score for hit in collection.search(GOOD, k=100)}
    assert all(scores[name] == pytest.approx(1, abs=1e-3) for name in TAKEN)
    for i, expected in enumerate(l2_normalize(order) @ l2_normalize(GOOD)):
        assert scores[f"f{i}"] == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("dim", [0, -1, 2.5, True, "8", None])
def test_widths_that_are_none(tmp_path: Path, dim: Any) -> None:
    with pytest.raises(InputError, match="needs dim >= 1, an integer"):
        Collection.create(tmp_path / "c.mm", encoder=None, dim=dim)
    assert not (tmp_path / "c.mm").exists()


def built(kind: str, vectors: np.ndarray) -> Index:
    pytest.importorskip("faiss").omp_set_num_threads(1)
    return build_index(kind, lambda: iter([(np.arange(ROWS), vectors)]), rows=ROWS, dim=DIM)[0]


@pytest.mark.parametrize("kind", dict.fromkeys([*KINDS, *RECIPES]))
def test_every_index_refuses_and_takes_alike(kind: str, vectors: np.ndarray) -> None:
    try:
        index = built(kind, vectors)
    except RecipeError as error:
        pytest.skip(f"not for {ROWS} vectors of dim {DIM}: {error}")
    scores, ids = index.search(GOOD, 10)
    calls = [index.search, lambda rows, _: index.train(rows)]
    if kind != "ivf-disk":
        # Mapped from its file, it takes no more vectors.
        calls.append(lambda rows, _: index.add([ROWS + 1], rows))
    for query, words in REFUSED.values():
        for call in calls:
            with pytest.raises(MMAlignError, match=words) as caught:
                call(query, 10)
            assert isinstance(caught.value, InputError)
    for name, query in TAKEN.items():
        if name in ("huge", "tiny"):
            continue
        found = index.search(query, 10)
        np.testing.assert_array_equal(found[1], ids, err_msg=name)
        np.testing.assert_allclose(found[0], scores, atol=1e-5, err_msg=name)
    for k in COUNTS:
        with pytest.raises(InputError, match="k must be"):
            index.search(GOOD, k)
    zero = index.search(np.zeros(DIM), 5)
    assert zero[0].shape == zero[1].shape == (1, 5)
    assert not np.isnan(zero[0]).any()
    assert [part.shape for part in index.search(np.ones((0, DIM), np.float32), 5)] == [(0, 5), (0, 5)]
    every = index.search(GOOD, 10**9)[1]
    assert every.shape == (1, ROWS)
    assert len(np.unique(every[every >= 0])) == np.count_nonzero(every >= 0)
    if kind == "ivf-disk":
        return
    for bad, words in (([ROWS, ROWS], "come twice"), ([0, ROWS], "already"), ([-1, ROWS], "at least 0")):
        with pytest.raises(InputError, match=words):
            index.add(bad, vectors[:2])
    with pytest.raises(InputError, match="ids must be integers"):
        index.add([0.5, 1.5], vectors[:2])
    with pytest.raises(DimensionError):
        index.add([ROWS], np.ones((1, DIM + 1)))
    assert len(index) == ROWS
    index.add([ROWS], np.asfortranarray(vectors[:1]).astype(">f8"))
    assert len(index) == ROWS + 1


def test_rows_of_any_length_become_unit_rows() -> None:
    rng = np.random.default_rng(6)
    rows = rng.standard_normal((50, DIM)) * 10.0 ** rng.uniform(-44, 37.5, (50, 1))
    rows = rows.astype(np.float32)
    rows[7] = 0
    # What float32 holds, in float64.
    exact = rows.astype(np.float64)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    expected = np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)
    np.testing.assert_allclose(l2_normalize(rows), expected, atol=1e-6)
    np.testing.assert_array_equal(l2_normalize(np.zeros((2, 3))), 0)
    # Rows of which none is zero take another way.
    np.testing.assert_allclose(l2_normalize(np.full((4, 9), 2.0)), 1 / 3, rtol=1e-6)
    np.testing.assert_array_equal(l2_normalize([[np.nan, 1], [0, 0], [0, 2]]), [[0, 0], [0, 0], [0, 1]])
    assert l2_normalize(np.zeros((0, 3))).shape == (0, 3)
