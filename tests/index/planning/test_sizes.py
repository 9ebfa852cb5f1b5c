"""Bytes that are worked out, against files that FAISS wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmalign.errors import RecipeError
from mmalign.index.exact import ExactIndex
from mmalign.index.faiss.index import FaissIndex
from mmalign.index.planning.recipe import list_recipes
from mmalign.index.planning.sizes import size_of

ROWS, DIM = 20_000, 64
STRINGS = ["SQ4", "SQ6", "SQbf16", "PQ16np", "PQ16x4fs", "PQ8x6np", "IVF64_HNSW16,SQ8", "IDMap2,SQ8", "RaBitQ4",
           "PCA24,HNSW8,SQ8,RFlat", "RaBitQfs,Refine(SQ4)", "OPQ8_32,IVF32,PQ8x4fs",
           "HNSW16_SQ8", "L2norm,Flat", "IVF32,RaBitQfs4"]  # fmt: skip


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(50, DIM))[rng.integers(0, 50, ROWS)] + rng.normal(size=(ROWS, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def written(factory: str, vectors: np.ndarray, folder: Path) -> int:
    """Bytes of an index on disk, its training cut short: codes take the same room whatever they are."""
    if factory == "exact":
        index: ExactIndex | FaissIndex = ExactIndex(DIM)
    else:
        index = FaissIndex(factory, DIM)
        # Lists of about the same length take about the same room; other training is cut short.
        index.train(
            vectors[: max(5000 if "IVF512" in factory and "OPQ" not in factory else 1100, index.least_training)]
        )
    index.add(np.arange(len(vectors)), vectors)
    index.save(folder)
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.name)
def test_size_of_every_recipe(recipe: object, vectors: np.ndarray, tmp_path: Path) -> None:
    factory = recipe.resolve(rows=ROWS, dim=DIM)  # type: ignore[attr-defined]
    # A graph's links take the same room for each vector; fewer are linked in less time.
    some = vectors[: 4000 if "HNSW" in factory else ROWS]
    assert size_of(factory, DIM).size(len(some)) == pytest.approx(written(factory, some, tmp_path), rel=0.06)


@pytest.mark.parametrize("factory", STRINGS)
def test_size_of_factory_strings(factory: str, vectors: np.ndarray, tmp_path: Path) -> None:
    some = vectors[:3000]
    assert size_of(factory, DIM).size(len(some)) == pytest.approx(written(factory, some, tmp_path), rel=0.04)


def test_what_is_searched_and_what_may_stay_on_disk() -> None:
    layout = size_of("IVF100,PQ32x4fs,Refine(SQfp16)", DIM)
    assert layout.refined(1000) == 1000 * 2 * DIM
    # 16 bytes of codes and 8 of id for each, half a block of codes for each list, centroids and codebooks.
    assert layout.searched(1000) == 1000 * 24 + 100 * 16 * 16 + 100 * (4 * DIM + 8) + 4 * DIM * 16
    assert layout.size(1000) == layout.searched(1000) + layout.refined(1000) + 8000
    assert layout.centroids == 100


@pytest.mark.parametrize(
    ("factory", "part"),
    [("NSG32", "NSG32"), ("IVF10,LSQ4x4", "LSQ4x4"), ("", "''"), ("Flat,Flat", "'Flat'"), ("IVF8,PQ4+8", "PQ4[+]8"),
     ("SQ8,Refine(Magic)", "Magic"), ("HNSW32_Magic", "Magic"), ("SQ8,PCA10", "PCA10")],
)  # fmt: skip
def test_what_is_not_known_is_named(factory: str, part: str) -> None:
    with pytest.raises(RecipeError, match=part) as caught:
        size_of(factory, DIM)
    assert "known are exact, PCA" in str(caught.value)


def test_a_string_without_codes_is_refused() -> None:
    with pytest.raises(RecipeError, match="does not say what is kept of a vector"):
        size_of("IVF10", DIM)
