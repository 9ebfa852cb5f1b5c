"""A collection of vectors from elsewhere beside the oracle."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign import Collection
from tests.random_operations.oracle import COLUMNS, DIM, FILTERS, Oracle, unit
from tests.random_operations.world import Step, World

WORDS = ["dog", "cat", "a bird", "Ünder", "it's", None]
NAMES = 160


class Vectors(World):
    """The collection, the oracle, and what can be done to both.

    Args:
        folder: Where the collection is made.
    """

    columns = COLUMNS

    def __init__(self, folder: Path) -> None:
        super().__init__(Collection.create(folder / "vectors.mm", encoder=None, dim=DIM), Oracle())

    # What may come next --------------------------------------------------------------------------------------------

    def draw(self, local: random.Random) -> Step:
        """Draw a step; everything that it needs is in it, as JSON."""
        kind = local.choices(
            ["add", "update", "remove", "remove_where", "search", "has", "build", "refresh", "reopen", "captions"],
            [24, 14, 10, 3, 24, 4, 2, 4, 4, 4],
        )[0]
        step: Step = {"do": kind}
        if kind == "add":
            names = local.sample(range(NAMES), local.choice([1, 1, 1, 3, 20, 60]))
            step["ids"] = [f"v{name}" for name in names]
            step["seeds"] = [local.randrange(10_000) for _ in names]
            # A column comes and goes, so that rows are written with and without it.
            columns = [name for name in ("number", "share", "word", "flag") if local.random() < 0.8]
            step["values"] = [{name: self._value(name, local) for name in columns} for _ in names]
        elif kind == "update":
            step["ids"] = [f"v{local.randrange(NAMES + 10)}" for _ in range(local.choice([1, 1, 5]))]
            column = local.choice(["number", "share", "word", "flag"])
            step["values"] = {column: self._value(column, local)}
        elif kind == "captions":
            step = {"do": "update", "ids": [f"v{local.randrange(NAMES)}" for _ in range(3)], "values": {}}
            step["values"]["captions"] = local.sample(["a dog", "two dogs", "a cat", "snow"], local.randrange(3))
        elif kind == "remove":
            step["ids"] = [f"v{local.randrange(NAMES + 10)}" for _ in range(local.choice([1, 1, 8]))]
            step["purge"] = local.random() < 0.15
        elif kind == "remove_where":
            step = {"do": "remove", "ids": None, "where": local.choice(list(FILTERS)), "purge": local.random() < 0.2}
        elif kind == "search":
            step["seed"] = local.randrange(10_000)
            step["k"] = local.choice([1, 5, 10, 1000])
            step["where"] = local.choice([None, None, *FILTERS])
        elif kind == "has":
            step["id"] = f"v{local.randrange(NAMES + 10)}"
        elif kind == "build":
            step["recipe"] = local.choice(["flat", "IVF4,Flat", "hnsw", "auto"])
        return step

    def _value(self, column: str, local: random.Random) -> Any:
        if local.random() < 0.1:
            return None
        return {
            "number": lambda: local.randrange(100),
            "share": lambda: round(local.random(), 3),
            "word": lambda: local.choice(WORDS),
            "flag": lambda: local.random() < 0.5,
        }[column]()

    def can_be_killed(self, step: Step) -> bool:
        return step["do"] in {"add", "update", "remove", "build", "refresh"}

    # Doing it ------------------------------------------------------------------------------------------------------

    def expect(self, step: Step) -> Any:
        """Do the step to the oracle; returns what the collection should return, or None."""
        match step["do"]:
            case "add":
                return self.oracle.add_vectors(step["ids"], step["seeds"], step["values"])
            case "update":
                return self.oracle.update(step["ids"], step["values"])
            case "remove":
                return len(self.oracle.remove(step["ids"], step.get("where")))
        return None

    @staticmethod
    def perform(collection: Collection, step: Step) -> Any:
        """Do a step that writes to a collection; returns what it returned."""
        if step["do"] != "add":
            return World.perform(collection, step)
        columns = {name: [row[name] for row in step["values"]] for name in step["values"][0]}
        vectors = np.stack([unit(seed) for seed in step["seeds"]])
        return collection.add_embeddings(step["ids"], vectors, metadata=columns).added

    def run(self, step: Step) -> None:
        """Do the step to both, and compare what they say."""
        match step["do"]:
            case "search":
                self._search(step)
            case "has":
                assert self.collection.has(step["id"]) == (step["id"] in self.oracle.items)
            case "reopen":
                self.reopen()
            case _:
                wanted = self.expect(step)
                got = self.perform(self.collection, step)
                assert wanted is None or got == wanted, f"returned {got}, expected {wanted}"

    def _search(self, step: Step) -> None:
        where = step["where"]
        query = unit(step["seed"])
        nearest = self.oracle.nearest(query, unit, where)
        scores = {name: score for score, name in nearest}
        for least in (1.0, None):
            result = self.collection.search(query, k=step["k"], where=where, min_recall=least)
            got = [(hit.score, hit.id) for hit in result]
            assert len({name for _, name in got}) == len(got)
            for score, name in got:
                assert score == pytest.approx(scores[name], abs=2e-3), f"{name} has another score"
            if least is not None:
                assert [score for score, _ in got] == pytest.approx(
                    [score for score, _ in nearest[: step["k"]]], abs=2e-3
                )
            for hit in result:
                item = self.oracle.items[hit.id]
                told = {name: value for name, value in hit.metadata.items() if name not in ("kind", "captions")}
                assert told == {name: value for name, value in item.shown().items() if name not in ("uri", "captions")}

    # Comparing all of it -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Compare everything that is kept."""
        assert self.read() == {name: item.shown() for name, item in self.oracle.items.items()}
        store = self.collection.snapshot()
        _, table = store.scan(["id"])
        _, vectors = store.embeddings()
        for name, vector in zip(table.column("id").to_pylist(), vectors, strict=True):
            wanted = unit(self.oracle.items[name].vector)
            assert np.abs(vector.astype(np.float32) - wanted).max() < 1e-3, f"{name} has another vector"

    def settle(self, before: Oracle, step: Step) -> None:
        """After a step was killed: find out whether it was done, which must be wholly or not at all."""
        self.reopen()
        held = self.read()
        after = {name: item.shown() for name, item in self.oracle.items.items()}
        earlier = {name: item.shown() for name, item in before.items.items()}
        if held != after:
            assert held == earlier, f"{step['do']} was done by halves"
            self.oracle = before
