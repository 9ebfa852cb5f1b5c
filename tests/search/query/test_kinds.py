"""Which kind of query a query is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmalign.search.query import Query


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("a dog runs through the deep snow", ("sentence",)),
        ("a dog runs through the snow", ("short",)),
        ("dog in the snow", ("short",)),
        ("two people walking along a beach at sunset", ("sentence",)),
        ("vintage car garage rust", ("keywords", "foreign")),
        ("ein Hund läuft durch Schnee", ("keywords", "foreign")),
        ("red car", ("phrase", "foreign")),
        ("dog in snow", ("phrase", "foreign")),
        ("dog", ("word", "rare", "foreign")),
        ("Regenschirm!", ("word", "rare", "foreign")),
        ("IMG_2034", ("phrase", "foreign")),
        ("...", ("word", "rare", "foreign")),
        ("собака", ("foreign",)),
        ("夜の誰もいない通り", ("foreign",)),
        ("a photo of a 猫 on the roof", ("foreign",)),
        ("dog + snow", ("sum",)),
        ("dog - snow", ("difference",)),
        ("dog + snow - leash", ("difference",)),
    ],
)
def test_texts(text: str, kinds: tuple[str, ...]) -> None:
    assert Query(text).kinds == kinds


def test_pictures_and_vectors() -> None:
    picture = Query(Image.new("RGB", (8, 8)))
    assert picture.kinds == ("image", "crop")
    assert (picture + Query("snow")).kinds == ("sum",)
    assert (picture - Query("snow")).kinds == ("difference",)
    assert Query(np.ones(4, np.float32)).kinds == ("given",)
    assert (Query(np.ones(4, np.float32)) + Query("snow")).kinds == ("given",)
