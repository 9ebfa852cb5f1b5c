"""The embeddings of sentences and pictures that a training asks for, computed once and kept in files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders import Encoder, stream_image
from mmalign.training.cache import cached_arrays
from mmalign.training.manifest import CaptionedFile
from mmalign.training.progress import counter
from mmalign.utils import Float32Array, ShowProgress, l2_normalize

_ROWS = 1024


class EmbeddingCache:
    """Embeddings of an encoder, kept in files.

    Args:
        encoder: What embeds.
        cache: The folder of all such files; runs may share it.
        progress: Told how far things are.

    Attributes:
        encoder: As given.
    """

    def __init__(self, encoder: Encoder, cache: Path, progress: ShowProgress | None) -> None:
        self.encoder, self._progress = encoder, progress
        self._folder = cache / f"captioner-{encoder.fingerprint[:12]}"

    def texts(self, role: str, sentences: Sequence[str]) -> Float32Array:
        """Embed sentences, or read what was kept of them.

        Args:
            role: Names them among the files, such as `train`.
            sentences: n sentences, at least one.

        Returns:
            Shape (n, dim), rows of length 1.

        Raises:
            StorageError: The disk refused.
        """

        def compute(start: int) -> Iterator[dict[str, NDArray[Any]]]:
            for first in range(start, len(sentences), _ROWS):
                block = sentences[first : first + _ROWS]
                # Texts of like length together: less of a batch is padding.
                order = np.argsort([len(sentence) for sentence in block], kind="stable")
                vectors = np.empty((len(block), self.encoder.dim), np.float16)
                vectors[order] = self.encoder.encode_text([block[row] for row in order])
                yield {"vectors": vectors}

        return self._kept(f"text-{role}", list(sentences), compute)

    def pictures(self, role: str, files: Sequence[CaptionedFile]) -> Float32Array:
        """Embed pictures, or read what was kept of them; a file that has changed counts as another one.

        Args:
            role: Names them among the files.
            files: n pictures that can be decoded.

        Returns:
            Shape (n, dim), rows of length 1.

        Raises:
            StorageError: The disk refused.
        """
        if not files:
            return np.zeros((0, self.encoder.dim), np.float32)
        paths = [file.path for file in files]

        def compute(start: int) -> Iterator[dict[str, NDArray[Any]]]:
            for block in stream_image(self.encoder, paths[start:]):
                yield {"vectors": block.astype(np.float16)}

        keys = [f"{path}:{Path(path).stat().st_mtime_ns}:{Path(path).stat().st_size}" for path in paths]
        return self._kept(f"picture-{role}", keys, compute)

    def _kept(self, name: str, keys: list[str], compute: Any) -> Float32Array:
        found = cached_arrays(
            self._folder,
            name,
            keys,
            compute,
            version=self.encoder.fingerprint,
            progress=counter(self._progress, name, len(keys)),
        )
        return l2_normalize(np.asarray(found["vectors"], np.float32))
