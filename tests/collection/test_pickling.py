"""A collection pickles as its path, and copies share nothing that one of them could break for the other."""

from __future__ import annotations

import copy
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from mmalign import Collection, Query
from tests.tools.color_encoder import ColorEncoder, paint

VECTORS = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


def nearest(collection: Collection, vector: np.ndarray) -> list[str]:
    return [hit.id for hit in collection.search(vector, k=2)]


def test_a_collection_pickles_as_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Collection.create("v.mm", encoder=None, dim=8)
    made.add_embeddings(list("abcde"), VECTORS)
    made.search(VECTORS[0])
    text = pickle.dumps(made)
    assert len(text) < 500
    expected = nearest(made, VECTORS[3])
    # Another working folder, as a worker may have, and items that came later.
    monkeypatch.chdir(os.sep)
    made_again = pickle.loads(text)
    assert made_again.path == tmp_path / "v.mm"
    assert nearest(made_again, VECTORS[3]) == expected
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(nearest, made_again, VECTORS[3]).result() == expected


def test_copies_keep_the_encoder_that_was_handed_in(tmp_path: Path) -> None:
    paint(tmp_path / "red.png", "red")
    made = Collection.create(tmp_path / "c.mm", encoder=ColorEncoder())
    made.add(tmp_path, progress=False)
    for copied in (copy.copy(made), copy.deepcopy(made), copy.deepcopy([made])[0]):
        assert copied is not made
        assert copied.search("red", k=1)[0].score == pytest.approx(made.search("red", k=1)[0].score)
    result = pickle.loads(pickle.dumps(made.search("red")))
    assert result.hits == made.search("red").hits
    assert str(pickle.loads(pickle.dumps(Query("2:red - blue")))) == "2:red - blue"
