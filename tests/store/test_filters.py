"""Filters against plain Python: what they let through, and what they refuse."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mmalign import Collection
from mmalign.collection.item_schema import item_schema
from mmalign.errors import FilterError
from mmalign.store import filter_functions
from mmalign.store.filter_parsing import (
    MAX_CALLS_NESTED,
    MAX_COMPARISONS_NESTED,
    MAX_CONDITIONS,
    MAX_LIST,
    MAX_NESTING,
    MAX_OPERATORS,
)
from mmalign.store.lance_store import Store

Row = dict[str, Any]
BERLIN_NOON = datetime(2020, 1, 2, 11, 0, tzinfo=UTC)
COLUMNS = {
    "brand": pa.string(),
    "Camera Model": pa.string(),
    "$price": pa.int64(),
    "n": pa.int64(),
    "small": pa.int32(),
    "f": pa.float64(),
    "flag": pa.bool_(),
    "day": pa.date32(),
    "taken": pa.timestamp("us"),
    "seen": pa.timestamp("us", tz="UTC"),
    "fine": pa.timestamp("ns"),
    "tags": pa.list_(pa.string()),
    "counts": pa.list_(pa.int64()),
    "marks": pa.list_(pa.float64()),
    "price": pa.string(),
    "digits": pa.string(),
    "order": pa.int64(),
    "date": pa.date32(),
    "text": pa.string(),
}
ROWS: list[Row] = [
    {
        "id": "a",
        "brand": "x",
        "Camera Model": "x",
        "$price": 1,
        "n": 1,
        "small": 50_000,
        "f": 0.1,
        "flag": True,
        "day": date(2020, 1, 1),
        "taken": datetime(2020, 1, 1, 10, 30, 5, 250_000),
        "seen": BERLIN_NOON,
        "fine": datetime(2020, 1, 1),
        "tags": ["a dog", "cat"],
        "counts": [1, 2],
        "marks": [1.5],
        "price": "12",
        "digits": "12",
        "order": 1,
        "date": date(1999, 12, 31),
        "text": "line\nbreak",
        "width": 4000,
        "height": 3000,
        "captions": ["a dog", "two dogs in the snow"],
    },
    {
        "id": "b",
        "brand": "Y",
        "Camera Model": "it's",
        "$price": 2,
        "n": 2**53 + 1,
        "small": -7,
        "f": -0.0,
        "flag": False,
        "day": date(2020, 1, 2),
        "taken": datetime(2020, 1, 2),
        "seen": BERLIN_NOON + timedelta(hours=3),
        "fine": datetime(2020, 1, 2),
        "tags": [],
        "counts": [],
        "marks": [],
        "price": "7.5",
        "digits": "7.5",
        "order": 2,
        "date": date(2020, 2, 29),
        "text": "100% \\ _sure_",
        "width": 3000,
        "height": 4000,
        "captions": ["one cat"],
    },
    {"id": "c", "brand": "Ünïcödé ß"},
    {
        "id": "d",
        "brand": "it's",
        "Camera Model": "`back`",
        "$price": 3,
        "n": -7,
        "small": 2,
        "f": 1e300,
        "flag": True,
        "day": date(2021, 6, 30),
        "taken": datetime(2300, 1, 1),
        "seen": BERLIN_NOON - timedelta(days=400),
        "fine": datetime(2021, 6, 30, 23, 59, 59, 999_999),
        "tags": ["x", "it's"],
        "counts": [3, 2**53 + 1],
        "marks": [2.0, -1.0],
        "price": "n/a",
        "digits": "-3",
        "order": 3,
        "date": date(2020, 1, 1),
        "text": " padded ",
        "width": 100,
        "height": 0,
    },
    {
        "id": "e",
        "brand": "",
        "n": 0,
        "small": 0,
        "f": 2.5,
        "flag": False,
        "tags": ["cat", None],
        "width": 1,
        "height": 1,
    },
    {"id": "f", "brand": "x", "n": -(2**63), "f": 0.0, "day": date(9999, 12, 31), "taken": datetime(1, 1, 1)},
    {"id": "g", "brand": "X", "n": 2**63 - 1, "f": -2.5, "day": date(1, 1, 1), "taken": datetime(9999, 12, 31, 23)},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store.create(tmp_path_factory.mktemp("filters") / "items.lance", dim=4, schema=item_schema)
    made.ensure_columns(COLUMNS)
    vectors = np.random.default_rng(0).normal(size=(len(ROWS), 4))
    made.upsert(ROWS[:4], vectors[:4])
    made.upsert(ROWS[4:], vectors[4:])
    return made


def found(store: Store, where: str) -> list[str]:
    return sorted(store.scan(["id"], where=where)[1].column("id").to_pylist())


def expected(truth: Callable[[Row], bool | None], wanted: bool) -> list[str]:
    return [
        row["id"] for row in ROWS if truth(dict.fromkeys([*COLUMNS, "width", "height", "captions"]) | row) is wanted
    ]


def known(*names: str) -> Callable[[Callable[..., Any]], Callable[[Row], Any]]:
    """A condition that is unknown where one of these is null."""

    def wrap(condition: Callable[..., Any]) -> Callable[[Row], Any]:
        return lambda row: (
            None if any(row[name] is None for name in names) else condition(*(row[name] for name in names))
        )

    return wrap


def half_away(number: float) -> float:
    return float(np.copysign(np.floor(abs(number) + 0.5), number))


CASES: dict[str, Callable[[Row], bool | None]] = {
    # Names.
    "\"brand\" = 'x'": known("brand")(lambda brand: brand == "x"),
    "\"brand\" != 'x'": known("brand")(lambda brand: brand != "x"),
    "`Camera Model` = 'it''s'": known("Camera Model")(lambda model: model == "it's"),
    "\"Camera Model\" <> 'x'": known("Camera Model")(lambda model: model != "x"),
    "BRAND == 'x'": known("brand")(lambda brand: brand == "x"),
    '"$price" > 1': known("$price")(lambda price: price > 1),
    "order = 2 AND date >= '2020-01-01'": lambda row: both(
        known("order")(lambda order: order == 2)(row), known("date")(lambda day: day >= date(2020, 1, 1))(row)
    ),
    "text LIKE '%\n%'": known("text")(lambda text: "\n" in text),
    "'x' = brand": known("brand")(lambda brand: brand == "x"),
    # Whole numbers, compared as they are.
    "n > 4.5": known("n")(lambda n: n > 4.5),
    "n <= -6.5": known("n")(lambda n: n <= -6.5),
    "n = 4.5": known("n")(lambda n: False),
    "n <> 1.0": known("n")(lambda n: n != 1),
    "n = 9007199254740993": known("n")(lambda n: n == 2**53 + 1),
    "n = 9007199254740992": known("n")(lambda n: False),
    "n < 99999999999999999999": known("n")(lambda n: True),
    "n >= 9223372036854775807": known("n")(lambda n: n == 2**63 - 1),
    "n <= -9223372036854775808": known("n")(lambda n: n == -(2**63)),
    "n > -9223372036854775809": known("n")(lambda n: True),
    "small > 4000000000": known("small")(lambda small: False),
    "small < 4000000000": known("small")(lambda small: True),
    "n IN (1, -7, 4.5, 99999999999999999999)": known("n")(lambda n: n in (1, -7)),
    "n IN (4.5)": known("n")(lambda n: False),
    "n NOT BETWEEN -7 AND 1.5": known("n")(lambda n: not -7 <= n <= 1),
    "small BETWEEN 1e0 AND 5e9": known("small")(lambda small: small >= 1),
    "1 < n": known("n")(lambda n: n > 1),
    "n = small": known("n", "small")(lambda n, small: n == small),
    "width > height": known("width", "height")(lambda width, height: width > height),
    # Numbers; 0.0 and -0.0 are one.
    "f = 0.1": known("f")(lambda f: f == 0.1),
    "f = 0": known("f")(lambda f: f == 0),
    "f < 0": known("f")(lambda f: f < 0),
    "f <= 0.0": known("f")(lambda f: f <= 0),
    "f > 0": known("f")(lambda f: f > 0),
    "f >= 0": known("f")(lambda f: f >= 0),
    "f IN (0, 2.5)": known("f")(lambda f: f in (0, 2.5)),
    "f BETWEEN -2.5 AND 0": known("f")(lambda f: -2.5 <= f <= 0),
    "f = n": known("f", "n")(lambda f, n: f == float(n)),
    "f > small": known("f", "small")(lambda f, small: f > small),
    "- f >= 2.5": known("f")(lambda f: -f >= 2.5),
    # Arithmetic.
    "small * small > 2000000000": known("small")(lambda small: small * small > 2_000_000_000),
    "small + small * 2 - 1 = 5": known("small")(lambda small: small * 3 - 1 == 5),
    "(small + 1) * 2 = 6": known("small")(lambda small: (small + 1) * 2 == 6),
    "10 - small - 1 = 7": known("small")(lambda small: 10 - small - 1 == 7),
    "small / 2 = -3": known("small")(lambda small: int(small / 2) == -3),
    "small % 4 = -3": known("small")(lambda small: int(np.fmod(small, 4)) == -3),
    "- small = 7": known("small")(lambda small: small == -7),
    "- - small = -7": known("small")(lambda small: small == -7),
    "width / height > 0": lambda row: None if not row["height"] else row["width"] // row["height"] > 0,
    "CAST(width AS DOUBLE) / height > 1.3": lambda row: (
        None if not row["height"] else row["width"] / row["height"] > 1.3
    ),
    "f / 0 > 1": lambda row: None,
    "f * 2 + 1 = 6": known("f")(lambda f: f * 2 + 1 == 6),
    "1 + 1 = 2 AND n = 1": known("n")(lambda n: n == 1),
    "abs(small) = 7": known("small")(lambda small: abs(small) == 7),
    "abs(f) = 2.5": known("f")(lambda f: abs(f) == 2.5),
    "round(f) = 3": known("f")(lambda f: half_away(f) == 3),
    "round(f, 1) = 0.1": known("f")(lambda f: abs(f) < 10 and half_away(f * 10) == 1),
    "sqrt(abs(f)) > 1": known("f")(lambda f: math.sqrt(abs(f)) > 1),
    "n * 2 > 5": known("n")(lambda n: n * 2 > 5),
    "n * n > 100": known("n")(lambda n: n * n > 100),
    # Texts.
    "brand < 'a'": known("brand")(lambda brand: brand < "a"),
    "brand > 'Ü'": known("brand")(lambda brand: brand > "Ü"),
    "brand IN ('x', 'it''s', 'nowhere')": known("brand")(lambda brand: brand in ("x", "it's")),
    "brand BETWEEN 'a' AND 'y'": known("brand")(lambda brand: "a" <= brand <= "y"),
    "lower(brand) = 'x'": known("brand")(lambda brand: brand.lower() == "x"),
    "upper(brand) = 'ÜNÏCÖDÉ SS'": known("brand")(lambda brand: brand.upper() == "ÜNÏCÖDÉ SS"),
    "length(brand) > 3": known("brand")(lambda brand: len(brand) > 3),
    "char_length(brand) = 9": known("brand")(lambda brand: len(brand) == 9),
    "character_length(brand) >= 0": known("brand")(lambda brand: True),
    "starts_with(brand, 'it')": known("brand")(lambda brand: brand.startswith("it")),
    "ends_with(brand, '''s')": known("brand")(lambda brand: brand.endswith("'s")),
    "contains(text, '%')": known("text")(lambda text: "%" in text),
    "strpos(text, 'e') = 4": known("text")(lambda text: text.find("e") == 3),
    "left(brand, 1) = 'i'": known("brand")(lambda brand: brand[:1] == "i"),
    "right(brand, 2) = '''s'": known("brand")(lambda brand: brand[-2:] == "'s"),
    "trim(text) = 'padded'": known("text")(lambda text: text.strip(" ") == "padded"),
    "btrim(text) = 'padded'": known("text")(lambda text: text.strip(" ") == "padded"),
    "ltrim(text) = 'padded '": known("text")(lambda text: text.lstrip(" ") == "padded "),
    "rtrim(text) = ' padded'": known("text")(lambda text: text.rstrip(" ") == " padded"),
    "brand || '!' = 'x!'": known("brand")(lambda brand: brand + "!" == "x!"),
    "concat(brand, '-', text) = '-'": lambda row: f"{row['brand'] or ''}-{row['text'] or ''}" == "-",
    "brand = lower('X')": known("brand")(lambda brand: brand == "x"),
    "text = 'line\nbreak'": known("text")(lambda text: text == "line\nbreak"),
    "text = '100% \\ _sure_'": known("text")(lambda text: text == "100% \\ _sure_"),
    # Patterns.
    "brand LIKE '_'": known("brand")(lambda brand: len(brand) == 1),
    "brand LIKE '%t''%'": known("brand")(lambda brand: "t'" in brand),
    "brand NOT LIKE '%x%'": known("brand")(lambda brand: "x" not in brand),
    "brand ILIKE 'x'": known("brand")(lambda brand: brand.lower() == "x"),
    "brand ILIKE 'ÜNÏ%'": known("brand")(lambda brand: brand.lower().startswith("ünï")),
    r"text LIKE '100\%%'": known("text")(lambda text: text.startswith("100%")),
    r"text LIKE '%\\%'": known("text")(lambda text: "\\" in text),
    "text LIKE '100!% _ !_%' ESCAPE '!'": known("text")(lambda text: re.match("100% . _", text) is not None),
    "text NOT ILIKE '%!_SURE%' ESCAPE '!'": known("text")(lambda text: "_sure" not in text.lower()),
    "text LIKE '100% \\ %' ESCAPE '!'": known("text")(lambda text: text.startswith("100% \\ ")),
    "text LIKE 'line_break'": known("text")(lambda text: text == "line\nbreak"),
    "regexp_like(brand, '^[xy]$', 'i')": known("brand")(lambda brand: re.search("^[xy]$", brand, re.I) is not None),
    "regexp_like(text, 'a{2}|%')": known("text")(lambda text: re.search("a{2}|%", text) is not None),
    # Truth values.
    "flag": known("flag")(lambda flag: flag),
    "flag = false": known("flag")(lambda flag: not flag),
    "flag <> TRUE": known("flag")(lambda flag: not flag),
    "flag IS TRUE": lambda row: row["flag"] is True,
    "flag IS NOT TRUE": lambda row: row["flag"] is not True,
    "flag IS FALSE": lambda row: row["flag"] is False,
    "flag IS UNKNOWN": lambda row: row["flag"] is None,
    "flag IN (true)": known("flag")(lambda flag: flag),
    "(n > 0) = flag": known("n", "flag")(lambda n, flag: (n > 0) == flag),
    "(n > 0) IS NULL": lambda row: row["n"] is None,
    "coalesce(flag, true)": lambda row: row["flag"] is not False,
    "true": lambda row: True,
    "1 = 1 AND brand = 'x'": known("brand")(lambda brand: brand == "x"),
    # Null.
    "n IS NULL": lambda row: row["n"] is None,
    "n IS NOT NULL": lambda row: row["n"] is not None,
    "brand = NULL": lambda row: None,
    "n IN (1, NULL)": lambda row: True if row["n"] == 1 else None,
    "brand NOT IN ('x', NULL)": lambda row: False if row["brand"] == "x" else None,
    "n IS DISTINCT FROM 1": lambda row: row["n"] != 1,
    "n IS NOT DISTINCT FROM small": lambda row: row["n"] == row["small"],
    "n IS DISTINCT FROM 1.5": lambda row: True,
    "brand IS NOT DISTINCT FROM NULL": lambda row: row["brand"] is None,
    "coalesce(n, -1) = -1": lambda row: row["n"] is None,
    "coalesce(f, n, 0.5) = 0.5": lambda row: row["f"] is None and row["n"] is None,
    "coalesce(day, '2020-02-02') = '2020-02-02'": lambda row: row["day"] is None,
    "nullif(brand, 'x') IS NULL": lambda row: row["brand"] in (None, "x"),
    "nullif(small, 0) IS NULL": lambda row: not row["small"],
    # Dates and times.
    "day >= '2020-01-02'": known("day")(lambda day: day >= date(2020, 1, 2)),
    "day = '2020-01-02'": known("day")(lambda day: day == date(2020, 1, 2)),
    "day >= DATE '2020-01-02'": known("day")(lambda day: day >= date(2020, 1, 2)),
    "'2020-01-02' > day": known("day")(lambda day: day < date(2020, 1, 2)),
    "day BETWEEN '2020-01-01' AND '2020-12-31'": known("day")(lambda day: day.year == 2020),
    "day IN ('2020-01-01', DATE '2021-06-30')": known("day")(lambda day: day in (date(2020, 1, 1), date(2021, 6, 30))),
    "day < '2020-01-02 10:00'": known("day")(lambda day: day <= date(2020, 1, 2)),
    "day = '2020-01-02 10:00'": known("day")(lambda day: False),
    "day <= '9999-12-31'": known("day")(lambda day: True),
    "taken >= '2020-01-02'": known("taken")(lambda taken: taken >= datetime(2020, 1, 2)),
    "taken = '2020-01-01T10:30:05.25'": known("taken")(lambda taken: taken == datetime(2020, 1, 1, 10, 30, 5, 250_000)),
    "taken > TIMESTAMP '2020-01-01 10:30:05.250000001'": known("taken")(
        lambda taken: taken > datetime(2020, 1, 1, 10, 30, 5, 250_000)
    ),
    "taken < day": known("taken", "day")(lambda taken, day: taken < datetime(day.year, day.month, day.day)),
    "seen = '2020-01-02 11:00'": known("seen")(lambda seen: seen == BERLIN_NOON),
    "seen = '2020-01-02 12:00+01:00'": known("seen")(lambda seen: seen == BERLIN_NOON),
    "seen > '2020-01-02 11:00Z'": known("seen")(lambda seen: seen > BERLIN_NOON),
    "fine < '2020-01-02 00:00:00.000000001'": known("fine")(lambda fine: fine <= datetime(2020, 1, 2)),
    "fine < '9999-12-31'": known("fine")(lambda fine: True),
    "fine > '1500-01-01'": known("fine")(lambda fine: True),
    "date_part('year', day) = 2020": known("day")(lambda day: day.year == 2020),
    "EXTRACT(month FROM taken) = 1": known("taken")(lambda taken: taken.month == 1),
    "date_part('DOW', date) = 3": known("date")(lambda day: day.isoweekday() % 7 == 3),
    "date_part('week', date) = 1": known("date")(lambda day: day.isocalendar().week == 1),
    "date_part('doy', date) = 60": known("date")(lambda day: day.timetuple().tm_yday == 60),
    "date_part('quarter', date) = 4": known("date")(lambda day: day.month > 9),
    "date_part('hour', seen) = 14": known("seen")(lambda seen: seen.hour == 14),
    "date_part('minute', taken) + date_part('second', taken) = 35": known("taken")(
        lambda taken: taken.minute + taken.second == 35
    ),
    # Casts.
    "CAST(digits AS DOUBLE) > 7": known("digits")(lambda digits: float(digits) > 7),
    "digits::double < 0": known("digits")(lambda digits: float(digits) < 0),
    "TRY_CAST(price AS DOUBLE) > 7": lambda row: {"12": True, "7.5": True}.get(row["price"]),
    "TRY_CAST(price AS BIGINT) IS NULL": lambda row: row["price"] != "12",
    "CAST(n AS TEXT) = '1'": known("n")(lambda n: str(n) == "1"),
    "CAST(small AS DOUBLE) / 4 = 0.5": known("small")(lambda small: small / 4 == 0.5),
    "CAST(day AS TEXT) LIKE '2020-%'": known("day")(lambda day: day.isoformat().startswith("2020-")),
    "CAST(taken AS DATE) = '2020-01-01'": known("taken")(lambda taken: taken.date() == date(2020, 1, 1)),
    "CAST(day AS TIMESTAMP) = '2020-01-02 00:00'": known("day")(lambda day: day == date(2020, 1, 2)),
    "CAST(flag AS INT) = 1": known("flag")(lambda flag: flag),
    "day >= CAST('2020-01-02' AS DATE)": known("day")(lambda day: day >= date(2020, 1, 2)),
    # Lists.
    "array_has(tags, 'cat')": known("tags")(lambda tags: "cat" in tags),
    "list_contains(tags, 'it''s')": known("tags")(lambda tags: "it's" in tags),
    "list_has(counts, 2)": known("counts")(lambda counts: 2 in counts),
    "array_contains(counts, 9007199254740993)": known("counts")(lambda counts: 2**53 + 1 in counts),
    "array_has(counts, 2.0)": known("counts")(lambda counts: 2 in counts),
    "array_has(counts, 2.5)": known("counts")(lambda counts: False),
    "array_has(marks, 2)": known("marks")(lambda marks: 2 in marks),
    "array_has(tags, brand)": known("tags", "brand")(lambda tags, brand: brand in tags),
    "array_has_any(tags, ['x', 'cat'])": known("tags")(lambda tags: bool({"x", "cat"} & set(tags))),
    "array_has_all(tags, ['x', 'it''s'])": known("tags")(lambda tags: {"x", "it's"} <= set(tags)),
    "array_has_any(counts, [1, 2.5])": known("counts")(lambda counts: 1 in counts),
    "array_has_all(counts, [1, 2.5])": known("counts")(lambda counts: False),
    "array_length(tags) = 2": known("tags")(lambda tags: len(tags) == 2),
    "cardinality(counts) = 0": known("counts")(lambda counts: counts == []),
    "array_to_string(tags, ' ') LIKE '%dog%'": known("tags")(lambda tags: "dog" in " ".join(t for t in tags if t)),
    "array_to_string(captions, ' ') LIKE '%dog%'": known("captions")(lambda captions: "dog" in " ".join(captions)),
    "array_to_string(counts, '+') = '1+2'": known("counts")(lambda counts: counts == [1, 2]),
    # Precedence.
    "brand = 'x' OR n = 1 AND f > 1": lambda row: either(
        known("brand")(lambda brand: brand == "x")(row),
        both(known("n")(lambda n: n == 1)(row), known("f")(lambda f: f > 1)(row)),
    ),
    "NOT brand = 'x' AND n = 1": lambda row: both(
        known("brand")(lambda brand: brand != "x")(row), known("n")(lambda n: n == 1)(row)
    ),
}


def both(one: bool | None, two: bool | None) -> bool | None:
    return False if one is False or two is False else None if one is None or two is None else True


def either(one: bool | None, two: bool | None) -> bool | None:
    return True if one or two else None if one is None or two is None else False


@pytest.mark.parametrize("where", CASES)
def test_a_filter_means_what_python_says(store: Store, where: str) -> None:
    truth = CASES[where]
    assert found(store, where) == expected(truth, True)
    # What is unknown is neither.
    assert found(store, f"NOT ({where})") == expected(truth, False)
    assert store.row_ids(where=where).size == len(expected(truth, True))


def test_every_function_is_tried_above() -> None:
    tried = {name for name in filter_functions.FUNCTIONS for where in CASES if f"{name}(" in where}
    assert tried == set(filter_functions.FUNCTIONS)


REFUSED = {
    # Not conditions.
    "": "empty",
    " \n\t": "empty",
    "year": "there is no column 'year'",
    "n": "n holds whole numbers, where something true or false is needed, such as n > 0",
    "brand": "such as brand = 'x'",
    "'x'": "'x' is a text, where something true or false",
    "brand = = 'x'": "a second comparison",
    "= 'x'": "not a condition in SQL",
    "brand = 'x": "quotation mark is not closed",
    "brand = 'x' AND": "something is missing",
    "(brand = 'x'": "not a condition in SQL",
    "brand = 'x')": "not a condition in SQL",
    "brand = 'x' flag": "not a condition in SQL",
    "DROP TABLE x": "not a condition in SQL",
    "brand = 'x'; DROP TABLE x": "semicolon",
    "brand = 'x' -- and more": "comment",
    "brand = 'x' /* and more */": "comment",
    "brand = 'x' UNION SELECT 1": "not a condition in SQL",
    "n IN (SELECT 1)": "not a condition in SQL",
    "EXISTS (SELECT 1)": "not a condition in SQL",
    "CASE WHEN flag THEN true ELSE false END": "a filter is made of columns",
    "sum(n) > 1": r"no function sum\(\) in filters; there are lower, upper",
    "row_number() OVER () = 1": "not a condition in SQL",
    "repeat(brand, 1000000000) = 'x'": r"no function repeat\(\)",
    "lpad(brand, 1000000000, 'x') = 'x'": r"no function lpad\(\)",
    "array_length(generate_series(1, 1000000000)) > 1": r"no function generate_series\(\)",
    "n ~ 'x'": "no place in a filter",
    "n & 1 = 1": "no place in a filter",
    "(n, small) = (1, 2)": "no place in a filter",
    "tags[1] = 'x'": "no place in a filter",
    "n = 1 = true": "a second comparison",
    "1 < n < 3": "a second comparison",
    "*": "no place in a filter",
    "brand LIKE '%\0%'": "NUL",
    "brand = '\ud800'": "surrogate",
    "\x01brand = 'x'": "no place in a filter",
    "\"\x01brand\" = 'x'": "no place in a filter",
    "case = 'x'": "no column 'case'",
    "select = 'x' AND any = 'y'": "no column 'select'",
    "interval '1 day' = day": "not a condition in SQL",
    # Placeholders.
    "brand = ?": "placeholder",
    "brand = $1": "placeholder",
    "brand = :b": "placeholder",
    "brand = @b": "placeholder",
    "$price > 1": r'placeholder.*in quotes: "\$price"',
    # Names.
    "brnad = 'x'": "no column 'brnad'; did you mean brand",
    'brand = "x"': "no column 'x'; a text is written in single quotes: 'x'",
    "\"BRAND\" = 'x'": "did you mean brand",
    "brand = \u2018x\u2019": "quotation marks are straight",
    "embedding IS NULL": "no column 'embedding'",
    "said = 'x'": "no column 'said'",
    "_rowid = 1": "no column '_rowid'",
    "_row_last_updated_at_version > 0": "no column",
    # A text is no column.
    "'brand' != 'x'": 'single quotes is a text.*"brand"',
    "'brand' IS NOT NULL": "single quotes is a text",
    "'brand' LIKE '%'": "single quotes is a text",
    "'brand' IN ('brand')": "single quotes is a text",
    "'a' BETWEEN 'a' AND 'b'": "single quotes is a text",
    "starts_with('brand', 'b')": "single quotes is a text",
    "length('brand') > 1": "single quotes is a text",
    # Types.
    "price > 3": "price is text, because of row 4: 'n/a' \\(item 'd'\\).*TRY_CAST\\(price AS DOUBLE\\)",
    "price IN (3, 4)": "price is text, because of row 4: 'n/a'",
    "7 < price": "price is text, because of row 4: 'n/a'",
    "digits > 3": "digits is text, though it holds nothing but numbers.*write CAST\\(digits AS DOUBLE\\)",
    "CAST(price AS DOUBLE) > 3": "'n/a'.*TRY_CAST",
    "CAST(f AS BIGINT) > 3": "TRY_CAST",
    "n = 'x'": "n holds whole numbers and 'x' is a text",
    "n > '3'": "write it without quotes: 3",
    "flag = 1": "flag holds true or false and 1 is a number.*flag = true",
    "flag = 'true'": "flag holds true or false",
    "flag < true": "no order",
    "tags = 'x'": "tags holds lists of text.*array_has",
    "tags LIKE '%x%'": "array_to_string",
    "lower(tags) = 'x'": "array_to_string",
    "n LIKE '1%'": "LIKE compares texts",
    "brand LIKE text": "pattern in single quotes",
    "brand + 1 = 2": "takes numbers",
    "brand || n = 'x1'": r"CAST\(n AS TEXT\)",
    "n + flag > 1": "takes numbers",
    "array_has(tags, 1)": "cannot hold it",
    "array_has_any(tags, [])": "1 to 1,000 values",
    "coalesce(brand, 1) = 'x'": "values of one type",
    "width / height > 1.3": "divides whole numbers.*DOUBLE",
    "n * 2 = n": "more than 64 bits hold for some item.*DOUBLE",
    "9223372036854775807 + 1 > n": "more than 64 bits",
    "f > 1e999": "more than any number",
    "f > 1e-999999999999": "more than any number",
    # Dates.
    "day > 2020": "day holds dates and 2020 is a number.*'2020-01-31'",
    "day > 'yesterday'": "'yesterday' stands where a date is needed",
    "taken BETWEEN '2020' AND '2021'": "'2020' stands where a date is needed",
    "day = '2020-02-30'": "'2020-02-30' stands where a date is needed",
    "taken = '2020-01-01 25:00'": "stands where a date is needed",
    "taken > '2020-01-01 00:00+02:00'": "taken holds dates with times without a time zone.*leave the offset out",
    "taken = seen": "without a time zone",
    "day = brand": "cannot be compared",
    "date_part('hour', day) = 1": "no part of dates; there are year",
    "date_part('nope', taken) = 1": "no part of dates with times",
    # Patterns.
    "regexp_like(brand, '(')": "regular expression cannot be read: unclosed group",
    "regexp_like(brand, '((((a{100}){100}){100}){100})')": "regular expression is too large",
    "regexp_like(brand, text)": "text in single quotes",
    f"regexp_like(brand, '{'a' * 2000}')": "at most 1,000 characters",
    # Limits.
    "n = 1" + " AND n = 1" * 100_000: "1,000,000",
    "n=1" + " OR n=1" * 5_000: "5,001 conditions",
    "n=1" + " OR n=1" * 20_000: "80,003 words and signs",
    "(" * 50 + "n = 1" + ")" * 50: f"nested more than {MAX_NESTING} deep",
    "NOT " * 50 + "flag": f"nested more than {MAX_NESTING} deep",
    "lower(" * 50 + "brand" + ")" * 50 + " = 'x'": f"nested more than {MAX_NESTING} deep",
    "f = " + "- " * 50 + "1": f"nested more than {MAX_NESTING} deep",
    "f" + " + 1" * 1_000 + " > 0": f"at most {MAX_OPERATORS}",
    "coalesce(" * 7 + "n" + ", 1)" * 7 + " = 1": "functions nested more than 6 deep",
    "(" * 5 + "flag" + " IS TRUE)" * 5: "comparisons nested more than 4 deep",
    "flag IN (flag" + ", flag" * 10 + ")": "a list with 11 members",
    f"n IN ({', '.join(map(str, range(MAX_LIST + 1)))})": "more than 10,000 values",
    f"brand = '{'x' * 10_001}'": "10,001 characters",
    f"n = {'9' * 500}": "more than any number",
}


@pytest.mark.parametrize("where", REFUSED, ids=lambda where: where[:40].encode("ascii", "backslashreplace").decode())
def test_what_is_no_filter_is_told(store: Store, where: str) -> None:
    with pytest.raises(
        FilterError, match=f"(?s)^cannot filter by .*{REFUSED[where]}.*\ncolumns here: id, uri, sha256, k"
    ):
        store.scan(["id"], where=where)
    with pytest.raises(FilterError):
        store.row_ids(where=where)


@pytest.mark.parametrize("where", [5, b"n = 1", ["n = 1"], True, object()])
def test_a_filter_is_a_text(store: Store, where: Any) -> None:
    with pytest.raises(FilterError, match="a filter is a text in SQL"):
        store.row_ids(where=where)


def test_names_are_found_however_they_are_composed() -> None:
    from mmalign.store.filters import to_lance

    schema = pa.schema([("ann\u00e9e", pa.int64()), ("Kind", pa.string()), ("kinD", pa.string())])
    for where in ("anne\u0301e > 2", '"anne\u0301e" > 2', "ANN\u00c9E > 2", "ann\u00e9e > 2"):
        assert to_lance(where, schema) == "`ann\u00e9e` >= 3"
    assert to_lance("Kind = 'x'", schema) == "`Kind` = 'x'"
    for where in ("kind = 'x'", '"ANN\u00c9E" > 2'):
        with pytest.raises(FilterError, match="did you mean"):
            to_lance(where, schema)


def test_what_the_limits_allow_is_answered(store: Store) -> None:
    everything = expected(lambda row: row["n"] is not None, True)
    assert found(store, " AND ".join(["n <> 5"] * MAX_CONDITIONS)) == everything
    assert found(store, " OR ".join(f"n = {i}" for i in range(MAX_CONDITIONS))) == ["a", "e"]
    assert found(store, f"n IN ({', '.join(map(str, range(MAX_LIST)))})") == ["a", "e"]
    assert found(store, f"brand IN ({', '.join(repr(f'brand {i}') for i in range(MAX_LIST - 1))}, 'x')") == ["a", "f"]
    assert found(store, "small" + " + 1" * MAX_OPERATORS + f" = {MAX_OPERATORS + 2}") == ["d"]
    assert found(store, '"order"' + " + 1" * MAX_OPERATORS + f" = {MAX_OPERATORS + 1}") == ["a"]
    assert found(store, "brand" + " || '!'" * MAX_OPERATORS + f" = 'x{'!' * MAX_OPERATORS}'") == ["a", "f"]
    assert found(store, "(" * MAX_NESTING + "n = 1" + ")" * MAX_NESTING) == ["a"]
    assert found(store, "NOT " * MAX_NESTING + "flag") == ["a", "d"]
    inner = "n = 1"
    for i in range(MAX_NESTING):
        inner = f"(flag OR n = {i + 10} AND {inner} AND NOT flag)"
    assert found(store, inner) == ["a", "d"]
    for wrap in ("lower({})", "coalesce({}, 'y')", "nullif({}, 'y')", "left(({}), 5)", "CAST({} AS TEXT)"):
        inner = "brand"
        for _ in range(MAX_CALLS_NESTED):
            inner = wrap.format(inner)
        assert found(store, f"{inner} = 'x'") == (["a", "f", "g"] if "lower" in wrap else ["a", "f"])
    compared = "flag"
    for _ in range(MAX_COMPARISONS_NESTED):
        compared = f"({compared} IN (flag, true, flag))"
    store.row_ids(where=compared)
    negated = "flag"
    for _ in range(MAX_NESTING // 2):
        negated = f"NOT (NOT ({negated}))"
    assert found(store, negated) == ["a", "d"]


def test_a_renamed_column_is_found_by_the_name_that_it_had(tmp_path: Path) -> None:
    from mmalign.store.filters import to_lance
    from mmalign.store.names import GIVEN

    schema = pa.schema([pa.field("id", pa.string()), pa.field("exif_iso", pa.int64(), metadata={GIVEN: b"exif.iso"})])
    for where in ('"exif.iso" > 100', "exif.iso > 100", "exif_iso > 100", "`exif.iso` > 100", "EXIF.ISO > 100"):
        assert to_lance(where, schema) == "`exif_iso` >= 101"
    with pytest.raises(FilterError, match=r"did you mean exif\.iso"):
        to_lance('"exif.isso" > 100', schema)


def test_a_number_beside_the_ids_says_which_column_may_be_meant(tmp_path: Path) -> None:
    made = Collection.create(tmp_path / "a.mm", encoder=None, dim=2)
    made.add_embeddings(["a", "b"], np.eye(2), metadata={"id": [7, 8]})
    calls: list[Callable[[], Any]] = [
        lambda: made.search(np.ones(2), where='"id" = 7'),
        lambda: made.remove(where="id = 7"),
        lambda: made.to_arrow(where="7 < id"),
    ]
    for call in calls:
        with pytest.raises(FilterError, match=r"id is text, because of row 1: 'a' .*given as id is the column id_"):
            call()
    assert [hit.id for hit in made.search(np.ones(2), where="id_ = 7")] == ["a"]
    digits = Collection.create(tmp_path / "b.mm", encoder=None, dim=2)
    digits.add_embeddings([1, 2], np.eye(2))
    with pytest.raises(FilterError, match=r"id is text, though it holds nothing but numbers, such as '\d', and 2 is"):
        digits.search(np.ones(2), where="id = 2")


def test_a_column_without_a_value_is_told_as_such(tmp_path: Path) -> None:
    made = Store.create(tmp_path / "items.lance", dim=4, schema=item_schema)
    made.ensure_columns(COLUMNS)
    for rows in ([], [{"id": "a"}, {"id": "b"}]):
        if rows:
            made.upsert(rows, np.ones((len(rows), 4)))
        with pytest.raises(FilterError, match="brand is text and holds no value at all yet, and 3 is a") as told:
            made.scan(["id"], where="brand > 3")
        assert "'x'" not in str(told.value)


# Random filters ------------------------------------------------------------------------------------------------------


def random_condition(rng: random.Random, depth: int) -> tuple[str, Callable[[Row], bool | None]]:
    """A condition and the same in Python."""
    # Of comparisons within comparisons, fewer than `MAX_COMPARISONS_NESTED`.
    if depth > 0 and rng.random() < 0.7:
        one, two = random_condition(rng, depth - 1), random_condition(rng, depth - 1)
        kind = rng.choice(["AND", "OR", "NOT", "=", "IS"])
        if kind == "AND":
            return f"({one[0]}) AND ({two[0]})", lambda row: both(one[1](row), two[1](row))
        if kind == "OR":
            return f"({one[0]} OR {two[0]})", lambda row: either(one[1](row), two[1](row))
        if kind == "NOT":
            return f"NOT ({one[0]})", lambda row: None if (value := one[1](row)) is None else not value
        if kind == "=":
            return f"(({one[0]}) = ({two[0]}))", lambda row: equal(one[1](row), two[1](row))
        wanted = rng.choice([True, False])
        return f"(({one[0]}) IS {str(wanted).upper()})", lambda row: one[1](row) is wanted
    column, literals = rng.choice(
        [
            ("n", [0, 1, -7, 2**53, 4.5, -6.5, 10**20, 2**63 - 1]),
            ("small", [0, 2, -7, 50_000, 2.5, 3_000_000_000]),
            ("f", [0, -0.0, 0.1, 2.5, -2.5, 1e300, 3]),
            ("brand", ["x", "X", "", "it's", "Ünïcödé ß", "\\", "%"]),
            ("day", [date(2020, 1, 1), date(2020, 1, 2), date(1, 1, 1), date(9999, 12, 31)]),
            ("taken", [datetime(2020, 1, 2), datetime(2020, 1, 1, 10, 30, 5, 250_000), datetime(9999, 12, 31)]),
        ]
    )
    if rng.random() < 0.15:
        return f"{column} IS NULL", lambda row: row[column] is None
    some = rng.sample(literals, 2)
    kind = rng.choice(["=", "<>", "<", "<=", ">", ">=", "IN", "BETWEEN"])
    if kind == "IN":
        return f"{column} IN ({', '.join(map(written, some))})", known(column)(lambda value: value in some)
    if kind == "BETWEEN":
        return f"{column} BETWEEN {written(some[0])} AND {written(some[1])}", known(column)(
            lambda value: some[0] <= value <= some[1]
        )
    tests: dict[str, Callable[[Any], bool]] = {
        "=": lambda value: value == some[0],
        "<>": lambda value: value != some[0],
        "<": lambda value: value < some[0],
        "<=": lambda value: value <= some[0],
        ">": lambda value: value > some[0],
        ">=": lambda value: value >= some[0],
    }
    return f"{column} {kind} {written(some[0])}", known(column)(tests[kind])


def written(literal: Any) -> str:
    if isinstance(literal, str):
        return "'" + literal.replace("'", "''") + "'"
    return f"'{literal}'" if isinstance(literal, date) else str(literal)


def equal(one: bool | None, two: bool | None) -> bool | None:
    return None if one is None or two is None else one == two


@pytest.mark.parametrize("seed", range(4))
def test_random_conditions_mean_what_python_says(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(150):
        where, truth = random_condition(rng, 3)
        assert found(store, where) == expected(truth, True), where


def test_random_texts_are_refused_or_answered(store: Store) -> None:
    rng = random.Random(3)
    pieces = [
        *COLUMNS,
        *filter_functions.FUNCTIONS,
        *'()[]{},.;:?$@#!~^&|+-*/%<>="`\\',
        "'",
        "'x'",
        "1",
        "2.5",
        "NULL",
        "TRUE",
    ]
    pieces += [
        "AND",
        "OR",
        "NOT",
        "IN",
        "IS",
        "LIKE",
        "BETWEEN",
        "CAST",
        "AS",
        "DOUBLE",
        "DATE",
        "::",
        "||",
        "--",
        "/*",
    ]
    pieces += [
        "SELECT",
        "FROM",
        "\0",
        "\ud800",
        "\u2028",
        "1e999",
        "'2020-01-01'",
        "EXTRACT",
        "ESCAPE",
        "DISTINCT",
        "\n",
    ]
    answered = 0
    for _ in range(3_000):
        where = rng.choice(["", " "]).join(rng.choices(pieces, k=rng.randint(1, 9)))
        try:
            store.row_ids(where=where)
            answered += 1
        except FilterError:
            pass
    assert answered > 0
