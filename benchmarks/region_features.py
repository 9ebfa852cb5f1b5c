"""How well regions are told apart by each way of embedding them, with no training: r@1 where the boxes are given.

The candidates of a picture are all boxes of its phrases; a phrase is right where the region with the highest cosine
overlaps with one of its boxes by half. Each way is told as it is, and less what a region's cosine is on average
over the picture's phrases, which takes away what makes a region alike to every text.

python -m benchmarks.region_features PHRASES [--encoder SPEC] [--every N]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

import numpy as np

from benchmarks.region_proposals import chosen_on
from benchmarks.results import write
from mmalign.encoders.pictures import load_rgb
from mmalign.encoders.region_features import RegionMethod, encode_regions
from mmalign.encoders.registry import load_encoder
from mmalign.evaluation.phrases import PhrasePicture, read_phrases
from mmalign.metrics.boxes import iou_matrix
from mmalign.types import Box
from mmalign.utils.similarity import Float32Array

WAYS: tuple[RegionMethod, ...] = ("dense", "pooled", "crop", "context")
MIXES = (*((way,) for way in WAYS), ("crop", "context"), ("pooled", "context"), ("pooled", "crop", "context"))


def right(picture: PhrasePicture, boxes: list[Box], cosines: Mapping[str, Float32Array]) -> dict[str, list[bool]]:
    """Whether each phrase gets one of its boxes, for each mix of ways, plain and less the regions' own mean.

    Args:
        picture: Its phrases and their boxes.
        boxes: The candidates, r of them.
        cosines: For each way an array of shape (p, r).

    Returns:
        Lists of p truths by the name of the mix.
    """
    corners = np.array([box.to_list() for box in boxes])
    fits = np.stack([iou_matrix(corners, truth).max(axis=1) >= 0.5 for truth in picture.boxes])
    told = {"chance": fits.mean(axis=1).tolist()}
    for mix in MIXES:
        scores = np.sum([cosines[way] for way in mix], axis=0)
        for name, chosen in (("", scores), (", centred", scores - scores.mean(axis=0))):
            picks = chosen.argmax(axis=1)
            told[" + ".join(mix) + name] = [bool(row[pick]) for row, pick in zip(fits, picks, strict=True)]
    return told


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("--encoder", default="lite")
    parser.add_argument("--every", type=int, default=1, help="measure on every n-th picture")
    asked = parser.parse_args()
    encoder = load_encoder(asked.encoder)
    pictures = read_phrases(asked.manifest)[:: asked.every]
    found: dict[str, list[float]] = {}
    halves: list[bool] = []
    for number, picture in enumerate(pictures):
        if number % 50 == 0:
            print(f"{number} of {len(pictures)} pictures", file=sys.stderr)
        image = load_rgb(picture.uri)
        rows = {tuple(row) for truth in picture.boxes for row in truth.tolist()}
        boxes = [Box(*row).clipped(*image.size) for row in sorted(rows)]
        features = encode_regions(encoder, image, boxes, ways=WAYS)
        texts = encoder.encode_text(list(picture.phrases))
        truths = right(picture, boxes, {way: texts @ rows.T for way, rows in features.items()})
        for name, values in truths.items():
            found.setdefault(name, []).extend(values)
        halves += [chosen_on(picture)] * len(picture.phrases)
    half = np.array(halves)
    figures = {
        f"{name}, r@1": {
            "all": round(100 * float(np.mean(values)), 1),
            "one half": round(100 * float(np.mean(np.array(values)[half])), 1),
            "other half": round(100 * float(np.mean(np.array(values)[~half])), 1),
        }
        for name, values in found.items()
    }
    told = (
        f"{len(pictures)} pictures and {len(halves)} phrases of Flickr8k with exact boxes, which are the candidates; "
        f"{encoder.name} {encoder.fingerprint[:12]}"
    )
    write("region_features", told, figures)


if __name__ == "__main__":
    main()
