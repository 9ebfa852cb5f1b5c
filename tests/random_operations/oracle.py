"""What a collection should hold, as a dictionary: each operation is a few lines that nobody can get wrong twice."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

DIM = 16
COLUMNS = ("number", "share", "word", "flag")

# A filter as people write it, and as Python.
FILTERS: dict[str, Callable[[dict[str, Any]], bool | None]] = {
    "number >= 50": lambda row: None if row.get("number") is None else row["number"] >= 50,
    "number < 20 OR word = 'dog'": lambda row: _either(
        None if row.get("number") is None else row["number"] < 20,
        None if row.get("word") is None else row["word"] == "dog",
    ),
    "word IN ('dog', 'cat')": lambda row: None if row.get("word") is None else row["word"] in ("dog", "cat"),
    "NOT (word = 'dog')": lambda row: None if row.get("word") is None else row["word"] != "dog",
    "word LIKE 'd%'": lambda row: None if row.get("word") is None else row["word"].startswith("d"),
    "share BETWEEN 0.25 AND 0.75": lambda row: None if row.get("share") is None else 0.25 <= row["share"] <= 0.75,
    "flag": lambda row: row.get("flag"),
    "word IS NULL": lambda row: row.get("word") is None,
}


def _either(a: bool | None, b: bool | None) -> bool | None:
    """OR, where NULL is not known."""
    if a or b:
        return True
    return None if a is None or b is None else False


@dataclass(slots=True)
class Item:
    """One item.

    Attributes:
        vector: What its embedding is made from: a seed in a collection of vectors, colour and detail of a picture.
        uri: Where its picture is; empty for a vector.
        captions: Its captions.
        values: Its metadata; None is no value.
        changed: When its file was changed, as far as the collection knows.
    """

    vector: Any
    uri: str = ""
    captions: tuple[str, ...] = ()
    values: dict[str, Any] = field(default_factory=dict)
    changed: int = 0

    def shown(self) -> dict[str, Any]:
        """What a reader of the collection sees."""
        return {
            "uri": self.uri,
            "captions": self.captions,
            **{name: value for name, value in self.values.items() if value is not None},
        }


class Oracle:
    """What a collection should hold.

    Attributes:
        items: Each by its id.
    """

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}

    def copy(self) -> Oracle:
        return copy.deepcopy(self)

    def add_vectors(self, names: list[str], seeds: list[int], values: list[dict[str, Any]]) -> int:
        """Add vectors, or replace those with the same id; returns how many are new."""
        new = sum(name not in self.items for name in names)
        for name, seed, row in zip(names, seeds, values, strict=True):
            self.items[name] = Item(seed, values=dict(row))
        return new

    def update(self, names: list[str], values: dict[str, Any]) -> int:
        """Set values of items that exist; returns how many there are."""
        known = [name for name in dict.fromkeys(names) if name in self.items]
        for name in known:
            item = self.items[name]
            for column, value in values.items():
                if column == "captions":
                    item.captions = tuple(value)
                else:
                    item.values[column] = value
        return len(known)

    def remove(self, names: Iterable[str] | None, where: str | None) -> list[str]:
        """Remove items; returns their ids."""
        wanted = None if names is None else set(names)
        gone = [
            name
            for name, item in self.items.items()
            if (wanted is None or name in wanted) and (where is None or FILTERS[where](item.values) is True)
        ]
        for name in gone:
            del self.items[name]
        return gone

    def nearest(
        self, query: np.ndarray, vectors: Callable[[Any], np.ndarray], where: str | None
    ) -> list[tuple[float, str]]:
        """Score and id of every item that a filter lets through, best first."""
        found = [
            (float(vectors(item.vector).astype(np.float16).astype(np.float32) @ query), name)
            for name, item in self.items.items()
            if where is None or FILTERS[where](item.values) is True
        ]
        return sorted(found, reverse=True)


def unit(seed: int) -> np.ndarray:
    """The vector that a seed stands for, float32 of shape (DIM,), of length 1."""
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)
