"""Galleries, concepts and the no-answer test, against loops over everything."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmalign.errors import InputError
from mmalign.evaluation.galleries import FEWEST, CaptionedGallery, Trials, run_trials, search_trials
from mmalign.evaluation.held_out_concepts import choose_concepts, content_words
from mmalign.evaluation.open_set import ask_broadly, ask_without
from mmalign.utils.similarity import l2_normalize

THINGS = ("dog", "cat", "tree", "boat")


def made(pictures: int, *, seed: int = 5, noise: float = 0.7) -> CaptionedGallery:
    """Pictures of one thing each, near one another, and two captions that lie near their picture."""
    rng = np.random.default_rng(seed)
    things = [THINGS[i % 4] for i in range(pictures)]
    centres = {thing: rng.normal(size=24) for thing in THINGS}
    images = np.array([0.8 * centres[thing] for thing in things]) + rng.normal(size=(pictures, 24))
    texts = np.repeat(images, 2, axis=0) + noise * rng.normal(size=(2 * pictures, 24)) * 2
    captions = tuple((f"a {thing} on the road", f"number {i}") for i, thing in enumerate(things))
    return CaptionedGallery(captions, l2_normalize(texts), l2_normalize(images))


def naive(data: CaptionedGallery, row: int, gallery: list[int]) -> tuple[list[float], list[bool]]:
    """The five best pictures of a gallery for a caption."""
    scored = sorted(((float(data.texts[row] @ data.images[i]), i) for i in gallery), reverse=True)[:5]
    return [score for score, _ in scored], [i == data.owner[row] for _, i in scored]


def test_trials_are_those_of_a_loop() -> None:
    data = made(FEWEST)
    answerable, unanswerable = run_trials(data, seed=3)
    order = np.random.default_rng(3).permutation(FEWEST)
    place = 0
    for parts in (1, 3, 9):
        for gallery in np.array_split(order, parts):
            for row in np.flatnonzero(np.isin(data.owner, gallery)):
                scores, right = naive(data, row, gallery.tolist())
                assert answerable.scores[place] == pytest.approx(scores, abs=1e-6)
                assert answerable.right[place].tolist() == right
                others = [i for i in gallery.tolist() if i != data.owner[row]]
                assert unanswerable.scores[place] == pytest.approx(naive(data, row, others)[0], abs=1e-6)
                assert (answerable.pictures[place], unanswerable.pictures[place]) == (len(gallery), len(gallery) - 1)
                assert (answerable.owner[place], answerable.parts[place]) == (data.owner[row], parts)
                place += 1
    assert place == len(answerable) == len(unanswerable) == 3 * len(data.texts)
    assert not unanswerable.right.any()
    assert answerable.right.any()


def test_few_pictures() -> None:
    with pytest.raises(InputError, match="at least 90 captioned pictures, got 89"):
        run_trials(made(89))
    data = made(8)
    few = search_trials(data.texts, data.images, data.owner, np.arange(3))
    assert few.scores.shape == few.right.shape == (16, 5)
    assert np.isneginf(few.scores[:, 3:]).all()
    assert not few.right[:, 3:].any()


def test_words_and_concepts() -> None:
    assert content_words("Buses, dresses & foxes: it's the grass. Children's men") == [
        *["buse", "dress", "fox", "it", "s", "the", "grass", "child", "s", "man"]
    ]
    captions = [
        ["A dog runs in the snow.", "the dogs in the snow"],
        ["The dog is on a sofa", "a brown dog"],
        ["A black cat in the side of a house."],
        ["The black and white thing", "a man with the dog"],
        ["Two men by the house"],
    ]
    # `runs` follows dog, `black` stands before another noun, one picture alone names the cat, a side is no thing.
    assert choose_concepts(captions) == ["dog", "house", "man"]
    assert choose_concepts(captions, most=1) == ["dog"]
    # What every picture shows cannot be taken out.
    assert choose_concepts([["a dog on a sofa"], ["a dog in a car"]]) == []


def test_without_the_concept(rng: np.random.Generator) -> None:
    data = made(40)
    answerable = search_trials(data.texts, data.images, data.owner, np.arange(40))
    seen: list[Trials] = []

    def judge(trials: Trials) -> np.ndarray:
        seen.append(trials)
        return np.clip(trials.scores, 0, 1)

    bounds = (0.0, 0.55, 0.7, 1.0)
    overall, tests = ask_without(data, ["dog", "boat"], answerable, judge, bounds=bounds)
    best = []
    for test, first, trials in zip(tests, (0, 3), seen, strict=False):
        left = [i for i in range(40) if i % 4 != first]
        rows = [2 * i for i in range(40) if i % 4 == first]
        expected = [naive(data, row, left)[0][0] for row in rows]
        assert trials.scores[:, 0] == pytest.approx(expected, abs=1e-6)
        assert not trials.right.any()
        assert (trials.pictures == 30).all()
        assert (test.removed, test.queries) == (10, 10)
        assert test.false_accept == tuple(np.mean([score >= bound for score in expected]) for bound in bounds)
        best += expected
    assert [test.concept for test in tests] == ["dog", "boat"]
    tops = [naive(data, row, list(range(40))) for row in range(80)]
    for one, bound in zip(overall, bounds, strict=True):
        answered = [scores[0] >= bound for scores, _ in tops]
        good = [yes and right[0] for yes, (_, right) in zip(answered, tops, strict=True)]
        assert one.false_accept == pytest.approx(np.mean([score >= bound for score in best]))
        assert one.answered == pytest.approx(np.mean(answered))
        assert one.true_accept == pytest.approx(np.mean(good))
        assert one.precision == (pytest.approx(sum(good) / sum(answered)) if any(answered) else None)
    assert overall[0].answered == 1
    assert overall[-1].precision is None


def test_impossible_concepts_are_refused() -> None:
    data = made(8)
    answerable = search_trials(data.texts, data.images, data.owner, np.arange(8))
    with pytest.raises(InputError, match="no concept"):
        ask_without(data, [], answerable, lambda trials: trials.scores, bounds=(0.5,))
    with pytest.raises(InputError, match="0 of 8 pictures name 'unicorn'"):
        ask_without(data, ["unicorn"], answerable, lambda trials: trials.scores, bounds=(0.5,))
    with pytest.raises(InputError, match="8 of 8 pictures name 'a'"):
        ask_without(data, ["a"], answerable, lambda trials: trials.scores, bounds=(0.5,))


def test_one_word_is_right_where_a_caption_names_it() -> None:
    data = made(40)
    # The words lie exactly at pictures 0, 1 and 2: a dog, a cat and a tree; the last asks for a boat.
    words = data.images[[0, 1, 2]]
    found = ask_broadly(data, ["dog", "cat", "boat"], words, lambda trials: np.full(trials.scores.shape, 0.25))
    assert (found.queries, found.mean_probability) == (3, 0.25)
    assert found.right == pytest.approx(2 / 3)
    assert replace(found, right=0).queries == 3
