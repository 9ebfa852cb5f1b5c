"""Pictures with phrases and boxes, as manifests hold them."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from mmalign.errors import DimensionError, InputError, SourceError
from mmalign.evaluation.manifest import ManifestRow, in_split, read_manifest_rows
from mmalign.metrics import Float64Array, as_boxes


@dataclass(frozen=True, slots=True, eq=False)
class PhrasePicture:
    """One line of a manifest that has phrases.

    Attributes:
        uri: Absolute path or URL of the picture.
        captions: Sentences about it; there may be none.
        phrases: Its phrases, each once, in the order in which they first come.
        boxes: True boxes of each phrase, rows of [x, y, width, height] in pixels, shape (t, 4), at least one row.
    """

    uri: str
    captions: tuple[str, ...]
    phrases: tuple[str, ...]
    boxes: tuple[Float64Array, ...]


def read_phrases(manifest: str | os.PathLike[str], *, split: str | None = None) -> list[PhrasePicture]:
    """Read the pictures of a manifest that have phrases with boxes.

    Args:
        manifest: A manifest as for `read_manifest_rows`, whose lines may have `phrases`, a list of
            `{"phrase": text, "box": [x, y, width, height]}` in pixels of the file; the same phrase may come again with
            another box. `captions` are read where there are any.
        split: Only the lines with this `split`; all of them where None.

    Returns:
        At least one picture, in the manifest's order.

    Raises:
        SourceError: The manifest cannot be read, or a line is not as described.
        InputError: There is no such split, or no picture with a phrase in it.
    """
    rows = read_manifest_rows(manifest, split=split)
    pictures = [_picture(row) for row in rows if row.fields.get("phrases")]
    if not pictures:
        raise InputError(
            f"no picture{in_split(split)} in {manifest} has phrases; grounding is measured with lines such as "
            '{"image": "a.jpg", "phrases": [{"phrase": "a dog", "box": [10, 20, 30, 40]}]}'
        )
    return pictures


def _picture(row: ManifestRow) -> PhrasePicture:
    listed = row.fields["phrases"]
    boxes: dict[str, list[object]] = {}
    if not isinstance(listed, list):
        raise SourceError(f'{row.where}: expected "phrases": a list, got {listed!r}'[:200])
    for entry in listed:
        phrase = entry.get("phrase") if isinstance(entry, dict) else None
        if not isinstance(phrase, str) or not phrase.strip() or "box" not in entry:
            raise SourceError(f'{row.where}: expected {{"phrase": text, "box": [x, y, w, h]}}, got {entry!r}'[:200])
        boxes.setdefault(phrase, []).append(entry["box"])
    try:
        arrays = tuple(as_boxes(np.asarray(found, dtype=np.float64)) for found in boxes.values())
    except (DimensionError, InputError, TypeError, ValueError) as error:
        raise SourceError(f"{row.where}: {error}") from error
    captions = row.fields.get("captions") or []
    if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
        raise SourceError(f'{row.where}: expected "captions": a list of strings, got {captions!r}'[:200])
    return PhrasePicture(row.uri, tuple(caption for caption in captions if caption.strip()), tuple(boxes), arrays)
