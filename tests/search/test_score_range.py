"""Hits from a score on, and pages of hits: against sorting all scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.collection import Collection
from mmalign.errors import InputError
from mmalign.search import score_range
from mmalign.types import Note, SearchResult
from tests.search.test_probability import FITTED
from tests.tools.color_encoder import COLORS, ColorEncoder, paint

DIM, ROWS = 16, 900


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


VECTORS = unit(np.random.default_rng(0).normal(size=(ROWS, DIM)) + 0.4)
QUERIES = unit(np.random.default_rng(1).normal(size=(5, DIM)) + 0.2)


@pytest.fixture(scope="module", params=[None, "flat-fp16", "IVF16,Flat"])
def collection(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    made = Collection.create(tmp_path_factory.mktemp("range") / "c.mm", encoder=None, dim=DIM)
    made.add_embeddings(range(ROWS), VECTORS, metadata={"even": [number % 2 == 0 for number in range(ROWS)]})
    if request.param is not None:
        made.build_index(request.param, progress=False)
    return made


def ranked(query: np.ndarray, *, even: bool = False) -> list[tuple[str, float]]:
    scores = VECTORS.astype(np.float16).astype(np.float64) @ query.astype(np.float64)
    chosen = [number for number in np.argsort(-scores, kind="stable").tolist() if not even or number % 2 == 0]
    return [(str(number), float(scores[number])) for number in chosen]


def middle(query: np.ndarray, place: int, **options: Any) -> float:
    """A score between those of a place and the next one, so that rounding decides nothing."""
    rows = ranked(query, **options)
    return (rows[place - 1][1] + rows[place][1]) / 2


def remarks(found: SearchResult) -> list[Note]:
    """What is not about the index, which says that it is not used for a recall of 1."""
    return [note for note in found.notes if note.about != "index"]


@pytest.mark.parametrize("place", [1, 7, 99, 100, 101, 401, 899])
def test_all_hits_from_a_score_on(collection: Collection, place: int) -> None:
    for query in QUERIES[:2]:
        found = collection.search(query, k=None, min_score=middle(query, place), min_recall=1.0)
        assert [hit.id for hit in found] == [name for name, _ in ranked(query)[:place]]
        assert found.exact


def test_with_a_filter_for_some_queries_at_once(collection: Collection) -> None:
    least = middle(QUERIES[0], 200, even=True)
    results = collection.search(
        list(QUERIES), k=None, min_score=least, where=["even = true", None] * 2 + [None], min_recall=1.0
    )
    for place, (query, found) in enumerate(zip(QUERIES, results, strict=True)):
        rows = ranked(query, even=place in (0, 2))
        expected = [name for name, score in rows if score >= least]
        # A score at the bound may fall on either side of it by rounding.
        assert abs(len(found) - len(expected)) <= sum(abs(score - least) < 1e-6 for _, score in rows)
        assert [hit.id for hit in found][: len(expected) - 1] == expected[: len(found)][: len(expected) - 1]
    assert len(results[0]) == 200


@pytest.mark.parametrize("k", [0, 1, 10, 300])
@pytest.mark.parametrize("offset", [0, 1, 250, 895, 5000])
def test_pages(collection: Collection, k: int, offset: int) -> None:
    query = QUERIES[2]
    found = collection.search(query, k=k, offset=offset, min_recall=1.0)
    rows = ranked(query)
    assert [hit.id for hit in found] == [name for name, _ in rows[offset : offset + k]]
    least = middle(query, 260)
    found = collection.search(query, k=k, offset=offset, min_score=least, min_recall=1.0)
    assert [hit.id for hit in found] == [name for name, _ in rows[:260][offset : offset + k]]


def test_a_hit_of_just_that_score_is_one(collection: Collection) -> None:
    hits = collection.search(QUERIES[0], k=20, min_recall=1.0).hits
    found = collection.search(QUERIES[0], k=20, min_score=hits[4].score, min_recall=1.0)
    assert found.hits == hits[:5]
    assert collection.search(QUERIES[0], k=20, min_score=np.float32(hits[4].score), min_recall=1.0).hits == hits[:5]


def test_a_bound_and_its_note(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_range, "MOST_IN_RANGE", 50)
    query = QUERIES[0]
    found = collection.search(query, k=None, min_score=middle(query, 50), min_recall=1.0)
    assert (len(found), remarks(found)) == (50, [])
    more = collection.search(query, k=None, min_score=middle(query, 51), min_recall=1.0)
    assert len(more) == 50
    assert [note.remedy for note in remarks(more)] == ["offset=50 gives those that follow"]
    assert "more than 50 hits have a score" in remarks(more)[0].text
    rest = collection.search(query, k=None, min_score=middle(query, 51), offset=50, min_recall=1.0)
    assert [hit.id for hit in rest] == [ranked(query)[50][0]]
    assert remarks(rest) == []


def test_an_index_that_looks_at_a_part_claims_no_completeness(collection: Collection) -> None:
    query = QUERIES[3]
    expected = [name for name, _ in ranked(query)]
    for place in (40, 300):
        least = middle(query, place)
        found = collection.search(query, k=None, min_score=least)
        sure = [hit.id for hit in found] == expected[:place]
        missed = [note.remedy for note in found.notes if "may have missed" in note.text]
        assert sure or missed == ["min_recall=1 compares with every item"]
        assert bool(missed) is not found.exact
        assert {hit.id for hit in found} <= set(expected[:place])
        every = collection.search(query, k=None, min_score=least, min_recall=1.0)
        assert [hit.id for hit in every] == expected[:place]
        assert remarks(every) == []
        assert not [note for note in every.notes if "may have missed" in note.text]
    # A page that is full lacks nothing.
    full = collection.search(query, k=5, min_score=middle(query, 300))
    assert not [note for note in full.notes if "may have missed" in note.text]


def test_an_index_that_misses_hits_says_so(tmp_path: Path) -> None:
    """Few lists are looked at where no recall is asked for: hits are missing, and nothing claims that they are all."""
    vectors = unit(np.random.default_rng(3).normal(size=(6_000, DIM)))
    made = Collection.create(tmp_path / "c.mm", encoder=None, dim=DIM)
    made.add_embeddings(range(len(vectors)), vectors)
    made.build_index("IVF64,Flat", min_recall=0.5, progress=False)
    fewer = 0
    for query in QUERIES:
        scores = np.sort(vectors.astype(np.float16).astype(np.float64) @ query.astype(np.float64))[::-1]
        least = (scores[59] + scores[60]) / 2
        found = made.search(query, k=None, min_score=least, min_recall=0)
        noted = any("may have missed" in note.text for note in found.notes)
        assert noted is not found.exact
        fewer += len(found) < 60
        assert len(made.search(query, k=None, min_score=least, min_recall=1)) == 60
    assert fewer


def test_nothing_above_says_what_the_best_has(collection: Collection) -> None:
    best = ranked(QUERIES[0])[0][1]
    found = collection.search(QUERIES[0], min_score=0.999, min_recall=1.0)
    assert found.hits == ()
    assert [note.text for note in remarks(found)] == [f"the best hit has score {best:.3g}, below min_score 0.999"]
    assert collection.search(QUERIES[0], min_score=0.999, where="even IS NULL").notes == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"min_score": 1.01}, "min_score is a cosine from -1 to 1, got 1.01"),
        ({"min_score": -2}, "from -1 to 1"),
        ({"min_score": float("nan")}, "min_score must be a finite number"),
        ({"min_score": "0.5"}, "min_score must be a finite number"),
        ({"min_score": True}, "min_score must be a finite number"),
        ({"offset": -1}, "offset is an integer of at least 0"),
        ({"offset": 1.5}, "offset is an integer of at least 0"),
        ({"offset": None}, "offset is an integer of at least 0"),
        ({"k": None}, "give a min_score, or say how many hits as k"),
        ({"k": None, "offset": 3}, "give a min_score"),
    ],
)
def test_what_means_nothing_is_refused(collection: Collection, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        collection.search(QUERIES[0], **options)


def test_probabilities_and_regions_are_those_of_the_whole_list(tmp_path: Path) -> None:
    """A page, or a bound, changes which hits are given, and nothing that is told of them."""
    encoder = ColorEncoder()
    encoder.calibration = FITTED  # type: ignore[attr-defined]
    photos = Collection.create(tmp_path / "c.mm", encoder=encoder)
    (tmp_path / "photos").mkdir()
    for color in COLORS:
        paint(tmp_path / "photos" / f"{color}.png", color)
    photos.add(tmp_path / "photos", progress=False)
    every = photos.search("green", k=9).hits
    assert photos.search("green", k=2, offset=1).hits == every[1:3]
    least = (every[1].score + every[2].score) / 2
    assert photos.search("green", k=9, min_score=least).hits == tuple(hit for hit in every if hit.score >= least)
    assert photos.search("green", k=1, offset=1, min_score=least).hits == every[1:2]
