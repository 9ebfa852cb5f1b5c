"""How often the region that an alignment cites is what its phrase's similarity comes from.

For each phrase of a caption that was matched, the cited region is painted over with the colour of what is around it,
and so are five regions of the same size elsewhere. Told is the share of the phrases whose cosine with the whole picture
falls more by the first than by the mean of the others; a region chosen at random would reach about 50. The cosine is
the encoder's own: the learned head, which chose the region, has no part in it. Phrases whose region covers more than
half of the picture leave no room elsewhere and are left out.

python -m benchmarks.align_explain MANIFEST [--split SPLIT] [--pictures N] [--encoder SPEC] [--head none]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.align_pictures import run
from mmalign.alignment.ablation import Ablation, ablate_region
from mmalign.alignment.aligner import Aligner, referent_texts
from mmalign.encoders.base import Encoder
from mmalign.evaluation.manifest import ManifestRow
from mmalign.media.images import decode_image
from mmalign.metrics.retrieval import bootstrap_interval
from mmalign.utils.progress import track

_LARGEST = 0.5


def removals(aligner: Aligner, row: ManifestRow, *, seed: int) -> list[Ablation]:
    """What painting over did to each matched phrase of a picture's longest caption."""
    picture = decode_image(row.uri).image
    found = aligner.align(picture, max(row.fields["captions"], key=len))
    texts = referent_texts(found.phrases)
    rng = np.random.default_rng(seed)
    done = []
    for link in found.links:
        box = found.regions[link.region].box
        if box.area > _LARGEST * picture.width * picture.height:
            continue
        text = aligner.encoder.encode_text([texts[link.phrase]])[0]
        done.append(ablate_region(np.asarray(picture), box, _cosine(aligner.encoder, text), rng=rng))
    return done


def _cosine(encoder: Encoder, text: NDArray[np.float32]) -> Any:
    return lambda pixels: float(encoder.encode_image([Image.fromarray(pixels)])[0] @ text)


def measure(aligner: Aligner, rows: list[ManifestRow]) -> dict[str, Any]:
    """The rate and the mean falls over some pictures, with 95% intervals over pictures."""
    owner, found = [], []
    with track("Painting over", len(rows)) as advance:
        for number, row in enumerate(rows):
            for removal in removals(aligner, row, seed=number):
                owner.append(number)
                found.append(removal)
            advance(1)
    faithful = np.array([removal.faithful for removal in found], float)
    gain = np.array([removal.cited - removal.other for removal in found])
    figures: dict[str, Any] = {"pictures": len(rows), "phrases": len(found)}
    for name, values, scale, digits in (
        ("cited region matters more, percent", faithful, 100, 1),
        ("further fall of the cosine", gain, 1, 4),
    ):
        low, high = bootstrap_interval(values, groups=np.array(owner))
        figures[name] = {
            "value": round(scale * float(values.mean()), digits),
            "95%": f"{scale * low:.{digits}f} to {scale * high:.{digits}f}",
        }
    return figures


def main(words: list[str]) -> None:
    run("align_explain", words, measure, about=__doc__, pictures=150)


if __name__ == "__main__":
    main(sys.argv[1:])
