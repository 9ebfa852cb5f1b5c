"""Captions to retrieve from, read from files, and their embeddings, kept for the next time."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmalign.captioning import TextStore
from mmalign.encoders import Encoder
from mmalign.errors import InputError, SourceError, StorageError
from mmalign.evaluation.manifest import in_split
from mmalign.evaluation.retrieval import read_captions
from mmalign.types import describe
from mmalign.utils import track, write_atomic

# Embedded and kept together: half a minute of work, which is what a power cut can cost.
_CHUNK = 2048
# Texts beyond this are no captions; the encoder would cut them anyway.
_MOST_CHARACTERS = 2000

Twins = Callable[[Sequence[str], Sequence[str]], NDArray[np.bool_]]
"""Says which of n sentences nearly equal one of those that are measured on: shape (n,)."""


@dataclass(frozen=True, slots=True)
class Sentences:
    """Captions to retrieve from.

    Attributes:
        captions: The captions, as they were written.
        sources: For each the absolute path or URL of its picture; empty where it has none.
        counts: What was read: `captions`, and `too_long` ones that were left out.
    """

    captions: tuple[str, ...]
    sources: tuple[str, ...]
    counts: dict[str, int]


def read_stored_captions(files: Sequence[str | os.PathLike[str]], *, split: str | None = None) -> Sentences:
    """Read the captions of manifests and text files.

    Args:
        files: Manifests (`.jsonl`, see `read_captions`) and text files with a caption a line.
        split: Which part of the manifests; all of them where None.

    Returns:
        At least two captions. The same words under the same picture come once, longer texts than 2,000 characters not
        at all.

    Raises:
        SourceError: A file cannot be read.
        InputError: A file has no such split, or there are fewer than two captions in all of them.
    """
    if not isinstance(files, list | tuple) or not all(isinstance(file, str | os.PathLike) for file in files):
        raise InputError(f"the datastore is a list of paths of manifests and text files, got {describe(files)}")
    captions: list[str] = []
    sources: list[str] = []
    long = 0
    seen: set[tuple[str, str]] = set()
    for file in map(Path, files):
        if file.suffix == ".jsonl":
            found = [(text, row.uri) for row in read_captions(file, split=split) for text in row.captions]
        else:
            found = [(text, "") for text in _read_lines(file)]
        for text, source in found:
            clean = " ".join(text.split())
            if len(clean) > _MOST_CHARACTERS:
                long += 1
            elif clean and (clean, source) not in seen:
                seen.add((clean, source))
                captions.append(clean)
                sources.append(source)
    if len(captions) < 2:
        # Words are weighed by how few captions have them: of one caption none has a weight.
        names = ", ".join(map(str, files)) or "no files at all"
        raise InputError(
            f"the datastore holds {len(captions) or 'no'} captions, expected two at least: {names}{in_split(split)}; "
            "name manifests whose pictures have captions, or text files with a caption a line"
        )
    return Sentences(tuple(captions), tuple(sources), {"captions": len(captions), "too_long": long})


def embed_sentences(
    sentences: Sentences, encoder: Encoder, *, cache: str | os.PathLike[str] | None = None, progress: bool = True
) -> TextStore:
    """Embed captions, or take the embeddings from the last time.

    Args:
        sentences: The captions.
        encoder: Embeds those that are new.
        cache: Where embeddings are kept, by the encoder's fingerprint and the captions themselves; `cache_folder()`
            where None.
        progress: Whether to show a progress bar.

    Returns:
        The captions with their embeddings, float16. A run that was stopped goes on where it was.

    Raises:
        StorageError: The cache cannot be written.
    """
    folder = (cache_folder() if cache is None else Path(cache)) / encoder.fingerprint[:16]
    # In their own order: a further file at the end, or captions left out at the end, leave the earlier chunks alone.
    distinct = list(dict.fromkeys(sentences.captions))
    place = {caption: row for row, caption in enumerate(distinct)}
    blocks = []
    with track("Embedding captions", len(distinct), enabled=progress) as advance:
        for start in range(0, len(distinct), _CHUNK):
            part = distinct[start : start + _CHUNK]
            blocks.append(_embedded(part, encoder, folder))
            advance(len(part))
    rows = np.array([place[caption] for caption in sentences.captions], np.int64)
    return TextStore(sentences.captions, np.concatenate(blocks)[rows], sentences.sources, encoder.fingerprint)


def cache_folder() -> Path:
    """Where embeddings of captions are kept: `$MMALIGN_CACHE`, else `mmalign/captions` in the user's cache folder."""
    if named := os.environ.get("MMALIGN_CACHE"):
        return Path(named) / "captions"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mmalign" / "captions"


def _embedded(captions: Sequence[str], encoder: Encoder, folder: Path) -> NDArray[np.float16]:
    path = folder / f"{hashlib.sha256(json.dumps(captions).encode()).hexdigest()[:24]}.npy"
    try:
        kept: NDArray[np.float16] = np.load(path)
    except (OSError, ValueError):
        pass
    else:
        if kept.shape == (len(captions), encoder.dim):
            return kept
    # Captions of one length together: none is padded much.
    order = sorted(range(len(captions)), key=lambda row: len(captions[row]))
    vectors = np.empty((len(captions), encoder.dim), np.float16)
    vectors[order] = encoder.encode_text([captions[row] for row in order])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda temporary: np.save(temporary, vectors))
    except OSError as error:
        raise StorageError(
            f"embeddings of captions cannot be kept in {folder}: {error}; set MMALIGN_CACHE to a folder that can be "
            "written to"
        ) from error
    return vectors


def _read_lines(file: Path) -> list[str]:
    try:
        # Not splitlines: it also cuts at marks that occur within sentences.
        return file.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    except OSError as error:
        raise SourceError(
            f"the datastore {file} cannot be read: {error}; expected a manifest.jsonl or a text file with a caption a "
            "line"
        ) from error
