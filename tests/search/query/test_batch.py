"""A list of queries: their words go through the encoder together, and each may have a filter of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmalign.collection.collection import Collection
from mmalign.encoders import load_encoder
from mmalign.errors import DecodeError, FilterError, InputError, QueryError
from mmalign.search import Searcher
from mmalign.search.query import Query, encode_queries
from mmalign.types import SearchResult
from tests.tools.color_encoder import COLORS, ColorEncoder, paint


class Counting(ColorEncoder):
    """Remembers which texts came together."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[str]] = []

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> np.ndarray:
        self.calls.append(list(texts))
        return super().encode_text(texts, batch_size=batch_size)


@pytest.fixture
def encoder() -> Counting:
    return Counting()


@pytest.fixture
def collection(tmp_path: Path, encoder: Counting) -> Collection:
    made = Collection.create(tmp_path / "colours.mm", encoder=encoder)
    rows = [
        {"image": str(paint(tmp_path / f"{color}{n}.png", color, detail=n)), "year": 2000 + n, "color": color}
        for color in COLORS
        for n in range(3)
    ]
    made.add(rows, progress=False)
    return made


def assert_same_hits(result: SearchResult, alone: SearchResult) -> None:
    """The same but for the last bits, which a product of matrices of another shape changes."""
    assert [hit.id for hit in result] == [hit.id for hit in alone]
    assert [hit.score for hit in result] == pytest.approx([hit.score for hit in alone], abs=1e-6)


def test_the_words_of_a_batch_are_encoded_in_one_call(
    collection: Collection, encoder: Counting, tmp_path: Path
) -> None:
    picture = Image.open(tmp_path / "green1.png")
    queries = [
        "red",
        "blue",
        Query("red") - Query("white"),
        str(tmp_path / "blue2.png"),
        f"2:yellow + {tmp_path / 'red1.png'} - 0.5:blue",
        picture,
        "red",
        np.eye(ColorEncoder.dim, dtype=np.float32)[4],
    ]
    together = collection.search(queries, k=4)
    assert encoder.calls == [["red", "blue", "white", "yellow"]]
    assert len(together) == len(queries)
    for query, result in zip(queries, together, strict=True):
        alone = collection.search(query, k=4)
        assert result.query == alone.query
        assert_same_hits(result, alone)
    encoded = encode_queries(queries, lambda: encoder, dim=encoder.dim, check=lambda known: None)
    for query, vector in zip(queries, encoded.vectors, strict=True):
        np.testing.assert_array_equal(vector, Query(query).embed(lambda: encoder, dim=encoder.dim)[0])
    encoder.calls.clear()
    collection.search(list(np.eye(ColorEncoder.dim, dtype=np.float32)[:3]))
    assert encoder.calls == []


def test_what_is_wrong_with_one_query_is_told_before_the_words_are_encoded(
    collection: Collection, encoder: Counting, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DecodeError, match=r"broken\.png"):
        collection.search(["red", str(broken)])
    assert encoder.calls == []
    with pytest.raises(QueryError, match="cancel out"):
        collection.search(["red", Query("blue") - Query("blue")])


def test_each_query_keeps_its_own_remarks(collection: Collection) -> None:
    long = " ".join(["red"] * 1001)
    results = collection.search(["red", long, f"{long} - blue"], k=1)
    assert [len(result.notes) for result in results] == [0, 1, 1]
    assert "its end was ignored" in results[1].notes[0]


def test_lite_gives_a_batch_what_it_gives_single_texts() -> None:
    lite = load_encoder("lite")
    rng = np.random.default_rng(5)
    words = ["two", "small", "dogs", "run", "in", "the", "snow", "behind", "a", "red", "car"]
    queries = [" ".join(rng.choice(words, count)) for count in rng.integers(1, 15, size=150)]
    encoded = encode_queries(queries, lambda: lite, dim=lite.dim, check=lambda known: None)
    alone = np.concatenate([lite.encode_text([text]) for text in queries])
    # Sums of float32 in another order.
    np.testing.assert_allclose(encoded.vectors, alone, rtol=0, atol=2e-6)


def test_each_query_may_have_a_filter_of_its_own(collection: Collection) -> None:
    queries = ["red", "blue", Query("red") + Query("blue"), "green", "red"]
    filters = ["year = 2001", None, "color IN ('blue', 'white')", "year = 2001", "color <> 'red'"]
    together = collection.search(queries, k=5, where=filters)
    assert [result.query for result in together] == [str(query) for query in queries]
    for query, where, result in zip(queries, filters, together, strict=True):
        assert_same_hits(result, collection.search(query, k=5, where=where))
    assert {hit.metadata["year"] for hit in together[0]} == {2001}
    assert "red" not in {hit.metadata["color"] for hit in together[4]}
    # One for all is as good as the same for each; an array of vectors takes them, too.
    vectors = np.eye(ColorEncoder.dim, dtype=np.float32)[:3]
    for one, other in zip(
        collection.search(vectors, where="year = 2000"),
        collection.search(vectors, where=["year = 2000"] * 3),
        strict=True,
    ):
        assert_same_hits(one, other)
    assert collection.search([], where=[]) == []


def test_queries_with_the_same_filter_are_served_together(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    search = Searcher.search

    def counted(self: Searcher, queries: np.ndarray, k: int, **options: Any) -> Any:
        asked.append(len(queries))
        return search(self, queries, k, **options)

    monkeypatch.setattr(Searcher, "search", counted)
    collection.search(
        ["red", "blue", "green", "white", "black"], where=["year = 2001", None, None, "year = 2001", None]
    )
    assert sorted(asked) == [2, 3]


def test_filters_that_do_not_fit_the_queries_are_refused(collection: Collection, encoder: Counting) -> None:
    with pytest.raises(InputError, match="where has 1 filters for 2 queries"):
        collection.search(["red", "blue"], where=[None])
    with pytest.raises(InputError, match="where has 3 filters for 2 queries"):
        collection.search(["red", "blue"], where=[None] * 3)
    with pytest.raises(InputError, match="needs a list of queries"):
        collection.search("red", where=["year = 2001"])
    with pytest.raises(InputError, match=r"where\[1\] must be a filter"):
        collection.search(["red", "blue"], where=[None, 3])  # type: ignore[list-item]
    with pytest.raises(FilterError, match="height_of_tower"):
        collection.search(["red", "blue"], where=[None, "height_of_tower > 3"])
    assert encoder.calls == []


def test_copies_and_likelihood_are_those_of_each_filter(collection: Collection, tmp_path: Path) -> None:
    """What counts as a copy depends on what the filter lets through."""
    copy = tmp_path / "copy.png"
    copy.write_bytes((tmp_path / "red0.png").read_bytes())
    collection.add([{"image": str(copy), "year": 1990, "color": "red"}], progress=False)
    old, both, none = collection.search(["red"] * 3, k=30, where=["year < 2000", None, "year > 2100"])
    assert [Path(hit.uri).name for hit in old] == ["copy.png"]
    assert old[0].copies == ()
    assert {hit.copies for hit in both if hit.uri.endswith("red0.png")} == {(str(copy),)}
    assert none.hits == ()
