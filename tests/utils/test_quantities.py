from __future__ import annotations

import pytest

from mmalign.errors import InputError
from mmalign.utils.quantities import parse_bytes, parse_count, parse_seconds, show_bytes, show_bytes_up, show_seconds


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("1_000_000", 10**6), ("1,000,000", 10**6), ("100e6", 10**8), ("1.5M", 1_500_000), (" 2 k ", 2000),
     ("3B", 3 * 10**9), ("1E3", 1000)],
)  # fmt: skip
def test_counts(text: str, value: int) -> None:
    assert parse_count(text) == value


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5", "1GB", "e6", "1e400", "nan", "inf", "1 2", "0x10"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(InputError, match="expected a") as caught:
        parse_count(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("32GB", 32 * 10**9), ("500MB", 500 * 10**6), ("4GiB", 4 << 30), ("4gib", 4 << 30), ("1.5 TB", 1_500_000_000_000),
     ("123", 123), ("7B", 7), ("64k", 64_000), ("2KiB", 2048)],
)  # fmt: skip
def test_sizes(text: str, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "GB", "32 gigs", "-4GB", "32GB of memory", "5ms"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match="expected a size such as 32GB, 500MB or 4GiB, got"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "value"), [("5ms", 0.005), ("0.2s", 0.2), ("3", 3.0), ("250us", 2.5e-4), ("2min", 120.0), ("1h", 3600.0)]
)
def test_times(text: str, value: float) -> None:
    assert parse_seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "soon", "5 GB", "-1s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(InputError, match="expected a time such as 5ms"):
        parse_seconds(text)


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 12_345, 999_499, 10**6, 113 * 10**8, 10**12, 5 * 10**15])
def test_sizes_are_written_and_read_again(count: int) -> None:
    written = show_bytes(count)
    assert parse_bytes(written.replace(",", "")) == pytest.approx(count, rel=6e-3)
    # What is recommended as a budget has to be enough.
    assert count <= parse_bytes(show_bytes_up(count)) <= 1.1 * count + 1


def test_times_are_written() -> None:
    assert [show_seconds(one) for one in (0.0032, 1.0, 75, 600, 7200, 10**6)] == [
        "3.2 ms",
        "1 s",
        "75 s",
        "10 minutes",
        "2 hours",
        "11.6 days",
    ]
