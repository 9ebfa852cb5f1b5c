"""Only joint matching is right: drawn scenes with things that look alike."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from mmalign.alignment.ablation import ablate_region, paint_over
from mmalign.errors import InputError
from mmalign.matching.build import Matching, build_problem
from mmalign.matching.solvers import solve
from mmalign.parsing.phrases import parse_sentence
from mmalign.types import Box
from tests.alignment.scenes import (
    BACKGROUND,
    COLOURS,
    SIZE,
    Scene,
    measure_scenes,
    region_features,
    scene_similarity,
    scenes,
)


def test_the_pixels_show_what_was_drawn() -> None:
    for scene in scenes(10, seed=0):
        similarity = scene_similarity(scene, scene.picture, noise=0.0, seed=0)
        for row, true in zip(similarity, scene.truth, strict=True):
            alike = np.flatnonzero(row > 0.95)
            assert true in alike
            assert len(alike) in (2, 3), "each look is there twice or three times"


def test_graph_is_right_where_one_by_one_is_not() -> None:
    shares = measure_scenes(200, seed=1, noise=0.1)
    print({solver: round(share, 1) for solver, share in shares.items()})
    assert shares["argmax"] <= 60
    assert shares["hungarian"] <= 60
    assert shares["graph"] >= 95


def test_a_sentence_without_relations_leaves_graph_no_better() -> None:
    hits = dict.fromkeys(("argmax", "graph"), 0)
    total = 0
    for index, scene in enumerate(scenes(40, seed=2)):
        similarity = scene_similarity(scene, scene.picture, noise=0.1, seed=index)
        problem = build_problem(similarity, scene.phrases, (), scene.boxes, matching=Matching(temperature=0.1))
        total += len(scene.phrases)
        for solver in hits:
            found = solve(problem, solver=solver).assignment
            hits[solver] += sum(taken == (true,) for taken, true in zip(found, scene.truth, strict=True))
    assert max(hits.values()) / total <= 0.6


def test_a_sentence_is_read_and_matched_as_a_person_would() -> None:
    """Two red circles and two blue squares: only together do the two relations say which is which."""
    drawn = {
        "ellipse": [("red", (20, 150)), ("red", (180, 20))],
        "rectangle": [("blue", (100, 150)), ("blue", (20, 20))],
    }
    picture = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
    pen, boxes = ImageDraw.Draw(picture), []
    for shape, things in drawn.items():
        for colour, (x, y) in things:
            getattr(pen, shape)([x, y, x + 39, y + 39], fill=COLOURS[colour])
            boxes.append(Box(x, y, 40, 40))
    pen.polygon([(180, 219), (219, 219), (199.5, 180)], fill=COLOURS["green"])
    boxes.append(Box(180, 180, 40, 40))
    said = parse_sentence(
        "the red circle left of the blue square, and the red circle above the green triangle", parser="rules"
    )
    scene = Scene(picture, said.sentence, said.phrases, said.relations, tuple(boxes), (0, 2, 1, 4))
    similarity = scene_similarity(scene, picture, noise=0.0, seed=0)
    problem = build_problem(similarity, said.phrases, said.relations, boxes, matching=Matching(temperature=0.1))
    assert solve(problem).assignment == ((0,), (2,), (1,), (4,))
    assert solve(problem, solver="argmax").assignment != ((0,), (2,), (1,), (4,))


def similarity_of_picture(scene: Scene, phrase: int, pixels: np.ndarray) -> float:
    """Of a phrase to a whole picture: its best cosine to any cell of a grid, by the pixels."""
    picture = Image.fromarray(pixels)
    cells = tuple(Box(80 * x, 80 * y, 80, 80) for x, y in itertools.product(range(3), range(3)))
    # Colours alone: the share that a thing fills of a cell is not that of its own box.
    features = region_features(picture, cells)[:, :4]
    colour = scene.phrases[phrase].text.split()[1]
    return float(features[:, ["red", "green", "blue", "yellow"].index(colour)].sum())


def test_the_cited_region_matters_more_than_another() -> None:
    rng = np.random.default_rng(3)
    faithful = total = 0
    for index, scene in enumerate(scenes(25, seed=4)):
        pixels = np.asarray(scene.picture)
        similarity = scene_similarity(scene, scene.picture, noise=0.1, seed=index)
        problem = build_problem(
            similarity, scene.phrases, scene.relations, scene.boxes, matching=Matching(temperature=0.1)
        )
        for phrase, taken in enumerate(solve(problem).assignment):
            for region in taken:
                removal = ablate_region(
                    pixels,
                    scene.boxes[region],
                    lambda painted, scene=scene, phrase=phrase: similarity_of_picture(scene, phrase, painted),
                    rng=rng,
                    draws=3,
                )
                total += 1
                faithful += removal.faithful
    print(f"faithful: {faithful} of {total}")
    assert faithful / total >= 0.9


def test_painting_over() -> None:
    picture = np.full((20, 30, 3), 200, np.uint8)
    picture[5:10, 5:10] = 0
    painted = paint_over(picture, Box(4, 4, 8, 8))
    assert (painted == 200).all()
    assert (picture[5:10, 5:10] == 0).all(), "the picture itself stays"
    assert (paint_over(picture, Box(-5, -5, 100, 100))[0, 0] == 200).all()


def test_removal_of_what_is_not_there() -> None:
    picture = np.zeros((10, 10, 3), np.uint8)
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="draws"):
        ablate_region(picture, Box(0, 0, 5, 5), lambda _: 0.0, rng=rng, draws=0)
    with pytest.raises(InputError, match="outside the picture"):
        ablate_region(picture, Box(20, 0, 5, 5), lambda _: 0.0, rng=rng)
    # A measure that looks at nothing is not faithful.
    assert not ablate_region(picture, Box(0, 0, 5, 5), lambda _: 1.0, rng=rng).faithful
