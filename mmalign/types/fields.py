"""The fields of a dataclass by name, for what looks at several of them in the same way."""

from __future__ import annotations

from dataclasses import fields
from typing import Any


def field_values(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass with their values, as they are: unlike `dataclasses.asdict`, nothing is copied.

    Args:
        value: An object of a dataclass.

    Returns:
        Values by name, in the order of the fields.

    Example:
        >>> from mmalign.types import Skip
        >>> field_values(Skip("a.png", "not found"))
        {'uri': 'a.png', 'reason': 'not found'}
    """
    return {field.name: getattr(value, field.name) for field in fields(value)}
