"""Filters that come again: the same answer as evaluating anew, after every kind of write, without asking Lance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.collection import Collection
from mmalign.errors import FilterError
from mmalign.search.masks import Masks
from mmalign.store import Store
from mmalign.store.filter_cache import FilterCache

DIM = 8
FILTERS = ["year >= 2000", "year < 2000 OR label = 'cat'", "label IS NULL", "year > 9999"]


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    made = Collection.create(tmp_path / "c.mm", encoder=None, dim=DIM)
    fill(made, "a", 40)
    return made


def fill(collection: Collection, prefix: str, count: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    years = rng.integers(1990, 2020, count).tolist()
    labels = [None if one < 0.2 else "cat" if one < 0.6 else "dog" for one in rng.random(count)]
    names = [f"{prefix}{number}" for number in range(count)]
    collection.add_embeddings(names, rng.normal(size=(count, DIM)), metadata={"year": years, "label": labels})


def meets(where: str, item: Any) -> bool:
    """What SQL says, in Python: an item without a label is neither a cat nor not."""
    year, label = item.metadata["year"], item.metadata.get("label")
    return {
        "year >= 2000": year >= 2000,
        "year < 2000 OR label = 'cat'": year < 2000 or label == "cat",
        "label IS NULL": label is None,
        "year > 9999": False,
    }[where]


def check_all(collection: Collection) -> None:
    query = np.random.default_rng(9).normal(size=DIM)
    items = list(collection)
    for where in FILTERS:
        expected = {item.id for item in items if meets(where, item)}
        for _ in range(2):
            assert {hit.id for hit in collection.search(query, k=1000, where=where)} == expected


@pytest.mark.parametrize("indexed", [False, True])
def test_answers_are_those_of_evaluating_anew_after_every_write(collection: Collection, indexed: bool) -> None:
    other = Collection.open(collection.path)
    if indexed:
        collection.build_index("flat-fp16", progress=False)
    writes = [
        lambda: None,
        lambda: fill(collection, "b", 30, seed=1),
        lambda: collection.remove(["a3", "b4", "a9"]),
        lambda: collection.update(["a1", "b2"], {"year": 1950}),
        # Another handle, as another process has it.
        lambda: other.update(["a5"], {"label": "cat"}),
        lambda: fill(other, "a", 20, seed=2),
        lambda: other.remove(where="label = 'cat' AND year > 2010"),
        lambda: collection.add_embeddings(["new"], np.ones((1, DIM)), metadata={"year": [2001], "more": ["x"]}),
    ]
    for write in writes:
        write()
        check_all(collection)
        check_all(other)


def test_a_filter_that_comes_again_is_not_evaluated_again(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluated: list[str | None] = []
    real = Store._evaluate

    def counting(self: Store, where: str | None, *rest: Any, **options: Any) -> Any:
        if where is not None:
            evaluated.append(where)
        return real(self, where, *rest, **options)

    monkeypatch.setattr(Store, "_evaluate", counting)
    query = np.ones(DIM)
    first = collection.search(query, where="year >= 2000")
    evaluated.clear()
    again = [collection.search(query, where="year >= 2000") for _ in range(3)]
    assert evaluated == []
    assert all([hit.id for hit in one] == [hit.id for hit in first] for one in again)
    collection.search(query, where="year >= 2001")
    assert evaluated == ["year >= 2001"]
    collection.update(["a0"], {"year": 2019})
    evaluated.clear()
    assert "a0" in [hit.id for hit in collection.search(query, k=100, where="year >= 2000")]
    assert evaluated == ["year >= 2000"]


def test_a_filter_that_cannot_be_answered_stays_one(collection: Collection) -> None:
    for _ in range(2):
        with pytest.raises(FilterError):
            collection.search(np.ones(DIM), where="yeer > 2000")
        with pytest.raises(FilterError):
            collection.snapshot().row_ids(where=["year > 2000"])  # type: ignore[arg-type]


def test_nobody_can_write_to_what_is_kept(collection: Collection) -> None:
    rows = collection.snapshot().row_ids(where="year >= 2000")
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 7


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.store.filter_cache._FILTERS", 3)
    monkeypatch.setattr("mmalign.store.filter_cache._ROW_IDS", 20)
    cache = FilterCache()
    asked: list[str] = []

    def get(where: str, count: int, version: int = 1) -> None:
        def evaluate() -> np.ndarray:
            asked.append(where)
            return np.arange(count)

        assert cache.get(where, lambda: version, evaluate).tolist() == list(range(count))

    for where in "abcd":
        get(where, 2)
    # The one that was not asked for the longest is gone, and what is larger than all together is never kept.
    get("b", 2)
    get("a", 2)
    get("big", 21)
    get("big", 21)
    assert asked == ["a", "b", "c", "d", "a", "big", "big"]
    asked.clear()
    get("wide", 19)
    get("a", 2)
    get("wide", 19, version=2)
    get("wide", 19, version=1)
    assert asked == ["wide", "a", "wide", "wide"]


def test_what_changed_while_it_was_evaluated_is_not_kept() -> None:
    cache = FilterCache()
    version = iter([1, 2, 1])
    assert cache.get("a", lambda: next(version), lambda: np.arange(3)).tolist() == [0, 1, 2]
    assert cache.get("a", lambda: 1, lambda: np.arange(2)).tolist() == [0, 1]


def test_masks_are_kept_by_the_array_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmalign.search.masks._BYTES", 200)
    masks, made = Masks(), []

    def make(rows: np.ndarray) -> np.ndarray:
        made.append(rows.tolist())
        return np.isin(np.arange(10), rows)

    fixed, free = np.arange(3), np.arange(3)
    fixed.setflags(write=False)
    for rows in (fixed, fixed, free, free):
        assert masks.of(rows, make).tolist() == [True] * 3 + [False] * 7
    assert len(made) == 3
    others = [np.arange(number) for number in range(4, 9)]
    for rows in others:
        rows.setflags(write=False)
        assert masks.of(rows, make).sum() == len(rows)
    masks.of(fixed, make)
    assert made[-1] == [0, 1, 2]
