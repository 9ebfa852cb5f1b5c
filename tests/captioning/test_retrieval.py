"""What is retrieved for a picture: compared with a plain loop over all captions."""

from __future__ import annotations

import numpy as np
import pytest

from mmalign.captioning.retrieval import (
    Retrieval,
    TextStore,
    diverse_order,
    mean_shift,
    memory_projection,
    retrieve_context,
)
from mmalign.errors import DimensionError, InputError
from tests.evaluation.helpers import random_unit


def make_store(rng: np.random.Generator, count: int = 60, dim: int = 8) -> TextStore:
    """Captions of which every third repeats the one before in other letters, each of one of ten pictures."""
    texts = [f"Dog {i - 1}." if i % 3 == 2 else f"dog {i}" for i in range(count)]
    return TextStore(texts, random_unit(rng, count, dim), [str(i % 10) for i in range(count)], "made up")


def test_against_a_plain_loop(rng: np.random.Generator) -> None:
    store, pictures = make_store(rng), random_unit(rng, 5, 8)
    found = retrieve_context(pictures, store, how=Retrieval(k=12, pool=1), exclude=[(str(i),) for i in range(5)])
    for row, (picture, context) in enumerate(zip(pictures, found, strict=True)):
        expected: list[int] = []
        seen: set[str] = set()
        for place in np.argsort(-(store.vectors @ picture)).tolist():
            words = store.captions[place].lower().rstrip(".")
            if store.sources[place] != str(row) and words not in seen and len(expected) < 12:
                seen.add(words)
                expected.append(place)
        assert context.positions.tolist() == expected
        assert context.captions == tuple(store.captions[place] for place in expected)
        assert context.sources == tuple(store.sources[place] for place in expected)
        assert context.scores == pytest.approx((store.vectors @ picture)[expected], abs=1e-6)
        assert len(context[:3]) == 3
        assert context[[4, 1]].captions == (context.captions[4], context.captions[1])


def test_a_search_of_another_index(rng: np.random.Generator) -> None:
    store, pictures = make_store(rng), random_unit(rng, 2, 8)
    depths = []

    def search(vectors: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        depths.append(depth)
        scores, places = store.search(vectors, depth)
        # An index that knows ten captions alone leaves the rest empty.
        places[:, 10:] = -1
        return scores, places

    found = retrieve_context(pictures, store, how=Retrieval(k=20, pool=2), search=search)
    assert depths == [40]
    everything = retrieve_context(pictures, store, how=Retrieval(k=20))
    for few, many in zip(found, everything, strict=True):
        assert 0 < len(few) <= 10
        assert many.captions[: len(few)] == few.captions


def test_a_floor_may_leave_nothing(rng: np.random.Generator) -> None:
    store, pictures = make_store(rng), random_unit(rng, 3, 8)
    for context in retrieve_context(pictures, store, how=Retrieval(floor=0.3)):
        assert (context.scores >= 0.3).all()
    empty = retrieve_context(pictures, store, how=Retrieval(floor=1.1))
    assert [len(context) for context in empty] == [0, 0, 0]
    assert empty[0].captions == ()


def test_all_captions_are_the_pictures_own(rng: np.random.Generator) -> None:
    store = make_store(rng)
    assert len(retrieve_context(random_unit(rng, 1, 8), store, exclude=[set(store.sources)])[0]) == 0


def test_endless_blank_and_foreign_captions(rng: np.random.Generator) -> None:
    texts = ["dog " * 10_000, "   ", "...", "狗在跑", "собака бежит", "a dog"]
    store = TextStore(texts, random_unit(rng, 6, 4))
    (context,) = retrieve_context(random_unit(rng, 1, 4), store)
    assert sorted(context.captions) == sorted(texts[3:])


def test_diverse_captions_are_less_alike(rng: np.random.Generator) -> None:
    store, picture = make_store(rng, 200), random_unit(rng, 1, 8)
    plain, diverse = (retrieve_context(picture, store, how=Retrieval(k=10, diversity=d))[0] for d in (0.0, 0.7))

    def likeness(positions: np.ndarray) -> float:
        table = store.vectors[positions] @ store.vectors[positions].T
        return float(table[np.triu_indices(len(positions), 1)].mean())

    assert len(diverse) == 10
    assert likeness(diverse.positions) < likeness(plain.positions)
    assert diverse.scores.tolist() == sorted(diverse.scores.tolist(), reverse=True)
    assert diverse.scores.mean() < plain.scores.mean()


def test_order_of_diversity_against_the_formula(rng: np.random.Generator) -> None:
    vectors, scores = random_unit(rng, 9, 3), rng.random(9).astype(np.float32)
    order: list[int] = []
    while len(order) < 6:
        gains = {
            i: 0.4 * scores[i] - 0.6 * max((float(vectors[i] @ vectors[j]) for j in order), default=0.0)
            for i in range(9)
            if i not in order
        }
        order.append(max(gains, key=lambda i: gains[i]))
    assert diverse_order(scores, vectors, 6, diversity=0.6) == order


def test_memory_projection_against_the_formula(rng: np.random.Generator) -> None:
    pictures, texts = random_unit(rng, 4, 6), random_unit(rng, 30, 6)
    weights = np.exp(pictures @ texts.T / 0.1)
    expected = weights @ texts / weights.sum(axis=1, keepdims=True)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert memory_projection(pictures, texts, temperature=0.1) == pytest.approx(expected, abs=1e-5)
    with pytest.raises(InputError, match="a temperature above 0"):
        memory_projection(pictures, texts, temperature=0)


def test_mean_shift_brings_means_together(rng: np.random.Generator) -> None:
    pictures = random_unit(rng, 50, 6) * 0.1 + np.eye(6, dtype=np.float32)[0]
    texts = random_unit(rng, 50, 6) * 0.1 + np.eye(6, dtype=np.float32)[1]
    moved = mean_shift(pictures, pictures.mean(axis=0), texts.mean(axis=0))
    assert np.linalg.norm(moved.mean(axis=0) - texts.mean(axis=0)) < 0.05
    assert np.linalg.norm(pictures.mean(axis=0) - texts.mean(axis=0)) > 1


def test_what_cannot_be_retrieved_from(rng: np.random.Generator) -> None:
    store = make_store(rng)
    with pytest.raises(InputError, match="the datastore holds no captions"):
        retrieve_context(random_unit(rng, 1, 8), TextStore([], np.zeros((0, 8), np.float32)))
    with pytest.raises(DimensionError, match="another model"):
        retrieve_context(random_unit(rng, 1, 5), store)
    with pytest.raises(InputError, match="for each of 2 pictures, got 1"):
        retrieve_context(random_unit(rng, 2, 8), store, exclude=[()])
    with pytest.raises(DimensionError, match="an embedding and a source for each of 2"):
        TextStore(["a", "b"], np.zeros((3, 8)))
    with pytest.raises(InputError, match="diversity from 0 to 1"):
        Retrieval(diversity=2)
