"""Files of weights: tensors in safetensors, and beside them one header that says what they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mmalign.errors import InputError

_HEADER = "mmalign"


def write_weights(
    path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any], *, notes: tuple[str, ...]
) -> str:
    """Write tensors and their header to one file.

    Args:
        path: The file.
        tensors: By name, contiguous, on the processor, as they are to be stored.
        header: JSON-ready values, among them `format` (which kind of file this is) and `notes` (texts by name).
        notes: Which notes there must be.

    Returns:
        SHA-256 of the file as 64 hex digits.

    Raises:
        InputError: A note is missing.
        OSError: The disk refused.
    """
    from safetensors.torch import save

    if missing := [name for name in notes if not header["notes"].get(name)]:
        raise InputError(f"expected the notes {', '.join(notes)}; {missing} missing")
    # One entry: safetensors writes several in an order of chance, and the digest would be another each time.
    content = save(dict(tensors), metadata={_HEADER: json.dumps(header, sort_keys=True)})
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def read_weights(path: Path, *, format_: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read what `write_weights` wrote.

    Args:
        path: The file.
        format_: The `format` that its header must have.

    Returns:
        `(header, tensors)`, as they were stored.

    Raises:
        ValueError: It is no such file, or is damaged.
        OSError: It cannot be opened.
    """
    with _opened(path) as stored:
        header = _header(stored)
        if header.get("format") != format_:
            raise ValueError(f"its format is {header.get('format')!r}, expected {format_!r}")
        return header, {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - no iterator


def format_of(path: Path) -> str | None:
    """Say which kind of file a file of weights is.

    Args:
        path: The file.

    Returns:
        The `format` of its header; None where it has none, or is something else.
    """
    try:
        with _opened(path) as stored:
            found = _header(stored).get("format")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as stored:
            yield stored
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _header(stored: Any) -> dict[str, Any]:
    header = json.loads((stored.metadata() or {}).get(_HEADER, "{}"))
    return header if isinstance(header, dict) else {}
