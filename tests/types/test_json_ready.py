"""What `to_dict` returns is JSON, whatever the metadata holds."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.types import AddReport, Box, Hit, HitRegion, Note, Region, SearchResult, json_ready

ZONE = datetime.timezone(datetime.timedelta(hours=2))


class Colour(Enum):
    RED = "red"


VALUES: list[tuple[Any, Any]] = [
    (None, None),
    (True, True),
    (3, 3),
    (2**80, 2**80),
    (0.5, 0.5),
    (float("nan"), None),
    (float("inf"), None),
    (-float("inf"), None),
    (np.float32(0.25), 0.25),
    (np.float32("inf"), None),
    (np.int64(7), 7),
    (np.bool_(True), True),
    (np.array([1.5, np.nan]), [1.5, None]),
    (np.datetime64("2020-01-02T03:04:05.123456789"), "2020-01-02T03:04:05.123456789"),
    (np.array(["2020-01-02"], "M8[D]"), ["2020-01-02"]),
    (datetime.date(2020, 1, 2), "2020-01-02"),
    (datetime.datetime(2020, 1, 2, 3, 4, 5, 6), "2020-01-02T03:04:05.000006"),
    (datetime.datetime(2020, 1, 2, tzinfo=ZONE), "2020-01-02T00:00:00+02:00"),
    (datetime.time(3, 4), "03:04:00"),
    (datetime.timedelta(minutes=1, microseconds=5), 60.000005),
    (Decimal("4.50"), "4.50"),
    (Decimal("NaN"), None),
    (b"ab", "YWI="),
    (bytearray(b"ab"), "YWI="),
    (Path("/a/b"), "/a/b"),
    ((1, (2,)), [1, [2]]),
    ({1}, [1]),
    (Colour.RED, "red"),
    (Note("a", remedy="b"), "a; b"),
    ({1: 2, datetime.date(2020, 1, 2): {"x": float("nan")}}, {"1": 2, "2020-01-02": {"x": None}}),
    ("\ud83d", "\ud83d"),
    (Box(1, 2, 3, 4).to_list(), [1, 2, 3, 4]),
    (range(2), [0, 1]),
]


@pytest.mark.parametrize(("value", "ready"), VALUES, ids=lambda value: repr(value)[:30])
def test_a_value_as_json_knows_it(value: Any, ready: Any) -> None:
    found = json_ready(value)
    assert found == ready
    assert type(found) is type(ready)
    assert json.loads(json.dumps(found, allow_nan=False)) == ready


def test_every_hit_is_json() -> None:
    metadata = {str(i): value for i, (value, _) in enumerate(VALUES)}
    region = HitRegion("dog", Box(1, 2, 3, 4), float("nan"))
    hit = Hit("a", "/a.png", float("inf"), metadata, float("nan"), (region,), -float("inf"))
    result = SearchResult((hit,), "dog", True, 0.1, "c.mm", notes=(Note("a", remedy="b"),))
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))["hits"][0]
    assert found["metadata"] == {str(i): ready for i, (_, ready) in enumerate(VALUES)}
    assert (found["score"], found["probability"], found["agreement"], found["regions"][0]["score"]) == (None,) * 4
    assert json.dumps(Region(Box(1, 2, 3, 4), score=float("nan")).to_dict(), allow_nan=False)
    report = AddReport(seconds=float("inf"), notes=(Note("x", about="y"),))
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["notes"] == ["x"]
