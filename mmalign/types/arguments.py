"""Checks of what a caller passes: each says which argument was meant, what it takes, and what came."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from mmalign.errors import InputError


def check_type(name: str, value: Any, kinds: type | tuple[type, ...], wanted: str) -> None:
    """Refuse a value of another type.

    Args:
        name: What the caller calls the argument.
        value: What was passed.
        kinds: The types that it may have.
        wanted: What these are, in words.

    Raises:
        InputError: It has another.
    """
    if not isinstance(value, kinds):
        raise InputError(f"{name} must be {wanted}, got {describe(value)}")


def check_text(name: str, value: Any) -> None:
    """Refuse what is no text, as `check_type`."""
    check_type(name, value, str, "a text")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False, those of NumPy included, as `check_type`."""
    if not isinstance(value, bool) and type(value).__name__ not in ("bool_", "bool"):
        raise InputError(f"{name} must be True or False, got {describe(value)}")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse what is none of some texts, as `check_type`."""
    known = list(choices)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} must be {' or '.join(known)}, got {describe(value)}")


def check_share(name: str, value: Any) -> None:
    """Refuse what is no number from 0 to 1, as `check_type`; a text that reads as one is none."""
    if not _is_real(value) or not 0 <= value <= 1:
        raise InputError(f"{name} is a number from 0 to 1, got {describe(value)}")


def check_number(name: str, value: Any) -> None:
    """Refuse what is no finite number, as `check_type`."""
    if not _is_real(value) or not abs(value) < math.inf:
        raise InputError(f"{name} must be a finite number, got {describe(value)}")


def check_integer(name: str, value: Any, *, least: int) -> None:
    """Refuse what is no integer, or below the least, as `check_type`; True and False are none."""
    # Almost every integer is an `int`, and what else is one takes longer to find out.
    if type(value) is int and value >= least:
        return
    # Integers of NumPy say that they are; its booleans do not.
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise InputError(f"{name} is an integer of at least {least}, got {describe(value)}")


def as_path(name: str, value: Any) -> Path:
    """Return a path.

    Args:
        name: What the caller calls the argument.
        value: A text or what stands for a path.

    Returns:
        The path.

    Raises:
        InputError: Neither, or one that no file can have.
    """
    if not isinstance(value, str | os.PathLike) or isinstance(os.fspath(value), bytes):
        raise InputError(f"{name} must be a path, got {describe(value)}")
    text = os.fspath(value)
    try:
        encoded = os.fsencode(text)
    except UnicodeEncodeError as error:
        raise InputError(f"{name}: no file can be named {text!r}") from error
    if b"\0" in encoded or any(len(part) > 255 for part in encoded.split(b"/")) or len(encoded) > 4095:
        raise InputError(f"{name}: no file can be named {describe(text)}")
    return Path(text)


def as_list(name: str, values: Any, wanted: str) -> list[Any]:
    """Return some values as a list.

    Args:
        name: What the caller calls the argument.
        values: Several, in any form that can be gone through; a text or a mapping is none.
        wanted: What they are, in words.

    Returns:
        The values.

    Raises:
        InputError: Not several values.
    """
    if isinstance(values, str | bytes | bytearray | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be {wanted}, got {describe(values)}")
    try:
        return list(values)
    except TypeError as error:
        # An array without a dimension says that it can be gone through.
        raise InputError(f"{name} must be {wanted}, got {describe(values)}") from error


def describe(value: Any) -> str:
    """A value as an error tells it: one line, not long."""
    if value is None or isinstance(value, bool | str | bytes | Real):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:77]}... ({type(value).__name__})"
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if isinstance(shape, tuple) else "")


def _is_real(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
