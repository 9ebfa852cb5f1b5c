"""Another engine than the two that come with mmalign: registered, named by a recipe, built, saved and loaded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mmalign import Collection
from mmalign.errors import IndexFileError, InputError, RecipeError
from mmalign.index import backends, load_index, register_backend
from mmalign.index.backends import BuildRequest
from mmalign.index.exact import ExactIndex

RECIPE = """
name = "reversed"
summary = "An engine of one's own"
backend = "reversed"
factory = "Whatever16"
"""


class ReversedBackend:
    """Keeps the vectors in reverse order, so that it can be told from the others by what lies on disk."""

    built = 0

    def build(self, request: BuildRequest) -> ExactIndex:
        type(self).built += 1
        assert request.recipe.factory == "Whatever16"
        index = ExactIndex(request.dim)
        parts = list(request.chunks())
        ids, vectors = np.concatenate([one for one, _ in parts]), np.concatenate([one for _, one in parts])
        index.add(ids[::-1], vectors[::-1])
        return index

    def load(self, folder: Path, *, mmap: bool = True) -> ExactIndex:
        return ExactIndex.load(folder, mmap=mmap)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_BACKENDS", dict(backends._BACKENDS))
    register_backend("reversed", f"{__name__}:{ReversedBackend.__name__}")


def test_a_collection_is_searched_with_it(tmp_path: Path) -> None:
    local = np.random.default_rng(1)
    vectors = local.normal(size=(300, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    collection = Collection.create(tmp_path / "a.mm", encoder=None, dim=16)
    collection.add_embeddings([f"v{row}" for row in range(300)], vectors)
    recipe = tmp_path / "reversed.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    before = ReversedBackend.built
    manifest = collection.build_index(str(recipe), progress=False)
    assert ReversedBackend.built == before + 1
    assert manifest is not None
    assert (manifest.recipe, manifest.rows) == ("reversed", 300)
    kept = next(path for path in (tmp_path / "a.mm" / "index").rglob("vectors.npy"))
    np.testing.assert_allclose(np.load(kept), vectors[::-1], atol=1e-3)
    queries = local.normal(size=(5, 16)).astype(np.float32)
    found = [[hit.id for hit in result] for result in Collection.open(tmp_path / "a.mm").search(queries, k=4)]
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :4]
    assert found == [[f"v{row}" for row in rows] for rows in best]


def test_an_index_of_an_unknown_kind_says_so(tmp_path: Path) -> None:
    index = ExactIndex(4)
    index.add([1], np.ones((1, 4)) / 2)
    index.save(tmp_path / "index")
    header = tmp_path / "index" / "index.json"
    values = json.loads(header.read_text(encoding="utf-8"))
    header.write_text(json.dumps(values | {"kind": "nobody's"}), encoding="utf-8")
    with pytest.raises(IndexFileError, match="nobody's"):
        load_index(tmp_path / "index")

    class OtherBackend(ReversedBackend):
        def load(self, folder: Path, *, mmap: bool = True) -> ExactIndex:
            index = ExactIndex(4)
            index.add([7], np.load(folder / "vectors.npy"))
            return index

    register_backend("nobody's", OtherBackend())
    assert load_index(tmp_path / "index").ids.tolist() == [7]


def test_a_recipe_for_an_unknown_backend_says_so(tmp_path: Path) -> None:
    collection = Collection.create(tmp_path / "a.mm", encoder=None, dim=4)
    collection.add_embeddings(["a", "b"], np.eye(4)[:2])
    recipe = tmp_path / "other.toml"
    recipe.write_text(RECIPE.replace('backend = "reversed"', 'backend = "milvus9"'), encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"(?s)no index backend is called 'milvus9'; known are .*exact, faiss, .*reversed"
    ):
        collection.build_index(str(recipe), progress=False)


@pytest.mark.parametrize(
    ("name", "backend"), [("", "a:b"), (3, "a:b"), ("x", "no colon"), ("x", object()), ("x", None)]
)
def test_what_is_no_backend(name: object, backend: object) -> None:
    with pytest.raises(InputError, match="index backend"):
        register_backend(name, backend)  # type: ignore[arg-type]
