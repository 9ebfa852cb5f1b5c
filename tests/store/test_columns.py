from __future__ import annotations

import datetime

import numpy as np
import pyarrow as pa
import pytest

from mmalign.errors import MetadataError
from mmalign.store.columns import column_name, infer_columns, infer_type, plain, to_array


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, False], pa.bool_()),
        ([True, 1], pa.string()),
        (["a", 1], pa.string()),
        ([datetime.date(2020, 1, 2)], pa.date32()),
        ([["a"], []], pa.list_(pa.string())),
        ([[1], [2.5]], pa.string()),
        ([{"x": 1}], pa.string()),
        ([2**70], pa.string()),
        ([None, []], None),
    ],
)
def test_infer_type(values: list[object], kind: pa.DataType | None) -> None:
    assert infer_type(values) == kind


def test_values_come_back_as_they_went_in() -> None:
    rows = [{"n": 1, "f": 0.5, "tags": ["a", "b"], "box": {"x": 1}}, {"n": None, "f": 2, "tags": [], "box": None}]
    columns = infer_columns(rows)
    kept = {name: to_array(name, [row[name] for row in rows], kind).to_pylist() for name, kind in columns.items()}
    assert kept == {"n": [1, None], "f": [0.5, 2.0], "tags": [["a", "b"], []], "box": ['{"x": 1}', None]}


def test_a_value_that_does_not_fit_is_named() -> None:
    with pytest.raises(MetadataError, match="column 'year' holds int64, got 'old'"):
        to_array("year", [1999, "old"], pa.int64())
    assert to_array("year", [1999, None], pa.string()).to_pylist() == ["1999", None]


def test_names_that_the_store_needs_get_an_underscore() -> None:
    assert [column_name(name) for name in ("width", "label", "id")] == ["width_", "label", "id_"]
    for name in ("", "_rowid", "a.b", "a\nb"):
        with pytest.raises(MetadataError, match="cannot be a column"):
            column_name(name)


def test_plain_drops_numpy_and_nan() -> None:
    assert plain(np.int32(3)) == 3
    assert type(plain(np.float32(0.5))) is float
    assert plain(float("nan")) is None
    assert plain(np.arange(2)) == [0, 1]
