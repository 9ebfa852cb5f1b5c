"""How well an encoder finds pictures by the name of their class, and the class by the picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmalign.encoders import Encoder, encode_query, load_encoder
from mmalign.errors import InputError, SourceError
from mmalign.evaluation.manifest import ManifestRow, in_split, read_manifest_rows
from mmalign.evaluation.pictures import encode_pictures
from mmalign.metrics import any_hit_at_k, bootstrap_interval, median_rank, precision_at_k, retrieval_ranks
from mmalign.types import Skip, gives_json
from mmalign.utils import Float32Array, Int64Array, l2_normalize

PROMPTS = ("a photo of a {}",)
"""The default. With `lite@1`, averages over up to seven prompts were better on one set and worse on another."""

_HITS = (1, 10)
_PRECISION = 10
_GUESSES = (1, 5)


@dataclass(frozen=True, slots=True)
class ClassesTable:
    """How well pictures and the names of their classes find each other.

    Attributes:
        encoder: Name of the encoder.
        prompts: The sentences that class names were put into.
        names: Names of the c classes that have a picture.
        owner: Position of each picture's class, shape (n_images,), from 0.
        name_ranks: Rank of each class's best own picture among that and all wrong pictures, shape (c,), from 1.
        precisions: Share of right pictures among a class's first 10, or among as many as the class has where those
            are fewer, shape (c,), from 0 to 1.
        image_ranks: Rank of each picture's class among all classes, shape (n_images,), from 1.
        skipped: Pictures of the manifest that were left out, with the reason.
    """

    encoder: str
    prompts: tuple[str, ...]
    names: tuple[str, ...]
    owner: Int64Array
    name_ranks: Int64Array
    precisions: NDArray[np.float64]
    image_ranks: Int64Array
    skipped: tuple[Skip, ...] = ()

    @gives_json
    def to_dict(self) -> dict[str, Any]:
        """Return the table as JSON-ready values: counts, shares in percent, and what chance would reach.

        `class_to_image` is search by a class's name, one query a class; `image_to_class` is zero-shot
        classification, each picture counting once. Under `chance`, the median rank is that of the expected ranks.
        `interval_95` is drawn over classes, and over pictures.
        """
        return {
            "n_classes": len(self.names),
            "n_images": len(self.owner),
            "encoder": self.encoder,
            "prompts": list(self.prompts),
            "class_to_image": {
                **{f"any_hit@{k}": _percent(any_hit_at_k(self.name_ranks, k)) for k in _HITS},
                f"precision@{_PRECISION}": _percent(float(self.precisions.mean())),
                "median_rank": median_rank(self.name_ranks),
            },
            "image_to_class": {f"accuracy@{k}": _percent(any_hit_at_k(self.image_ranks, k)) for k in _GUESSES},
            "chance": self._chance(),
            "interval_95": {
                "class_to_image": {
                    **{f"any_hit@{k}": _interval(self.name_ranks <= k) for k in _HITS},
                    f"precision@{_PRECISION}": _interval(self.precisions),
                },
                "image_to_class": {f"accuracy@{k}": _interval(self.image_ranks <= k) for k in _GUESSES},
            },
        }

    def _chance(self) -> dict[str, dict[str, float]]:
        """What an order without knowledge reaches on average."""
        total, sizes = len(self.owner), [int(size) for size in np.bincount(self.owner)]
        missed = {k: [comb(total - size, k) / comb(total, min(k, total)) for size in sizes] for k in _HITS}
        return {
            "class_to_image": {
                **{f"any_hit@{k}": _percent(1 - float(np.mean(missed[k]))) for k in _HITS},
                f"precision@{_PRECISION}": _percent(float(np.mean(sizes)) / total),
                "median_rank": round(float(np.median([(total + 1) / (size + 1) for size in sizes])), 1),
            },
            "image_to_class": {f"accuracy@{k}": _percent(min(1.0, k / len(sizes))) for k in _GUESSES},
        }


def class_name(label: str) -> str:
    """Turn a label into words that a person would type.

    Args:
        label: Synonyms parted by commas, their words parted by spaces or underscores.

    Returns:
        The first synonym, its words parted by single spaces; empty where there is none.

    Example:
        >>> class_name("tabby_cat, house cat")
        'tabby cat'
    """
    return " ".join(label.split(",")[0].replace("_", " ").split())


def evaluate_classes(
    manifest: str | os.PathLike[str],
    *,
    split: str | None = None,
    encoder: str | Encoder = "lite",
    prompts: Sequence[str] = PROMPTS,
    batch_size: int = 32,
    progress: bool = True,
) -> ClassesTable:
    """Measure search by class name, and zero-shot classification, on the labelled pictures of a manifest.

    Each class is a query over all pictures, and each picture a query over all classes. Ties count against the
    encoder in both directions.

    Args:
        manifest: A manifest as for `read_manifest_rows`, whose lines may have `label`, a text; see `class_name`. Labels
            with the same name are one class.
        split: Which part of it; all of it where None.
        encoder: A spec for `load_encoder`, or an encoder.
        prompts: Sentences with `{}` in the place of the name; a class is the mean of its embeddings.
        batch_size: Pictures that go through the model at once.
        progress: Whether to show a progress bar.

    Returns:
        The table; a class none of whose pictures can be decoded is left out.

    Raises:
        SourceError: The manifest cannot be read, or a line is not as described.
        InputError: No such split, fewer than two classes, none of the pictures can be decoded, or a prompt without
            `{}`.

    Source: Radford et al., 2021 (CLIP), section 3.1, for the prompts and their mean.
    """
    _check_prompts(prompts)
    labelled = [(row.uri, name) for row in read_manifest_rows(manifest, split=split) if (name := _name(row))]
    _check_classes({name for _, name in labelled}, f"the pictures{in_split(split)} in {manifest} have")
    model = load_encoder(encoder)
    encoded = encode_pictures(model, [uri for uri, _ in labelled], batch_size=batch_size, progress=progress)
    of_pictures = [labelled[position][1] for position in encoded.kept]
    names = sorted(set(of_pictures))
    _check_classes(set(names), f"the pictures{in_split(split)} in {manifest} that can be decoded have")
    owner = np.searchsorted(names, of_pictures).astype(np.int64)
    classes = _encode_names(model, names, prompts)
    # Pictures take the place of texts: each has one class, each class any number of pictures.
    image_ranks, name_ranks = retrieval_ranks(encoded.vectors, classes, owner)
    precisions = [
        precision_at_k(encoded.vectors @ vector, owner == position, _PRECISION)
        for position, vector in enumerate(classes)
    ]
    return ClassesTable(
        encoder=model.name,
        prompts=tuple(prompts),
        names=tuple(names),
        owner=owner,
        name_ranks=name_ranks,
        precisions=np.array(precisions),
        image_ranks=image_ranks,
        skipped=encoded.skipped,
    )


def _encode_names(model: Encoder, names: Sequence[str], prompts: Sequence[str]) -> Float32Array:
    blocks = [encode_query(model, [prompt.replace("{}", name) for name in names]) for prompt in prompts]
    return l2_normalize(np.mean(blocks, axis=0))


def _check_prompts(prompts: Sequence[str]) -> None:
    if isinstance(prompts, str) or not prompts or not all("{}" in prompt for prompt in prompts):
        raise InputError(
            f'expected prompts with {{}} in the place of the class name, such as "a photo of a {{}}", got {prompts!r}'
        )


def _check_classes(names: set[str], who: str) -> None:
    if len(names) < 2:
        labelled = f"only the class {next(iter(names))!r}" if names else 'no "label"'
        raise InputError(
            f'{who} {labelled}; classes are measured with a "label" a picture, two different ones at least'
        )


def _name(row: ManifestRow) -> str:
    label = row.fields.get("label") or ""
    if not isinstance(label, str):
        raise SourceError(f'{row.where}: expected "label": a text, got {label!r}'[:200])
    return class_name(label)


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _interval(values: NDArray[Any]) -> list[float]:
    low, high = bootstrap_interval(values)
    return [_percent(low), _percent(high)]
