"""Sizes, counts and times as people write them: 32GB, 100e6, 5ms."""

from __future__ import annotations

import math
import re

from mmalign.errors import InputError

_NUMBER = re.compile(r"\s*([0-9][0-9_,]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-zµ]*)\s*")
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_BYTES = {"": 1, "b": 1, "bytes": 1} | {
    name: base**power
    for power, letter in enumerate("kmgt", 1)
    for name, base in ((letter, 1000), (f"{letter}b", 1000), (f"{letter}ib", 1024))
}
_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "min": 60.0, "h": 3600.0}


def parse_count(text: str) -> int:
    """Read a number of things.

    Args:
        text: Such as `1_000_000`, `1,000,000`, `100e6`, `100M`.

    Returns:
        The number, at least 0.

    Raises:
        InputError: Not a whole number.
    """
    value = _parse(text, _COUNTS, "a number such as 1_000_000, 100e6 or 100M")
    if value != int(value):
        raise InputError(f"expected a whole number, got {text!r}")
    return int(value)


def parse_bytes(text: str) -> int:
    """Read a size.

    Args:
        text: Such as `32GB`, `500MB` (powers of 1,000), `4GiB` (of 1,024), or bytes alone.

    Returns:
        Bytes, at least 0.

    Raises:
        InputError: Not a size.

    Example:
        >>> parse_bytes("1.5 GB")
        1500000000
    """
    return round(_parse(text, _BYTES, "a size such as 32GB, 500MB or 4GiB"))


def parse_seconds(text: str) -> float:
    """Read a time.

    Args:
        text: Such as `5ms`, `0.2s`, `2min`, or seconds alone.

    Returns:
        Seconds, at least 0.

    Raises:
        InputError: Not a time.
    """
    return _parse(text, _SECONDS, "a time such as 5ms, 0.2s or 2min")


def _parse(text: str, units: dict[str, int] | dict[str, float], wanted: str) -> float:
    found = _NUMBER.fullmatch(text)
    factor = units.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise InputError(f"expected {wanted}, got {text!r}")
    try:
        value = float(found[1].replace("_", "").replace(",", "")) * factor
    except ValueError as error:
        raise InputError(f"expected {wanted}, got {text!r}") from error
    if math.isinf(value):
        raise InputError(f"expected {wanted}, got {text!r}, which is too large")
    return value


def show_bytes(count: float) -> str:
    """Write a number of bytes in the unit that suits it, such as `11.3 GB`; units are powers of 1,000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB" if count < 1000 else f"{count:,.0f} TB"


def show_seconds(seconds: float) -> str:
    """Write a time in the unit that suits it, such as `3.2 ms` or `5.1 hours`."""
    for least, size, unit in ((172_800, 86_400, "days"), (5400, 3600, "hours"), (90, 60, "minutes"), (1, 1, "s")):
        if seconds >= least:
            return f"{seconds / size:,.3g} {unit}"
    return f"{1e3 * seconds:.3g} ms"


def show_bytes_up(count: int) -> str:
    """Write a number of bytes, rounded up so that a budget of what is written is enough."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{math.ceil(10 * count / size) / 10:g} {unit}"
    return f"{count} bytes"
