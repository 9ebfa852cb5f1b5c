from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import DimensionError, InputError
from mmalign.utils import similarity
from mmalign.utils.similarity import as_cosines, as_matrix, cosine, exact_top_k, l2_normalize, merge_top_k, top_k


def naive_top_k(queries: np.ndarray, vectors: np.ndarray, k: int) -> list[list[int]]:
    return [sorted(range(len(vectors)), key=lambda i: (-float(query @ vectors[i]), i))[:k] for query in queries]


def test_l2_normalize_gives_length_one_and_keeps_zero_rows(rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((5, 3)) * 100
    vectors[2] = 0
    lengths = np.linalg.norm(l2_normalize(vectors), axis=1)
    assert lengths == pytest.approx([1, 1, 0, 1, 1], abs=1e-6)


def test_cosine_matches_the_formula(rng: np.random.Generator) -> None:
    a, b = rng.standard_normal((4, 7)), rng.standard_normal((3, 7))
    expected = [[x @ y / np.sqrt((x @ x) * (y @ y)) for y in b] for x in a]
    np.testing.assert_allclose(cosine(a, b), expected, atol=1e-6)
    with pytest.raises(DimensionError, match="expected dim 7"):
        cosine(a, b[:, :5])


@pytest.mark.parametrize("k", [0, 1, 3, 50, 80])
def test_top_k_with_ties_matches_sorting(rng: np.random.Generator, k: int) -> None:
    scores = rng.integers(0, 6, (7, 50)).astype(np.float32)
    values, positions = top_k(scores, k)
    expected = [sorted(range(50), key=lambda i: (-row[i], i))[:k] for row in scores]
    assert positions.tolist() == expected
    np.testing.assert_array_equal(values, np.take_along_axis(scores, positions, axis=1))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_exact_top_k_in_blocks_matches_a_naive_loop(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, dtype: type
) -> None:
    monkeypatch.setattr(similarity, "_BLOCK_SCORES", 1)
    # Small integers: every product is exact, and ties abound, so that both must break them alike.
    vectors = rng.integers(-3, 4, (3000, 4)).astype(dtype)
    queries = rng.integers(-3, 4, (5, 4)).astype(np.float32)
    scores, positions = exact_top_k(queries, vectors, 10)
    assert positions.tolist() == naive_top_k(queries, vectors.astype(np.float32), 10)
    assert scores[0, 0] == max(float(queries[0] @ vector) for vector in vectors.astype(np.float32))


def test_exact_top_k_over_a_file_is_that_in_double_precision(rng: np.random.Generator, tmp_path: Path) -> None:
    vectors = rng.standard_normal((30_000, 48)).astype(np.float16)
    queries = rng.standard_normal((3, 48)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    truth = queries.astype(np.float64) @ vectors.astype(np.float64).T
    for given in (vectors, np.load(tmp_path / "vectors.npy", mmap_mode="r"), vectors.copy(order="F")):
        scores, positions = exact_top_k(queries, given, 10)
        np.testing.assert_array_equal(positions, np.argsort(-truth, axis=1)[:, :10])
        np.testing.assert_allclose(scores, -np.sort(-truth, axis=1)[:, :10], rtol=1e-5)


def test_every_finite_float16_is_widened_exactly() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 2)
    assert halves.size == 2 * 31 * 1024
    for given in (halves, np.asfortranarray(halves)):
        widened = similarity._widened(given)
        np.testing.assert_array_equal(widened, halves.astype(np.float32))
        np.testing.assert_array_equal(np.signbit(widened), np.signbit(halves))


def test_exact_top_k_refuses_what_it_cannot_do() -> None:
    vectors = np.eye(3, dtype=np.float32)
    with pytest.raises(InputError, match="at least 0, got -1"):
        exact_top_k(vectors, vectors, -1)
    with pytest.raises(DimensionError, match=r"\(1, 2\)"):
        exact_top_k([[1, 2]], vectors, 1)
    assert exact_top_k(vectors, vectors[:0], 4)[1].shape == (3, 0)


def test_merge_top_k_passes_over_empty_places() -> None:
    first = (np.array([[0.9, 0.1]], np.float32), np.array([[7, 8]]))
    second = (np.array([[5.0, 0.5]], np.float32), np.array([[-1, 9]]))
    scores, ids = merge_top_k(first, second, 3)
    assert ids.tolist() == [[7, 9, 8]]
    assert scores[0].tolist() == pytest.approx([0.9, 0.5, 0.1])


def test_as_matrix_says_what_is_wrong() -> None:
    assert as_matrix([1, 2, 3]).shape == (1, 3)
    with pytest.raises(InputError, match=r"1 of 2 rows hold NaN or infinity, the first is row 1"):
        as_matrix([[1, 2], [np.nan, 1]])
    with pytest.raises(DimensionError, match=r"\(n, dim\), got \(1, 1, 1\)"):
        as_matrix([[[1]]])
    with pytest.raises(InputError, match="must be numbers"):
        as_matrix([["a"]])


def test_cosines_never_exceed_one() -> None:
    """Rows of length 1 in float16 may be longer than 1, and their products with themselves more so."""
    rows = l2_normalize(np.random.default_rng(0).standard_normal((2000, 24))).astype(np.float16)
    queries = l2_normalize(rows.astype(np.float32))
    raw = np.einsum("nd,nd->n", rows.astype(np.float32), queries)
    assert raw.max() > 1, "else this shows nothing"
    assert cosine(rows.astype(np.float32), rows.astype(np.float32)).max() <= 1
    clipped = as_cosines(np.array([[1.0005, 0.5, -1.0002, -np.inf]], np.float32))
    assert clipped.tolist() == [[1, 0.5, -1, -np.inf]]


def test_tensors_that_need_a_gradient_are_read() -> None:
    torch = pytest.importorskip("torch")
    rows = torch.ones(2, 3, requires_grad=True)
    np.testing.assert_array_equal(as_matrix(rows), np.ones((2, 3)))
    np.testing.assert_array_equal(as_matrix([rows[0], rows[1]]), np.ones((2, 3)))
    np.testing.assert_array_equal(as_matrix(rows.to(torch.bfloat16)), np.ones((2, 3)))
    with pytest.raises(InputError, match="masked"):
        as_matrix(np.ma.masked_equal([[1.0, 2.0]], 2.0))
