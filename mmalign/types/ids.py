"""Identifiers of items, text or integers that stand for their digits, and counts that tell which ids were unknown."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

from mmalign.errors import InputError


def as_ids(ids: Any, *, name: str = "ids") -> list[str]:
    """Return identifiers as text.

    Args:
        ids: A list, set, generator, array or the like of texts and integers. A text alone is none.
        name: What to call it in errors.

    Returns:
        The identifiers in their order.

    Raises:
        InputError: A text or number alone, or an entry that is no identifier; see `as_id`.

    Example:
        >>> as_ids(["a", 12])
        ['a', '12']
    """
    if isinstance(ids, str | bytes | bytearray | Mapping) or not isinstance(ids, Iterable):
        shown = f"{ids!r:.60}"
        remedy = f"; for one item write [{shown}]" if isinstance(ids, str | int) else ""
        raise InputError(f"{name} must be a list of identifiers, got {type(ids).__name__} {shown}{remedy}")
    try:
        entries = list(ids)
    except TypeError as error:
        # A NumPy array or tensor of no dimension says that it can be iterated.
        raise InputError(f"{name} must be a list of identifiers, got {ids!r:.60}") from error
    return [as_id(entry, name=f"{name}[{at}]") for at, entry in enumerate(entries)]


def as_id(value: Any, *, name: str = "id") -> str:
    """Return one identifier as text.

    Args:
        value: Text or an integer, also of NumPy or torch.
        name: What to call it in errors.

    Returns:
        The text; of an integer, its digits.

    Raises:
        InputError: It is neither, text that UTF-8 cannot hold, or text with a NUL character.
    """
    if isinstance(value, str):
        text = str.__str__(value)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"{name} must be text that UTF-8 can hold: {error}") from error
        if "\0" in text:
            # No filter can name it, so that the item could never be looked up.
            raise InputError(f"{name} must be text without NUL characters, got {text!r:.60}; leave them out of it")
        return text
    # NumPy's and torch's truth values say that they are indices.
    if not isinstance(value, bool) and "bool" not in str(getattr(value, "dtype", "")):
        try:
            return str(operator.index(value))
        except TypeError:
            pass
    raise InputError(f"{name} must be text or an integer, got {value!r:.60}")


class ItemCount(int):
    """How many items were changed or removed: a number that also knows which ids no item has.

    Attributes:
        unknown: Those ids, in the order given, each once.
    """

    unknown: tuple[str, ...]

    def __new__(cls, count: int, unknown: Iterable[str] = ()) -> ItemCount:
        """Make the number."""
        made = super().__new__(cls, count)
        made.unknown = tuple(dict.fromkeys(unknown))
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return ItemCount, (int(self), self.unknown)
