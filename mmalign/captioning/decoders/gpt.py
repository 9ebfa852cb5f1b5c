"""A small GPT that looks at a memory: learnt positions, the norm before each part, input and output words tied."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional

from mmalign.captioning.decoders.tokenizer import PADDING
from mmalign.captioning.ngram_votes import ORDERS, NgramVotes, vote_features
from mmalign.errors import InputError


@dataclass(slots=True)
class Cache:
    """What earlier steps leave for later ones.

    Attributes:
        steps: Keys and values of the tokens so far, a pair a layer, each of shape (b, heads, t, width / heads).
        memory: Keys and values of the memory, a pair a layer.
        last: The last token of each row, shape (b, 1), which the next step's trigrams need; None at the beginning.
    """

    steps: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    memory: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    last: torch.Tensor | None = None

    @property
    def length(self) -> int:
        """Number of tokens so far."""
        return self.steps[0][0].shape[2] if self.steps else 0

    def reorder(self, rows: torch.Tensor) -> None:
        """Keep these rows in this order, as a beam search does."""
        self.steps = [(key[rows], value[rows]) for key, value in self.steps]
        self.memory = [(key[rows], value[rows]) for key, value in self.memory]
        self.last = None if self.last is None else self.last[rows]


class DecoderBlock(nn.Module):
    """Attention to earlier tokens, attention to the memory, two dense layers."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(3)])
        self.own, self.own_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.memory_out = nn.Linear(width, width)
        self.dense = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: torch.Tensor, memory: torch.Tensor, mask: torch.Tensor, cache: Cache, layer: int
    ) -> torch.Tensor:
        """One layer; the cache gets this layer's keys and values."""
        query, key, value = map(self._split, self.own(self.norms[0](x)).chunk(3, dim=-1))
        if layer < len(cache.steps):
            earlier_key, earlier_value = cache.steps[layer]
            key, value = torch.cat([earlier_key, key], dim=2), torch.cat([earlier_value, value], dim=2)
            cache.steps[layer] = (key, value)
        else:
            cache.steps.append((key, value))
        new, all_of_them = query.shape[2], key.shape[2]
        past = torch.ones(new, all_of_them, dtype=torch.bool, device=x.device).tril(all_of_them - new)
        seen = functional.scaled_dot_product_attention(query, key, value, attn_mask=past)
        x = x + self.dropout(self.own_out(self._join(seen)))
        if layer >= len(cache.memory):
            memory_key, memory_value = map(self._split, self.key_value(memory).chunk(2, dim=-1))
            cache.memory.append((memory_key, memory_value))
        memory_key, memory_value = cache.memory[layer]
        query = self._split(self.query(self.norms[1](x)))
        seen = functional.scaled_dot_product_attention(query, memory_key, memory_value, attn_mask=mask[:, None, None])
        x = x + self.dropout(self.memory_out(self._join(seen)))
        result: torch.Tensor = x + self.dropout(self.dense(self.norms[2](x)))
        return result

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def _join(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2).flatten(2)


class GPTDecoder(nn.Module):
    """Gives the scores of the next word from the words so far, a memory, and the n-grams of retrieved captions.

    Args:
        vocabulary: Number of tokens.
        width: Width of a state, a multiple of `heads`.
        layers: How many blocks.
        heads: Attention heads.
        longest: Most tokens of a caption, begin and end included.
        dropout: In training.

    Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019; tied words, Press and Wolf, Using
    the Output Embedding to Improve Language Models, 2017.
    """

    def __init__(
        self, *, vocabulary: int, width: int, layers: int, heads: int, longest: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if width % heads:
            raise InputError(f"the width must be a multiple of the number of heads, got {width} and {heads}")
        self.longest = longest
        self.words = nn.Embedding(vocabulary, width, padding_idx=PADDING)
        self.positions = nn.Embedding(longest, width)
        self.blocks = nn.ModuleList([DecoderBlock(width, heads, dropout=dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        self.trust = nn.Linear(width, ORDERS)
        self.dropout = nn.Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(
                    module.weight, std=0.02 if isinstance(module, nn.Embedding) else module.in_features**-0.5 / 2
                )
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        nn.init.zeros_(self.trust.weight)

    def forward(
        self,
        tokens: torch.Tensor,
        memory: torch.Tensor,
        mask: torch.Tensor,
        evidence: NgramVotes | None = None,
        cache: Cache | None = None,
    ) -> torch.Tensor:
        """Score the next token after each given one.

        Args:
            tokens: New tokens, shape (b, t), int64; the first of all is `BEGIN`.
            memory: Shape (b, s, width).
            mask: Which slots of the memory are there, shape (b, s), bool, at least one a row.
            evidence: Of the b pictures; None for none.
            cache: What the last call left, changed in place; None to begin.

        Returns:
            Scores before the softmax, shape (b, t, vocabulary), float32.

        Raises:
            InputError: More tokens in all than `longest`.
        """
        cache = Cache() if cache is None else cache
        start, count = cache.length, tokens.shape[1]
        if start + count > self.longest:
            raise InputError(f"the decoder reads at most {self.longest} tokens, got {start + count}")
        before = torch.full_like(tokens[:, :1], PADDING) if cache.last is None else cache.last
        cache.last = tokens[:, -1:]
        places = torch.arange(start, start + count, device=tokens.device)
        x = self.dropout(self.words(tokens) + self.positions(places))
        for layer, block in enumerate(self.blocks):
            x = block(x, memory, mask, cache, layer)
        x = self.norm(x)
        scores = functional.linear(x, self.words.weight, self.bias).float()
        if evidence is None:
            return scores
        # softplus(0.5) is about one: at first the evidence counts as an interpolated n-gram model would have it.
        trust = functional.softplus(self.trust(x).float() + 0.5) / ORDERS
        previous = torch.cat([before, tokens[:, :-1]], dim=1)
        features = vote_features(evidence, tokens, previous)
        found = (features * trust.permute(2, 0, 1)[..., None]).sum(0)
        words = evidence.words[:, None].expand(found.shape)
        return scores.scatter_add(-1, words, found.masked_fill(words == PADDING, 0.0))
