"""What every captioner gives and takes: drafts of a caption, and the interface that writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

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
