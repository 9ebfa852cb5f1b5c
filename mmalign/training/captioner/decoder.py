"""Training a decoder of our own: its vocabulary, its loss, and how it is measured after each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign.captioning import (
    CaptionTokenizer,
    DecoderFile,
    GenerationConfig,
    ModelConfig,
    MultimodalTransformer,
    make_inputs,
    make_model,
    pad_targets,
    read_decoder,
    write_captions,
    write_decoder,
)
from mmalign.encoders import Encoder, has_bfloat16
from mmalign.errors import InputError
from mmalign.metrics import DocumentFrequencies, caption_tokens, score_captions
from mmalign.training.captioner.config import CaptionerConfig
from mmalign.training.captioner.data import CaptionerMaterial
from mmalign.training.captioner.examples import Example, fewer
from mmalign.training.captioner.loop import CaptionerLoop
from mmalign.training.optimization import RunningMean

# Rarer runs of words are nine tenths of all, and would make the file twice as large.
_OFTEN = 3


class DecoderTrainer(CaptionerLoop):
    """A decoder, where it is in its training, and what it is trained on.

    Args:
        config: How to train.
        material: What there is to learn from.
        dim: Width of an embedding.
        folder: The run's folder.
        device: Where to train.

    Raises:
        InputError: The decoder to begin with has other sizes.
        ModelUnavailableError: It cannot be read.
    """

    file_name = "captioner.safetensors"
    _network: MultimodalTransformer

    def __init__(
        self, config: CaptionerConfig, material: CaptionerMaterial, *, dim: int, folder: Path, device: torch.device
    ) -> None:
        self._device = device
        self._bf16 = config.bf16 and has_bfloat16(device)
        begun = read_decoder(Path(config.start)) if config.start else None
        self._tokenizer = (
            begun.tokenizer if begun else CaptionTokenizer.train(material.sentences, size=config.vocabulary)
        )
        self._model_config = ModelConfig(
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
        self._tokens = self._tokenizer.encode(material.sentences, longest=self._model_config.longest - 2)
        super().__init__(
            model.to(device), config, material, lengths=[len(tokens) for tokens in self._tokens], folder=folder
        )
        self._mean = RunningMean(self._network, decay=0.998)

    def _backward(self, batch: Sequence[Example], rng: np.random.Generator) -> float:
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
            loss = self._network.loss(inputs, targets.to(self._device), smoothing=config.smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def _stepped(self) -> None:
        self._mean.update()

    def _chosen(self) -> Mapping[str, torch.Tensor]:
        return self._mean.state

    def _more_state(self) -> dict[str, Any]:
        return {"mean": self._mean.state, "updates": self._mean.updates}

    def _take_up(self, state: Mapping[str, Any]) -> None:
        self._mean.load(state["mean"], updates=state["updates"])

    def _worth(self, record: Mapping[str, Any]) -> float:
        return float(record["cider"])

    def _write(self, path: Path, state: dict[str, torch.Tensor], encoder: Encoder) -> str:
        assert self.best is not None
        notes = {
            "encoder": encoder.name,
            "fingerprint": encoder.fingerprint,
            "license": "see the licences of the captions that it was trained on",
            "provenance": f"trained by mmalign train captioner; epoch {self.best['epoch']} is the best of "
            f"{len(self._history)}",
        }
        mean, counted = self._material.picture_mean, _frequencies(self._material)
        return write_decoder(path, DecoderFile(self._model_config, self._tokenizer, state, mean, notes, counted))

    @torch.inference_mode()
    def _measure(self) -> dict[str, float]:
        """Nats a token of the captions measured on, and CIDEr of greedy captions, both by the mean of the weights."""
        material, size = self._material, self._config.batch_size
        queries, wanted = material.dev, material.dev_captions
        told = self._tokenizer.encode(wanted, longest=self._model_config.longest - 2)
        with self._mean.applied(self._network):
            self._network.eval()
            nats, tokens, written = 0.0, 0, []
            for start in range(0, len(queries.vectors), size):
                rows = range(start, min(start + size, len(queries.vectors)))
                contexts = [[self._tokens[near] for near in queries.contexts[row]] for row in rows]
                inputs = make_inputs(queries.vectors[rows.start : rows.stop], contexts).to(self._device)
                targets = pad_targets([told[queries.targets[row][0]] for row in rows],
                                      longest=self._model_config.longest).to(self._device)  # fmt: skip
                count = int((targets[:, 1:] != 0).sum())
                nats, tokens = nats + float(self._network.loss(inputs, targets)) * count, tokens + count
                written += write_captions(self._network, inputs, GenerationConfig("greedy"))
            self._network.train()
        said = [self._tokenizer.decode(captions[0].tokens) for captions in written]
        references = [[wanted[row] for row in targets] for targets in queries.targets]
        figures = score_captions(said, references).figures() if len(said) > 1 else {"cider": 0.0, "bleu4": 0.0}
        return {"nats": nats / max(1, tokens), "cider": round(figures["cider"], 3), "bleu4": round(figures["bleu4"], 3)}


def _frequencies(material: CaptionerMaterial) -> DocumentFrequencies | None:
    """How telling runs of words are: in the captions of how many pictures, or else in how many sentences, each is."""
    words = [caption_tokens(sentence) for sentence in material.sentences]
    owned = dict.fromkeys(targets for targets in material.pairs.targets if targets)
    documents = [[words[target] for target in targets] for targets in owned] or [[told] for told in words]
    if len(documents) < 2:
        return None
    counted = DocumentFrequencies.of(documents)
    # What is left out counts as being in one document, which is nearly so.
    return DocumentFrequencies(counted.documents, {run: n for run, n in counted.counts.items() if n >= _OFTEN})
