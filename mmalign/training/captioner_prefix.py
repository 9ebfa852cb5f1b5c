"""Training a soft prefix: the likelihood of captions under a frozen language model that it tells of the picture."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import pad

from mmalign.captioning.decoder import PREFIX
from mmalign.captioning.hf import LanguageModel
from mmalign.captioning.prefix import PrefixFile, SoftPrefix, write_prefix
from mmalign.captioning.prompts import PROMPTED
from mmalign.encoders.base import Encoder
from mmalign.errors import InputError, StorageError
from mmalign.training.captioner_config import CaptionerConfig
from mmalign.training.captioner_data import CaptionerMaterial
from mmalign.training.captioner_examples import Example, Examples, fewer
from mmalign.training.checkpoint import Checkpoints, state_digest
from mmalign.training.optimization import schedule_factor
from mmalign.training.run_folder import EXPORT_FOLDER, Log, Place

# Steps between two checkpoints: a kill repeats so many at most.
_KEEP = 20
_CLIP = 1.0
# Examples that go through the language model at once, so that memory stays bounded.
_TOGETHER = 8
# Pictures that are measured on after an epoch: a language model takes a second for ten of them.
_MEASURED = 64
# What a prefix says before it has learnt anything; its last words, where it is shorter.
_BEGUN = "A short caption of my picture, in lower case, that says who does what and where:"
# Places for an answer; see `LanguageModel.answer`.
_ROOM = 40


class _Told(NamedTuple):
    """A picture's vector, the captions retrieved for it, and the caption that is to be written."""

    vector: np.ndarray[Any, np.dtype[np.float32]]
    context: list[str]
    caption: str


class PrefixTrainer:
    """A soft prefix for a language model, where it is in its training, and what it is trained on.

    Args:
        config: How to train; `language_model` is set.
        material: What there is to learn from.
        dim: Width of an embedding.
        folder: The run's folder.
        device: Where the language model is.

    Attributes:
        parameters: How many numbers are learnt.
        best: The record of the best epoch; None before the first.
        epoch: The epoch under way, from 1.
        step: Batches of it that are done.

    Raises:
        MissingExtraError: A GGUF file, and the package `gguf` is not installed.
        ModelUnavailableError: The language model cannot be loaded.
    """

    def __init__(
        self, config: CaptionerConfig, material: CaptionerMaterial, *, dim: int, folder: Path, device: torch.device
    ) -> None:
        self._config, self._material, self._folder, self._device = config, material, folder, device
        self._language = LanguageModel(config.language_model.removeprefix("hf:"), device=device)
        language = self._language
        self._prefix = SoftPrefix(dim, language.width, length=config.prefix_length, scale=language.scale).to(device)
        begun = language.tokenizer(_BEGUN, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
        repeated = begun.repeat(-(-config.prefix_length // len(begun)))[-config.prefix_length :]
        self._prefix.begin_as(language.embed(repeated.to(device)).float())
        self._short = "logits_to_keep" in inspect.signature(language.model.forward).parameters
        self.parameters = sum(p.numel() for p in self._prefix.parameters())
        matrices = [p for p in self._prefix.parameters() if p.ndim > 1]
        others = [p for p in self._prefix.parameters() if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=config.learning_rate, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        self._checkpoints = Checkpoints(
            folder, identity=state_digest(self._prefix.state_dict(), material.digest, language.digest)
        )
        self._examples = Examples(config, material, lengths=[len(sentence) for sentence in material.sentences])
        self.steps = self._examples.steps
        self.epoch, self.step = 1, 0
        self.best: dict[str, Any] | None = None
        self._history: list[dict[str, Any]] = []

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of the finished epochs."""
        return self._history

    @property
    def place(self) -> Place:
        """How far the training is."""
        return Place(self.epoch, self._config.epochs, self.step, self.steps)

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one."""
        state = self._checkpoints.load()
        if state is None:
            return False
        self._prefix.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step = state["epoch"], state["step"]
        self._history = json.loads(state["history"])
        self.best = min(self._history, key=_worse, default=None)
        return True

    def run(self, *, log: Log, stop: Callable[[], bool], tick: Callable[[], None]) -> bool:
        """Train to the end; False where it was stopped."""
        total = self.steps * self._config.epochs
        while self.epoch <= self._config.epochs:
            begun, losses = time.monotonic(), []
            for number, batch in enumerate(self._examples.batches(self.epoch)):
                if number < self.step:
                    continue
                if stop():
                    self._save()
                    return False
                losses.append(self._learn(batch, (self.epoch - 1) * self.steps + number, total))
                self.step = number + 1
                tick()
                if self.step % _KEEP == 0 and self.step < self.steps:
                    self._save()
            record: dict[str, Any] = {"event": "epoch", "epoch": self.epoch, "loss": float(np.mean(losses or [0.0]))}
            record |= self._measure()
            record["seconds"] = round(time.monotonic() - begun, 1)
            better = self.best is None or _worse(record) < _worse(self.best)
            self._history.append(record)
            if better:
                self.best = record
            self.epoch, self.step = self.epoch + 1, 0
            self._save(best=self._prefix.state_dict() if better else None)
            log(record)
        return True

    def export(self, encoder: Encoder) -> tuple[Path, str]:
        """Write the best epoch's weights.

        Args:
            encoder: Whose embeddings were learnt from.

        Returns:
            The file, and its SHA-256.

        Raises:
            InputError: No epoch is finished.
            StorageError: The disk refused.
        """
        state = self._checkpoints.load("best")
        if state is None or self.best is None:
            raise InputError(f"{self._folder} holds no finished epoch; delete its checkpoint.json to begin anew")
        self._prefix.load_state_dict(state)
        source = self._language.source
        notes = {
            "encoder": encoder.name,
            "fingerprint": encoder.fingerprint,
            "language_model": f"hf:{Path(source).absolute() if Path(source).exists() else source}",
            "language_model_digest": self._language.digest,
            "license": "see the licences of the captions that it was trained on, and that of the language model",
            "provenance": f"trained by mmalign train captioner --language-model; epoch {self.best['epoch']} is the "
            f"best of {len(self._history)}",
        }
        folder = self._folder / EXPORT_FOLDER
        try:
            folder.mkdir(exist_ok=True)
            file = PrefixFile(self._prefix, self._material.picture_mean, notes)
            return folder / PREFIX, write_prefix(folder / PREFIX, file)
        except OSError as error:
            raise StorageError(f"the prefix cannot be exported to {folder}: {error}; free space") from error

    def _learn(self, batch: Sequence[Example], done: int, total: int) -> float:
        config, sentences = self._config, self._material.sentences
        rng = np.random.default_rng([config.seed, self.epoch, self.step, 1])
        bare = rng.random(len(batch)) < config.drop_context
        told = [
            _Told(
                queries.vectors[row],
                [] if without else [sentences[near] for near in fewer(queries.contexts[row][:PROMPTED], rng).tolist()],
                sentences[target],
            )
            for (queries, row, target), without in zip(batch, bare, strict=True)
        ]
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule_factor(done, warmup=config.warmup, total=total)
        self._optimizer.zero_grad(set_to_none=True)
        answers = [self._language.answer(one.caption) for one in told]
        tokens, nats = sum(map(len, answers)), 0.0
        for start in range(0, len(told), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            with torch.autocast(self._device.type, torch.bfloat16, enabled=config.bf16):
                loss = self._nats(told[part], answers[part]) / tokens
            loss.backward()  # type: ignore[no-untyped-call]
            nats += float(loss.detach())
        if not np.isfinite(nats):
            raise InputError(f"the loss of epoch {self.epoch}, batch {self.step} is not finite; lower learning_rate")
        torch.nn.utils.clip_grad_norm_(self._prefix.parameters(), _CLIP)
        self._optimizer.step()
        return nats

    def _nats(self, told: Sequence[_Told], answers: Sequence[torch.Tensor], *, blind: bool = False) -> torch.Tensor:
        """What all tokens of the answers cost; without the prefix where `blind`."""
        language = self._language
        vectors = torch.from_numpy(np.stack([one.vector for one in told])).to(self._device)
        prefixes = self._prefix(vectors)[:, : 0 if blind else None]
        rows = []
        for one, prefix, answer in zip(told, prefixes, answers, strict=True):
            prompt = language.prompt(one.context, room=_ROOM + self._prefix.length)
            asked, said = language.embed(prompt[0]), language.embed(answer)
            rows.append(torch.cat([asked, prefix.to(asked.dtype), said]))
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
        material, queries = self._material, self._material.dev
        told = [
            _Told(
                queries.vectors[row],
                [material.sentences[near] for near in queries.contexts[row][:PROMPTED].tolist()],
                material.dev_captions[queries.targets[row][0]],
            )
            for row in range(min(_MEASURED, len(queries.vectors)))
        ]
        answers = [self._language.answer(one.caption) for one in told]
        tokens = max(1, sum(map(len, answers)))
        found = {}
        for name, blind in (("nats", False), ("nats_without", True)):
            parts = (slice(start, start + _TOGETHER) for start in range(0, len(told), _TOGETHER))
            found[name] = sum(float(self._nats(told[part], answers[part], blind=blind)) for part in parts) / tokens
        return found

    def _save(self, *, best: Mapping[str, torch.Tensor] | None = None) -> None:
        self._checkpoints.save(
            {
                "model": self._prefix.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "history": json.dumps(self._history),
            },
            best=best,
        )


def _padded(rows: Sequence[torch.Tensor], value: int) -> torch.Tensor:
    """Rows of shape (length, ...) in one tensor, filled up on the left."""
    longest = max(map(len, rows))
    return torch.stack([pad(row, (0, 0) * (row.ndim - 1) + (longest - len(row), 0), value=value) for row in rows])


def _worse(record: Mapping[str, Any]) -> float:
    return float(record["nats"])
