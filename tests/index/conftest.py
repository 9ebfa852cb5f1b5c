from __future__ import annotations

import numpy as np
import pytest

from mmalign.index.exact import ExactIndex
from tests.index.helpers import DIM, QUERIES, ROWS, Data


@pytest.fixture(scope="session")
def data() -> Data:
    """Clustered unit vectors, queries near some of them, and ids that are neither sorted nor positions."""
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(60, DIM))
    vectors = centres[rng.integers(0, 60, ROWS)] + 0.6 * rng.normal(size=(ROWS, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:QUERIES] + 0.1 * rng.normal(size=(QUERIES, DIM))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    ids = rng.permutation(10 * ROWS)[:ROWS].astype(np.int64)
    return Data(ids, vectors.astype(np.float32), queries.astype(np.float32))


@pytest.fixture(scope="session")
def exact(data: Data) -> ExactIndex:
    index = ExactIndex(DIM)
    index.add(data.ids, data.vectors)
    return index


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Keep FAISS to one thread: its threads wait by spinning, which takes minutes on a busy machine."""
    from mmalign.index.faiss.library import load_faiss

    load_faiss().omp_set_num_threads(1)
