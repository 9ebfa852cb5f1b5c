"""Decoders that `mmalign train captioner` made: their file, and how they write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmalign.captioning.decoders.base import Draft
from mmalign.captioning.decoders.generation import GenerationConfig, GenerationOutput, generate
from mmalign.captioning.decoders.model import DecoderConfig, MultimodalTransformer, make_inputs, make_model, pad_targets
from mmalign.captioning.decoders.tokenizer import CaptionTokenizer
from mmalign.captioning.decoders.weight_file import read_weights, write_weights
from mmalign.captioning.ranking import rank_drafts
from mmalign.errors import DimensionError, InputError, ModelUnavailableError
from mmalign.metrics import DocumentFrequencies
from mmalign.utils import Float32Array, as_matrix, l2_normalize

FORMAT = "mmalign captioner 1"
_NOTES = ("encoder", "fingerprint", "license", "provenance")
_MEAN = "vector_mean"
# Pictures that are written for at once, so that memory stays bounded.
_TOGETHER = 16
BEAMS = GenerationConfig("beam", count=5, longest=24)
DRAWS = GenerationConfig("nucleus", count=16, nucleus=0.9, longest=24)
"""What drafts are taken from."""


@dataclass(frozen=True, slots=True)
class DecoderFile:
    """What a decoder's file holds.

    Attributes:
        config: Sizes of the model.
        tokenizer: Its vocabulary.
        state: The model's tensors by name.
        mean: The mean embedding of pictures, which is taken off each one, shape (dim,), float32.
        frequencies: In how many pictures' captions runs of words are, for ranking drafts; None where not counted.
        notes: `encoder` (name), `fingerprint`, `license`, `provenance` and more texts.
    """

    config: DecoderConfig
    tokenizer: CaptionTokenizer
    state: Mapping[str, torch.Tensor]
    mean: Float32Array
    notes: Mapping[str, str]
    frequencies: DocumentFrequencies | None = None


def write_decoder(path: Path, file: DecoderFile) -> str:
    """Write a decoder to one safetensors file, matrices as float16.

    Args:
        path: The file.
        file: What it is to hold.

    Returns:
        SHA-256 of the file as 64 hex digits.

    Raises:
        InputError: A note is missing, or a tensor holds what float16 cannot.
    """
    tensors = {}
    for name, tensor in file.state.items():
        stored = tensor.detach().cpu().half().contiguous()
        if not torch.isfinite(stored).all():
            raise InputError(f"{name} holds values that float16 cannot; train with more weight decay")
        tensors[name] = stored.clone()
    # Tied: one copy is enough.
    tensors.pop("text_encoder.words.weight", None)
    tensors[_MEAN] = torch.from_numpy(np.asarray(file.mean, np.float32))
    header = {
        "notes": dict(file.notes),
        "format": FORMAT,
        "config": file.config.to_dict(),
        "tokenizer": file.tokenizer.to_json(),
    }
    if file.frequencies is not None:
        counts = {" ".join(run): count for run, count in file.frequencies.counts.items()}
        header["frequencies"] = {"documents": file.frequencies.documents, "counts": counts}
    return write_weights(path, tensors, header, notes=_NOTES)


def read_decoder(path: Path) -> DecoderFile:
    """Read what `write_decoder` wrote.

    Args:
        path: The file.

    Returns:
        Its content, tensors as float32.

    Raises:
        ModelUnavailableError: It cannot be read, or is something else.
    """
    try:
        header, stored = read_weights(path, format_=FORMAT)
        state = {name: tensor.float() for name, tensor in stored.items()}
        known = {field.name for field in fields(DecoderConfig)}
        config = DecoderConfig(**{k: v for k, v in header["config"].items() if k in known})
        tokenizer = CaptionTokenizer(header["tokenizer"])
        notes: dict[str, str] = header["notes"]
        frequencies = None
        if table := header.get("frequencies"):
            counts = {tuple(run.split(" ")): int(count) for run, count in table["counts"].items()}
            frequencies = DocumentFrequencies(int(table["documents"]), counts)
        mean = state.pop(_MEAN).numpy()
        state["text_encoder.words.weight"] = state["decoder.words.weight"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailableError(
            f"{path} is not a caption decoder ({error}); expected the file that mmalign train captioner exported"
        ) from error
    return DecoderFile(config, tokenizer, state, mean, notes, frequencies)


class TrainedDecoder:
    """A decoder that was trained for one encoder.

    Args:
        file: What its file holds.
        name: The spec that loads it again.
        device: A torch device.

    Attributes:
        encoder: Name of the encoder whose embeddings it reads.
        fingerprint: That encoder's fingerprint.

    Raises:
        ModelUnavailableError: The tensors are not those of the model.
    """

    def __init__(self, file: DecoderFile, *, name: str, device: str | None = None) -> None:
        self.name = name
        self.encoder = file.notes.get("encoder", "")
        self.fingerprint = file.notes.get("fingerprint", "")
        self.notes = dict(file.notes)
        self._frequencies = file.frequencies
        self._config, self._tokenizer, self._mean = file.config, file.tokenizer, file.mean
        self._device = torch.device(device or "cpu")
        with torch.random.fork_rng(devices=[]):
            model = make_model(file.config)
        try:
            model.load_state_dict(dict(file.state))
        except RuntimeError as error:
            raise ModelUnavailableError(f"the tensors of {name} are not those of its configuration: {error}") from error
        self._model = model.eval().to(self._device)

    @property
    def model(self) -> MultimodalTransformer:
        """The network, in evaluation mode."""
        return self._model

    @property
    def dim(self) -> int:
        """Width of the embeddings that it reads."""
        return self._config.dim

    def caption(
        self, vector: Float32Array | None, context: Sequence[str], *, config: GenerationConfig | None = None
    ) -> list[Draft]:
        """Write drafts for one picture; see `Decoder.caption`.

        Args:
            vector: Its embedding as the encoder gives it, shape (dim,); None to write from the context alone.
            context: Retrieved captions, best first; those beyond the decoder's context are left out.
            config: How, drafts then ranked by likelihood; None for what measured best: a beam search and draws, and of
                both the draft that the context agrees with most.

        Returns:
            Drafts, best first.

        Raises:
            DimensionError: An embedding of another width.
        """
        vectors = None if vector is None else as_matrix(vector, dim=self.dim, name="vector")
        return self.caption_many(vectors, [context], config=config)[0]

    def caption_many(
        self,
        vectors: Float32Array | None,
        contexts: Sequence[Sequence[str]],
        *,
        config: GenerationConfig | None = None,
    ) -> list[list[Draft]]:
        """Write drafts for many pictures.

        Args:
            vectors: Shape (n, dim), rows of length 1; None to write from the contexts alone.
            contexts: Retrieved captions of each.
            config: As in `caption`.

        Returns:
            Drafts of each, best first.

        Raises:
            DimensionError: Another number of vectors than of contexts, or another width.
        """
        if config is not None:
            return self._write(vectors, contexts, config)
        beams = self._write(vectors, contexts, BEAMS)
        if not any(contexts):
            return beams
        result = []
        for beam, drawn, context in zip(beams, self._write(vectors, contexts, DRAWS), contexts, strict=True):
            # Without a context nobody votes, and a draw may be anything.
            drafts = {draft.text: draft for draft in ([*drawn, *beam] if context else beam)}
            result.append(rank_drafts(list(drafts.values()), context, self._frequencies))
        return result

    def _write(
        self, vectors: Float32Array | None, contexts: Sequence[Sequence[str]], config: GenerationConfig
    ) -> list[list[Draft]]:
        moved = self._moved(vectors, len(contexts))
        result: list[list[Draft]] = []
        for start in range(0, len(contexts), _TOGETHER):
            tokens = [self._read(context) for context in contexts[start : start + _TOGETHER]]
            part = moved[start : start + _TOGETHER]
            inputs = make_inputs(part, tokens, seen=np.full(len(part), vectors is not None)).to(self._device)
            found = generate(self._model, inputs, config)
            result += [[self._draft(caption, config) for caption in written] for written in found]
        return result

    @torch.inference_mode()
    def log_likelihoods(
        self, text: str, vector: Float32Array | None, contexts: Sequence[Sequence[str]]
    ) -> Float32Array:
        """How likely one caption is with each of several contexts, such as one without each retrieved caption.

        Args:
            text: The caption.
            vector: The picture's embedding, shape (dim,), or None.
            contexts: n lists of retrieved captions, best first.

        Returns:
            Log-likelihoods of all tokens, the end included, shape (n,), float32.
        """
        tokens = self._tokenizer.encode([text], longest=self._config.longest - 2)[0]
        vectors = None if vector is None else np.repeat(as_matrix(vector, dim=self.dim), len(contexts), axis=0)
        moved = self._moved(vectors, len(contexts))
        found = []
        for start in range(0, len(contexts), _TOGETHER):
            part = moved[start : start + _TOGETHER]
            read = [self._read(context) for context in contexts[start : start + _TOGETHER]]
            inputs = make_inputs(part, read, seen=np.full(len(part), vectors is not None)).to(self._device)
            targets = pad_targets([tokens] * len(part), longest=self._config.longest).to(self._device)
            each = self._model(inputs, targets[:, :-1]).log_softmax(-1).gather(-1, targets[:, 1:, None])
            found.append(each.sum((1, 2)).cpu().numpy())
        return np.concatenate(found)

    def _moved(self, vectors: Float32Array | None, count: int) -> Float32Array:
        """Pictures lie to one side of the space and texts to another: without the mean they lie together."""
        if vectors is None:
            return np.zeros((count, self.dim), np.float32)
        matrix = as_matrix(vectors, dim=self.dim)
        if len(matrix) != count:
            raise DimensionError(f"expected a vector for each of {count} contexts, got {len(matrix)}")
        return l2_normalize(matrix - self._mean)

    def _read(self, context: Sequence[str]) -> list[list[int]]:
        read = self._tokenizer.encode(list(context)[: self._config.context], longest=self._config.longest)
        return [tokens for tokens in read if tokens]

    def _draft(self, written: GenerationOutput, config: GenerationConfig) -> Draft:
        text = self._tokenizer.decode(written.tokens)
        return Draft(text, written.log_likelihood, written.score(config.length_penalty))


def open_decoder(path: Path, **options: Any) -> TrainedDecoder:
    """Load a decoder from the file that a training exported, or from its run's folder.

    Args:
        path: The file, or a folder with `export/captioner.safetensors` or `captioner.safetensors` in it.
        options: As `TrainedDecoder`.

    Returns:
        The decoder.

    Raises:
        ModelUnavailableError: There is none.
    """
    candidates = [path, path / "captioner.safetensors", path / "export" / "captioner.safetensors"]
    for candidate in candidates:
        if candidate.is_file():
            return TrainedDecoder(read_decoder(candidate), name=str(path), **options)
    remedy = f"; a language model is named hf:{path}" if (path / "config.json").is_file() else ""
    raise ModelUnavailableError(f"there is no caption decoder at {path}; expected a captioner.safetensors{remedy}")
