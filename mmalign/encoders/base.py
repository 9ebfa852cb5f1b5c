"""The encoder protocol: what maps texts and pictures into one embedding space."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypeGuard, Union, get_args, runtime_checkable

import numpy as np
from PIL.Image import Image

from mmalign.types import check_choice
from mmalign.utils import Float32Array

if TYPE_CHECKING:
    from mmalign.calibration import Calibration
    from mmalign.types import Box

ImageLike: TypeAlias = Union[Image, str, Path]  # noqa: UP007 - an alias that is also evaluated at run time
"""A decoded RGB picture, or a path to one."""

Role: TypeAlias = Literal["query", "document"]
"""What an embedding is for: `query` to search with, `document` to be searched."""


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

    Whoever writes one may inherit from `EncoderBase`, which gives `encode` for any modality and role. What else an
    encoder may be able to do are protocols of their own: `EncodesByRole`, `StreamsImages`, `TruncatesTexts`,
    `KnowsWords`, `EncodesPatches`, `EncodesBoxes`, `ShortensEmbeddings`, `Calibrated` and `KeepsCalibration`.
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
        """Encode texts that are searched.

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


@runtime_checkable
class EncodesByRole(Protocol):
    """An encoder that is told what an embedding is for, as all that come with mmalign are."""

    def encode(
        self, items: Iterable[Any], *, modality: str, role: Role = "document", batch_size: int | None = None
    ) -> Float32Array:
        """Encode items of one modality.

        Args:
            items: n texts, or n pictures or paths of pictures.
            modality: One of `modalities`.
            role: `query` for what is searched with, `document` for what is searched; some models read them in
                different ways, and for the others it makes no difference.
            batch_size: How many go through the model at once; None for what suits the modality.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.

        Raises:
            InputError: Another modality or role.
            DecodeError: A path cannot be decoded.
        """
        ...

    def encode_query(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        """Encode texts that are searched with: `encode` with modality `text` and role `query`."""
        ...


@runtime_checkable
class StreamsImages(Protocol):
    """An encoder that prepares the next pictures while the model works on the last."""

    def stream_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Iterator[Float32Array]:
        """Encode pictures batch by batch; see `StreamingEncoder.stream_image`."""
        ...


@runtime_checkable
class TruncatesTexts(Protocol):
    """An encoder that can say whether a text is longer than it reads."""

    def truncates(self, text: str) -> bool:
        """Say whether the end of a text is ignored."""
        ...


@runtime_checkable
class EncodesPatches(Protocol):
    """An encoder that may embed the places of a picture, in the same space."""

    @property
    def has_patches(self) -> bool:
        """Whether this one does."""
        ...

    def encode_patches(self, image: ImageLike) -> Float32Array:
        """Embed the places of one picture.

        Args:
            image: The picture.

        Returns:
            Array of shape (h, w, dim), float32, each row of length 1, row 0 at the top.
        """
        ...


@runtime_checkable
class EncodesBoxes(Protocol):
    """An encoder that embeds boxes of a picture from one look at all of it."""

    def encode_boxes(self, image: ImageLike, boxes: Sequence[Box]) -> Float32Array:
        """Embed boxes of one picture.

        Args:
            image: The picture.
            boxes: n boxes in its pixels.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.
        """
        ...


@runtime_checkable
class Calibrated(Protocol):
    """An encoder that may bring what turns the scores of text queries into probabilities."""

    @property
    def calibration(self) -> Calibration | None:
        """A calibration of the encoder's own fingerprint, or None."""
        ...


@runtime_checkable
class KeepsCalibration(Protocol):
    """An encoder beside whose weights a calibration is kept, for all searches with it."""

    @property
    def calibration_path(self) -> Path:
        """Where the calibration of the encoder's fingerprint is kept, or would be."""
        ...


@runtime_checkable
class ShortensEmbeddings(Protocol):
    """An encoder whose embeddings may be cut to their first components, as those of Matryoshka models are made for."""

    def shortened(self, dim: int) -> Encoder:
        """Give the same encoder with shorter embeddings.

        Args:
            dim: How many of the first components are kept, at least 1 and at most the encoder's own `dim`; they are
                scaled to length 1 again.

        Returns:
            An encoder of that `dim`, of a fingerprint of its own and of a `name` that loads it again.
        """
        ...


def shorten(encoder: Encoder, dim: int | None) -> Encoder:
    """Cut the embeddings of an encoder, where they are wider than asked for and it can.

    Args:
        encoder: The encoder.
        dim: The width that is asked for; None for the encoder's own.

    Returns:
        The shorter one; the encoder itself where there is nothing to cut, or it cannot be.
    """
    whole = isinstance(dim, int) and not isinstance(dim, bool) and 1 <= dim < encoder.dim
    return encoder.shortened(dim) if whole and dim is not None and isinstance(encoder, ShortensEmbeddings) else encoder


def encode_query(encoder: Encoder, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
    """Encode texts that are searched with, whether or not the encoder tells them from those that are searched.

    Args:
        encoder: The encoder.
        texts: n texts.
        batch_size: How many go through the model at once.

    Returns:
        Array of shape (n, dim), float32, each row of length 1.
    """
    if isinstance(encoder, EncodesByRole):
        return encoder.encode_query(texts, batch_size=batch_size)
    return encoder.encode_text(texts, batch_size=batch_size)


def has_patches(encoder: Encoder) -> TypeGuard[EncodesPatches]:
    """Say whether an encoder embeds the places of a picture.

    Args:
        encoder: The encoder.

    Returns:
        True where its `encode_patches(image)` can be called.
    """
    return isinstance(encoder, EncodesPatches) and encoder.has_patches


def stream_image(encoder: Encoder, images: Iterable[ImageLike], *, batch_size: int = 32) -> Iterator[Float32Array]:
    """Encode pictures batch by batch, in order, whether or not the encoder can stream by itself.

    Args:
        encoder: The encoder.
        images: Pictures; consumed lazily, a few batches ahead at most.
        batch_size: How many go through the model at once.

    Yields:
        Arrays of shape (b, dim), float32, 1 <= b <= batch_size.
    """
    if isinstance(encoder, StreamsImages):
        yield from encoder.stream_image(images, batch_size=batch_size)
        return
    iterator = iter(images)
    while batch := list(islice(iterator, min(batch_size, sys.maxsize))):
        yield encoder.encode_image(batch, batch_size=batch_size)


class EncoderBase:
    """What every encoder has that has a method for each of its modalities."""

    modalities: frozenset[str]

    def encode(
        self, items: Iterable[Any], *, modality: str, role: Role = "document", batch_size: int | None = None
    ) -> Float32Array:
        """Encode items of one modality; see `Encoder.encode`."""
        check_choice("modality", modality, sorted(self.modalities))
        check_choice("role", role, get_args(Role))
        name = "encode_query" if (modality, role) == ("text", "query") else f"encode_{modality}"
        # By its name: a modality of an encoder of one's own has a method of its own, which no protocol knows.
        method: Callable[..., Float32Array] = getattr(self, name)
        return method(items) if batch_size is None else method(items, batch_size=batch_size)

    def encode_query(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        """Encode texts that are searched with; see `Encoder.encode_query`. As other texts, unless it is overridden."""
        encoded: Float32Array = self.encode(texts, modality="text", role="document", batch_size=batch_size)
        return encoded


class StreamingEncoder(EncoderBase, ABC):
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
