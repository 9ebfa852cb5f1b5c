"""Encoders of the sentence-transformers library: text models, and multimodal ones such as CLIP.

Source: https://github.com/huggingface/sentence-transformers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np

from mmalign.encoders.base import ImageLike, Role, StreamingEncoder
from mmalign.encoders.device import Precision, autocast, mixed_dtype, resolve_device
from mmalign.encoders.fingerprint import PROBES, model_fingerprint, tokens_digest
from mmalign.encoders.hub import hub_access, probe_hub, unavailable
from mmalign.encoders.pictures import load_rgb
from mmalign.encoders.prefetch import default_workers, prefetch_batches
from mmalign.encoders.texts import check_texts
from mmalign.errors import InputError, ModelUnavailableError
from mmalign.utils import Float32Array

# Before the width to which embeddings are cut, in the name of an encoder.
_WIDTH = "?dim="


class SentenceTransformersEncoder(StreamingEncoder):
    """A model of sentence-transformers, for text alone or for text and pictures.

    Embeddings equal the library's `encode` with `normalize_embeddings=True`, and `truncate_dim` where they are cut. On
    the processor it computes in fp32, whatever the weights are stored in.

    Args:
        model: A model's name on the hub, such as `clip-ViT-B-32` or `org/name`, or the path of a folder.
        device: A torch device; None for CUDA where there is one, else the processor.
        precision: `auto` (fp16 arithmetic on CUDA, fp32 elsewhere), `fp32`, `fp16` or `bf16`.
        workers: Threads that decode pictures; None for one a core.
        dim: How many of the first components of an embedding are kept, which models with Matryoshka embeddings are
            trained for (Kusupati et al., Matryoshka representation learning, 2022); None for all.

    Attributes:
        name: The spec that loads it again.
        dim: Width of an embedding.
        modalities: {"text"}, or {"text", "image"}.

    Raises:
        ModelUnavailableError: Weights that are missing, unreadable, or out of reach.
        InputError: A device or precision that this machine does not have, or a `dim` that the model does not reach.

    Example:
        >>> encoder = SentenceTransformersEncoder("clip-ViT-B-32")  # doctest: +SKIP
        >>> encoder.encode_text(["a dog in the snow"]).shape  # doctest: +SKIP
        (1, 512)
    """

    def __init__(
        self,
        model: str,
        *,
        device: str | None = None,
        precision: Precision = "auto",
        workers: int | None = None,
        dim: int | None = None,
    ) -> None:
        self._device = resolve_device(device)
        self._dtype = mixed_dtype(self._device, precision)
        self._workers = default_workers() if workers is None else workers
        folder = _folder(model)
        self.name = f"st:{folder or model}"
        self._model = _load(self.name, folder or model, local=folder is not None, device=str(self._device))
        self.modalities = frozenset({"text", "image"} & set(self._model.modalities))
        if "text" not in self.modalities:
            raise ModelUnavailableError(
                f"{self.name} encodes {', '.join(map(str, self._model.modalities))}; an encoder has to read text"
            )
        self._kept: int | None = None
        self.dim = int(self._encode(self._as_text([""]), 1).shape[1])
        if dim is not None:
            self._cut(dim)

    def shortened(self, dim: int) -> SentenceTransformersEncoder:
        """Give the same model with shorter embeddings; see `ShortensEmbeddings`.

        Raises:
            InputError: `dim` is below 1, or above this encoder's own.
        """
        made = copy.copy(self)
        # That of the longer ones, where somebody has asked for it.
        made.__dict__.pop("fingerprint", None)
        made._cut(dim)
        return made

    def _cut(self, dim: int) -> None:
        if not 1 <= dim <= self.dim:
            raise InputError(
                f"{self.name} gives embeddings of dim {self.dim}, which can be cut to 1 or more, got {dim}"
            )
        if dim < self.dim:
            self.name = f"{self.name.partition(_WIDTH)[0]}{_WIDTH}{dim}"
            self.dim = self._kept = dim

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, modules and tokenizer, as 64 hex digits."""
        features = self._model.preprocess(self._as_text(list(PROBES)))
        ids = features["input_ids"].tolist() if "input_ids" in features else None
        description = {
            "library": "sentence-transformers",
            "modules": [[type(module).__name__, _settings(module)] for module in self._model],
            "max_seq_length": self._model.max_seq_length,
            "prompts": [self._model.prompts, self._model.default_prompt_name],
            "tokenizer": tokens_digest(ids, None),
            "pictures": self._picture_settings(),
        }
        # Of models without them, what was encoded before prompts were chosen by role stays as it is.
        if any(self._prompt(role) != self._default_prompt for role in get_args(Role)):
            description["roles"] = [self._prompt(role) for role in get_args(Role)]
        if self._kept is not None:
            description["dim"] = self._kept
        return model_fingerprint(self._model.state_dict(), description)

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        """Encode texts.

        Args:
            texts: n texts; what exceeds the model's sequence length is ignored (see `truncates`).
            batch_size: How many go through the model at once.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.

        Raises:
            InputError: Not a sequence of texts.
        """
        return self._encode_text(texts, "document", batch_size)

    def encode_query(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        """Encode texts that are searched with, behind the model's prompt for queries; see `encode_text`."""
        return self._encode_text(texts, "query", batch_size)

    def _encode_text(self, texts: Sequence[str], role: Role, batch_size: int) -> Float32Array:
        checked = self._as_text(check_texts(texts, batch_size=batch_size))
        return self._encode(checked, batch_size, prompt=self._prompt(role))

    @property
    def _default_prompt(self) -> str:
        return self._model.prompts.get(self._model.default_prompt_name or "") or ""

    def _prompt(self, role: Role) -> str:
        """What the model's configuration puts before a text of a role; models for one role alone name it otherwise."""
        names = ("query",) if role == "query" else ("document", "passage", "corpus")
        found = (self._model.prompts.get(name) for name in names)
        return next((prompt for prompt in found if prompt), self._default_prompt)

    def stream_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Iterator[Float32Array]:
        """Encode pictures batch by batch; see `StreamingEncoder.stream_image`."""
        if "image" not in self.modalities:
            raise InputError(
                f"{self.name} encodes text alone; for pictures use lite, st:clip-ViT-B-32 or an open_clip: model"
            )
        for batch in prefetch_batches(images, load_rgb, batch_size=batch_size, workers=self._workers):
            yield self._encode(batch, batch_size)

    def truncates(self, text: str) -> bool:
        """Say whether a text is longer than the model reads.

        Args:
            text: The text.

        Returns:
            True where its end would be ignored; False where the model states no length.
        """
        limit = self._model.max_seq_length
        tokenizer = getattr(self._model[0], "tokenizer", None)
        if limit is None or not callable(tokenizer):
            return False
        prompt = self._prompt("query")
        return len(tokenizer(prompt + text, truncation=False, verbose=False)["input_ids"]) > int(limit)

    def _as_text(self, texts: list[str]) -> list[Any]:
        if self._model.modalities == ["text"]:
            return list(texts)
        # A bare string that looks like a picture's address would be opened, or fetched, as a picture.
        return [{"text": text} for text in texts]

    def _encode(self, inputs: list[Any], batch_size: int, *, prompt: str | None = None) -> Float32Array:
        if not inputs:
            return np.zeros((0, self.dim), np.float32)
        with autocast(self._device, self._dtype):
            vectors = self._run(inputs, batch_size, prompt)
        if self._dtype is not None and not np.isfinite(vectors).all():
            # Large activations overflow fp16 in a few models.
            vectors = self._run(inputs, batch_size, prompt)
        return vectors

    def _run(self, inputs: list[Any], batch_size: int, prompt: str | None) -> Float32Array:
        vectors = self._model.encode(
            inputs,
            # None for the model's default.
            prompt=None if prompt == self._default_prompt else prompt,
            batch_size=batch_size,
            show_progress_bar=False,
            normalize_embeddings=True,
            convert_to_tensor=True,
        )
        # Normalised again in fp32: mixed precision leaves lengths off by 1e-3.
        array: Float32Array = vectors.float().cpu().numpy()[:, : self._kept]
        if self._dtype is not None or self._kept is not None:
            array = array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), 1e-12)
        return array

    def _picture_settings(self) -> object:
        processor = getattr(self._model[0], "processor", None)
        pictures = getattr(processor, "image_processor", None)
        return None if pictures is None else pictures.to_dict()


def _folder(model: str) -> Path | None:
    path = Path(model).expanduser()
    if path.is_dir():
        return path.absolute()
    if model.startswith(("/", "./", "../", "~")) or path.is_file():
        raise ModelUnavailableError(f"st:{model}: there is no such folder; a model is a folder with its modules.json")
    return None


def _load(spec: str, model: str | Path, *, local: bool, device: str) -> Any:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    bars: Any = logging  # its functions carry no annotations
    probe = None if local else probe_hub()
    # A bar that counts tensors read from disk says nothing; one of a download is wanted.
    quiet = bars.is_progress_bar_enabled() and (probe is None or not probe.reachable)
    if quiet:
        bars.disable_progress_bar()
    with hub_access(probe):
        try:
            loaded = SentenceTransformer(str(model), device=device, local_files_only=local)
        except Exception as error:
            # The library lets errors of the hub client, transformers, json and torch through.
            raise unavailable(spec, probe, error) from error
        finally:
            if quiet:
                bars.enable_progress_bar()
    loaded.eval()
    return loaded.float()


def _settings(module: Any) -> object:
    config = getattr(module, "get_config_dict", None)
    return config() if callable(config) else None
