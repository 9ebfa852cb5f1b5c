"""How often a phrase of a caption is flagged as not found: in its place, and swapped for something absent.

Of each picture one caption that a person wrote, as `mmalign caption --ground` would check it. One of its phrases is
swapped for a phrase of another picture's caption whose head noun is in none of this picture's captions (and which is no
person where they tell of one); once more for one of a few things that nobody leaves out who sees them. What is told is
the share of the phrases left in place that are flagged, of the swapped phrases, and of the phrases beside those. People
leave things out, so that some of the swapped phrases, of the first kind above all, are in the picture after all.
Intervals cover 95%, drawn over pictures.

python -m benchmarks.caption_grounding MANIFEST [--split SPLIT] [--pictures N] [--encoder SPEC] [--head none]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.align_pictures import run
from mmalign.alignment.aligner import Aligner
from mmalign.captioning.verify import phrase_spans
from mmalign.evaluation.existence import is_named
from mmalign.evaluation.manifest import ManifestRow
from mmalign.media.images import decode_image
from mmalign.metrics.retrieval import bootstrap_interval
from mmalign.parsing.lexicon import PEOPLE
from mmalign.types import CaptionSpan
from mmalign.utils.progress import track

THINGS = (
    "a horse", "a cow", "an elephant", "a sheep", "a cat", "a giraffe", "an airplane", "a train", "a bus", "a boat",
    "a piano", "a guitar", "a birthday cake", "a pizza", "a laptop", "a refrigerator", "a toilet", "a bed",
    "a surfboard", "a traffic light", "a motorcycle", "a teddy bear", "an umbrella", "a kite",
)  # fmt: skip
"""Conspicuous things: who sees one says so."""
# Other words for them.
_ALSO = {
    "airplane": ("plane", "jet"),
    "boat": ("ship", "sail", "canoe", "kayak", "raft"),
    "motorcycle": ("bike",),
    "horse": ("pony", "rodeo", "bronco"),
    "cow": ("bull", "cattle", "calf"),
    "cat": ("kitten",),
    "train": ("subway", "rail"),
    "surfboard": ("surf",),
    "light": ("intersection", "street"),
    "bear": ("toy",),
    "cake": ("birthday",),
    "bed": ("mattress",),
    "kite": ("parasail", "paragli"),
    "laptop": ("computer",),
}
KINDS = ("phrase of another picture", "conspicuous thing")


@dataclass
class Flags:
    """Whether phrases were flagged, and of which picture each is."""

    owners: list[int] = field(default_factory=list)
    flagged: list[bool] = field(default_factory=list)

    def add(self, owner: int, spans: Sequence[CaptionSpan]) -> None:
        """Take in the phrases of a picture."""
        self.owners += [owner] * len(spans)
        self.flagged += [not span.supported for span in spans]

    def to_dict(self) -> dict[str, Any]:
        """The rate."""
        if not self.flagged:
            return {"phrases": 0}
        values = np.array(self.flagged, float)
        low, high = bootstrap_interval(values, groups=np.array(self.owners))
        return {
            "phrases": len(values),
            "flagged, percent": round(100 * float(values.mean()), 1),
            "95%": f"{100 * low:.1f} to {100 * high:.1f}",
        }


def is_absent(phrase: str, captions: Sequence[str]) -> bool:
    """Whether no caption names what a phrase names, as far as words tell."""
    said = " ".join(captions)
    head = phrase.lower().split()[-1]
    people = {word for word in re.findall(r"[a-z]+", said.lower()) if word in PEOPLE}
    if is_named(phrase, said) or (head in PEOPLE and people):
        return False
    return not any(word in said.lower() for word in _ALSO.get(head, ()))


def swap(caption: str, span: CaptionSpan, phrase: str) -> tuple[str, int, int]:
    """The caption with a phrase in another's place, and where it now is."""
    if span.start == 0:
        phrase = phrase[:1].upper() + phrase[1:]
    return caption[: span.start] + phrase + caption[span.end :], span.start, span.start + len(phrase)


def split_spans(spans: Sequence[CaptionSpan], start: int, end: int) -> tuple[list[CaptionSpan], list[CaptionSpan]]:
    """Those that touch a place, and the others."""
    at = [span for span in spans if span.start < end and start < span.end]
    return at, [span for span in spans if span not in at]


def measure(aligner: Aligner, rows: Sequence[ManifestRow], *, seed: int = 0) -> dict[str, Any]:
    """Rates of flags over some pictures."""
    rng = np.random.default_rng(seed)
    captions = [row.fields["captions"][int(rng.integers(len(row.fields["captions"])))] for row in rows]
    kept, swapped, beside = Flags(), {kind: Flags() for kind in KINDS}, {kind: Flags() for kind in KINDS}
    missed = dict.fromkeys(KINDS, 0)
    pictures = [decode_image(row.uri).image for row in rows]
    spoken = []
    with track("Captions as they are", len(rows)) as advance:
        for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            spoken.append(phrase_spans(aligner.align(picture, caption)))
            kept.add(number, spoken[-1])
            advance(1)
    others = [span.text for spans in spoken for span in spans]
    with track("Swapped phrases", len(rows)) as advance:
        for number, row in enumerate(rows):
            for kind, source in zip(KINDS, (others, THINGS), strict=True):
                drawn = (source[int(place)] for place in rng.integers(len(source), size=100))
                phrase = next((text for text in drawn if is_absent(text, row.fields["captions"])), None)
                if phrase is None or not spoken[number]:
                    continue
                span = spoken[number][int(rng.integers(len(spoken[number])))]
                phrase = phrase[:1].lower() + phrase[1:]
                sentence, start, end = swap(captions[number], span, phrase)
                at, rest = split_spans(phrase_spans(aligner.align(pictures[number], sentence)), start, end)
                # The parser may not take the words for a phrase; then nothing was looked for.
                missed[kind] += not at
                swapped[kind].add(number, at[:1])
                beside[kind].add(number, rest)
            advance(1)
    figures: dict[str, Any] = {"left in place": kept.to_dict()}
    for kind in KINDS:
        figures[f"swapped for a {kind}"] = {**swapped[kind].to_dict(), "not taken for a phrase": missed[kind]}
        figures[f"beside a {kind}"] = beside[kind].to_dict()
    return figures


def main(words: list[str]) -> None:
    run("caption_grounding", words, measure, about=__doc__, pictures=300)


if __name__ == "__main__":
    main(sys.argv[1:])
