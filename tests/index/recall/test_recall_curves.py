"""The recall contract as a value: which effort it chooses, and how it is written and read."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from typing import Any

import pytest

from mmalign.errors import IndexFileError, InputError
from mmalign.index.recall.recall_curves import RecallCurve, RecallProfile
from mmalign.types import Note


def curve(
    kind: str = "text", share: float = 1.0, k: int = 10, *, lower: tuple[float, ...] = (0.8, 0.9, 0.97)
) -> RecallCurve:
    efforts = tuple(16 * 2**i for i in range(len(lower)))
    return RecallCurve(kind, share, k, efforts, tuple(min(1.0, value + 0.01) for value in lower), lower, queries=200)


CONTRACT = RecallProfile(
    0.95,
    (
        curve(),
        curve(k=1, lower=(0.95, 0.96, 0.97)),
        curve(k=100, lower=(0.6, 0.7, 0.95)),
        curve(share=0.1, lower=(0.7, 0.92, 0.93)),
        curve("image", lower=(0.93, 0.96, 0.99)),
    ),
    drift={"rows": 3},
    notes=(Note("a note", remedy="what to do", about="recall"),),
    min_recall=0.95,
)


@pytest.mark.parametrize(
    ("min_recall", "options", "effort"),
    [
        # Of the misses allowed, a fifth stays in reserve: 0.875 takes a bound of 0.9, and 0.95 one of 0.96.
        (0.875, {"kinds": ["text"], "k": 10}, 32),
        (0.88, {"kinds": ["text"], "k": 10}, 64),
        (0.95, {"kinds": ["text"], "k": 10}, 64),
        (0.0, {"kinds": ["text"], "k": 10}, 16),
        (0.98, {"kinds": ["text"], "k": 10}, None),
        (0.9375, {"kinds": ["text"], "k": 1}, 16),
        # Between 1 and 10 hits: what ten need, since one needs less.
        (0.95, {"kinds": ["text"], "k": 5}, 64),
        (0.9, {"kinds": ["text"], "k": 11}, 64),
        # More hits than were measured, and a kind that was not measured: nothing is promised.
        (0.1, {"kinds": ["text"], "k": 101}, None),
        (0.1, {"kinds": ["image"], "k": 11}, None),
        (0.1, {"kinds": ["given"], "k": 10}, None),
        # Any kind: what the harder kind needs, and nothing where one of them misses.
        (0.875, {"kinds": None, "k": 10}, 32),
        (0.98, {"kinds": None, "k": 10}, None),
        # A share between two that were measured: what the harder needs; a smaller one: nothing.
        (0.875, {"kinds": ["text"], "k": 10, "share": 0.5}, 32),
        (0.95, {"kinds": ["text"], "k": 10, "share": 0.5}, None),
        (0.9125, {"kinds": ["text"], "k": 10, "share": 0.1}, 64),
        (0.1, {"kinds": ["text"], "k": 10, "share": 0.05}, None),
        (0.1, {"kinds": ["image"], "k": 10, "share": 0.5}, None),
    ],
)
def test_effort_for(min_recall: float, options: dict[str, Any], effort: int | None) -> None:
    assert CONTRACT.effort_for(min_recall, **options) == effort


def test_a_bound_that_dips_ends_the_choice() -> None:
    """The test runs from the largest effort down: what lies below a failure was never tested."""
    dips = curve(lower=(0.96, 0.94, 0.97, 0.99))
    assert dips.effort_for(0.95) == 64
    assert curve(lower=(0.99, 0.99, 0.94)).effort_for(0.95) is None


def test_more_recall_never_takes_less_effort() -> None:
    """Against a plain walk over the table, over all targets and kinds."""
    for kinds, k, share in itertools.product(
        [("text",), ("image",), ("text", "image"), None], [1, 3, 10, 50], [1.0, 0.4, 0.1]
    ):
        efforts = [CONTRACT.effort_for(i / 100, kinds=kinds, k=k, share=share) for i in range(101)]
        numbers = [10**9 if effort is None else effort for effort in efforts]
        assert numbers == sorted(numbers)


def test_an_empty_contract_promises_nothing() -> None:
    assert RecallProfile(0.95, ()).effort_for(0.1, kinds=None, k=10) is None


@pytest.mark.parametrize(
    "options", [{"min_recall": 1.5}, {"min_recall": -0.1}, {"k": 0}, {"share": 0.0}, {"share": 1.1}]
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any]) -> None:
    given = {"min_recall": 0.9, "kinds": ["text"], "k": 10} | options
    with pytest.raises(InputError, match="got"):
        CONTRACT.effort_for(given.pop("min_recall"), **given)


def test_survives_json() -> None:
    assert RecallProfile.from_dict(json.loads(json.dumps(CONTRACT.to_dict()))) == CONTRACT


def test_an_index_of_an_earlier_version_has_none() -> None:
    assert RecallProfile.from_dict({}) is None


@pytest.mark.parametrize(
    "damage",
    [
        {"curves": None},
        {"curves": [{}]},
        {"curves": ["x"]},
        {"confidence": "high"},
        {"confidence": 2},
        {"drift": 3},
        {"curves": [{**CONTRACT.to_dict()["curves"][0], "lower": [0.5]}]},
        {"curves": [{**CONTRACT.to_dict()["curves"][0], "lower": [0.5, 0.6, 7.0]}]},
        {"curves": [{**CONTRACT.to_dict()["curves"][0], "efforts": [64, 32, 16]}]},
    ],
)
def test_damage_is_found(damage: dict[str, Any]) -> None:
    with pytest.raises(IndexFileError, match="build the index again"):
        RecallProfile.from_dict(CONTRACT.to_dict() | damage)


def test_a_curve_without_points_is_refused() -> None:
    with pytest.raises(InputError, match="one recall and one bound"):
        replace(curve(), efforts=(), recall=(), lower=())
