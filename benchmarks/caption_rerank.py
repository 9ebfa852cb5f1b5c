"""What it changes to let the alignment have a say in which draft of a caption is taken (`--rerank-by-alignment`).

Each picture is captioned twice from the same retrieved captions, those of another split: by the decoder's own choice
among its drafts, and with how well the phrases of the eight best of them are found in the picture. Told are the metrics
of both, for how many pictures another draft was taken, and the difference of CIDEr-D with a 95% interval over pictures.

python -m benchmarks.caption_rerank MANIFEST --split dev [--datastore-split train] [--pictures 200]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import write
from mmalign.alignment.aligner import Aligner
from mmalign.captioning.captioner import Captioner
from mmalign.captioning.retrieval import TextStore
from mmalign.captioning.verify import AlignmentJudge
from mmalign.evaluation.manifest import read_manifest_rows
from mmalign.media.images import decode_image
from mmalign.metrics.caption import score_captions
from mmalign.metrics.retrieval import bootstrap_interval
from mmalign.utils.progress import track


def measure(manifest: Path, *, split: str, datastore_split: str, pictures: int) -> dict[str, Any]:
    """Caption the pictures both ways, and score the captions."""
    aligner = Aligner("lite")
    encoder = aligner.encoder
    told = [
        caption for row in read_manifest_rows(manifest, split=datastore_split) for caption in row.fields["captions"]
    ]
    captioner = Captioner(encoder, TextStore(told, encoder.encode_text(told)))
    rows = read_manifest_rows(manifest, split=split)[:pictures]
    said: dict[str, list[str]] = {"as the decoder ranks": [], "with the alignment": []}
    taken = dict.fromkeys(said, 0.0)
    with track("Captions", len(rows)) as advance:
        for row in rows:
            picture = decode_image(row.uri).image
            vector = encoder.encode_image([picture])[0]
            for name, judge in zip(said, (None, AlignmentJudge(picture, aligner)), strict=True):
                started = time.perf_counter()
                said[name].append(captioner.caption(vector, judge=judge).text)
                taken[name] += time.perf_counter() - started
            advance(1)
    references = [row.fields["captions"] for row in rows]
    scores = {name: score_captions(captions, references) for name, captions in said.items()}
    first, second = scores.values()
    gains = 100 * (second.cider - first.cider)
    low, high = bootstrap_interval(gains, groups=np.arange(len(gains)))
    figures: dict[str, Any] = {
        name: {
            **{key: round(value, 1) for key, value in one.figures().items()},
            "s a picture": round(taken[name] / len(rows), 2),
        }
        for name, one in scores.items()
    }
    other = np.mean([one != two for one, two in zip(*said.values(), strict=True)])
    figures["another draft taken, percent"] = {"value": round(100 * float(other), 1)}
    figures["difference of CIDEr-D"] = {"value": round(float(gains.mean()), 2), "95%": f"{low:.2f} to {high:.2f}"}
    return figures


def main(words: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--datastore-split", default="train")
    parser.add_argument("--pictures", type=int, default=200)
    asked = parser.parse_args(words)
    figures = measure(asked.manifest, split=asked.split, datastore_split=asked.datastore_split, pictures=asked.pictures)
    data = (
        f"{asked.pictures} pictures of {asked.manifest.parent.name}, split {asked.split}, captions of split "
        f"{asked.datastore_split} as the datastore"
    )
    write("caption_rerank", data, figures)


if __name__ == "__main__":
    main(sys.argv[1:])
