"""`min_recall` from the command line down to the index."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from mmalign.cli import app
from mmalign.collection.collection import Collection
from mmalign.errors import InputError
from mmalign.index.lifecycle import versions as publish
from mmalign.index.lifecycle.build import build_index
from mmalign.index.lifecycle.versions import IndexManifest
from mmalign.index.recall.recall_curves import RecallCurve, RecallProfile
from mmalign.utils.similarity import Float32Array

ROWS, DIM = 400, 12


def vectors(rows: int, seed: int) -> Float32Array:
    found = np.random.default_rng(seed).normal(size=(rows, DIM))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """A collection whose index of codes promises 0.9 to pictures, and 0.7 to words."""
    made = Collection.create(tmp_path / "some.mm", encoder=None, dim=DIM)
    made.add_embeddings([f"v{i}" for i in range(ROWS)], vectors(ROWS, 1), metadata={"n": list(range(ROWS))})
    store = made.snapshot()
    index, _ = build_index("IVF4,SQ8", store.iter_embeddings, rows=ROWS, dim=DIM)
    curves = tuple(
        RecallCurve(kind, 1.0, k, (1, 2, 4), tuple(lower), tuple(lower), 240)
        for kind, lower in (("image", (0.5, 0.8, 0.95)), ("text", (0.4, 0.6, 0.75)))
        for k in (10, 100)
    )
    profile = RecallProfile(0.95, curves, min_recall=0.6).to_dict()
    manifest = IndexManifest("IVF4,SQ8", index.factory, DIM, ROWS, store.version, contract=profile)
    publish.publish(made.path / "index", index, manifest)
    return made


def test_the_least_effort_that_keeps_the_promise(collection: Collection) -> None:
    query = vectors(1, 2)[0]
    truth = np.argsort(-(vectors(ROWS, 1) @ query))[:10]
    # A vector may be anything, so the kind that needs more decides; a fifth of the allowed misses is kept in reserve.
    for least, effort in ((None, 4), (0.5, 2), (0.25, 1), (0.68, 4), (0.7, None), (1, None)):
        result = collection.search(query, min_recall=least)
        assert (result.effort, result.exact) == (effort, effort is None), least
        assert len(result) == 10
        assert result.to_dict()["effort"] == effort
        if result.exact:
            assert [hit.id for hit in result] == [f"v{i}" for i in truth]
            assert any("promises no recall@10" in note for note in result.notes)
        else:
            assert result.notes == ()


def test_a_small_filter_is_exact_without_a_remark(collection: Collection) -> None:
    result = collection.search(vectors(1, 2)[0], where="n < 40", min_recall=0.9)
    assert result.exact
    assert result.effort is None
    assert result.notes == ()


def test_an_index_of_an_earlier_version_promises_nothing(collection: Collection) -> None:
    folder = publish.current(collection.path / "index")
    assert folder is not None
    loaded = publish.load_current(collection.path / "index")
    assert loaded is not None
    publish.publish(collection.path / "index", loaded[0], replace(loaded[1], contract={}))
    query = vectors(1, 2)[0]
    assert not collection.search(query).exact
    result = collection.search(query, min_recall=0.1)
    assert result.exact
    assert any("no recall was measured" in note for note in result.notes)


@pytest.mark.parametrize("bad", [-0.01, 1.5, float("nan")])
def test_what_is_no_recall_is_refused(collection: Collection, bad: float) -> None:
    with pytest.raises(InputError, match="min_recall is a number from 0 to 1"):
        collection.search(vectors(1, 2)[0], min_recall=bad)


def test_command_line(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Collection.search

    def by_vector(self: Collection, query: str, **options: Any) -> Any:
        # Words would need an encoder.
        assert query == "dogs"
        return plain(self, vectors(1, 2)[0], **options)

    monkeypatch.setattr(Collection, "search", by_vector)
    words = ["search", "dogs", "-c", str(collection.path)]
    for least, effort in (("0.5", 2), ("0.98", None)):
        done = CliRunner().invoke(app, [*words, "--min-recall", least, "--json"])
        told = json.loads(done.stdout)
        assert (told["effort"], told["exact"]) == (effort, effort is None)
    assert isinstance(CliRunner().invoke(app, [*words, "--min-recall", "2"]).exception, InputError)
