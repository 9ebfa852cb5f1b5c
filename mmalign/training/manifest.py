"""Reading manifests and files of sentences for a training, with what is wrong in them counted."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.errors import InputError, SourceError
from mmalign.training.options import check_range

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class PartConfig:
    """Some pictures and captions of one manifest.

    Attributes:
        manifest: A `manifest.jsonl`; that of `[data]` where left out.
        splits: Which lines; all where empty.
        repeat: How often each picture comes up in an epoch; 0.5 takes a random half anew each time.
        field: The key of the captions, such as `captions` or `phrases`.
    """

    manifest: str = ""
    splits: tuple[str, ...] = ()
    repeat: float = 1.0
    field: str = "captions"

    def __post_init__(self) -> None:
        check_range("repeat", self.repeat, least=0, above=True)


@dataclass(frozen=True, slots=True)
class CaptionedFile:
    """One picture of a manifest, with its captions.

    Attributes:
        name: The path as the manifest has it; seeds the picture's random views.
        path: The absolute path.
        captions: Sentences, none of them blank.
        repeat: How often it comes up in an epoch.
    """

    name: str
    path: str
    captions: tuple[str, ...]
    repeat: float = 1.0


def read_part(part: PartConfig, *, role: str, counts: Counter[str]) -> list[CaptionedFile]:
    """Read the captioned pictures of one part of the data.

    Args:
        part: The manifest and its splits.
        role: `train`, `dev` or `held_out`, for errors and counts.
        counts: Gets the number of blank captions and of pictures without a caption added.

    Returns:
        At least one picture, in the manifest's order.

    Raises:
        SourceError: The manifest cannot be read, or a line is not as described in `CaptionedFile`.
        InputError: No manifest is named, a split does not exist, or no picture has a caption.
    """
    if not part.manifest:
        raise InputError(f"data.{role} names no manifest; set data.manifest, or pass --manifest FILE")
    path = Path(part.manifest)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"the manifest {path} cannot be read: {error}; expected a manifest.jsonl") from error
    folder, splits, found = path.absolute().parent, Counter[str](), []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        row = _parse(line, where=f"{path}:{number}")
        split = str(row.get("split") or "")
        splits[split] += 1
        if part.splits and split not in part.splits:
            continue
        given = _captions(row, part.field, where=f"{path}:{number}")
        captions = tuple(caption for caption in given if _WORD.search(caption))
        counts[f"{role}_blank_captions"] += len(given) - len(captions)
        if captions:
            image = row["image"]
            found.append(CaptionedFile(image, str(folder / image), captions, part.repeat))
        else:
            counts[f"{role}_pictures_without_caption"] += 1
    missing = [split for split in part.splits if split not in splits]
    if missing:
        there = ", ".join(f"{name or '(none)'} ({count})" for name, count in sorted(splits.items())) or "no lines"
        raise InputError(
            f"{path} has no split {', '.join(map(repr, missing))}, asked for by data.{role}; it has {there}"
        )
    if not found:
        raise InputError(f"no picture of {path} for data.{role} has a caption under {part.field!r}")
    return found


def read_sentences(paths: Sequence[str], *, counts: Counter[str]) -> list[str]:
    """Read files of sentences, one a line, each sentence once.

    Args:
        paths: The files.
        counts: Gets the number of blank and of repeated lines added.

    Returns:
        The sentences, in order.

    Raises:
        SourceError: A file cannot be read.
    """
    found: dict[str, None] = {}
    for path in paths:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{path} of data.texts cannot be read: {error}; expected one sentence a line") from error
        for line in lines:
            sentence = line.strip()
            if not _WORD.search(sentence):
                counts["text_blank_lines"] += 1
            elif sentence in found:
                counts["text_repeated_lines"] += 1
            else:
                found[sentence] = None
    return list(found)


def check_captions_differ(pictures: Sequence[CaptionedFile], *, role: str) -> None:
    """Refuse pictures that no caption tells apart.

    Args:
        pictures: The pictures.
        role: Names them in the error.

    Raises:
        InputError: Fewer than two pictures, or one caption for all of them.
    """
    if len(pictures) < 2:
        raise InputError(f"data.{role} has {len(pictures)} usable pictures with captions, expected two at least")
    different = {caption.strip().lower() for picture in pictures for caption in picture.captions}
    if len(different) < 2:
        raise InputError(
            f"all {len(pictures)} pictures of data.{role} have one caption, {next(iter(different))!r}: there is "
            "nothing to tell apart; give captions that say what is in each picture"
        )


def _parse(line: str, *, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise SourceError(f"{where}: not JSON ({error}); expected one object a line") from error
    if not isinstance(row, dict) or not isinstance(row.get("image"), str) or not row["image"]:
        raise SourceError(f'{where}: expected an object with "image": a path, got {line.strip()[:80]!r}')
    return row


def _captions(row: dict[str, Any], field: str, *, where: str) -> list[str]:
    given = row.get(field) or []
    if isinstance(given, str):
        given = [given]
    # Phrases of a manifest are objects with a box; two boxes of one phrase are one text.
    if isinstance(given, list) and given and all(isinstance(entry, dict) for entry in given):
        given = list(dict.fromkeys(entry.get("phrase") for entry in given))
    if not isinstance(given, list) or not all(isinstance(caption, str) for caption in given):
        raise SourceError(f'{where}: expected "{field}": a list of strings, got {str(given)[:120]}')
    return given
