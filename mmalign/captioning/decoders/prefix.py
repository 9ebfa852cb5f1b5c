"""A soft prefix: vectors, made from a picture's embedding, that a frozen language model reads behind its prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mmalign.captioning.decoders.weight_file import format_of, read_weights, write_weights
from mmalign.errors import ModelUnavailableError
from mmalign.utils import Float32Array, as_matrix, l2_normalize

FORMAT = "mmalign soft prefix 1"
_MEAN = "vector_mean"
# What a picture adds to the words that a prefix begins as.
_QUIET = 0.1
_NOTES = ("encoder", "fingerprint", "language_model", "language_model_digest", "license", "provenance")


class SoftPrefix(nn.Module):
    """Maps an embedding to the vectors of `length` tokens that are none.

    Args:
        dim: Width of the embedding.
        width: Of the language model's token vectors.
        length: How many vectors.
        scale: Root mean square of the language model's own token vectors, so that the first ones are no louder.

    Source: Mokady et al., ClipCap: CLIP Prefix for Image Captioning, 2021.
    """

    def __init__(self, dim: int, width: int, *, length: int = 8, scale: float = 1.0) -> None:
        super().__init__()
        self.dim, self.width, self.length, self.scale = dim, width, length, scale
        hidden = max(dim, width)
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, length * width)

    @torch.no_grad()
    def begin_as(self, tokens: torch.Tensor) -> None:
        """Begin a training as the vectors of some words, whatever the picture.

        A language model makes sense of words from the first step on, and of random vectors only after thousands.

        Args:
            tokens: Vectors of as many tokens as the prefix is long, shape (length, width).

        Source: Lester et al., The Power of Scale for Parameter-Efficient Prompt Tuning, 2021.
        """
        self.outer.bias.copy_(tokens.flatten() / self.scale)
        self.outer.weight.mul_(_QUIET)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Make prefixes.

        Args:
            vectors: Shape (n, dim), rows of length 1, the mean of pictures taken off.

        Returns:
            Shape (n, length, width).
        """
        # Entries of a unit vector are about 1 / sqrt(dim).
        made: torch.Tensor = self.outer(torch.tanh(self.inner(vectors * self.dim**0.5)))
        return self.scale * made.view(-1, self.length, self.width)


@dataclass(frozen=True, slots=True)
class PrefixFile:
    """What a prefix's file holds.

    Attributes:
        prefix: The network.
        mean: The mean embedding of pictures, which is taken off each one, shape (dim,), float32.
        notes: `encoder` (name), `fingerprint`, `language_model` (the spec that loads it), `language_model_digest`,
            `license` and `provenance`.
    """

    prefix: SoftPrefix
    mean: Float32Array
    notes: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the encoder whose embeddings it reads."""
        return self.notes["fingerprint"]

    def moved(self, vector: Float32Array) -> torch.Tensor:
        """Take the mean off an embedding, as it was in the training.

        Args:
            vector: Shape (dim,), as the encoder gives it.

        Returns:
            Shape (1, dim), of length 1.

        Raises:
            DimensionError: Another width.
        """
        return torch.from_numpy(l2_normalize(as_matrix(vector, dim=self.prefix.dim, name="vector") - self.mean))


def write_prefix(path: Path, file: PrefixFile) -> str:
    """Write a prefix to one safetensors file, float32.

    Args:
        path: The file.
        file: What it is to hold.

    Returns:
        SHA-256 of the file as 64 hex digits.

    Raises:
        InputError: A note is missing.
    """
    prefix = file.prefix
    header = {
        "format": FORMAT,
        "notes": dict(file.notes),
        "config": {"dim": prefix.dim, "width": prefix.width, "length": prefix.length, "scale": prefix.scale},
    }
    tensors = {name: tensor.detach().cpu().float().contiguous() for name, tensor in prefix.state_dict().items()}
    tensors[_MEAN] = torch.from_numpy(np.asarray(file.mean, np.float32))
    return write_weights(path, tensors, header, notes=_NOTES)


def read_prefix(path: Path) -> PrefixFile:
    """Read what `write_prefix` wrote.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ModelUnavailableError: It cannot be read, or is something else.
    """
    try:
        header, state = read_weights(path, format_=FORMAT)
        config, notes = header["config"], header["notes"]
        mean = state.pop(_MEAN).numpy()
        with torch.random.fork_rng(devices=[]):
            prefix = SoftPrefix(config["dim"], config["width"], length=config["length"], scale=config["scale"])
        prefix.load_state_dict(state)
        if missing := [note for note in _NOTES if not notes.get(note)]:
            raise ValueError(f"the notes {missing} are missing")
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelUnavailableError(
            f"{path} is not a soft prefix ({error}); expected the file that mmalign train captioner --language-model "
            "exported"
        ) from error
    return PrefixFile(prefix.eval(), mean, notes)


def is_prefix(path: Path) -> bool:
    """Whether a file says that it holds a soft prefix.

    Args:
        path: The file.
    """
    return format_of(path) == FORMAT
