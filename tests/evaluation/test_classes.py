from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import hypergeom

from mmalign.errors import InputError, SourceError
from mmalign.evaluation.classes import ClassesTable, class_name, evaluate_classes
from tests.evaluation.helpers import TableEncoder, random_unit, write


def test_known_classes_and_ties(tmp_path: Path) -> None:
    rows = [{"label": label} for label in ("cat", "cat", "dog", "sea_lion, seal")]
    texts = {"a cat": [1, 0, 0], "a dog": [0, 1, 0], "a sea lion": [0, 0, 1]}
    # The second cat looks like a dog; the sea lion like everything at once, so that it ties with all classes.
    encoder = TableEncoder(texts, np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0.5, 0.5, 0.5]]))
    table = evaluate_classes(write(tmp_path, rows), encoder=encoder, prompts=["a {}"], progress=False)
    assert table.names == ("cat", "dog", "sea lion")
    assert table.name_ranks.tolist() == [1, 2, 1], "the dog ties with the second cat"
    assert table.image_ranks.tolist() == [1, 3, 1, 3], "ties count against: 0 with 0, and all alike"
    # The cat's first two are a cat, then the sea lion; the dog's first one is the cat that ties.
    assert table.precisions.tolist() == [0.5, 0.0, 1.0]
    told = table.to_dict()
    assert (told["n_classes"], told["n_images"], told["encoder"], told["prompts"]) == (3, 4, "table@1", ["a {}"])
    assert told["class_to_image"] == {"any_hit@1": 66.67, "any_hit@10": 100.0, "precision@10": 50.0, "median_rank": 1.0}
    assert told["image_to_class"] == {"accuracy@1": 50.0, "accuracy@5": 100.0}


def test_random_classes_as_plain_sorting_counts_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = [f"class{number:02}" for number in range(7)]
    labels = [names[0]] * 14 + [str(rng.choice(names)) for _ in range(40)] + names
    images = random_unit(rng, len(labels), 5)
    prompts = ("a {}", "one {} more")
    texts = {prompt.format(name): random_unit(rng, 5) for name in names for prompt in prompts}
    path = write(tmp_path, [{"label": label} for label in labels])
    told = evaluate_classes(path, encoder=TableEncoder(texts, images), prompts=prompts, progress=False).to_dict()

    centres = {name: sum(texts[prompt.format(name)] for prompt in prompts) for name in names}
    hits = {1: 0, 10: 0}
    precisions, ranks = [], []
    for name, centre in centres.items():
        order = sorted(range(len(labels)), key=lambda i: -float(images[i] @ centre))
        right = [labels[i] == name for i in order]
        ranks.append(right.index(True) + 1)
        for k in hits:
            hits[k] += any(right[:k])
        cut = min(10, sum(right))
        precisions.append(sum(right[:cut]) / cut)
    guesses = [
        sorted(names, key=lambda name: -float(image @ centres[name]) / np.linalg.norm(centres[name])).index(label)
        for image, label in zip(images, labels, strict=True)
    ]
    assert told["class_to_image"] == {
        "any_hit@1": round(100 * hits[1] / 7, 2),
        "any_hit@10": round(100 * hits[10] / 7, 2),
        "precision@10": round(100 * sum(precisions) / 7, 2),
        "median_rank": float(np.median(ranks)),
    }
    assert told["image_to_class"] == {
        f"accuracy@{k}": round(100 * sum(guess < k for guess in guesses) / len(labels), 2) for k in (1, 5)
    }
    for direction, figures in told["interval_95"].items():
        for name, (low, high) in figures.items():
            assert low <= told[direction][name] <= high


def test_chance_is_that_of_random_orders() -> None:
    sizes = np.array([1, 3, 20])
    owner = np.repeat(np.arange(3), sizes)
    ones = np.ones(24, np.int64)
    table = ClassesTable("x", ("{}",), ("a", "b", "c"), owner, ones[:3], np.ones(3), ones)
    chance = table.to_dict()["chance"]
    for k in (1, 10):
        expected = 100 * np.mean([1 - hypergeom(24, size, k).pmf(0) for size in sizes])
        assert chance["class_to_image"][f"any_hit@{k}"] == pytest.approx(expected, abs=0.006)
    rng = np.random.default_rng(0)
    ranks: list[list[float]] = [[], [], []]
    precisions: list[float] = []
    for _ in range(4000):
        order = rng.permutation(owner)
        for number, size in enumerate(sizes):
            right = order == number
            ranks[number].append(int(right.argmax()) + 1)
            precisions.append(right[: min(10, size)].mean())
    assert chance["class_to_image"]["precision@10"] == pytest.approx(100 * np.mean(precisions), abs=0.5)
    assert chance["class_to_image"]["median_rank"] == pytest.approx(np.median([np.mean(r) for r in ranks]), abs=0.2)
    assert chance["image_to_class"] == {"accuracy@1": 33.33, "accuracy@5": 100.0}


@pytest.mark.parametrize(
    ("label", "name"),
    [("tabby", "tabby"), ("tabby_cat, house cat", "tabby cat"), ("  two   words ", "two words"), (" , x", "")],
)
def test_names_that_people_would_type(label: str, name: str) -> None:
    assert class_name(label) == name


def test_a_class_without_a_picture_left_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, [{"label": "cat"}, {"label": "dog"}, {"label": "cow"}, {"captions": ["no label"]}])
    (tmp_path / "001.png").write_bytes(b"no picture")
    encoder = TableEncoder({"cat": [1, 0, 0], "cow": [0, 0, 1]}, np.eye(3))
    table = evaluate_classes(path, encoder=encoder, prompts=["{}"], progress=False)
    assert table.names == ("cat", "cow")
    assert [Path(skip.uri).name for skip in table.skipped] == ["001.png"]
    (tmp_path / "002.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="that can be decoded have only the class 'cat'"):
        evaluate_classes(path, encoder=encoder, prompts=["{}"], progress=False)


@pytest.mark.parametrize("prompts", [[], ["a photo"], ["{}", "{name}"], "a {}"])
def test_prompts_need_a_place_for_the_name(tmp_path: Path, prompts: list[str]) -> None:
    with pytest.raises(InputError, match=re.escape("with {} in the place of the class name")):
        evaluate_classes(write(tmp_path, [{"label": "cat"}]), prompts=prompts, progress=False)


def test_bad_labels_and_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r'manifest\.jsonl:2: expected "label": a text, got 3'):
        evaluate_classes(write(tmp_path, [{"label": "cat"}, {"label": 3}]), progress=False)
    with pytest.raises(InputError, match='have no "label"'):
        evaluate_classes(write(tmp_path, [{"captions": ["x"]}, {"label": " "}]), progress=False)
    with pytest.raises(InputError, match="only the class 'sea lion'"):
        evaluate_classes(write(tmp_path, [{"label": "sea lion"}, {"label": "sea_lion"}]), progress=False)
