"""Training a decoder of our own: its vocabulary, its loss, and how it is measured after each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign.captioning import (
    CaptionTokenizer,
    DecoderConfig,
    DecoderFile,
    GenerationConfig,
    MultimodalTransformer,
    generate,
    make_inputs,
    make_model,
    pad_targets,
    read_decoder,
    write_decoder,
)
from mmalign.encoders import Encoder, has_bfloat16
from mmalign.errors import InputError
from mmalign.metrics import DocumentFrequencies, caption_tokens, score_captions
from mmalign.training.captioner.config import CaptionerConfig
from mmalign.training.captioner.data import CaptionerTrainingSet
from mmalign.training.captioner.examples import Example, fewer
from mmalign.training.captioner.task import CaptionerTask
from mmalign.training.task import Backward

# Rarer runs of words are nine tenths of all, and would make the file twice as large.
_OFTEN = 3


class DecoderTask(CaptionerTask):
    """A decoder, and what it is trained on.

    Args:
        config: How to train.
        training_set: What there is to learn from.
        dim: Width of an embedding.
        device: Where to train.

    Raises:
        InputError: The decoder to begin with has other sizes.
        ModelUnavailableError: It cannot be read.
    """

    ema_decay = 0.998
    file_name = "captioner.safetensors"
    model: MultimodalTransformer

    def __init__(
        self, config: CaptionerConfig, training_set: CaptionerTrainingSet, *, dim: int, device: torch.device
    ) -> None:
        self._bf16 = config.bf16 and has_bfloat16(device)
        begun = read_decoder(Path(config.start)) if config.start else None
        self._tokenizer = (
            begun.tokenizer if begun else CaptionTokenizer.train(training_set.sentences, size=config.vocabulary)
        )
        self._model_config = DecoderConfig(
            dim=dim,
            vocabulary=self._tokenizer.size,
            fusion=config.fusion,
            width=config.width,
            layers=config.layers,
            context=config.context,
        )
        model = make_model(self._model_config)
        if begun:
            if begun.config != self._model_config:
                raise InputError(f"{config.start} has other sizes: {begun.config}, expected {self._model_config}")
            model.load_state_dict(dict(begun.state))
        self._tokens = self._tokenizer.encode(training_set.sentences, longest=self._model_config.longest - 2)
        super().__init__(
            model.to(device),
            config,
            training_set,
            lengths=[len(tokens) for tokens in self._tokens],
            device=device,
        )

    def _learn(self, batch: Sequence[Example], rng: np.random.Generator, backward: Backward) -> float:
        config = self._config
        bare, blind = rng.random(len(batch)) < config.drop_context, rng.random(len(batch)) < config.drop_vector
        contexts = [
            [] if without else [self._tokens[near] for near in fewer(queries.contexts[row], rng)]
            for (queries, row, _), without in zip(batch, bare, strict=True)
        ]
        vectors = np.stack([queries.vectors[row] for queries, row, _ in batch])
        inputs = make_inputs(vectors, contexts, seen=~blind).to(self._device)
        targets = pad_targets([self._tokens[target] for *_, target in batch], longest=self._model_config.longest)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            loss = self.model.loss(inputs, targets.to(self._device), smoothing=config.smoothing)
        backward(loss)
        return float(loss.detach())

    def worth(self, record: Mapping[str, Any]) -> float:
        """CIDEr of greedy captions."""
        return float(record["cider"])

    def _write(self, path: Path, weights: dict[str, torch.Tensor], encoder: Encoder, provenance: str) -> str:
        notes = {
            "encoder": encoder.name,
            "fingerprint": encoder.fingerprint,
            "license": "see the licences of the captions that it was trained on",
            "provenance": f"trained by mmalign train captioner; {provenance}",
        }
        mean, counted = self._set.picture_mean, _frequencies(self._set)
        return write_decoder(path, DecoderFile(self._model_config, self._tokenizer, weights, mean, notes, counted))

    @torch.inference_mode()
    def _measure(self) -> dict[str, float]:
        """Nats a token of the captions measured on, and CIDEr of greedy captions, by the mean of the weights."""
        size = self._config.batch_size
        queries, wanted = self._set.dev, self._set.dev_captions
        encoded = self._tokenizer.encode(wanted, longest=self._model_config.longest - 2)
        nats, tokens, written = 0.0, 0, []
        for start in range(0, len(queries.vectors), size):
            rows = range(start, min(start + size, len(queries.vectors)))
            contexts = [[self._tokens[near] for near in queries.contexts[row]] for row in rows]
            inputs = make_inputs(queries.vectors[rows.start : rows.stop], contexts).to(self._device)
            targets = pad_targets([encoded[queries.targets[row][0]] for row in rows],
                                  longest=self._model_config.longest).to(self._device)  # fmt: skip
            count = int((targets[:, 1:] != 0).sum())
            nats, tokens = nats + float(self.model.loss(inputs, targets)) * count, tokens + count
            written += generate(self.model, inputs, GenerationConfig("greedy"))
        texts = [self._tokenizer.decode(captions[0].tokens) for captions in written]
        references = [[wanted[row] for row in targets] for targets in queries.targets]
        figures = score_captions(texts, references).figures() if len(texts) > 1 else {"cider": 0.0, "bleu4": 0.0}
        return {"nats": nats / max(1, tokens), "cider": round(figures["cider"], 3), "bleu4": round(figures["bleu4"], 3)}


def _frequencies(training_set: CaptionerTrainingSet) -> DocumentFrequencies | None:
    """How telling runs of words are: in the captions of how many pictures, or else in how many sentences, each is."""
    words = [caption_tokens(sentence) for sentence in training_set.sentences]
    owned = dict.fromkeys(targets for targets in training_set.pairs.targets if targets)
    documents = [[words[target] for target in targets] for targets in owned] or [[one] for one in words]
    if len(documents) < 2:
        return None
    counted = DocumentFrequencies.of(documents)
    # What is left out counts as being in one document, which is nearly so.
    return DocumentFrequencies(counted.documents, {run: n for run, n in counted.counts.items() if n >= _OFTEN})
