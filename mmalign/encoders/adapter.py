"""The adapter: a small network, run in NumPy, from frozen features to the shared space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders.minilm import gelu_
from mmalign.similarity import Float32Array, l2_normalize

# Rows computed at once, always the same number. BLAS picks another kernel, and with it other last digits, for a
# matrix of another height; a fixed height makes an embedding independent of its batch to the last bit.
_ROWS = 32


class Adapter:
    """`normalize(linear(x) + output(gelu(hidden(x))))`.

    Args:
        tensors: `linear.weight` (dim, inputs), `linear.bias` (dim,), and, for the second term, `hidden.weight`
            (units, inputs), `hidden.bias`, `output.weight` (dim, units); any float dtype.

    Source: a residual two-layer projection head, as in Chen et al., SimCLR v2, 2020.
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}

    @property
    def inputs(self) -> int:
        """Width of the features."""
        return int(self._tensors["linear.weight"].shape[1])

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return int(self._tensors["linear.weight"].shape[0])

    def __call__(self, features: Float32Array) -> Float32Array:
        """Project features.

        Args:
            features: Array of shape (n, inputs), float32.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.
        """
        result = np.empty((len(features), self.dim), np.float32)
        for start in range(0, len(features), _ROWS):
            rows = features[start : start + _ROWS]
            padded = np.zeros((_ROWS, self.inputs), np.float32)
            padded[: len(rows)] = rows
            result[start : start + len(rows)] = self._project(padded)[: len(rows)]
        return l2_normalize(result)

    def _project(self, features: Float32Array) -> Float32Array:
        tensors = self._tensors
        result: Float32Array = features @ tensors["linear.weight"].T
        result += tensors["linear.bias"]
        if "hidden.weight" in tensors:
            hidden = features @ tensors["hidden.weight"].T
            hidden += tensors["hidden.bias"]
            result += gelu_(hidden) @ tensors["output.weight"].T
        return result
