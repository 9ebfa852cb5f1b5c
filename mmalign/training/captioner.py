"""Training a captioner: the likelihood of captions, given noised embeddings and what was retrieved with them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign.captioning.generate import Writing, write_captions
from mmalign.captioning.model import ModelConfig, make_inputs, make_model, pad_targets
from mmalign.captioning.trained import DecoderFile, read_decoder, write_decoder
from mmalign.captioning.words import CaptionTokenizer
from mmalign.encoders.base import Encoder
from mmalign.encoders.device import resolve_device
from mmalign.encoders.registry import load_encoder
from mmalign.errors import InputError, StorageError
from mmalign.metrics.caption import score_captions
from mmalign.metrics.cider import DocumentFrequencies
from mmalign.metrics.ptb import caption_tokens
from mmalign.training.captioner_config import CaptionerConfig
from mmalign.training.captioner_data import CaptionerMaterial, load_material
from mmalign.training.captioner_examples import Example, Examples, fewer
from mmalign.training.captioner_prefix import PrefixTrainer
from mmalign.training.checkpoint import Checkpoints, state_digest
from mmalign.training.optimization import RunningMean, schedule_factor
from mmalign.training.options import parse_options
from mmalign.training.pictures import Progress
from mmalign.training.run_folder import EXPORT_FOLDER, Log, Place, TrainingReport, carry_out, claim_folder, seeded

EXPORT = "captioner.safetensors"
# Steps between two checkpoints: a kill repeats so many at most.
_KEEP = 200
_CLIP = 1.0
# Rarer runs of words are nine tenths of all, and would make the file twice as large.
_OFTEN = 3


def train_captioner(
    config: CaptionerConfig,
    out: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] | None = None,
    encoder: Encoder | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    log: Callable[[Mapping[str, Any]], None] | None = None,
) -> TrainingReport:
    """Train a decoder for an encoder's embeddings, or a soft prefix for a language model, and export the best epoch.

    Args:
        config: What to learn from, and how.
        out: The run's folder; one that holds a run of the same configuration is gone on with.
        cache: Where embeddings are kept, which runs may share; `OUT/cache` by default.
        encoder: The encoder, where it is not to be loaded by `config.encoder`.
        device: A torch device; None for CUDA where there is one, else the processor.
        progress: Told how far things are.
        log: Called with each record that is written to `OUT/log.jsonl`.

    Returns:
        The report.

    Raises:
        InputError: The folder holds another run, or the data cannot be used.
        StorageError: The disk refused.
        TrainingInterrupted: Ctrl-C; the state is saved.
    """
    folder = Path(out)
    claim_folder(
        folder, config.to_dict(), known=lambda there: parse_options(CaptionerConfig, there, where="").to_dict()
    )
    where = torch.device(resolve_device(device))
    chosen = load_encoder(config.encoder) if encoder is None else encoder
    material = load_material(
        config, chosen, cache=folder / "cache" if cache is None else Path(cache), progress=progress
    )
    with seeded(config.seed, where):
        kind = PrefixTrainer if config.language_model else _Trainer
        trainer = kind(config, material, dim=chosen.dim, folder=folder, device=where)
        header = {"config": config.to_dict(), "data": material.counts, "parameters": trainer.parameters,
                  "threads": torch.get_num_threads()}  # fmt: skip
        resumed = carry_out(trainer, folder, header=header, log=log, progress=progress)
        exported, digest = trainer.export(chosen)
    return TrainingReport(
        out=folder,
        exported=exported,
        sha256=digest,
        best=trainer.best or {},
        epochs=config.epochs,
        resumed=resumed,
        data=material.counts,
    )


class _Trainer:
    """The model, where it is in its training, and what it is trained on."""

    def __init__(
        self, config: CaptionerConfig, material: CaptionerMaterial, *, dim: int, folder: Path, device: torch.device
    ) -> None:
        self._config, self._material, self._device, self._folder = config, material, device, folder
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
        self._model = make_model(self._model_config)
        if begun:
            if begun.config != self._model_config:
                raise InputError(f"{config.start} has other sizes: {begun.config}, expected {self._model_config}")
            self._model.load_state_dict(dict(begun.state))
        self._model.to(device)
        self.parameters = sum(p.numel() for p in self._model.parameters())
        self._tokens = self._tokenizer.encode(material.sentences, longest=self._model_config.longest - 2)
        groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
        for parameter in self._model.parameters():
            groups[parameter.ndim > 1].append(parameter)
        self._optimizer = torch.optim.AdamW(
            [{"params": groups[True], "weight_decay": config.weight_decay},
             {"params": groups[False], "weight_decay": 0.0}],
            lr=config.learning_rate, betas=(0.9, 0.98), fused=True,
        )  # fmt: skip
        self._mean = RunningMean(self._model, decay=0.998)
        self._checkpoints = Checkpoints(
            folder,
            identity=state_digest(self._model.state_dict(), material.digest),
        )
        self._examples = Examples(config, material, lengths=[len(tokens) for tokens in self._tokens])
        self.steps = self._examples.steps
        self.epoch, self.step = 1, 0
        self.best: dict[str, Any] | None = None
        self._history: list[dict[str, Any]] = []

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one."""
        state = self._checkpoints.load()
        if state is None:
            return False
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._mean.load(state["mean"], updates=state["updates"])
        self.epoch, self.step = state["epoch"], state["step"]
        self._history = json.loads(state["history"])
        self.best = max(self._history, key=_worth, default=None)
        return True

    @property
    def history(self) -> list[dict[str, Any]]:
        """The records of the finished epochs."""
        return self._history

    @property
    def place(self) -> Place:
        """How far the training is."""
        return Place(self.epoch, self._config.epochs, self.step, self.steps)

    def run(self, *, log: Log, stop: Callable[[], bool], tick: Callable[[], None]) -> bool:
        """Train to the end; False where it was stopped."""
        total = self.steps * self._config.epochs
        while self.epoch <= self._config.epochs:
            begun, losses = time.monotonic(), []
            self._model.train()
            for number, batch in enumerate(self._examples.batches(self.epoch)):
                if number < self.step:
                    continue
                if stop():
                    self._save()
                    return False
                # Dropout of a step is the same whether or not the run was stopped before it.
                torch.manual_seed(self._config.seed * 1_000_003 + self.epoch * 100_003 + number)
                losses.append(self._learn(batch, (self.epoch - 1) * self.steps + number, total))
                self.step = number + 1
                tick()
                if self.step % _KEEP == 0 and self.step < self.steps:
                    self._save()
            record = {"event": "epoch", "epoch": self.epoch, "loss": float(np.mean(losses or [0.0])), **self._measure()}
            record["seconds"] = round(time.monotonic() - begun, 1)
            better = self.best is None or _worth(record) > _worth(self.best)
            self._history.append(record)
            if better:
                self.best = record
            self.epoch, self.step = self.epoch + 1, 0
            self._save(best=self._mean.state if better else None)
            log(record)
        return True

    def export(self, encoder: Encoder) -> tuple[Path, str]:
        """Write the best epoch's weights."""
        state = self._checkpoints.load("best")
        if state is None or self.best is None:
            raise InputError(f"{self._folder} holds no finished epoch; delete its checkpoint.json to begin anew")
        folder = self._folder / EXPORT_FOLDER
        notes = {
            "encoder": encoder.name,
            "fingerprint": encoder.fingerprint,
            "license": "see the licences of the captions that it was trained on",
            "provenance": f"trained by mmalign train captioner; epoch {self.best['epoch']} is the best of "
            f"{len(self._history)}",
        }
        file = DecoderFile(
            self._model_config, self._tokenizer, state, self._material.picture_mean, notes, _frequencies(self._material)
        )
        try:
            folder.mkdir(exist_ok=True)
            return folder / EXPORT, write_decoder(folder / EXPORT, file)
        except OSError as error:
            raise StorageError(f"the decoder cannot be exported to {folder}: {error}; free space") from error

    def _learn(self, batch: Sequence[Example], done: int, total: int) -> float:
        config = self._config
        rng = np.random.default_rng([config.seed, self.epoch, self.step, 1])
        bare, blind = rng.random(len(batch)) < config.drop_context, rng.random(len(batch)) < config.drop_vector
        contexts = [
            [] if without else [self._tokens[near] for near in fewer(queries.contexts[row], rng)]
            for (queries, row, _), without in zip(batch, bare, strict=True)
        ]
        vectors = np.stack([queries.vectors[row] for queries, row, _ in batch])
        inputs = make_inputs(vectors, contexts, seen=~blind).to(self._device)
        targets = pad_targets([self._tokens[target] for *_, target in batch], longest=self._model_config.longest)
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule_factor(done, warmup=config.warmup, total=total)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=config.bf16):
            loss = self._model.loss(inputs, targets.to(self._device), smoothing=config.smoothing)
        if not torch.isfinite(loss):
            raise InputError(f"the loss of epoch {self.epoch}, batch {self.step} is not finite; lower learning_rate")
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), _CLIP)
        self._optimizer.step()
        self._mean.update()
        return float(loss.detach())

    @torch.inference_mode()
    def _measure(self) -> dict[str, float]:
        """Nats a token of the captions measured on, and CIDEr of greedy captions, both by the mean of the weights."""
        material, size = self._material, self._config.batch_size
        queries, wanted = material.dev, material.dev_captions
        told = self._tokenizer.encode(wanted, longest=self._model_config.longest - 2)
        with self._mean.applied(self._model):
            self._model.eval()
            nats, tokens, written = 0.0, 0, []
            for start in range(0, len(queries.vectors), size):
                rows = range(start, min(start + size, len(queries.vectors)))
                contexts = [[self._tokens[near] for near in queries.contexts[row]] for row in rows]
                inputs = make_inputs(queries.vectors[rows.start : rows.stop], contexts).to(self._device)
                targets = pad_targets([told[queries.targets[row][0]] for row in rows],
                                      longest=self._model_config.longest).to(self._device)  # fmt: skip
                count = int((targets[:, 1:] != 0).sum())
                nats, tokens = nats + float(self._model.loss(inputs, targets)) * count, tokens + count
                written += write_captions(self._model, inputs, Writing("greedy"))
            self._model.train()
        said = [self._tokenizer.decode(captions[0].tokens) for captions in written]
        references = [[wanted[row] for row in targets] for targets in queries.targets]
        figures = score_captions(said, references).figures() if len(said) > 1 else {"cider": 0.0, "bleu4": 0.0}
        return {"nats": nats / max(1, tokens), "cider": round(figures["cider"], 3), "bleu4": round(figures["bleu4"], 3)}

    def _save(self, *, best: Mapping[str, torch.Tensor] | None = None) -> None:
        self._checkpoints.save(
            {
                "model": self._model.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "mean": self._mean.state,
                "updates": self._mean.updates,
                "epoch": self.epoch,
                "step": self.step,
                "history": json.dumps(self._history),
            },
            best=best,
        )


def _worth(record: Mapping[str, Any]) -> float:
    return float(record["cider"])


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
