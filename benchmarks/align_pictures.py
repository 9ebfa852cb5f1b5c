"""What the benchmarks of `align` share: their arguments, the captioned pictures, and the file that they write."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import write
from mmalign.alignment.aligner import Aligner
from mmalign.evaluation.manifest import ManifestRow, read_manifest_rows

Measure = Callable[[Aligner, Sequence[ManifestRow]], dict[str, Any]]


def run(name: str, words: list[str], measure: Measure, *, about: str | None, pictures: int) -> None:
    """Measure on the captioned pictures of a manifest, and write the figures.

    Args:
        name: Of the result file; `_no_head` is added where the learned head is left out.
        words: The command line.
        measure: Gives the figures of an aligner on some rows.
        about: What `--help` says.
        pictures: How many pictures are measured by default.

    Raises:
        SourceError: The manifest cannot be read.
        InputError: There is no such split, or no such encoder.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default=None)
    parser.add_argument("--pictures", type=int, default=pictures)
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--head", default="auto")
    asked = parser.parse_args(words)
    rows = [row for row in read_manifest_rows(asked.manifest, split=asked.split) if row.fields.get("captions")]
    rows = rows[: asked.pictures]
    aligner = Aligner(asked.encoder, head=asked.head)
    figures = measure(aligner, rows)
    head = "with its head" if aligner.head is not None else "without a head"
    split = f", split {asked.split}" if asked.split else ""
    data = f"{len(rows)} pictures of {asked.manifest.parent.name}{split}, {aligner.encoder.name} {head}"
    write(name if asked.head == "auto" else f"{name}_no_head", data, figures)
