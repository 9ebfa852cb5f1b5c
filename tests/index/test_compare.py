"""Comparing with every vector: by FAISS's scan and by matrix products, against sorting all inner products."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mmalign.index import compare
from mmalign.index.compare import compare_all
from mmalign.index.exact import ExactIndex
from mmalign.index.faiss.halves import scan_halves

WIDTHS = [1, 7, 24, 384, 515]


def made(rows: int, dim: int, queries: int, seed: int = 0) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(rows, dim)) / np.sqrt(dim)
    asked = rng.normal(size=(queries, dim)) / np.sqrt(dim)
    return vectors.astype(np.float16), asked.astype(np.float32)


def oracle(
    queries: NDArray[Any], vectors: NDArray[Any], k: int, mask: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    allowed = np.arange(len(vectors)) if mask is None else np.flatnonzero(mask)
    order = allowed[np.argsort(-scores[:, allowed], axis=1, kind="stable")[:, :k]]
    return np.take_along_axis(scores, order, axis=1), order


@pytest.fixture(autouse=True)
def scans_all(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small vectors are scanned here as large ones are, but where that is what a test is about."""
    if "same_search" not in request.node.name:
        monkeypatch.setattr(compare, "_SMALL", 0)


@pytest.mark.parametrize("dim", WIDTHS)
@pytest.mark.parametrize("queries", [1, 3, 40])
@pytest.mark.parametrize("share", [None, 1.0, 0.6, 0.02, 0.0])
def test_finds_the_nearest(dim: int, queries: int, share: float | None) -> None:
    vectors, asked = made(1003, dim, queries)
    mask = None if share is None else np.random.default_rng(1).random(len(vectors)) < share
    scores, positions = compare_all(asked, vectors, 10, mask=mask)
    truth = oracle(asked, vectors, 10, mask)
    assert scores.shape == truth[0].shape
    assert (scores.dtype, positions.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(scores, truth[0], atol=1e-5)
    # In one dimension many are equal but for rounding.
    if dim > 1:
        np.testing.assert_array_equal(positions, truth[1])


@pytest.mark.parametrize("k", [0, 1, 50, 63, 64, 1000])
@pytest.mark.parametrize("masked", [False, True])
def test_equal_scores_come_in_order_of_position(k: int, masked: bool) -> None:
    """Copies of vectors crowd every place where FAISS may cut, which keeps any of them."""
    vectors, asked = made(6, 16, 5)
    vectors = np.tile(vectors, (80, 1))[np.random.default_rng(3).permutation(480)]
    mask = np.random.default_rng(4).random(480) < 0.8 if masked else None
    assert k not in (50, 1000) or mask is None or mask.sum() > 50
    scores, positions = compare_all(asked, vectors, k, mask=mask)
    truth = oracle(asked, vectors, k, mask)
    np.testing.assert_array_equal(positions, truth[1])
    np.testing.assert_allclose(scores, truth[0], atol=1e-5)


def test_few_queries_are_scanned_and_many_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counting(queries: Any, *rest: Any) -> Any:
        asked.append(len(queries))
        return scan_halves(queries, *rest)

    monkeypatch.setattr(compare, "_load_scan", lambda: counting)
    vectors, queries = made(300, 8, 64)
    compare_all(queries[:1], vectors, 3)
    compare_all(queries[:15], vectors, 3)
    compare_all(queries, vectors, 3)
    compare_all(queries[:1], vectors.astype(np.float32), 3)
    compare_all(queries[:1], vectors[:, ::-1], 3)
    assert asked == [1, 15]


def test_a_mapped_file_is_scanned_where_it_lies(tmp_path: Path) -> None:
    vectors, asked = made(5000, 32, 2)
    index = ExactIndex(32)
    index.add(np.arange(5000) + 7, vectors)
    index.save(tmp_path / "i")
    loaded = ExactIndex.load(tmp_path / "i")
    assert not loaded._buffer.flags.writeable
    np.testing.assert_array_equal(loaded.search(asked, 9)[1], oracle(asked, vectors, 9)[1] + 7)
    loaded.remove(np.arange(20) + 7)
    mask = np.arange(5000) >= 20
    np.testing.assert_array_equal(loaded.search(asked, 9)[1], oracle(asked, vectors, 9, mask)[1] + 7)


def test_threads_do_not_share_a_query() -> None:
    vectors, asked = made(4000, 48, 200)
    truth = oracle(asked, vectors, 5)[1]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: compare_all(asked[i : i + 1], vectors, 5)[1][0], range(len(asked))))
    np.testing.assert_array_equal(np.stack(found), truth)


def test_small_searches_do_without_faiss() -> None:
    code = """
import sys
import numpy as np
from mmalign.index import compare_all
query = np.eye(64, dtype=np.float32)[4:5]
few, many = (np.tile(np.eye(64, dtype=np.float16), (times, 1)) for times in (2, 40))
first = compare_all(query, few, 2)[1].tolist()
print("faiss" in sys.modules, first == [[4, 68]])
second = compare_all(query, many, 2)[1].tolist()
print("faiss" in sys.modules, second == [[4, 68]])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "True", "True"]


def test_the_same_search_gives_the_same_scores() -> None:
    """Bit for bit, whatever was searched before."""
    for rows in (100, 5000):
        vectors, asked = made(rows, 48, 1)
        first = compare_all(asked, vectors, 10)[0]
        compare_all(asked, made(9000, 48, 1)[0], 10)
        np.testing.assert_array_equal(compare_all(asked, vectors, 10)[0], first)


@pytest.mark.parametrize("fault", [AttributeError("no attribute"), TypeError("wrong number of arguments")])
def test_another_faiss_leaves_it_to_numpy(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def fails(*_: Any) -> Any:
        raise fault

    monkeypatch.setattr("mmalign.index.faiss.halves.scan_halves", fails)
    compare._load_scan.cache_clear()
    try:
        vectors, asked = made(200, 8, 1)
        np.testing.assert_array_equal(compare_all(asked, vectors, 4)[1], oracle(asked, vectors, 4)[1])
        assert compare._load_scan() is None
    finally:
        monkeypatch.undo()
        compare._load_scan.cache_clear()
