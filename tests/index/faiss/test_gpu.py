"""Graphics cards: what is asked of FAISS, what is said where there is none; on a real card, the same hits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mmalign.collection import Collection
from mmalign.errors import EnvironmentConflictError, InputError, RecipeError
from mmalign.index.backends import load_index
from mmalign.index.faiss import gpu as faiss_gpu
from mmalign.index.faiss.gpu import MOST_K, GpuReplica, GpuSupport, probe, require_gpu_support
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.faiss.library import load_faiss
from mmalign.index.lifecycle.build import build_index
from tests.index.helpers import DIM, ROWS, Data, recall

CARDS = probe()
WITHOUT = "no graphics card, or a FAISS that was not built for one"
on_card = pytest.mark.skipif(not CARDS.count, reason=WITHOUT)
on_two_cards = pytest.mark.skipif(CARDS.count < 2, reason="fewer than two graphics cards")
with_cuvs = pytest.mark.skipif(not (CARDS.count and CARDS.cuvs), reason=f"{WITHOUT}, or without cuVS")
without_cards = pytest.mark.skipif(CARDS.count > 0, reason="there is a graphics card")
FACTORIES = ["SQfp16", "Flat", "IVF30,Flat", "IVF30,PQ12np,Refine(SQfp16)"]


class Card:
    """Numpy in the place of a graphics card, with as many rows of memory as it is given."""

    def __init__(self, rows: int) -> None:
        self.rows = rows


class FakeFlat:
    def __init__(self, resource: Card, dim: int, config: Any) -> None:
        self.resource, self.d, self.config = resource, dim, config
        self.vectors = np.zeros((0, dim), np.float32)

    def add(self, vectors: np.ndarray) -> None:
        if len(self.vectors) + len(vectors) > self.resource.rows:
            raise RuntimeError("Error: 'err == cudaSuccess' failed: out of memory")
        self.vectors = np.vstack([self.vectors, vectors])

    def search(self, queries: np.ndarray, k: int, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
        scores = queries @ self.vectors.T
        order = np.argsort(-scores, axis=1)[:, :k]
        found = np.take_along_axis(scores, order, axis=1)
        short = k - order.shape[1]
        return np.pad(found, ((0, 0), (0, short)), constant_values=-3e38), np.pad(
            order, ((0, 0), (0, short)), constant_values=-1
        )


class FakeShards:
    def __init__(self, dim: int, threaded: bool, successive: bool) -> None:
        assert successive, "positions of a shard follow those of the one before"
        self.d, self.held = dim, []  # type: ignore[var-annotated]

    def add_shard(self, part: FakeFlat) -> None:
        self.held.append(part)

    def search(self, queries: np.ndarray, k: int, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
        parts, start = [], 0
        for part in self.held:
            scores, order = part.search(queries, k)
            parts.append((scores, np.where(order < 0, -1, order + start)))
            start += len(part.vectors)
        scores, order = (np.hstack(columns) for columns in zip(*parts, strict=True))
        best = np.argsort(-scores, axis=1)[:, :k]
        return np.take_along_axis(scores, best, axis=1), np.take_along_axis(order, best, axis=1)


class FakeReplicas(FakeFlat):
    def __init__(self, dim: int, threaded: bool) -> None:
        self.held: list[FakeFlat] = []

    def add_replica(self, part: FakeFlat) -> None:
        self.held.append(part)
        self.vectors = part.vectors


def fake(monkeypatch: pytest.MonkeyPatch, *, cards: int, rows: int = ROWS) -> Any:
    """The installed FAISS, with made-up cards that search whole vectors."""
    real = load_faiss()
    waiting = [Card(rows) for _ in range(cards)]
    made = SimpleNamespace(
        StandardGpuResources=lambda: waiting.pop(),
        index_cpu_to_gpu=None,
        GpuIndexFlatIP=FakeFlat,
        GpuIndexFlatConfig=SimpleNamespace,
        IndexShards=FakeShards,
        IndexReplicas=FakeReplicas,
        get_num_gpus=lambda: cards,
        downcast_index=lambda index: index,
    )
    monkeypatch.setattr(faiss_gpu, "probe", lambda: GpuSupport(True, cards, False))
    made.real = real
    monkeypatch.setattr(faiss_gpu, "load_faiss", lambda: made)
    return made


@pytest.fixture
def flat(data: Data) -> FaissIndex:
    index = FaissIndex("SQfp16", DIM)
    index.train(data.vectors)
    index.add(data.ids, data.vectors)
    return index


def test_probe_tells_symbols_cards_and_cuvs(monkeypatch: pytest.MonkeyPatch) -> None:
    def probed(**faiss: Any) -> GpuSupport:
        monkeypatch.setattr(faiss_gpu, "load_faiss", lambda: SimpleNamespace(**faiss))
        return probe()

    def refuse() -> int:
        raise RuntimeError("CUDA driver version is insufficient")

    symbols: dict[str, Any] = dict.fromkeys(["StandardGpuResources", "index_cpu_to_gpu", "GpuIndexFlatIP"])
    assert probed(get_num_gpus=lambda: 3) == GpuSupport(False, 0, False)
    assert probed(**symbols, get_num_gpus=lambda: 3) == GpuSupport(True, 3, False)
    assert probed(**symbols, get_num_gpus=refuse, GpuIndexCagra=1) == GpuSupport(True, 0, True)


@pytest.mark.parametrize(
    ("cards", "cagra", "words"),
    [
        (GpuSupport(False, 0, False), False, r"pip uninstall -y faiss-cpu && pip install 'mmalign\[gpu\]'"),
        (GpuSupport(True, 1, False), True, "pip install faiss-gpu-cuvs"),
        (GpuSupport(True, 0, True), True, "sees no graphics card: look at nvidia-smi"),
    ],
)
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, cards: GpuSupport, cagra: bool, words: str) -> None:
    monkeypatch.setattr(faiss_gpu, "probe", lambda: cards)
    with pytest.raises(EnvironmentConflictError, match=words):
        require_gpu_support(cagra=cagra)


@without_cards
@pytest.mark.parametrize("recipe", ["gpu-flat", "gpu-ivf-pq", "cagra", "SQ8"])
def test_building_without_a_card_is_refused_before_any_work(recipe: str, data: Data) -> None:
    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        pytest.fail("no vector needs to be read")
        yield data.ids, data.vectors

    with pytest.raises(EnvironmentConflictError, match=r"graphics card|cuVS"):
        build_index(recipe, chunks, rows=ROWS, dim=DIM, device="cuda")
    with pytest.raises(InputError, match="device must be cpu or cuda, got 'gpu'"):
        build_index(recipe, chunks, rows=ROWS, dim=DIM, device="gpu")


@without_cards
def test_searching_without_a_card_is_refused(flat: FaissIndex, data: Data) -> None:
    with pytest.raises(EnvironmentConflictError):
        flat.to_device("cuda")
    with pytest.raises(InputError, match="got 'cuda:1'"):
        flat.to_device("cuda:1")
    assert flat.device == "cpu"
    assert flat.search(data.queries[:1], 1)[1][0, 0] >= 0


@pytest.mark.parametrize(
    ("cards", "rows", "asked", "spread"),
    [
        (1, ROWS, "auto", "replicas"),
        (3, ROWS, "auto", "replicas"),
        (3, ROWS // 3 + 1, "auto", "shards"),
        (2, ROWS, "shards", "shards"),
    ],
)
def test_copies_on_cards_find_the_same(
    monkeypatch: pytest.MonkeyPatch, flat: FaissIndex, data: Data, cards: int, rows: int, asked: Any, spread: str
) -> None:
    monkeypatch.setattr(faiss_gpu, "_CHUNK", 700)
    fake(monkeypatch, cards=cards, rows=rows)
    copy = GpuReplica(flat._inner, spread=asked)
    assert copy.spread == spread
    flat._cards = copy
    scores, ids = flat.search(data.queries, 10)
    flat.to_device("cpu")
    expected = flat.search(data.queries, 10)
    np.testing.assert_allclose(scores, expected[0], atol=1e-3)
    assert recall(ids, expected[1]) > 0.995


@pytest.mark.parametrize(("cards", "rows", "asked"), [(1, 100, "auto"), (3, 900, "auto"), (3, 1100, "replicas")])
def test_an_index_that_fits_no_card_is_refused(
    monkeypatch: pytest.MonkeyPatch, flat: FaissIndex, cards: int, rows: int, asked: Any
) -> None:
    fake(monkeypatch, cards=cards, rows=rows)
    with pytest.raises(EnvironmentConflictError, match=f"does not fit the memory of {cards} graphics card.*out of mem"):
        GpuReplica(flat._inner, spread=asked)


SHARED_MEMORY = "Device 0 has 49152 bytes of shared memory, while 8 bits per code and 128 sub-quantizers requires 65536"
NO_SUCH_CODES = "Number of bytes per encoded vector / sub-quantizers (80) is not supported"


@pytest.mark.parametrize("words", [SHARED_MEMORY, NO_SUCH_CODES, "no kernel image is available"])
def test_what_faiss_refuses_stays_on_the_processor(
    monkeypatch: pytest.MonkeyPatch, flat: FaissIndex, data: Data, words: str
) -> None:
    def fail(self: Any, vectors: np.ndarray) -> None:
        raise RuntimeError(f"Error in void faiss::gpu::copy() const at /x/y.cu:3: Error: {words}")

    monkeypatch.setattr(FakeFlat, "add", fail)
    fake(monkeypatch, cards=2)
    with pytest.raises(RecipeError, match="build gpu-flat or gpu-ivf-pq"):
        GpuReplica(flat._inner)
    fake(monkeypatch, cards=2)
    remark = faiss_gpu.place_index(flat, "cuda")
    assert remark is not None
    assert remark.startswith("searched on the processor: ")
    assert words in remark
    assert flat.device == "cpu"
    assert recall(flat.search(data.vectors[:5], 1)[1], data.ids[:5, None]) == 1


@pytest.mark.parametrize("factory", ["HNSW8", "IVF8,PQ4x4fs", "SQ8", "PQ4"])
def test_kinds_that_are_not_for_cards(monkeypatch: pytest.MonkeyPatch, factory: str) -> None:
    faiss = load_faiss()
    index = faiss.downcast_index(faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT))
    fake(monkeypatch, cards=1)
    if factory == "SQ8":
        # Decoded on its way, it is whole vectors there.
        assert faiss_gpu._copier(index, []) is not None
        return
    with pytest.raises(RecipeError, match=f"no {type(index).__name__} on graphics cards"):
        GpuReplica(index)


class Asked:
    """An index on a made-up card, and how many neighbours the card was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, index: FaissIndex) -> None:
        fake(monkeypatch, cards=1)
        copy = GpuReplica(index._inner)
        search = copy.search
        self.depths: list[int] = []
        monkeypatch.setattr(copy, "search", lambda q, k, **o: (self.depths.append(k), search(q, k, **o))[1])
        index._cards = copy


def nearest(data: Data, queries: np.ndarray, k: int, allowed: np.ndarray) -> np.ndarray:
    """Ids of the nearest of some rows, by brute force on what float16 keeps of them."""
    scores = queries @ data.vectors[allowed].astype(np.float16).astype(np.float32).T
    return np.asarray(data.ids[allowed[np.argsort(-scores, axis=1)[:, :k]]])


def test_a_card_gets_only_what_it_can_do(monkeypatch: pytest.MonkeyPatch, data: Data) -> None:
    """Narrow filters and too many neighbours are the processor's, and it is said why; added rows need another copy."""
    index = FaissIndex("SQfp16", DIM)
    index.train(data.vectors)
    index.add(data.ids[:-1], data.vectors[:-1])
    asked = Asked(monkeypatch, index)
    assert index.device == "cuda"
    assert index.search_on_device(data.queries, 5)[2] == ""
    assert index.search_on_device(data.queries, 6, where=data.ids[:50])[2] == (
        "a filter leaves less than half of the vectors"
    )
    scores, ids, refusal = index.search_on_device(data.queries, MOST_K + 1)
    assert refusal == "it takes 2,049 candidates, and a card finds at most 2,048"
    assert asked.depths == [5]
    index.to_device("cpu")
    expected = index.search(data.queries, MOST_K + 1)
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(scores, expected[0])
    Asked(monkeypatch, index)
    index.add(data.ids[-1:], data.vectors[-1:])
    assert index.device == "cpu"
    assert index.search(data.vectors[-1:], 1)[1][0, 0] == data.ids[-1]


@pytest.mark.parametrize("as_mask", [False, True])
def test_a_card_looks_past_what_was_removed(
    monkeypatch: pytest.MonkeyPatch, flat: FaissIndex, data: Data, as_mask: bool
) -> None:
    """Removed rows, and rows that a collection masks, cost a few more candidates on the card and nothing else."""
    gone = np.random.default_rng(5).choice(ROWS, 300, replace=False)
    asked = Asked(monkeypatch, flat)
    mask = np.ones(ROWS, np.bool_)
    mask[gone] = False
    if not as_mask:
        flat.remove(data.ids[gone])
    scores, ids, refusal = flat.search_on_device(data.queries, 10, where=mask if as_mask else None)
    assert refusal == ""
    assert asked.depths == [10 + 32]
    assert recall(ids, nearest(data, data.queries, 10, np.flatnonzero(mask))) > 0.995
    assert not np.isin(ids, data.ids[gone]).any()
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_card_looks_deeper_where_removed_rows_are_the_nearest(
    monkeypatch: pytest.MonkeyPatch, flat: FaissIndex, data: Data
) -> None:
    query = data.queries[:1]
    order = np.argsort(-(query @ data.vectors.T)[0])
    flat.remove(data.ids[order[:200]])
    asked = Asked(monkeypatch, flat)
    ids, refusal = flat.search_on_device(query, 10)[1:]
    assert refusal == ""
    assert asked.depths == [42, 168, 210]
    assert recall(ids, nearest(data, query, 10, np.sort(order[200:]))) > 0.85
    # All the nearest that a card finds at once are removed.
    flat.to_device("cpu")
    more = FaissIndex("SQfp16", DIM)
    more.train(data.vectors)
    twice = np.concatenate([data.vectors] * 2)
    more.add(np.arange(len(twice)), twice)
    order = np.argsort(-(query @ twice.T)[0])
    more.remove(order[: MOST_K + 50])
    fake(monkeypatch, cards=1, rows=len(twice))
    more._cards = GpuReplica(more._inner)
    scores, ids, refusal = more.search_on_device(query, 10)
    assert "a card finds at most 2,048" in refusal
    np.testing.assert_allclose(scores[0], (query @ twice.T)[0][order[MOST_K + 50 :][:10]], atol=1e-3)


def test_a_search_that_a_card_refuses_is_the_processors(
    monkeypatch: pytest.MonkeyPatch, flat: FaissIndex, data: Data
) -> None:
    """Older builds take 1,024 neighbours, and memory may run out: whatever a card says, the search is answered."""
    expected = flat.search(data.queries, 10)
    Asked(monkeypatch, flat)

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Error: GPU index only supports min/max-K selection up to 1024 (requested 2000)")

    monkeypatch.setattr(flat._cards, "search", refuse)
    scores, ids, refusal = flat.search_on_device(data.queries, 10)
    assert refusal == "the card refuses: GPU index only supports min/max-K selection up to 1024 (requested 2000)"
    np.testing.assert_array_equal(ids, expected[1])
    np.testing.assert_array_equal(scores, expected[0])


def test_a_collection_says_what_the_processor_answered(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Data
) -> None:
    collection = Collection.create(tmp_path / "c.mm", encoder=None, dim=DIM)
    collection.add_embeddings([str(number) for number in range(ROWS)], data.vectors)
    collection.build_index("flat-fp16", progress=False)
    fake(monkeypatch, cards=2)
    opened = Collection.open(tmp_path / "c.mm", index_device="cuda")
    assert opened.search(data.queries[0]).notes == ()
    expected = collection.search(data.queries[0], k=ROWS)
    found = opened.search(data.queries[0], k=ROWS)
    assert [note.text for note in found.notes] == [
        f"searched on the processor: it takes {ROWS:,} candidates, and a card finds at most 2,048"
    ]
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    collection.remove([expected[0].id])
    found = opened.search(data.queries[0], k=5)
    assert found.notes == ()
    assert [hit.id for hit in found] == [hit.id for hit in expected[1:6]]


def test_options_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    faiss = SimpleNamespace(GpuMultipleClonerOptions=SimpleNamespace, INDICES_64_BIT=3)
    monkeypatch.setattr(faiss_gpu, "load_faiss", lambda: faiss)
    options = faiss_gpu.cloner_options(shard=True)
    assert vars(options) == {
        "useFloat16": True,
        "useFloat16CoarseQuantizer": False,
        "usePrecomputed": False,
        "indicesOptions": 3,
        "shard": True,
    }


def test_effort_and_candidates_reach_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists take nprobe on each part, refinements a factor, graphs a list of candidates that is long enough."""
    seen: list[Any] = []

    class Lists:
        nlist, nprobe = 20, 1

        def search(self, queries: Any, k: int, params: Any) -> Any:
            seen.append(params)
            return np.zeros((1, k)), np.zeros((1, k), np.int64)

    class IndexIVFFlat:
        d = 4

    class IndexRefineFlat:
        base_index, refine_index = IndexIVFFlat(), "refine"

    class IndexHNSWCagra:
        d = 4

    class Cagra(Lists):
        def __init__(self, *_: Any) -> None:
            pass

        def copyFrom(self, index: Any) -> None:  # noqa: N802
            assert isinstance(index, IndexHNSWCagra)

    def refine(base: Any, vectors: Any) -> Any:
        assert vectors == "refine"
        return base

    lists = Lists()
    faiss = fake(monkeypatch, cards=1)
    faiss.GpuMultipleClonerOptions, faiss.INDICES_64_BIT = SimpleNamespace, 3
    faiss.index_cpu_to_gpu_multiple_py = lambda resources, index, options: lists
    faiss.IndexRefine, faiss.IndexRefineSearchParameters = refine, lambda k_factor: ("refined", k_factor)
    copy = GpuReplica(IndexRefineFlat())
    copy.search(np.zeros((1, 4), np.float32), 3, effort=50, k_factor=7.0)
    assert (lists.nprobe, seen.pop()) == (20, ("refined", 7.0))
    assert copy.refusal(10, 50, 8.0) == ""
    assert "takes 2,400 candidates" in copy.refusal(300, 50, 8.0)
    # More lists than there are cannot be looked into.
    assert copy.refusal(10, 5000, 8.0) == ""
    lists.nlist = 4000
    assert copy.refusal(10, 3000, 8.0) == "it takes 3,000 lists, and a card looks into at most 2,048"
    assert [type(part) for part in faiss_gpu._parts(SimpleNamespace(count=lambda: 2, at=lambda i: Lists()))] == [
        Lists,
        Lists,
    ]

    monkeypatch.setattr(faiss_gpu, "probe", lambda: GpuSupport(True, 1, True))
    faiss.StandardGpuResources = object
    faiss.GpuIndexCagra, faiss.METRIC_INNER_PRODUCT, faiss.SearchParametersCagra = Cagra, 0, SimpleNamespace
    graph = GpuReplica(IndexHNSWCagra())
    for k, effort, length in ((10, 64, 64), (100, 64, 128), (1, 1, 32)):
        graph.search(np.zeros((1, 4), np.float32), k, effort=effort, k_factor=1.0)
        assert seen.pop().itopk_size == length


def test_graphs_of_cards_are_searched_without_one(monkeypatch: pytest.MonkeyPatch, data: Data, tmp_path: Path) -> None:
    """What CAGRA leaves is saved, loaded and searched like any graph; here a processor has built it."""

    def build(vectors: np.ndarray, *, degree: int) -> Any:
        faiss = load_faiss()
        graph = faiss.IndexHNSWCagra(vectors.shape[1], degree // 2, faiss.METRIC_INNER_PRODUCT)
        graph.base_level_only = False
        graph.add(vectors)
        return graph

    monkeypatch.setattr(faiss_gpu, "build_cagra", build)
    index = FaissIndex.from_gpu("HNSW16,Flat", data.ids, data.vectors, default_effort=128)
    index.save(tmp_path / "i")
    loaded = load_index(tmp_path / "i")
    assert (loaded.factory, loaded.default_effort, loaded.ntotal) == ("HNSW16,Flat", 128, ROWS)
    order = np.argsort(-(data.queries @ data.vectors.T), axis=1)[:, :10]
    assert recall(loaded.search(data.queries, 10)[1], data.ids[order]) > 0.97
    with pytest.raises(RecipeError, match="of the form HNSW32,Flat, got 'SQ8'"):
        FaissIndex.from_gpu("SQ8", data.ids, data.vectors)
    with pytest.raises(InputError, match="come twice"):
        FaissIndex.from_gpu("HNSW16", np.zeros(ROWS, np.int64), data.vectors)


@on_card
@pytest.mark.parametrize("factory", FACTORIES)
def test_real_card_finds_what_the_processor_finds(factory: str, data: Data, tmp_path: Path) -> None:
    index = FaissIndex(factory, DIM)
    with index.training_on_gpu():
        index.train(data.vectors)
    index.add(data.ids, data.vectors)
    expected = index.search(data.queries, 10, effort=30)
    index.to_device("cuda")
    scores, ids = index.search(data.queries, 10, effort=30)
    np.testing.assert_allclose(scores, expected[0], atol=2e-3)
    assert recall(ids, expected[1]) > 0.98
    index.save(tmp_path / "i")
    np.testing.assert_array_equal(load_index(tmp_path / "i").search(data.queries, 10, effort=30)[1], expected[1])


@on_two_cards
@pytest.mark.parametrize("factory", FACTORIES[:3])
@pytest.mark.parametrize("spread", ["replicas", "shards"])
def test_real_cards_share(factory: str, spread: Any, data: Data) -> None:
    index = FaissIndex(factory, DIM)
    index.train(data.vectors)
    index.add(data.ids, data.vectors)
    expected = index.search(data.queries, 10, effort=30)[1]
    index.to_device("cuda", spread=spread)
    assert recall(index.search(data.queries, 10, effort=30)[1], expected) > 0.98


@with_cuvs
def test_real_card_builds_a_graph(data: Data, tmp_path: Path) -> None:
    index, _ = build_index("cagra", lambda: iter([(data.ids, data.vectors)]), rows=ROWS, dim=DIM)
    order = np.argsort(-(data.queries @ data.vectors.T), axis=1)[:, :10]
    assert recall(index.search(data.queries, 10)[1], data.ids[order]) > 0.95
    index.save(tmp_path / "i")
    assert recall(load_index(tmp_path / "i").search(data.queries, 10)[1], data.ids[order]) > 0.95
