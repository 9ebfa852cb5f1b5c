"""How many of the boxes that people mean are among the proposed regions: the most that r@1 can be.

`usual MANIFEST` chooses the usual boxes anew from the phrase boxes of the split `train` and writes
`mmalign/alignment/usual_boxes.json`. `measure PHRASES` proposes regions for the pictures of a manifest with exact
boxes and tells, for several numbers of regions, which share of the phrases has a region that overlaps with one of its
boxes by half, and how much the best one overlaps on average; beside it the usual boxes alone and the whole picture.
The settings of the proposals were chosen on one half of the pictures (the first byte of the name's SHA-256 is even);
the other half is told as well.

python -m benchmarks.region_proposals usual MANIFEST
python -m benchmarks.region_proposals measure PHRASES [--every N]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.results import write
from mmalign.encoders.pictures import load_rgb
from mmalign.evaluation.phrases import PhrasePicture, read_phrases
from mmalign.metrics.boxes import iou_matrix
from mmalign.regions.proposals import box_iou, nearness, propose_regions
from mmalign.types import Region

USUAL = Path("mmalign/alignment/usual_boxes.json")
COUNTS = (10, 20, 50, 100, 150)
# Boxes to choose from, and boxes that are to be covered.
_CANDIDATES, _COVERED, _CHOSEN = 4000, 8000, 200
# Boxes narrower than this share of the picture's side name hardly anything.
_LEAST = 0.01

Corners = NDArray[np.float32]


def usual_boxes(corners: Corners, *, count: int = _CHOSEN, seed: int = 0) -> list[list[float]]:
    """Choose the boxes that together overlap with most of the given ones, one after another.

    Args:
        corners: Array of shape (n, 4), float32: left, top, right and bottom as shares of the picture's sides.
        count: How many are chosen.
        seed: Of the samples that are compared.

    Returns:
        Rows of the corners and of the share of the given boxes to which each is the nearest.
    """
    rng = np.random.default_rng(seed)
    candidates = corners[rng.choice(len(corners), min(_CANDIDATES, len(corners)), replace=False)]
    covered = corners[rng.choice(len(corners), min(_COVERED, len(corners)), replace=False)]
    worth = nearness(box_iou(candidates, covered))
    best = np.zeros(worth.shape[1], np.float32)
    chosen: list[int] = []
    for _ in range(min(count, len(candidates))):
        index = int(np.maximum(worth - best, 0).sum(axis=1).argmax())
        chosen.append(index)
        best = np.maximum(best, worth[index])
    nearest = box_iou(candidates[chosen], corners).argmax(axis=0)
    shares = np.bincount(nearest, minlength=len(chosen)) / len(corners)
    return [
        [*(round(float(edge), 3) for edge in candidates[index]), round(float(share), 5)]
        for index, share in zip(chosen, shares, strict=True)
    ]


def phrase_corners(pictures: list[PhrasePicture]) -> Corners:
    """The phrase boxes of some pictures, as shares of their sides, cut off at the edges."""
    rows = []
    for picture in pictures:
        with Image.open(picture.uri) as image:
            width, height = image.size
        for boxes in picture.boxes:
            corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
            rows.append(corners / [width, height, width, height])
    clipped = np.clip(np.concatenate(rows), 0, 1).astype(np.float32)
    return clipped[((clipped[:, 2:] - clipped[:, :2]) > _LEAST).all(axis=1)]


def best_overlaps(picture: PhrasePicture, regions: tuple[Region, ...]) -> NDArray[np.float64]:
    """For each phrase and each number of regions, the best overlap with any of its boxes, shape (p, len(COUNTS))."""
    proposed = np.array([region.box.to_list() for region in regions])
    # A phrase may have several boxes.
    each = np.array([iou_matrix(proposed, boxes).max(axis=1) for boxes in picture.boxes])
    return np.stack([each[:, :count].max(axis=1) for count in COUNTS], axis=1)


def chosen_on(picture: PhrasePicture) -> bool:
    """Whether the settings were chosen on this picture."""
    return hashlib.sha256(Path(picture.uri).name.encode()).digest()[0] % 2 == 0


def measure(pictures: list[PhrasePicture]) -> dict[str, Any]:
    """Recall and mean best overlap of each kind of proposal, over all pictures and over each half."""
    found: dict[str, list[NDArray[np.float64]]] = {"proposals": [], "usual boxes": [], "whole picture": []}
    half, seconds = [], 0.0
    for number, picture in enumerate(pictures):
        if number % 50 == 0:
            print(f"{number} of {len(pictures)} pictures", file=sys.stderr)
        image = load_rgb(picture.uri)
        pixels = np.asarray(image)
        start = time.process_time()
        regions = propose_regions(pixels, most=max(COUNTS))
        seconds += time.process_time() - start
        usual = propose_regions(pixels, most=max(COUNTS), segments=False)
        found["proposals"].append(best_overlaps(picture, regions))
        found["usual boxes"].append(best_overlaps(picture, usual))
        whole = np.array([[0, 0, *image.size]], np.float64)
        ceiling = np.array([iou_matrix(whole, boxes).max() for boxes in picture.boxes])
        found["whole picture"].append(np.repeat(ceiling[:, None], len(COUNTS), axis=1))
        half += [chosen_on(picture)] * len(picture.phrases)
    chosen = np.array(half)
    figures: dict[str, Any] = {}
    for kind, rows in found.items():
        table = np.concatenate(rows)
        for name, among in (("", np.ones(len(table), bool)), (", chosen on", chosen), (", not", ~chosen)):
            if not among.any() or (kind == "whole picture" and name):
                continue
            figures[f"{kind}{name}, recall"] = {
                f"{count} regions": round(100 * float((table[among, column] >= 0.5).mean()), 1)
                for column, count in enumerate(COUNTS)
            }
            if not name:
                figures[f"{kind}, mean best overlap"] = {
                    f"{count} regions": round(100 * float(table[:, column].mean()), 1)
                    for column, count in enumerate(COUNTS)
                }
    figures["seconds of one core a picture"] = {f"{max(COUNTS)} regions": round(seconds / len(pictures), 2)}
    return figures


def main() -> None:
    """Run the command that is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["usual", "measure"])
    parser.add_argument("manifest")
    parser.add_argument("--every", type=int, default=1, help="measure on every n-th picture")
    asked = parser.parse_args()
    if asked.command == "usual":
        rows = usual_boxes(phrase_corners(read_phrases(asked.manifest, split="train")))
        lines = ",\n".join(" " + json.dumps(row) for row in rows)
        USUAL.write_text('{"boxes": [\n' + lines + "\n]}\n", encoding="utf-8")
        print(f"{len(rows)} boxes in {USUAL}")
        return
    pictures = read_phrases(asked.manifest)[:: asked.every]
    phrases = sum(len(picture.phrases) for picture in pictures)
    told = f"{len(pictures)} pictures and {phrases} phrases of Flickr8k with exact boxes"
    write("region_proposals", told, measure(pictures))


if __name__ == "__main__":
    main()
