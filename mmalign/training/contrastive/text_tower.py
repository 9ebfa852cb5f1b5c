"""all-MiniLM-L6-v2 while its last layers are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mmalign.encoders import LAYERS, MINILM_WEIGHTS, POOLING, MiniLM, load_pinned, map_safetensors, minilm_shapes
from mmalign.training.cache import Arrays
from mmalign.training.contrastive.model import Tensors
from mmalign.utils import Float32Array

MOST_TOKENS = 64
"""Tokens of a text that are read in training, the two special ones included; captions are shorter."""

# Texts of similar length together, so that little of a batch is padding.
_TOGETHER = 64
_BARRED = -1e9


class TextTower(nn.Module):
    """The sentence encoder with the layers of transformers' BertModel, the pooling of the `lite` encoder behind them.

    Args:
        trained: How many of the six layers are trained, counted from the end; the embeddings never are.
        dropout: Within the layers.
        token_dropout: Share of the tokens that the pooling, and the trained layers' attention, pass over in training.

    Attributes:
        features: Width of the pooled features.
        version: Names the frozen part in a cache.
    """

    features = POOLING.features

    def __init__(self, *, trained: int, dropout: float, token_dropout: float) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        stored = map_safetensors(load_pinned(MINILM_WEIGHTS, feature="training the lite encoder", extra="lite1"))
        embedding, inner = (
            stored["embeddings.word_embeddings.weight"],
            stored["encoder.layer.0.intermediate.dense.bias"],
        )
        config = BertConfig(
            vocab_size=len(embedding), hidden_size=embedding.shape[1], num_hidden_layers=LAYERS, num_attention_heads=12,
            intermediate_size=len(inner), hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout,
            max_position_embeddings=len(stored["embeddings.position_embeddings.weight"]),
        )  # fmt: skip
        self.bert: Any = BertModel(config, add_pooling_layer=False)
        state = {name: torch.from_numpy(np.array(stored[name])) for name in minilm_shapes()}
        self.bert.load_state_dict(state, strict=False)
        self.bert.embeddings.requires_grad_(False)
        self._first = LAYERS - trained
        for layer in self.bert.encoder.layer[: self._first]:
            layer.requires_grad_(False)
        self._token_dropout = token_dropout
        self._tokenizer = MiniLM()
        self.version = f"{MINILM_WEIGHTS.sha256}/{MOST_TOKENS} tokens"

    def tokenize(self, texts: Sequence[str]) -> Arrays:
        """Split texts into token numbers.

        Args:
            texts: n texts.

        Returns:
            `tokens` (n, 64), int32, zero beyond the text's end; `lengths` (n,), int32, from 2 to 64.
        """
        numbers = [ids if len(ids) <= MOST_TOKENS else [*ids[: MOST_TOKENS - 1], ids[-1]]
                   for ids in self._tokenizer.tokenize(texts)]  # fmt: skip
        tokens = np.zeros((len(numbers), MOST_TOKENS), np.int32)
        for row, ids in enumerate(numbers):
            tokens[row, : len(ids)] = ids
        return {"tokens": tokens, "lengths": np.array([len(ids) for ids in numbers], np.int32)}

    def forward(self, inputs: Tensors) -> torch.Tensor:
        """Pool the states of texts.

        Args:
            inputs: What `tokenize` returned, as tensors.

        Returns:
            Tensor of shape (n, 1920), float32.
        """
        tokens, lengths = inputs["tokens"].long(), inputs["lengths"].long()
        order = torch.argsort(lengths, stable=True)
        blocks = []
        for rows in order.chunk(-(-len(order) // _TOGETHER)):
            longest = int(lengths[rows[-1]])
            mask = torch.arange(longest, device=tokens.device) < lengths[rows, None]
            blocks.append(self._pool(tokens[rows, :longest], mask))
        return torch.cat(blocks)[torch.argsort(order)]

    def _pool(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        if self.training and self._token_dropout:
            kept = torch.rand(mask.shape, device=mask.device) >= self._token_dropout
            kept[:, 0] = True
            mask = mask & kept
        bias = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, _BARRED)[:, None, None]
        layers = self.bert.encoder.layer
        with torch.no_grad():
            x = self._run_frozen(tokens, bias, states := [])
        for layer in layers[self._first :]:
            x = layer(x, bias.to(x.dtype))
            states.append(x)
        weight = (mask / mask.sum(1, keepdim=True)).unsqueeze(-1)
        means = [(states[number].float() * weight).sum(1) for number in POOLING.means]
        maxima = [states[number].float().masked_fill(~mask[..., None], _BARRED).amax(1) for number in POOLING.maxima]
        return torch.cat([*means, *maxima], dim=1)

    def _run_frozen(self, tokens: torch.Tensor, bias: torch.Tensor, states: list[torch.Tensor]) -> torch.Tensor:
        """The embeddings and the layers that are not trained, without dropout; appends each one's states."""
        training = self.training
        frozen = [self.bert.embeddings, *self.bert.encoder.layer[: self._first]]
        for module in frozen:
            module.eval()
        x: torch.Tensor = frozen[0](input_ids=tokens)
        states.append(x)
        for layer in frozen[1:]:
            x = layer(x, bias.to(x.dtype))
            states.append(x)
        for module in frozen:
            module.train(training)
        return x

    def export(self) -> dict[str, Float32Array]:
        """The tensors that `MiniLM` takes."""
        state = self.bert.state_dict()
        return {name: state[name].detach().float().cpu().numpy() for name in minilm_shapes()}
