"""Searches with probabilities: what is filled in, what is left out, what is said, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.calibration.mapping import Calibration
from mmalign.collection.collection import Collection
from mmalign.encoders.base import KnownWords
from mmalign.errors import CalibrationError, InputError, QueryError
from mmalign.search.query import Query
from tests.tools.color_encoder import COLORS, ColorEncoder, paint

FITTED = Calibration(
    encoder="color@1",
    fingerprint=ColorEncoder.fingerprint,
    score_weight=4.0,
    margin_weight=6.0,
    size_weight=-0.4,
    bias=-8.0,
    smallest=5,
    largest=20,
)


class Calibrated(ColorEncoder):
    calibration: Calibration | None = FITTED


@pytest.fixture
def photos(tmp_path: Path) -> Collection:
    for i, color in enumerate(COLORS):
        paint(tmp_path / "photos" / f"{color}.png", color, detail=i)
    made = Collection.create(tmp_path / "photos.mm", encoder=Calibrated())
    made.add(tmp_path / "photos", progress=False)
    made.update([hit.id for hit in made.search("red", k=4)], {"few": True})
    return made


def expected(collection: Collection, query: str, *, pictures: int, where: str | None = None) -> list[float]:
    """The formula, on the scores of all hits."""
    hits = collection.search(query, k=99, where=where)
    assert len(hits) == pictures
    scores = [hit.score for hit in hits]
    leads = [scores[0] - scores[1], *(score - scores[0] for score in scores[1:])]
    odds = [
        np.exp(4 * score + 6 * lead - 0.4 * np.log(max(pictures, 5)) - 8)
        for score, lead in zip(scores, leads, strict=True)
    ]
    return [float(one / (1 + one)) for one in odds]


@pytest.mark.parametrize("recipe", [None, "flat", "Flat"])
def test_hits_have_the_probabilities_of_the_formula(photos: Collection, recipe: str | None) -> None:
    if recipe == "Flat":
        pytest.importorskip("faiss")
    if recipe is not None:
        photos.build_index(recipe, progress=False)
    whole = expected(photos, "blue", pictures=9)
    for k in (1, 2, 9, 50):
        found = photos.search("blue", k=k)
        assert [hit.probability for hit in found] == pytest.approx(whole[:k], rel=1e-4)
        assert found.to_dict()["hits"][0]["probability"] == found[0].probability
    # A filter leaves fewer pictures: 4, which count as 5.
    few = photos.search("blue", k=1, where="few = true")
    assert few[0].probability == pytest.approx(expected(photos, "blue", pictures=4, where="few = true")[0], rel=1e-4)
    assert photos.search("blue", k=0, min_probability=0.5).hits == ()


def test_unlikely_hits_are_left_out(photos: Collection) -> None:
    every = photos.search("green", k=9)
    chances = [hit.probability for hit in every]
    between = (chances[0] + chances[1]) / 2
    found = photos.search("green", k=9, min_probability=between)
    assert found.hits == every.hits[:1]
    assert found.notes == ()
    assert photos.search("green", k=9, min_probability=0).hits == every.hits
    assert photos.search("green", k=9, min_probability=chances[0]).hits == every.hits[:1]
    assert photos.search("green", k=9, min_probability=np.float32(between)).hits == every.hits[:1]


def test_an_empty_result_says_so(photos: Collection) -> None:
    best = photos.search("green", k=1)[0].probability
    found = photos.search("green", min_probability=0.99)
    assert found.hits == ()
    assert found.notes == (f"the best hit has probability {best:.2g}, below min_probability 0.99",)
    # Nothing passed the filter: no hit was refused.
    assert photos.search("green", where="width > 9999", min_probability=0.99).notes == ()
    several = photos.search(["green", "red", "green red"], min_probability=best * 0.999)
    assert [len(one) for one in several] == [1, 1, 0]
    assert [bool(one.notes) for one in several] == [False, False, True]


@pytest.mark.parametrize("wrong", [-0.01, 1.01, float("nan"), float("inf"), "0.5", True, [0.5]])
def test_what_is_no_probability_is_refused(photos: Collection, wrong: Any) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        photos.search("red", min_probability=wrong)


def test_other_queries_have_no_probability(photos: Collection, tmp_path: Path) -> None:
    others = [tmp_path / "photos" / "red.png", "red + blue", 2 * Query("red") - Query("blue"), np.ones(photos.dim)]
    for query in others:
        assert [hit.probability for hit in photos.search(query, k=2)] == [None, None]
        with pytest.raises(QueryError, match="words alone"):
            photos.search(query, min_probability=0.5)
    with pytest.raises(QueryError, match=r"words alone, got 'red \+ blue'"):
        photos.search(["red", "red + blue"], min_probability=0.5)
    mixed = photos.search(["red", others[0]], k=1)
    assert mixed[0][0].probability is not None
    assert mixed[1][0].probability is None
    # A weight and quotes leave one text.
    assert photos.search('2:"red"', k=1)[0].probability == mixed[0][0].probability


def test_an_encoder_without_a_calibration(photos: Collection) -> None:
    plain = Collection.open(photos.path, encoder=ColorEncoder())
    found = plain.search("red", k=2)
    assert [hit.probability for hit in found] == [None, None]
    assert found.notes == ()
    with pytest.raises(CalibrationError, match="mmalign eval calibration"):
        plain.search("red", min_probability=0.5)


def test_a_calibration_of_another_encoder_is_refused(photos: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Calibrated, "calibration", replace(FITTED, fingerprint="0" * 64))
    found = photos.search("red", k=1)
    assert found[0].probability is None
    assert found.notes[0].startswith("no probabilities: the calibration was fitted for color@1")
    with pytest.raises(CalibrationError, match="fitted for"):
        photos.search("red", min_probability=0.5)


def test_a_collection_s_own_calibration_comes_first(photos: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    before = photos.search("red", k=1)[0].probability
    path = photos.path / "calibration.json"
    replace(FITTED, bias=-5.0).write(path)
    sure = photos.search("red", k=1)[0].probability
    assert sure / (1 - sure) == pytest.approx(before / (1 - before) * np.exp(3), rel=1e-3)
    plain = Collection.open(photos.path, encoder=ColorEncoder())
    assert plain.search("red", k=1, min_probability=0.0)[0].probability == sure
    # One of another encoder, left over from before the pictures were encoded anew, gives way to the encoder's.
    replace(FITTED, bias=-5.0, fingerprint="0" * 64).write(path)
    assert photos.search("red", k=1)[0].probability == before
    with pytest.raises(CalibrationError, match="fitted for"):
        plain.search("red", min_probability=0.0)
    path.write_text("{")
    assert photos.search("red", k=1)[0].probability == before
    with pytest.raises(CalibrationError, match="no calibration"):
        plain.search("red", min_probability=0.0)


def test_far_beyond_the_measured_sizes_a_note_says_so(photos: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Calibrated, "calibration", replace(FITTED, smallest=1, largest=1))
    assert photos.search("red").notes == ()
    photos.add_embeddings(["x", "y"], np.eye(2, photos.dim))
    assert "11 searched" in photos.search("red").notes[0]
    assert json.dumps(photos.search("red").to_dict())


def test_copies_of_a_picture_do_not_make_it_unlikely(photos: Collection, tmp_path: Path) -> None:
    before = photos.search("red", k=1)[0].probability
    copy = tmp_path / "more" / "red again.png"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "photos" / "red.png").read_bytes())
    photos.add(copy.parent, progress=False)
    [folded] = photos.search("red", k=1)
    assert folded.copies == (str(copy),)
    assert folded.probability == before
    first, second = photos.search("red", k=2, copies=True)
    assert first.score == pytest.approx(second.score, abs=1e-6)
    # One picture more in the collection, and no rival more.
    odds = before / (1 - before) * np.exp(-0.4 * np.log(10 / 9))
    assert [first.probability, second.probability] == pytest.approx([odds / (1 + odds)] * 2, rel=1e-4)


class Knowing(Calibrated):
    """Knows the words for colours."""

    def knows(self, text: str) -> KnownWords:
        unknown = tuple(word for word in text.split() if word not in COLORS)
        return KnownWords(len(text.split()), unknown, nothing=len(unknown) == len(text.split()))


def test_words_that_nobody_knows_have_no_probability(photos: Collection) -> None:
    knowing = Collection.open(photos.path, encoder=Knowing())
    plain = photos.search("blue", k=3)
    for query in ("zwrx", "\U0001f984", "zwrx qqq"):
        found = knowing.search(query, k=3)
        assert [hit.probability for hit in found] == [None] * 3
        assert any("knows no word" in note for note in found.notes)
        # Asked for the likely ones, there are none, for the one reason that there is.
        likely = knowing.search(query, k=3, min_probability=0.0)
        assert likely.hits == ()
        assert [note for note in likely.notes if "probability" in note] == []
        assert any("knows no word" in note for note in likely.notes)
    assert [hit.probability for hit in knowing.search("blue", k=3)] == [hit.probability for hit in plain]
    # In a batch each goes by its own words; what is half known has a probability, and a note.
    known, unknown, half = knowing.search(["blue", "zwrx", "zwrx blue"], k=3)
    assert known.hits == plain.hits
    assert {hit.probability for hit in unknown} == {None}
    assert all(hit.probability is not None for hit in half)
    assert "does not know 'zwrx'" in half.notes[0]
    assert photos.search("zwrx", k=1)[0].probability is not None, "an encoder that cannot tell"
