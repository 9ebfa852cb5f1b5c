"""The whole captioner: a text side, a picture side, their fusion, and the decoder that writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mmalign.captioning.decoders.fusion import Fusion, FusionName, make_fusion
from mmalign.captioning.decoders.gpt import Cache, GPTDecoder
from mmalign.captioning.decoders.tokenizer import BEGIN, END, PADDING
from mmalign.captioning.ngram_votes import NgramVotes, gather_votes
from mmalign.errors import InputError
from mmalign.types import field_values


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """Sizes of a captioner.

    Attributes:
        dim: Width of the encoder's embeddings.
        vocabulary: Number of tokens.
        fusion: How picture and captions are joined.
        width: Width of the decoder's states.
        layers: Its blocks.
        heads: Its attention heads.
        longest: Most tokens of a caption, begin and end included.
        slots: How many slots stand for the picture.
        context: Most retrieved captions whose n-grams count.
        read: How many of them, the best, have a slot in the memory.
        dropout: In training.
    """

    dim: int
    vocabulary: int
    fusion: FusionName = "transformer"
    width: int = 256
    layers: int = 3
    heads: int = 4
    longest: int = 32
    slots: int = 4
    context: int = 32
    read: int = 8
    dropout: float = 0.1

    def __post_init__(self) -> None:
        values = field_values(self)
        for name in ("dim", "vocabulary", "width", "layers", "heads", "slots", "context", "read"):
            if values[name] < 1:
                raise InputError(f"{name} must be at least 1, got {values[name]}")
        if self.longest < 4:
            raise InputError(f"longest must be at least 4, got {self.longest}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)


class VectorEncoder(nn.Module):
    """The picture side: an embedding of the shared space as slots of the decoder's width."""

    def __init__(self, dim: int, width: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.scale = dim**0.5
        self.project = nn.Linear(dim, slots * width)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Map vectors (b, dim), rows of length 1, to slots (b, slots, width)."""
        result: torch.Tensor = self.project(vectors * self.scale)
        return result.reshape(len(vectors), self.slots, -1)


class CaptionEncoder(nn.Module):
    """The text side: each retrieved caption as the mean of its words and its rank, in one slot.

    The order of the words reaches the decoder through `NgramVotes`.

    Args:
        words: The decoder's own words, shared.
        read: How many captions, the best, have a slot.
    """

    def __init__(self, words: nn.Embedding, read: int) -> None:
        super().__init__()
        self.words = words
        self.ranks = nn.Embedding(read, words.embedding_dim)
        self.project = nn.Linear(words.embedding_dim, words.embedding_dim)
        nn.init.normal_(self.ranks.weight, std=0.02)

    def forward(self, captions: torch.Tensor) -> torch.Tensor:
        """Map tokens (b, k, l), `PADDING` where there is none, to slots (b, min(k, read), width)."""
        captions = captions[:, : len(self.ranks.weight)]
        there = (captions != PADDING).unsqueeze(-1)
        mean = (self.words(captions) * there).sum(2) / there.sum(2).clamp(min=1).sqrt()
        result: torch.Tensor = self.project(mean * 16) + self.ranks.weight[: captions.shape[1]]
        return result


@dataclass(frozen=True, slots=True)
class DecoderInputs:
    """What is known of b pictures.

    Attributes:
        vectors: Embeddings, shape (b, dim), float32; a row that is missing is zero.
        seen: Which of them are there, shape (b,), bool.
        captions: Tokens of the retrieved captions, shape (b, k, l), int64, `PADDING` filling up.
        votes: Their n-grams.
    """

    vectors: torch.Tensor
    seen: torch.Tensor
    captions: torch.Tensor
    votes: NgramVotes

    def to(self, device: torch.device) -> DecoderInputs:
        """The same on another device."""
        return DecoderInputs(
            self.vectors.to(device), self.seen.to(device), self.captions.to(device), self.votes.to(device)
        )


def make_inputs(
    vectors: np.ndarray, contexts: Sequence[Sequence[Sequence[int]]], *, seen: np.ndarray | None = None
) -> DecoderInputs:
    """Gather what is known of pictures.

    Args:
        vectors: Embeddings, shape (b, dim), float32.
        contexts: For each its retrieved captions, best first, as token numbers without begin and end; none for a
            picture without.
        seen: Which vectors count, shape (b,), bool; all of them where None.

    Returns:
        The inputs.
    """
    present = np.ones(len(vectors), np.bool_) if seen is None else np.asarray(seen, np.bool_)
    most = max(1, max(map(len, contexts), default=1))
    longest = max(1, max((len(tokens) for captions in contexts for tokens in captions), default=1))
    captions = np.full((len(contexts), most, longest), PADDING, np.int64)
    for row, context in enumerate(contexts):
        for rank, tokens in enumerate(context):
            captions[row, rank, : len(tokens)] = tokens
    return DecoderInputs(
        torch.from_numpy(np.where(present[:, None], vectors, 0).astype(np.float32)),
        torch.from_numpy(present),
        torch.from_numpy(captions),
        gather_votes(contexts),
    )


class MultimodalTransformer(nn.Module):
    """Writes a caption from a picture's embedding and the captions retrieved for it.

    Args:
        text_encoder: From retrieved captions to slots.
        image_encoder: From embeddings to slots.
        fusion: Joins the slots.
        decoder: Writes.

    Source: Ramos et al., SmallCap, 2023, and Sarto et al., Retrieval-Augmented Transformer for Image Captioning, 2022;
    docs/caption-model.md for what the parts bring.
    """

    def __init__(
        self, text_encoder: CaptionEncoder, image_encoder: VectorEncoder, fusion: Fusion, decoder: GPTDecoder
    ) -> None:
        super().__init__()
        self.text_encoder, self.image_encoder = text_encoder, image_encoder
        self.fusion, self.decoder = fusion, decoder

    def remember(self, inputs: DecoderInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the memory that the decoder looks at.

        Args:
            inputs: What is known of b pictures.

        Returns:
            `(memory, mask)` of shapes (b, s, width) and (b, s).
        """
        image = self.image_encoder(inputs.vectors)
        image_mask = inputs.seen[:, None].expand(image.shape[:2])
        text = self.text_encoder(inputs.captions)
        text_mask = (inputs.captions != PADDING).any(-1)[:, : text.shape[1]]
        result: tuple[torch.Tensor, torch.Tensor] = self.fusion(image, image_mask, text, text_mask)
        return result

    def forward(self, inputs: DecoderInputs, tokens: torch.Tensor, cache: Cache | None = None) -> torch.Tensor:
        """Score the next token after each of `tokens` (b, t); shape (b, t, vocabulary)."""
        memory, mask = self.remember(inputs)
        result: torch.Tensor = self.decoder(tokens, memory, mask, inputs.votes, cache)
        return result

    def loss(self, inputs: DecoderInputs, targets: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
        """`-sum_i log P(x_i | x_<i, context)`, averaged over the tokens of all captions, their ends included.

        Args:
            inputs: What is known of b pictures.
            targets: What `pad_targets` gave, shape (b, t + 1).
            smoothing: Share of the probability that is spread over all words (Szegedy et al., 2016).

        Returns:
            A scalar, in nats a token.
        """
        scores = self(inputs, targets[:, :-1])
        return functional.cross_entropy(
            scores.flatten(0, 1), targets[:, 1:].flatten(), ignore_index=PADDING, label_smoothing=smoothing
        )


def pad_targets(captions: Sequence[Sequence[int]], *, longest: int) -> torch.Tensor:
    """Put captions, with begin and end, into one table.

    Args:
        captions: b captions as token numbers.
        longest: Most tokens with begin and end; what exceeds it is cut, and then has no end.

    Returns:
        Shape (b, t), int64, `PADDING` filling up.
    """
    rows = [[BEGIN, *tokens, END][:longest] for tokens in captions]
    table = torch.full((len(rows), max(map(len, rows))), PADDING, dtype=torch.int64)
    for row, tokens in zip(table, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    return table


def make_model(config: DecoderConfig) -> MultimodalTransformer:
    """Make a captioner with random weights from torch's present seed.

    Args:
        config: Its sizes.

    Returns:
        The model, in training mode.

    Raises:
        InputError: Sizes that do not fit together.
    """
    decoder = GPTDecoder(
        vocabulary=config.vocabulary,
        width=config.width,
        layers=config.layers,
        heads=config.heads,
        longest=config.longest,
        dropout=config.dropout,
    )
    return MultimodalTransformer(
        CaptionEncoder(decoder.words, config.read),
        VectorEncoder(config.dim, config.width, config.slots),
        make_fusion(config.fusion, width=config.width, heads=config.heads),
        decoder,
    )
