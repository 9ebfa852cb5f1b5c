"""How often an encoder prefers a picture's true caption to a hard negative: a caption with one thing made wrong."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders import Encoder, encode_query, load_encoder
from mmalign.errors import InputError, SourceError
from mmalign.evaluation.manifest import ManifestRow, in_split, read_manifest_rows
from mmalign.evaluation.pictures import encode_pictures
from mmalign.metrics import bootstrap_interval
from mmalign.types import Skip, gives_json
from mmalign.utils import Float32Array, Int64Array

_FIELDS = ("type", "caption", "negative")


@dataclass(frozen=True, slots=True)
class CaptionPair:
    """A true caption of a picture and its wrong twin.

    Attributes:
        type: What was done to the caption, such as `swap_obj`.
        caption: The true one.
        negative: The wrong one.
    """

    type: str
    caption: str
    negative: str


@dataclass(frozen=True, slots=True)
class PairsTable:
    """How often the true caption wins.

    Attributes:
        encoder: Name of the encoder.
        n_images: Pictures that the pairs belong to.
        types: Type of each pair, n_pairs of them.
        right: Whether the true caption scores higher, shape (n_pairs,); a tie counts as wrong.
        owner: Position of each pair's picture, shape (n_pairs,), from 0.
        skipped: Pictures of the manifest that were left out, with the reason; their pairs are left out, too.
    """

    encoder: str
    n_images: int
    types: tuple[str, ...]
    right: NDArray[np.bool_]
    owner: Int64Array
    skipped: tuple[Skip, ...] = ()

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON-ready values: counts, and accuracies with their intervals in percent.

        Each interval covers 95% and is drawn over pictures, since the pairs of one picture are not independent.
        `chance` is what a coin would reach.
        """
        types = np.array(self.types)
        return {
            "n_images": self.n_images,
            "n_pairs": len(self.types),
            "encoder": self.encoder,
            "chance": 50.0,
            "overall": self._score(np.ones(len(types), np.bool_)),
            "by_type": {str(name): self._score(types == name) for name in np.unique(types)},
        }

    def _score(self, chosen: NDArray[np.bool_]) -> dict[str, Any]:
        right = self.right[chosen]
        low, high = bootstrap_interval(right, groups=self.owner[chosen])
        return {
            "n_pairs": len(right),
            "accuracy": round(100 * float(right.mean()), 2),
            "interval_95": [round(100 * low, 2), round(100 * high, 2)],
        }


def evaluate_pairs(
    manifest: str | os.PathLike[str],
    *,
    split: str | None = None,
    encoder: str | Encoder = "lite",
    batch_size: int = 32,
    progress: bool = True,
) -> PairsTable:
    """Measure how often a picture's true caption scores higher than its hard negative.

    Args:
        manifest: A manifest as for `read_manifest_rows`, whose lines may have `hard_negatives`, a list of objects with
            `type`, `caption` and `negative`, all of them texts.
        split: Which part of it; all of it where None.
        encoder: A spec for `load_encoder`, or an encoder.
        batch_size: Pictures that go through the model at once.
        progress: Whether to show a progress bar.

    Returns:
        The table. A tie counts as wrong, so that an encoder that cannot tell the two apart earns nothing.

    Raises:
        SourceError: The manifest cannot be read, or a line is not as described.
        InputError: No such split, no hard negatives, or none of their pictures can be decoded.

    Source: SugarCrepe, Hsieh et al., 2023.
    """
    found = [(row.uri, pairs) for row in read_manifest_rows(manifest, split=split) if (pairs := _pairs(row))]
    if not found:
        raise InputError(
            f'no picture{in_split(split)} in {manifest} has "hard_negatives"; pairs are measured with a list of '
            '{"type", "caption", "negative"} a picture'
        )
    model = load_encoder(encoder)
    encoded = encode_pictures(model, [uri for uri, _ in found], batch_size=batch_size, progress=progress)
    kept = [found[position][1] for position in encoded.kept]
    pairs = [pair for several in kept for pair in several]
    owner = np.repeat(np.arange(len(kept)), [len(several) for several in kept])
    captions, negatives = _encode_sides(model, pairs)
    images = encoded.vectors[owner]
    return PairsTable(
        encoder=model.name,
        n_images=len(kept),
        types=tuple(pair.type for pair in pairs),
        right=(captions * images).sum(axis=1) > (negatives * images).sum(axis=1),
        owner=owner,
        skipped=encoded.skipped,
    )


def _encode_sides(model: Encoder, pairs: Sequence[CaptionPair]) -> tuple[Float32Array, Float32Array]:
    # Each text once: most captions have several negatives, and equal texts must tie to the last bit.
    position: dict[str, int] = {}
    for pair in pairs:
        position.setdefault(pair.caption, len(position))
        position.setdefault(pair.negative, len(position))
    vectors = encode_query(model, list(position))
    return (
        vectors[[position[pair.caption] for pair in pairs]],
        vectors[[position[pair.negative] for pair in pairs]],
    )


def _pairs(row: ManifestRow) -> list[CaptionPair]:
    entries = row.fields.get("hard_negatives") or []
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(name), str) and entry[name].strip() for name in _FIELDS)
        for entry in entries
    ):
        raise SourceError(
            f'{row.where}: expected "hard_negatives": a list of objects with the texts "type", "caption" and '
            f'"negative", got {entries!r}'[:300]
        )
    return [CaptionPair(*(entry[name] for name in _FIELDS)) for entry in entries]
