"""How well an encoder finds pictures by caption, and captions by picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmalign.encoders import Encoder, encode_query, load_encoder
from mmalign.errors import InputError, SourceError
from mmalign.evaluation.manifest import ManifestRow, in_split, read_manifest_rows
from mmalign.evaluation.pictures import encode_pictures
from mmalign.metrics import any_hit_at_k, bootstrap_interval, median_rank, retrieval_ranks
from mmalign.types import Skip, check_integer, gives_json
from mmalign.utils import Int64Array

_CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class CaptionedPicture:
    """One line of a manifest.

    Attributes:
        uri: Absolute path or URL of the picture.
        captions: Sentences that describe it, none of them blank.
    """

    uri: str
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RetrievalTable:
    """How well an encoder finds the right answers.

    Attributes:
        n_images: Pictures in the gallery.
        n_captions: Captions of those pictures.
        encoder: Name of the encoder.
        text_ranks: Rank of each caption's picture, shape (n_captions,), from 1.
        text_owner: Position of each caption's picture, shape (n_captions,), from 0.
        image_ranks: Rank of each picture's best own caption, shape (n_images,), from 1.
        skipped: Pictures of the manifest that were left out, with the reason; their captions are left out, too.
    """

    n_images: int
    n_captions: int
    encoder: str
    text_ranks: Int64Array
    text_owner: Int64Array
    image_ranks: Int64Array
    skipped: tuple[Skip, ...] = ()

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON-ready values: counts, and any-hit at 1, 5 and 10 in percent.

        `interval_95` is drawn over pictures, since the captions of one picture are not independent.
        """
        return {
            "n_images": self.n_images,
            "n_captions": self.n_captions,
            "encoder": self.encoder,
            "text_to_image": _scores(self.text_ranks),
            "image_to_text": _scores(self.image_ranks),
            "interval_95": {
                "text_to_image": _intervals(self.text_ranks, self.text_owner),
                "image_to_text": _intervals(self.image_ranks),
            },
        }


def read_captions(manifest: str | os.PathLike[str], *, split: str | None = None) -> list[CaptionedPicture]:
    """Read the pictures of a manifest that have captions.

    Args:
        manifest: A manifest as for `read_manifest_rows`, whose lines may have `captions`, a list of sentences.
        split: Only the lines with this `split`; all of them where None.

    Returns:
        At least one picture, in the manifest's order.

    Raises:
        SourceError: The manifest cannot be read, or a line is not as described.
        InputError: There is no such split, or no picture with a caption in it.
    """
    rows = read_manifest_rows(manifest, split=split)
    pictures = [CaptionedPicture(row.uri, captions) for row in rows if (captions := _captions(row))]
    if not pictures:
        raise InputError(
            f"no picture{in_split(split)} in {manifest} has a caption; retrieval is measured with captions"
        )
    return pictures


def evaluate_retrieval(
    manifest: str | os.PathLike[str],
    *,
    split: str | None = None,
    encoder: str | Encoder = "lite",
    batch_size: int = 32,
    progress: bool = True,
) -> RetrievalTable:
    """Measure text-to-image and image-to-text retrieval on the captioned pictures of a manifest.

    Every caption is a query for its own picture among all pictures, and every picture a query for any of its own
    captions among all captions.

    Args:
        manifest: The manifest, as for `read_captions`.
        split: Which part of it; all of it where None.
        encoder: A spec for `load_encoder`, or an encoder.
        batch_size: Pictures that go through the model at once.
        progress: Whether to show a progress bar.

    Returns:
        The table; pictures that cannot be decoded are in `skipped`.

    Raises:
        SourceError: The manifest cannot be read.
        InputError: No such split, no captions, or none of the pictures can be decoded.

    Source: the protocol of Karpathy and Fei-Fei, 2015; see `mmalign.metrics.retrieval` for ties.
    """
    check_integer("batch_size", batch_size, least=1)
    pictures = read_captions(manifest, split=split)
    model = load_encoder(encoder)
    encoded = encode_pictures(model, [p.uri for p in pictures], batch_size=batch_size, progress=progress)
    kept = [pictures[position] for position in encoded.kept]
    texts = [caption for picture in kept for caption in picture.captions]
    owner = np.repeat(np.arange(len(kept)), [len(picture.captions) for picture in kept])
    text_ranks, image_ranks = retrieval_ranks(encode_query(model, texts), encoded.vectors, owner)
    return RetrievalTable(
        n_images=len(kept),
        n_captions=len(texts),
        encoder=model.name,
        text_ranks=text_ranks,
        text_owner=owner,
        image_ranks=image_ranks,
        skipped=encoded.skipped,
    )


def _captions(row: ManifestRow) -> tuple[str, ...]:
    captions = row.fields.get("captions") or []
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise SourceError(f'{row.where}: expected "captions": a list of strings, got {captions!r}'[:200])
    return tuple(caption for caption in captions if caption.strip())


def _scores(ranks: Int64Array) -> dict[str, float]:
    scores = {f"any_hit@{k}": round(100 * any_hit_at_k(ranks, k), 2) for k in _CUTOFFS}
    return scores | {"median_rank": median_rank(ranks)}


def _intervals(ranks: Int64Array, owner: Int64Array | None = None) -> dict[str, list[float]]:
    bounds = {f"any_hit@{k}": bootstrap_interval(ranks <= k, groups=owner) for k in _CUTOFFS}
    return {name: [round(100 * low, 2), round(100 * high, 2)] for name, (low, high) in bounds.items()}
