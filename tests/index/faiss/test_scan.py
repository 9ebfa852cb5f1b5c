"""Exact search in the vectors that a FAISS index holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import DimensionError, InputError
from mmalign.index.faiss import scan as faiss_scan
from mmalign.index.faiss.index import FaissIndex
from tests.index.helpers import DIM, QUERIES, ROWS, Data, naive, recall, true_scores

HOLDING = [
    "Flat",
    "SQfp16",
    "IDMap2,Flat",
    "HNSW16",
    "HNSW16,SQfp16",
    "IVF16,Flat",
    "IVF16,SQfp16",
    "IVF16,PQ12x4fs,Refine(SQfp16)",
    "OPQ4,IVF16,PQ4x4fs,RFlat",
]


def built(factory: str, data: Data) -> FaissIndex:
    index = FaissIndex(factory, DIM)
    index.train(data.vectors)
    index.add(data.ids, data.vectors)
    return index


@pytest.mark.parametrize("factory", HOLDING)
def test_scan_finds_the_true_nearest(factory: str, data: Data, tmp_path: Path) -> None:
    index = built(factory, data)
    index.save(tmp_path)
    rng = np.random.default_rng(3)
    for search in (index, FaissIndex.load(tmp_path)):
        assert search.scans
        for share in (1.0, 0.5, 0.1, 0.01, 0.001):
            mask = rng.random(ROWS) < share
            mask[7] = True
            scores, ids = search.scan(data.queries, 10, where=None if share == 1 else mask)
            _, truth = naive(data, 10, mask)
            # float16 may swap near ties.
            assert recall(ids, truth) > 0.995
            assert np.count_nonzero(ids >= 0) == QUERIES * min(10, np.count_nonzero(mask))
            np.testing.assert_allclose(scores, true_scores(data, ids), atol=2e-3)
            assert set(ids[ids >= 0].tolist()) <= set(data.ids[mask].tolist())


def test_scan_leaves_out_what_was_removed(data: Data) -> None:
    index = built("HNSW16,SQfp16", data)
    gone = naive(data, 1)[1][:, 0]
    index.remove(gone)
    alive = ~np.isin(data.ids, gone)
    assert recall(index.scan(data.queries, 10)[1], naive(data, 10, alive)[1]) > 0.995
    some = data.ids[::7]
    both = alive & np.isin(data.ids, some)
    assert recall(index.scan(data.queries, 10, where=some)[1], naive(data, 10, both)[1]) > 0.995


def test_copies_in_several_pieces_are_merged(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built("SQfp16", data)
    mask = np.zeros(ROWS, np.bool_)
    mask[:: 2 * DIM] = True
    whole = index.scan(data.queries, 10, where=mask)
    monkeypatch.setattr(faiss_scan, "_GATHER_BYTES", 2 * DIM * 7)
    pieces = index.scan(data.queries, 10, where=mask)
    assert whole[0].tolist() == pieces[0].tolist()
    assert whole[1].tolist() == pieces[1].tolist()


@pytest.mark.parametrize("factory", ["SQ8", "PCA12,Flat", "IVF16,PQ12", "IVF16_HNSW8,Flat", "HNSW16_SQ8"])
def test_codes_alone_are_not_scanned(factory: str, data: Data) -> None:
    index = built(factory, data)
    assert not index.scans
    with pytest.raises(InputError, match="codes alone"):
        index.scan(data.queries, 10)


def test_bad_input(data: Data) -> None:
    index = built("Flat", data)
    with pytest.raises(InputError, match="at least 0"):
        index.scan(data.queries, -1)
    with pytest.raises(DimensionError):
        index.scan(data.queries[:, 1:], 3)
    with pytest.raises(InputError, match="shape"):
        index.scan(data.queries, 3, where=np.ones(5, np.bool_))
    assert index.scan(data.queries, 0)[0].shape == (QUERIES, 0)
    nothing = index.scan(data.queries, 3, where=np.zeros(ROWS, np.bool_))
    assert (nothing[1] == -1).all()
