"""A checksum inside a small JSON file: readers that do not know it pass it over, and a flipped bit is noticed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

CHECKSUM_KEY = "checksum"


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add a checksum of all other entries.

    Args:
        values: JSON-ready values by name.

    Returns:
        The same with the entry `checksum`, 8 hex digits: CRC-32 of the others as sorted JSON.
    """
    return {**values, CHECKSUM_KEY: _checksum(values)}


def holds_checksum(values: Mapping[str, Any]) -> bool:
    """Whether values are those that `with_checksum` was given; also where they have no checksum.

    Args:
        values: What was read.
    """
    return CHECKSUM_KEY not in values or values[CHECKSUM_KEY] == _checksum(values)


def _checksum(values: Mapping[str, Any]) -> str:
    others = {name: value for name, value in values.items() if name != CHECKSUM_KEY}
    # Once through JSON: there, tuples are lists, and keys are texts.
    text = json.dumps(json.loads(json.dumps(others)), sort_keys=True, ensure_ascii=True)
    return f"{zlib.crc32(text.encode()):08x}"
