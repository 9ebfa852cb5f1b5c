from __future__ import annotations

import datetime as dt
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmalign.errors import SourceError
from mmalign.media.rows import PATH_COLUMNS, item_from_row, items_from_rows
from mmalign.types import Item, Skip


def row(**values: Any) -> Item:
    return item_from_row(values, base="/base")


@pytest.mark.parametrize("column", [*PATH_COLUMNS, "IMAGE", "Path", "URL"])
def test_each_path_column_is_known_in_any_case(column: str) -> None:
    assert row(**{column: "a/b.jpg"}) == Item("/base/a/b.jpg")


def test_a_row_becomes_an_item_with_its_captions_id_and_metadata() -> None:
    item = row(image="/abs.jpg", captions=[" a dog ", "", "ein Hund"], id=7, year=2020, tags=["x"], none=None)
    assert item == Item(
        "/abs.jpg", id="7", captions=("a dog", "ein Hund"), metadata={"year": 2020, "tags": ["x"], "none": None}
    )
    assert row(url="http://x/a.jpg", TEXT="a cat").captions == ("a cat",)
    assert row(path=Path("x.jpg")).uri == "/base/x.jpg"


def test_the_first_usable_path_column_wins_and_the_rest_is_metadata() -> None:
    item = row(url="http://x/a.jpg", file="b.jpg", image=None, caption="one", text="two")
    assert item.uri == "/base/b.jpg"
    assert item.captions == ("one",)
    assert item.metadata == {"url": "http://x/a.jpg", "image": None, "text": "two"}


def test_values_become_plain() -> None:
    item = row(
        path="a.jpg", day=dt.date(2020, 2, 29), at=dt.datetime(2020, 2, 29, 12, 30), took=dt.timedelta(seconds=1.5),
        price=Decimal("1.25"), nan=float("nan"), deep={"k": (1, float("inf"))},
        scalar=np.float32(0.5), array=np.arange(3),
    )  # fmt: skip
    assert item.metadata == {
        "day": dt.date(2020, 2, 29), "at": dt.datetime(2020, 2, 29, 12, 30), "took": 1.5, "price": 1.25, "nan": None,
        "deep": {"k": [1, None]}, "scalar": 0.5, "array": [0, 1, 2],
    }  # fmt: skip
    assert type(item.metadata["scalar"]) is float


@pytest.mark.parametrize("identity", [None, ""])
def test_an_empty_id_is_none(identity: str | None) -> None:
    assert row(path="a.jpg", id=identity).id is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"picture": "a.jpg", "n": 1},
            r"the columns are 'picture', 'n'; name one of them image or path or .* filepath",
        ),
        ({}, "the columns are none"),
        ({"image": ""}, "column 'image' is empty"),
        ({"Image": {"bytes": b""}}, "column 'Image' holds dict, expected a path or URL"),
        ({"path": "a.jpg", "caption": 7}, "column 'caption' must hold text or a list of texts, got 7"),
        ({"path": "a.jpg", "captions": ["a", None]}, "column 'captions' must hold"),
        ({"path": "a.jpg", "id": 1.5}, "id must be text or an integer, got 1.5"),
        ({"path": "a.jpg", "id": True}, "id must be text or an integer"),
        ({"path": "a.jpg", "id": "a\0"}, "id must be text without NUL characters"),
        ({"path": "a.jpg", "raw": b"x"}, "column 'raw' holds bytes"),
        ({"path": "a.jpg", "note": "caf\udce9"}, "column 'note' is not UTF-8; save the table as UTF-8"),
        ({"path": "a.jpg", "caption": "\ud83d"}, "column 'caption' holds half of a character"),
        ({"path": "a\0.jpg"}, "no file can be named"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(values: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        item_from_row(values, base="/base")


def test_a_value_that_cannot_be_kept_exactly_costs_its_cell() -> None:
    item = item_from_row(
        {"path": "a.jpg", "price": Decimal("0.10000000000000000001"), "n": 1}, base="/base", place="t:4"
    )
    assert item.metadata == {"n": 1}
    assert [(note.about, note.text) for note in item.left_out] == [
        (
            "t:4",
            "column 'price' holds the decimal 0.10000000000000000001, which a number of 64 bits does not hold exactly; "
            "the cell was left out",
        )
    ]


def test_a_path_that_is_not_utf8_is_no_mistake() -> None:
    assert row(path=os.fsdecode(b"caf\xe9.jpg")).uri == "file:///base/caf%E9.jpg"


def test_unusable_rows_are_skipped_in_their_place() -> None:
    rows = [("t:1", "not valid"), ("t:2", {"path": "a.jpg"}), ("t:3", {}), ("t:4", {"path": "b.jpg"})]
    found = list(items_from_rows(rows, name="t", base="/base"))  # type: ignore[arg-type]
    assert [entry.uri for entry in found] == ["t:1", "/base/a.jpg", "t:3", "/base/b.jpg"]
    assert [type(entry) for entry in found] == [Skip, Item, Skip, Item]


def test_a_table_without_a_usable_row_is_an_error_after_a_thousand_rows() -> None:
    asked = 0

    def endless() -> Any:
        nonlocal asked
        while True:
            asked += 1
            yield f"t:{asked}", {"n": 1}

    with pytest.raises(SourceError, match="t names no picture; the first problem is at t:1: no column says"):
        list(items_from_rows(endless(), name="t", base="/base"))
    assert asked == 1000
    with pytest.raises(SourceError, match="t has no rows"):
        list(items_from_rows([], name="t", base="/base"))
