"""What an audit says of FAISS files, beside brute force in NumPy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import mmalign
from mmalign.errors import DimensionError, FilterError, InputError, SourceError
from mmalign.evaluation import AuditOptions, AuditReport, AuditTarget, Place, RowFilter, SearchMode, register_target
from tests.evaluation.index_audit.worlds import DIM, World, make_world, nearest, recall

faiss = pytest.importorskip("faiss")
QUIET = AuditOptions(progress=False, count=160, shares=())


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


def write(world: World, path: Path, factory: str, metric: int = faiss.METRIC_L2, ids: np.ndarray | None = None):
    index = faiss.index_factory(DIM, factory, metric)
    index.train(world.vectors)
    if ids is None:
        index.add(world.vectors)
    else:
        index.add_with_ids(world.vectors, ids)
    faiss.write_index(index, str(path))
    return index


def now(report: AuditReport, kind: str = "words", result: int = 0):
    return report.results[result].now.recall[kind]


@pytest.mark.parametrize(("factory", "metric"), [("Flat", "l2"), ("Flat", "ip"), ("IDMap,Flat", "l2")])
def test_an_exact_index_finds_all(world: World, tmp_path: Path, factory: str, metric: str) -> None:
    kind = faiss.METRIC_L2 if metric == "l2" else faiss.METRIC_INNER_PRODUCT
    ids = np.arange(len(world.vectors)) * 7 + 3 if "IDMap" in factory else None
    write(world, tmp_path / "x", factory, kind, ids)
    report = mmalign.audit(tmp_path / "x", queries={"words": world.queries}, options=QUIET)
    assert (report.metric, report.rows, report.dim) == (metric, len(world.vectors), DIM)
    assert report.kinds == {"words": 160, "near": 160}
    for kind in ("words", "near"):
        assert now(report, kind).mean == 1.0
        assert now(report, kind).verdict(0.95) == "kept"
    assert report.results[0].chosen == report.results[0].now
    # The lengths differ, so that the metric matters, which has to be said.
    assert any(note.about == "metric" for note in report.notes)


def test_a_crippled_index_is_told_low_and_what_would_mend_it_does(world: World, tmp_path: Path) -> None:
    index = write(world, tmp_path / "x.faiss", "HNSW4")
    index.hnsw.efSearch = 1
    faiss.write_index(index, str(tmp_path / "x.faiss"))
    report = mmalign.audit(tmp_path / "x.faiss", queries={"words": world.queries}, target=0.9, options=QUIET)
    found = report.results[0]
    assert found.now.setting == {"efSearch": 1}
    truth = nearest("l2", world.fresh, world.vectors, 10)
    true_now = recall(index.search(world.fresh, 10)[1].tolist(), truth)
    assert true_now < 0.75
    assert now(report).lower <= true_now <= now(report).upper
    assert now(report).verdict(0.9) == "missed"
    assert found.chosen is not None
    assert found.chosen.setting["efSearch"] > 1
    index.hnsw.efSearch = found.chosen.setting["efSearch"]
    assert recall(index.search(world.fresh, 10)[1].tolist(), truth) >= 0.9
    # A table for a person, and JSON for a program.
    assert [row[6] for row in report.table()[1:3]] == ["missed", "missed"]
    told = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert told["results"][0]["now"]["recall"]["words"]["verdict"] == "missed"
    assert told["results"][0]["chosen"]["setting"] == found.chosen.setting


def test_lists_with_ids_of_their_own_and_filters(world: World, tmp_path: Path) -> None:
    ids = np.random.default_rng(1).permutation(len(world.vectors)) + 1_000
    write(world, tmp_path / "x", "IVF32,Flat", ids=ids)
    options = AuditOptions(progress=False, count=160, shares=(0.1,), vectors=None)
    report = mmalign.audit(tmp_path / "x", queries=world.queries, options=options)
    assert report.results[0].now.setting == {"nprobe": 1}
    assert now(report, "given").verdict(0.95) == "missed"
    for one in report.results:
        full = [setting for setting in one.settings if setting.recall["near"].mean == 1.0]
        assert full, "all lists find all"
    assert report.results[1].rows == 200
    assert report.results[1].share == pytest.approx(0.1)
    rates = [setting.speed.batch_per_s for setting in report.results[0].settings]
    assert all(rate is not None and rate > 0 for rate in rates)


def test_a_filter_lets_only_its_rows_count(world: World, tmp_path: Path) -> None:
    """The truth under a filter is that of the rows that it lets through, also behind a map of ids."""
    write(world, tmp_path / "x", "IDMap,HNSW16", ids=np.arange(len(world.vectors)) * 3)
    options = AuditOptions(progress=False, count=80, shares=(0.2,))
    report = mmalign.audit(tmp_path / "x", queries={"words": world.queries}, options=options)
    assert report.results[1].rows == 400
    assert report.results[1].best.recall["words"].mean > 0.99


def test_what_compression_loses_counts_with_the_originals(world: World, tmp_path: Path) -> None:
    write(world, tmp_path / "x", "PQ4x4")
    without = mmalign.audit(tmp_path / "x", queries={"words": world.queries}, options=QUIET)
    assert now(without).mean > 0.99
    assert any("compress" in note for note in without.notes)
    np.save(tmp_path / "originals.npy", world.vectors)
    options = AuditOptions(progress=False, count=160, shares=(), vectors=tmp_path / "originals.npy")
    with_originals = mmalign.audit(tmp_path / "x", queries={"words": world.queries}, options=options)
    index = faiss.read_index(str(tmp_path / "x"))
    true = recall(index.search(world.fresh, 10)[1].tolist(), nearest("l2", world.fresh, world.vectors, 10))
    assert now(with_originals).lower <= true <= now(with_originals).upper
    assert now(with_originals).verdict(0.95) == "missed"
    assert with_originals.results[0].chosen is None
    assert not any("compress" in note for note in with_originals.notes)


@pytest.mark.parametrize("factory", ["OPQ8_16,IVF8,PQ8x4", "IVF8,PQ8x4,RFlat", "PCA8,Flat", "SQ8", "IVF8,PQ8x4fs"])
def test_layers_are_searched_and_read(world: World, tmp_path: Path, factory: str) -> None:
    index = write(world, tmp_path / "x", factory)
    np.save(tmp_path / "originals.npy", world.vectors)
    options = AuditOptions(progress=False, count=160, shares=(), vectors=tmp_path / "originals.npy")
    report = mmalign.audit(tmp_path / "x", queries={"words": world.queries}, options=options)
    true = recall(index.search(world.fresh, 10)[1].tolist(), nearest("l2", world.fresh, world.vectors, 10))
    assert now(report).lower <= true <= now(report).upper


def test_packed_codes_are_measured_with_the_originals_alone(world: World, tmp_path: Path) -> None:
    write(world, tmp_path / "x", "IVF8,PQ8x4fs")
    with pytest.raises(InputError, match="--vectors"):
        mmalign.audit(tmp_path / "x", queries={"words": world.queries}, options=QUIET)


def test_kinds_of_queries_are_told_apart(tmp_path: Path) -> None:
    world = make_world(unit=True)
    write(world, tmp_path / "x", "IVF64,Flat", faiss.METRIC_INNER_PRODUCT)
    np.save(tmp_path / "words.npy", world.queries)
    queries = {"words": tmp_path / "words.npy", "copies": world.vectors[:100]}
    report = mmalign.audit(tmp_path / "x", queries=queries, options=QUIET)
    # A vector that is in the index is where its list is; queries that lie apart are near several.
    assert now(report, "copies").mean > now(report, "words").mean + 0.05
    assert not any(note.about == "metric" for note in report.notes), "all lengths are 1"


def test_the_same_seed_measures_the_same(world: World, tmp_path: Path) -> None:
    write(world, tmp_path / "x", "IVF16,Flat")
    first, second = (mmalign.audit(tmp_path / "x", options=QUIET) for _ in range(2))
    assert [one.recall for one in first.results[0].settings] == [one.recall for one in second.results[0].settings]
    assert any(note.about == "queries" for note in first.notes), "nothing but made queries is said"


class Forgetful(AuditTarget):
    """An engine of one's own that loses every other row."""

    engine = "forgetful"

    def __init__(self, vectors: np.ndarray) -> None:
        super().__init__()
        self._vectors = vectors
        self.name, self.index, self.metric, self.batches = "half", "none", "ip", False
        self.rows, self.dim = vectors.shape

    def read(self, batch: int):
        yield [f"row{i}" for i in range(self.rows)], self._vectors

    def search(self, queries, k, parameters, where=None):
        scores = queries @ self._vectors.T
        scores[:, ::2] = -np.inf
        return [[f"row{i}" for i in row] for row in np.argsort(-scores, axis=1)[:, :k]]

    def modes(self, k: int, *, filtered: bool):
        return [SearchMode()]

    def random_filter(self, share, keys, rng) -> RowFilter:
        raise FilterError("it cannot filter")


def test_an_engine_of_ones_own(world: World) -> None:
    report = mmalign.audit(Forgetful(world.vectors), queries=world.queries, options=AuditOptions(progress=False))
    assert 0.4 < now(report, "given").mean < 0.6
    assert report.results[0].chosen is None
    assert [note.about for note in report.notes].count("filter") == 2
    assert report.results[0].now.speed.batch_per_s is None
    register_target("forgetful", lambda source, place: Forgetful(world.vectors))
    again = mmalign.audit("anywhere", place=Place(engine="forgetful"), options=QUIET)
    assert again.engine == "forgetful"
    with pytest.raises(InputError, match="already"):
        register_target("faiss", lambda source, place: Forgetful(world.vectors))


def test_what_cannot_be_audited_says_so(world: World, tmp_path: Path) -> None:
    write(world, tmp_path / "x", "Flat")
    with pytest.raises(DimensionError, match="width 3"):
        mmalign.audit(tmp_path / "x", queries=np.ones((9, 3)), options=QUIET)
    (tmp_path / "words.txt").write_text("a dog\na cat\n")
    with pytest.raises(InputError, match="--encoder"):
        mmalign.audit(tmp_path / "x", queries=tmp_path / "words.txt", options=QUIET)
    with pytest.raises(FilterError, match="nothing to filter by"):
        mmalign.audit(tmp_path / "x", options=AuditOptions(progress=False, filters=["price < 3"]))
    with pytest.raises(SourceError, match="neither a file"):
        mmalign.audit(tmp_path / "none", options=QUIET)
    (tmp_path / "noise").write_bytes(b"hello world")
    with pytest.raises(InputError, match="--engine"):
        mmalign.audit(tmp_path / "noise", options=QUIET)
    with pytest.raises(InputError, match="unknown engine"):
        mmalign.audit(tmp_path / "x", place=Place(engine="no"), options=QUIET)
    with pytest.raises(InputError, match="target"):
        mmalign.audit(tmp_path / "x", target=1.0, options=QUIET)
    with pytest.raises(InputError, match="shares"):
        mmalign.audit(tmp_path / "x", options=AuditOptions(progress=False, shares=(1.5,)))
    write(world, tmp_path / "bad", "Flat", faiss.METRIC_L1)
    with pytest.raises(InputError, match="inner product and L2"):
        mmalign.audit(tmp_path / "bad", options=QUIET)
    np.save(tmp_path / "few.npy", world.vectors[:10])
    with pytest.raises(SourceError, match="one for each"):
        mmalign.audit(tmp_path / "x", options=AuditOptions(progress=False, vectors=tmp_path / "few.npy"))


def test_a_collection_is_sent_to_doctor(tmp_path: Path) -> None:
    from mmalign import Collection

    Collection.create(tmp_path / "c.mm", encoder=None, dim=4)
    with pytest.raises(InputError, match="mmalign doctor"):
        mmalign.audit(tmp_path / "c.mm", options=QUIET)


def test_texts_are_encoded(tmp_path: Path) -> None:
    encoder = mmalign.load_encoder("lite")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, encoder.dim)).astype(np.float32)
    index = faiss.IndexFlatIP(encoder.dim)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "x"))
    (tmp_path / "words.txt").write_text("".join(f"{number} red cars\n" for number in range(20)))
    report = mmalign.audit(tmp_path / "x", queries={"words": tmp_path / "words.txt"}, encoder="lite", options=QUIET)
    assert report.kinds == {"words": 20, "near": 30}
    assert now(report).mean == 1.0
