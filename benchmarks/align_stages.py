"""Where the time of one call of `align` goes: decoding, parsing, encoding, proposing, scoring, solving.

The first call, which loads the models, is told by itself; of the others the median of each stage.

python -m benchmarks.align_stages MANIFEST [--split SPLIT] [--pictures N] [--encoder SPEC] [--head none]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from typing import Any

from benchmarks.align_pictures import run
from mmalign.alignment.aligner import Aligner
from mmalign.evaluation.manifest import ManifestRow
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
    run("align_stages", words, measure, about=__doc__, pictures=60)


if __name__ == "__main__":
    main(sys.argv[1:])
