from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest

from mmalign.errors import InputError
from mmalign.types.ids import ItemCount, as_id, as_ids


@pytest.mark.parametrize(
    "ids",
    [
        ["1", "2"],
        ("1", 2),
        [1, np.int64(2)],
        np.array([1, 2]),
        np.array(["1", "2"]),
        np.array([1, "2"], object),
        range(1, 3),
        (name for name in "12"),
        {"1": None, "2": None}.keys(),
    ],
)
def test_texts_and_integers_are_ids_in_any_list(ids: Any) -> None:
    assert as_ids(ids) == ["1", "2"]


def test_sets_and_tensors() -> None:
    torch = pytest.importorskip("torch")
    assert sorted(as_ids({"a", 3})) == ["3", "a"]
    assert as_ids(torch.tensor([7, 8])) == ["7", "8"]
    with pytest.raises(InputError, match="text or an integer"):
        as_ids(torch.tensor([True]))


@pytest.mark.parametrize("ids", ["12", b"12", bytearray(b"1"), {"a": 1}, None, 12, 1.5, np.array(3), np.str_("12")])
def test_one_text_or_number_is_no_list(ids: Any) -> None:
    with pytest.raises(InputError, match="ids must be a list of identifiers, got"):
        as_ids(ids)


def test_the_remedy_for_one_item() -> None:
    with pytest.raises(InputError, match=r"for one item write \['12'\]"):
        as_ids("12")


@pytest.mark.parametrize(
    "entry", [None, True, np.bool_(False), 1.0, np.float32(1), float("nan"), b"a", "a\ud83d", "a\0", ["a"], object()]
)
def test_entries_that_are_no_ids(entry: Any) -> None:
    with pytest.raises(InputError, match=r"ids\[1\] must be text"):
        as_ids(["a", entry])
    with pytest.raises(InputError, match="id must be text"):
        as_id(entry)


def test_an_id_that_could_not_be_found_again_is_named() -> None:
    with pytest.raises(InputError, match=r"^ids\[2\] must be text without NUL characters, got 'b\\x00c'; leave them"):
        as_ids(["a", "b", "b\0c"])


def test_a_count_knows_which_ids_were_unknown() -> None:
    count = ItemCount(3, ["x", "y", "x"])
    assert (count, count + 1, json.dumps({"n": count}), f"{count:,}") == (3, 4, '{"n": 3}', "3")
    assert count.unknown == ("x", "y")
    again = pickle.loads(pickle.dumps(count))
    assert (again, again.unknown) == (3, ("x", "y"))
    assert ItemCount(0).unknown == ()
