"""A captioner of a few thousand weights, and inputs for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mmalign.captioning.decoders.fusion import FusionName
from mmalign.captioning.decoders.model import (
    DecoderConfig,
    DecoderInputs,
    MultimodalTransformer,
    make_inputs,
    make_model,
)

CONFIG = DecoderConfig(dim=6, vocabulary=40, width=16, layers=2, heads=2, longest=12, slots=2, context=4, read=3)


def toy_model(fusion: FusionName = "transformer", *, seed: int = 0) -> MultimodalTransformer:
    torch.manual_seed(seed)
    sizes = {**CONFIG.to_dict(), "fusion": fusion}
    model = make_model(DecoderConfig(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            # Larger than at the beginning of a training, so that every part of the model matters.
            parameter += torch.randn_like(parameter) * 0.2
    return model.eval()


def toy_inputs(count: int = 3, *, seed: int = 0, captions: int = 4) -> DecoderInputs:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(count, CONFIG.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    contexts = [
        [rng.integers(3, 12, rng.integers(1, 6)).tolist() for _ in range(rng.integers(1, captions + 1))]
        for _ in range(count)
    ]
    return make_inputs(vectors, contexts)


def tiny_language_model(folder: Path, words: Sequence[str], *, texts: Sequence[str] = (), seed: int = 0) -> Path:
    """A small GPT-2 with a tokenizer of whole words, saved as Hugging Face saves it.

    Its weights are random; with `texts` it has learnt to write these.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    known = list(dict.fromkeys(["<unk>", "</s>", *words]))
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(seed)
    width = 32 if texts else 16
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=len(known), n_positions=128, n_embd=width, n_layer=1, n_head=2, bos_token_id=1,
                   eos_token_id=1, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    )  # fmt: skip
    if texts:
        rows = [torch.tensor([*tokenizer(text)["input_ids"], 1]) for text in texts]
        shown = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for step in range(160):
            part = shown[(32 * step) % len(shown) :][:32]
            # Whatever place a text begins at: something may come before it.
            places = torch.arange(part.shape[1]) + torch.randint(0, 8, (len(part), 1))
            model(part.clamp(min=0), labels=part, position_ids=places).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    model.eval().save_pretrained(folder)
    return folder
