"""Drawn pictures in which only the relations of a sentence tell things apart that look alike.

Each picture holds seven things of three looks. A sentence names three or four of them by their looks, and says of
their places just so much that one choice alone fits. Everything that a solver sees is read from the pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmalign.matching.build import Matching, build_problem
from mmalign.matching.solvers import SolverName, solve
from mmalign.types import Box, Phrase, Relation

COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (30, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (235, 200, 40),
}
# Share of its box that a shape fills.
SHAPES: Mapping[str, float] = {"square": 1.0, "circle": np.pi / 4, "triangle": 0.5}
SIZE = 240
BACKGROUND = (245, 245, 245)
SOLVERS: tuple[SolverName, ...] = ("argmax", "hungarian", "graph")


@dataclass(frozen=True)
class Scene:
    """A picture, a sentence, and what belongs to what: `truth[i]` is the region of phrase i."""

    picture: Image.Image
    sentence: str
    phrases: tuple[Phrase, ...]
    relations: tuple[Relation, ...]
    boxes: tuple[Box, ...]
    truth: tuple[int, ...]


def scenes(count: int, *, seed: int) -> Iterator[Scene]:
    """Draw pictures until `count` have a sentence that one choice alone fits."""
    rng = np.random.default_rng(seed)
    while count:
        scene = _draw(rng)
        if scene is not None:
            count -= 1
            yield scene


def region_features(picture: Image.Image, boxes: tuple[Box, ...]) -> NDArray[np.float64]:
    """Colour and shape of each box's content as its pixels show them, shape (r, colours + shapes)."""
    pixels = np.asarray(picture.convert("RGB"), np.float64)
    rows = []
    for box in boxes:
        left, top, right, bottom = (round(edge) for edge in box.corners)
        inside = pixels[top:bottom, left:right].reshape(-1, 3)
        thing = np.abs(inside - BACKGROUND).sum(axis=1) > 60
        if not thing.any():
            rows.append(np.zeros(len(COLOURS) + len(SHAPES)))
            continue
        away = np.linalg.norm(inside[thing].mean(axis=0) - np.array(list(COLOURS.values())), axis=1)
        unlike = np.abs(thing.mean() - np.array(list(SHAPES.values())))
        rows.append(np.concatenate([_peaked(away / 60), _peaked(unlike / 0.08)]))
    return np.array(rows)


def phrase_features(phrases: tuple[Phrase, ...]) -> NDArray[np.float64]:
    """The colour and the shape that each phrase names, shape (p, colours + shapes)."""
    names = (*COLOURS, *SHAPES)
    return np.array([[float(name in phrase.text.split()) for name in names] for phrase in phrases])


def scene_similarity(scene: Scene, picture: Image.Image, *, noise: float, seed: int) -> NDArray[np.float64]:
    """Cosines of phrases and regions; `noise` is the deviation of each feature, the same for one seed."""
    features = region_features(picture, scene.boxes)
    features = features + np.random.default_rng(seed).normal(0, noise, features.shape)
    words = phrase_features(scene.phrases)
    lengths = np.linalg.norm(words, axis=1)[:, None] * np.linalg.norm(features, axis=1)
    return np.asarray(words @ features.T / np.maximum(lengths, 1e-9))


def measure_scenes(count: int, *, seed: int, noise: float) -> dict[str, float]:
    """Share of phrases, in percent, that each solver gives the planted region and no other."""
    right = dict.fromkeys(SOLVERS, 0)
    total = 0
    for index, scene in enumerate(scenes(count, seed=seed)):
        similarity = scene_similarity(scene, scene.picture, noise=noise, seed=index)
        problem = build_problem(
            similarity, scene.phrases, scene.relations, scene.boxes, matching=Matching(temperature=0.1)
        )
        total += len(scene.phrases)
        for solver in SOLVERS:
            found = solve(problem, solver=solver).assignment
            right[solver] += sum(taken == (true,) for taken, true in zip(found, scene.truth, strict=True))
    return {solver: 100 * hits / total for solver, hits in right.items()}


def _peaked(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(-(distances**2))
    return np.asarray(weights / max(weights.sum(), 1e-9))


def _draw(rng: np.random.Generator) -> Scene | None:
    looks = [(str(rng.choice(list(COLOURS))), str(rng.choice(list(SHAPES)))) for _ in range(3)]
    if len(set(looks)) < 3:
        return None
    things = [looks[k] for k in rng.permutation([0, 0, 0, 1, 1, 2, 2])]
    picture = Image.new("RGB", (SIZE, SIZE), BACKGROUND)
    pen = ImageDraw.Draw(picture)
    boxes = []
    for cell, (colour, shape) in zip(rng.permutation(9), things, strict=False):
        side = int(rng.integers(24, 52))
        left, top = (int(80 * place + rng.integers(4, 76 - side)) for place in (cell % 3, cell // 3))
        right, bottom = left + side - 1, top + side - 1
        if shape == "square":
            pen.rectangle([left, top, right, bottom], fill=COLOURS[colour])
        elif shape == "circle":
            pen.ellipse([left, top, right, bottom], fill=COLOURS[colour])
        else:
            pen.polygon([(left, bottom), (right, bottom), ((left + right) / 2, top)], fill=COLOURS[colour])
        boxes.append(Box(left, top, side, side))
    named = tuple(int(thing) for thing in rng.permutation(7)[: int(rng.integers(3, 5))])
    relations = _relations(rng, things, boxes, named)
    if relations is None:
        return None
    phrases = tuple(Phrase(f"the {things[thing][0]} {things[thing][1]}", head=things[thing][1]) for thing in named)
    clauses = [
        f"{phrases[said.subject].text} is {said.text} {' and '.join(phrases[other].text for other in said.objects)}"
        for said in relations
    ]
    return Scene(picture, ", and ".join(clauses), phrases, relations, tuple(boxes), named)


_WORDS = {"left of": "left of", "above": "above", "bigger": "bigger than", "between": "between"}


def _bears_out(kind: str, boxes: list[Box], subject: int, objects: tuple[int, ...], margin: float) -> bool:
    """Whether boxes bear a relation out by a margin in pixels; a negative one asks whether they leave it open."""
    middle = [
        np.array([boxes[k].x + boxes[k].width / 2, boxes[k].y + boxes[k].height / 2]) for k in (subject, *objects)
    ]
    if kind == "bigger":
        return boxes[subject].width - boxes[objects[0]].width > margin / 3
    if kind in {"left of", "above"}:
        axis = int(kind == "above")
        along, across = middle[1][axis] - middle[0][axis], abs(middle[1][1 - axis] - middle[0][1 - axis])
        return bool(along > margin and (margin < 0 or along > across))
    me, one, two = middle
    axes = [
        axis
        for axis in (0, 1)
        if min(one[axis], two[axis]) + margin < me[axis] < max(one[axis], two[axis]) - margin
        and (margin < 0 or max(abs(me - one)[1 - axis], abs(me - two)[1 - axis]) < 50)
    ]
    return bool(axes)


def _relations(
    rng: np.random.Generator, things: list[tuple[str, str]], boxes: list[Box], named: tuple[int, ...]
) -> tuple[Relation, ...] | None:
    """Relations that the things named bear out clearly, and no other choice of things of the same looks at all."""
    places = range(len(named))
    clear = [
        Relation(i, (k,), kind, _WORDS[kind])
        for kind in ("left of", "above", "bigger")
        for i, k in itertools.permutations(places, 2)
        if _bears_out(kind, boxes, named[i], (named[k],), 30)
    ]
    clear += [
        Relation(i, (k, m), "between", "between")
        for i in places
        for k, m in itertools.combinations([place for place in places if place != i], 2)
        if _bears_out("between", boxes, named[i], (named[k], named[m]), 20)
    ]
    alike = [[k for k, look in enumerate(things) if look == things[thing]] for thing in named]
    others = [taken for taken in itertools.product(*alike) if len(set(taken)) == len(taken) and taken != named]
    told: list[Relation] = []
    for index in rng.permutation(len(clear)):
        said = clear[index]
        left = [
            taken
            for taken in others
            if _bears_out(said.kind, boxes, taken[said.subject], tuple(taken[k] for k in said.objects), -10)
        ]
        if len(left) < len(others):
            told.append(said)
            others = left
        if not others:
            return tuple(told)
    return None
