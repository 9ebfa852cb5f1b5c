"""The frozen arrays of sentences."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmalign.training.cache import Arrays, Table, cached_arrays
from mmalign.training.contrastive.model import TrainableEncoder
from mmalign.training.progress import counter
from mmalign.utils import ShowProgress

_ROWS = 1024


def frozen_texts(
    model: TrainableEncoder, sentences: Sequence[str], *, cache: Path, role: str, progress: ShowProgress | None = None
) -> Table:
    """Run the frozen part on every sentence, or read what an earlier run kept.

    Args:
        model: The model.
        sentences: n sentences.
        cache: Where the arrays are kept.
        role: Names the sentences in the files and the progress.
        progress: Told of every block.

    Returns:
        A table of n rows.

    Raises:
        StorageError: The disk refused.
    """

    def compute(start: int) -> Iterator[Arrays]:
        for first in range(start, len(sentences), _ROWS):
            yield model.freeze_texts(sentences[first : first + _ROWS])

    columns = cached_arrays(
        cache / hashlib.sha256(model.text_version.encode()).hexdigest()[:12],
        f"text-{role}",
        sentences,
        compute,
        version=model.text_version,
        progress=counter(progress, f"{role} sentences", len(sentences)),
    )
    return Table(columns)
