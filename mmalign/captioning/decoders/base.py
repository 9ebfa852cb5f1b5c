"""What every captioner gives and takes: drafts of a caption, and the interface that writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from mmalign.errors import EncoderMismatchError
from mmalign.utils import Float32Array


@dataclass(frozen=True, slots=True)
class Draft:
    """One caption that a decoder wrote.

    Attributes:
        text: The caption.
        log_likelihood: Of all its tokens, natural logarithm; None where the decoder does not tell.
        score: What the drafts are ranked by, higher is better: log-likelihood a token, or what re-ranking made of it.
    """

    text: str
    log_likelihood: float | None
    score: float


@runtime_checkable
class Decoder(Protocol):
    """Writes captions from a picture's embedding and the captions retrieved for it.

    Attributes:
        name: The spec that loads it again.
    """

    @property
    def name(self) -> str:
        """Spec that loads this decoder again."""
        ...

    def caption(self, vector: Float32Array | None, context: Sequence[str]) -> list[Draft]:
        """Write drafts.

        Args:
            vector: The picture's embedding, shape (dim,), as the encoder gives it; None to write from the context
                alone.
            context: Retrieved captions, best first; none to write from the picture alone.

        Returns:
            At least one draft, best first.
        """
        ...


@runtime_checkable
class ReadsEmbeddings(Protocol):
    """A decoder that was trained to read the embeddings of one encoder, and writes from the picture itself.

    Attributes:
        encoder: That encoder's name; empty where it reads none.
        fingerprint: That encoder's fingerprint; empty where it reads none.
    """

    encoder: str
    fingerprint: str


@runtime_checkable
class CaptionsMany(Protocol):
    """A decoder that writes for several pictures at once."""

    def caption_many(self, vectors: Float32Array, contexts: Sequence[Sequence[str]]) -> list[list[Draft]]:
        """Write drafts for several pictures.

        Args:
            vectors: Their embeddings, shape (n, dim).
            contexts: Retrieved captions for each, best first.

        Returns:
            The drafts of each, best first.
        """
        ...


@runtime_checkable
class ScoresCaptions(Protocol):
    """A decoder that tells how likely a caption is."""

    def log_likelihoods(
        self, text: str, vector: Float32Array | None, contexts: Sequence[Sequence[str]]
    ) -> Float32Array:
        """How likely one caption is with each of several contexts.

        Args:
            text: The caption.
            vector: The picture's embedding, shape (dim,), or None.
            contexts: n lists of retrieved captions, best first.

        Returns:
            Log-likelihoods, shape (n,), float32.
        """
        ...


def check_trained_for(decoder: Decoder, *, encoder: str, fingerprint: str, remedy: str) -> None:
    """Refuse a decoder that reads the embeddings of another encoder.

    Args:
        decoder: The decoder.
        encoder: Name of the encoder whose embeddings it is to read.
        fingerprint: That encoder's.
        remedy: What to do.

    Raises:
        EncoderMismatchError: It was trained for another one.
    """
    if isinstance(decoder, ReadsEmbeddings) and decoder.fingerprint not in ("", fingerprint):
        raise EncoderMismatchError(
            f"the caption decoder {decoder.name} was trained for {decoder.encoder or 'another encoder'} "
            f"({decoder.fingerprint[:8]}), the pictures are embedded by {encoder} ({fingerprint[:8]}); {remedy}"
        )
