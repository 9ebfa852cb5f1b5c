from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import IndexFileError, InputError, StorageError
from mmalign.index.backends import load_index
from mmalign.index.exact import ExactIndex
from tests.index.helpers import DIM, ROWS, Data, naive


@pytest.mark.parametrize("share", [1.0, 0.5, 0.01])
def test_scores_and_ids_are_those_of_a_plain_sort(exact: ExactIndex, data: Data, share: float) -> None:
    allowed = np.random.default_rng(2).random(ROWS) < share
    scores, ids = exact.search(data.queries, 15, where=allowed)
    true_scores, true_ids = naive(data, 15, allowed)
    np.testing.assert_allclose(scores, true_scores, atol=5e-4)
    # Where float16 cannot tell two neighbours apart, their order may differ.
    differ = ids != true_ids
    assert differ.mean() < 0.02
    np.testing.assert_allclose(scores[differ], true_scores[differ], atol=5e-4)


def test_filter_larger_than_one_piece() -> None:
    rng = np.random.default_rng(7)
    rows = 150_000
    vectors = rng.normal(size=(rows, 4)).astype(np.float16)
    index = ExactIndex(4)
    index.add(np.arange(rows), vectors)
    allowed = rng.random(rows) < 0.9
    query = np.array([[1.0, 2.0, -1.0, 0.5]], np.float32)
    truth = np.flatnonzero(allowed)[np.argsort(-(vectors[allowed].astype(np.float32) @ query[0]), kind="stable")[:20]]
    np.testing.assert_array_equal(index.search(query, 20, where=allowed)[1][0], truth)


def test_many_small_adds() -> None:
    rng = np.random.default_rng(8)
    vectors = rng.normal(size=(500, 3)).astype(np.float32)
    index = ExactIndex(3)
    for i, vector in enumerate(vectors):
        index.add([1000 - i], vector)
    np.testing.assert_array_equal(
        index.search(vectors[:9], 1)[1], 1000 - (vectors[:9] @ vectors.T).argmax(axis=1)[:, None]
    )


def test_adding_to_a_mapped_index_leaves_the_file(exact: ExactIndex, data: Data, tmp_path: Path) -> None:
    exact.save(tmp_path)
    before = (tmp_path / "vectors.npy").read_bytes()
    mapped = ExactIndex.load(tmp_path)
    mapped.add([10 * ROWS], data.queries[:1])
    assert mapped.search(data.queries[:1], 1)[1].tolist() == [[10 * ROWS]]
    assert (tmp_path / "vectors.npy").read_bytes() == before


def test_empty_index(tmp_path: Path) -> None:
    index = ExactIndex(5)
    assert len(index) == 0
    index.save(tmp_path)
    for one in (index, load_index(tmp_path)):
        assert one.search(np.ones((2, 5)), 3)[1].shape == (2, 0)
        assert one.remove([1, 2]) == 0


def test_values_that_float16_cannot_hold_are_refused() -> None:
    with pytest.raises(InputError, match="too large for float16"):
        ExactIndex(2).add([1], [[1e6, 0]])
    with pytest.raises(InputError, match="dim must be at least 1"):
        ExactIndex(0)


def test_ids_beyond_int64_are_refused() -> None:
    with pytest.raises(InputError, match="below 2\\*\\*63"):
        ExactIndex(2).add(np.array([2**63], np.uint64), [[1, 0]])
    index = ExactIndex(2)
    index.add(np.array([2**62], np.uint64), [[1, 0]])
    assert index.search([1, 0], 1)[1].tolist() == [[2**62]]


@pytest.mark.parametrize("name", ["vectors.npy", "ids.npy", "removed.npy", "index.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "garbage"])
def test_damaged_file_is_refused(exact: ExactIndex, tmp_path: Path, name: str, damage: str) -> None:
    exact.save(tmp_path)
    path = tmp_path / name
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(IndexFileError, match=name.replace(".", "\\.")):
        load_index(tmp_path)


def test_header_of_a_newer_format_or_unknown_kind_is_refused(exact: ExactIndex, tmp_path: Path) -> None:
    exact.save(tmp_path)
    header = json.loads((tmp_path / "index.json").read_text())
    (tmp_path / "index.json").write_text(json.dumps(header | {"kind": "quantum"}))
    with pytest.raises(IndexFileError, match="quantum"):
        load_index(tmp_path)
    (tmp_path / "index.json").write_text(json.dumps(header | {"format": 99}))
    with pytest.raises(IndexFileError, match=r"format 99.*update"):
        load_index(tmp_path)


def test_files_that_do_not_fit_one_another_are_refused(exact: ExactIndex, tmp_path: Path) -> None:
    exact.save(tmp_path)
    np.save(tmp_path / "ids.npy", np.arange(3))
    with pytest.raises(IndexFileError, match="do not fit an index of 3000 rows"):
        load_index(tmp_path)
    np.save(tmp_path / "ids.npy", np.ones(ROWS))
    with pytest.raises(IndexFileError, match="expected int64"):
        load_index(tmp_path)


def test_folder_that_cannot_be_written(exact: ExactIndex, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write to"):
        exact.save(tmp_path / "file" / "index")


def test_dim_of_the_index(exact: ExactIndex) -> None:
    assert exact.dim == DIM
