"""The digest that tells whether two encoders give the same embeddings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

PROBES = (
    "a photo of a dog",
    "  Two  DOGS, running; in the snow!  ",
    "naïve café 北京 собака 🐕 don't",
    "word " * 300,
)
"""Texts whose token ids stand for what a tokenizer does: case, spaces, punctuation, other scripts, truncation."""


def model_fingerprint(state: Mapping[str, Any], description: Mapping[str, object]) -> str:
    """Digest a model's weights and a description of everything else that decides its embeddings.

    Args:
        state: The state dict; entries that are no tensors are left out. Where the tensors lie does not matter.
        description: JSON-ready values: architecture, preprocessing, tokenizer. No path belongs in it.

    Returns:
        SHA-256 as 64 hex digits.
    """
    import torch

    digest = hashlib.sha256(_canonical(description))
    for name in sorted(state):
        tensor = state[name]
        if not isinstance(tensor, torch.Tensor):
            continue
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor).data)
    return digest.hexdigest()


def tokens_digest(ids: object, vocabulary: Mapping[str, int] | None) -> str:
    """Digest what a tokenizer makes of the probe texts, and its vocabulary.

    Args:
        ids: Token ids of `PROBES`, as nested lists.
        vocabulary: Token to id, where the tokenizer shows it.

    Returns:
        SHA-256 as 64 hex digits.
    """
    return hashlib.sha256(_canonical({"ids": ids, "vocabulary": dict(vocabulary or {})})).hexdigest()


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, default=str).encode()


def _bytes(tensor: torch.Tensor) -> NDArray[np.uint8]:
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    # Viewed as bytes, since NumPy has no bfloat16.
    data: NDArray[np.uint8] = flat.view(torch.uint8).numpy()
    return data
