"""Projections fitted to queries, against an independent optimum and against principal components."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.errors import DimensionError, InputError, RecipeError
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.faiss.query_aware import fit_projection, fit_transform, fit_width, set_projection
from mmalign.index.lifecycle.build import build_index
from mmalign.index.planning.recipe import Recipe
from mmalign.utils.similarity import exact_top_k, l2_normalize

faiss = pytest.importorskip("faiss")
FACTORY = "PCA{},HNSW16,SQ8,Refine(SQfp16)"


def cross_modal(seed: int, *, rows: int = 4000, dim: int = 32) -> tuple[Any, Any]:
    """Vectors that vary most where queries ask nothing, and queries that vary in few directions."""
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    spread = np.concatenate([np.full(dim // 4, 2.0), np.full(dim // 4, 1.0), np.full(dim // 2, 0.2)])
    asked = np.concatenate([np.full(dim // 4, 0.05), np.full(dim // 4, 1.0), np.full(dim // 2, 0.05)])
    vectors = rng.normal(size=(rows, dim)) * spread + 0.5
    queries = rng.normal(size=(500, dim)) * asked
    return l2_normalize((vectors @ rotation).astype(np.float32)), l2_normalize((queries @ rotation).astype(np.float32))


def error(projection: Any, vectors: Any, queries: Any) -> float:
    """Mean squared error of a query's scores, less what is the same for all vectors; pair by pair."""
    centred = vectors - vectors.mean(axis=0)
    wrong = queries @ centred.T - (queries @ projection.T) @ (centred @ projection.T).T
    return float(np.mean(wrong.astype(np.float64) ** 2))


def top_recall(projection: Any, vectors: Any, queries: Any, k: int = 10) -> float:
    truth = exact_top_k(queries, vectors, k)[1]
    found = exact_top_k(queries @ projection.T, vectors @ projection.T, k)[1]
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(truth, found, strict=True)]))


def test_without_queries_it_is_a_principal_component_analysis() -> None:
    vectors, _ = cross_modal(0)
    centred = vectors - vectors.mean(axis=0)
    vectors = l2_normalize(centred)  # Second moments and covariance then have nearly the same directions.
    found = fit_projection(vectors, None, width=8)
    oracle = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][:8]
    np.testing.assert_allclose(found @ found.T, np.eye(8), atol=1e-5)
    # Between equal variances any rotation is right, so the space is compared and not the rows.
    assert np.linalg.norm(found @ oracle.T) ** 2 == pytest.approx(8, abs=0.05)


def test_without_queries_no_direction_is_invented_for_few_vectors() -> None:
    found = fit_projection(np.eye(4, dtype=np.float32)[:1], None, width=2)
    np.testing.assert_allclose(found @ found.T, np.eye(2), atol=1e-6)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_loses_less_than_either_side_alone(seed: int) -> None:
    vectors, queries = cross_modal(seed)
    width = 8
    found = fit_projection(vectors, queries, width=width)
    of_vectors = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)[2][:width]
    of_queries = np.linalg.svd(queries, full_matrices=False)[2][:width]
    np.testing.assert_allclose(found @ found.T, np.eye(width), atol=1e-5)
    assert error(found, vectors, queries) <= min(
        error(of_vectors, vectors, queries), error(of_queries, vectors, queries)
    ) * (1 + 1e-4)
    # No pair of projections, one for each side, loses less than the best matrix of this rank.
    root_vectors = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    root_queries = np.linalg.svd(queries, full_matrices=False)
    product = (root_queries[1][:, None] * root_queries[2]) @ (root_vectors[1][:, None] * root_vectors[2]).T
    bound = np.sum(np.linalg.svd(product)[1][width:] ** 2) / (len(vectors) * len(queries))
    assert error(found, vectors, queries) >= bound * (1 - 1e-3)


@pytest.mark.parametrize("seed", [4, 5])
def test_it_finds_more_than_principal_components_of_equal_width(seed: int) -> None:
    vectors, queries = cross_modal(seed)
    aware, plain = (fit_projection(vectors, given, width=8) for given in (queries[:250], None))
    asked = queries[250:]
    assert top_recall(aware, vectors, asked) > top_recall(plain, vectors, asked) + 0.2


def candidates_found(matrix: Any, vectors: Any, queries: Any, depth: int) -> float:
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    found = np.argsort(-((queries @ matrix.T) @ (vectors @ matrix.T).T), axis=1)[:, :depth]
    return float(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, found, strict=True)]))


@pytest.mark.parametrize("given", [True, False])
def test_the_width_is_the_first_that_finds_the_neighbours(given: bool) -> None:
    vectors, queries = cross_modal(12)
    held = queries[:250] if given else vectors[::20][:500]
    rest = vectors if given else np.delete(vectors, np.s_[:10_000:20], axis=0)
    width = fit_width(vectors, queries if given else None, least=4, candidates=8)
    tried = [4, 6, 8, 12, 16, 22, 30, 32]
    assert width in tried[1:-1]
    before = tried[tried.index(width) - 1]
    for kept, enough in ((width, True), (before, False)):
        matrix = fit_projection(rest, queries[250:] if given else None, width=kept)
        assert (candidates_found(matrix, rest, held, 40) >= 0.99) == enough


def test_vectors_that_use_all_directions_alike_are_not_shortened() -> None:
    rng = np.random.default_rng(13)
    vectors = l2_normalize(rng.normal(size=(3000, 24)).astype(np.float32))
    assert fit_width(vectors, None, least=8, candidates=2) == 24
    assert fit_width(vectors, None, least=24, candidates=2) == 24


@pytest.mark.parametrize(("spread", "width"), [(0.0, 16), (1.0, 64)])
def test_an_index_is_as_wide_as_its_data_need(tmp_path: Path, spread: float, width: int) -> None:
    rng = np.random.default_rng(14)
    scale = np.concatenate([np.ones(12), np.full(52, spread + 1e-3)])
    vectors = l2_normalize((rng.normal(size=(3000, 64)) * scale).astype(np.float32))
    recipe = Recipe(
        "narrow", "", "PCA{reduced},IVF16,PQ{reduced}x4fsr,Refine(SQfp16)", query_aware=True, reduced=16, k_factor=4
    )
    index, used = build_index(recipe, lambda: [(np.arange(3000), vectors)], rows=3000, dim=64, queries=vectors[:800])
    assert used == "narrow"
    assert index.factory == f"PCA{width},IVF16,PQ{width}x4fsr,Refine(SQfp16)"
    index.save(tmp_path)
    bare = faiss.read_index(str(tmp_path / "index.faiss"))
    inner = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=16))
    found = bare.search(vectors, 1, params=faiss.IndexRefineSearchParameters(k_factor=4, base_index_params=inner))[1]
    assert np.mean(found[:, 0] == np.arange(3000)) > 0.99


@pytest.mark.parametrize("width", [0, 33])
def test_a_width_that_cannot_be_is_refused(width: int) -> None:
    vectors, queries = cross_modal(6, rows=50)
    with pytest.raises(InputError, match="width must be 1 to 32"):
        fit_projection(vectors, queries, width=width)


def test_queries_of_another_encoder_are_refused() -> None:
    vectors, _ = cross_modal(7, rows=50)
    with pytest.raises(DimensionError, match="vectors have dim 32, queries 16"):
        fit_projection(vectors, vectors[:, :16].copy(), width=4)


def test_no_vectors_are_refused() -> None:
    with pytest.raises(InputError, match="no vectors"):
        fit_projection(np.zeros((0, 4), np.float32), None, width=2)


def test_the_file_finds_the_same_in_bare_faiss(tmp_path: Path) -> None:
    vectors, queries = cross_modal(8)
    index = FaissIndex(FACTORY.format(16), 32)
    fit_transform(index.bare, vectors[:1000], queries)
    index.train(vectors[:1000])
    index.add(np.arange(len(vectors)) + 7, vectors)
    scores, ids = index.search(queries, 10, effort=200)
    index.save(tmp_path)
    bare = faiss.read_index(str(tmp_path / "index.faiss"))
    inner = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersHNSW(efSearch=200))
    parameters = faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    bare_scores, positions = bare.search(queries, 10, params=parameters)
    np.testing.assert_array_equal(ids, positions + 7)
    np.testing.assert_array_equal(scores, bare_scores)
    matrix = fit_projection(vectors[:1000], queries, width=16)
    truth = exact_top_k(queries, vectors, 10)[1]
    candidates = exact_top_k(queries @ matrix.T, vectors @ matrix.T, 10 * index.k_factor)[1]
    found, possible = (
        float(np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(truth, hits, strict=True)]))
        for hits in (positions, candidates)
    )
    assert found > possible - 0.05
    assert possible > 0.9


def test_the_index_uses_the_projection_that_was_set() -> None:
    vectors, queries = cross_modal(9)
    bare = faiss.index_factory(32, "PCA8,Flat", faiss.METRIC_INNER_PRODUCT)
    matrix = fit_projection(vectors, queries, width=8)
    set_projection(bare, matrix)
    bare.train(vectors)
    bare.add(vectors)
    scores, positions = bare.search(queries, 5)
    wanted, rows = exact_top_k(queries @ matrix.T, vectors @ matrix.T, 5)
    np.testing.assert_allclose(scores, wanted, atol=1e-5)
    assert np.mean(positions == rows) > 0.99


def test_an_index_without_a_transform_cannot_be_fitted() -> None:
    vectors, queries = cross_modal(11, rows=50)
    index = faiss.index_factory(32, "HNSW16,SQ8", faiss.METRIC_INNER_PRODUCT)
    with pytest.raises(RecipeError, match="begins with a linear transform"):
        fit_transform(index, vectors, queries)


@pytest.mark.parametrize("factory", ["HNSW16,SQ8", "Flat", "PCA16,Flat", "RR8,Flat"])
def test_a_projection_that_does_not_fit_is_refused(factory: str) -> None:
    index = faiss.index_factory(32, factory, faiss.METRIC_INNER_PRODUCT)
    matrix = np.eye(9, 32, dtype=np.float32)
    with pytest.raises(RecipeError, match="begins with"):
        set_projection(index, matrix)


def test_a_projection_is_refused_once_there_are_vectors() -> None:
    vectors, queries = cross_modal(10, rows=200)
    index = faiss.index_factory(32, "PCA8,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    with pytest.raises(RecipeError, match="200 vectors"):
        set_projection(index, fit_projection(vectors, queries, width=8))
