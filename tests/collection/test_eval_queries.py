"""What stands for the queries that people will ask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.collection.collection import Collection
from mmalign.collection.eval_queries import sample_eval_queries
from mmalign.search.query import Query
from tests.collection.test_recall import WordEncoder, fill, pictures
from tests.tools.color_encoder import COLORS, ColorEncoder, paint


def test_every_kind_is_asked_by_texts_that_would_be_taken_for_it(tmp_path: Path) -> None:
    encoder = WordEncoder()
    collection = Collection.create(tmp_path / "a.mm", encoder=encoder)
    fill(collection, pictures(400, 0))
    collection.update([f"v{i}" for i in range(300)], {"captions": ["a dog runs through the wet grass"]})
    asked = sample_eval_queries(collection.snapshot(), lambda: encoder, progress=False).asked
    kinds = {"sentence", "short", "keywords", "phrase", "word", "rare", "foreign", "sum", "difference", "image"}
    assert kinds == set(asked)
    by_vector = {
        vector.tobytes(): text
        for text, vector in zip(encoder.texts, WordEncoder().encode_text(encoder.texts), strict=True)
    }
    for kind in ("sentence", "short", "keywords", "phrase", "word", "rare", "foreign"):
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


class CountingSizes(ColorEncoder):
    """Keeps the sizes of the pictures that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, int]] = []

    def encode_image(self, images: Any, *, batch_size: int = 32) -> NDArray[np.float32]:
        images = list(images)
        self.sizes += [image.size for image in images]
        return super().encode_image(images, batch_size=batch_size)


def test_parts_of_the_pictures_that_are_there_are_asked(tmp_path: Path) -> None:
    encoder = CountingSizes()
    colors = list(COLORS)
    for number in range(80):
        paint(tmp_path / "in" / f"{number}.png", colors[number % len(colors)], detail=number)
    collection = Collection.create(tmp_path / "a.mm", encoder=encoder)
    collection.add(str(tmp_path / "in"), progress=False)
    for number in range(10):
        (tmp_path / "in" / f"{number}.png").unlink()
    encoder.sizes.clear()
    asked = sample_eval_queries(collection.snapshot(), lambda: encoder, progress=False).asked
    crops = asked["crop"].vectors
    assert len(crops) == len(encoder.sizes) == 70
    assert all(16 <= width <= 40 and 12 <= height <= 30 for width, height in encoder.sizes)
    assert len(set(encoder.sizes)) > 40
    # A part of a picture of one colour is nearest to pictures of that colour.
    assert set(crops[:, : len(colors)].argmax(axis=1)) == set(range(len(colors)))
    np.testing.assert_allclose(np.linalg.norm(crops, axis=1), 1, atol=1e-5)


def test_few_pictures_that_can_be_read_are_not_taken_for_all(tmp_path: Path) -> None:
    encoder = ColorEncoder()
    for number in range(60):
        paint(tmp_path / "in" / f"{number}.png", "red", detail=number)
    collection = Collection.create(tmp_path / "a.mm", encoder=encoder)
    collection.add(str(tmp_path / "in"), progress=False)
    for number in range(11):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"no picture")
    assert "crop" not in sample_eval_queries(collection.snapshot(), lambda: encoder, progress=False).asked
