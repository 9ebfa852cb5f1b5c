"""What the versions of `lite` share: two towers, an adapter on each, and how texts and pictures go through them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmalign.calibration import Calibration
from mmalign.encoders.base import ImageLike, KnownWords, StreamingEncoder
from mmalign.encoders.dense import CONTEXT, Resolution, encode_boxes, encode_cells
from mmalign.encoders.device import compute_alone
from mmalign.encoders.lite.adapter import Adapter
from mmalign.encoders.lite.efficientnet import INPUT_SIZE, EfficientNetLite2, preprocess, preprocessing_note
from mmalign.encoders.lite.minilm import MAX_TOKENS, WIDTH, MiniLM, max_pool, mean_pool
from mmalign.encoders.pictures import load_rgb
from mmalign.encoders.prefetch import default_workers, prefetch_batches
from mmalign.encoders.texts import check_texts
from mmalign.errors import InputError
from mmalign.types import Box
from mmalign.utils import Float32Array, l2_normalize

if TYPE_CHECKING:
    import torch

InputT = TypeVar("InputT")


@dataclass(frozen=True, slots=True)
class TextPooling:
    """Which of MiniLM's states the text adapter reads; layer 0 is the word embeddings, 6 the last.

    Attributes:
        means: Layers whose mean over the tokens is read, in this order.
        maxima: Layers whose largest values over the tokens are read, after the means.
    """

    means: tuple[int, ...]
    maxima: tuple[int, ...]

    @property
    def features(self) -> int:
        """Width of the pooled features."""
        return WIDTH * (len(self.means) + len(self.maxima))


POOLING = TextPooling(means=(0, 2, 4, 6), maxima=(6,))
"""The pooling of both versions."""


@dataclass(frozen=True, slots=True)
class PictureInput:
    """How a picture is looked at.

    Attributes:
        size: Side in pixels of the square that it is squashed to.
        centre: Weight of the embedding of the picture without the outermost cells of its maps, beside that of the
            whole; 0 leaves it out. What a picture is about is seldom at its edge, and the padding of the
            convolutions is felt there most.
    """

    size: int = INPUT_SIZE
    centre: float = 0.0

    @property
    def note(self) -> str:
        """Names the input in fingerprints."""
        centre = f"; whole + {self.centre:g} * without the outermost cells" if self.centre else ""
        return preprocessing_note(self.size) + centre

    @property
    def margins(self) -> tuple[int, ...]:
        """The windows that are read, as cells left out along each edge."""
        return (0, 1) if self.centre else (0,)


class TwoTowerEncoder(StreamingEncoder):
    """MiniLM for texts, in NumPy, and EfficientNet-Lite2 for pictures, in torch, each with an adapter.

    A tower is loaded when the first text, or picture, is encoded; torch is imported for pictures alone.

    Args:
        device: Where pictures are encoded: a torch device such as `cpu` or `cuda:1`; None for CUDA where there is
            one, else the processor.
    """

    name: str
    modalities = frozenset({"text", "image"})
    pooling = POOLING
    picture_input = PictureInput()

    def __init__(self, *, device: str | None = None) -> None:
        self._device_name = device
        self._loading = RLock()
        self._text_model: MiniLM | None = None
        self._image_model: EfficientNetLite2 | None = None

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hex digest of the weights' digests and the preprocessing."""

    @property
    @abstractmethod
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold its weights; the calibration is kept beside the first, under its name."""

    @property
    @abstractmethod
    def text_adapter(self) -> Adapter:
        """From pooled text features to the shared space."""

    @property
    @abstractmethod
    def image_adapter(self) -> Adapter:
        """From picture features to the shared space."""

    @property
    def calibration_path(self) -> Path:
        """Where this version's calibration is kept, beside its weights."""
        return self.weight_files[0].with_suffix(".calibration.json")

    @cached_property
    def calibration(self) -> Calibration | None:
        """What turns the scores of text queries into probabilities; None where nobody has fitted it.

        Raises:
            CalibrationError: The file is damaged, or was fitted for other weights.
        """
        if not self.calibration_path.exists():
            return None
        fitted = Calibration.read(self.calibration_path)
        fitted.check(self.fingerprint, name=self.name)
        return fitted

    @abstractmethod
    def _load_text_model(self) -> MiniLM: ...

    @abstractmethod
    def _load_image_model(self, device: torch.device) -> EfficientNetLite2: ...

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
        features = text_features(self._texts(), texts, batch_size=batch_size, pooling=self.pooling)
        return self.text_adapter(features)

    def truncates(self, text: str) -> bool:
        """Say whether a text is longer than the model reads.

        Args:
            text: The text.

        Returns:
            True where its end would be ignored.
        """
        return len(self._texts().tokenize([text])[0]) > MAX_TOKENS

    def knows(self, text: str) -> KnownWords:
        """Say which words of a text the model knows; emoji, other scripts and nonsense it does not.

        Args:
            text: The text.

        Returns:
            How many words there are, and those that are unknown.
        """
        return self._texts().knows(text)

    def stream_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Iterator[Float32Array]:
        """Encode pictures batch by batch; see `StreamingEncoder.stream_image`."""
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}")
        seen = self.picture_input

        def prepare(image: ImageLike) -> NDArray[np.uint8]:
            return preprocess(load_rgb(image), size=seen.size)

        stream = stream_features(self._pictures, images, prepare, batch_size=batch_size, margins=seen.margins)
        for features in stream:
            whole = self.image_adapter(features[:, 0])
            if seen.centre:
                whole = l2_normalize(whole + np.float32(seen.centre) * self.image_adapter(features[:, 1]))
            yield whole

    @property
    def has_patches(self) -> bool:
        """True: `encode_patches` can be called."""
        return True

    def encode_patches(
        self, image: ImageLike, *, resolution: Resolution = "fine", context: float = CONTEXT
    ) -> Float32Array:
        """Embed the places of a picture, for finding what a text names in it.

        Args:
            image: A picture of any PIL mode, or a path.
            resolution: `fine` for 18 x 18 cells, `coarse` for 9 x 9 at about a quarter of the work, too coarse to
                point at things. The cells divide the whole picture evenly, whatever its aspect ratio.
            context: Weight of the whole picture in each cell; see `encode_cells`.

        Returns:
            Array of shape (h, w, dim), float32, each row of length 1; row 0 is the top of the picture.

        Raises:
            DecodeError: The path cannot be decoded.
            InputError: Neither a picture nor a path, another resolution, or a negative context.
            ModelUnavailableError: A weight file has other bytes than expected.
        """
        picture = load_rgb(image)
        return encode_cells(self._pictures(), self.image_adapter, picture, resolution=resolution, context=context)

    def encode_boxes(self, image: ImageLike, boxes: Sequence[Box], *, resolution: Resolution = "fine") -> Float32Array:
        """Embed regions of a picture, all in one pass.

        Args:
            image: A picture of any PIL mode, or a path.
            boxes: r regions in pixels of the picture; what lies outside it is cut off.
            resolution: `fine` or `coarse`; see `encode_boxes` of `mmalign.encoders.dense`.

        Returns:
            Array of shape (r, dim), float32, each row of length 1.

        Raises:
            DecodeError: The path cannot be decoded.
            InputError: Neither a picture nor a path, another resolution, or a box outside the picture.
            ModelUnavailableError: A weight file has other bytes than expected.
        """
        picture = load_rgb(image)
        inside = [box.clipped(*picture.size) for box in boxes]
        return encode_boxes(self._pictures(), self.image_adapter, picture, inside, resolution=resolution)

    def picture_model(self) -> EfficientNetLite2:
        """Give the picture model, loaded at the first call, for what reads its maps.

        Raises:
            ModelUnavailableError: A weight file has other bytes than expected.
        """
        return self._pictures()

    def _texts(self) -> MiniLM:
        with self._loading:
            if self._text_model is None:
                self._text_model = self._load_text_model()
            return self._text_model

    def _pictures(self) -> EfficientNetLite2:
        from mmalign.encoders.device import resolve_device

        with self._loading:
            if self._image_model is None:
                self._image_model = self._load_image_model(resolve_device(self._device_name))
            return self._image_model


def text_features(
    model: MiniLM, texts: Sequence[str], *, batch_size: int = 64, pooling: TextPooling = POOLING
) -> Float32Array:
    """The features of texts: pooled states of several layers, side by side.

    Args:
        model: The sentence encoder.
        texts: n texts.
        batch_size: How many go through the model at once.
        pooling: Which states are pooled, and how.

    Returns:
        Array of shape (n, pooling.features), float32.
    """
    tokens = model.tokenize(texts)
    # Texts of similar length together, so that little of a batch is padding.
    order = sorted(range(len(tokens)), key=lambda position: len(tokens[position]))
    features = np.zeros((len(tokens), pooling.features), np.float32)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        states, mask = model.hidden_states([tokens[position] for position in chosen])
        means = [mean_pool(states[layer], mask) for layer in pooling.means]
        maxima = [max_pool(states[layer], mask) for layer in pooling.maxima]
        features[chosen] = np.concatenate([*means, *maxima], axis=1)
    return features


def image_features(
    model: EfficientNetLite2, pictures: Sequence[NDArray[np.uint8]], *, margins: Sequence[int] = (0,)
) -> Float32Array:
    """The features of preprocessed pictures: mean channels of the last feature map and of earlier stages.

    Args:
        model: The picture model.
        pictures: b arrays of shape (h, w, 3), uint8.
        margins: Windows of the maps; see `EfficientNetLite2.window_features`.

    Returns:
        Array of shape (b, windows, 2120), float32.
    """
    import torch

    from mmalign.encoders.device import autocast, mixed_dtype

    with torch.inference_mode(), autocast(model.device, mixed_dtype(model.device, "auto")):
        pooled = model.window_features(model.to_input(pictures), margins=margins)
    result: Float32Array = pooled.cpu().numpy()
    return result


def stream_features(
    load_model: Callable[[], EfficientNetLite2],
    items: Iterable[InputT],
    prepare: Callable[[InputT], NDArray[np.uint8]],
    *,
    batch_size: int,
    margins: Sequence[int] = (0,),
) -> Iterator[Float32Array]:
    """The features of a stream of pictures, batch by batch and in order.

    On a GPU, worker threads prepare the next batches while the model runs. On a processor each worker thread prepares
    a picture and runs the model on it alone, which is faster than batches of 32 whose operators spread over the cores
    (`benchmarks/encode.py` measures by how much) and suffers less where other work keeps a core busy.

    Args:
        load_model: Gives the picture model; called only when there is a picture.
        items: What to prepare; consumed lazily.
        prepare: Gives an array of shape (h, w, 3), uint8, for an item.
        batch_size: How many are yielded at once.
        margins: Windows of the maps; see `EfficientNetLite2.window_features`.

    Yields:
        Arrays of shape (b, windows, 2120), float32, 1 <= b <= batch_size.
    """
    waiting = iter(items)
    first = next(waiting, None)
    if first is None:
        return
    items, model = chain([first], waiting), load_model()

    def run(item: InputT) -> Float32Array:
        compute_alone()
        row: Float32Array = image_features(model, [prepare(item)], margins=margins)[0]
        return row

    if model.device.type == "cpu":
        for rows in prefetch_batches(items, run, batch_size=batch_size, workers=default_workers()):
            yield np.stack(rows)
    else:
        for batch in prefetch_batches(items, prepare, batch_size=batch_size, workers=default_workers()):
            yield image_features(model, batch, margins=margins)
