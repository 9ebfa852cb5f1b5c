"""Any encoder with a small trained network behind it: what `mmalign train contrastive` makes of `kind = "adapter"`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmalign.encoders.base import (
    Encoder,
    ImageLike,
    KnownWords,
    KnowsWords,
    StreamingEncoder,
    TruncatesTexts,
    encode_query,
    stream_image,
)
from mmalign.encoders.lite.adapter import Adapter
from mmalign.encoders.texts import check_texts
from mmalign.errors import EncoderSpecError, ModelUnavailableError
from mmalign.utils import Float32Array, write_atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

DESCRIPTION, WEIGHTS = "adapter.json", "adapter.safetensors"
_FORMAT = 1
_SIDES = ("text", "image")


class AdaptedEncoder(StreamingEncoder):
    """An encoder whose embeddings go through a trained adapter each for texts and for pictures.

    Args:
        folder: A folder written by `save_adapted`.
        load: Gives the encoder behind by its name, as `load_encoder` does.
        device: Where the encoder behind runs: a torch device; None for CUDA where there is one, else the processor.

    Attributes:
        name: The spec that loads it again, `adapter:/path`.
        base: The encoder behind.
        dim: Width of an embedding.
        modalities: Those of the encoder behind.

    Raises:
        ModelUnavailableError: The folder is not there, damaged, or made for other weights of the encoder behind.
        EncoderSpecError: It was written by a newer mmalign.

    Source: Gao et al., CLIP-Adapter: Better Vision-Language Models with Feature Adapters, 2024.
    """

    def __init__(self, folder: str | Path, *, load: Callable[..., Encoder], device: str | None = None) -> None:
        path = Path(folder).expanduser().absolute()
        self.name = f"adapter:{path}"
        description = _read(path, self.name)
        self.base = load(description["encoder"], device=device)
        self.modalities = self.base.modalities
        if self.base.fingerprint != description["encoder_fingerprint"]:
            raise ModelUnavailableError(
                f"{self.name} was trained behind another state of {description['encoder']} (fingerprint "
                f"{description['encoder_fingerprint'][:12]}, this one has {self.base.fingerprint[:12]}); bring that "
                "model back, or train the adapter anew"
            )
        tensors = _load(path / WEIGHTS, self.name)
        self._text, self._image = (
            Adapter({name.removeprefix(f"{side}."): t for name, t in tensors.items() if name.startswith(f"{side}.")})
            for side in _SIDES
        )
        self.dim = self._text.dim
        parts = [self.base.fingerprint, _digest(path / WEIGHTS)]
        self._fingerprint = hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Hex digest of the encoder behind and of the adapters' weights."""
        return self._fingerprint

    def encode_text(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        """Encode texts.

        Args:
            texts: n texts.
            batch_size: How many go through the model at once.

        Returns:
            Array of shape (n, dim), float32, each row of length 1.

        Raises:
            InputError: Not a sequence of texts.
        """
        texts = check_texts(texts, batch_size=batch_size)
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return self._text(self.base.encode_text(texts, batch_size=batch_size))

    def encode_query(self, texts: Sequence[str], *, batch_size: int = 64) -> Float32Array:
        """Encode texts that are searched with, as the encoder behind reads them; see `encode_text`."""
        texts = check_texts(texts, batch_size=batch_size)
        if not texts:
            return np.zeros((0, self.dim), np.float32)
        return self._text(encode_query(self.base, texts, batch_size=batch_size))

    def stream_image(self, images: Iterable[ImageLike], *, batch_size: int = 32) -> Iterator[Float32Array]:
        """Encode pictures batch by batch; see `StreamingEncoder.stream_image`."""
        for embeddings in stream_image(self.base, images, batch_size=batch_size):
            yield self._image(embeddings)

    def truncates(self, text: str) -> bool:
        """Say whether a text is longer than the encoder behind reads; False where that cannot tell."""
        return isinstance(self.base, TruncatesTexts) and self.base.truncates(text)

    def knows(self, text: str) -> KnownWords:
        """Say which words the encoder behind knows; all of them where that cannot tell."""
        if isinstance(self.base, KnowsWords):
            return self.base.knows(text)
        return KnownWords(len(text.split()), (), nothing=False)


def save_adapted(
    folder: Path,
    base: Encoder,
    *,
    text: Mapping[str, NDArray[Any]],
    image: Mapping[str, NDArray[Any]],
    metadata: Mapping[str, str],
) -> Path:
    """Write what `AdaptedEncoder` reads.

    Args:
        folder: An existing folder.
        base: The encoder behind; its name must load it again.
        text: Tensors of the text side, as `mmalign.encoders.lite.adapter.Adapter` takes them.
        image: The same of the picture side.
        metadata: Licence and provenance.

    Returns:
        The folder.
    """
    from safetensors.numpy import save_file

    tensors = {
        f"{side}.{name}": np.ascontiguousarray(tensor)
        for side, given in (("text", text), ("image", image))
        for name, tensor in given.items()
    }
    ordered = dict(sorted(metadata.items()))
    write_atomic(folder / WEIGHTS, lambda path: save_file(tensors, path, metadata=ordered))
    description = {"format": _FORMAT, "encoder": base.name, "encoder_fingerprint": base.fingerprint}
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
    return folder


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        description = json.loads((path / DESCRIPTION).read_text(encoding="utf-8"))
        version = int(description["format"])
        if version > _FORMAT:
            raise EncoderSpecError(f"{name} has format {version}, this mmalign reads {_FORMAT}; install a newer one")
        if not all(isinstance(description[key], str) for key in ("encoder", "encoder_fingerprint")):
            raise TypeError("encoder and encoder_fingerprint must be texts")
    except OSError as error:
        raise ModelUnavailableError(
            f"{name}: {path / DESCRIPTION} cannot be read: {error}; expected the folder `export` of a training"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, EncoderSpecError):
            raise
        raise ModelUnavailableError(f"{name}: {path / DESCRIPTION} is damaged: {error}; export it anew") from error
    return dict(description)


def _load(path: Path, name: str) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors: dict[str, NDArray[Any]] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelUnavailableError(f"{name}: {path} cannot be read: {error}; export it anew") from error
    missing = [side for side in _SIDES if f"{side}.linear.weight" not in tensors]
    if missing:
        raise ModelUnavailableError(f"{name}: {path} lacks {missing[0]}.linear.weight; export it anew")
    return tensors


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
