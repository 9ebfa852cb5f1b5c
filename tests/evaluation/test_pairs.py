from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.errors import InputError, SourceError
from mmalign.evaluation.pairs import evaluate_pairs
from tests.evaluation.helpers import TableEncoder, random_unit, write


def pair(type: str, caption: str, negative: str) -> dict[str, str]:
    return {"type": type, "caption": caption, "negative": negative}


def test_known_pairs_and_a_tie(tmp_path: Path) -> None:
    rows = [
        {"hard_negatives": [pair("swap", "red", "blue"), pair("swap", "red", "crimson"), pair("add", "blue", "red")]},
        {"captions": ["no pairs here"]},
        {"hard_negatives": [pair("add", "blue", "red")]},
    ]
    texts = {"red": [1, 0], "crimson": [1, 0], "blue": [0, 1]}
    encoder = TableEncoder(texts, np.array([[1, 0], [9, 9], [0, 1]]))
    table = evaluate_pairs(write(tmp_path, rows), encoder=encoder, progress=False)
    # The second pair ties, which earns nothing; the third prefers the negative.
    assert table.right.tolist() == [True, False, False, True]
    assert table.owner.tolist() == [0, 0, 0, 1]
    told = table.to_dict()
    assert (told["encoder"], told["n_images"], told["n_pairs"], told["chance"]) == ("table@1", 2, 4, 50.0)
    assert told["overall"]["accuracy"] == 50.0
    assert {name: (score["n_pairs"], score["accuracy"]) for name, score in told["by_type"].items()} == {
        "add": (2, 50.0),
        "swap": (2, 50.0),
    }
    assert told["by_type"]["swap"]["interval_95"] == [50.0, 50.0], "all pairs of the type are of one picture"


def test_random_pairs_as_a_plain_loop_counts_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    images = random_unit(rng, 12, 4)
    texts = {f"text {number}": vector for number, vector in enumerate(random_unit(rng, 30, 4))}
    rows = [
        {"hard_negatives": [pair(str(rng.choice(["a", "b"])), *rng.choice(list(texts), 2)) for _ in range(3)]}
        for _ in images
    ]
    told = evaluate_pairs(write(tmp_path, rows), encoder=TableEncoder(texts, images), progress=False).to_dict()
    wins: dict[str, list[bool]] = {"a": [], "b": []}
    for image, row in zip(images, rows, strict=True):
        for one in row["hard_negatives"]:
            true, false = (sum(map(float.__mul__, image.tolist(), texts[one[key]].tolist())) for key in
                           ("caption", "negative"))  # fmt: skip
            wins[one["type"]].append(one["caption"] != one["negative"] and true > false)
    for name, won in wins.items():
        assert told["by_type"][name]["n_pairs"] == len(won)
        assert told["by_type"][name]["accuracy"] == round(100 * sum(won) / len(won), 2)
    assert told["overall"]["accuracy"] == round(100 * sum(map(sum, wins.values())) / 36, 2)


def test_the_interval_is_drawn_over_pictures(tmp_path: Path) -> None:
    # One picture always right, one always wrong: as 100 single pairs the interval would be about 40 to 60.
    rows = [{"hard_negatives": [pair("x", "red", "blue")] * 50} for _ in range(2)]
    encoder = TableEncoder({"red": [1, 0], "blue": [0, 1]}, np.array([[1, 0], [0, 1]]))
    told = evaluate_pairs(write(tmp_path, rows), encoder=encoder, progress=False).to_dict()
    assert told["overall"] == {"n_pairs": 100, "accuracy": 50.0, "interval_95": [0.0, 100.0]}


def test_pictures_that_cannot_be_decoded_take_their_pairs_along(tmp_path: Path) -> None:
    rows = [{"hard_negatives": [pair("x", "red", "blue")]}, {"hard_negatives": [pair("y", "red", "blue")] * 2}]
    path = write(tmp_path, rows)
    (tmp_path / "001.png").write_bytes(b"no picture")
    encoder = TableEncoder({"red": [1, 0], "blue": [0, 1]}, np.array([[1, 0], [0, 1]]))
    table = evaluate_pairs(path, encoder=encoder, progress=False)
    assert table.types == ("x",)
    assert [Path(skip.uri).name for skip in table.skipped] == ["001.png"]
    (tmp_path / "000.png").unlink()
    with pytest.raises(InputError, match="none of the 2 pictures"):
        evaluate_pairs(path, encoder=encoder, progress=False)


@pytest.mark.parametrize(
    "wrong",
    ["text", {"type": "x"}, ["text"], [{"type": "x", "caption": "a"}], [pair("x", "a", " ")], [pair("x", "a", 3)]],  # type: ignore[arg-type]
)
def test_bad_pairs_are_named(tmp_path: Path, wrong: Any) -> None:
    path = write(tmp_path, [{"hard_negatives": [pair("x", "a", "b")]}, {"hard_negatives": wrong}])
    with pytest.raises(SourceError, match=r'manifest\.jsonl:2: expected "hard_negatives"'):
        evaluate_pairs(path, encoder=TableEncoder({}, np.eye(2)), progress=False)


def test_no_pairs_at_all(tmp_path: Path) -> None:
    path = write(tmp_path, [{"captions": ["a"], "split": "dev"}, {"hard_negatives": [], "split": "dev"}])
    with pytest.raises(InputError, match="no picture of split 'dev'"):
        evaluate_pairs(path, split="dev", encoder=TableEncoder({}, np.eye(2)), progress=False)
    with pytest.raises(InputError, match="no split 'test'"):
        evaluate_pairs(path, split="test", progress=False)
