"""The adapter: a small network, run in NumPy, from frozen features to the shared space."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmalign.encoders.lite.minilm import gelu_
from mmalign.encoders.lite.quantised import Tensor, to_float32
from mmalign.utils import Float32Array, l2_normalize

# Rows computed at once, always the same number. BLAS picks another kernel, and with it other last digits, for a
# matrix of another height; a fixed height makes an embedding independent of its batch to the last bit.
_ROWS = 32


class Adapter:
    """`normalize(y / |y| + softmax(classifier(x[:c])) @ prior)` with `y = linear(x) + output(gelu(hidden(x)))`.

    The second term of `y`, and the prior, are there where their tensors are. The prior adds the embeddings of the
    classes that a classifier sees in the picture, weighted by their probabilities; `x[:c]` is the part of the features
    that the classifier was trained on. It is added to a row of length 1, so that it weighs the same whatever the
    length of `y`.

    Args:
        tensors: `linear.weight` (dim, inputs) and `linear.bias` (dim,); for the second term `hidden.weight` (units,
            inputs), `hidden.bias` and `output.weight` (dim, units); for the third `classifier.weight` (classes, c)
            and `classifier.bias`, both divided by the temperature, and `prior.weight` (classes, dim). Any float
            dtype, or quantised.

    Source: a residual two-layer projection head, as in Chen et al., SimCLR v2, 2020; convex combinations of class
    embeddings, Norouzi et al., ConSE, 2014.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = {name: to_float32(tensor) for name, tensor in tensors.items()}

    @property
    def inputs(self) -> int:
        """Width of the features."""
        return int(self._tensors["linear.weight"].shape[1])

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return int(self._tensors["linear.weight"].shape[0])

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(tensor.size for tensor in self._tensors.values())

    def __call__(self, features: Float32Array) -> Float32Array:
        """Project features.

        Args:
            features: Array of shape (n, inputs), float32.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.
        """
        return l2_normalize(self.project(features))

    def project(self, features: Float32Array) -> Float32Array:
        """Project features, and keep how long `y` was.

        Args:
            features: Array of shape (n, inputs), float32.

        Returns:
            Array of shape (n, dim), float32: the rows before the last normalisation, times `|y|`.
        """
        result = np.empty((len(features), self.dim), np.float32)
        for start in range(0, len(features), _ROWS):
            rows = features[start : start + _ROWS]
            padded = np.zeros((_ROWS, self.inputs), np.float32)
            padded[: len(rows)] = rows
            result[start : start + len(rows)] = self._project(padded)[: len(rows)]
        return result

    def _project(self, features: Float32Array) -> Float32Array:
        tensors = self._tensors
        result: Float32Array = features @ tensors["linear.weight"].T
        result += tensors["linear.bias"]
        if "hidden.weight" in tensors:
            hidden = features @ tensors["hidden.weight"].T
            hidden += tensors["hidden.bias"]
            result += gelu_(hidden) @ tensors["output.weight"].T
        if "prior.weight" in tensors:
            classifier = tensors["classifier.weight"]
            scores = features[:, : classifier.shape[1]] @ classifier.T
            scores += tensors["classifier.bias"]
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=1, keepdims=True)
            result += np.linalg.norm(result, axis=1, keepdims=True) * (scores @ tensors["prior.weight"])
        return result
