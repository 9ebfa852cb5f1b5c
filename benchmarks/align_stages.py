"""Where the time of one call of `align` goes: decoding, parsing, encoding, proposing, scoring, solving.

The first call, which loads the models, is told by itself; of the others the median of each stage.

python -m benchmarks.align_stages MANIFEST [--split SPLIT] [--pictures N] [--encoder SPEC] [--head none]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.results import write
from mmalign.aligning import Aligner
from mmalign.evaluation.manifest import ManifestRow, read_manifest
from mmalign.media.images import decode_image

STAGES = ("decode", "parse", "encode", "propose", "score", "solve")


def measure(aligner: Aligner, rows: list[ManifestRow]) -> dict[str, Any]:
    """Median milliseconds of each stage over the pictures after the first."""
    spent: dict[str, list[float]] = defaultdict(list)
    counts: dict[str, list[int]] = defaultdict(list)
    first = 0.0
    for number, row in enumerate(rows):
        sentence = max(row.fields["captions"], key=len)
        began = time.perf_counter()
        found = aligner.align(row.uri, sentence)
        whole = time.perf_counter() - began
        if number == 0:
            first = whole
            continue
        for stage in STAGES:
            spent[stage].append(found.seconds[stage])
        spent["whole"].append(whole)
        counts["phrases"].append(len(found.phrases))
        counts["regions"].append(len(found.regions))
        picture = decode_image(row.uri).image
        began = time.perf_counter()
        found.draw(picture)
        spent["draw"].append(time.perf_counter() - began)
    figures: dict[str, Any] = {f"{name}": statistics.median(values) for name, values in counts.items()}
    for stage in ("whole", *STAGES, "draw"):
        figures[f"{stage} ms"] = round(1000 * statistics.median(spent[stage]), 2)
    return figures | {"first call s": round(first, 2)}


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default=None)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--head", default="auto")
    asked = parser.parse_args(words)
    rows = [row for row in read_manifest(asked.manifest, split=asked.split) if row.fields.get("captions")][
        : asked.pictures
    ]
    aligner = Aligner(asked.encoder, head=asked.head)
    figures = measure(aligner, rows)
    head = "with its head" if aligner.head is not None else "without a head"
    name = "align_stages" if asked.head == "auto" else "align_stages_no_head"
    pictures = f"{len(rows)} pictures of {asked.manifest.parent.name} with their longest captions"
    data = f"{pictures}, {aligner.encoder.name} {head}"
    write(name, data, figures)


if __name__ == "__main__":
    main(sys.argv[1:])
