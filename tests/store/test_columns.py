from __future__ import annotations

import datetime as dt
import math
from typing import Any

import pyarrow as pa
import pytest

from mmalign.errors import MetadataError
from mmalign.store.columns import INTEGER, NUMBER, MisfitError, fit, infer_type, to_array

DAY, NOON = dt.date(2020, 1, 2), dt.datetime(2020, 1, 2, 12)
ZONED = NOON.replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([2.5, 1], pa.float64()),
        ([2**53 + 1, 2.5], pa.int64()),
        ([2.5, 2**53 + 1], pa.float64()),
        ([True, False], pa.bool_()),
        ([True, 1], pa.bool_()),
        (["a", 1], pa.string()),
        ([1, "a"], pa.int64()),
        (["N/A", 1], pa.int64()),
        (["N/A", "", None], pa.string()),
        (["NA", "DE"], pa.string()),
        ([""], None),
        ([DAY], pa.date32()),
        ([DAY, NOON], pa.timestamp("us")),
        ([NOON, DAY], pa.timestamp("us")),
        ([NOON, ZONED], pa.timestamp("us")),
        ([ZONED], pa.timestamp("us", tz="UTC")),
        ([["a"], []], pa.list_(pa.string())),
        ([[1], [2.5]], pa.list_(pa.float64())),
        ([[1, 2.5]], pa.list_(pa.float64())),
        ([[2**53 + 1, 2.5]], pa.string()),
        ([["x", 1]], pa.string()),
        ([["x"], ["x", 1]], pa.list_(pa.string())),
        ([[{"a": 1}]], pa.string()),
        ([[[1]]], pa.string()),
        ([[DAY]], pa.string()),
        ([{"x": 1}], pa.string()),
        ([2**70], pa.string()),
        ([1, 2**70], pa.int64()),
        ([None, []], None),
    ],
)
def test_infer_type(values: list[object], kind: pa.DataType | None) -> None:
    assert infer_type(values) == kind


@pytest.mark.parametrize(
    "values", [[1, 2.5, "x", 3], [DAY, NOON, "x"], ["N/A", 4, 4.5], [[1], ["a"], [0.5]], ["a", 1], [True, 3, False]]
)
def test_the_type_is_the_same_whether_values_come_at_once_or_one_by_one(values: list[Any]) -> None:
    """But for what stands for no value, which by itself can only be text."""
    known = [value for value in values if value != "N/A"]
    for cut in range(1, len(known)):
        first = infer_type(known[:cut])
        assert infer_type(values) == infer_type([*known[:cut], *known[cut:]])
        assert first is not None


@pytest.mark.parametrize(
    ("value", "kind", "kept"),
    [
        (4.0, pa.int64(), 4),
        ("4", pa.int64(), 4),
        (-(2**63), pa.int64(), -(2**63)),
        (4, pa.float64(), 4.0),
        ("4.50", pa.float64(), 4.5),
        ("1e3", pa.float64(), 1000.0),
        (math.inf, pa.float64(), math.inf),
        ("True", pa.bool_(), True),
        ("2020-01-02", pa.date32(), DAY),
        (DAY, pa.timestamp("us"), dt.datetime(2020, 1, 2)),
        ("2020-01-02T12:00:00", pa.timestamp("us"), NOON),
        ("2020-01-02T13:00:00+01:00", pa.timestamp("us", tz="UTC"), ZONED),
        ("a", pa.list_(pa.string()), ["a"]),
        ([1, None, 2.0], pa.list_(pa.int64()), [1, None, 2]),
        (1999, pa.string(), "1999"),
        (NOON, pa.string(), "2020-01-02T12:00:00"),
        ({"a": [DAY]}, pa.string(), '{"a": ["2020-01-02"]}'),
        (["x", 1], pa.string(), '["x", 1]'),
        (5, pa.int32(), 5),
    ],
)
def test_what_fits_is_kept_exactly(value: Any, kind: pa.DataType, kept: Any) -> None:
    assert fit(value, kind) == kept
    assert type(fit(value, kind)) is type(kept)
    assert to_array("x", [value, None], kind).to_pylist() == [kept, None]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (4.5, pa.int64()),
        (True, pa.int64()),
        (2**63, pa.int64()),
        ("007", pa.int64()),
        ("4.5", pa.int64()),
        (math.inf, pa.int64()),
        (2**53 + 1, pa.float64()),
        (10**400, pa.float64()),
        ("0.10000000000000000001", pa.float64()),
        ("1e999", pa.float64()),
        ("nan", pa.float64()),
        (1, pa.bool_()),
        (NOON, pa.date32()),
        (ZONED, pa.timestamp("us")),
        (NOON, pa.timestamp("us", tz="UTC")),
        (DAY, pa.timestamp("us", tz="UTC")),
        ("2020-01-02T12:00:00.1234567", pa.timestamp("us")),
        ("2020-13-02", pa.date32()),
        (["x", 1], pa.list_(pa.string())),
        (["1"], pa.list_(pa.int64())),
        ([0.9], pa.list_(pa.int64())),
        (1, pa.list_(pa.int64())),
        ([True], pa.list_(pa.int64())),
        (300, pa.int8()),
        (4.5, pa.int32()),
    ],
)
def test_what_does_not_fit_is_no_narrower_value(value: Any, kind: pa.DataType) -> None:
    with pytest.raises(MisfitError):
        fit(value, kind)


def test_a_value_that_does_not_fit_is_named() -> None:
    with pytest.raises(MetadataError, match=r"column 'year' holds int64, got 'old'.*make_text"):
        to_array("year", [1999, "old"], INTEGER)
    assert to_array("year", [1999, None], pa.string()).to_pylist() == ["1999", None]
    with pytest.raises(MetadataError, match=r"got 'xxx.{60,80}\.\.\.;"):
        to_array("year", ["x" * 1000], NUMBER)
