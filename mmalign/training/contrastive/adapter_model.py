"""Adapters behind any encoder: the encoder is frozen, its embeddings are cached, two small networks are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional

from mmalign.encoders import load_encoder, save_adapted
from mmalign.errors import InputError
from mmalign.training.cache import Arrays
from mmalign.training.contrastive.model import Tensors, TrainableEncoder
from mmalign.training.options import parse_options
from mmalign.types import field_values
from mmalign.utils import Float32Array


@dataclass(frozen=True, slots=True)
class AdapterOptions:
    """What `[model]` may say when `kind = "adapter"`.

    Attributes:
        encoder: The spec of the encoder behind, as for `load_encoder`.
        dim: Width of the adapted embeddings; 0 for that of the encoder.
        hidden: Units of a second, nonlinear path; 0 leaves it out.
        input_dropout: Share of the embeddings' entries dropped in training.
        hidden_dropout: Share of the hidden units dropped in training.
    """

    encoder: str
    dim: int = 0
    hidden: int = 0
    input_dropout: float = 0.1
    hidden_dropout: float = 0.3

    def __post_init__(self) -> None:
        values = field_values(self)
        if self.dim < 0 or self.hidden < 0:
            raise InputError(f"dim and hidden must be 0 or more, got {self.dim} and {self.hidden}")
        for name in ("input_dropout", "hidden_dropout"):
            if not 0 <= values[name] < 1:
                raise InputError(f"{name} must be at least 0 and below 1, got {values[name]}")


class AdapterLayer(nn.Module):
    """The trainable twin of `mmalign.encoders.lite.adapter.Adapter`; of equal widths, it begins as the identity.

    Args:
        inputs: Width of the encoder's embeddings.
        dim: Width of the adapted embeddings.
        hidden: Units of the nonlinear path, whose output begins at zero; 0 leaves it out.
        input_dropout: Share of the entries dropped.
        hidden_dropout: Share of the hidden units dropped.
    """

    def __init__(self, inputs: int, dim: int, *, hidden: int, input_dropout: float, hidden_dropout: float) -> None:
        super().__init__()
        self.input_dropout, self.hidden_dropout = nn.Dropout(input_dropout), nn.Dropout(hidden_dropout)
        self.linear = nn.Linear(inputs, dim)
        nn.init.zeros_(self.linear.bias)
        if inputs == dim:
            nn.init.eye_(self.linear.weight)
        self.hidden = nn.Linear(inputs, hidden) if hidden else None
        self.output = nn.Linear(hidden, dim, bias=False) if hidden else None
        if self.output is not None:
            nn.init.zeros_(self.output.weight)

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Adapt embeddings of shape (n, inputs) to rows of length 1, shape (n, dim)."""
        x = self.input_dropout(embeddings)
        y = self.linear(x)
        if self.hidden is not None and self.output is not None:
            y = y + self.output(self.hidden_dropout(functional.gelu(self.hidden(x))))
        return functional.normalize(y, dim=-1)

    def tensors(self) -> dict[str, Float32Array]:
        """The tensors that `Adapter` takes, float32."""
        return {
            name: parameter.detach().float().cpu().numpy() for name, parameter in self.named_parameters(recurse=True)
        }


class AdapterModel(TrainableEncoder):
    """An encoder and the two adapters behind it in training.

    Args:
        options: As `AdapterOptions` describes them.
        device: Where everything is to be.
        seed: Of weights that begin at random: those of the hidden path, or of adapters that change the width.

    Raises:
        InputError: Unknown options, or an encoder that reads texts or pictures alone.
        EncoderSpecError: No such encoder.
        ModelUnavailableError: Weights that are not here.
    """

    freezes_lists = True

    def __init__(self, options: Mapping[str, Any], *, device: torch.device, seed: int) -> None:
        super().__init__()
        chosen = parse_options(AdapterOptions, options, where="model")
        self._base = load_encoder(chosen.encoder, device=str(device))
        if self._base.modalities != {"text", "image"}:
            raise InputError(
                f"model.encoder {chosen.encoder} encodes {', '.join(sorted(self._base.modalities))} alone; an adapter "
                "joins texts and pictures"
            )
        inputs = self._base.dim
        self.dim = chosen.dim or inputs
        self.image_version = f"adapter image {self._base.fingerprint}"
        self.text_version = f"adapter text {self._base.fingerprint}"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.text, self.image = (
                AdapterLayer(
                    inputs,
                    self.dim,
                    hidden=chosen.hidden,
                    input_dropout=chosen.input_dropout,
                    hidden_dropout=chosen.hidden_dropout,
                )
                for _ in range(2)
            )
        self.to(device)

    def prepare_image(self, picture: Image.Image) -> NDArray[np.uint8]:
        """Return the picture as it is: the encoder resizes it itself; see `TrainableEncoder`."""
        return np.asarray(picture)

    def freeze_images(self, pictures: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> Arrays:
        """Encode pictures, of whatever sizes; see `TrainableEncoder`."""
        return {"embedding": self._base.encode_image([Image.fromarray(picture) for picture in pictures])}

    def freeze_texts(self, texts: Sequence[str]) -> Arrays:
        """Encode texts; see `TrainableEncoder`."""
        return {"embedding": self._base.encode_text(texts)}

    def embed_images(self, inputs: Tensors) -> torch.Tensor:
        """Adapt the pictures' embeddings; see `TrainableEncoder`."""
        found: torch.Tensor = self.image(inputs["embedding"])
        return found

    def embed_texts(self, inputs: Tensors) -> torch.Tensor:
        """Adapt the texts' embeddings; see `TrainableEncoder`."""
        found: torch.Tensor = self.text(inputs["embedding"])
        return found

    def export(self, folder: Path, *, metadata: Mapping[str, str]) -> Path:
        """Write a folder that `load_encoder("adapter:FOLDER")` loads; see `TrainableEncoder`."""
        return save_adapted(folder, self._base, text=self.text.tensors(), image=self.image.tensors(), metadata=metadata)
