"""What is FAISS's own: installation, factory strings, training, files, and its traps."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.errors import (
    EnvironmentConflictError,
    IndexFileError,
    InputError,
    MissingExtraError,
    RecipeError,
    StorageError,
)
from mmalign.index.backends import load_index
from mmalign.index.exact import ExactIndex
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.faiss.library import check_faiss, load_faiss
from tests.index.helpers import DIM, QUERIES, ROWS, Data, naive, recall


def pretend_installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def version(name: str) -> str:
        if name in names:
            return "1.2.3"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    load_faiss.cache_clear()


def built(factory: str, data: Data) -> FaissIndex:
    index = FaissIndex(factory, DIM)
    index.train(data.vectors)
    index.add(data.ids, data.vectors)
    return index


def test_check_faiss_names_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, "faiss-gpu")
    assert check_faiss() == "faiss-gpu 1.2.3"


def test_both_distributions_are_a_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, "faiss-cpu", "faiss-gpu")
    with pytest.raises(EnvironmentConflictError) as caught:
        FaissIndex("Flat", 4)
    assert "pip uninstall -y faiss-cpu faiss-gpu && pip install 'mmalign[cpu]'" in str(caught.value)


def test_no_faiss_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match="pip install 'mmalign\\[cpu\\]'"):
        FaissIndex("Flat", 4)


def test_faiss_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_installed(monkeypatch, "faiss-cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(EnvironmentConflictError, match=r"faiss-cpu 1\.2\.3 is installed but cannot be imported"):
        FaissIndex("Flat", 4)


def test_the_room_is_imported_without_faiss() -> None:
    code = (
        "import sys, mmalign.index.faiss.index, mmalign.index.planning.recipe\n"
        "import mmalign.index.lifecycle.versions, mmalign.index.exact\n"
        "mmalign.index.faiss.library.check_faiss(); mmalign.index.planning.recipe.list_recipes()\n"
        "sys.exit('faiss' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "factory",
    ["", "Flatt", "HNSW0", "HNSW1", "HNSW1,Flat", "IVF0,Flat", "IVF64", "PQ7", "IVF99999999999,Flat", "RFlat", "Flat(",
     "IDMap2", "PQ16x99", "é", "x" * 1000, "IVF4_HNSW0,Flat"],
)  # fmt: skip
def test_unknown_factory_string(factory: str) -> None:
    with pytest.raises(RecipeError) as caught:
        FaissIndex(factory, DIM)
    assert repr(factory) in str(caught.value)
    assert "HNSW32, IVF256,Flat" in str(caught.value)
    assert "/project/" not in str(caught.value)


@pytest.mark.parametrize("factory", ["LSH", "ITQ16,LSH", "L2norm,LSH", "IVF8,PQ4+8", "IMI2x4,Flat"])
def test_factory_without_inner_products_is_refused(factory: str) -> None:
    with pytest.raises(RecipeError, match="cannot be used for inner products"):
        FaissIndex(factory, DIM)


@pytest.mark.parametrize(
    ("factory", "needed"),
    [
        ("IVF64,Flat", 64),
        ("PQ8", 256),
        ("IVF4,PQ8x4fs,RFlat", 16),
        ("OPQ4,PQ4x4", DIM),
        ("OPQ4,PQ4", 256),
        ("OPQ4,Flat", 256),
    ],
)
def test_too_few_training_vectors(factory: str, needed: int, capfd: pytest.CaptureFixture[str], data: Data) -> None:
    index = FaissIndex(factory, DIM)
    with pytest.raises(RecipeError, match=f"at least {needed} training vectors .*, got {needed - 1}"):
        index.train(data.vectors[: needed - 1])
    assert not index.is_trained
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("factory", ["IVF8,Flat", "PQ2np", "IVF8,PQ4x4fs", "IVF8_HNSW8,SQ8", "OPQ2,IVF4,PQ2x4fs"])
def test_just_enough_training_vectors_train_in_silence(factory: str, capfd: pytest.CaptureFixture[str]) -> None:
    vectors = np.random.default_rng(0).normal(size=(256, 8)).astype(np.float32)
    index = FaissIndex(factory, 8)
    index.train(vectors)
    index.add(np.arange(256), vectors)
    # Twice: a rotation is left without the quantiser that it was lent.
    index.train(vectors)
    truth = ExactIndex(8)
    truth.add(np.arange(256), vectors)
    assert recall(index.search(vectors, 10)[1], truth.search(vectors, 10)[1]) > 0.3
    assert capfd.readouterr() == ("", "")


def test_what_faiss_itself_refuses_in_training() -> None:
    with pytest.raises(RecipeError, match="PCA matrix cannot output 16 dimensions from 8"):
        FaissIndex("PCA16,Flat", 8).train(np.random.default_rng(0).normal(size=(50, 8)))


def test_untrained_index() -> None:
    index = FaissIndex("IVF4,Flat", 4)
    with pytest.raises(InputError, match="not trained; call train"):
        index.add([1], np.ones((1, 4)))
    with pytest.raises(InputError, match="not trained; call train"):
        index.search(np.ones((1, 4)), 1)


def test_empty_index_finds_nothing() -> None:
    index = FaissIndex("HNSW8", 4)
    assert index.search(np.ones((2, 4)), 3)[0].shape == (2, 0)
    index.add([], np.zeros((0, 4)))
    assert len(index) == 0


def test_recall_grows_with_effort(data: Data) -> None:
    truth = naive(data, 10)[1]
    for factory, name, most in (
        ("IVF64,Flat", "nprobe", 64),
        ("HNSW8", "efSearch", 500),
        ("PQ12x4fs,RFlat", "k_factor", 100),
        ("IVF64,PQ12x4fs,RFlat", "nprobe", 64),
    ):
        index = built(factory, data)
        assert index.effort_name == name
        low, high = (recall(index.search(data.queries, 10, effort=effort)[1], truth) for effort in (1, most))
        assert low < high
        assert high > 0.9
        # Beyond the most there is nothing more to look at.
        index.search(data.queries, 10, effort=10**9)
        default = index.search(data.queries, 10)[1]
        np.testing.assert_array_equal(default, index.search(data.queries, 10, effort=index.default_effort)[1])


def test_default_effort_is_kept_on_disk(data: Data, tmp_path: Path) -> None:
    index = FaissIndex("IVF64,Flat", DIM, default_effort=3)
    index.train(data.vectors)
    index.save(tmp_path)
    assert load_index(tmp_path).default_effort == 3


# Traps: what FAISS does by itself, and what the index makes of it


def raw(factory: str, data: Data) -> Any:
    faiss = load_faiss()
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(data.vectors)
    index.add(data.vectors)
    return index


def test_trap_padding(data: Data) -> None:
    scores, _ = raw("Flat", Data(data.ids[:5], data.vectors[:5], data.queries)).search(data.queries, 9)
    assert scores.min() < -1e38
    index = FaissIndex("Flat", DIM)
    index.add(data.ids[:5], data.vectors[:5])
    scores, ids = index.search(data.queries, 9, where=data.ids[:2])
    assert scores.shape == (QUERIES, 5)
    assert np.isneginf(scores[:, 2:]).all()
    assert (ids[:, 2:] == -1).all()


def test_trap_refinement_ignores_its_own_selector(data: Data) -> None:
    faiss = load_faiss()
    mask = np.random.default_rng(1).random(ROWS) < 0.1
    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    parameters = faiss.IndexRefineSearchParameters(k_factor=8, sel=selector)
    _, positions = raw("SQ8,RFlat", data).search(data.queries, 10, params=parameters)
    assert (~mask[positions]).mean() > 0.5
    found = built("SQ8,RFlat", data).search(data.queries, 10, where=mask)[1]
    assert recall(found, naive(data, 10, mask)[1]) > 0.99


def test_trap_codes_refuse_selectors(data: Data) -> None:
    faiss = load_faiss()
    selector = faiss.IDSelectorRange(0, 100)
    for factory in ("PQ12x4np", "PQ12x4fs"):
        with pytest.raises(RuntimeError):
            raw(factory, data).search(data.queries, 3, params=faiss.SearchParametersPQ(sel=selector))
        index = built(factory, data)
        assert index.filter_support == "none"
        mask = np.arange(ROWS) < 100
        found = index.search(data.queries, 3, where=mask)[1]
        # The same codes by themselves.
        alone = index.search(data.queries, ROWS)[1]
        for row, everything in zip(found, alone, strict=True):
            np.testing.assert_array_equal(row, everything[np.isin(everything, data.ids[:100])][:3])


def test_trap_graph_recall_under_a_rare_filter(data: Data) -> None:
    faiss = load_faiss()
    mask = np.random.default_rng(2).random(ROWS) < 0.01
    truth = naive(data, 10, mask)[1]
    selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
    positions = raw("HNSW32", data).search(
        data.queries, 10, params=faiss.SearchParametersHNSW(sel=selector, efSearch=16)
    )[1]
    assert recall(np.where(positions < 0, -1, data.ids[positions]), truth) < 0.8
    assert recall(built("HNSW32", data).search(data.queries, 10, where=mask, effort=16)[1], truth) == 1.0


@pytest.mark.parametrize("factory", ["HNSW32,SQfp16", "PCA20,HNSW32", "HNSW32_SQ8,RFlat"])
@pytest.mark.parametrize("share", [0.9, 0.3, 0.05])
def test_graph_by_itself_and_wrapped(factory: str, share: float, data: Data) -> None:
    index = built(factory, data)
    mask = np.random.default_rng(3).random(ROWS) < share
    if factory.startswith("PCA"):
        # A projection loses something by itself; only the graph's own loss is looked at.
        exact = built(factory.replace("HNSW32", "Flat"), data)
        truth = exact.search(data.queries, 10, where=mask)[1]
    else:
        truth = naive(data, 10, mask)[1]
    found = index.search(data.queries, 10, where=mask)[1]
    assert (found >= 0).all()
    assert recall(found, truth) > 0.95


def test_trap_no_removal_in_graphs_and_refinements(data: Data) -> None:
    for factory in ("HNSW32", "SQ8,RFlat"):
        with pytest.raises(RuntimeError):
            raw(factory, data).remove_ids(np.arange(3))
        index = built(factory, data)
        assert index.remove(data.ids[:3]) == 3
        assert not np.isin(index.search(data.queries, 50)[1], data.ids[:3]).any()


def test_trap_no_ids_in_refinements(data: Data) -> None:
    with pytest.raises(RuntimeError):
        raw("SQ8,RFlat", data).add_with_ids(data.vectors, data.ids)
    assert np.isin(built("SQ8,RFlat", data).search(data.queries, 5)[1], data.ids).all()


# Files


@pytest.mark.parametrize("factory", ["HNSW32", "IDMap2,IVF16,Flat", "IVF16,PQ12x4fs,RFlat"])
def test_file_is_a_plain_faiss_file(factory: str, data: Data, tmp_path: Path) -> None:
    faiss = load_faiss()
    index = built(factory, data)
    index.save(tmp_path)
    plain = faiss.read_index(str(tmp_path / "index.faiss"))
    _, positions = plain.search(data.queries, 1)
    assert plain.ntotal == ROWS
    assert (data.ids[positions] == index.search(data.queries, 1)[1]).mean() > 0.6
    opened = FaissIndex.from_file(tmp_path / "index.faiss", ids=data.ids)
    np.testing.assert_array_equal(opened.search(data.queries, 5)[1], index.search(data.queries, 5)[1])


def test_file_of_another_metric_is_refused(data: Data, tmp_path: Path) -> None:
    faiss = load_faiss()
    faiss.write_index(faiss.IndexFlatL2(DIM), str(tmp_path / "l2.faiss"))
    with pytest.raises(IndexFileError, match="by inner product"):
        FaissIndex.from_file(tmp_path / "l2.faiss")


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF16,PQ12x4fs,Refine(SQfp16)"])
def test_cut_file_is_refused(factory: str, data: Data, tmp_path: Path) -> None:
    built(factory, data).save(tmp_path)
    path = tmp_path / "index.faiss"
    whole = path.read_bytes()
    for length in (0, 1, 4, 9, 30, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        for mmap in (True, False):
            with pytest.raises(IndexFileError, match=r"index\.faiss is damaged"):
                load_index(tmp_path, mmap=mmap)
        with pytest.raises(IndexFileError, match="cannot be read"):
            FaissIndex.from_file(path)


def test_file_of_right_size_and_wrong_bytes_is_refused(data: Data, tmp_path: Path) -> None:
    built("Flat", data).save(tmp_path)
    path = tmp_path / "index.faiss"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(IndexFileError, match="cannot be read"):
        load_index(tmp_path)
    other = FaissIndex("Flat", DIM)
    other.add(data.ids[:-1], data.vectors[:-1])
    other.save(tmp_path / "other")
    for name in ("index.faiss", "index.json"):
        (tmp_path / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(IndexFileError, match="do not fit an index of 2999 rows"):
        load_index(tmp_path)


def test_mapped_index_is_not_added_to(data: Data, tmp_path: Path) -> None:
    built("Flat", data).save(tmp_path)
    with pytest.raises(InputError, match="load it with mmap=False"):
        load_index(tmp_path).add([10 * ROWS], data.vectors[:1])


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 exist on Linux alone")
def test_folder_whose_name_is_not_utf8(data: Data, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff\xfe")
    index = built("SQ8", data)
    index.save(folder)
    np.testing.assert_array_equal(load_index(folder).search(data.queries, 3)[1], index.search(data.queries, 3)[1])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("rows", [10, ROWS])
def test_full_disk_is_noticed(rows: int, data: Data, tmp_path: Path) -> None:
    (tmp_path / "index.faiss").symlink_to("/dev/full")
    index = FaissIndex("Flat", DIM)
    index.add(data.ids[:rows], data.vectors[:rows])
    with pytest.raises(StorageError, match="free some space"):
        index.save(tmp_path)
