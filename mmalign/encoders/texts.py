"""Texts, as the encoders that run on torch take them."""

from __future__ import annotations

from collections.abc import Sequence

from mmalign.errors import InputError


def check_texts(texts: Sequence[str], *, batch_size: int) -> list[str]:
    """Return the texts as a list, or say what is wrong with the call.

    Args:
        texts: A sequence of texts.
        batch_size: How many go through the model at once.

    Returns:
        The texts.

    Raises:
        InputError: One text instead of a sequence, an entry that is no text, or a batch size below 1.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    if isinstance(texts, str):
        # Its characters would be encoded one by one.
        raise InputError(f"expected a sequence of texts, got one text; pass [{texts[:40]!r}]")
    result = list(texts)
    for position, text in enumerate(result):
        if not isinstance(text, str):
            raise InputError(f"expected texts, entry {position} is of type {type(text).__name__}")
    return result
