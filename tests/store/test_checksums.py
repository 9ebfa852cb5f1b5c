"""Checksums of embeddings and of rows, compared with the same formulas in plain Python."""

from __future__ import annotations

import datetime
import math
import struct
import zlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mmalign.store.checksums import CHECKSUM, embedding_checksums, row_checksums, with_checksums

BITS = (1 << 64) - 1


def mixed(word: int) -> int:
    """The finaliser of MurmurHash3, of 64 bits."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        word = (word ^ word >> 33) * factor & BITS
    return word ^ word >> 33


def summed(raw: bytes) -> int:
    """The checksum of one embedding's bytes, in Python's integers."""
    words = struct.unpack(f"<{-(-len(raw) // 4)}I", raw + b"\0" * (-len(raw) % 4))
    total = mixed(1) + sum(word * mixed(place + 2) for place, word in enumerate(words))
    return (total & BITS) >> 32


def random_halves(rows: int, dim: int, seed: int) -> np.ndarray:
    """Every pattern of bits, those of no number too."""
    return np.random.default_rng(seed).integers(0, 1 << 16, (rows, dim), dtype=np.uint16).view(np.float16)


@pytest.mark.parametrize(
    ("rows", "dim"),
    [(0, 16), (1, 1), (1, 2), (3, 7), (5, 8), (1, 768), (1, 769), (511, 3), (512, 4), (513, 5), (1025, 6), (1536, 1)],
)
def test_embedding_checksums_are_those_of_the_formula(rows: int, dim: int) -> None:
    made = random_halves(rows, dim, seed=rows + dim)
    found = embedding_checksums(made)
    assert found.dtype == np.uint32
    assert found.tolist() == [summed(row.tobytes()) for row in made]


def test_embedding_checksums_of_parts_and_of_views() -> None:
    made = random_halves(700, 10, seed=1)
    whole = embedding_checksums(made)
    assert [int(embedding_checksums(made[place : place + 1])[0]) for place in range(0, 700, 7)] == whole[::7].tolist()
    assert embedding_checksums(made[::3]).tolist() == whole[::3].tolist()
    assert embedding_checksums(np.asfortranarray(made)).tolist() == whole.tolist()


@pytest.mark.parametrize("dim", [5, 24])
def test_every_bit_of_an_embedding_counts(dim: int) -> None:
    made = np.repeat(random_halves(1, dim, seed=2), 16 * dim + 1, axis=0)
    words = made.view(np.uint16)
    for bit in range(16 * dim):
        words[bit, bit // 16] ^= 1 << bit % 16
    assert len(set(embedding_checksums(made).tolist())) == 16 * dim + 1


@pytest.mark.parametrize("bit", range(16))
def test_two_flips_of_the_same_bit_do_not_cancel(bit: int) -> None:
    """Of any two numbers, and of the top bits above all, whose sum overflows."""
    dim = 12
    pairs = [(one, two) for one in range(dim) for two in range(one)]
    made = np.repeat(random_halves(1, dim, seed=3), len(pairs) + 1, axis=0)
    words = made.view(np.uint16)
    for row, pair in enumerate(pairs):
        words[row, list(pair)] ^= 1 << bit
    sums = embedding_checksums(made)
    assert (sums[:-1] != sums[-1]).all()


def test_random_damage_of_embeddings_is_noticed() -> None:
    """One in four thousand million is not, so that none of a thousand is missed."""
    made, local = random_halves(1000, 16, seed=4), np.random.default_rng(5)
    other = made.copy()
    for row in other.view(np.uint16):
        places = local.choice(16, int(local.integers(1, 17)), replace=False)
        row[places] ^= local.integers(1, 1 << 16, len(places), dtype=np.uint16)
    assert (embedding_checksums(made) != embedding_checksums(other)).all()


# Rows -----------------------------------------------------------------------------------------------------------------

TEXTS = ["", "a", "cat", "\x1e", "\x1f", "\0", "ä \N{GRINNING FACE}", "a" * 300, "1", "true", "0"]
SOME_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF8_0000_0000_0123))[0]
FLOATS = [0.0, -0.0, math.nan, SOME_NAN, math.inf, -math.inf, 1.5, 5e-324, 1e308, -2.0]
INTEGERS = [0, 1, -1, 2**63 - 1, -(2**63), 12]
MOMENTS = [datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999), datetime.datetime(2024, 2, 29, 12, 30)]
DAYS = [datetime.date(1969, 12, 31), datetime.date(1970, 1, 1), datetime.date(2024, 2, 29)]
SOME: dict[str, tuple[pa.DataType, list[Any]]] = {
    "text": (pa.string(), TEXTS),
    "integer": (pa.int64(), INTEGERS),
    "short": (pa.int32(), [0, 1, -1, 2**31 - 1]),
    "count": (pa.uint32(), [0, 1, 2**32 - 1]),
    "number": (pa.float64(), FLOATS),
    "single": (pa.float32(), [0.0, -0.0, math.nan, 0.5]),
    "flag": (pa.bool_(), [True, False]),
    "moment": (pa.timestamp("us"), MOMENTS),
    "zoned": (pa.timestamp("us", tz="UTC"), [moment.replace(tzinfo=datetime.UTC) for moment in MOMENTS]),
    "day": (pa.date32(), DAYS),
    "texts": (pa.list_(pa.string()), [[], [""], ["", ""], ["a"], ["a", "b"], ["ab"], [None], ["a", None], [None, "a"]]),
    "integers": (pa.list_(pa.int64()), [[], [0], [1, 2], [12], [None], [1, None], [2**63 - 1, -(2**63)]]),
    "numbers": (pa.list_(pa.float64()), [[], [0.0], [-0.0], [0.0, math.nan], [None], [1.5, None], [math.inf]]),
    "flags": (pa.list_(pa.bool_()), [[], [True], [False], [True, False], [None]]),
}


def random_rows(count: int, seed: int) -> pa.Table:
    """Rows of all kinds of columns, a third of the values null."""
    local = np.random.default_rng(seed)
    columns = {"id": pa.array([f"n{row}" for row in range(count)])}
    for name, (kind, values) in SOME.items():
        chosen = [values[int(local.integers(len(values)))] if local.random() < 2 / 3 else None for _ in range(count)]
        columns[name] = pa.array(chosen, kind)
    return pa.table(columns)


def spelled(value: Any, kind: pa.DataType) -> str:
    """How the documented formula spells a value, written anew."""
    if pa.types.is_string(kind):
        return str(value)
    if pa.types.is_boolean(kind):
        return "true" if value else "false"
    if kind == pa.float64():
        return str(struct.unpack("<q", struct.pack("<d", value))[0])
    if kind == pa.float32():
        return str(struct.unpack("<i", struct.pack("<f", value))[0])
    if pa.types.is_date(kind):
        return str((value - datetime.date(1970, 1, 1)).days)
    if pa.types.is_timestamp(kind):
        start = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC if kind.tz else None)
        return str((value - start) // datetime.timedelta(microseconds=1))
    if pa.types.is_list(kind):
        if pa.types.is_string(kind.value_type) or pa.types.is_integer(kind.value_type):
            return "\x1f".join([str(len(value)), *("\0" if one is None else str(one) for one in value)]) + (
                "" if value else "\x1f"
            )
        return repr(value)
    return str(int(value))


def row_summed(row: dict[str, Any], kinds: dict[str, pa.DataType]) -> int:
    names = sorted(name for name in row if name not in ("embedding", CHECKSUM) and row[name] is not None)
    return zlib.crc32("\x1e".join(spelled(row[name], kinds[name]) for name in names).encode())


@pytest.mark.parametrize("count", [0, 1, 2, 64, 65, 200])
def test_row_checksums_are_those_of_the_formula(count: int) -> None:
    rows = random_rows(count, seed=count)
    kinds = dict(zip(rows.column_names, rows.schema.types, strict=True))
    found = row_checksums(rows)
    assert found.dtype == np.uint32
    assert found.tolist() == [row_summed(row, kinds) for row in rows.to_pylist()]


def test_what_collections_on_disk_hold_is_not_moved_away_from() -> None:
    """Figures that were written once: another formula would call every collection damaged."""
    rows = pa.table(
        {
            "id": ["n0"],
            "title": ["caf\N{LATIN SMALL LETTER E WITH ACUTE}"],
            "year": pa.array([1999], pa.int64()),
            "score": pa.array([-0.0], pa.float64()),
            "kept": pa.array([True]),
            "taken": pa.array([datetime.datetime(1999, 12, 31, 23, 59)], pa.timestamp("us")),
            "none": pa.array([None], pa.string()),
            "captions": pa.array([["a cat", ""]]),
            "sizes": pa.array([[0.5, None]]),
        }
    )
    assert row_checksums(rows).tolist() == [4027647455]
    assert embedding_checksums(np.arange(-3, 4, dtype=np.float16)[None]).tolist() == [806736510]


@pytest.mark.parametrize("seed", range(3))
def test_row_checksums_are_the_same_however_many_are_asked_for(seed: int) -> None:
    rows = random_rows(150, seed)
    whole = row_checksums(rows).tolist()
    assert [int(row_checksums(rows.slice(row, 1))[0]) for row in range(150)] == whole
    assert row_checksums(rows.slice(20, 30)).tolist() == whole[20:50]
    assert row_checksums(rows.slice(31, 70)).tolist() == whole[31:101]
    pieces = pa.concat_tables([rows.slice(0, 7), rows.slice(7, 100), rows.slice(107)])
    assert row_checksums(pieces).tolist() == whole
    turned = np.random.default_rng(seed).permutation(150)
    assert row_checksums(rows.take(turned)).tolist() == [whole[row] for row in turned]


def test_many_rows_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = random_rows(300, seed=9)
    whole = row_checksums(rows).tolist()
    monkeypatch.setattr("mmalign.store.checksums._BLOCK_BYTES", rows.nbytes // 4)
    assert row_checksums(rows).tolist() == whole


def test_neighbours_in_a_block_do_not_count() -> None:
    """A null within a list of one row changes how the others of its block are read."""
    plain = pa.table({"texts": pa.array([["a", "b"]] * 80), "integers": pa.array([[1, 2]] * 80)})
    mixed_rows = pa.table({"texts": pa.array([*[["a", "b"]] * 79, [None]]), "integers": pa.array([[1, 2]] * 80)})
    assert row_checksums(mixed_rows).tolist()[:79] == row_checksums(plain).tolist()[:79]


@pytest.mark.parametrize("count", [3, 90])
def test_a_column_of_nulls_and_the_order_of_columns_do_not_count(count: int) -> None:
    rows = random_rows(count, seed=11)
    whole = row_checksums(rows).tolist()
    for name, (kind, _) in SOME.items():
        assert row_checksums(rows.append_column(f"{name}2", pa.nulls(count, kind))).tolist() == whole
    assert row_checksums(rows.select(rows.column_names[::-1])).tolist() == whole
    summed_rows = with_checksums(rows, random_halves(count, 4, seed=1))
    assert summed_rows.column(CHECKSUM).to_pylist() != whole, "the embedding's checksum counts"
    assert row_checksums(summed_rows).tolist() == summed_rows.column(CHECKSUM).to_pylist(), "its own does not"
    beside = rows.append_column("embedding", pa.nulls(count, pa.list_(pa.float16(), 4)))
    assert row_checksums(beside).tolist() == whole


@pytest.mark.parametrize("many", [1, 70])
@pytest.mark.parametrize("name", SOME)
def test_different_values_differ(name: str, many: int) -> None:
    """Each of a kind from every other and from none, asked for in a few rows and in many."""
    kind, values = SOME[name]
    values = [None, *values]
    column = pa.array(values * many, kind)
    rows = pa.table({"id": pa.array(["x"] * len(column)), name: column, "zz": pa.array(["y"] * len(column))})
    found = row_checksums(rows)[: len(values)].tolist()
    assert len(set(found)) == len(values)


@pytest.mark.parametrize("many", [1, 70])
def test_texts_that_are_split_otherwise_differ(many: int) -> None:
    rows = {
        "a": ["ab", "a", "", None, "ab", "a", "b"],
        "b": ["c", "bc", "abc", "abc", None, "c", "ac"],
        "c": [None, None, None, "", "c", "b", ""],
    }
    table = pa.table({name: pa.array(values * many, pa.string()) for name, values in rows.items()})
    found = row_checksums(table)[:7].tolist()
    assert len(set(found)) == 6, "only which column is null is not told apart"
    assert found[0] == found[4]


@pytest.mark.parametrize("name", ["text", "texts"])
def test_bytes_that_are_no_text_have_a_checksum(name: str) -> None:
    """What damage leaves: it is said to be damaged, and nothing breaks."""
    good = pa.array(["caf\N{LATIN SMALL LETTER E WITH ACUTE}", "tea"] * 40)
    raw = bytearray(good.buffers()[2].to_pybytes())
    raw[4] = 0xFF
    bad = pa.Array.from_buffers(pa.string(), len(good), [None, good.buffers()[1], pa.py_buffer(bytes(raw))])
    if name == "texts":
        offsets = pa.array(range(len(good) + 1), pa.int32())
        good, bad = (pa.ListArray.from_arrays(offsets, one) for one in (good, bad))
    before, after = (row_checksums(pa.table({name: one})).tolist() for one in (good, bad))
    assert [row for row in range(80) if before[row] != after[row]] == [0]
    for count in (1, 3):
        few = row_checksums(pa.table({name: bad.slice(0, count)})).tolist()
        assert few[0] != before[0]
        assert few[1:] == before[1:count]
