from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
import pytest

from mmalign.errors import InputError, MissingExtraError, RecipeError
from mmalign.index.backends import load_index
from mmalign.index.chunks import sample_vectors
from mmalign.index.exact import ExactIndex
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.lifecycle import build as building
from mmalign.index.lifecycle.build import build_index
from mmalign.index.planning import recipe as module
from mmalign.index.planning.recipe import Recipe, list_recipes, load_recipe, parse_recipe
from mmalign.index.planning.sizes import size_of
from tests.index.helpers import DIM, ROWS, Data, naive, recall

# Recipes of a graphics card are built where there is one; see faiss/test_gpu.py.
NAMES = [recipe.name for recipe in list_recipes() if recipe.device == "cpu"]
# A recipe of a factory string and a line of how it is trained.
MINE = 'name = "mine"\nsummary = "x"\nfactory = "{}"\n[training]\n{}\n'


class Chunks:
    """The data, piece by piece, and how often it was read."""

    def __init__(self, data: Data, size: int = 700) -> None:
        self.data, self.size, self.passes = data, size, 0

    def __call__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        self.passes += 1
        for start in range(0, len(self.data.ids), self.size):
            part = slice(start, start + self.size)
            yield self.data.ids[part], self.data.vectors[part].astype(np.float16)


def test_recipes_of_the_package(root: Path) -> None:
    recipes = list_recipes()
    names = [recipe.name for recipe in recipes]
    assert names[0] == "flat"
    assert set(names) >= {"flat", "flat-fp16", "sq8", "hnsw", "ivf-flat", "ivf-pq", "opq", "rabitq", "binary",
                          "ivf-disk", "gpu-flat", "gpu-ivf-pq", "cagra"}  # fmt: skip
    assert sorted(path.stem for path in (root / "indexes").glob("*.toml")) == sorted(names)
    for recipe in recipes:
        assert load_recipe(recipe.name) == recipe
        assert load_recipe(str(root / "indexes" / f"{recipe.name}.toml")) == recipe
        assert recipe.to_dict()["factory"] == recipe.factory
        assert recipe.summary.endswith(".")
        assert recipe.why


def test_every_size_has_exactly_one_recipe_that_needs_no_queries() -> None:
    meant = [recipe for recipe in list_recipes() if recipe.min_rows is not None and not recipe.query_aware]
    bounds = [(recipe.min_rows, recipe.max_rows) for recipe in meant]
    assert bounds[0][0] == 0
    assert [high for _, high in bounds] == [*(low for low, _ in bounds[1:]), None]


@pytest.mark.parametrize("name", NAMES)
def test_recipe_builds_and_filters_as_it_says(name: str, data: Data) -> None:
    advanced: list[int] = []
    chunks = Chunks(data)
    index, used = build_index(name, chunks, rows=ROWS, dim=DIM, advance=advanced.append)
    assert used == name
    recipe = load_recipe(name)
    assert (index.filter_support, index.min_selectivity) == (recipe.filter_support, recipe.min_share)
    assert getattr(index, "effort_name", None) == recipe.effort
    assert recipe.default_effort in (None, index.default_effort)
    assert index.factory == recipe.resolve(rows=ROWS, dim=DIM)
    assert sum(advanced) == len(index) == ROWS
    assert len(advanced) == 5
    assert chunks.passes == (2 if size_of(index.factory, DIM).centroids else 1)
    # Codes of four bits, which nothing mends, lose a little more.
    least = 0.88 if name == "rabitq4" else 0.93
    for share in (1.0, 0.5, 0.1, 0.02):
        allowed = np.random.default_rng(1).random(ROWS) < share
        found = index.search(data.queries, 10, where=allowed)[1]
        assert recall(found, naive(data, 10, allowed)[1]) > least
    for effort in recipe.effort_choices:
        assert (index.search(data.queries, 10, effort=effort)[1] >= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_recipe_after_removals_updates_and_a_save(name: str, data: Data, tmp_path: Path) -> None:
    index, _ = build_index(name, Chunks(data), rows=ROWS, dim=DIM)
    gone = np.random.default_rng(4).permutation(data.ids)[: ROWS // 2]
    assert index.remove(gone) == ROWS // 2
    alive = ~np.isin(data.ids, gone)
    least = 0.88 if name == "rabitq4" else 0.93
    for allowed in (alive, alive & (np.random.default_rng(5).random(ROWS) < 0.1)):
        found = index.search(data.queries, 10, where=allowed)[1]
        assert np.isin(found, data.ids[allowed]).all()
        assert recall(found, naive(data, 10, allowed)[1]) > least
    without = index.search(data.queries, 10)
    assert not np.isin(without[1], gone).any()
    if load_recipe(name).storage == "disk":
        with pytest.raises(InputError, match="memory-mapped"):
            index.add(gone[:1], data.queries[:1])
    else:
        # An update: an id that was removed comes back with another vector.
        index.add(gone[:1], data.queries[:1])
        assert gone[0] in index.search(data.queries[:1], 5)[1]
        assert index.remove(gone[:1]) == 1
    index.save(tmp_path)
    for mmap in (True, False):
        loaded = load_index(tmp_path, mmap=mmap)
        assert (len(loaded), loaded.default_effort) == (ROWS - ROWS // 2, index.default_effort)
        again = loaded.search(data.queries, 10)
        np.testing.assert_array_equal(again[1], without[1])
        np.testing.assert_array_equal(again[0], without[0])


@pytest.mark.parametrize("dim", [1, 9, 32])
@pytest.mark.parametrize("rows", [1, 15, 16, 500])
@pytest.mark.parametrize("name", NAMES)
def test_named_recipe_builds_at_any_size(name: str, rows: int, dim: int, capfd: pytest.CaptureFixture[str]) -> None:
    vectors = np.random.default_rng(rows).normal(size=(rows, dim)).astype(np.float32)
    data = Data(np.arange(rows), vectors, vectors)
    index, used = build_index(name, Chunks(data), rows=rows, dim=dim)
    assert used == name
    ids = index.search(vectors[:5], rows)[1]
    assert (np.sort(ids, axis=1) == np.arange(rows)).all()
    assert index.factory in ("exact", load_recipe(name).resolve(rows=rows, dim=dim))
    assert capfd.readouterr() == ("", "")


def test_no_rows_at_all() -> None:
    empty = Data(np.zeros(0, np.int64), np.zeros((0, 8), np.float32), np.zeros((0, 8), np.float32))
    for name in (*NAMES, "auto"):
        index, _ = build_index(name, Chunks(empty), rows=0, dim=8)
        assert index.search(np.ones((1, 8)), 3)[1].shape == (1, 0)


def test_same_seed_builds_the_same_index(data: Data) -> None:
    found = [
        build_index("IVF16,Flat", Chunks(data), rows=ROWS, dim=DIM, seed=seed)[0].search(data.queries, 10, effort=1)[1]
        for seed in (1, 1)
    ]
    np.testing.assert_array_equal(*found)


def test_another_seed_draws_another_sample(data: Data) -> None:
    """A tight budget of memory makes the sample a part of the vectors; codes learnt from other ones score otherwise."""
    found = [
        build_index("SQ8", Chunks(data), rows=ROWS, dim=DIM, seed=seed, memory=1)[0].search(data.queries, 10)[0]
        for seed in (1, 2, 3)
    ]
    assert any(not np.array_equal(found[0], other) for other in found[1:])


def test_factory_string(data: Data) -> None:
    index, used = build_index("IVF16,SQ8", Chunks(data), rows=ROWS, dim=DIM)
    assert (used, index.factory) == ("IVF16,SQ8", "IVF16,SQ8")
    assert isinstance(index, FaissIndex)
    with pytest.raises(RecipeError, match="needs at least 4000 training vectors"):
        build_index("IVF4000,Flat", Chunks(data), rows=ROWS, dim=DIM)


def test_recipe_of_a_file(data: Data, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nsummary = "x"\nfactory = "IVF{nlist},Flat"\n[search]\ndefault = 5\n')
    index, used = build_index(str(path), Chunks(data), rows=ROWS, dim=DIM)
    # 4 * sqrt(3000) = 219 lists would leave fewer than 39 rows for each.
    assert (used, index.factory, index.default_effort) == ("mine", "IVF76,Flat", 5)


@pytest.mark.parametrize(
    "factory",
    [
        "HNSW8,Flat",
        "HNSW8,SQ8",
        "PCA8,HNSW8,SQfp16",
        "HNSW8,SQfp16,Refine(SQfp16)",
        "PCA8,HNSW8_SQ8,RFlat",
        "IDMap,HNSW8,Flat",
    ],
)
def test_effort_of_building_a_graph_is_in_the_file(factory: str, data: Data, tmp_path: Path) -> None:
    """The oracle is FAISS's own reading of the file."""
    links = {}
    for effort in (None, 40, 120):
        line = "" if effort is None else f"ef_construction = {effort}"
        recipe = parse_recipe(MINE.format(factory, line), origin="mine.toml")
        assert (recipe.ef_construction, recipe.to_dict()["ef_construction"]) == (effort, effort)
        index, _ = build_index(recipe, Chunks(data), rows=ROWS, dim=DIM)
        assert isinstance(index, FaissIndex)
        folder = tmp_path / str(effort)
        index.save(folder)
        built_with, rows, links[effort] = graph_in(folder / "index.faiss")
        assert (built_with, rows) == (effort or 40, ROWS)
        assert index.ef_construction == built_with
        loaded = load_index(folder, mmap=False)
        assert isinstance(loaded, FaissIndex)
        # What is added later is added with the same effort.
        loaded.add(np.array([10**6]), data.queries[:1])
        loaded.save(tmp_path / f"{effort} and more")
        assert graph_in(tmp_path / f"{effort} and more" / "index.faiss")[:2] == (effort or 40, ROWS + 1)
    np.testing.assert_array_equal(links[None], links[40])
    assert (links[40] != links[120]).any()


def graph_in(path: Path) -> tuple[int, int, np.ndarray]:
    """efConstruction, the number of vectors and the links of the graph inside a FAISS file."""
    whole = faiss.read_index(str(path))
    layer = faiss.downcast_index(whole)
    while not isinstance(layer, faiss.IndexHNSW):
        layer = faiss.downcast_index(layer.base_index if isinstance(layer, faiss.IndexRefine) else layer.index)
    return layer.hnsw.efConstruction, layer.ntotal, faiss.vector_to_array(layer.hnsw.neighbors).copy()


def test_effort_of_building_a_graph_without_one(data: Data) -> None:
    for factory in ("Flat", "IVF16,Flat", "IVF16_HNSW8,Flat"):
        with pytest.raises(RecipeError, match="this index has none over its vectors; leave it out"):
            FaissIndex(factory, DIM, ef_construction=90)
        with pytest.raises(RecipeError, match="recipe mine: ef_construction = 90 is for graphs"):
            build_index(Recipe("mine", "", factory, ef_construction=90), Chunks(data), rows=ROWS, dim=DIM)
        assert FaissIndex(factory, DIM).ef_construction is None
    recipe = Recipe("mine", "", "HNSW8,Flat", ef_construction=90)
    with pytest.raises(RecipeError, match="a graphics card builds this one in another way"):
        build_index(recipe, Chunks(data), rows=ROWS, dim=DIM, device="cuda")


def test_placeholders() -> None:
    recipe = load_recipe("ivf-pq")
    assert recipe.resolve(rows=1_000_000, dim=512) == "IVF4000,PQ256x4fs,Refine(SQfp16)"
    assert recipe.resolve(rows=10, dim=9) == "IVF1,PQ9x4fs,Refine(SQfp16)"
    codes = Recipe(name="x", summary="", factory="RR{dim},PQ{m4}x{m8}")
    assert [codes.resolve(rows=10, dim=dim) for dim in (384, 100, 13, 1)] == [
        "RR384,PQ96x48",
        "RR100,PQ25x10",
        "RR13,PQ1x1",
        "RR1,PQ1x1",
    ]
    # Sizes of FAISS's `IVFPQ::isSupportedPQCodeLength` names, whose tables fit 48 KiB of shared memory as float16.
    cards = load_recipe("gpu-ivf-pq")
    sizes = {384: 48, 512: 64, 640: 64, 768: 96, 1024: 64, 1152: 96, 1280: 64, 4096: 64, 100: 4, 13: 1, 1: 1}
    for dim, count in sizes.items():
        assert cards.resolve(rows=100, dim=dim) == f"IVF2,PQ{count}np,Refine(SQfp16)"
        assert 2 * count * 256 <= 48 << 10
        assert dim % count == 0
    reduced = Recipe(name="x", summary="", factory="PCA{reduced},HNSW32,SQ8,Refine(SQfp16)", reduced=160)
    assert reduced.resolve(rows=10, dim=384) == "PCA160,HNSW32,SQ8,Refine(SQfp16)"
    assert reduced.resolve(rows=10, dim=64) == "PCA64,HNSW32,SQ8,Refine(SQfp16)"


@pytest.mark.parametrize("factory", ["IVF{lists},Flat", "IVF{},Flat", "IVF{nlist,Flat", "IVF{nlist.x},Flat"])
def test_unknown_placeholder(factory: str) -> None:
    with pytest.raises(RecipeError, match=r"may hold \{nlist\}, .*\{dim\} and no other braces"):
        Recipe(name="x", summary="", factory=factory).resolve(rows=10, dim=4)
    with pytest.raises(RecipeError, match="needs a line reduced = WIDTH"):
        Recipe(name="x", summary="", factory="PCA{reduced},Flat").resolve(rows=10, dim=4)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hnws", "did you mean hnsw"),
        ("IVF-PQ", "did you mean ivf-pq"),
        ("ivf", "did you mean ivf-pq"),
        ("zzz", "the recipes are flat, hnsw"),
        # Four of seven letters are those of opq, and it is not meant.
        ("nope", "unknown index recipe 'nope'; the recipes are flat, hnsw"),
        ("", "unknown index recipe ''"),
        ("IVF64,Flatt", "Nor is it for FAISS"),
        ("auto", "mmalign plan"),
        ("missing.toml", "cannot be read"),
    ],
)
def test_unknown_recipe(spec: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not an index recipe"),
        ('name = "a"\nsummary = "b"', "factory"),
        ('name = "a"\nsummary = "b"\nfactory = "Flat"\nflavour = 1', "flavour"),
        ('name = "a"\nsummary = "b"\nfactory = "Flat"\nmetric = "l2"', "metric must be inner_product, got 'l2'"),
        ('name = "a"\nsummary = "b"\nfactory = "Flat"\ndevice = "moon"', "device must be cpu or cuda, got 'moon'"),
        ('name = "a"\nsummary = "b"\nfactory = "Flat"\nstorage = "tape"', "storage must be memory or disk"),
        ('name = "a"\nsummary = "b"\nfactory = "Flat"\nreduced = 0', "reduced must be a whole number of at least 1"),
        ('name = "a"\nsummary = "b"\nfactory = "Flat"\nquery_aware = 1', "query_aware must be true or false"),
        ('name = "a"\nsummary = "b"\nfactory = "Flat"\n[search]\nchoices = [1, "x"]', "choices[1] must be a whole"),
        ('name = "a"\nsummary = ""\nfactory = "Flat"', "summary must be a text that is not empty"),
        (MINE.format("HNSW32", "ef_construction = 0"), "ef_construction must be a whole number of at least 1, got 0"),
        (MINE.format("HNSW32", 'ef_construction = "many"'), "ef_construction must be a whole number of at least 1"),
        (MINE.format("HNSW32", "efConstruction = 90"), "efConstruction"),
        (MINE.format("IVF64,Flat", "ef_construction = 90"), "leave it out, or use a factory with a graph"),
        # A graph over the centres of lists is none over the vectors.
        (MINE.format("IVF64_HNSW32,Flat", "ef_construction = 90"), "is for graphs, and factory 'IVF64_HNSW32,Flat'"),
        (MINE.format("exact", "ef_construction = 90"), "leave it out, or use a factory with a graph"),
        ('device = "cuda"\n' + MINE.format("HNSW32,Flat", "ef_construction = 90"), "or build it with device cpu"),
        ('name = "a"\nsummary = "b"\nfactory = "Flat"\nsearch = 3', "is not an index recipe"),
    ],
)
def test_bad_recipe_file(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=r"^bad\.toml") as caught:
        parse_recipe(text, origin="bad.toml")
    assert message in str(caught.value)


def test_auto_without_faiss_is_exact(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "has_faiss_installed", lambda: False)
    index, used = build_index("auto", Chunks(data), rows=60_000, dim=DIM)
    assert used == "flat"
    assert isinstance(index, ExactIndex)


def test_named_recipe_without_faiss_says_what_to_type(data: Data, monkeypatch: pytest.MonkeyPatch) -> None:
    from mmalign.index.faiss import library

    library.load_faiss.cache_clear()
    monkeypatch.setattr(library, "_DISTRIBUTIONS", ())
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert not module.has_faiss_installed()
    with pytest.raises(MissingExtraError, match="faiss-cpu"):
        build_index("hnsw", Chunks(data), rows=ROWS, dim=DIM)


def test_sample_is_uniform_and_without_repeats(data: Data) -> None:
    numbered = Data(np.arange(1000), np.arange(1000, dtype=np.float32)[:, None], data.queries)
    seen = np.zeros(1000)
    for seed in range(200):
        sample = sample_vectors(Chunks(numbered, 70), rows=1000, dim=1, size=100, seed=seed)[:, 0].astype(int)
        assert len(set(sample)) == 100
        seen[sample] += 1
    # 20 draws of each are expected, with a standard deviation of about 4.2.
    assert abs(seen[:500].mean() - 20) < 0.6
    assert 2 < seen.min() <= seen.max() < 45
    whole = sample_vectors(Chunks(numbered, 70), rows=1000, dim=1, size=1000, seed=0)
    np.testing.assert_array_equal(whole, numbered.vectors)
