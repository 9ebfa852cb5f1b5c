"""Encoders of the open_clip library: CLIP, SigLIP, MobileCLIP, CoCa and their kin.

Source: https://github.com/mlfoundations/open_clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.encoders.base import ImageLike, StreamingEncoder
from mmalign.encoders.device import Precision, autocast, mixed_dtype, resolve_device
from mmalign.encoders.fingerprint import PROBES, model_fingerprint, tokens_digest
from mmalign.encoders.hub import HubProbe, hub_access, probe_hub, unavailable
from mmalign.encoders.open_clip_source import OpenClipSource, resolve_source
from mmalign.encoders.open_clip_text import CausalTower
from mmalign.encoders.pictures import load_rgb
from mmalign.encoders.prefetch import default_workers, prefetch_batches
from mmalign.encoders.texts import check_texts
from mmalign.encoders.vit_dense import DenseMethod, dense_features, plan_grid, to_pixels, why_not
from mmalign.errors import InputError, ModelUnavailableError
from mmalign.utils import Float32Array, l2_normalize

if TYPE_CHECKING:
    import torch

# Texts tokenised at a time, in batches; sorting by length pays within them.
_BATCHES_SORTED = 16


@dataclass(frozen=True, slots=True)
class OpenClipParts:
    """What a model of open_clip is made of.

    Attributes:
        model: The network, in evaluation mode.
        preprocess: From a PIL picture to a normalised tensor of shape (3, h, w).
        tokenizer: From a list of texts to int64 token numbers, shape (n, context length).
        architecture: The configuration that builds the network.
        folder: Where a `local-dir:` model lies, with its tokenizer; None for others.
    """

    model: Any
    preprocess: Any
    tokenizer: Any
    architecture: dict[str, Any]
    folder: Path | None


class OpenClipEncoder(StreamingEncoder):
    """A model of open_clip, with its own preprocessing, tokenizer and context length.

    Embeddings equal open_clip's `encode_image` and `encode_text` with `normalize=True`. On the processor it computes
    in fp32 and the same input in the same batches gives the same bits.

    Args:
        model: A model of `open_clip.list_models()`, `local-dir:/path` or `hf-hub:org/name`.
        pretrained: The tag of published weights, for a model named without a scheme.
        checkpoint: A file of weights instead of a tag. Only tensors are read from it, never code. Preprocessing is
            that of `open_clip_config.json` beside the file, else the one that all published weights of the model
            share, else open_clip's default.
        device: A torch device; None for CUDA where there is one, else the processor.
        precision: `auto` (fp16 arithmetic on CUDA, fp32 elsewhere), `fp32`, `fp16` or `bf16`.
        workers: Threads that decode and preprocess pictures; None for one a core.

    Attributes:
        name: The spec that loads it again.
        dim: Width of an embedding.
        modalities: {"text", "image"}.

    Raises:
        EncoderSpecError: No such model or tag; the text lists near matches.
        ModelUnavailableError: Weights that are missing, unreadable, of another model, or out of reach.
        InputError: A device or precision that this machine does not have.

    Example:
        >>> encoder = OpenClipEncoder("ViT-B-32", pretrained="laion2b_s34b_b79k")  # doctest: +SKIP
        >>> encoder.encode_text(["a dog in the snow"]).shape  # doctest: +SKIP
        (1, 512)
    """

    modalities = frozenset({"text", "image"})

    def __init__(
        self,
        model: str,
        *,
        pretrained: str | None = None,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        precision: Precision = "auto",
        workers: int | None = None,
    ) -> None:
        self._device = resolve_device(device)
        self._dtype = mixed_dtype(self._device, precision)
        self._workers = default_workers() if workers is None else workers
        source = resolve_source(_library(), model, pretrained=pretrained, checkpoint=checkpoint)
        self.name = source.spec
        self._source = source
        self._model, self._preprocess, self._tokenizer, self._config = _load(source, self._device)
        # Towers from transformers mask padding out, so that columns of nothing but padding can be left out too.
        tower: Any = getattr(self._model, "text", None)
        self._padding: int | None = tower.config.pad_token_id if type(tower).__name__ == "HFTextEncoder" else None
        # Those that look back only do not see what follows a text.
        self._causal = CausalTower.of(self._model)
        whole = partial(self._model.encode_text, normalize=False)
        self._encode_tokens: Callable[[Any], Any] = whole if self._causal is None else self._causal.encode
        self.dim = int(self._forward(self._encode_tokens, self._tokenizer([""])).shape[1])

    @property
    def context_length(self) -> int:
        """How many tokens of a text the model reads, its start and end marks included."""
        return int(self._tokenizer.context_length)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over weights, architecture, preprocessing and tokenizer, as 64 hex digits."""
        tokenizer = self._tokenizer
        vocabulary = tokenizer.tokenizer.get_vocab() if hasattr(tokenizer, "tokenizer") else tokenizer.encoder
        description = {
            "library": "open_clip",
            "architecture": self._config,
            "preprocessing": dict(self._model.visual.preprocess_cfg),
            "context_length": self.context_length,
            "tokenizer": tokens_digest(tokenizer(list(PROBES)).tolist(), vocabulary),
        }
        return model_fingerprint(self._model.state_dict(), description)

    def parts(self) -> OpenClipParts:
        """Return what the encoder is made of, for training; the weights are the encoder's own, not copies."""
        architecture = self._source.architecture or _library().get_model_config(self._source.model)
        local = self._source.model.removeprefix("local-dir:")
        return OpenClipParts(
            model=self._model,
            preprocess=self._preprocess,
            tokenizer=self._tokenizer,
            architecture=dict(architecture),
            folder=Path(local) if local != self._source.model else None,
        )

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        """Encode texts.

        Args:
            texts: n texts; what exceeds the context length is ignored (see `truncates`).
            batch_size: How many go through the model at once.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.

        Raises:
            InputError: Not a sequence of texts.
        """
        texts = check_texts(texts, batch_size=batch_size)
        result = np.zeros((len(texts), self.dim), np.float32)
        chunk = batch_size * _BATCHES_SORTED
        for start in range(0, len(texts), chunk):
            tokens = self._tokenizer(texts[start : start + chunk])
            lengths = self._lengths(tokens)
            order = np.argsort(lengths, kind="stable")
            for first in range(0, len(order), batch_size):
                rows = order[first : first + batch_size]
                batch = tokens[rows, : max(int(lengths[rows].max()), 1)]
                result[start + rows] = self._forward(self._encode_tokens, batch)
        return result

    def stream_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Iterator[Float32Array]:
        """Encode pictures batch by batch; see `StreamingEncoder.stream_image`."""
        import torch

        for batch in prefetch_batches(images, self._prepare, batch_size=batch_size, workers=self._workers):
            yield self._forward(partial(self._model.encode_image, normalize=False), torch.stack(batch))

    @cached_property
    def has_patches(self) -> bool:
        """Whether `encode_patches` works with this model."""
        return why_not(self._model.visual) is None

    def encode_patches(
        self, image: ImageLike, *, method: DenseMethod = "clearclip", side: int | None = None, stride: int | None = None
    ) -> Float32Array:
        """Embed the places of a picture, for finding what a text names in it.

        Args:
            image: A picture of any PIL mode, or a path.
            method: What the last block of the transformer does: `clearclip`, `sclip` or `naclip`.
            side: Shorter side that the picture is scaled to, in pixels; None for that which the model was made for.
            stride: Side of a cell, in pixels of the scaled picture; None for half a patch, which costs four times
                as many tokens as whole patches.

        Returns:
            Array of shape (h, w, dim), float32, each row of length 1; row 0 is the top of the picture, and the cells
            divide the whole picture evenly.

        Raises:
            DecodeError: The path cannot be decoded.
            InputError: The model has no patches of its own (see `has_patches`), neither a picture nor a path, or a
                method, side or stride that cannot be.

        Source: see `mmalign.encoders.vit_dense`.
        """
        import torch

        visual = self._model.visual
        if (reason := why_not(visual)) is not None:
            raise InputError(
                f"{self.name} has no embeddings of places: {reason}; regions can be encoded as crops, "
                "which `align` does for such models"
            )
        picture, patch = load_rgb(image), int(visual.patch_size[0])
        grid = plan_grid(
            picture.width, picture.height, patch=patch, side=min(visual.image_size) if side is None else side,
            stride=stride,
        )  # fmt: skip
        looks = dict(visual.preprocess_cfg)
        pixels = to_pixels(picture, grid, patch=patch, mean=looks["mean"], std=looks["std"]).to(self._device)
        with torch.inference_mode(), autocast(self._device, self._dtype):
            cells = dense_features(visual, pixels, grid, method=method).float().cpu().numpy()
        return l2_normalize(cells.reshape(-1, self.dim)).reshape(cells.shape)

    def truncates(self, text: str) -> bool:
        """Say whether a text is longer than the model reads.

        Args:
            text: The text.

        Returns:
            True where its end would be ignored.
        """
        # Only the tokenizer itself knows its cleaning and its marks: it is asked whether one more place would hold
        # more of the text. Token 0 is both padding and "!" in CLIP's own vocabulary, hence the second comparison.
        length = self.context_length
        short, longer = (self._tokenizer([text], context_length=size)[0] for size in (length, length + 1))
        padding = self._tokenizer([""], context_length=length + 1)[0].mode().values
        if int((short != padding).sum()) != int((longer != padding).sum()):
            return True
        ends_in_mark = getattr(self._tokenizer, "tokenizer_mode", "") == "clips"
        return not ends_in_mark and bool((short != longer[:length]).any())

    def _prepare(self, image: ImageLike) -> torch.Tensor:
        prepared: torch.Tensor = self._preprocess(load_rgb(image))
        return prepared

    def _lengths(self, tokens: torch.Tensor) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Columns of each row that the text tower has to see."""
        count, width = tokens.shape
        if self._causal is not None:
            found: np.ndarray[Any, np.dtype[np.int64]] = self._causal.ends(tokens).numpy() + 1
            return found
        if self._padding is None:
            return np.full(count, width, np.int64)
        used = (tokens != self._padding).numpy()
        lengths: np.ndarray[Any, np.dtype[np.int64]] = width - np.argmax(used[:, ::-1], axis=1)
        return np.where(used.any(axis=1), lengths, width)

    def _forward(self, encode: Any, inputs: torch.Tensor) -> Float32Array:
        import torch

        inputs = inputs.to(self._device)
        with torch.inference_mode():
            with autocast(self._device, self._dtype):
                output = encode(inputs).float()
            if self._dtype is not None and not bool(output.isfinite().all()):
                # Large activations overflow fp16 in a few models.
                output = encode(inputs).float()
            array: Float32Array = torch.nn.functional.normalize(output, dim=-1).cpu().numpy()
        return array


def known_specs() -> list[str]:
    """List the specs of all published weights that the installed open_clip knows.

    Returns:
        Specs such as `open_clip:ViT-B-32/openai`, in open_clip's order.
    """
    return [f"open_clip:{model}/{tag}" for model, tag in _library().list_pretrained()]


def _library() -> Any:
    import open_clip

    return open_clip


def _load(source: OpenClipSource, device: torch.device) -> tuple[Any, Any, Any, dict[str, Any]]:
    library = _library()
    probe: HubProbe | None = probe_hub() if source.needs_hub else None
    with hub_access(probe):
        try:
            model, preprocess = library.create_model_from_pretrained(
                source.model, source.pretrained, device=device, precision="fp32", **source.options
            )
            tokenizer = library.get_tokenizer(source.model)
            config = source.architecture or library.get_model_config(source.model)
        except Exception as error:
            # open_clip wraps whatever went wrong, network or file, in RuntimeError, ValueError or OSError.
            raise _load_error(source, probe, error) from error
    model.eval()
    return model, preprocess, tokenizer, _portable(config)


def _load_error(source: OpenClipSource, probe: HubProbe | None, error: Exception) -> ModelUnavailableError:
    text = str(error)
    if "loading state_dict" in text or "size mismatch" in text:
        found = " ".join(text.split())[:300]
        return ModelUnavailableError(
            f"{source.spec}: the weights are of another architecture than {source.model} ({found}...); "
            "name the model they were trained as"
        )
    if "weights_only" in text or "Weights only" in text:
        return ModelUnavailableError(
            f"{source.spec}: the file holds more than tensors (a TorchScript archive or pickled code), which is never "
            "executed; save model.state_dict() with torch.save or safetensors and name that file"
        )
    return unavailable(source.spec, probe, error)


def _portable(config: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture without the names of tokenizer and text tower, which may be paths; their content is digested."""
    text = {
        key: value for key, value in config["text_cfg"].items() if key not in ("hf_model_name", "hf_tokenizer_name")
    }
    return {**config, "text_cfg": text}
