"""What stands for the queries that people will ask."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmalign.collection.collection import Collection
from mmalign.collection.eval_queries import sample_eval_queries
from mmalign.search.query import Query
from tests.collection.test_recall import WordEncoder, fill, pictures


def test_every_kind_is_asked_by_texts_that_would_be_taken_for_it(tmp_path: Path) -> None:
    encoder = WordEncoder()
    collection = Collection.create(tmp_path / "a.mm", encoder=encoder)
    fill(collection, pictures(400, 0))
    collection.update([f"v{i}" for i in range(300)], {"captions": ["a dog runs through the wet grass"]})
    asked = sample_eval_queries(collection.snapshot(), lambda: encoder, progress=False).asked
    assert {"sentence", "keywords", "phrase", "word", "rare", "foreign", "sum", "difference", "image"} == set(asked)
    by_vector = {
        vector.tobytes(): text
        for text, vector in zip(encoder.texts, WordEncoder().encode_text(encoder.texts), strict=True)
    }
    for kind in ("keywords", "phrase", "word", "rare", "foreign"):
        texts = [by_vector[vector.tobytes()] for vector in asked[kind].vectors]
        assert len(set(texts)) > 250, kind
        taken = [kind in Query(text, allow_media=False).kinds for text in texts]
        assert np.mean(taken) > 0.97, kind


def test_sums_and_differences_are_those_of_queries(tmp_path: Path) -> None:
    encoder = WordEncoder()
    collection = Collection.create(tmp_path / "a.mm", encoder=encoder)
    fill(collection, pictures(400, 0))
    asked = sample_eval_queries(collection.snapshot(), lambda: encoder, progress=False).asked
    for kind, sign in (("sum", 1.0), ("difference", -1.0)):
        composed = asked[kind]
        assert composed.own is not None
        np.testing.assert_allclose(np.linalg.norm(composed.vectors, axis=1), 1, atol=1e-5)
        texts = composed.vectors[composed.own < 0]
        assert len(texts) > 200
        assert (composed.own >= 0).sum() > 50
        pool = np.concatenate([asked[one].vectors for one in ("sentence", "phrase", "word", "rare")])
        scores = texts @ pool.T
        # A sum is nearer to its two texts than any one is to another; a difference is away from the second.
        if sign > 0:
            assert (np.sort(scores, axis=1)[:, -2] > 0.7).all()
        else:
            assert (scores.max(axis=1) > 0).all()
            assert (scores.min(axis=1) < 0).all()
