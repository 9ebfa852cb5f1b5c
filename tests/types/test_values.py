from __future__ import annotations

import datetime as dt
import enum
import math
import uuid
from collections import OrderedDict, UserDict, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mmalign.errors import MetadataError
from mmalign.types.values import CellError, Unkept, duration, moment, plain_value, time_of_day

BERLIN = dt.timezone(dt.timedelta(hours=2))


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Word(str):
    __slots__ = ()


class NAType:
    """As pandas' own."""


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (1.5, 1.5),
        (math.nan, None),
        (math.inf, math.inf),
        ("grüße 🦊", "grüße 🦊"),
        (Word("w"), "w"),
        (np.str_("w"), "w"),
        (Colour.RED, "red"),
        (Level.LOW, 1),
        (NAType(), None),
        (np.bool_(True), True),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float16(0.5), 0.5),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64("nan"), None),
        (np.longdouble(0.5), 0.5),
        (np.arange(3), [0, 1, 2]),
        (np.array(5), 5),
        (np.array([[1.0, math.nan]]), [[1.0, None]]),
        (np.array(["a", None, 2], object), ["a", None, 2]),
        (np.ma.masked, None),
        (np.ma.array([1, 2], mask=[False, True]), [1, None]),
        (np.datetime64("2020-01-02"), dt.date(2020, 1, 2)),
        (np.datetime64("2020-01"), dt.date(2020, 1, 1)),
        (np.datetime64("1969"), dt.date(1969, 1, 1)),
        (np.datetime64("2020-01-02", "W"), dt.date(2020, 1, 2)),
        (np.datetime64("2020-01-02T03:04"), dt.datetime(2020, 1, 2, 3, 4)),
        (np.datetime64("2020-01-02T03:04:05.000006", "ns"), dt.datetime(2020, 1, 2, 3, 4, 5, 6)),
        (np.datetime64("1960-01-02T03:04:05.000006", "ns"), dt.datetime(1960, 1, 2, 3, 4, 5, 6)),
        (np.datetime64("1970-01-01T00:00:01", "as"), dt.datetime(1970, 1, 1, 0, 0, 1)),
        (np.datetime64(10, "25s"), dt.datetime(1970, 1, 1, 0, 4, 10)),
        (np.datetime64("NaT"), None),
        (np.timedelta64("NaT"), None),
        (np.array(["2020-01-01", "NaT"], "datetime64[ns]"), [dt.datetime(2020, 1, 1), None]),
        (np.array(["2020-01-01"], "datetime64[D]")[0], dt.date(2020, 1, 1)),
        (np.timedelta64(90, "m"), 5400.0),
        (np.timedelta64(123456789, "ns"), 0.123456789),
        (dt.date(2020, 1, 2), dt.date(2020, 1, 2)),
        (dt.datetime(2020, 1, 2, 3), dt.datetime(2020, 1, 2, 3)),
        (dt.datetime(2020, 1, 2, 3, tzinfo=BERLIN), dt.datetime(2020, 1, 2, 1, tzinfo=dt.UTC)),
        (dt.time(3, 4, 5, 6), "03:04:05.000006"),
        (dt.time(3, 4, tzinfo=BERLIN), "03:04:00+02:00"),
        (dt.timedelta(days=1, microseconds=1), 86400.000001),
        (dt.timedelta(microseconds=-1), -0.000001),
        (Decimal("4.99"), 4.99),
        (Decimal("1E+3"), 1000.0),
        (Decimal("NaN"), None),
        (Decimal("-Infinity"), -math.inf),
        (Fraction(1, 4), 0.25),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Path("/a/b"), "/a/b"),
        ((1, "x"), [1, "x"]),
        (range(3), [0, 1, 2]),
        (deque([1]), [1]),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({"b", 1, None}), [None, 1, "b"]),
        ({"b": 1}.keys(), ["b"]),
        (OrderedDict(b=1, a={"x": math.inf, 7: [math.nan, -math.inf]}), {"b": 1, "a": {"x": None, "7": [None, None]}}),
        (UserDict(a=1), {"a": 1}),
        (pa.scalar(5), 5),
        (pa.array([1, None]), [1, None]),
    ],
    # Two processes that share the tests must call them the same, and a set's order differs between them.
    ids=lambda value: f"{type(value).__name__}-{'' if isinstance(value, frozenset) else repr(value)}"[:40],
)
def test_what_is_kept_is_kept_exactly(value: Any, plain: Any) -> None:
    found = plain_value(value)
    assert found == plain
    assert type(found) is type(plain)
    assert plain_value(found) == found, "what is plain stays"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"ab", r"holds bytes, b'ab'; metadata is text"),
        (bytearray(b"ab"), "holds bytearray"),
        (memoryview(b"ab"), "holds memoryview"),
        (np.bytes_(b"ab"), "holds bytes_"),
        (np.array([b"ab"]), "holds ndarray"),
        (np.zeros(1, "i4,f4"), "holds ndarray"),
        (1j, "holds complex"),
        (np.complex64(1j), "holds complex64"),
        (np.array([1j]), "holds ndarray"),
        ([1, [b"x"]], "holds bytes"),
        ({"a": b"x"}, "holds bytes"),
        (object(), "holds object, <object object"),
        (SimpleNamespace(a=1), "holds SimpleNamespace"),
        (iter([1]), "holds list_iterator"),
        (int, "holds type"),
        (len, "holds builtin_function_or_method"),
        ({(1, 2): 1}, r"a mapping with the key \(1, 2\)"),
        ({True: 1}, "a mapping with the key True"),
        ({1: 1, "1": 2}, "the key '1' twice"),
        ("caf\udce9", "is not UTF-8; save the table as UTF-8"),
        ("\ud83d", r"holds half of a character, '\\ud83d'"),
        (["ok", "\ud83d"], "holds half of a character"),
        ({"\ud83d": 1}, "holds half of a character"),
    ],
)
def test_kinds_that_are_not_kept_are_refused(value: Any, message: str) -> None:
    with pytest.raises(MetadataError, match=message) as caught:
        plain_value(value)
    assert not isinstance(caught.value, CellError)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.datetime64("2020-01-02T03:04:05.123456789"), r"holds 2020-01-02T03:04:05\.123456789, .*microsecond"),
        (np.datetime64(-1, "ns"), r"holds 1969-12-31T23:59:59\.999999999,"),
        (np.datetime64(1, "as"), r"holds 1970-01-01T00:00:00\.000000000000000001,"),
        (np.datetime64("0000"), "holds 0000, and times are kept for the years 1 to 9999"),
        (np.datetime64("-0100-01-01"), "about the year -10[01],"),
        (np.datetime64("12000-01-01T00"), "about the year 1(2000|1999),"),
        (np.datetime64(2**62, "s"), "about the year"),
        (np.timedelta64(1, "Y"), "is no number of seconds"),
        (np.timedelta64(5), "is no number of seconds"),
        (np.timedelta64(2**62 + 1, "ns"), "a duration of 4611686018427387905 ns"),
        (dt.datetime(1, 1, 1, tzinfo=BERLIN), "years 1 to 9999"),
        (Decimal("0.1000000000000000000001"), r"the decimal 0\.1000000000000000000001, which a number of 64 bits"),
        (Decimal("1e400"), "which a number of 64 bits does not hold"),
        (Fraction(1, 3), "holds Fraction"),
        (np.longdouble(1) / 3, "does not hold exactly"),
        (pa.scalar(1, pa.timestamp("ns")), "kept to the microsecond|cannot be read as Python values"),
        (Unkept("a time", "which is too long ago; give text"), "holds a time, which is too long ago; give text"),
    ],
)
def test_values_that_cannot_be_kept_exactly(value: Any, message: str) -> None:
    with pytest.raises(CellError, match=message):
        plain_value(value)


def test_a_list_within_itself() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(MetadataError, match="nested more than 100 deep"):
        plain_value(endless)


def test_tensors() -> None:
    torch = pytest.importorskip("torch")
    assert plain_value(torch.tensor(5)) == 5
    assert plain_value(torch.tensor([0.5, math.nan], requires_grad=True)) == [0.5, None]
    assert plain_value(torch.tensor([True])) == [True]
    assert plain_value(torch.tensor(0.5, dtype=torch.bfloat16)) == 0.5
    with pytest.raises(MetadataError, match="holds complex"):
        plain_value(torch.tensor([1j]))


def test_a_timestamp_with_nanoseconds_is_not_cut() -> None:
    class Timestamp(dt.datetime):
        nanosecond = 5

    with pytest.raises(CellError, match="microsecond"):
        plain_value(Timestamp(2020, 1, 2))
    Timestamp.nanosecond = 0
    assert type(plain_value(Timestamp(2020, 1, 2))) is dt.datetime


def test_parts_that_readers_of_tables_use() -> None:
    assert moment(0, "ns", utc=True) == dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    assert isinstance(moment(1, "ns"), Unkept)
    assert (time_of_day(0), time_of_day(1_500_000), time_of_day(123456789)) == (
        "00:00:00", "00:00:00.001500", "00:00:00.123456789",
    )  # fmt: skip
    assert duration(-1500, "ms") == -1.5
