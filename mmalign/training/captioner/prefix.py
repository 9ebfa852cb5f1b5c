"""Training a soft prefix: the likelihood of captions under a frozen language model that it tells of the picture."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import pad

from mmalign.captioning import PREFIX, PROMPTED, LanguageModel, PrefixFile, SoftPrefix, write_prefix
from mmalign.encoders import Encoder, has_bfloat16
from mmalign.training.captioner.config import CaptionerConfig
from mmalign.training.captioner.data import CaptionerTrainingSet
from mmalign.training.captioner.examples import Example, fewer
from mmalign.training.captioner.task import CaptionerTask
from mmalign.training.task import Backward

# Examples that go through the language model at once, so that memory stays bounded.
_TOGETHER = 8
# Pictures that are measured on after an epoch: a language model takes a second for ten of them.
_MEASURED = 64
# What a prefix says before it has learnt anything; its last words, where it is shorter.
_BEGUN = "A short caption of my picture, in lower case, that says who does what and where:"
# Places for an answer; see `LanguageModel.answer`.
_ROOM = 40


class _Example(NamedTuple):
    """A picture's vector, the captions retrieved for it, and the caption that is to be written."""

    vector: np.ndarray[Any, np.dtype[np.float32]]
    context: list[str]
    caption: str


class PrefixTask(CaptionerTask):
    """A soft prefix for a language model, and what it is trained on.

    Args:
        config: How to train; `language_model` is set.
        training_set: What there is to learn from.
        dim: Width of an embedding.
        device: Where the language model is.

    Raises:
        MissingExtraError: A GGUF file, and the package `gguf` is not installed.
        ModelUnavailableError: The language model cannot be loaded.
    """

    # A step takes seconds.
    keep_every = 20
    file_name = PREFIX
    model: SoftPrefix

    def __init__(
        self, config: CaptionerConfig, training_set: CaptionerTrainingSet, *, dim: int, device: torch.device
    ) -> None:
        self._bf16 = config.bf16 and has_bfloat16(device)
        self._language = language = LanguageModel(config.language_model.removeprefix("hf:"), device=device)
        prefix = SoftPrefix(dim, language.width, length=config.prefix_length, scale=language.scale).to(device)
        begun = language.tokenizer(_BEGUN, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
        repeated = begun.repeat(-(-config.prefix_length // len(begun)))[-config.prefix_length :]
        prefix.begin_as(language.embed(repeated.to(device)).float())
        self._short = "logits_to_keep" in inspect.signature(language.model.forward).parameters
        lengths = [len(sentence) for sentence in training_set.sentences]
        super().__init__(prefix, config, training_set, lengths=lengths, device=device, versions=[language.digest])

    def _learn(self, batch: Sequence[Example], rng: np.random.Generator, backward: Backward) -> float:
        config, sentences = self._config, self._set.sentences
        bare = rng.random(len(batch)) < config.drop_context
        examples = [
            _Example(
                queries.vectors[row],
                [] if without else [sentences[near] for near in fewer(queries.contexts[row][:PROMPTED], rng).tolist()],
                sentences[target],
            )
            for (queries, row, target), without in zip(batch, bare, strict=True)
        ]
        answers = [self._language.answer(one.caption) for one in examples]
        tokens, nats = sum(map(len, answers)), 0.0
        for start in range(0, len(examples), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                loss = self._nats(examples[part], answers[part]) / tokens
            backward(loss)
            nats += float(loss.detach())
        return nats

    def worth(self, record: Mapping[str, Any]) -> float:
        """Fewer nats are better."""
        return -float(record["nats"])

    def _write(self, path: Path, weights: dict[str, torch.Tensor], encoder: Encoder, provenance: str) -> str:
        source = self._language.source
        notes = {
            "encoder": encoder.name,
            "fingerprint": encoder.fingerprint,
            "language_model": f"hf:{Path(source).absolute() if Path(source).exists() else source}",
            "language_model_digest": self._language.digest,
            "license": "see the licences of the captions that it was trained on, and that of the language model",
            "provenance": f"trained by mmalign train captioner --language-model; {provenance}",
        }
        self.model.load_state_dict(weights)
        return write_prefix(path, PrefixFile(self.model, self._set.picture_mean, notes))

    def _nats(
        self, examples: Sequence[_Example], answers: Sequence[torch.Tensor], *, blind: bool = False
    ) -> torch.Tensor:
        """What all tokens of the answers cost; without the prefix where `blind`."""
        language = self._language
        vectors = torch.from_numpy(np.stack([one.vector for one in examples])).to(self._device)
        prefixes = self.model(vectors)[:, : 0 if blind else None]
        rows = []
        for one, prefix, answer in zip(examples, prefixes, answers, strict=True):
            prompt = language.prompt(one.context, room=_ROOM + self.model.length)
            asked, answered = language.embed(prompt[0]), language.embed(answer)
            rows.append(torch.cat([asked, prefix.to(asked.dtype), answered]))
        # Padded on the left: the answers are what comes last in each row.
        lengths = torch.tensor([len(row) for row in rows], device=self._device)
        shown = _padded(rows, 0)
        mask = torch.arange(shown.shape[1], device=self._device) >= shown.shape[1] - lengths[:, None]
        longest = max(map(len, answers))
        options = {"logits_to_keep": longest + 1} if self._short else {}
        found = language.model(
            inputs_embeds=shown,
            attention_mask=mask.long(),
            position_ids=(mask.long().cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            **options,
        ).logits[:, -longest - 1 : -1]
        targets = _padded(answers, -100)
        return torch.nn.functional.cross_entropy(
            found.float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
        )

    @torch.inference_mode()
    def _measure(self) -> dict[str, float]:
        """Nats a token of captions that are measured on, with the prefix and without."""
        training_set, queries = self._set, self._set.dev
        examples = [
            _Example(
                queries.vectors[row],
                [training_set.sentences[near] for near in queries.contexts[row][:PROMPTED].tolist()],
                training_set.dev_captions[queries.targets[row][0]],
            )
            for row in range(min(_MEASURED, len(queries.vectors)))
        ]
        answers = [self._language.answer(one.caption) for one in examples]
        tokens = max(1, sum(map(len, answers)))
        found = {}
        for name, blind in (("nats", False), ("nats_without", True)):
            parts = (slice(start, start + _TOGETHER) for start in range(0, len(examples), _TOGETHER))
            found[name] = sum(float(self._nats(examples[part], answers[part], blind=blind)) for part in parts) / tokens
        return found


def _padded(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """Rows of shape (length, ...) in one tensor, filled up on the left."""
    longest = max(map(len, rows))
    return torch.stack([pad(row, (0, 0) * (row.ndim - 1) + (longest - len(row), 0), value=value) for row in rows])
