"""What is grown is as the description says, and the edges that were tried leave a graph whole."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks.vector_sources import Sources, crop
from benchmarks.vectors import CROPS, Growth, profile, unit

faiss = pytest.importorskip("faiss")
DIM = 24


def growth() -> Growth:
    rng = np.random.default_rng(0)
    pictures = unit(rng.normal(size=(300, DIM)).astype(np.float32))
    pictures[1] = pictures[0]
    crop_of = np.arange(0, 300, 3)
    crops = unit(pictures[crop_of] + 0.05 * rng.normal(size=(100, DIM)).astype(np.float32))
    return Growth.prepare(Sources(pictures, crops, crop_of, pictures[:0], (), ""))


def test_rows_are_reproducible_and_near_the_pictures_they_come_from() -> None:
    grown = growth()
    rows = grown.rows(500, (1, 0))
    np.testing.assert_array_equal(rows, grown.rows(500, (1, 0)))
    assert not np.array_equal(rows, grown.rows(500, (1, 1)))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert len(np.unique(rows.round(5), axis=0)) == 500
    # Half of the way to another picture and two displacements of crops at most, before the scaling.
    steps = np.linalg.norm(grown.displacements, axis=1).max()
    between = np.linalg.norm(grown.pictures[:, None] - grown.pictures[grown.near], axis=2).max()
    distance = np.linalg.norm(rows[:, None] - grown.pictures[None], axis=2).min(axis=1)
    assert distance.max() <= 2 * (between / 2 + CROPS * steps)


def test_the_profile_knows_the_dimension_of_a_sphere() -> None:
    rng = np.random.default_rng(2)
    texts = unit(rng.normal(size=(50, 6)).astype(np.float32))
    told = profile(unit(rng.normal(size=(5000, 6)).astype(np.float32)), texts)
    assert float(told["local_intrinsic_dimension"]) == pytest.approx(5, abs=0.7)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (640, 480)])
def test_a_crop_lies_in_its_picture(size: tuple[int, int]) -> None:
    whole = Image.new("RGB", size, "red")
    for seed in range(20):
        part = crop(whole, seed)
        assert part.size <= size
        assert part.getcolors() == [(part.width * part.height, (255, 0, 0))]
    assert crop(whole, 3).size == crop(whole, 3).size


def test_edges_fill_free_places_and_nothing_else() -> None:
    from benchmarks.lean_study import join

    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(3000, 16)).astype(np.float32)
    index = faiss.index_factory(16, "HNSW16,SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    graph = faiss.downcast_index(index)
    queries = unit(rng.normal(size=(400, 16)).astype(np.float32))
    before = faiss.vector_to_array(graph.hnsw.neighbors).copy()
    lists = np.argsort(-(queries @ vectors.T), axis=1)[:, :10].astype(np.int64)
    lists[0, 3:] = -1
    join(graph, lists)
    after = faiss.vector_to_array(graph.hnsw.neighbors)
    assert (before[before >= 0] == after[before >= 0]).all()
    assert np.count_nonzero(after >= 0) > np.count_nonzero(before >= 0)
    starts = faiss.vector_to_array(graph.hnsw.offsets)[:-1].astype(np.int64)
    for row, start in enumerate(starts):
        held = after[start : start + 32]
        count = int(np.count_nonzero(held >= 0))
        # Places are filled from the front, by other rows, none of them twice.
        assert (held[:count] >= 0).all()
        assert (held[:count] < 3000).all()
        assert row not in held[:count]
        assert len(set(held[:count].tolist())) == count
    changed = faiss.deserialize_index(faiss.serialize_index(index))
    np.testing.assert_array_equal(changed.search(queries, 5)[1], index.search(queries, 5)[1])
