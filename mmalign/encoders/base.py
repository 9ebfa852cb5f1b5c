"""The encoder protocol: what maps texts and pictures into one embedding space."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeAlias, Union, runtime_checkable

import numpy as np
from PIL.Image import Image

from mmalign.utils import Float32Array

ImageLike: TypeAlias = Union[Image, str, Path]  # noqa: UP007 - an alias that is also evaluated at run time
"""A decoded RGB picture, or a path to one."""


@dataclass(frozen=True, slots=True)
class KnownWords:
    """Which words of a text an encoder can tell from others.

    Attributes:
        words: How many words the text has; signs and punctuation are none.
        unknown: Those that it cannot, each once, in order of the text.
        nothing: Whether no word is known: the text's embedding then says nothing about what it means.
    """

    words: int
    unknown: tuple[str, ...]
    nothing: bool


@runtime_checkable
class KnowsWords(Protocol):
    """An encoder that can say which words it does not know."""

    def knows(self, text: str) -> KnownWords:
        """Say which words of a text are known.

        Args:
            text: The text.

        Returns:
            How many words there are, and those that are unknown.
        """
        ...


@runtime_checkable
class Encoder(Protocol):
    """Maps texts and pictures into one embedding space.

    Attributes:
        name: The versioned spec that loads this encoder again, such as `lite@1`.
        dim: Width of an embedding.
        fingerprint: Hex digest of all that decides an embedding: weights, preprocessing, tokenizer.
        modalities: What it can encode: a subset of {"text", "image"}.

    An encoder may also have `stream_image(images, *, batch_size)`, which yields the embeddings of consecutive
    batches while it prepares the next ones, and `truncates(text)`, which says whether a text is longer than it
    reads; and `knows(text)`, which says which words it does not know (`KnowsWords`); and `calibration`, a
    `Calibration` of its own fingerprint or None, which turns the scores of text queries into
    probabilities; and `encode_patches(image)`, which embeds the places of one picture in the same space: an array of
    shape (h, w, dim), float32, each row of length 1, row 0 at the top. An encoder of which some models can do that and
    others cannot says so in `has_patches`.
    """

    @property
    def name(self) -> str:
        """Spec that loads this encoder again."""
        ...

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        ...

    @property
    def fingerprint(self) -> str:
        """Digest of all that decides an embedding."""
        ...

    @property
    def modalities(self) -> frozenset[str]:
        """What it can encode."""
        ...

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        """Encode texts.

        Args:
            texts: n texts; what exceeds the model's context length is ignored.
            batch_size: How many go through the model at once.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.
        """
        ...

    def encode_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Float32Array:
        """Encode pictures.

        Args:
            images: n decoded pictures (any PIL mode) or paths.
            batch_size: How many go through the model at once.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.

        Raises:
            DecodeError: A path cannot be decoded.
        """
        ...


def has_patches(encoder: Encoder) -> bool:
    """Say whether an encoder embeds the places of a picture.

    Args:
        encoder: The encoder.

    Returns:
        True where its `encode_patches(image)` can be called.
    """
    return hasattr(encoder, "encode_patches") and bool(getattr(encoder, "has_patches", True))


def stream_image(encoder: Encoder, images: Iterable[ImageLike], *, batch_size: int = 32) -> Iterator[Float32Array]:
    """Encode pictures batch by batch, in order, whether or not the encoder can stream by itself.

    Args:
        encoder: The encoder.
        images: Pictures; consumed lazily, a few batches ahead at most.
        batch_size: How many go through the model at once.

    Yields:
        Arrays of shape (b, dim), float32, 1 <= b <= batch_size.
    """
    own = getattr(encoder, "stream_image", None)
    if own is not None:
        yield from own(images, batch_size=batch_size)
        return
    iterator = iter(images)
    while batch := list(islice(iterator, min(batch_size, sys.maxsize))):
        yield encoder.encode_image(batch, batch_size=batch_size)


class StreamingEncoder(ABC):
    """What encoders share that prepare the next pictures while the model works on the last.

    Attributes:
        dim: Width of an embedding.
    """

    dim: int

    @abstractmethod
    def stream_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Iterator[Float32Array]:
        """Encode pictures batch by batch, in order, while worker threads prepare the next batches.

        Args:
            images: Pictures of any PIL mode, or paths; consumed lazily, two batches ahead at most.
            batch_size: How many go through the model at once.

        Yields:
            Arrays of shape (b, dim), float32, 1 <= b <= batch_size, each row of length 1.

        Raises:
            DecodeError: A path cannot be decoded; the embeddings of all pictures before it are yielded first.
            InputError: Neither a picture nor a path, a batch size below 1, or a model that reads text alone.
            ModelUnavailableError: A weight file has other bytes than expected.
        """

    def encode_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Float32Array:
        """Encode pictures.

        Args:
            images: n pictures of any PIL mode, or paths.
            batch_size: How many go through the model at once.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.

        Raises:
            DecodeError: A path cannot be decoded.
            InputError: As `stream_image`.
            ModelUnavailableError: As `stream_image`.
        """
        blocks = list(self.stream_image(images, batch_size=batch_size))
        return np.concatenate(blocks) if blocks else np.zeros((0, self.dim), np.float32)
